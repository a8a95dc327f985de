//! HTTP/1 on monoio with httparse, written here: monoio has no HTTP of its own in the same repository.
//!
//! One runtime per worker, a task and two owned buffers per connection. All requests that one read brought are
//! answered by one write.
//!
//! What it checks: the grammar of the head (httparse), 16 header fields, 16 KiB of head, one numeric Content-Length
//! of at most 16 MiB. Transfer-Encoding is refused. A refused request ends the connection. It has no deadlines.

use std::io;

use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

use crate::http::{BODY_BYTES_MAX, HELLO, Message, append_date};
use crate::{Options, on_each_worker};

const READ_BYTES: usize = 8 * 1024;
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 16;

/// On one runtime for each worker, with io_uring or with epoll, which it calls its legacy driver.
pub fn on(options: &Options, has_uring: bool) -> ! {
    on_each_worker(options, |listener| match has_uring {
        true => RuntimeBuilder::<IoUringDriver>::new().build()?.block_on(serve(listener)),
        false => RuntimeBuilder::<LegacyDriver>::new().build()?.block_on(serve(listener)),
    })
}

async fn serve(listener: std::net::TcpListener) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        monoio::spawn(connection(stream));
    }
}

async fn connection(mut stream: TcpStream) {
    let mut read_buffer = Vec::with_capacity(READ_BYTES);
    let mut answers = Vec::with_capacity(READ_BYTES);
    // A request that is not complete yet, kept from earlier reads.
    let mut kept: Vec<u8> = Vec::new();
    loop {
        let (read, filled) = stream.read(read_buffer).await;
        let Ok(1..) = read else { return };
        let outcome = if kept.is_empty() {
            answer_all(&filled, &mut answers).map(|used| kept.extend_from_slice(&filled[used..]))
        } else {
            kept.extend_from_slice(&filled);
            answer_all(&kept, &mut answers).map(|used| drop(kept.drain(..used)))
        };
        read_buffer = filled;
        read_buffer.clear();
        if !answers.is_empty() {
            let (written, emptied) = stream.write_all(answers).await;
            if written.is_err() {
                return;
            }
            answers = emptied;
            answers.clear();
        }
        if !matches!(outcome, Ok(())) {
            return;
        }
    }
}

/// Why a connection ends after the answers so far.
enum End {
    Refused,
    Asked,
}

/// Answers every complete request in `bytes`; how many bytes those were.
fn answer_all(bytes: &[u8], answers: &mut Vec<u8>) -> Result<usize, End> {
    let mut used = 0;
    while used < bytes.len() {
        match answer_one(&bytes[used..], answers)? {
            0 => break,
            request => used += request,
        }
    }
    Ok(used)
}

/// Answers the first request; its bytes, or 0 if it is not complete.
fn answer_one(bytes: &[u8], answers: &mut Vec<u8>) -> Result<usize, End> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let head = match request.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) if bytes.len() <= HEAD_BYTES_MAX => return Ok(0),
        Ok(httparse::Status::Partial) | Err(_) => return Err(refuse(answers)),
    };
    let (mut length, mut close) = (None, request.version == Some(0));
    for header in request.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            let value = digits(header.value).filter(|value| *value <= BODY_BYTES_MAX);
            if value.is_none() || length.replace(value).is_some() {
                return Err(refuse(answers));
            }
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(refuse(answers));
        } else if header.name.eq_ignore_ascii_case("connection") {
            close |= header.value.eq_ignore_ascii_case(b"close");
        }
    }
    let end = head + length.flatten().unwrap_or(0);
    let Some(body) = bytes.get(head..end) else { return Ok(0) };
    match (request.method.unwrap_or_default(), request.path.unwrap_or_default()) {
        ("GET", "/plaintext") => answer(answers, "200 OK", "text/plain", HELLO.as_bytes()),
        ("GET", "/json") => answer(answers, "200 OK", "application/json", &Message::HELLO.to_json()),
        ("POST", "/echo") => answer(answers, "200 OK", "application/octet-stream", body),
        _ => answer(answers, "404 Not Found", "text/plain", b""),
    }
    if close { Err(End::Asked) } else { Ok(end) }
}

fn refuse(answers: &mut Vec<u8>) -> End {
    answer(answers, "400 Bad Request", "text/plain", b"");
    End::Refused
}

fn digits(value: &[u8]) -> Option<usize> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn answer(answers: &mut Vec<u8>, status: &str, kind: &str, body: &[u8]) {
    answers.extend_from_slice(b"HTTP/1.1 ");
    answers.extend_from_slice(status.as_bytes());
    answers.extend_from_slice(b"\r\nServer: monoio\r\nDate: ");
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
        let used = answer_all(bytes, &mut answers).ok();
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
}
