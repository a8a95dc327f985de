//! A line protocol on plain TCP: a small key-value store that all workers share.
//!
//! Run it with `cargo run --bin line_protocol` (or with an address behind it), then `nc 127.0.0.1 7001`:
//! `SET tea hot` answers `OK`, `GET tea` answers `hot`, `DEL tea` answers `OK`, and a second `GET tea` answers
//! `NONE`. Pipes work as well: `printf 'SET a 1\nGET a' | nc -N 127.0.0.1 7001` prints `OK` and `1`.
//!
//! It shows what a protocol does with pieces of a message (leave them, they are offered again), with a
//! client that never ends its line (a limit), with one that sends but does not read (`is_backed_up`),
//! and with one that has sent all it will send but still wants its answers (`eof`).

use std::collections::HashMap;
use std::fmt::Display;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use netpoll_core::{Conn, Flow, Input, Protocol, Runtime};

/// Bytes of a line without its end.
const LINE_BYTES_MAX: usize = 1024;
/// Keys that are stored.
const KEYS_MAX: usize = 10_000;
/// How long a connection may be silent.
const IDLE_TIME_MAX: Duration = Duration::from_secs(60);

type Store = Mutex<HashMap<Vec<u8>, Vec<u8>>>;

struct Lines {
    store: Arc<Store>,
}

impl Protocol for Lines {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.set_deadline(IDLE_TIME_MAX); // then `deadline` is called, which closes
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        conn.set_deadline(IDLE_TIME_MAX);
        while let Some(end) = input.bytes().iter().position(|byte| *byte == b'\n') {
            if conn.is_backed_up() {
                return Flow::Yield; // the rest is offered again when the client has read
            }
            let line = &input.bytes()[..end];
            input.advance(end + 1);
            if !self.answer(conn, line) {
                return Flow::Linger;
            }
        }
        if input.len() > LINE_BYTES_MAX {
            conn.send_static(b"ERR a line has at most 1024 bytes\n");
            return Flow::Linger; // the client may still be sending: let it read this first
        }
        if conn.is_finished_by_peer() { self.last(conn, input) } else { Flow::Continue }
    }

    fn eof(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.received(conn, input)
    }
}

impl Lines {
    /// The last line may come without its end.
    fn last(&self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        if !input.is_empty() {
            self.answer(conn, input.bytes());
            input.advance_all();
        }
        Flow::Close
    }

    /// Answers one line. False when the connection is to end.
    fn answer(&self, conn: &mut Conn<'_>, line: &[u8]) -> bool {
        if line.len() > LINE_BYTES_MAX {
            conn.send_static(b"ERR a line has at most 1024 bytes\n");
            return false;
        }
        let mut words = line.trim_ascii_end().splitn(3, |byte| *byte == b' ');
        // Held for a look-up only; a store that is asked millions of times a second has one map per worker.
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        match (words.next(), words.next(), words.next()) {
            (Some(b"SET"), Some(key), Some(_)) if store.len() >= KEYS_MAX && !store.contains_key(key) => {
                conn.send_static(b"ERR the store is full\n");
            }
            (Some(b"SET"), Some(key), Some(value)) => {
                store.insert(key.to_vec(), value.to_vec());
                conn.send_static(b"OK\n");
            }
            (Some(b"GET"), Some(key), None) => match store.get(key) {
                Some(value) => {
                    conn.send(value);
                    conn.send_static(b"\n");
                }
                None => conn.send_static(b"NONE\n"),
            },
            (Some(b"DEL"), Some(key), None) => {
                conn.send_static(if store.remove(key).is_some() { b"OK\n" } else { b"NONE\n" });
            }
            _ => conn.send_static(b"ERR say SET key value, GET key or DEL key\n"),
        }
        conn.count_requests(1);
        true
    }
}

fn say(text: impl Display) {
    // Whoever closed our output (`| head -1`) does not want to read this, but may want the server.
    let _ = writeln!(io::stdout(), "{text}");
}

fn main() -> io::Result<()> {
    let (backend, mut words) = examples::words()?;
    let addr = words.next().unwrap_or("127.0.0.1:7001".to_owned());
    let store = Arc::new(Store::default());
    let listen = move |_worker: &_| {
        let store = Arc::clone(&store);
        move |_peer| Lines { store: Arc::clone(&store) }
    };
    let runtime = Runtime::builder().backend(backend).stop_on_signals(true);
    let server = runtime.listen(addr, listen)?.start()?;
    say(format_args!("line_protocol listens on {}", server.local_addrs()[0]));

    let report = server.wait()?;
    say(format_args!("{report}\n{}", report.stats));
    Ok(())
}
