//! The chunked body: framing in, data out.
//!
//! A state machine that takes one byte at a time and data in runs. It never guesses: a line ends with
//! exactly CRLF, a size is 1 to 16 hexadecimal digits, extensions and trailers follow their grammar, and
//! after an error nothing is decoded any more.
//!
//! Invariant: how the bytes were cut into reads changes neither the data nor the error. Extensions are
//! ignored; trailers never mix with the headers and have no effect on framing. What a peer can make us
//! read besides data is bounded three times: extensions, trailers, and the ratio of framing to data.

use super::error::{Violation, WireError};
use super::framing::{is_token_byte, is_value_byte};
use super::trailers::Trailers;

/// Bytes of chunk extensions in one body (CVE-2023-39326 was a server without this limit).
const EXTENSION_BYTES_MAX: u16 = 4096;
/// Bytes of a trailer section.
const TRAILER_BYTES_MAX: usize = 4096;
/// Up to here any ratio of framing to data is fine; picohttpparser's rule.
const OVERHEAD_BYTES_FREE: u64 = 100 * 1024;
const SIZE_DIGITS_MAX: u8 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the digits of a chunk size.
    Size,
    /// After white space that only a `;` may follow.
    BeforeSemicolon,
    /// After `;`: white space, then a name.
    ExtensionStart,
    ExtensionName,
    /// White space after a name: `=` or `;` must follow.
    ExtensionNameEnd,
    /// After `=`: white space, then a token or a quoted string.
    ValueStart,
    ValueToken,
    ValueQuoted,
    ValueEscape,
    /// After a closing quote.
    ValueEnd,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
    Failed(Violation),
}

/// Decodes one chunked body. Make a new one per body.
#[derive(Clone, Debug)]
pub struct Decoder {
    state: State,
    /// Digits of the current chunk size.
    digits: u8,
    extension_bytes: u16,
    /// What remains of the current chunk.
    remaining: u64,
    /// Data of the whole body so far; never above the caller's limit.
    data_bytes: u64,
    /// Everything that was read and is not data.
    overhead_bytes: u64,
    /// The trailer section as it came; owns nothing if there is none.
    trailers: Vec<u8>,
}

/// What a call of [`Decoder::decode`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of the input that belong to this body: all of them, unless `done`.
    pub consumed: usize,
    /// The body is complete; what follows is the next request.
    pub done: bool,
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder::new()
    }
}

impl Decoder {
    /// A decoder at the start of a body.
    pub const fn new() -> Decoder {
        Decoder {
            state: State::Size,
            digits: 0,
            extension_bytes: 0,
            remaining: 0,
            data_bytes: 0,
            overhead_bytes: 0,
            trailers: Vec::new(),
        }
    }

    /// True when the body is complete.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Data bytes decoded so far.
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Appends the data in `input` to `out`, which gets at most `input.len()` bytes.
    ///
    /// `body_bytes_max` is the limit of the whole body, not of this call.
    ///
    /// # Errors
    /// The first violation; the same one again on every later call.
    pub fn decode(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        body_bytes_max: u64,
    ) -> Result<Decoded, WireError> {
        self.decode_with(input, body_bytes_max, |data| out.extend_from_slice(data))
    }

    /// As [`decode`](Decoder::decode), handing on each run of data where it lies: to skip a body or to pass it on.
    ///
    /// # Errors
    /// The first violation; the same one again on every later call.
    pub fn decode_with(
        &mut self,
        input: &[u8],
        body_bytes_max: u64,
        mut data: impl FnMut(&[u8]),
    ) -> Result<Decoded, WireError> {
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            if self.state == State::Data {
                let run = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(input.len() - at);
                data(&input[at..at + run]);
                at += run;
                self.data_bytes += run as u64;
                self.remaining -= run as u64;
                if self.remaining == 0 {
                    self.state = State::DataCr;
                }
            } else {
                self.state = match self.step(input[at], body_bytes_max) {
                    Ok(next) => next,
                    Err(violation) => {
                        self.state = State::Failed(violation);
                        return Err(violation.into());
                    }
                };
                at += 1;
                self.overhead_bytes += 1;
            }
        }
        match self.state {
            State::Failed(violation) => Err(violation.into()),
            state => Ok(Decoded { consumed: at, done: state == State::Done }),
        }
    }

    /// The state after one byte of framing.
    fn step(&mut self, byte: u8, body_bytes_max: u64) -> Result<State, Violation> {
        let is_blank = matches!(byte, b' ' | b'\t');
        match self.state {
            State::Size => return self.size(byte, body_bytes_max),
            State::SizeLf => return self.size_end(byte),
            State::DataCr if byte == b'\r' => return Ok(State::DataLf),
            State::DataLf if byte == b'\n' => return Ok(State::Size),
            State::DataCr | State::DataLf => return Err(Violation::BadChunkLineEnd),
            State::TrailerStart
            | State::TrailerName
            | State::TrailerValue
            | State::TrailerLf
            | State::EndLf => return self.trailer(byte),
            State::Failed(violation) => return Err(violation),
            State::Data | State::Done => return Ok(self.state),
            _ => {}
        }
        self.extension_bytes += 1;
        if self.extension_bytes > EXTENSION_BYTES_MAX {
            return Err(Violation::ChunkExtensionsTooLarge);
        }
        match (self.state, byte) {
            (State::ExtensionName | State::ValueToken | State::ValueEnd, b'\r') => Ok(State::SizeLf),
            (State::ExtensionStart | State::ValueStart | State::BeforeSemicolon, _) if is_blank => {
                Ok(self.state)
            }
            (State::ExtensionName | State::ExtensionNameEnd, _) if is_blank => Ok(State::ExtensionNameEnd),
            (State::ValueToken | State::ValueEnd, _) if is_blank => Ok(State::BeforeSemicolon),
            (State::ExtensionName | State::ExtensionNameEnd, b'=') => Ok(State::ValueStart),
            (
                State::ExtensionName
                | State::ExtensionNameEnd
                | State::ValueToken
                | State::ValueEnd
                | State::BeforeSemicolon,
                b';',
            ) => Ok(State::ExtensionStart),
            (State::ExtensionStart | State::ExtensionName, _) if is_token_byte(byte) => {
                Ok(State::ExtensionName)
            }
            (State::ValueStart | State::ValueToken, _) if is_token_byte(byte) => Ok(State::ValueToken),
            (State::ValueStart, b'"') => Ok(State::ValueQuoted),
            (State::ValueQuoted, b'"') => Ok(State::ValueEnd),
            (State::ValueQuoted, b'\\') => Ok(State::ValueEscape),
            (State::ValueQuoted | State::ValueEscape, _) if is_value_byte(byte) => Ok(State::ValueQuoted),
            _ => Err(Violation::BadChunkExtension),
        }
    }

    /// A byte of a chunk size, or the first one after it.
    fn size(&mut self, byte: u8, body_bytes_max: u64) -> Result<State, Violation> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            _ if self.digits == 0 => return Err(Violation::BadChunkSize),
            // `data_bytes <= body_bytes_max` unless the caller lowered the limit in between.
            _ if self.remaining > body_bytes_max.saturating_sub(self.data_bytes) => {
                return Err(Violation::BodyTooLarge);
            }
            b'\r' => return Ok(State::SizeLf),
            b';' | b' ' | b'\t' => {
                self.extension_bytes += 1;
                if self.extension_bytes > EXTENSION_BYTES_MAX {
                    return Err(Violation::ChunkExtensionsTooLarge);
                }
                return Ok(if byte == b';' { State::ExtensionStart } else { State::BeforeSemicolon });
            }
            _ => return Err(Violation::BadChunkSize),
        };
        if self.digits == SIZE_DIGITS_MAX {
            return Err(Violation::BadChunkSize);
        }
        // Sixteen digits fill a u64 exactly; `remaining` is zero before the first.
        self.digits += 1;
        self.remaining = self.remaining << 4 | u64::from(digit);
        Ok(State::Size)
    }

    /// The LF after a chunk size and its extensions.
    fn size_end(&mut self, byte: u8) -> Result<State, Violation> {
        if byte != b'\n' {
            return Err(Violation::BadChunkLineEnd);
        }
        self.digits = 0;
        // More than 80 % of everything is framing.
        if self.overhead_bytes >= OVERHEAD_BYTES_FREE && self.overhead_bytes / 4 > self.data_bytes {
            return Err(Violation::TooMuchChunkOverhead);
        }
        Ok(if self.remaining == 0 { State::TrailerStart } else { State::Data })
    }

    /// A byte after the last chunk.
    fn trailer(&mut self, byte: u8) -> Result<State, Violation> {
        let next = match (self.state, byte) {
            (State::TrailerStart, b'\r') => return Ok(State::EndLf),
            (State::EndLf, b'\n') => return Ok(State::Done),
            (State::TrailerStart | State::TrailerName, _) if is_token_byte(byte) => State::TrailerName,
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerValue, _) if is_value_byte(byte) => State::TrailerValue,
            (State::TrailerLf, b'\n') => State::TrailerStart,
            _ => return Err(Violation::BadTrailer),
        };
        if self.trailers.len() == TRAILER_BYTES_MAX {
            return Err(Violation::TrailersTooLarge);
        }
        self.trailers.push(byte);
        Ok(next)
    }

    /// The trailer fields, once the body is done; none before.
    pub fn into_trailers(self) -> Trailers {
        if self.is_done() { Trailers::new(self.trailers) } else { Trailers::default() }
    }
}
