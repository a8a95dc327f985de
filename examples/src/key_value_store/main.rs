//! A key-value store in the Redis protocol, sharded by worker: no lock, no atomic, and every core has its own keys.
//!
//! Run it with `cargo run --release --bin key_value_store` (or with an address behind it) and use any client of Redis:
//! `redis-cli -p 7002 set tea hot ex 60`, then `get tea` and `ttl tea`; `redis-benchmark -p 7002 -t set,get -P 16` for speed.
//! `--workers N` says how many shards there are, `--memory-mib N` what all keys together may take, with all that is kept for them, `--backend NAME` what they run on.
//!
//! | file | story |
//! |---|---|
//! | `resp` | requests and answers as bytes, and what is refused |
//! | `shard` | the keys of one worker: commands on one key each, and keys that expire |
//! | `session` | one client: which worker has its key, batches to the others, answers in order |
//!
//! It shows a [`state`](netpoll_core::Builder::state) for each worker, code that is sent to the worker that owns the data
//! ([`run_on`](netpoll_core::Commands::run_on)), its answer as a message to the connection
//! ([`tell`](netpoll_core::Commands::tell)), and a timer that removes keys whose time is over
//! ([`every`](netpoll_core::Builder::every)). Whatever a client has sent at once goes to each other worker as one message, and
//! comes back as one. Requests for several keys are carried out key by key: another client may see a part of an `MSET`.

mod resp;
mod session;
mod shard;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::time::Duration;

use netpoll_core::{Backend, ConnLimits, Local, Runtime, WorkerInfo, Workers};

use session::{Session, Store};

/// How often keys are looked for whose time is over. They are not found before either: this is for their memory.
const SWEEP_PERIOD: Duration = Duration::from_millis(100);
/// Keys removed at once; the rest goes when others have had their turn.
const SWEPT_AT_ONCE: usize = 1000;

/// Removes the keys of this worker whose time is over.
fn sweep(local: &mut Local<'_>) {
    let swept = local.state::<Store>().shard.borrow_mut().sweep(local.now(), SWEPT_AT_ONCE);
    if swept == SWEPT_AT_ONCE {
        local.commands().after(Duration::ZERO, sweep);
    }
}

struct Options {
    addr: String,
    workers: Workers,
    backend: Backend,
    memory_mib: usize,
}

impl Options {
    fn parse() -> Result<Self, lexopt::Error> {
        use lexopt::prelude::*;
        let mut options = Self {
            addr: "127.0.0.1:7002".to_owned(),
            workers: Workers::Auto,
            backend: Backend::Auto,
            memory_mib: 256,
        };
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("workers") => options.workers = Workers::Count(parser.value()?.parse()?),
                Long("backend") => options.backend = parser.value()?.parse()?,
                Long("memory-mib") => options.memory_mib = parser.value()?.parse()?,
                Value(addr) => options.addr = addr.string()?,
                other => return Err(other.unexpected()),
            }
        }
        Ok(options)
    }
}

fn main() -> io::Result<()> {
    let options = Options::parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let memory_bytes = options.memory_mib.saturating_mul(1 << 20);
    let server = Runtime::builder()
        .workers(options.workers)
        .backend(options.backend)
        .limits(ConnLimits::default().input_bytes_max(session::INPUT_BYTES_MAX))
        .state(move |worker| Store::new(worker.index, worker.workers, memory_bytes / worker.workers))
        .every(SWEEP_PERIOD, |_worker| sweep)
        .listen(options.addr, |worker: &WorkerInfo| {
            let store = worker.state::<Store>();
            move |_peer| Session::new(&store)
        })?
        .stop_on_signals(true)
        .start()?;
    let mut out = io::stdout();
    let shards = server.handle().workers();
    for addr in server.local_addrs() {
        writeln!(out, "{shards} shards for clients of Redis on {addr}")?;
    }

    let report = server.wait()?;
    writeln!(out, "{report}\n{} requests", report.stats.requests)
}
