//! What a handler may return.
//!
//! Every answer can be made a [`Response`] value; the common ones also know how to write themselves straight
//! into the write queue, which is what the connection asks for.
//!
//! Invariant: `respond` and `send(into_response())` put the same answer on the wire.

use bytes::Bytes;
use http::StatusCode;

use super::errors::{add_missing, text_of};
use super::{Error, Replied, Reply, Response};
use crate::wire::ContentType;

/// Something that a handler may return.
///
/// | value | answer |
/// |---|---|
/// | `&'static str`, `String` | 200, `text/plain; charset=utf-8` |
/// | `Vec<u8>`, [`Bytes`] | 200, `application/octet-stream` |
/// | [`Json<T>`](crate::Json) | 200, `application/json`; 500 if it cannot be written |
/// | `()` | 204 |
/// | [`StatusCode`] | this status, without a body |
/// | [`Response`] | as it says |
/// | `(StatusCode, T)` | that of `T` with this status, unless it is an error |
/// | `Option<T>` | that of `T`, or 404 |
/// | [`Error`], `Result<T, Error>` | that of `T`, or the error as [`Server::errors`](crate::Server::errors) has it |
///
/// A program implements it for types of its own: [`into_response`](Self::into_response) has to be written, and
/// [`respond`](Self::respond) is called for each answer and by default sends what that makes.
///
/// There is one implementation for results, `Result<T, Error>` with this crate's [`Error`]: that is why
/// `Ok(..)` at the end of a closure needs no annotation.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an answer",
    note = "a handler returns text, bytes, `Json(..)`, a `StatusCode`, a `Response`, `(StatusCode, ..)`, an `Option`",
    note = "or `Result<_, netpoll_http::Error>` of those",
    note = "for JSON: `Json(value)`, of any type that is `serde::Serialize`"
)]
pub trait IntoResponse: 'static {
    /// The answer as a value.
    fn into_response(self) -> Response;

    /// Writes the answer to the connection. Types that can, override it to skip the [`Response`] value.
    fn respond(self, reply: Reply<'_>) -> Replied
    where
        Self: Sized,
    {
        reply.send(self.into_response())
    }
}

impl IntoResponse for Response {
    fn into_response(self) -> Response {
        self
    }
}

/// 200 with `text/plain; charset=utf-8`.
impl IntoResponse for &'static str {
    fn into_response(self) -> Response {
        Response::text(self)
    }

    #[inline]
    fn respond(self, reply: Reply<'_>) -> Replied {
        reply.text_static(self)
    }
}

/// 200 with `text/plain; charset=utf-8`.
impl IntoResponse for String {
    fn into_response(self) -> Response {
        Response::text(self)
    }

    #[inline]
    fn respond(self, reply: Reply<'_>) -> Replied {
        reply.owned(ContentType::Text, self.into_bytes())
    }
}

/// 200 with `application/octet-stream`.
impl IntoResponse for Bytes {
    fn into_response(self) -> Response {
        Response::bytes(self)
    }

    #[inline]
    fn respond(self, reply: Reply<'_>) -> Replied {
        reply.shared(ContentType::Bytes, self)
    }
}

/// 200 with `application/octet-stream`.
impl IntoResponse for Vec<u8> {
    fn into_response(self) -> Response {
        Response::bytes(self)
    }

    #[inline]
    fn respond(self, reply: Reply<'_>) -> Replied {
        reply.owned(ContentType::Bytes, self)
    }
}

/// 204.
impl IntoResponse for () {
    fn into_response(self) -> Response {
        Response::new(StatusCode::NO_CONTENT)
    }

    #[inline]
    fn respond(self, reply: Reply<'_>) -> Replied {
        reply.empty(StatusCode::NO_CONTENT)
    }
}

/// The status, without a body.
impl IntoResponse for StatusCode {
    fn into_response(self) -> Response {
        Response::new(self)
    }

    #[inline]
    fn respond(self, reply: Reply<'_>) -> Replied {
        reply.empty(self)
    }
}

/// The inner answer with this status; an inner error (4xx, 5xx) keeps its own.
impl<T: IntoResponse> IntoResponse for (StatusCode, T) {
    fn into_response(self) -> Response {
        let response = self.1.into_response();
        if response.status.as_u16() < 400 { response.status(self.0) } else { response }
    }

    #[inline]
    fn respond(self, reply: Reply<'_>) -> Replied {
        self.1.respond(reply.with_status(self.0))
    }
}

/// 404 for `None`.
impl<T: IntoResponse> IntoResponse for Option<T> {
    fn into_response(self) -> Response {
        match self {
            Some(answer) => answer.into_response(),
            None => Error::from(StatusCode::NOT_FOUND).into_response(),
        }
    }

    #[inline]
    fn respond(self, reply: Reply<'_>) -> Replied {
        match self {
            Some(answer) => answer.respond(reply),
            None => reply.fail(Error::from(StatusCode::NOT_FOUND)),
        }
    }
}

/// The error as [`Server::errors`](crate::Server::errors) wants it. As a value, where nobody is there to ask: its status and
/// headers, and its message as `text/plain`.
impl IntoResponse for Error {
    fn into_response(mut self) -> Response {
        let mut text = text_of(&self).status(self.status());
        add_missing(&mut text.headers, self.take_headers());
        text
    }

    fn respond(self, reply: Reply<'_>) -> Replied {
        reply.fail(self)
    }
}

/// The answer, or the error as an answer.
impl<T: IntoResponse> IntoResponse for Result<T, Error> {
    fn into_response(self) -> Response {
        match self {
            Ok(answer) => answer.into_response(),
            Err(error) => error.into_response(),
        }
    }

    #[inline]
    fn respond(self, reply: Reply<'_>) -> Replied {
        match self {
            Ok(answer) => answer.respond(reply),
            Err(error) => reply.fail(error),
        }
    }
}
