//! Handlers that take coded bodies.
//!
//! Invariant: a handler sees a decoded body whole, or is not called. What it sees is bounded twice: in bytes, and in bytes for each one that came. What is decoded in a
//! turn counts in the share of its connection.

use http::StatusCode;
use http::header::{ACCEPT_ENCODING, HeaderValue};

use super::{Endpoint, Handler};
use crate::coding::{self, Bounds, Coding, Undecoded};
use crate::h1::RouteLimits;
use crate::message::{DecodedBody, Error, Replied, Reply, Request};

/// Lets a handler take request bodies with a `Content-Encoding`: `.post("/import", Decoding::new().of(import))`.
///
/// Elsewhere nothing is decoded: a handler sees such a body as it came, and [`Request::json`] answers 415.
///
/// ```
/// use netpoll_http::{App, Decoding, Method, Request, Router, StatusCode};
///
/// let count = |req: &Request| req.body().len().to_string();
/// let client = App::new(move |_worker| Router::new().post("/count", Decoding::new().of(count))).test();
/// let send = |coding: &str, body: &[u8]| {
///     client.request(Method::POST, "/count").header("Content-Encoding", coding).body(body).send()
/// };
/// // `printf hello | gzip -n`
/// let hello = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xcb\x48\xcd\xc9\xc9\x07\x00\x86\xa6\x10\x36\x05\x00\x00\x00";
/// assert_eq!(send("gzip", hello).text(), "5");
/// assert_eq!(send("gzip", b"hello").status, StatusCode::BAD_REQUEST);
/// assert_eq!(send("compress", hello).status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
/// ```
///
/// | what comes | the answer |
/// |---|---|
/// | a coding that is compiled in (`gzip`, `br`, `zstd`, see [`Compress`](crate::Compress)), or none | the handler's; its request has the decoded body, and its headers as they came |
/// | another coding, or several | 415, with the codings that are taken in `Accept-Encoding` |
/// | what is not what it says, not whole, or more than that | 400 |
/// | more than [`bytes_max`](Self::bytes_max), or than [`ratio_max`](Self::ratio_max) times the bytes that came | 413 |
///
/// The limit of the body as it comes is the route's ([`RouteLimits`](crate::RouteLimits)). It is decoded on the worker when it is complete, at some ten to hundreds of megabytes a second, 64 KiB of a connection in a turn and the body that goes beyond them. Trailers
/// are not handed on with it.
#[derive(Clone, Copy, Debug)]
#[must_use = "`of` makes a handler of it"]
pub struct Decoding {
    bounds: Bounds,
}

impl Default for Decoding {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoding {
    /// One with the defaults.
    pub fn new() -> Self {
        Self { bounds: Bounds { bytes_max: 1024 * 1024, ratio_max: 100 } }
    }

    /// Bytes that may come out. Default 1 MiB, as of a body that is not coded ([`Limits::body_bytes_max`](crate::Limits::body_bytes_max)).
    pub fn bytes_max(mut self, bytes: usize) -> Self {
        self.bounds.bytes_max = bytes;
        self
    }

    /// Bytes that may come out for each that came, behind the first 64 KiB. Default 100: text comes to 3 to 20, and what is made to
    /// cost memory to 1000 (gzip) or 10 000 (br, zstd).
    pub fn ratio_max(mut self, ratio: usize) -> Self {
        self.bounds.ratio_max = ratio;
        self
    }

    /// The handler that takes coded bodies.
    pub fn of<M>(self, handler: impl Handler<M>) -> Decoded<impl Endpoint> {
        Decoded { endpoint: handler.into_endpoint(), bounds: self.bounds }
    }
}

/// A handler that takes coded bodies; made by [`Decoding::of`].
#[derive(Debug)]
pub struct Decoded<E> {
    endpoint: E,
    bounds: Bounds,
}

/// Marks [`Decoded`].
#[derive(Debug)]
pub struct WithDecoding(());

impl<E: Endpoint> Handler<WithDecoding> for Decoded<E> {
    type Endpoint = Self;

    fn into_endpoint(self) -> Self {
        self
    }
}

impl<E: Endpoint> Endpoint for Decoded<E> {
    fn call(&self, request: &Request<'_>, reply: Reply<'_>) -> Replied {
        match self.decoded(request) {
            Ok(None) => self.endpoint.call(request, reply),
            Ok(Some(body)) => {
                let reply = reply.behind_coded(body.len());
                request.extensions().insert(DecodedBody);
                let (head, origin) = (request.head(), request.origin());
                self.endpoint.call(&Request::borrowed(&head, request.params(), &body, origin), reply)
            }
            // How far it has come is not known: as far as it may.
            Err(error) => reply.behind_coded(self.bounds.bytes_max).fail(error),
        }
    }

    fn limits(&self) -> RouteLimits {
        self.endpoint.limits()
    }
}

impl<E> Decoded<E> {
    /// The body, if it was coded.
    fn decoded(&self, request: &Request<'_>) -> Result<Option<Vec<u8>>, Error> {
        let body = request.body();
        let lines = request.header_lines("content-encoding");
        let codings = lines.flat_map(|line| line.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
        let mut codings = codings.filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case(b"identity"));
        let coding = match (codings.next(), codings.next()) {
            (None, _) => return Ok(None),
            (Some(name), None) => Coding::named(name).filter(|coding| coding.is_built_in()),
            (Some(_), Some(_)) => None,
        };
        let Some(coding) = coding else { return Err(unsupported()) };
        if body.is_empty() {
            return Ok(None);
        }
        let decoded = coding::decode(coding, body, self.bounds);
        decoded.map(Some).map_err(|why| self.refusal(why, coding))
    }

    fn refusal(&self, why: Undecoded, coding: Coding) -> Error {
        let Bounds { bytes_max, ratio_max } = self.bounds;
        match why {
            Undecoded::Malformed => Error::bad_request(format!("the request body is not {}", coding.name())),
            Undecoded::Unknown => unsupported(),
            Undecoded::TooLarge => Error::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the decoded request body may have at most {bytes_max} bytes"),
            ),
            Undecoded::TooDense => Error::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("a byte of the request body may be decoded to at most {ratio_max}"),
            ),
        }
    }
}

/// Says which codings are taken (RFC 9110 section 12.5.3).
fn unsupported() -> Error {
    let names = Coding::ALL.into_iter().filter(|coding| coding.is_built_in()).map(Coding::name);
    let names = names.collect::<Vec<_>>().join(", ");
    let error = Error::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        format!("the request body has a coding that is not taken, or several; those that are: {names}"),
    );
    error.with_header(ACCEPT_ENCODING, HeaderValue::from_str(&names).unwrap_or(HeaderValue::from_static("")))
}
