//! How strictly a server speaks WebSocket: raw bytes to one that echoes messages, rule by rule.
//!
//! `must`: RFC 6455 or 7692 says MUST, or an HTTP rule that the opening stands on does. `should`: it says SHOULD, or the case is about how well a
//! server ends: with the right code, at the first wrong byte, behind all that it owed. One exchange is often judged twice: that a wrong frame
//! is not served and ends the connection is `must`, that a Close with its code says so first is `should`.
//! Cases of compression are not judged where a server does not agree on it.
//!
//! The server echoes each message as it came: text as text, bytes as bytes, up to 1 MiB at least.
//!
//! Use: `websockets --to 127.0.0.1:8080 [--path /echo] [--name ours] [--only SECTION,..] [--pid N] [--json] [--verbose]`. With `--pid` of a server that was just
//! started the memory that peers make it keep is measured as well. `--serve PORT` is such a server, of netpoll-http, with compression, on one worker, to be ended by a signal. Ends with 0 if it ran, whatever it found. Connects to 127.0.0.0/8 only. Every exchange ends within 10 s; 16 run at a time.

mod cases;
mod exchange;
mod memory;
mod report;
mod served;
mod trial;
mod wire;

use std::error::Error;
use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use benches::{known_options, option};
use cases::Case;
use exchange::Site;
use report::Report;
use trial::Verdict;

/// Exchanges that run at a time: most of them wait for the server, and one that hangs holds up no other.
const AT_A_TIME: usize = 16;

/// A case and what came of it.
struct Judged {
    case: Case,
    verdict: Verdict,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = benches::arguments(include_str!("main.rs"));
    known_options(
        &args,
        &["--to", "--path", "--name", "--only", "--pid", "--serve"],
        &["--json", "--verbose"],
    )?;
    let port: u16 = option(&args, "--serve", 0)?;
    if port > 0 {
        return served::serve(port);
    }
    let is_set = |switch: &str| args.iter().any(|arg| arg == switch);
    let to: SocketAddrV4 = option(&args, "--to", "127.0.0.1:8080".parse()?)?;
    if !to.ip().is_loopback() {
        return Err(format!("{to} is not in 127.0.0.0/8").into());
    }
    let site = Site { to, path: option(&args, "--path", "/echo".to_owned())? };
    let name = option(&args, "--name", to.to_string())?;
    let only: String = option(&args, "--only", String::new())?;
    let pid: u32 = option(&args, "--pid", 0)?;
    site.probe()?;
    // First, while the server has no memory of anything else.
    let memory = if pid > 0 { memory::measure(&site, pid) } else { Ok(Vec::new()) };
    let mut report = run(&site, name, &only)?;
    match memory {
        Ok(figures) => report.memory = figures,
        Err(error) => eprintln!("memory was not measured: {error}"),
    }
    if is_set("--json") {
        println!("{}", report.json());
    } else {
        print!("{}", report.text(is_set("--verbose")));
    }
    Ok(())
}

/// Sends all cases to the server and judges what comes back.
fn run(site: &Site, name: String, only: &str) -> Result<Report, Box<dyn Error>> {
    let is_wanted = |case: &Case| only.is_empty() || only.split(',').any(|name| name == case.section);
    let waiting: Vec<Case> = cases::all().into_iter().filter(is_wanted).collect();
    let next = AtomicUsize::new(0);
    let judge_some = || {
        let mut verdicts = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(case) = waiting.get(at) else { return verdicts };
            verdicts.push((at, trial::judge(site, case)));
        }
    };
    let mut verdicts: Vec<(usize, Verdict)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(judge_some)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("judging does not panic")).collect()
    });
    verdicts.sort_unstable_by_key(|(at, _)| *at);
    let judged = waiting.into_iter().zip(verdicts).map(|(case, (_, verdict))| Judged { case, verdict });
    Ok(Report { name, to: site.to, judged: judged.collect(), memory: Vec::new() })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use netpoll_http::Server;

    use super::*;

    #[test]
    fn our_own_server_passes_everything_with_compression_and_without() {
        for compression in [false, true] {
            let server = Server::bind("127.0.0.1:0").expect("an address").workers(1);
            let app = server.app(move |_worker| served::router(compression));
            let running = app.start().expect("a free port");
            let Some(SocketAddr::V4(to)) = running.addr().as_socket_addr() else { panic!("an IPv4 address") };
            let site = Site { to, path: "/echo".to_owned() };
            let report = run(&site, "netpoll-http".to_owned(), "").expect("a server that answers");
            running.stop(Duration::from_secs(5)).expect("the worker lives");
            let (must, should, not_judged) = report.totals();
            assert!(must.1 > 400 && should.1 > 250, "{must:?} {should:?}");
            assert!(must.0 == must.1 && should.0 == should.1, "{}", report.text(true));
            assert_eq!(not_judged == 0, compression, "{not_judged} were not judged");
        }
    }
}
