//! How errors look on the wire: as text, as JSON, or as the program has it.
//!
//! One function writes all of them, those of handlers and hooks and those of this crate, see
//! [`Server::errors`](crate::Server::errors). It is called when an error is about to leave, with all that is known of it.
//!
//! Invariant: a source is never written here, only status, message and headers.

use std::sync::Arc;

#[cfg(feature = "json")]
use http::HeaderValue;
use http::{HeaderMap, StatusCode};

use super::{Error, Parts, Request, Response};
#[cfg(feature = "json")]
use crate::wire::response::reason;

/// What writes errors, if it is not [`text`].
pub(crate) type Renderer = Arc<dyn Fn(&Error, &Request<'_>) -> Response + Send + Sync>;

/// The error's message as `text/plain`, with a line end behind it. What is done unless something else was asked for.
pub fn text(error: &Error, _request: &Request<'_>) -> Response {
    text_of(error)
}

/// The error as JSON: `application/problem+json` of RFC 9457, with `status`, `title` (the status in words) and `detail` (the
/// message).
///
/// ```
/// use netpoll_http::{App, Request, Router, errors};
///
/// let router = |_: &_| Router::new().get("/double/{n}", |req: &Request| Ok((2 * req.param::<u8>("n")?).to_string()));
/// let client = App::new(router).errors(errors::json).test();
/// assert_eq!(
///     client.get("/double/x").text(),
///     r#"{"status":400,"title":"Bad Request","detail":"path parameter `n`: invalid digit found in string"}"#
/// );
/// assert_eq!(client.get("/nowhere").text(), r#"{"status":404,"title":"Not Found"}"#);
/// ```
#[cfg(feature = "json")]
pub fn json(error: &Error, _request: &Request<'_>) -> Response {
    #[derive(serde::Serialize)]
    struct Problem<'a> {
        status: u16,
        title: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<&'a str>,
    }
    let title = reason(error.status()).unwrap_or("");
    // Only what the title does not say already.
    let detail = Some(error.message()).filter(|message| !message.is_empty() && *message != title);
    let problem = Problem { status: error.status().as_u16(), title, detail };
    // Numbers and text cannot fail to be JSON.
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    Response::bytes(body).content_type(HeaderValue::from_static("application/problem+json"))
}

/// An error as text; of what kind that is, the error may say itself.
pub(super) fn text_of(error: &Error) -> Response {
    let message = error.message();
    let text = Response::text([message, line_end(message)].concat());
    match error.content_type() {
        Some(content_type) => text.content_type(content_type.clone()),
        None => text,
    }
}

/// What a message lacks of being a line. One that says nothing stays so.
pub(super) fn line_end(message: &str) -> &'static str {
    if message.is_empty() || message.ends_with('\n') { "" } else { "\n" }
}

/// The head of an error that was written with this status and these headers.
///
/// A renderer that says nothing of the status, which is then one of success, leaves the error's. Headers of the error
/// come along where the renderer has none of their name.
pub(super) fn head(mut error: Error, rendered: StatusCode, mut headers: HeaderMap) -> Parts {
    let status = if rendered.as_u16() < 400 { error.status() } else { rendered };
    add_missing(&mut headers, error.take_headers());
    Parts { headers, error: Some(error), ..Parts::new(status) }
}

/// Adds the headers of which there is none.
pub(super) fn add_missing(headers: &mut HeaderMap, others: HeaderMap) {
    let mut missing = None;
    for (name, value) in others {
        // Only the first value of a name comes with it.
        if let Some(name) = name {
            missing = (!headers.contains_key(&name)).then_some(name);
        }
        if let Some(name) = &missing {
            headers.append(name.clone(), value);
        }
    }
}
