//! The rules of the wire, one sentence each, on raw bytes.
//!
//! Every head goes through [`verdict`], which feeds it whole and byte by byte and wants one answer.

mod answers;
mod body;
mod chunked;
mod headers;
mod properties;
mod reader;
mod request_line;
mod targets;

use super::*;

/// A head that lives as long as the test program.
fn parsed(bytes: &[u8], limits: &Limits) -> Result<Option<Head<'static>>, Violation> {
    let bytes: &'static [u8] = bytes.to_vec().leak();
    let index = Box::leak(Box::new(HeadIndex::new()));
    match parse(bytes, &mut Scan::default(), limits, index) {
        Ok(Progress::Partial { .. }) => Ok(None),
        Ok(Progress::Done(head)) => Ok(Some(head)),
        Err(error) => Err(error.violation()),
    }
}

/// What comes out when every read of the connection brings `step` bytes: the bytes that the head took, or
/// the violation.
fn trickled(bytes: &[u8], step: usize, limits: &Limits) -> Result<Option<usize>, Violation> {
    let (mut scan, mut index) = (Scan::default(), HeadIndex::new());
    let (mut start, mut end) = (0, 0);
    while end < bytes.len() {
        end = bytes.len().min(end + step);
        match parse(&bytes[start..end], &mut scan, limits, &mut index) {
            Ok(Progress::Partial { skip }) => start += skip,
            Ok(Progress::Done(head)) => return Ok(Some(start + head.consumed())),
            Err(error) => return Err(error.violation()),
        }
    }
    Ok(None)
}

/// The head in `bytes`, after checking that it makes no difference how they arrive.
fn verdict_within(bytes: &[u8], limits: &Limits) -> Result<Option<Head<'static>>, Violation> {
    let whole = parsed(bytes, limits);
    let expected = whole.map(|head| head.map(|head| head.consumed()));
    for step in [1, 2, 3, 7, 64] {
        let status = |violation| WireError::from(violation).status();
        assert_eq!(
            trickled(bytes, step, limits).map_err(status),
            expected.map_err(status),
            "in steps of {step}: {}",
            bytes.escape_ascii()
        );
    }
    whole
}

fn verdict(bytes: &[u8]) -> Result<Option<Head<'static>>, Violation> {
    verdict_within(bytes, &Limits::default())
}

/// The head that these bytes must have.
fn accepted(bytes: impl AsRef<[u8]>) -> Head<'static> {
    let bytes = bytes.as_ref();
    verdict(bytes)
        .unwrap_or_else(|violation| panic!("{violation:?}: {}", bytes.escape_ascii()))
        .expect("a head")
}

/// The rule that these bytes must break.
fn refused(bytes: impl AsRef<[u8]>) -> Violation {
    let bytes = bytes.as_ref();
    verdict(bytes).expect_err(&format!("a violation in {}", bytes.escape_ascii()))
}

/// A head with these lines between the request line and the empty line.
fn with(version: &str, lines: &[&str]) -> Vec<u8> {
    let mut bytes = format!("POST / {version}\r\n").into_bytes();
    for line in lines {
        bytes.extend_from_slice(line.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// An HTTP/1.1 head with a Host and these lines.
fn http11(lines: &[&str]) -> Vec<u8> {
    with("HTTP/1.1", &[&["Host: a"], lines].concat())
}

fn status(violation: Violation) -> u16 {
    WireError::from(violation).status()
}
