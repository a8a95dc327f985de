//! What an access log says of a request: one line, in one of three formats.
//!
//! Invariant: a line has one LF, its last byte, and is printable ASCII before it: whatever came from a peer is escaped.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use http::StatusCode;

use super::cursor::{Cursor, written};
use super::escape::{json, json_host, json_text, quoted};
use super::pages::Level;
use crate::h1::{Completed, Outcome};
use crate::message::{RequestId, TraceContext};
use crate::wire;
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
    /// answer), `outcome` ([`Outcome::name`]), `bytes_in`, `bytes_out`, and, where there is one, `queue_us`, `handler_us`, `send_us`
    /// (microseconds; what is answered within a turn takes none by the worker's clock, and zeros are left out), `error` ([`Completed::error`]: why it is a 5xx), `referer`, `user_agent`, `request_id`, `trace_id`.
    Json,
}

/// How much it matters that a request is in the log.
pub fn level(done: &Completed<'_>) -> Level {
    match (done.outcome, done.status) {
        (Outcome::Answered, Some(status)) if status.as_u16() < 400 => Level::Usual,
        (Outcome::Panicked | Outcome::BrokenOff | Outcome::Cut, _) => Level::Failure,
        (_, Some(status)) if status.is_server_error() => Level::Failure,
        (Outcome::Abandoned, _) => Level::Client,
        (_, Some(status)) if status.is_client_error() => Level::Client,
        _ => Level::Usual,
    }
}

/// What lies between the client and the target of most.
const GET: &[u8; 27] = b"\",\"method\":\"GET\",\"target\":\"";

/// What is the same in all lines of a second, `{"time":"1994-11-06T08:49:37Z","client":"`, and in all of a client of these, with some room to write it.
const START_BYTES: usize = 41 + 16 + GET.len();

/// What comes before a route.
const ROUTE: &[u8; 10] = b",\"route\":\"";

/// Routes whose part of a line is remembered, and the longest such part.
const PARTS: usize = 32;
const PART_BYTES: usize = 128;

/// Writes lines, and remembers what those of a second, of a client or of a route have in common.
pub struct Lines {
    format: LogFormat,
    second: u64,
    /// With the client that came last, and what is behind it.
    start: [u8; START_BYTES],
    start_bytes: usize,
    client: Option<Ipv4Addr>,
    with_client_bytes: usize,
    /// By the number of the route.
    parts: Box<[Part]>,
}

/// What a line of JSON says of a request with this route and this status that was answered.
#[derive(Clone, Copy)]
struct Part {
    /// Zero of none: one that nothing is remembered of, or whose pattern has to be escaped.
    status: u16,
    /// Zero of one that is too long.
    bytes: usize,
    text: [u8; PART_BYTES],
}

impl Lines {
    /// Of this format.
    pub fn new(format: LogFormat) -> Self {
        let part = Part { status: 0, bytes: 0, text: [0; PART_BYTES] };
        let parts = if format == LogFormat::Json { PARTS } else { 0 };
        let mut lines = Self {
            format,
            second: 0,
            start: [0; START_BYTES],
            start_bytes: 0,
            client: None,
            with_client_bytes: 0,
            parts: vec![part; parts].into(),
        };
        lines.begin_second(0);
        lines
    }

    /// Writes the line of a request into this room, and says how long it is, if it has room.
    #[inline]
    pub fn write(&mut self, room: &mut [u8], done: &Completed<'_>) -> Option<usize> {
        if done.unix_seconds != self.second {
            self.begin_second(done.unix_seconds);
        }
        match self.format {
            LogFormat::Json => {
                let client = self.remember_client(done);
                let part = self.remember_part(done);
                written(room, |out| out.go_on(|out| self.json(out, done, client, part)))
            }
            LogFormat::Common | LogFormat::Combined => {
                written(room, |out| out.go_on(|out| self.common(out, done)))
            }
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

    #[cold]
    fn begin_second(&mut self, second: u64) {
        self.second = second;
        let date = imf_fixdate(i64::try_from(second).unwrap_or(i64::MAX));
        let start = match self.format {
            LogFormat::Json => [&b"{\"time\":\""[..], &rfc3339(&date), b"\",\"client\":\""].concat(),
            LogFormat::Common | LogFormat::Combined => [&b" - - ["[..], &clf(&date), b"] \""].concat(),
        };
        self.start_bytes = start.len();
        self.start[..start.len()].copy_from_slice(&start);
        self.client = None;
    }

    /// Whether the start of a line is known up to its target.
    #[inline(always)]
    fn remember_client(&mut self, done: &Completed<'_>) -> bool {
        let Some(IpAddr::V4(client)) = done.request.client_ip() else { return false };
        if self.client != Some(client) {
            let room = &mut self.start[self.start_bytes..];
            let text = written(room, |out| {
                ipv4(out, client);
                out.put(GET);
            });
            self.with_client_bytes = self.start_bytes + text.unwrap_or_default();
            self.client = text.map(|_| client);
        }
        self.client.is_some()
    }

    /// The place of what is known of its route and its status.
    #[inline(always)]
    fn remember_part(&mut self, done: &Completed<'_>) -> Option<usize> {
        let (Some(route), Some(pattern), Some(status)) = (done.route_id, done.route, done.status) else {
            return None;
        };
        if done.outcome != Outcome::Answered {
            return None;
        }
        let at = route.0 as usize % PARTS;
        let part = self.parts.get_mut(at)?;
        if part.status != status.as_u16() || !part.has(pattern) {
            *part = Part::of(pattern, status);
        }
        (part.bytes > 0).then_some(at)
    }

    #[inline(always)]
    fn common(&self, out: &mut Cursor<'_>, done: &Completed<'_>) {
        let request = done.request;
        client(out, done, b"-");
        out.put_some(&self.start, self.start_bytes);
        if request.is_unread() {
            out.put(b"-");
        } else {
            out.text(request.method_str().as_bytes());
            out.put(b" ");
            quoted(out, request.head().target_bytes());
            out.put(b" ");
            out.put(version(done));
        }
        out.put(b"\" ");
        out.put(status(done).unwrap_or(b"499"));
        out.put(b" ");
        out.number(done.bytes_out.saturating_sub(done.head_bytes_out));
        if self.format == LogFormat::Combined {
            for value in request.first_of(["referer", "user-agent"]) {
                out.put(b" \"");
                match value {
                    Some(value) => quoted(out, value),
                    None => out.put(b"-"),
                }
                out.put(b"\"");
            }
        }
        out.put(b"\n");
    }

    #[inline(always)]
    fn json(&self, out: &mut Cursor<'_>, done: &Completed<'_>, has_client: bool, part: Option<usize>) {
        let request = done.request;
        let head = request.head();
        let target = head.target_bytes();
        if has_client && head.method == wire::Method::Get && !target.is_empty() {
            out.put_some(&self.start, self.with_client_bytes);
        } else {
            out.go_on(|out| self.json_start(out, done));
        }
        let host = head.authority_bytes();
        if !target.is_empty() && head.minor_version == 1 && !host.is_empty() {
            json(out, target);
            out.put(b"\",\"version\":\"HTTP/1.1\",\"host\":\"");
            json_host(out, host);
            out.put(b"\"");
        } else {
            out.go_on(|out| json_target(out, done));
        }
        match part.and_then(|at| self.parts.get(at)) {
            Some(part) => out.put_some(&part.text, part.bytes),
            None => out.go_on(|out| json_part(out, done)),
        }
        if let Some(error) = done.error {
            out.go_on(|out| failure(out, error));
        }
        figure(out, b",\"bytes_in\":", done.bytes_in);
        figure(out, b",\"bytes_out\":", done.bytes_out);
        // What a turn answers takes no time by its clock.
        if !done.took_no_time {
            out.go_on(|out| times(out, done));
        }
        let [referer, user_agent] = request.first_of(["referer", "user-agent"]);
        escaped(out, b",\"referer\":\"", referer);
        escaped(out, b",\"user_agent\":\"", user_agent);
        if let Some(id) = request.extensions().get::<RequestId>() {
            plain(out, b",\"request_id\":\"", id.bytes());
        }
        if let Some(trace) = request.extensions().get::<TraceContext>() {
            out.put(b",\"trace_id\":\"");
            out.put(trace.trace_id_digits());
            out.put(b"\"");
        }
        out.put(b"}\n");
    }

    /// What comes before the target, of what is not remembered.
    #[inline(never)]
    fn json_start(&self, out: &mut Cursor<'_>, done: &Completed<'_>) {
        out.text(&self.start[..self.start_bytes]);
        client(out, done, b"");
        let head = done.request.head();
        if !head.target_bytes().is_empty() {
            // A method is a token: nothing in it is escaped.
            out.put(b"\",\"method\":\"");
            out.text(head.method_name().as_bytes());
            out.put(b"\",\"target\":\"");
        }
    }
}

impl Part {
    #[cold]
    fn of(pattern: &str, status: StatusCode) -> Self {
        let mut text = [0; PART_BYTES];
        let bytes =
            written(&mut text, |out| part(out, Some(pattern), status.as_str().as_bytes(), Outcome::Answered));
        let part = Self { status: status.as_u16(), bytes: bytes.unwrap_or_default(), text };
        if part.has(pattern) { part } else { Self { status: 0, ..part } }
    }

    /// Whether this is its pattern, as it is.
    #[inline(always)]
    fn has(&self, pattern: &str) -> bool {
        let behind = &self.text[ROUTE.len()..];
        behind
            .split_at_checked(pattern.len())
            .is_some_and(|(text, behind)| text == pattern.as_bytes() && behind.first() == Some(&b'"'))
    }
}

/// The target, the version and the host, of what lacks one of them.
#[cold]
fn json_target(out: &mut Cursor<'_>, done: &Completed<'_>) {
    let head = done.request.head();
    if head.target_bytes().is_empty() {
        // It could not be read.
        out.put(b"\"");
    } else {
        json(out, head.target_bytes());
        out.put(b"\",\"version\":\"");
        out.put(version(done));
        out.put(b"\"");
    }
    let host = head.authority_bytes();
    escaped(out, b",\"host\":\"", if host.is_empty() { None } else { Some(host) });
}

#[inline(never)]
fn json_part(out: &mut Cursor<'_>, done: &Completed<'_>) {
    part(out, done.route, status(done).map_or(b"null", |status| status), done.outcome);
}

/// The route, the status and the outcome.
fn part(out: &mut Cursor<'_>, route: Option<&str>, status: &[u8], outcome: Outcome) {
    escaped(out, ROUTE, route.map(str::as_bytes));
    out.put(b",\"status\":");
    out.text(status);
    plain(out, b",\"outcome\":\"", outcome.name().as_bytes());
}

#[inline(never)]
fn times(out: &mut Cursor<'_>, done: &Completed<'_>) {
    time(out, b",\"queue_us\":", done.queue);
    time(out, b",\"handler_us\":", done.handler);
    time(out, b",\"send_us\":", done.send);
}

/// The three digits of the status, if there is one.
fn status<'d>(done: &'d Completed<'_>) -> Option<&'d [u8; 3]> {
    done.status.as_ref()?.as_str().as_bytes().first_chunk()
}

/// A member of an object, with a text in which nothing has to be escaped.
#[inline(always)]
fn plain<const N: usize>(out: &mut Cursor<'_>, start: &[u8; N], value: &[u8]) {
    out.put(start);
    out.text(value);
    out.put(b"\"");
}

/// A member with any text, if there is one.
#[inline(always)]
fn escaped<const N: usize>(out: &mut Cursor<'_>, start: &[u8; N], value: Option<&[u8]>) {
    let Some(value) = value else { return };
    out.put(start);
    json(out, value);
    out.put(b"\"");
}

/// What went wrong.
#[cold]
#[inline(never)]
fn failure(out: &mut Cursor<'_>, error: &str) {
    out.put(b",\"error\":\"");
    json_text(out, error);
    out.put(b"\"");
}

/// A member with a number.
#[inline(always)]
fn figure<const N: usize>(out: &mut Cursor<'_>, start: &[u8; N], value: u64) {
    out.put(start);
    out.number(value);
}

/// A member with a time, if it took any.
#[inline(always)]
fn time<const N: usize>(out: &mut Cursor<'_>, start: &[u8; N], time: Duration) {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    if micros > 0 {
        figure(out, start, micros);
    }
}

/// The address of who asked, as far as it is known; a Unix socket has none.
#[inline(always)]
fn client(out: &mut Cursor<'_>, done: &Completed<'_>, nobody: &[u8]) {
    match done.request.client_ip() {
        Some(IpAddr::V4(ip)) => ipv4(out, ip),
        // Writing to memory does not fail.
        Some(ip) => out.go_on(|out| _ = write!(out, "{ip}")),
        None if done.request.peer().is_unix() => out.put(b"unix"),
        None => out.text(nobody),
    }
}

#[inline(always)]
fn ipv4(out: &mut Cursor<'_>, ip: Ipv4Addr) {
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
    out.put_some(&text, end - 1);
}

fn version(done: &Completed<'_>) -> &'static [u8; 8] {
    match done.request.version() {
        http::Version::HTTP_10 => b"HTTP/1.0",
        http::Version::HTTP_2 => b"HTTP/2.0",
        _ => b"HTTP/1.1",
    }
}

/// `06/Nov/1994:08:49:37 +0000`
fn clf(date: &DateBytes) -> Vec<u8> {
    // Sun, 06 Nov 1994 08:49:37 GMT
    [&date[5..7], b"/", &date[8..11], b"/", &date[12..16], b":", &date[17..25], b" +0000"].concat()
}

/// `1994-11-06T08:49:37Z`
fn rfc3339(date: &DateBytes) -> Vec<u8> {
    const MONTHS: &[u8] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let month = MONTHS.chunks(3).position(|name| name == &date[8..11]).map_or(0, |index| index + 1);
    let month = [b'0' + (month / 10) as u8, b'0' + (month % 10) as u8];
    [&date[12..16], b"-", &month, b"-", &date[5..7], b"T", &date[17..25], b"Z"].concat()
}
