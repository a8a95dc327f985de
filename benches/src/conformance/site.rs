//! Another server: the routes it has, and the cases translated to them.
//!
//! Translated are targets and expectations only; no other byte of a request changes, and no length.

use std::net::SocketAddrV4;

use crate::answers::{self, Answer};
use crate::cases::{self, Case, Expect, Level};
use crate::exchange::exchange;

/// Sent behind every case. Another route than that of the cases, so that its answer is known from theirs.
pub const CANARY: &[u8] = b"GET /json HTTP/1.1\r\nHost: canary\r\n\r\n";

/// A server and what its routes answer.
pub struct Site {
    pub to: SocketAddrV4,
    pub has_echo: bool,
    plain: Answer,
    canary: Answer,
}

/// What has to be known of one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// That of `GET /plaintext`.
    Plain,
    /// 200 and these bytes.
    Echo(Vec<u8>),
    /// 4xx or 5xx.
    Refusal,
    /// Whatever this server makes of a route it may not have.
    Any,
}

impl Site {
    /// Asks the routes once.
    ///
    /// # Errors
    /// Nobody listens, or what comes back is no answer.
    pub fn probe(to: SocketAddrV4) -> Result<Self, String> {
        let ask = |line: &str, behind: &str| {
            let request = format!("{line} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n{behind}");
            let outcome =
                exchange(to, request.as_bytes(), |_| false).map_err(|error| format!("{to}: {error}"))?;
            let mut found = answers::read(&outcome.bytes, &[], true).finals;
            if found.is_empty() {
                return Err(format!("{to} does not answer {line}"));
            }
            Ok(found.remove(0))
        };
        let plain = ask("GET /plaintext", "\r\n")?;
        if plain.status != 200 {
            return Err(format!("{to} answers GET /plaintext with {}", plain.status));
        }
        let canary = ask("GET /json", "\r\n")?;
        let echo = ask("POST /echo", "Content-Length: 2\r\n\r\nhi");
        let has_echo = echo.is_ok_and(|echo| (echo.status, echo.body.as_slice()) == (200, b"hi"));
        Ok(Self { to, has_echo, plain, canary })
    }

    /// Whether this is what the canary is answered with.
    pub fn is_canary(&self, answer: &Answer) -> bool {
        (answer.status, &answer.body) == (self.canary.status, &self.canary.body)
    }

    /// Whether the answer is as wanted.
    pub fn fits(&self, want: &Want, answer: &Answer) -> bool {
        match want {
            Want::Plain => (answer.status, &answer.body) == (self.plain.status, &self.plain.body),
            Want::Echo(body) => (answer.status, &answer.body) == (200, body),
            Want::Refusal => (400..600).contains(&answer.status),
            Want::Any => true,
        }
    }
}

/// The request with the targets of the fixture replaced by those that other servers have.
pub fn request(case: &Case) -> Vec<u8> {
    let mut bytes = case.request.clone();
    for (from, to) in [("/host ", "/plaintext "), ("GET /header ", "GET /plaintext "), ("/small ", "/echo ")]
    {
        bytes = replace(&bytes, from.as_bytes(), to.as_bytes());
    }
    let is_edge = |byte: Option<&u8>, edges: &[u8]| byte.is_none_or(|byte| edges.contains(byte));
    let is_root = |at: usize| {
        bytes[at] == b'/'
            && is_edge(at.checked_sub(1).and_then(|at| bytes.get(at)), b" \t\r\x0c\xa0")
            && is_edge(bytes.get(at + 1), b" \t\r\x0b?")
    };
    let route = |at: usize| if is_root(at) { b"/plaintext" } else { &bytes[at..=at] };
    (0..bytes.len()).flat_map(route).copied().collect()
}

/// What has to come back to [`request`], answer by answer.
pub fn wants(case: &Case, level: Level, expect: &Expect) -> Vec<Want> {
    let has = |part: &str| answers::find(&case.request, part.as_bytes()).is_some();
    let to_plain = has("/host ") || has("GET /header ");
    let to_echo = has("POST /echo ") || has("POST /small ");
    let want = |answer: &cases::Answer| match (answer.status, answer.body.as_deref()) {
        (200, Some(b"hello")) => Want::Plain,
        (200, Some(body)) if body.starts_with(b"/path") => Want::Any,
        (200, Some(_)) if to_plain => Want::Plain,
        (200, Some(body)) if to_echo => Want::Echo(body.to_vec()),
        // The answer depends on the routes, the framing does not.
        (..400 | 404, _) => Want::Any,
        (405 | 501, _) if level == Level::Must && expect.then == cases::Then::Kept => Want::Any,
        _ => Want::Refusal,
    };
    expect.answers.iter().map(want).collect()
}

/// Whether the server lacks what the case is about.
pub fn lacks_route(site: &Site, case: &Case, level: Level) -> bool {
    let needs_echo = answers::find(&request(case), b" /echo ").is_some();
    level == Level::Fixture || (needs_echo && !site.has_echo)
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut rest = bytes;
    let mut replaced = Vec::new();
    while let Some(at) = answers::find(rest, from) {
        replaced.extend_from_slice(&rest[..at]);
        replaced.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    [&replaced, rest].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::{case, ok};

    #[test]
    fn only_the_targets_change() {
        for (before, after) in [
            ("GET / HTTP/1.1\r\nUpgrade: a/b\r\n\r\n", "GET /plaintext HTTP/1.1\r\nUpgrade: a/b\r\n\r\n"),
            ("GET /?a=b HTTP/1.1", "GET /plaintext?a=b HTTP/1.1"),
            ("GET\t/\tHTTP/1.1", "GET\t/plaintext\tHTTP/1.1"),
            ("GET http://a/host HTTP/1.1", "GET http://a/plaintext HTTP/1.1"),
            ("POST /small HTTP/1.1\r\nX: 1/2", "POST /echo HTTP/1.1\r\nX: 1/2"),
            ("GET http:/// HTTP/1.1", "GET http:/// HTTP/1.1"),
            ("GET /nowhere HTTP/1.1", "GET /nowhere HTTP/1.1"),
        ] {
            assert_eq!(request(&case("a case", before, ok(""))), after.as_bytes());
        }
    }
}
