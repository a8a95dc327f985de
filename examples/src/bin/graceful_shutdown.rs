//! A server that ends well: who is being served gets the answer, everybody else is told to go elsewhere.
//!
//! Run it with `cargo run --bin graceful_shutdown` (or with an address behind it). In a second terminal
//! run `curl http://127.0.0.1:8081/slow`, which takes three seconds, and within them press Ctrl-C in the first.
//! New connections are refused from then on, but curl still prints `done`; then the server prints
//! how many connections were open, how long the end took, and whether it had to cut any.
//! `curl http://127.0.0.1:8081/slow/30` takes longer than the ten seconds that a drain may take: it is cut.

use std::fmt::Display;
use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use futures_channel::oneshot;
use netpoll_http::{Error, Request, Router, Server};

/// How long connections get to end.
const DRAIN: Duration = Duration::from_secs(10);

/// Work that takes its time somewhere else: here a thread that sleeps, in earnest a database. The
/// worker serves others until the answer is there; a handler itself must never sleep.
async fn report_after(seconds: u64) -> Result<&'static str, Error> {
    let (ready, report) = oneshot::channel();
    say(format_args!("working for {seconds} s"));
    thread::Builder::new()
        .spawn(move || {
            thread::sleep(Duration::from_secs(seconds));
            // Whoever asked may be gone by now.
            let _ = ready.send("done\n");
        })
        .map_err(Error::internal)?;
    report.await.map_err(Error::internal)
}

fn say(text: impl Display) {
    // Whoever closed our output (`| head -1`) does not want to read this, but may want the server.
    let _ = writeln!(io::stdout(), "{text}");
}

fn main() -> io::Result<()> {
    let (backend, mut words) = examples::words()?;
    let addr = words.next().unwrap_or("127.0.0.1:8081".to_owned());
    let server = Server::bind(addr)?
        .runtime(move |builder| builder.backend(backend).stop_on_signals(true).drain_within(DRAIN))
        .app(|_worker| {
            Router::new()
                .get("/", |_: &Request| "try /slow\n")
                .get("/slow", async |_: Request| report_after(3).await)
                .get("/slow/{seconds}", async |req: Request| report_after(req.param("seconds")?).await)
        })
        .start()?;
    say(format_args!("graceful_shutdown listens on http://{}", server.addr()));

    let report = server.wait()?;
    say(&report);
    match report.cut {
        0 => Ok(()),
        cut => Err(io::Error::new(io::ErrorKind::TimedOut, format!("{cut} connections were cut"))),
    }
}
