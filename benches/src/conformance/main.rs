//! How many of the conformance cases of netpoll-http another HTTP/1.1 server passes.
//!
//! The cases are those of `netpoll-http/tests/conformance/cases`, the files themselves. A server needs the routes
//! `GET /plaintext`, `GET /json` and `POST /echo`; cases for routes it lacks are not judged. What raw bytes show
//! of framing decides: is a request served or refused, is nothing served behind broken framing, does the
//! connection stay or end. Any 4xx or 5xx counts as a refusal, and so does an end without an answer
//! where the bytes cannot be parsed.
//!
//! `must`: RFC 9110 or 9112 says MUST, or the case is a known way to smuggle requests. `ours`: what netpoll-http
//! chose where the RFCs leave a choice; to differ from it is no fault. `stricter`: cases of both columns that were
//! refused although the RFCs permit to serve them.
//!
//! Use: `conformance --to 127.0.0.1:8080 [--name hyper] [--json] [--verbose]`. Ends with 0 if it ran, whatever it
//! found. Connects to 127.0.0.0/8 only. Every exchange ends within 5 s; 16 run at a time.

mod answers;
#[expect(dead_code, reason = "shared with the tests of netpoll-http, which use all of it")]
#[path = "../../../netpoll-http/tests/conformance/cases/mod.rs"]
mod cases;
mod exchange;
mod judge;
mod report;
mod site;

use benches::{known_options, option};
use cases::{Case, Level, Row, SECTIONS};
use judge::Verdict;
use report::Report;
use site::Site;
use std::error::Error;
use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Exchanges that run at a time: most of them wait for the server, and one that hangs holds up no other.
const AT_A_TIME: usize = 16;

/// A case in its place, and what came of it.
struct Judged {
    section: &'static str,
    row: &'static Row,
    level: Level,
    case: Case,
    verdict: Verdict,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = benches::arguments(include_str!("main.rs"));
    known_options(&args, &["--to", "--name"], &["--json", "--verbose"])?;
    let is_set = |switch: &str| args.iter().any(|arg| arg == switch);
    let to: SocketAddrV4 = option(&args, "--to", "127.0.0.1:8080".parse()?)?;
    if !to.ip().is_loopback() {
        return Err(format!("{to} is not in 127.0.0.0/8").into());
    }
    let name = option(&args, "--name", to.to_string())?;
    let report = run(to, name)?;
    if is_set("--json") {
        println!("{}", report.json());
    } else {
        print!("{}", report.text(is_set("--verbose")));
    }
    Ok(())
}

/// Sends all cases to the server and judges what comes back.
fn run(to: SocketAddrV4, name: String) -> Result<Report, Box<dyn Error>> {
    let site = Site::probe(to)?;
    let mut waiting: Vec<(&str, &Row, Case)> = Vec::new();
    for (section, rows) in SECTIONS {
        for row in rows {
            waiting.extend((row.cases)().into_iter().map(|case| (section, row, case)));
        }
    }
    let next = AtomicUsize::new(0);
    let judge_some = || {
        let mut verdicts = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some((_, row, case)) = waiting.get(at) else { return verdicts };
            verdicts.push((at, judge::judge(&site, case, case.level.unwrap_or(row.level))));
        }
    };
    let mut verdicts: Vec<(usize, Verdict)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(judge_some)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("judging does not panic")).collect()
    });
    verdicts.sort_unstable_by_key(|(at, _)| *at);
    let judged = waiting.into_iter().zip(verdicts).map(|((section, row, case), (_, verdict))| {
        let level = case.level.unwrap_or(row.level);
        Judged { section, row, level, case, verdict }
    });
    Ok(Report { name, to, has_echo: site.has_echo, judged: judged.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use netpoll_http::{Reply, Request, Router, Server, StatusCode, Worker};
    use std::net::SocketAddr;
    use std::time::Duration;

    fn router() -> Router {
        Router::new()
            .get("/plaintext", |_: &Request| "Hello, World!")
            .get("/json", |_: &Request| "{\"message\":\"Hello, World!\"}")
            .post("/echo", |req: &Request, reply: Reply| {
                reply.bytes(StatusCode::OK, "application/octet-stream", req.body())
            })
    }

    #[test]
    fn our_own_server_passes_everything() {
        let server = Server::bind("127.0.0.1:0").expect("an address").workers(1);
        let running = server.app(|_: &Worker| router()).start().expect("a free port");
        let Some(SocketAddr::V4(to)) = running.addr().as_socket_addr() else { panic!("an IPv4 address") };
        let report = run(to, "netpoll-http".to_owned()).expect("a server that answers");
        running.stop(Duration::from_secs(5)).expect("the worker lives");
        for level in [Level::Must, Level::Ours] {
            let of_level = || report.judged.iter().filter(|judged| judged.level == level);
            assert!(of_level().count() > 300, "{level:?}");
            let failed = of_level().any(|judged| !matches!(judged.verdict, Verdict::Passed { .. }));
            assert!(!failed, "{}", report.text(true));
        }
    }
}
