//! What an access log says of a request: one line, in one of three formats.
//!
//! Invariant: a line has one LF, its last byte, and is printable ASCII before it: whatever came from a peer is escaped.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use http::StatusCode;

use super::escape::{json, json_text, quoted};
use super::ring::Level;
use crate::h1::{Completed, Outcome};
use crate::layer::{RequestId, TraceContext};
use crate::wire::date::{DateBytes, imf_fixdate};

/// How the lines of an [`AccessLog`](super::AccessLog) look.
///
/// Whatever came from a client is escaped: in the first two formats as Apache and nginx do it (`\"`, `\\`, `\x0a`), in JSON as JSON
/// has it, where a byte above ASCII is shown as the character of Latin-1. No text can begin a line of its own. Of one that is longer
/// than 2048 bytes the rest is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LogFormat {
    /// The Common Log Format, with the [client](crate::Request::client_ip)'s address first, which is that of a proxy unless
    /// [`Forwarded`](crate::Forwarded) is told whom to trust: `10.0.0.1 - - [06/Nov/1994:08:49:37 +0000] "GET / HTTP/1.1" 200 13`. The last figure is of the bytes behind the
    /// head. Of a request that was not answered the status is 499, as that of nginx.
    Common,
    /// The same with the fields `Referer` and `User-Agent`, quoted. What most programs that read logs expect.
    #[default]
    Combined,
    /// An object in each line, with all that is known: `time`, `client`, `method`, `target`, `version`, `host`, `route`, `status` (null if there was no
    /// answer), `outcome` ([`Outcome::name`]), `bytes_in`, `bytes_out`, `queue_us`, `handler_us`, `send_us` (microseconds), and, where
    /// there is one, `error` ([`Completed::error`]: why it is a 5xx), `referer`, `user_agent`, `request_id`, `trace_id`.
    Json,
}

/// How much it matters that a request is in the log.
pub fn level(done: &Completed<'_>) -> Level {
    match (done.outcome, done.status) {
        (Outcome::Panicked | Outcome::BrokenOff | Outcome::Cut, _) => Level::Failure,
        (_, Some(status)) if status.is_server_error() => Level::Failure,
        (Outcome::Abandoned, _) => Level::Client,
        (_, Some(status)) if status.is_client_error() => Level::Client,
        _ => Level::Usual,
    }
}

/// Writes lines, and remembers the text of the second.
pub struct Lines {
    format: LogFormat,
    second: u64,
    date: Vec<u8>,
}

impl Lines {
    /// Of this format.
    pub fn new(format: LogFormat) -> Self {
        let mut lines = Self { format, second: 0, date: Vec::new() };
        lines.set_date(0);
        lines
    }

    /// Appends the line of a request.
    pub fn write(&mut self, out: &mut Vec<u8>, done: &Completed<'_>) {
        if done.unix_seconds != self.second {
            self.set_date(done.unix_seconds);
        }
        match self.format {
            LogFormat::Json => self.json(out, done),
            LogFormat::Common | LogFormat::Combined => self.common(out, done),
        }
    }

    /// Appends the line that says how many were lost.
    pub fn write_lost(&self, out: &mut Vec<u8>, lines: u64) {
        // Writing to memory does not fail.
        let _ = match self.format {
            LogFormat::Json => writeln!(out, "{{\"lost\":{lines}}}"),
            LogFormat::Common | LogFormat::Combined => writeln!(out, "# {lines} lines lost"),
        };
    }

    fn set_date(&mut self, second: u64) {
        self.second = second;
        self.date.clear();
        let date = imf_fixdate(i64::try_from(second).unwrap_or(i64::MAX));
        match self.format {
            LogFormat::Json => rfc3339(&mut self.date, &date),
            LogFormat::Common | LogFormat::Combined => clf(&mut self.date, &date),
        }
    }

    fn common(&self, out: &mut Vec<u8>, done: &Completed<'_>) {
        let request = done.request;
        client(out, done, b"-");
        out.extend_from_slice(b" - - [");
        out.extend_from_slice(&self.date);
        out.extend_from_slice(b"] \"");
        if request.is_unread() {
            out.push(b'-');
        } else {
            out.extend_from_slice(request.method_str().as_bytes());
            out.push(b' ');
            quoted(out, request.head().target_bytes());
            out.push(b' ');
            out.extend_from_slice(version(done));
        }
        out.extend_from_slice(b"\" ");
        out.extend_from_slice(done.status.as_ref().map_or("499", StatusCode::as_str).as_bytes());
        out.push(b' ');
        number(out, done.bytes_out.saturating_sub(done.head_bytes_out));
        if self.format == LogFormat::Combined {
            for name in ["referer", "user-agent"] {
                out.extend_from_slice(b" \"");
                match request.header(name) {
                    Some(value) => quoted(out, value),
                    None => out.push(b'-'),
                }
                out.push(b'"');
            }
        }
        out.push(b'\n');
    }

    fn json(&self, out: &mut Vec<u8>, done: &Completed<'_>) {
        let request = done.request;
        out.extend_from_slice(b"{\"time\":\"");
        out.extend_from_slice(&self.date);
        out.extend_from_slice(b"\",\"client\":\"");
        client(out, done, b"");
        out.push(b'"');
        let head = request.head();
        if !request.is_unread() {
            // A method is a token: nothing in it is escaped.
            plain(out, b",\"method\":\"", request.method_str().as_bytes());
            escaped(out, b",\"target\":\"", Some(head.target_bytes()));
            plain(out, b",\"version\":\"", version(done));
        }
        let host = head.authority_bytes();
        escaped(out, b",\"host\":\"", if host.is_empty() { None } else { Some(host) });
        escaped(out, b",\"route\":\"", done.route.map(str::as_bytes));
        out.extend_from_slice(b",\"status\":");
        out.extend_from_slice(done.status.as_ref().map_or("null", StatusCode::as_str).as_bytes());
        plain(out, b",\"outcome\":\"", done.outcome.name().as_bytes());
        if let Some(error) = done.error {
            failure(out, error);
        }
        figure(out, b",\"bytes_in\":", done.bytes_in);
        figure(out, b",\"bytes_out\":", done.bytes_out);
        figure(out, b",\"queue_us\":", micros(done.queue));
        figure(out, b",\"handler_us\":", micros(done.handler));
        figure(out, b",\"send_us\":", micros(done.send));
        escaped(out, b",\"referer\":\"", request.header("referer"));
        escaped(out, b",\"user_agent\":\"", request.header("user-agent"));
        if let Some(id) = request.extensions().get::<RequestId>() {
            plain(out, b",\"request_id\":\"", id.bytes());
        }
        if let Some(trace) = request.extensions().get::<TraceContext>() {
            plain(out, b",\"trace_id\":\"", &trace.trace_id_digits());
        }
        out.extend_from_slice(b"}\n");
    }
}

/// A member of an object, with a text in which nothing has to be escaped.
fn plain<const N: usize>(out: &mut Vec<u8>, start: &[u8; N], value: &[u8]) {
    out.extend_from_slice(start);
    out.extend_from_slice(value);
    out.push(b'"');
}

/// A member with any text, if there is one.
fn escaped<const N: usize>(out: &mut Vec<u8>, start: &[u8; N], value: Option<&[u8]>) {
    let Some(value) = value else { return };
    out.extend_from_slice(start);
    json(out, value);
    out.push(b'"');
}

/// What went wrong.
#[cold]
fn failure(out: &mut Vec<u8>, error: &str) {
    out.extend_from_slice(b",\"error\":\"");
    json_text(out, error);
    out.push(b'"');
}

/// A member with a number.
fn figure<const N: usize>(out: &mut Vec<u8>, start: &[u8; N], value: u64) {
    out.extend_from_slice(start);
    number(out, value);
}

fn micros(time: Duration) -> u64 {
    // What a turn answers takes no time by its clock.
    if time.is_zero() { 0 } else { u64::try_from(time.as_micros()).unwrap_or(u64::MAX) }
}

fn number(out: &mut Vec<u8>, number: u64) {
    if number < 10 {
        return out.push(b'0' + number as u8);
    }
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// The address of who asked, as far as it is known; a Unix socket has none.
fn client(out: &mut Vec<u8>, done: &Completed<'_>, nobody: &[u8]) {
    match done.request.client_ip() {
        Some(IpAddr::V4(ip)) => ipv4(out, ip),
        // Writing to memory does not fail.
        Some(ip) => _ = write!(out, "{ip}"),
        None if done.request.peer().is_unix() => out.extend_from_slice(b"unix"),
        None => out.extend_from_slice(nobody),
    }
}

fn ipv4(out: &mut Vec<u8>, ip: Ipv4Addr) {
    /// Each number with a dot behind it, and how long that is.
    const OCTETS: [([u8; 4], u8); 256] = {
        let (mut octets, mut octet) = ([([0; 4], 0); 256], 0);
        while octet < 256 {
            let digits =
                [b'0' + (octet / 100) as u8, b'0' + (octet / 10 % 10) as u8, b'0' + (octet % 10) as u8];
            let [hundreds, tens, ones] = digits;
            octets[octet] = match octet {
                0..10 => ([ones, b'.', 0, 0], 2),
                10..100 => ([tens, ones, b'.', 0], 3),
                _ => ([hundreds, tens, ones, b'.'], 4),
            };
            octet += 1;
        }
        octets
    };
    let (mut text, mut end) = ([0; 16], 0);
    for octet in ip.octets() {
        let (piece, length) = OCTETS[usize::from(octet)];
        text[end..end + 4].copy_from_slice(&piece);
        end += usize::from(length);
    }
    out.extend_from_slice(&text[..end - 1]);
}

fn version(done: &Completed<'_>) -> &'static [u8; 8] {
    if done.request.version() == http::Version::HTTP_10 { b"HTTP/1.0" } else { b"HTTP/1.1" }
}

/// `06/Nov/1994:08:49:37 +0000`
fn clf(out: &mut Vec<u8>, date: &DateBytes) {
    // Sun, 06 Nov 1994 08:49:37 GMT
    let parts: [&[u8]; 8] =
        [&date[5..7], b"/", &date[8..11], b"/", &date[12..16], b":", &date[17..25], b" +0000"];
    out.extend(parts.into_iter().flatten());
}

/// `1994-11-06T08:49:37Z`
fn rfc3339(out: &mut Vec<u8>, date: &DateBytes) {
    const MONTHS: &[u8] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let month = MONTHS.chunks(3).position(|name| name == &date[8..11]).map_or(0, |index| index + 1);
    let month = [b'0' + (month / 10) as u8, b'0' + (month % 10) as u8];
    let parts: [&[u8]; 8] = [&date[12..16], b"-", &month, b"-", &date[5..7], b"T", &date[17..25], b"Z"];
    out.extend(parts.into_iter().flatten());
}
