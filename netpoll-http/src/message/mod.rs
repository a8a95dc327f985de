//! Requests and answers, without a socket in sight.
//!
//! Above the wire, below everything that knows connections or routes. A request is a view of bytes that
//! passed the wire's checks; an answer is written into a `Vec<u8>` that somebody else flushes.

mod body;
mod body_error;
pub(crate) mod cause;
pub(crate) mod chance;
mod cookie;
mod error;
pub mod errors;
mod extensions;
mod extract;
#[cfg(feature = "serde")]
mod fields;
mod guard;
mod inflow;
mod into_response;
#[cfg(feature = "json")]
mod json;
mod names;
mod params;
mod pending;
mod reply;
mod request;
mod request_id;
mod response;
mod response_error;
mod sink;
mod trace;
mod typed;
mod upgrade;

pub use body::{Body, BodyBuf, BodyStream, Pull};
pub use body_error::BodyError;
pub(crate) use cause::Cause;
pub use cookie::{Cookie, SameSite};
pub use error::Error;
pub(crate) use errors::Renderer;
pub use extensions::Extensions;
pub(crate) use guard::{dropped, guarded, guarded_or_told};
#[cfg_attr(not(feature = "http2"), allow(unused_imports))]
pub(crate) use inflow::Fetch;
pub use inflow::{BodyReader, Chunk};
pub(crate) use inflow::{Inflow, wake};
pub use into_response::IntoResponse;
#[cfg(feature = "json")]
pub use json::Json;
pub use names::Names;
pub(crate) use params::PATH_BYTES_MAX;
pub(crate) use params::intern;
pub use params::{PARAMS_MAX, Params};
pub(crate) use pending::{Ask, Asked, Behind, Futures, Pending};
pub(crate) use reply::{
    Above, Context, Facts, OutFraming, Outflow, Rest, State, Switching, finish, too_late_to_switch,
    write_headers,
};
#[cfg(feature = "compression")]
pub(crate) use reply::{Content, Source, weaken};
pub(crate) use reply::{Recode, Stamp};
pub use reply::{Replied, Reply};
pub use request::{ClientAddr, Request};
#[cfg_attr(not(feature = "compression"), allow(unused_imports))]
pub(crate) use request::{DecodedBody, Origin, Owned, Unread};
pub use request_id::RequestId;
pub use response::{Parts, Response};
pub use response_error::ResponseError;
pub use sink::{BodySink, Delivery, OpenSink};
pub use trace::TraceContext;
pub use typed::FromRequest;
#[cfg(feature = "serde")]
pub use typed::{FIELDS_MAX, Form, Path, Query};
pub use upgrade::{Takeover, Upgrade};

/// The methods that a path has: what the answer of a handler for others is to say. Kept among the request's extensions.
pub(crate) struct Allow(pub(crate) http::HeaderValue);

/// The number of a route in the table that found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RouteId(pub u32);
