//! HTTP/1.1 as bytes: request heads, body framing, answer heads, targets and dates.
//!
//! Nothing here reads a socket or a clock, and nothing allocates unless its name says so. Bytes come
//! in as slices, answers go out into a `Vec<u8>` of the caller, and whatever the peer did wrong comes
//! back as one [`WireError`].
//!
//! Invariant: a head or body that comes out of this room has exactly one reading. Whatever RFC 9112
//! lets two parties read in two ways is refused, and there is no switch that makes it lenient.

pub mod chunked;
pub mod date;
pub mod error;
pub mod framing;
pub mod headers;
mod parse;
mod partial;
pub mod reader;
mod request;
pub mod response;
mod scan;
mod starts;
pub mod target;
mod trailers;

#[cfg(test)]
mod tests;

pub use chunked::{Decoded, Decoder};
pub use error::{Violation, WireError};
pub use framing::Framing;
pub use headers::{HeadIndex, Known};
#[cfg_attr(not(feature = "http2"), allow(unused_imports))]
pub use parse::parse_framed;
pub use parse::{Refused, parse};
pub use reader::HeadReader;
pub use request::{Head, HeadParts, Limits, Method, Progress, Scan};
pub use response::{Connection, ContentType, InvalidHeader, Length, LengthSlot, ResponseHead};
pub use starts::{HeadStarts, SERVER_LINE};
pub use trailers::Trailers;
