//! Errors of the program: which answer each of them is.
//!
//! A handler's `?` makes an [`Error`] of whatever it meets. This is where that is said, once for a type and not at every call.
//!
//! Invariant: the text of an error that is the program's own fault is a source and never a message, unless its type says so.

use std::borrow::Cow;
use std::io;

use http::StatusCode;
use netpoll_core::task::JoinError;

use super::Error;
use crate::wire::response::reason;

/// An error type of the program that a handler's `?` turns into an [`Error`].
///
/// A program implements it for its error types.
///
/// | method | when it is called | the default |
/// |---|---|---|
/// | [`status`](Self::status) | the error becomes an [`Error`], at the `?` | 500 |
/// | [`message`](Self::message) | the same | what the error displays; of a 5xx the name of the status and no more |
///
/// An implementation without a line in it answers 500: the peer learns nothing else, and the error is the
/// [source](std::error::Error::source) of what hooks, a renderer ([`Server::errors`](crate::Server::errors)) and the log see.
///
/// ```
/// use netpoll_http::{App, Request, ResponseError, Router, StatusCode};
///
/// #[derive(Debug)]
/// enum Sale {
///     OutOfStock(u64),
///     Database(std::io::Error),
/// }
///
/// impl std::fmt::Display for Sale {
///     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
///         match self {
///             Sale::OutOfStock(item) => write!(f, "item {item} is out of stock"),
///             Sale::Database(error) => write!(f, "database: {error}"),
///         }
///     }
/// }
/// impl std::error::Error for Sale {}
///
/// impl ResponseError for Sale {
///     fn status(&self) -> StatusCode {
///         match self {
///             Sale::OutOfStock(_) => StatusCode::CONFLICT,
///             Sale::Database(_) => StatusCode::INTERNAL_SERVER_ERROR,
///         }
///     }
/// }
///
/// fn sell(item: u64) -> Result<&'static str, Sale> {
///     match item {
///         7 => Ok("sold"),
///         8 => Err(Sale::Database(std::io::Error::other("no route to 10.0.0.7"))),
///         item => Err(Sale::OutOfStock(item)),
///     }
/// }
///
/// let router = |_: &_| Router::new().post("/items/{id}", |req: &Request| Ok(sell(req.param("id")?)?));
/// let client = App::new(router).test();
/// assert_eq!(client.post("/items/7", "").text(), "sold");
/// assert_eq!(client.post("/items/9", "").text(), "item 9 is out of stock\n");
/// assert_eq!(client.post("/items/8", "").text(), "internal server error\n");
/// ```
///
/// [`std::io::Error`] and boxed errors have it built in: 500. So have `anyhow::Error`, with the feature `anyhow`, and the [`JoinError`] of a job or a
/// task, which is 503 where there was no room for the job. An answer that wants headers as well (`WWW-Authenticate`,
/// `Retry-After`) is made by hand: `impl From<MyError> for Error`.
pub trait ResponseError: std::error::Error + Send + Sync + 'static {
    /// The status of its answer. Default: 500.
    fn status(&self) -> StatusCode {
        StatusCode::INTERNAL_SERVER_ERROR
    }

    /// What the peer is told. Default: what the error displays, and for 5xx no more than the name of the status.
    fn message(&self) -> Cow<'static, str> {
        match self.status() {
            StatusCode::INTERNAL_SERVER_ERROR => Cow::Borrowed(INTERNAL),
            status if status.is_server_error() => Cow::Borrowed(reason(status).unwrap_or(INTERNAL)),
            _ => Cow::Owned(self.to_string()),
        }
    }
}

/// What is said of a failure of ours.
pub(super) const INTERNAL: &str = "internal server error";

/// Its status and message, with the error itself as the source.
impl<E: ResponseError> From<E> for Error {
    fn from(error: E) -> Self {
        Self::new(error.status(), error.message()).with_source(error)
    }
}

/// 500, whatever its kind: that a file of ours is not there is no 404 for whoever asked.
impl ResponseError for io::Error {}

/// 503 where a job found no room on the pool ([`JoinError::is_refused`]), 500 where it panicked or was dropped.
impl ResponseError for JoinError {
    fn status(&self) -> StatusCode {
        match self.is_refused() {
            true => StatusCode::SERVICE_UNAVAILABLE,
            false => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// 500, unless it is an [`Error`] in a box, which stays what it is.
impl From<Box<dyn std::error::Error + Send + Sync>> for Error {
    fn from(error: Box<dyn std::error::Error + Send + Sync>) -> Self {
        match error.downcast::<Error>() {
            Ok(error) => *error,
            Err(source) => Self::internal(source),
        }
    }
}

/// 500, unless it was made of an [`Error`], which stays what it is.
#[cfg(feature = "anyhow")]
impl From<anyhow::Error> for Error {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<Error>() {
            Ok(error) => error,
            Err(source) => Self::internal(source),
        }
    }
}
