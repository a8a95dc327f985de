//! HTTP/1 with httparse, written here, for runtimes that have no HTTP of their own in the same repository.
//!
//! It knows bytes and no runtime: what one read brought goes in, and the answers to all requests that are complete by then come out, to be
//! sent by one write. The servers on it differ in their runtime and in nothing else.
//!
//! What it checks: the grammar of the head (httparse), 16 header fields, 16 KiB of head, one numeric Content-Length
//! of at most 16 MiB. Transfer-Encoding is refused. A refused request ends the connection. It has no deadlines.

use crate::http::{BODY_BYTES_MAX, HELLO, Message, append_date};

/// Bytes that a server reads at once, and the first size of the buffer for answers.
pub const READ_BYTES: usize = 8 * 1024;
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 16;

/// What the server knows of a connection between two reads.
#[derive(Debug)]
pub struct Exchange {
    /// In the Server field of its answers.
    name: &'static str,
    /// A request that is not complete yet, kept from earlier reads.
    kept: Vec<u8>,
}

impl Exchange {
    /// Of a new connection, with a server of this name.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, kept: Vec::new() }
    }

    /// Takes what one read brought and appends the answers to it. Whether there is more to come: else the connection ends behind them.
    #[must_use]
    pub fn received(&mut self, bytes: &[u8], answers: &mut Vec<u8>) -> bool {
        let answered = if self.kept.is_empty() {
            answer_all(self.name, bytes, answers).map(|used| self.kept.extend_from_slice(&bytes[used..]))
        } else {
            self.kept.extend_from_slice(bytes);
            answer_all(self.name, &self.kept, answers).map(|used| drop(self.kept.drain(..used)))
        };
        answered.is_ok()
    }
}

/// The connection ends behind the answers so far: it was asked for, or a request was refused.
struct End;

/// Answers every complete request in `bytes`; how many bytes those were.
fn answer_all(name: &str, bytes: &[u8], answers: &mut Vec<u8>) -> Result<usize, End> {
    let mut used = 0;
    while used < bytes.len() {
        match answer_one(name, &bytes[used..], answers)? {
            0 => break,
            request => used += request,
        }
    }
    Ok(used)
}

/// Answers the first request; its bytes, or 0 if it is not complete.
fn answer_one(name: &str, bytes: &[u8], answers: &mut Vec<u8>) -> Result<usize, End> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let head = match request.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) if bytes.len() <= HEAD_BYTES_MAX => return Ok(0),
        Ok(httparse::Status::Partial) | Err(_) => return Err(refuse(name, answers)),
    };
    let (mut length, mut close) = (None, request.version == Some(0));
    for header in request.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            let value = digits(header.value).filter(|value| *value <= BODY_BYTES_MAX);
            if value.is_none() || length.replace(value).is_some() {
                return Err(refuse(name, answers));
            }
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(refuse(name, answers));
        } else if header.name.eq_ignore_ascii_case("connection") {
            close |= header.value.eq_ignore_ascii_case(b"close");
        }
    }
    let end = head + length.flatten().unwrap_or(0);
    let Some(body) = bytes.get(head..end) else { return Ok(0) };
    match (request.method.unwrap_or_default(), request.path.unwrap_or_default()) {
        ("GET", "/plaintext") => answer(name, answers, "200 OK", "text/plain", HELLO.as_bytes()),
        ("GET", "/json") => answer(name, answers, "200 OK", "application/json", &Message::HELLO.to_json()),
        ("POST", "/echo") => answer(name, answers, "200 OK", "application/octet-stream", body),
        _ => answer(name, answers, "404 Not Found", "text/plain", b""),
    }
    if close { Err(End) } else { Ok(end) }
}

fn refuse(name: &str, answers: &mut Vec<u8>) -> End {
    answer(name, answers, "400 Bad Request", "text/plain", b"");
    End
}

fn digits(value: &[u8]) -> Option<usize> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn answer(name: &str, answers: &mut Vec<u8>, status: &str, kind: &str, body: &[u8]) {
    answers.extend_from_slice(b"HTTP/1.1 ");
    answers.extend_from_slice(status.as_bytes());
    answers.extend_from_slice(b"\r\nServer: ");
    answers.extend_from_slice(name.as_bytes());
    answers.extend_from_slice(b"\r\nDate: ");
    append_date(answers);
    answers.extend_from_slice(b"\r\nContent-Type: ");
    answers.extend_from_slice(kind.as_bytes());
    answers.extend_from_slice(b"\r\nContent-Length: ");
    answers.extend_from_slice(itoa::Buffer::new().format(body.len()).as_bytes());
    answers.extend_from_slice(b"\r\n\r\n");
    answers.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(bytes: &[u8]) -> (Option<usize>, String) {
        let mut answers = Vec::new();
        let used = answer_all("peer", bytes, &mut answers).ok();
        (used, String::from_utf8(answers).expect("text"))
    }

    #[test]
    fn pipelined_requests_are_answered_and_a_part_is_left() {
        let request = b"POST /echo HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
        let two = [&request[..], request, &request[..30]].concat();
        let (used, answers) = answered(&two);
        assert_eq!(used, Some(2 * request.len()));
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2);
        assert_eq!(answers.matches("Content-Length: 3\r\n\r\nabc").count(), 2);
    }

    #[test]
    fn doubtful_framing_is_refused() {
        for fields in [
            "Content-Length: +3",
            "Content-Length: 3\r\nContent-Length: 3",
            "Content-Length: 99999999",
            "Transfer-Encoding: chunked",
        ] {
            let (used, answers) = answered(format!("POST /echo HTTP/1.1\r\n{fields}\r\n\r\nabc").as_bytes());
            assert!(used.is_none() && answers.starts_with("HTTP/1.1 400"), "{fields}");
        }
    }

    #[test]
    fn a_request_that_comes_in_pieces_is_answered_when_it_is_whole() {
        let request = b"POST /echo HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
        for cut in 1..request.len() {
            let (mut exchange, mut answers) = (Exchange::new("peer"), Vec::new());
            assert!(exchange.received(&request[..cut], &mut answers) && answers.is_empty(), "{cut}");
            assert!(exchange.received(&[&request[cut..], request].concat(), &mut answers), "{cut}");
            let answers = String::from_utf8(answers).expect("text");
            assert_eq!(answers.matches("\r\nServer: peer\r\n").count(), 2, "{cut}: {answers}");
            assert!(answers.ends_with("\r\n\r\nabc") && exchange.kept.is_empty(), "{cut}: {answers}");
        }
    }

    #[test]
    fn nothing_is_answered_behind_the_end_that_was_asked_for() {
        let two = b"GET /plaintext HTTP/1.1\r\nConnection: close\r\n\r\n".repeat(2);
        let mut answers = Vec::new();
        assert!(!Exchange::new("peer").received(&two, &mut answers));
        assert_eq!(String::from_utf8(answers).expect("text").matches("HTTP/1.1 200 OK").count(), 1);
    }
}
