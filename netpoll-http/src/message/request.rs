//! A request, borrowed from the read block or owned.
//!
//! A synchronous handler sees a request where it landed: head and body are slices of the worker's read
//! block, headers are positions in it, nothing was copied and nothing allocated. An asynchronous handler
//! outlives the block, so it gets one right-sized copy of head and body with the same positions.
//!
//! Invariant: a request only exists for a head that passed every check of [`wire`](crate::wire), and
//! its body is complete, except in `before` hooks and where it is read while it arrives: there it is empty. What `after` hooks are shown of a request that
//! was refused before its head could be read is [`Unread`], which says nothing; of one that was read and breaks a rule, its head.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Version};
use netpoll_core::{Address, Instant};

use super::{Error, Extensions, Params};
use crate::wire::{self, Head, HeadIndex, Known, Trailers};

/// The bytes of a head that was not read: a method.
const UNREAD: &[u8] = b"-";

/// A request: borrowed as `&Request<'_>` by synchronous handlers, owned as `Request<'static>` by
/// asynchronous ones. In closures the lifetime is left out: `|req: &Request|`, `async |req: Request|`.
///
/// Text that came from the peer is returned as it came; what decodes says so. Cloning an owned request
/// is cheap (a reference count), cloning a borrowed one too (references); [`to_owned`](Self::to_owned) is
/// what copies.
#[derive(Clone)]
pub struct Request<'a> {
    inner: Inner<'a>,
}

#[derive(Clone)]
enum Inner<'a> {
    Borrowed(Borrowed<'a>),
    Owned(Arc<Owned>),
}

#[derive(Clone, Copy)]
struct Borrowed<'a> {
    head: &'a Head<'a>,
    params: &'a Params,
    body: &'a [u8],
    origin: Origin<'a>,
}

/// Goes with a request whose body was decoded, though its headers are as they came.
#[derive(Debug)]
#[cfg_attr(not(feature = "compression"), allow(dead_code))]
pub(crate) struct DecodedBody;

/// Where a request came from and when, and what the program knows of it.
#[derive(Clone, Copy)]
pub(crate) struct Origin<'a> {
    pub(crate) peer: &'a Address,
    pub(crate) arrived: Instant,
    pub(crate) extensions: &'a Extensions,
}

/// What stands for a request whose head could not be read.
pub(crate) struct Unread {
    index: HeadIndex,
    params: Params,
    peer: Address,
    arrived: Instant,
    extensions: Extensions,
}

impl Unread {
    #[cold]
    pub(crate) fn new(peer: &Address, arrived: Instant) -> Self {
        let (index, params) = (HeadIndex::unread(UNREAD), Params::new());
        Self { index, params, peer: peer.clone(), arrived, extensions: Extensions::new() }
    }

    /// Shows it as a request.
    pub(crate) fn show<R>(&self, look: impl FnOnce(&Request<'_>) -> R) -> R {
        let head = Head::new(UNREAD, &self.index);
        let origin = Origin { peer: &self.peer, arrived: self.arrived, extensions: &self.extensions };
        look(&Request::borrowed(&head, &self.params, &[], origin))
    }
}

/// A request that outlives the read block.
#[derive(Debug)]
pub(crate) struct Owned {
    /// The head, then the body. `head_bytes <= bytes.len()`.
    pub(crate) bytes: Bytes,
    pub(crate) head_bytes: usize,
    pub(crate) index: HeadIndex,
    pub(crate) params: Params,
    /// What came behind a chunked body.
    pub(crate) trailers: Trailers,
    pub(crate) peer: Address,
    pub(crate) arrived: Instant,
    pub(crate) extensions: Extensions,
}

impl Owned {
    fn head(&self) -> Head<'_> {
        Head::new(&self.bytes[..self.head_bytes], &self.index)
    }
}

impl From<Owned> for Request<'static> {
    fn from(owned: Owned) -> Self {
        Self::from(Arc::new(owned))
    }
}

impl From<Arc<Owned>> for Request<'static> {
    fn from(owned: Arc<Owned>) -> Self {
        Self { inner: Inner::Owned(owned) }
    }
}

impl<'a> Request<'a> {
    pub(crate) fn borrowed(
        head: &'a Head<'a>,
        params: &'a Params,
        body: &'a [u8],
        origin: Origin<'a>,
    ) -> Self {
        Self { inner: Inner::Borrowed(Borrowed { head, params, body, origin }) }
    }

    /// The head; for an owned request put together from its positions, which checks that its texts are UTF-8.
    #[inline]
    pub(crate) fn head(&self) -> Cow<'_, Head<'_>> {
        match &self.inner {
            Inner::Borrowed(borrowed) => Cow::Borrowed(borrowed.head),
            Inner::Owned(owned) => Cow::Owned(owned.head()),
        }
    }

    pub(crate) fn params(&self) -> &Params {
        match &self.inner {
            Inner::Borrowed(borrowed) => borrowed.params,
            Inner::Owned(owned) => &owned.params,
        }
    }

    /// Whether this stands for a request that was refused before its head could be read: it was malformed, too large,
    /// of another version (505), or did not arrive in time. Only `after` hooks see such a one. They also see requests that
    /// could be read and break a rule, about their host or where their body ends, or expect what this server does not do (417):
    /// of these everything is there but their [host](Self::host).
    ///
    /// Its [peer](Self::peer) and [time](Self::arrived) are true; its method is `-`, target and path are empty, and it
    /// has no headers.
    pub fn is_unread(&self) -> bool {
        self.head().target_bytes().is_empty()
    }

    /// The method. Comparing with a constant is cheap: `req.method() == Method::GET`.
    pub fn method(&self) -> Method {
        match self.head().method {
            wire::Method::Get => Method::GET,
            wire::Method::Head => Method::HEAD,
            wire::Method::Post => Method::POST,
            wire::Method::Put => Method::PUT,
            wire::Method::Delete => Method::DELETE,
            wire::Method::Options => Method::OPTIONS,
            wire::Method::Patch => Method::PATCH,
            wire::Method::Trace => Method::TRACE,
            // The wire let it pass, so it is a token and `from_bytes` takes it.
            wire::Method::Other => Method::from_bytes(self.method_str().as_bytes()).unwrap_or_default(),
        }
    }

    /// The method as it was sent; case matters.
    pub fn method_str(&self) -> &str {
        self.head().method_name()
    }

    /// The target as it was sent: path and query, or an absolute URL, or `*`.
    pub fn target(&self) -> &str {
        self.head().target()
    }

    /// The path as it was sent, still percent-encoded. Starts with `/`, or is `*` (with OPTIONS only).
    pub fn path(&self) -> &str {
        self.head().path()
    }

    /// The query string behind `?` as it was sent; `None` without a `?`.
    pub fn query_raw(&self) -> Option<&str> {
        self.head().query()
    }

    /// HTTP/1.0 or HTTP/1.1, of which a later minor version is read as 1.1; or HTTP/2.
    pub fn version(&self) -> Version {
        match self.head().minor_version {
            0 => Version::HTTP_10,
            wire::HeadParts::HTTP_2 => Version::HTTP_2,
            _ => Version::HTTP_11,
        }
    }

    /// The host, with its port if it has one: from an absolute target, else from `Host`.
    ///
    /// `None` in HTTP/1.0, and for `OPTIONS *` with an empty `Host`; another 1.1 request without it was refused.
    pub fn host(&self) -> Option<&str> {
        self.head().authority()
    }

    /// The address of the other end of the socket; behind a proxy that is the proxy's. In the Unix domain it has no IP address,
    /// and hardly ever a name.
    pub fn peer(&self) -> &Address {
        self.origin().peer
    }

    /// What the handshake of its connection has brought: versions, the host that the client has named, its certificates. `None` without TLS, and for
    /// a request [that could not be read](Self::is_unread). Behind a proxy it is about the proxy's connection, unless that hands TLS on.
    ///
    /// ```
    /// use netpoll_http::{Error, Request, StatusCode};
    ///
    /// /// Lets nobody pass who has shown no certificate.
    /// fn only_known(req: &Request) -> Result<(), Error> {
    ///     let tls = req.tls().ok_or(StatusCode::FORBIDDEN)?;
    ///     let certificate = tls.peer_certificates().first().ok_or(StatusCode::FORBIDDEN)?;
    ///     # let _ = certificate;
    ///     Ok(())
    /// }
    /// # netpoll_http::Router::new().before(only_known);
    /// ```
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(&self) -> Option<&netpoll_core::tls::TlsFacts> {
        self.extensions().get::<Arc<netpoll_core::tls::TlsFacts>>().map(|facts| &**facts)
    }

    /// The IP address of the client: the one that a [`Forwarded`](crate::Forwarded) hook has found ([`ClientAddr`]), else that of the
    /// [`peer`](Self::peer). `None` of a peer on a Unix socket. An address of IPv4 is one, also where a socket of both families shows it
    /// as `::ffff:192.0.2.7`.
    #[must_use]
    #[inline]
    pub fn client_ip(&self) -> Option<IpAddr> {
        let Origin { peer, extensions, .. } = self.origin();
        // What most are.
        if let (Address::Inet(SocketAddr::V4(peer)), true) = (peer, extensions.is_untouched()) {
            return Some(IpAddr::V4(*peer.ip()));
        }
        self.other_client_ip()
    }

    fn other_client_ip(&self) -> Option<IpAddr> {
        match self.extensions().get::<ClientAddr>() {
            Some(ClientAddr(ip)) => Some(*ip),
            None => self.peer().ip().map(|ip| ip.to_canonical()),
        }
    }

    /// When the turn began in which the request was complete enough to look at: its head for one whose body
    /// came later. Instants of all workers of a server can be compared.
    pub fn arrived(&self) -> Instant {
        self.origin().arrived
    }

    /// What hooks and handlers tell each other about this request. A copy made by [`to_owned`](Self::to_owned) has what was there by then.
    pub fn extensions(&self) -> &Extensions {
        self.origin().extensions
    }

    pub(crate) fn origin(&self) -> Origin<'_> {
        match &self.inner {
            Inner::Borrowed(borrowed) => borrowed.origin,
            Inner::Owned(owned) => {
                Origin { peer: &owned.peer, arrived: owned.arrived, extensions: &owned.extensions }
            }
        }
    }

    /// Whether the peer lets the connection stay open: the version's default, as changed by `Connection`.
    pub fn keep_alive(&self) -> bool {
        self.head().keep_alive
    }

    /// The value of the first header with this name, in any case. Looks through the headers one by one.
    ///
    /// A list (`Accept`, `Cache-Control`, `X-Forwarded-For` and the like) may come on several lines, which are one list:
    /// see [`header_lines`](Self::header_lines).
    pub fn header(&self, name: impl AsRef<str>) -> Option<&[u8]> {
        let (head, index) = self.lines();
        index.get(head, name.as_ref())
    }

    /// The value of the first header with this name if it is UTF-8.
    pub fn header_str(&self, name: impl AsRef<str>) -> Option<&str> {
        std::str::from_utf8(self.header(name)?).ok()
    }

    /// The values of all headers with this name, in any case and in their order.
    pub fn header_lines(&self, name: impl AsRef<str>) -> impl Iterator<Item = &[u8]> {
        let (head, index) = self.lines();
        index.all_of(head, name)
    }

    /// The values of the first headers with these names.
    #[inline(always)]
    pub(crate) fn first_of<const N: usize>(&self, names: [&str; N]) -> [Option<&[u8]>; N] {
        let (head, index) = self.lines();
        let mut values = [None; N];
        index.each_of(head, names, |at, value| _ = values[at].get_or_insert(value));
        values
    }

    /// All headers in the order in which they came, names as they were sent.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let (head, index) = self.lines();
        index.iter(head)
    }

    /// The media type of the body without parameters, as it was sent: `application/json`.
    ///
    /// `None` if the request says none, or says it on more than one line: there is no telling which is meant.
    pub fn content_type(&self) -> Option<&str> {
        let (_, index) = self.lines();
        if index.is_repeated(Known::ContentType) {
            return None;
        }
        let value = std::str::from_utf8(self.known(Known::ContentType)?).ok()?;
        Some(value.split_once(';').map_or(value, |(essence, _)| essence).trim_ascii())
    }

    /// The value of the first cookie with this name, as it was sent.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.cookies().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// All cookies in their order, as they were sent. A client that was given two of one name, for two paths, sends both: the first is that
    /// of the longer path.
    pub fn cookies(&self) -> impl Iterator<Item = (&str, &str)> {
        let (head, index) = self.lines();
        index.known_lines(head, Known::Cookie).flat_map(wire::target::cookie_pairs)
    }

    /// The complete body. Empty for a handler that reads it while it arrives ([`BodyReader`](crate::BodyReader)).
    pub fn body(&self) -> &[u8] {
        match &self.inner {
            Inner::Borrowed(borrowed) => borrowed.body,
            Inner::Owned(owned) => &owned.bytes[owned.head_bytes..],
        }
    }

    /// Whether the body is as its `Content-Encoding` says, and was not decoded.
    #[cfg(feature = "json")]
    pub(crate) fn has_coded_body(&self) -> bool {
        let is_coding = |name: &[u8]| !name.trim_ascii().eq_ignore_ascii_case(b"identity");
        self.header("content-encoding").is_some_and(is_coding)
            && self.extensions().get::<DecodedBody>().is_none()
    }

    /// The complete body to keep: shared if the request is owned, else a copy.
    pub fn body_bytes(&self) -> Bytes {
        match &self.inner {
            Inner::Borrowed(borrowed) => Bytes::copy_from_slice(borrowed.body),
            Inner::Owned(owned) => owned.bytes.slice(owned.head_bytes..),
        }
    }

    /// The trailer fields in the order in which they came, names as they were sent: what a peer sends behind a
    /// chunked body, such as a checksum of it. At most 4 KiB; without the body none.
    ///
    /// They are never among the [headers](Self::headers), and those that could pass for one that matters
    /// (`Content-Length`, `Host`, `Authorization`, `Cookie` and the like, RFC 9110 section 6.5.1) are left out.
    pub fn trailers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let trailers = match &self.inner {
            // A body that lies where it landed was not chunked.
            Inner::Borrowed(_) => None,
            Inner::Owned(owned) => Some(&owned.trailers),
        };
        trailers.into_iter().flat_map(Trailers::iter)
    }

    /// The value of the first trailer field with this name, in any case.
    pub fn trailer(&self, name: impl AsRef<str>) -> Option<&[u8]> {
        let mut trailers = self.trailers();
        trailers.find(|(known, _)| known.eq_ignore_ascii_case(name.as_ref())).map(|(_, value)| value)
    }

    /// A request that can be kept. Copies head and body in one piece unless it is owned already.
    pub fn to_owned(&self) -> Request<'static> {
        match &self.inner {
            Inner::Borrowed(borrowed) => {
                let head = borrowed.head;
                let mut bytes = Vec::with_capacity(head.bytes.len() + borrowed.body.len());
                bytes.extend_from_slice(head.bytes);
                bytes.extend_from_slice(borrowed.body);
                Request::from(Owned {
                    bytes: Bytes::from(bytes),
                    head_bytes: head.bytes.len(),
                    index: head.index().clone(),
                    params: *borrowed.params,
                    trailers: Trailers::default(),
                    peer: borrowed.origin.peer.clone(),
                    arrived: borrowed.origin.arrived,
                    extensions: borrowed.origin.extensions.clone(),
                })
            }
            Inner::Owned(owned) => Request { inner: Inner::Owned(Arc::clone(owned)) },
        }
    }

    /// Its head as a request to be kept, its body, and what came behind that. As [`to_owned`](Self::to_owned), one copy at most.
    pub(crate) fn take_apart(&self) -> (Request<'static>, Bytes, Trailers) {
        let owned = self.to_owned().into_shared();
        let body = owned.bytes.slice(owned.head_bytes..);
        let trailers = owned.trailers.clone();
        if body.is_empty() {
            return (Request::from(owned), body, trailers);
        }
        let head = Owned {
            bytes: owned.bytes.slice(..owned.head_bytes),
            head_bytes: owned.head_bytes,
            index: owned.index.clone(),
            params: owned.params,
            trailers: Trailers::default(),
            peer: owned.peer.clone(),
            arrived: owned.arrived,
            extensions: owned.extensions.clone(),
        };
        (Request::from(head), body, trailers)
    }

    /// The same without its body, where that is borrowed: an owned one shows all of it.
    pub(crate) fn without_body(&self) -> Self {
        let mut request = self.clone();
        if let Inner::Borrowed(borrowed) = &mut request.inner {
            borrowed.body = &[];
        }
        request
    }

    /// The same, for several that keep it. Copies it unless it is owned already.
    pub(crate) fn into_shared(self) -> Arc<Owned> {
        match self.to_owned().inner {
            Inner::Owned(owned) => owned,
            Inner::Borrowed(_) => unreachable!("it is owned"),
        }
    }

    /// How many bytes [`to_owned`](Self::to_owned) copies.
    pub(crate) fn borrowed_bytes(&self) -> usize {
        match &self.inner {
            Inner::Borrowed(borrowed) => borrowed.head.bytes.len() + borrowed.body.len(),
            Inner::Owned(_) => 0,
        }
    }

    /// The same request in the types of the `http` crate, for libraries that work on those.
    ///
    /// Allocates a header map; the body is shared if the request is owned. Trailer fields are left behind:
    /// they have no place in it.
    ///
    /// # Errors
    /// 400 when `http` does not take the target as a URI; it is narrower than HTTP there.
    pub fn into_http(self) -> Result<http::Request<Bytes>, Error> {
        let mut request = http::Request::builder()
            .method(self.method())
            .uri(self.target())
            .version(self.version())
            .body(self.body_bytes())
            .map_err(|error| Error::bad_request(format!("request target: {error}")))?;
        for (name, value) in self.headers() {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(http::Error::from)?;
            let value = HeaderValue::from_bytes(value).map_err(http::Error::from)?;
            request.headers_mut().append(name, value);
        }
        Ok(request)
    }

    fn known(&self, known: Known) -> Option<&[u8]> {
        let (head, index) = self.lines();
        index.known(head, known)
    }

    pub(super) fn lines(&self) -> (&[u8], &HeadIndex) {
        match &self.inner {
            Inner::Borrowed(borrowed) => (borrowed.head.bytes, borrowed.head.index()),
            Inner::Owned(owned) => (&owned.bytes[..owned.head_bytes], &owned.index),
        }
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = self.head();
        f.debug_struct("Request")
            .field("method", &head.method_name())
            .field("target", &head.target())
            .field("peer", &self.peer())
            .field("body_bytes", &self.body().len())
            .finish_non_exhaustive()
    }
}

/// The address of a request's client, as a [`Forwarded`](crate::Forwarded) hook has found it: a value of [`Request::extensions`].
/// [`Request::client_ip`] looks for it, whoever has put it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddr(pub IpAddr);
