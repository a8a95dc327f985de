//! Forms with files: `multipart/form-data` (RFC 7578), part by part while the body arrives.
//!
//! Bytes are taken apart by a parser of this room, which does no I/O; its reader asks a [`BodyReader`](crate::BodyReader) for more. Data of a part is a slice of what was
//! received.
//!
//! Invariant: memory is a piece of the body, the headers of one part, and what the program gathers, whose limit has a name. A file is written by
//! threads that may block, never by the worker.

mod head;
mod parser;
mod reader;
mod save;
#[cfg(test)]
mod tests;

use std::fmt;

use http::StatusCode;

use crate::message::{BodyError, ResponseError};

pub use reader::{Multipart, Part};

/// The parser, for tests, fuzz targets and benches.
#[cfg(feature = "internals")]
pub mod internals {
    pub use super::head::PartHead;
    pub use super::parser::{Parser, Step, Violation, is_boundary};
}

/// How much a form may have in it: see [`Multipart::limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MultipartLimits {
    /// Parts of a form. Default 256: a page with as many fields has somebody who fills them in.
    pub parts_max: usize,
    /// Bytes of the header section of a part. Default 4096: two lines, and names of files are hardly longer than 255 bytes.
    pub header_bytes_max: usize,
    /// Bytes of a part that is gathered in memory, by [`Part::bytes`] or [`Part::text`]. Default 65 536.
    pub field_bytes_max: usize,
    /// Bytes of a part, however it is read. Default `u64::MAX`: as many as the body may have
    /// ([`RouteLimits::body_bytes_max`](crate::RouteLimits::body_bytes_max)).
    pub part_bytes_max: u64,
    /// Bytes of the whole form, headers and boundaries included. Default `u64::MAX`, the same.
    pub bytes_max: u64,
}

impl Default for MultipartLimits {
    fn default() -> Self {
        Self {
            parts_max: 256,
            header_bytes_max: 4096,
            field_bytes_max: 64 * 1024,
            part_bytes_max: u64::MAX,
            bytes_max: u64::MAX,
        }
    }
}

/// One setter for each field, of its name.
macro_rules! setters {
    ($($name:ident: $type:ty,)*) => {
        impl MultipartLimits {$(
            #[doc = concat!("Sets [`", stringify!($name), "`](field@Self::", stringify!($name), ").")]
            #[must_use]
            pub fn $name(mut self, $name: $type) -> Self {
                self.$name = $name;
                self
            }
        )*}
    };
}

setters! {
    parts_max: usize,
    header_bytes_max: usize,
    field_bytes_max: usize,
    part_bytes_max: u64,
    bytes_max: u64,
}

/// Why a form cannot be read to its end; `?` in a handler answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MultipartError {
    /// It breaks a rule, and this sentence says which: 400.
    Malformed(&'static str),
    /// It has more of something than [`MultipartLimits`] allow, and this sentence says what: 413.
    TooLarge(&'static str),
    /// Its body is not going to be whole.
    Body(BodyError),
}

impl From<parser::Violation> for MultipartError {
    fn from(violation: parser::Violation) -> Self {
        match violation {
            parser::Violation::Malformed(sentence) => Self::Malformed(sentence),
            parser::Violation::TooLarge(sentence) => Self::TooLarge(sentence),
        }
    }
}

impl From<BodyError> for MultipartError {
    fn from(error: BodyError) -> Self {
        Self::Body(error)
    }
}

impl fmt::Display for MultipartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(sentence) | Self::TooLarge(sentence) => f.write_str(sentence),
            Self::Body(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for MultipartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Body(error) => Some(error),
            _ => None,
        }
    }
}

impl ResponseError for MultipartError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Body(error) => error.status(),
        }
    }
}
