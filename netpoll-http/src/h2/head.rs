//! Heads, from the fields of HTTP/2 to those of HTTP/1.1 and back.
//!
//! A request is written down as HTTP/1.1 would have it, and read by the one parser that there is: what that refuses is refused here, with
//! the same words. An answer is written as ever, by the one encoder, and its lines become fields again.
//!
//! Invariant: what is written cannot be read as more than one head, nor as fields that the client has not sent: names are tokens and values
//! have no line ends, which the types of
//! `http` see to, and what is left is the parser's to judge.

use http::header::{COOKIE, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::wire::{HeadIndex, Limits, Violation, WireError, parse_framed};

/// A request whose fields were read.
pub(super) struct Read {
    pub(super) bytes: Vec<u8>,
    pub(super) index: HeadIndex,
    /// Or what is wrong with it; whether there is something to be seen of it all the same.
    pub(super) refused: Option<(WireError, bool)>,
}

/// Reads the fields of a request.
pub(super) fn read(parts: &Parts, limits: &Limits, has_body: bool) -> Read {
    let mut index = HeadIndex::new();
    let (bytes, host) = write(parts);
    let refused = match parse_framed(&bytes, limits, &mut index, has_body) {
        Err(refused) => Some((refused.error, refused.head.is_some())),
        // Two hosts, of which a proxy in front may have looked at the other one.
        Ok(()) if !host => Some((Violation::TwoHosts.into(), false)),
        Ok(()) => None,
    };
    Read { bytes, index, refused }
}

/// Writes them down. False if there are two hosts that differ.
fn write(parts: &Parts) -> (Vec<u8>, bool) {
    let Parts { method, uri, headers, .. } = parts;
    let mut bytes = Vec::with_capacity(512);
    let mut is_one = true;
    bytes.extend_from_slice(method.as_str().as_bytes());
    bytes.push(b' ');
    match (uri.path_and_query(), uri.authority()) {
        (Some(path), _) => bytes.extend_from_slice(path.as_str().as_bytes()),
        // Of CONNECT, which is refused.
        (None, Some(authority)) => bytes.extend_from_slice(authority.as_str().as_bytes()),
        (None, None) => {}
    }
    bytes.extend_from_slice(b" HTTP/1.1\r\n");
    if let Some(authority) = uri.authority() {
        let authority = authority.as_str().as_bytes();
        line(&mut bytes, "host", authority);
        is_one = headers.get_all(HOST).iter().all(|host| host.as_bytes().eq_ignore_ascii_case(authority));
    }
    for name in headers.keys() {
        let mut values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
        match *name {
            HOST if uri.authority().is_some() => {}
            // Clients cut it so that its parts are compressed by themselves (RFC 9113 section 8.2.3).
            COOKIE => line(&mut bytes, name.as_str(), &values.collect::<Vec<_>>().join(&b"; "[..])),
            _ => values.by_ref().for_each(|value| line(&mut bytes, name.as_str(), value)),
        }
    }
    bytes.extend_from_slice(b"\r\n");
    (bytes, is_one)
}

fn line(bytes: &mut Vec<u8>, name: &str, value: &[u8]) {
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(b": ");
    bytes.extend_from_slice(value);
    bytes.extend_from_slice(b"\r\n");
}

/// The fields of an answer that was written, without those that speak of the connection.
pub(super) fn fields(head: &[u8]) -> (StatusCode, HeaderMap) {
    // `HTTP/1.1 200 OK`: written by us.
    let status = head.get(9..12).and_then(|digits| StatusCode::from_bytes(digits).ok());
    let mut fields = HeaderMap::with_capacity(8);
    for line in head.split(|&byte| byte == b'\n').skip(1) {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
            && !is_of_connection(name.as_str())
        {
            fields.append(name, value);
        }
    }
    (status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), fields)
}

/// Fields that HTTP/2 does not have (RFC 9113 section 8.2.2).
fn is_of_connection(name: &str) -> bool {
    matches!(name, "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(builder: http::request::Builder) -> Parts {
        builder.body(()).unwrap().into_parts().0
    }

    fn written(builder: http::request::Builder) -> (String, Option<u16>) {
        let Read { bytes, refused, .. } = read(&parts(builder), &Limits::default(), false);
        (String::from_utf8(bytes).unwrap(), refused.map(|(error, _)| error.status()))
    }

    #[test]
    fn a_request_is_written_down_with_one_host_and_one_line_of_cookies() {
        let request = http::Request::builder().uri("https://a.example/x?y=1").header("cookie", "a=1");
        let request = request.header("x-a", "1").header("cookie", "b=2").header("x-a", "2");
        let expected =
            "GET /x?y=1 HTTP/1.1\r\nhost: a.example\r\ncookie: a=1; b=2\r\nx-a: 1\r\nx-a: 2\r\n\r\n";
        assert_eq!(written(request), (expected.to_owned(), None));
    }

    #[test]
    fn a_host_beside_the_authority_has_to_be_the_same() {
        let request = |host: &'static str| http::Request::builder().uri("http://a/").header("host", host);
        assert_eq!(written(request("A")), ("GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), None));
        assert_eq!(written(request("b")).1, Some(400));
        assert_eq!(written(http::Request::builder().uri("/").header("host", "b")).1, None);
        assert_eq!(written(http::Request::builder().uri("/")).1, Some(400), "none at all");
    }

    #[test]
    fn connect_and_what_is_no_target_are_refused_as_ever() {
        assert_eq!(written(http::Request::builder().method("CONNECT").uri("a:80")).1, Some(501));
        assert_eq!(written(http::Request::builder().uri("http://user@a/")).1, Some(400));
    }

    #[test]
    fn the_fields_of_an_answer_are_its_lines_but_for_those_of_the_connection() {
        let head = b"HTTP/1.1 204 No Content\r\nServer: n\r\nConnection: close, upgrade\r\nUpgrade: x\r\nSet-Cookie: a=1\r\nSet-Cookie: b\r\nKeep-Alive: timeout=1\r\n\r\n";
        let (status, fields) = fields(head);
        assert_eq!(status, StatusCode::NO_CONTENT);
        let all: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(all, [("server", &b"n"[..]), ("set-cookie", b"a=1"), ("set-cookie", b"b")]);
    }
}
