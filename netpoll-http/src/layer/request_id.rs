//! A name for each request, by which it is found in the logs of all that have handled it.

use std::fmt;

use http::{HeaderName, HeaderValue};

use super::chance::{hex, unique};
use crate::message::{Parts, Request};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest name that is taken over.
const BYTES_MAX: usize = 128;

/// The name of a request: that of its field `X-Request-Id`, if it has a sane one, else a new one of 32 hexadecimal digits.
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
/// It is unique, and no secret. As any hook these two make a request take the longer way; two allocations.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(Box<str>);

impl RequestId {
    /// The name of a request as its fields have it, or a new one.
    #[must_use]
    pub fn of(request: &Request<'_>) -> Self {
        let mut lines = request.header_lines(X_REQUEST_ID);
        match (lines.next(), lines.next()) {
            (Some(name), None) if is_sane(name) => Self(String::from_utf8_lossy(name).into()),
            _ => Self(hex(&unique::<16>()).into()),
        }
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
        let id = request.extensions().get::<Self>().map(|id| HeaderValue::from_str(&id.0));
        if let Some(Ok(id)) = id {
            parts.headers.insert(X_REQUEST_ID, id);
        }
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_sane(name: &[u8]) -> bool {
    let may_be = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:/+=".contains(byte);
    (1..=BYTES_MAX).contains(&name.len()) && name.iter().all(may_be)
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
