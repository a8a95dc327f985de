//! A name for each request, by which it is found in the logs of all that have handled it.

use std::fmt;
use std::hash::{Hash, Hasher};

use http::{HeaderName, HeaderValue};

use super::chance::unique_digits;
use super::{Parts, Request};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest name that is taken over.
const BYTES_MAX: usize = 128;
/// The longest that needs no allocation of its own: a UUID with its dashes.
const SHORT_BYTES_MAX: usize = 36;

/// The name of a request: that of its field `X-Request-Id`, if it has a sane one, else a new one of 32 hexadecimal digits, of which the last 16
/// are the same for all that are made on one thread.
///
/// Sane is what has 1 to 128 letters, digits and `-._~:/+=`, on one line: what a client sends ends up in logs, and in the requests
/// that are made on its behalf. [`take`](Self::take) is a hook that puts it into the request's extensions, and [`show`](Self::show) one that
/// adds it to the answer, whoever has made that: refusals as well. The JSON lines of an [`AccessLog`](crate::AccessLog) have it.
///
/// ```
/// use netpoll_http::{App, Method, Request, RequestId, Router};
///
/// let router = |_: &_| {
///     Router::new().before(RequestId::take).after(RequestId::show).get("/", |req: &Request| {
///         let id = req.extensions().get::<RequestId>().expect("the hook has seen to it");
///         format!("this is {id}")
///     })
/// };
/// let client = App::new(router).test();
/// let response = client.request(Method::GET, "/").header("X-Request-Id", "abc-7").send();
/// assert_eq!((response.text(), response.header("x-request-id")), ("this is abc-7", Some("abc-7")));
/// assert_eq!(client.get("/nowhere").header("x-request-id").map(str::len), Some(32));
/// ```
///
/// It is unique, and no secret. As any hook `take` makes a request take the longer way, but where a router and those within it have no hooks but these two
/// and [`TraceContext::take`](crate::TraceContext::take). It allocates once, and once more for a name of more than 36 bytes; not that once where it
/// is the first hook of the outermost router, or has only that of [`TraceContext`](crate::TraceContext) before it.
/// `show` costs a line of the head, where it is the only hook after handlers of its router and of those within it; else it allocates as well.
#[derive(Clone)]
pub struct RequestId(Name);

#[derive(Clone)]
enum Name {
    /// So many bytes.
    Short(u8, [u8; SHORT_BYTES_MAX]),
    Long(Box<[u8]>),
}

impl RequestId {
    /// The name of a request as its fields have it, or a new one.
    #[must_use]
    pub fn of(request: &Request<'_>) -> Self {
        let mut lines = request.header_lines(X_REQUEST_ID);
        Self::found(lines.next().filter(|_| lines.next().is_none()))
    }

    /// The same, if there is one line of it.
    #[inline]
    pub(super) fn found(name: Option<&[u8]>) -> Self {
        match name {
            Some(name) if is_sane(name) => Self::from_text(name),
            _ => Self::new(),
        }
    }

    /// It lies where it is.
    #[inline]
    pub(super) fn is_flat(&self) -> bool {
        matches!(self.0, Name::Short(..))
    }

    /// One that is known to be sane.
    pub(super) fn from_text(name: &[u8]) -> Self {
        Self(Name::of(name))
    }

    #[inline]
    fn new() -> Self {
        let mut digits = [0; SHORT_BYTES_MAX];
        digits[..32].copy_from_slice(&unique_digits());
        Self(Name::Short(32, digits))
    }

    /// For [`Router::before`](crate::Router::before): puts it into the [extensions](Request::extensions).
    pub fn take(request: &Request<'_>) {
        request.extensions().insert(Self::of(request));
    }

    /// For [`Router::after`](crate::Router::after): adds it to the answer. One that was refused before a hook has seen it gets a new one, by
    /// which the log knows it.
    pub fn show(request: &Request<'_>, parts: &mut Parts) {
        if request.extensions().get::<Self>().is_none() {
            Self::take(request);
        }
        let id = request.extensions().get::<Self>().map(|id| HeaderValue::from_bytes(id.bytes()));
        if let Some(Ok(id)) = id {
            parts.headers.insert(X_REQUEST_ID, id);
        }
    }

    /// The header line that [`show`](Self::show) adds.
    #[inline(never)]
    pub(crate) fn line<'r>(request: &'r Request<'_>) -> (&'static str, &'r [u8]) {
        let extensions = request.extensions();
        let id = match extensions.id_alone() {
            Some(id) => Some(id),
            None => Self::given(request),
        };
        ("x-request-id", id.map_or(b"", |id| id.bytes()))
    }

    /// The name that a hook has given, or a new one.
    #[cold]
    fn given<'r>(request: &'r Request<'_>) -> Option<&'r Self> {
        if request.extensions().get::<Self>().is_none() {
            Self::take(request);
        }
        request.extensions().get::<Self>()
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // It is ASCII: its own, or what is sane.
        std::str::from_utf8(self.bytes()).unwrap_or_default()
    }

    /// The same: printable ASCII without a quote or a backslash.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.0 {
            Name::Short(count, bytes) => &bytes[..usize::from(*count)],
            Name::Long(bytes) => bytes,
        }
    }
}

impl Name {
    fn of(name: &[u8]) -> Self {
        let mut bytes = [0; SHORT_BYTES_MAX];
        match bytes.get_mut(..name.len()) {
            Some(place) => {
                place.copy_from_slice(name);
                Self::Short(name.len() as u8, bytes)
            }
            None => Self::Long(name.into()),
        }
    }
}

fn is_sane(name: &[u8]) -> bool {
    const MAY_BE: [bool; 256] = {
        let (mut table, marks) = ([false; 256], b"-._~:/+=");
        let mut byte = 0_u8;
        while byte < 128 {
            table[byte as usize] = byte.is_ascii_alphanumeric();
            byte += 1;
        }
        let mut at = 0;
        while at < marks.len() {
            table[marks[at] as usize] = true;
            at += 1;
        }
        table
    };
    (1..=BYTES_MAX).contains(&name.len()) && name.iter().all(|byte| MAY_BE[usize::from(*byte)])
}

impl PartialEq for RequestId {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for RequestId {}

impl Hash for RequestId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes().hash(state);
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RequestId").field(&self.as_str()).finish()
    }
}
