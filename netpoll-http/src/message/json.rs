//! JSON answers.

use http::{HeaderValue, StatusCode};
use serde::Serialize;

use super::{Error, IntoResponse, Replied, Reply, Response};

/// 200 with `application/json`, serialised straight into the connection's write queue.
///
/// A value that cannot be serialised is answered with 500, and nothing of it is sent.
///
/// What a handler returns outlives its request, so the value cannot borrow from it:
///
/// ```compile_fail
/// use netpoll_http::{Json, Request, Router};
///
/// #[derive(serde::Serialize)]
/// struct Seen<'a> { path: &'a str }
///
/// // error: lifetime may not live long enough
/// let router = Router::new().get("/", |req: &Request| Json(Seen { path: req.path() }));
/// ```
///
/// Two others do: [`Response::json`], which copies the text once, and [`Reply::json`], which writes it where this does.
///
/// ```
/// use netpoll_http::{App, Reply, Request, Response, Router, StatusCode};
///
/// #[derive(serde::Serialize)]
/// struct Seen<'a> { path: &'a str }
///
/// let router = |_: &_| Router::new()
///     .get("/a", |req: &Request| Response::json(&Seen { path: req.path() }))
///     .get("/b", |req: &Request, reply: Reply| reply.json(StatusCode::OK, &Seen { path: req.path() }));
/// let client = App::new(router).test();
/// assert_eq!(client.get("/a").text(), r#"{"path":"/a"}"#);
/// assert_eq!(client.get("/b").text(), r#"{"path":"/b"}"#);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T: Serialize + 'static> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => Response::bytes(body).content_type(HeaderValue::from_static("application/json")),
            Err(source) => Error::internal(source).into_response(),
        }
    }

    #[inline]
    fn respond(self, reply: Reply<'_>) -> Replied {
        reply.json(StatusCode::OK, &self.0)
    }
}
