//! The load client: N connections, a request each (or `--depth` pipelined), the next when all are answered.
//!
//! It shares a small machine with the server that it measures, so it stays light: one thread, one epoll, one
//! read buffer, one `recv` and one `send` per event, no allocation once warm. Every answer is checked: status
//! line 200, Content-Length present, and the next answer beginning where it says this one ends. An answer that
//! is wrong, or a connection that the server closes, ends the run with an error.
//!
//! Latency is from just before a batch of requests is sent until the answer has been read, in steps of 1 µs.
//! It is a closed loop (a slow server gets fewer requests), so percentiles compare servers under the same
//! options and say little about an open system. Requests unanswered at the end count with their age.
//!
//! Use: `load --to 127.0.0.1:8080 [--path /plaintext] [--connections 64] [--depth 1] [--seconds 1]
//! [--requests 0 (no bound)] [--pause-us 0 (between answer and next request)] [--flood 0|1] [--cpu N]
//! [--sources 1 (addresses 127.0.0.2.. to connect from)] [--spin] [--hold]`
//! With `--spin` it never sleeps while it measures. Whoever sends to a thread that sleeps pays for waking it, on
//! virtual machines several us, and how often this one sleeps depends on how fast the server is: servers that
//! are compared by their CPU time would pay for being slower than the client twice.
//! Prints one JSON object. `--hold` sends one request per connection, prints, and keeps the connections open
//! until its standard input ends or `--seconds` have passed. Connects to 127.0.0.0/8 only.

mod answer;
mod flood;
mod histogram;
mod polite;

use answer::Layout;
use benches::sys::{Epoll, epoll_event};
use benches::{known_options, option, sys};

use serde_json::json;
use socket2::{Domain, Socket, Type};
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

const CONNECTIONS_MAX: usize = 20_000;
const SECONDS_MAX: f64 = 600.0;
const READ_BYTES: usize = 64 * 1024;
/// How long the end of a run waits for answers that are still owed.
const DRAIN: Duration = Duration::from_secs(3);

struct Options {
    to: SocketAddrV4,
    request: Vec<u8>,
    /// A request without the optional headers: more work per byte for the server.
    short_request: Vec<u8>,
    connections: usize,
    depth: usize,
    length: Duration,
    requests: u64,
    pause: Duration,
    flood: bool,
    sources: usize,
    spin: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let names = [
        "--to",
        "--path",
        "--connections",
        "--depth",
        "--seconds",
        "--requests",
        "--pause-us",
        "--flood",
        "--cpu",
        "--sources",
    ];
    known_options(&args, &names, &["--hold", "--spin"])?;
    let options = Options::parse(&args)?;
    if args.iter().any(|arg| arg == "--cpu") {
        sys::pin_current_thread(&[option(&args, "--cpu", 1)?])?;
    }
    let limit = sys::raise_open_files(options.connections as u64 + 64)?;
    if limit < options.connections as u64 + 16 {
        return Err(format!(
            "only {limit} open files allowed, not enough for {} connections",
            options.connections
        )
        .into());
    }
    if args.iter().any(|arg| arg == "--hold") { hold(&options) } else { run(&options) }
}

impl Options {
    fn parse(args: &[String]) -> Result<Self, Box<dyn Error>> {
        let to: SocketAddrV4 = option(args, "--to", SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8080))?;
        let path: String = option(args, "--path", "/plaintext".into())?;
        let seconds: f64 = option(args, "--seconds", 1.0)?;
        let options = Self {
            // The headers that TechEmpower's wrk sends in its plaintext test.
            request: format!(
                "GET {path} HTTP/1.1\r\nHost: {to}\r\nAccept: text/plain,text/html;q=0.9,application/xhtml+xml;q=0.9,\
                 application/xml;q=0.8,*/*;q=0.7\r\nConnection: keep-alive\r\n\r\n"
            )
            .into(),
            short_request: format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").into(),
            to,
            connections: option(args, "--connections", 64)?,
            depth: option(args, "--depth", 1)?,
            length: Duration::from_secs_f64(seconds.clamp(0.0, SECONDS_MAX)),
            requests: option(args, "--requests", 0)?,
            pause: Duration::from_micros(option(args, "--pause-us", 0)?),
            flood: option(args, "--flood", 0_u8)? > 0,
            sources: option(args, "--sources", 1)?,
            spin: args.iter().any(|arg| arg == "--spin"),
        };
        if !to.ip().is_loopback() {
            return Err(format!("{to} is not a loopback address").into());
        }
        if !(1..=CONNECTIONS_MAX).contains(&options.connections) || !(1..=200).contains(&options.sources) {
            return Err(format!("between 1 and {CONNECTIONS_MAX} connections from 1 to 200 sources").into());
        }
        // A batch has to fit into an empty socket buffer, because it is sent by a single `send`.
        if options.depth == 0 || options.request.len() * options.depth > 16 * 1024 {
            return Err("a pipelined batch is between 1 request and 16 KiB".into());
        }
        Ok(options)
    }

    /// Connects; the `nth` connection decides from which source address.
    fn connect(&self, nth: usize) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        if self.sources > 1 {
            let last = u8::try_from(2 + nth % self.sources).expect("at most 202");
            socket.bind(&SocketAddr::from(([127, 0, 0, last], 0)).into())?;
        }
        socket.connect(&SocketAddr::from(self.to).into())?;
        socket.set_tcp_nodelay(true)?;
        Ok(socket.into())
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let epoll = Epoll::new()?;
    let mut polite = polite::Polite::connect(options, &epoll)?;
    let mut flood = options.flood.then(|| flood::Flood::connect(options, &epoll)).transpose()?;
    let mut layout = Layout::default();
    let mut buffer = vec![0; READ_BYTES];
    let mut events = [epoll_event { events: 0, u64: 0 }; 512];

    let start = Instant::now();
    polite.start(start.elapsed())?;
    let mut now;
    let mut measured = None;
    loop {
        now = start.elapsed();
        if measured.is_none() && (now >= options.length || polite.is_finished()) {
            measured = Some(now);
        }
        if let Some(end) = measured {
            let owed = polite.outstanding() + flood.as_ref().map_or(0, flood::Flood::outstanding);
            if owed == 0 || now >= end + DRAIN {
                break;
            }
        }
        let timeout_ms = match &flood {
            _ if options.spin && measured.is_none() => 0,
            Some(flood) if flood.is_ready(measured.is_none()) => 0,
            _ if measured.is_some() => 10,
            _ => polite.timeout_ms(now),
        };
        let ready = epoll.wait(&mut events, timeout_ms)?;
        for event in &events[..ready] {
            match flood.as_mut() {
                Some(flood) if event.u64 == flood::DATA => flood.woken(event.events),
                _ => polite.event(event.u64, start, measured.is_none(), &mut layout, &mut buffer)?,
            }
        }
        if measured.is_none() {
            polite.send_paused(start)?;
        }
        if let Some(flood) = &mut flood {
            flood.turn(measured.is_none(), &mut layout, &mut buffer)?;
        }
    }
    polite.count_unanswered(now);
    let seconds = measured.unwrap_or(now).as_secs_f64();
    print(options, seconds, polite, flood.map_or(0, |flood| flood.answers()))
}

fn print(
    options: &Options,
    seconds: f64,
    polite: polite::Polite,
    flood_answers: u64,
) -> Result<(), Box<dyn Error>> {
    let (least, unanswered, requests) = (polite.least_answers(), polite.outstanding(), polite.answers());
    let report = json!({
        "connections": options.connections, "depth": options.depth, "seconds": seconds,
        "requests": requests, "requests_per_second": requests as f64 / seconds,
        "flood_requests": flood_answers, "unanswered": unanswered, "least_answers_of_a_connection": least,
        "cpu_seconds": cpu_seconds()?,
        "p50_us": polite.latency.percentile(0.5), "p99_us": polite.latency.percentile(0.99),
        "p999_us": polite.latency.percentile(0.999), "max_us": polite.latency.max_us(),
    });
    writeln!(io::stdout(), "{report}")?;
    Ok(())
}

/// CPU time of this process so far, which has one thread.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/self/schedstat")?;
    Ok(text.split(' ').next().ok_or("an empty schedstat")?.parse::<f64>()? / 1e9)
}

/// One request on each connection in turn, then nothing, as idle keep-alive clients do.
fn hold(options: &Options) -> Result<(), Box<dyn Error>> {
    let mut layout = Layout::default();
    let mut buffer = vec![0; READ_BYTES];
    let mut streams = Vec::with_capacity(options.connections);
    for nth in 0..options.connections {
        let stream = options.connect(nth)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        streams.push(stream);
    }
    for stream in &mut streams {
        stream.write_all(&options.request)?;
        let mut filled = 0;
        while layout.answer(&buffer[..filled])?.is_none() {
            match stream.read(&mut buffer[filled..])? {
                0 => return Err("the server closed a connection".into()),
                read => filled += read,
            }
        }
    }
    writeln!(io::stdout(), "{}", json!({ "connections": streams.len() }))?;
    // Whoever started us ends us by closing our standard input; if nobody does, time does.
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || ended.send(io::stdin().read_to_end(&mut Vec::new()).is_ok()));
    // Both outcomes mean the same: it is over.
    let _ = end.recv_timeout(options.length);
    Ok(())
}
