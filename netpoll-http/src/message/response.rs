//! A response as a value: status, headers, body.
//!
//! Only answers that need it are built this way; the common ones (`&'static str`, `Json`, ..) are written
//! straight to the write queue by [`IntoResponse::respond`](crate::IntoResponse::respond).
//!
//! Invariant: a header in here cannot hold CR, LF or NUL, because `http`'s types refuse them.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{Body, Error};

/// A complete response.
///
/// `Content-Length`, `Transfer-Encoding`, `Connection` and `Date` are written by the connection and
/// ignored in `headers`: they belong to the framing, and one source for them is enough.
///
/// ```
/// use netpoll_http::{Error, Response, StatusCode};
///
/// fn moved() -> Result<Response, Error> {
///     Response::new(StatusCode::FOUND).header("location", "/orders/7")
/// }
/// assert!(moved().is_ok());
/// assert!(Response::new(StatusCode::OK).header("x-note", "a\r\nset-cookie: b=c").is_err());
/// ```
#[derive(Debug, Default)]
pub struct Response {
    /// The status line.
    pub status: StatusCode,
    /// The headers beside those that belong to the framing.
    pub headers: HeaderMap,
    /// The body.
    pub body: Body,
}

impl Response {
    /// A response without headers and body.
    pub fn new(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: Body::Empty }
    }

    /// 200 with `text/plain; charset=utf-8`.
    pub fn text(body: impl Into<Body>) -> Self {
        Self::new(StatusCode::OK)
            .content_type(HeaderValue::from_static("text/plain; charset=utf-8"))
            .body(body)
    }

    /// 200 with `text/html; charset=utf-8`.
    pub fn html(body: impl Into<Body>) -> Self {
        Self::new(StatusCode::OK)
            .content_type(HeaderValue::from_static("text/html; charset=utf-8"))
            .body(body)
    }

    /// 200 with `application/octet-stream`.
    pub fn bytes(body: impl Into<Body>) -> Self {
        Self::new(StatusCode::OK)
            .content_type(HeaderValue::from_static("application/octet-stream"))
            .body(body)
    }

    /// The same response with another status.
    #[must_use]
    pub fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// The same response with another body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    /// The same response with this `Content-Type`.
    #[must_use]
    pub fn content_type(mut self, value: HeaderValue) -> Self {
        self.headers.insert(CONTENT_TYPE, value);
        self
    }

    /// The same response with a header more. Existing headers of that name stay.
    ///
    /// # Errors
    /// When the name is not a token or the value has CR, LF, NUL or another control character in it: such
    /// a header would let whoever chose the value write the rest of the response. The error is a 500.
    pub fn header<N, V>(mut self, name: N, value: V) -> Result<Self, Error>
    where
        N: TryInto<HeaderName>,
        V: TryInto<HeaderValue>,
        http::Error: From<N::Error> + From<V::Error>,
    {
        let name = name.try_into().map_err(http::Error::from)?;
        let value = value.try_into().map_err(http::Error::from)?;
        self.headers.append(name, value);
        Ok(self)
    }
}

/// The status and the headers of an answer that is about to be sent, for hooks.
#[derive(Debug)]
pub struct Parts {
    /// The status line.
    pub status: StatusCode,
    /// The headers beside those that belong to the framing.
    pub headers: HeaderMap,
    /// The error that the handler returned, if it did: for logs. Its source is never sent.
    pub error: Option<Error>,
}

impl From<http::Response<Bytes>> for Response {
    fn from(response: http::Response<Bytes>) -> Self {
        let (parts, body) = response.into_parts();
        Self { status: parts.status, headers: parts.headers, body: Body::Shared(body) }
    }
}
