//! A coded content that is complete, decoded up to a bound.
//!
//! Invariant: what comes out is never longer than it may be, and memory is doubled on the way there: a content costs what comes out
//! of it, and not what its sender says that will.

use super::Coding;
#[cfg(feature = "br")]
use super::brotli;
use super::gzip;
#[cfg(feature = "zstd")]
use super::zstandard;

/// What a decoder may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// All of it, in bytes.
    pub bytes_max: usize,
    /// Bytes that may come out of one, behind the first [`FREE_BYTES`].
    pub ratio_max: usize,
}

/// What may come out whatever went in: short texts that repeat themselves are no attack.
pub const FREE_BYTES: usize = 64 * 1024;

/// Members of a gzip content, and frames of a zstd one: each costs a new decoder.
const MEMBERS_MAX: usize = 64;

/// The memory that a content is first decoded into.
const FIRST_BYTES: usize = 4096;

/// Why a content was not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undecoded {
    /// It is not what its sender says, or not whole, or something is behind it.
    Malformed,
    /// More than [`Bounds::bytes_max`] come out.
    TooLarge,
    /// More than [`Bounds::ratio_max`] come out of each byte.
    TooDense,
    /// This build has no decoder for it.
    Unknown,
}

/// What a decoder has done.
pub struct Stepped {
    pub read: usize,
    pub made: usize,
    /// The end of a member, or of everything.
    pub is_end: bool,
}

/// A decoder.
pub trait Step {
    /// Goes on, as far as there is input and room.
    fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<Stepped, Undecoded>;

    /// Begins with what is behind an end; false if nothing may be there.
    fn go_on(&mut self) -> bool {
        false
    }
}

/// Decodes all of a content.
///
/// # Errors
/// As [`Undecoded`] says.
pub fn decode(coding: Coding, content: &[u8], bounds: Bounds) -> Result<Vec<u8>, Undecoded> {
    match coding {
        Coding::Gzip => run(gzip::Decoder::new(), content, bounds),
        #[cfg(feature = "br")]
        Coding::Br => run(brotli::Decoder::new(), content, bounds),
        #[cfg(feature = "zstd")]
        Coding::Zstd => run(zstandard::Decoder::new()?, content, bounds),
        #[cfg(not(all(feature = "br", feature = "zstd")))]
        _ => Err(Undecoded::Unknown),
    }
}

fn run(mut decoder: impl Step, content: &[u8], bounds: Bounds) -> Result<Vec<u8>, Undecoded> {
    let dense = bounds.ratio_max.saturating_mul(content.len()).max(FREE_BYTES);
    let bytes_max = bounds.bytes_max.min(dense);
    let mut out = Vec::new();
    let (mut len, mut rest, mut members) = (0, content, 1);
    loop {
        if len == out.len() {
            // One more than may be: it shows that there are too many.
            let bytes = (2 * len).max(FIRST_BYTES).min(bytes_max.saturating_add(1));
            out.reserve_exact(bytes - len);
            out.resize(bytes, 0);
        }
        let Stepped { read, made, is_end } = decoder.step(rest, &mut out[len..])?;
        rest = &rest[read..];
        len += made;
        if len > bytes_max {
            return Err(if bytes_max < bounds.bytes_max { Undecoded::TooDense } else { Undecoded::TooLarge });
        }
        if is_end && rest.is_empty() {
            out.truncate(len);
            return Ok(out);
        }
        members += usize::from(is_end);
        let goes_on = if is_end {
            members <= MEMBERS_MAX && decoder.go_on()
        } else {
            read + made > 0 || len == out.len()
        };
        if !goes_on {
            return Err(Undecoded::Malformed);
        }
    }
}
