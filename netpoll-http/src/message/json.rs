//! JSON answers.

use http::{HeaderValue, StatusCode};
use serde::Serialize;

use super::{Error, IntoResponse, Replied, Reply, Response};

/// 200 with `application/json`, serialised straight into the connection's write queue.
///
/// A value that cannot be serialised is answered with 500, and nothing of it is sent.
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
