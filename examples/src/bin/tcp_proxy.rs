//! A TCP proxy: what a client says goes to a backend, and what that says goes back, until both have ended.
//!
//! Run it with `cargo run --bin tcp_proxy 127.0.0.1:7003 127.0.0.1:7000` in front of `cargo run --bin echo`, and talk to it with
//! `nc -N 127.0.0.1 7003`. Behind the addresses may stand the idle time in seconds (60) and the most connections of a worker
//! (100 000), both halves counted. Half-closes go through, and so do resets: of a client, of a backend, of one that refuses. A
//! slow reader stops its writer, at the cost of 128 KiB. A drain (Ctrl-C) lets pairs go on for 10 s.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use netpoll_core::{Conn, ConnLimits, ConnectOptions, Flow, Input, Protocol, Runtime};

/// One half of a pair. The accepted one knows whom to dial.
struct Half {
    backend: Option<SocketAddr>,
    idle: Duration,
}

impl Protocol for Half {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.set_deadline(self.idle);
        if let Some(addr) = self.backend {
            let (client, half) = (conn.id(), Self { backend: None, ..*self });
            // The idle time finds dead ends.
            let options = ConnectOptions::default().keepalive(None).user_timeout(None);
            let backend = conn.commands().connect(addr, options, half);
            conn.commands().forward(client, backend);
            conn.commands().forward(backend, client);
        }
        Flow::Continue
    }

    fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        unreachable!("all that comes is forwarded")
    }

    fn deadline(&mut self, conn: &mut Conn<'_>) -> Flow {
        match conn.forwarded_at().map(|at| at.saturating_add(self.idle)) {
            Some(next) if next > conn.now() => conn.set_deadline_at(next),
            _ => return Flow::Reset, // and the other half goes with it
        }
        Flow::Continue
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (driver, mut words) = examples::words()?;
    let addr = words.next().ok_or("tcp_proxy LISTEN BACKEND [IDLE_SECONDS] [CONNECTIONS_MAX]")?;
    let backend = Some(words.next().ok_or("which backend?")?.parse()?);
    let idle = Duration::from_secs(words.next().map_or(Ok(60), |word| word.parse())?);
    let connections_max = words.next().map_or(Ok(100_000), |word| word.parse())?;
    let limits = ConnLimits::default().connections_max(connections_max);
    let runtime = Runtime::builder().backend(driver).limits(limits).stop_on_signals(true);
    let server = runtime.listen(addr, move |_worker| move |_peer| Half { backend, idle })?.start()?;
    // Whoever closed our output (`| head -1`) does not want to read this, but may want the server.
    let _ = writeln!(io::stdout(), "tcp_proxy listens on {}", server.local_addrs()[0]);
    let _ = writeln!(io::stdout(), "{}", server.wait()?);
    Ok(())
}
