//! A protocol of your own on plain TCP, in its smallest form: whatever comes goes back.
//!
//! Run it with `cargo run --bin echo` (or `cargo run --bin echo 127.0.0.1:9000`) and talk to it with
//! `nc 127.0.0.1 7000`. Every line that you type comes back. Ctrl-C ends the server and prints what it
//! did, and how many system calls a connection cost.
//!
//! A [`Protocol`] is one value per connection, called back on the connection's worker. A client that sends but
//! never reads costs 256 KiB at most: beyond that the runtime stops reading from it.

use std::fmt::Display;
use std::io::{self, Write};

use netpoll_core::{Conn, Flow, Input, Protocol, Runtime};

struct Echo;

impl Protocol for Echo {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        // The whole answer is one slice: it leaves at once, without a copy. Several pieces go out together by `send`.
        conn.send_now(input.bytes());
        input.advance_all();
        Flow::Continue
    }

    // `eof` is left as it is: when the client has sent its last byte, the rest of its echo leaves, and
    // then the connection closes.
}

fn say(text: impl Display) {
    // Whoever closed our output (`| head -1`) does not want to read this, but may want the server.
    let _ = writeln!(io::stdout(), "{text}");
}

fn main() -> io::Result<()> {
    let (backend, mut words) = examples::words()?;
    let addr = words.next().unwrap_or("127.0.0.1:7000".to_owned());
    let runtime = Runtime::builder().backend(backend).stop_on_signals(true);
    let server = runtime.listen(addr, |_worker| |_peer| Echo)?.start()?;
    for addr in server.local_addrs() {
        say(format_args!("echo listens on {addr}"));
    }

    let report = server.wait()?;
    let calls = report.stats.syscalls() as f64 / report.stats.accepted.max(1) as f64;
    say(format_args!("{report}; {calls:.1} system calls for each connection"));
    Ok(())
}
