//! The one error type of this crate: an answer that says what was wrong.
//!
//! A handler returns `Result<T, Error>`; `?` turns a missing parameter, a bad query value or broken
//! JSON into an [`Error`] whose status and message become the response. There is exactly one such type
//! so that `Ok(..)` at the end of a closure needs no annotation. Programs with their own error types
//! say once which answers they are: [`ResponseError`](crate::ResponseError).
//!
//! Invariant: what the peer sees is `status` and `message`, never `source`.

use std::borrow::Cow;
use std::fmt;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::response::add_header;
use super::response_error::INTERNAL;
use crate::wire::response::reason;

/// An error answer: a status, a message for the peer, and optionally a source for logs and hooks.
///
/// The response body is the message as `text/plain` with a line end, or what
/// [`Server::errors`](crate::Server::errors) makes of it. The source is never sent. That of a 5xx is what
/// [`Completed::error`](crate::Completed::error) and the JSON lines of the [access log](crate::AccessLog) say, and it is logged with the
/// feature `tracing`.
///
/// Error types of the program become one by [`ResponseError`](crate::ResponseError), and so do
/// [`std::io::Error`], boxed errors, and `anyhow::Error` with the feature `anyhow`:
///
/// ```
/// use netpoll_http::{Error, StatusCode};
///
/// fn limit(file: &str) -> Result<u32, Error> {
///     let text = std::fs::read_to_string(file)?; // 500, and the log says why
///     text.trim().parse().map_err(|_| Error::new(StatusCode::CONFLICT, "the limit is being changed"))
/// }
/// assert_eq!(limit("/nowhere").unwrap_err().status(), StatusCode::INTERNAL_SERVER_ERROR);
/// ```
pub struct Error {
    status: StatusCode,
    message: Cow<'static, str>,
    /// Only errors that carry a source or headers pay for them.
    more: Option<Box<More>>,
}

#[derive(Default)]
struct More {
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    headers: HeaderMap,
}

impl Error {
    /// An error with this status and this message as the response body.
    pub fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, message: message.into(), more: None }
    }

    /// 400 with a message that says what was wrong.
    pub fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 404 with a message that says what was not found.
    pub fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// 500 for a failure of ours. The peer learns nothing but the status; `source` is for hooks and logs.
    pub fn internal(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, INTERNAL).with_source(source)
    }

    /// The same error with a cause attached, which [`source`](std::error::Error::source) returns.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.more.get_or_insert_default().source = Some(source.into());
        self
    }

    /// The same error with a response header more, for example `WWW-Authenticate` or `Retry-After`; one of which there
    /// can be only one takes the place of the one before, as with [`Response::header`](crate::Response::header).
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        add_header(&mut self.more.get_or_insert_default().headers, name, value);
        self
    }

    /// The status that the peer gets.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The message that the peer gets.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Takes out the headers for the encoder.
    pub(super) fn take_headers(&mut self) -> HeaderMap {
        self.more.as_deref_mut().map(|more| std::mem::take(&mut more.headers)).unwrap_or_default()
    }

    pub(super) fn has_headers(&self) -> bool {
        self.more.as_deref().is_some_and(|more| !more.headers.is_empty())
    }

    /// What its message is, if somebody has said so.
    pub(super) fn content_type(&self) -> Option<&HeaderValue> {
        self.more.as_deref()?.headers.get(CONTENT_TYPE)
    }

    /// Whether it tells of a failure of ours that somebody has to look at, and not of what this server does not do.
    pub(super) fn is_ours(&self) -> bool {
        self.status == StatusCode::INTERNAL_SERVER_ERROR
            || self.status.is_server_error() && std::error::Error::source(self).is_some()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status.as_u16(), self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Error");
        debug.field("status", &self.status).field("message", &self.message);
        if let Some(More { source: Some(source), .. }) = self.more.as_deref() {
            debug.field("source", source);
        }
        debug.finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.more.as_deref()?.source.as_deref()?)
    }
}

/// The status with its own reason phrase as the message: `.ok_or(StatusCode::NOT_FOUND)?`.
impl From<StatusCode> for Error {
    fn from(status: StatusCode) -> Self {
        Self::new(status, reason(status).unwrap_or(""))
    }
}

impl From<(StatusCode, &'static str)> for Error {
    fn from((status, message): (StatusCode, &'static str)) -> Self {
        Self::new(status, message)
    }
}

impl From<(StatusCode, String)> for Error {
    fn from((status, message): (StatusCode, String)) -> Self {
        Self::new(status, message)
    }
}

/// 500: a header name or value that would break the response (CR, LF, NUL and other controls).
impl From<http::Error> for Error {
    fn from(source: http::Error) -> Self {
        Self::internal(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_of_an_internal_error_is_kept_for_logs_and_not_told_to_the_peer() {
        let error = Error::internal("the database password is wrong");
        assert_eq!(error.message(), "internal server error");
        let source = std::error::Error::source(&error).map(ToString::to_string);
        assert_eq!(source.as_deref(), Some("the database password is wrong"));
    }
}
