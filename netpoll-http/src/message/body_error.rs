//! Why a body that was read while it arrived has ended early, and whose fault that is.

use std::fmt;

use http::StatusCode;

use super::ResponseError;

/// Why a body is not going to be whole: what a [`BodyReader`](crate::BodyReader) ends with, and a
/// [`BodySink`](crate::BodySink).
///
/// `?` in a handler makes the answer of it that a body which is received as a whole would have had.
///
/// | error | whose fault | the answer by `?` |
/// |---|---|---|
/// | [`Left`](Self::Left) | the client's, or the network's | none: nobody is there |
/// | [`Late`](Self::Late) | the client's | 408 |
/// | [`Malformed`](Self::Malformed) | the client's | 400 |
/// | [`TooLarge`](Self::TooLarge) | the client's | 413 |
/// | [`TrailersTooLarge`](Self::TrailersTooLarge) | the client's | 431 |
/// | [`ShortOfMemory`](Self::ShortOfMemory) | the server's | 503 |
/// | [`Answered`](Self::Answered) | the program's | 500 |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BodyError {
    /// The client has ended its direction, or the connection, in the middle of the body.
    Left,
    /// It came too slowly while it was waited for: see [`Limits::body_grace`](crate::Limits::body_grace).
    Late,
    /// Its chunks break a rule, and this sentence says which.
    Malformed(&'static str),
    /// It is longer than its route allows, which only chunks can turn out to be.
    TooLarge,
    /// The fields behind it are longer than 4 KiB.
    TrailersTooLarge,
    /// The connections of the worker hold all the memory that they may.
    ShortOfMemory,
    /// The request was answered, or its handler was dropped, and a body ends with its answer: whoever else has its reader reads no
    /// more of it.
    Answered,
}

impl BodyError {
    /// Whether it is the client who is to blame, or the way to it.
    #[must_use]
    pub fn is_of_client(self) -> bool {
        !matches!(self, Self::ShortOfMemory | Self::Answered)
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Left => "the client left in the middle of the request body",
            Self::Late => "the request took too long to arrive",
            Self::Malformed(reason) => reason,
            Self::TooLarge => "the request body is too large",
            Self::TrailersTooLarge => "the trailer section is too large",
            Self::ShortOfMemory => "the server is short of memory",
            Self::Answered => "the request was answered before its body was read",
        })
    }
}

impl std::error::Error for BodyError {}

impl ResponseError for BodyError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Left | Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Late => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TrailersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::ShortOfMemory => StatusCode::SERVICE_UNAVAILABLE,
            Self::Answered => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}
