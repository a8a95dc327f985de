//! A response as a value: status, headers, body.
//!
//! Only answers that need it are built this way; the common ones (`&'static str`, `Json`, ..) are written
//! straight to the write queue by [`IntoResponse::respond`](crate::IntoResponse::respond).
//!
//! Invariant: a header in here cannot hold CR, LF or NUL, because `http`'s types refuse them.

use std::rc::Rc;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, LOCATION, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{Body, Cookie, Error, Recode, dropped};
use crate::wire::framing;
use crate::wire::response::is_single;

/// A complete response.
///
/// `Content-Length`, `Transfer-Encoding`, `Connection`, `Keep-Alive` and `Date` are written by the connection and
/// ignored in `headers`: they belong to the framing, and one source for them is enough. But for `Connection: close`, which
/// [`close`](Self::close) puts there, and which closes the connection behind the answer, also where an `after` hook has
/// added it; whoever passes on the answer of another server leaves that out. With an `Upgrade` header `Connection: upgrade` is said, as it has to be. Of a field that has one value, such as `Content-Type`, only the
/// last line in `headers` leaves.
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

    /// A value as JSON, 200 with `application/json`. Unlike [`Json`](super::Json) it may borrow from the request:
    ///
    /// ```
    /// use netpoll_http::{App, Request, Response, Router};
    ///
    /// #[derive(serde::Serialize)]
    /// struct Seen<'a> {
    ///     path: &'a str,
    /// }
    ///
    /// let router = |_: &_| Router::new().any("/{*rest}", |req: &Request| Response::json(&Seen { path: req.path() }));
    /// assert_eq!(App::new(router).test().get("/a/b").text(), r#"{"path":"/a/b"}"#);
    /// ```
    ///
    /// # Errors
    /// 500 when it cannot be serialised.
    #[cfg(feature = "json")]
    pub fn json<T: serde::Serialize + ?Sized>(value: &T) -> Result<Self, Error> {
        let body = serde_json::to_vec(value).map_err(Error::internal)?;
        Ok(Self::bytes(body).content_type(HeaderValue::from_static("application/json")))
    }

    /// Sends the client elsewhere: a status and a `Location`, which is a path (`/orders/7`) or a URL.
    ///
    /// | status | for good | the next request is |
    /// |---|---|---|
    /// | 303 `SEE_OTHER` | no | a GET: what a form is answered with |
    /// | 307 `TEMPORARY_REDIRECT` | no | the same again, with its body |
    /// | 308 `PERMANENT_REDIRECT` | yes | the same again, with its body |
    /// | 302 `FOUND`, 301 `MOVED_PERMANENTLY` | no, yes | a GET if it was a POST, with most clients |
    ///
    /// Whoever makes the location of what a client has sent sends it wherever that says: check its beginning.
    ///
    /// # Errors
    /// 500 for another status, and for a location that has a control character, a space or other than ASCII in it: what is not
    /// allowed in a URL has to be percent-encoded.
    pub fn redirect(status: StatusCode, location: impl AsRef<str>) -> Result<Self, Error> {
        let location = location.as_ref();
        if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Err(Error::internal(format!("{status} sends nobody elsewhere")));
        }
        if location.is_empty() || !location.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::internal(format!("not a location: {location:?}")));
        }
        Self::new(status).header(LOCATION, location)
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

    /// The same response, with `Connection: close`: the connection ends behind it.
    #[must_use]
    pub fn close(mut self) -> Self {
        self.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        self
    }

    /// The same response with a cookie more to be set.
    ///
    /// # Errors
    /// 500 when it could be taken for something else, see [`Cookie::to_header`].
    pub fn cookie(mut self, cookie: Cookie) -> Result<Self, Error> {
        self.headers.append(SET_COOKIE, cookie.to_header()?);
        Ok(self)
    }

    /// The same response with a header more.
    ///
    /// A field that has one value (`Content-Type`, `Location`, `ETag` and the like) takes the place of the one that was
    /// there; of a list (`Vary`, `Set-Cookie`, and every field that this crate does not know) the earlier lines stay. To
    /// replace those as well, change [`headers`](Self::headers).
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
        add_header(&mut self.headers, name, value);
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
    /// The error that the handler or a `before` hook returned, or that the connection refused the request with, if one did: for
    /// logs. Its source is never sent.
    pub error: Option<Error>,
    /// The answer that this was is gone; what leaves is the message of `error`.
    pub(crate) is_taken_back: bool,
    /// Panics of hooks, and of the handler.
    pub(crate) panics: u32,
    /// The body is a file, which leaves without being read.
    pub(crate) is_file: bool,
    /// What codes the body, when all hooks have run.
    pub(crate) recode: Option<Rc<dyn Recode>>,
}

impl Parts {
    /// Those of an answer without headers, to call a hook in a test.
    pub fn new(status: StatusCode) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            error: None,
            is_taken_back: false,
            panics: 0,
            is_file: false,
            recode: None,
        }
    }

    /// Answers something else: this error.
    fn take_back(&mut self, mut error: Error) {
        let headers = error.take_headers();
        let status = error.status();
        let panics = self.panics;
        let before = Self { headers, error: Some(error), is_taken_back: true, panics, ..Self::new(status) };
        if !dropped(std::mem::replace(self, before)) {
            self.panics += 1;
        }
    }

    /// Answers 500, because something of the program has panicked.
    #[cold]
    pub(crate) fn apologise(&mut self, said: Option<String>) {
        self.panics += 1;
        let apology = Error::from(StatusCode::INTERNAL_SERVER_ERROR);
        self.take_back(match said {
            Some(said) => apology.with_source(said),
            None => apology,
        });
    }
}

/// Whether the connection is to be closed behind an answer with these headers.
pub(super) fn says_close(headers: &HeaderMap) -> bool {
    has(headers, &CONNECTION)
        && headers.get_all(CONNECTION).iter().any(|value| framing::lists(value.as_bytes(), "close"))
}

/// Whether there is a header of this name. A look through a few names is quicker than one into the map, which hashes.
pub(super) fn has(headers: &HeaderMap, name: &HeaderName) -> bool {
    if headers.keys_len() <= 8 {
        headers.keys().any(|known| known == name)
    } else {
        headers.contains_key(name)
    }
}

/// Adds a header: beside those of its name, or in place of the one that there can be.
pub(super) fn add_header(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue) {
    if is_single(name.as_str()) {
        headers.insert(name, value);
    } else {
        headers.append(name, value);
    }
}

impl From<http::Response<Bytes>> for Response {
    fn from(response: http::Response<Bytes>) -> Self {
        let (parts, body) = response.into_parts();
        Self { status: parts.status, headers: parts.headers, body: Body::Shared(body) }
    }
}
