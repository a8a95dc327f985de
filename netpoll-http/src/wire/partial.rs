//! Heads that are not complete, and heads that are broken: read byte by byte, each byte once.
//!
//! [`parse`](super::parse()) takes complete heads apart and gives up on everything else. What it gave up on
//! comes here: this is the only place that names a broken rule of the syntax, and the place that remembers
//! how far a head was read. A head that trickles in costs O(bytes), and is refused with the byte that breaks it.
//!
//! Invariant: the verdict depends on the bytes up to the one that decides, not on how they were cut into
//! reads. (White space behind a name is the exception: which of two sentences it gets depends on what
//! follows.) It is also that of `parse`: a head ends here exactly if it is read there; the two share
//! no code, and the tests hold one against the other.

use super::error::Violation;
use super::framing::{is_token_byte, is_value_byte};
use super::headers::HEADERS_MAX;
use super::request::{Limits, Place, Scan};
use super::scan;

/// The longest registered method, UPDATEREDIRECTREF, has 17 bytes.
pub(super) const METHOD_BYTES_MAX: usize = 32;

/// Reads on where `scan` stopped. Returns true if the head ends in these bytes.
///
/// # Errors
/// The rule that the first impossible byte breaks.
#[cold]
pub(super) fn examine(window: &[u8], scan: &mut Scan, limits: &Limits) -> Result<bool, Violation> {
    let mut at = usize::from(scan.scanned);
    while let Some(&byte) = window.get(at) {
        let start = usize::from(scan.start);
        at += 1;
        scan.place = match (scan.place, byte) {
            (Place::Method, b' ') if at > 1 => {
                if &window[..at - 1] == b"CONNECT" {
                    return Err(Violation::ConnectNotSupported);
                }
                scan.start = at as u16;
                Place::Target
            }
            (Place::Method, _) if !is_token_byte(byte) => return Err(Violation::BadRequestLine),
            (Place::Method, _) if at > METHOD_BYTES_MAX => return Err(Violation::MethodTooLong),
            (Place::Method, _) => Place::Method,

            (Place::Target, b' ') if at - 1 > start => {
                scan.start = at as u16;
                Place::Version
            }
            (Place::Target, b'#' | 0x80..) => return Err(Violation::BadTarget),
            (Place::Target, 0x21..=0x7e) => {
                at = scan::target(&window[at..]).map_or(window.len(), |(len, _)| at + len);
                if at - start > limits.target_bytes_max {
                    return Err(Violation::TargetTooLong);
                }
                Place::Target
            }
            (Place::Target, b' ' | b'\t' | b'\r' | b'\n') => return Err(Violation::BadRequestLine),
            (Place::Target, _) => return Err(Violation::ControlByte),

            (Place::Version, _) => version(&window[start..at])?,

            (Place::LineEnd, b'\n') => Place::LineStart,
            (Place::HeadEnd, b'\n') => {
                scan.scanned = at as u16;
                return Ok(true);
            }
            (Place::LineEnd | Place::HeadEnd, _) => return Err(Violation::BareCr),

            (Place::LineStart, b'\r') => Place::HeadEnd,
            (Place::LineStart, b'\n') => return Err(Violation::BareLf),
            (Place::LineStart, _) if usize::from(scan.headers) >= limits.headers_max.min(HEADERS_MAX) => {
                return Err(Violation::TooManyHeaders);
            }
            (Place::LineStart, b' ' | b'\t') if scan.headers == 0 => return Err(Violation::LeadingSpace),
            (Place::LineStart, b' ' | b'\t') => return Err(Violation::FoldedHeader),
            (Place::LineStart, _) if is_token_byte(byte) => {
                scan.headers += 1;
                Place::Name
            }
            (Place::LineStart, _) => return Err(Violation::BadHeaderName),

            (Place::Name, b':') => Place::Value,
            (Place::Name, _) if is_token_byte(byte) => Place::Name,
            (Place::Name, b'\r') => return Err(Violation::NoColon),
            (Place::Name, b'\n') => return Err(Violation::BareLf),
            (Place::Name, b' ' | b'\t') => return Err(behind_name(&window[at..])),
            (Place::Name, _) => return Err(Violation::BadHeaderName),

            (Place::Value, b'\r') => Place::LineEnd,
            (Place::Value, b'\n') => return Err(Violation::BareLf),
            (Place::Value, _) if is_value_byte(byte) => {
                at = scan::value(&window[at..]).map_or(window.len(), |(len, _)| at + len);
                Place::Value
            }
            (Place::Value, _) => return Err(Violation::BadHeaderValue),
        };
    }
    scan.scanned = at as u16;
    Ok(false)
}

/// Checks the last byte of a version and what ends it.
fn version(version: &[u8]) -> Result<Place, Violation> {
    const SHAPE: &[u8; 8] = b"HTTP/0.0";
    let (before, last) = (version.len() - 1, version[version.len() - 1]);
    match SHAPE.get(before) {
        Some(b'0') if !last.is_ascii_digit() => Err(Violation::BadVersion),
        Some(b'0') if before < 7 => Ok(Place::Version),
        Some(b'0') if version.starts_with(b"HTTP/1.") => Ok(Place::Version),
        Some(b'0') => Err(Violation::VersionNotSupported),
        Some(&shape) if last != shape => Err(Violation::BadVersion),
        Some(_) => Ok(Place::Version),
        None if last == b'\r' => Ok(Place::LineEnd),
        None if last == b'\n' => Err(Violation::BareLf),
        None if matches!(last, b' ' | b'\t') => Err(Violation::BadRequestLine),
        None => Err(Violation::BadVersion),
    }
}

/// What is wrong with white space behind a header name, for the sentence in the answer.
fn behind_name(rest: &[u8]) -> Violation {
    match rest.iter().find(|&&byte| byte != b' ' && byte != b'\t') {
        None | Some(b':') => Violation::SpaceBeforeColon,
        Some(_) => Violation::BadHeaderName,
    }
}
