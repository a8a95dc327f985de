//! The command line: what to ask, how, how often, and for how long. Whatever is wrong with it is found here.

use benches::{known_options, option};
use netpoll_core::{Backend, ConnectOptions};
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

const CONNECTIONS_MAX: usize = 20_000;
pub const SECONDS_MAX: f64 = 600.0;
/// Requests per second. One core does not send more, and what it cannot send is counted one by one.
const RATE_MAX: f64 = 1_000_000.0;
/// Largest body or echo, and largest pipelined batch.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// Sources are 127.0.0.2 and those behind it.
const FIRST_SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

const VALUES: [&str; 19] = [
    "--to",
    "--backend",
    "--path",
    "--connections",
    "--depth",
    "--seconds",
    "--requests",
    "--pause-us",
    "--flood",
    "--cpu",
    "--sources",
    "--rate",
    "--warmup",
    "--post",
    "--header",
    "--expect",
    "--echo",
    "--timeout-ms",
    "--drain-ms",
];
const SWITCHES: [&str; 6] = ["--hold", "--spin", "--churn", "--count-errors", "--histogram", "--stand-by"];

/// One run, as it was asked for.
pub struct Options {
    to: SocketAddrV4,
    sources: usize,
    pub cpu: Option<usize>,
    pub backend: Backend,
    /// One request with head and body, or the bytes to be echoed.
    pub request: Vec<u8>,
    /// `depth` of them.
    pub batch: Vec<u8>,
    /// A request without the optional headers: more work per byte for the server.
    pub short_request: Vec<u8>,
    /// The body of a good answer, where it is known.
    pub expect: Option<Vec<u8>>,
    pub echo: bool,
    pub connections: usize,
    pub depth: usize,
    pub length: Duration,
    pub warmup: Duration,
    /// How long a request may take.
    pub timeout: Duration,
    /// How long the end of a run waits for answers that are still owed.
    pub drain: Duration,
    /// `u64::MAX` without a bound.
    pub requests: u64,
    pub pause: Duration,
    /// Time between two requests of all connections together; `None` in a closed loop.
    pub interval_ns: Option<f64>,
    pub flood: bool,
    pub churn: bool,
    pub spin: bool,
    pub hold: bool,
    pub stand_by: bool,
    pub count_errors: bool,
    pub histogram: bool,
}

impl Options {
    pub fn parse(args: &[String]) -> Result<Self, Box<dyn Error>> {
        known_options(args, &VALUES, &SWITCHES)?;
        let has = |name: &str| args.iter().any(|arg| arg == name);
        let to = option(args, "--to", SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8080))?;
        let depth: usize = option(args, "--depth", 1)?;
        let churn = has("--churn");
        let (post, echo_bytes) = (option(args, "--post", 0)?, option(args, "--echo", 0)?);
        if post > BYTES_MAX || echo_bytes > BYTES_MAX || has("--echo") && echo_bytes == 0 {
            return Err(format!("between 1 and {BYTES_MAX} bytes of body or echo").into());
        }
        let body = has("--post").then(|| json_like(post));
        let default_path = if body.is_some() { "/echo" } else { "/plaintext" };
        let path: String = option(args, "--path", default_path.into())?;
        let request = match has("--echo") {
            true => pattern(echo_bytes),
            false => request(to, &path, &headers(args)?, body.as_deref(), churn),
        };
        if depth == 0 || depth.saturating_mul(request.len()) > BYTES_MAX {
            return Err(format!("a pipelined batch is between 1 request and {BYTES_MAX} bytes").into());
        }
        let expect: String = option(args, "--expect", String::new())?;
        let seconds = |name, default| {
            option(args, name, default)
                .map(|given: f64| Duration::from_secs_f64(given.clamp(0.0, SECONDS_MAX)))
        };
        let millis = |name, default| option(args, name, default).map(Duration::from_millis);
        let rate: f64 = option(args, "--rate", 0.0)?;
        let options = Self {
            to,
            sources: option(args, "--sources", 1)?,
            cpu: has("--cpu").then(|| option(args, "--cpu", 0)).transpose()?,
            backend: option(args, "--backend", Backend::Auto)?,
            batch: request.repeat(depth),
            request,
            short_request: format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").into(),
            expect: if has("--expect") { Some(expect.into()) } else { known_body(&path, body) },
            echo: has("--echo"),
            connections: option(args, "--connections", 64)?,
            depth,
            length: seconds("--seconds", 1.0)?,
            warmup: seconds("--warmup", 0.0)?,
            timeout: millis("--timeout-ms", 10_000)?,
            drain: millis("--drain-ms", 3_000)?,
            requests: Some(option(args, "--requests", 0)?).filter(|&most| most > 0).unwrap_or(u64::MAX),
            pause: Duration::from_micros(option(args, "--pause-us", 0)?),
            interval_ns: has("--rate").then_some(1e9 / rate),
            flood: option(args, "--flood", 0_u8)? > 0,
            churn,
            spin: has("--spin"),
            hold: has("--hold"),
            stand_by: has("--stand-by"),
            count_errors: has("--count-errors"),
            histogram: has("--histogram"),
        };
        if has("--rate") && !(rate > 0.0 && rate <= RATE_MAX) {
            return Err(format!("a rate is above 0 and at most {RATE_MAX}").into());
        }
        options.check()?;
        Ok(options)
    }

    fn check(&self) -> Result<(), Box<dyn Error>> {
        let open_loop = self.interval_ns.is_some();
        let allowed = 1..=CONNECTIONS_MAX;
        if !self.to.ip().is_loopback() {
            return Err(format!("{} is not a loopback address", self.to).into());
        }
        if !allowed.contains(&self.connections) || !allowed.contains(&self.sources) {
            return Err(format!("between 1 and {CONNECTIONS_MAX} connections, and as many sources").into());
        }
        for (wrong, why) in [
            (self.timeout.is_zero(), "a request may take 1 ms at least"),
            (self.churn && self.depth > 1, "--churn is one request per connection, without --depth"),
            (self.churn && self.echo, "--churn wants a server that closes, without --echo"),
            (self.flood && self.echo, "--flood speaks HTTP, without --echo"),
            (open_loop && !self.pause.is_zero(), "--rate decides when requests go, without --pause-us"),
            (self.churn && !self.pause.is_zero(), "--churn does not pause, without --pause-us"),
            (
                self.hold && (self.churn || self.flood || open_loop || !self.warmup.is_zero()),
                "--hold is one request per connection",
            ),
            (self.stand_by && (self.hold || self.flood), "--stand-by is quiet, without --hold and --flood"),
        ] {
            if wrong {
                return Err(why.into());
            }
        }
        Ok(())
    }

    pub fn to(&self) -> SocketAddr {
        self.to.into()
    }

    /// How the `nth` connection is made, which decides from where.
    pub fn connect(&self, nth: usize) -> ConnectOptions {
        let source = u32::from(FIRST_SOURCE) + (nth % self.sources) as u32;
        let from = (self.sources > 1).then(|| SocketAddr::from((Ipv4Addr::from(source), 0)));
        // As bare as can be: what is measured is the server.
        ConnectOptions::default()
            .timeout(self.timeout)
            .from(from)
            .keepalive(None)
            .user_timeout(None)
            .unsent_bytes_max(None)
    }
}

/// All values of `--header`, as lines.
fn headers(args: &[String]) -> Result<String, Box<dyn Error>> {
    let mut lines = String::new();
    for pair in args.windows(2).filter(|pair| pair[0] == "--header") {
        let line = &pair[1];
        if !line.contains(':') || line.contains(['\r', '\n']) {
            return Err(format!("--header {line}: not a `Name: value`").into());
        }
        lines += line;
        lines += "\r\n";
    }
    Ok(lines)
}

fn request(to: SocketAddrV4, path: &str, headers: &str, body: Option<&[u8]>, close: bool) -> Vec<u8> {
    let connection = if close { "close" } else { "keep-alive" };
    let (method, about_body) = match body {
        Some(body) => {
            ("POST", format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()))
        }
        None => ("GET", String::new()),
    };
    // The headers that TechEmpower's wrk sends in its plaintext test.
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {to}\r\nAccept: text/plain,text/html;q=0.9,application/xhtml+xml;q=0.9,\
         application/xml;q=0.8,*/*;q=0.7\r\nConnection: {connection}\r\n{about_body}{headers}\r\n"
    )
    .into_bytes();
    request.extend_from_slice(body.unwrap_or_default());
    request
}

/// Bodies that everybody agrees on, and what an echo returns.
fn known_body(path: &str, posted: Option<Vec<u8>>) -> Option<Vec<u8>> {
    match (path, posted) {
        ("/echo", Some(body)) => Some(body),
        ("/plaintext", None) => Some(b"Hello, World!".to_vec()),
        ("/json", None) => Some(br#"{"message":"Hello, World!"}"#.to_vec()),
        _ => None,
    }
}

/// So many bytes of valid JSON: an object with one string, or a number where that does not fit.
fn json_like(bytes: usize) -> Vec<u8> {
    let (open, close) = (br#"{"d":""#, br#""}"#);
    let Some(filling) = bytes.checked_sub(open.len() + close.len()) else { return vec![b'1'; bytes] };
    let letters = pattern(filling).into_iter().map(|byte| b'a' + byte % 26);
    open.iter().copied().chain(letters).chain(close.iter().copied()).collect()
}

/// Bytes without a short period, so that a piece that is lost or doubled does not fit.
fn pattern(bytes: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    let next = || {
        // Marsaglia, "Xorshift RNGs" (2003).
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_explained() {
        let help: String =
            include_str!("main.rs").lines().take_while(|line| line.starts_with("//!")).collect();
        for name in VALUES.iter().chain(&SWITCHES) {
            assert!(help.contains(&format!("`{name}")), "{name}");
        }
    }
}
