//! An answer whose content is coded on its way out (RFC 9110 section 8.4).
//!
//! What is known of an answer when its hooks have run is put before whoever they have left in [`Parts`], and the content is coded in its
//! place: in the queue if it is short and there, piece by piece as it leaves otherwise. A head for HEAD says what that for GET would, but for the length.
//!
//! Invariant: the head is changed if and only if the content is, or would be.

use std::fmt;

use bytes::Bytes;
use http::header::{ACCEPT_RANGES, CONTENT_ENCODING, ETAG};
use http::{HeaderValue, StatusCode};

use super::{Facts, OutFraming, Outflow, Rest};
use crate::coding::Coding;
use crate::message::{BodyStream, Parts, Request};
use crate::wire::{Length, response as encode};

/// What is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// So many bytes, which are there.
    Bytes(u64),
    /// Bytes that are made while they are sent.
    Stream,
    /// The client has it.
    NotModified,
}

/// A content that is coded as it leaves.
pub(crate) enum Source {
    Bytes(Bytes),
    /// With how its end was to be marked, and so with the bytes that it owes, if their number was promised.
    Stream(Box<dyn BodyStream>, OutFraming),
}

/// Implemented above.
pub(crate) trait Recode: fmt::Debug {
    /// The coding for an answer, if it gets one, and whether it is coded at once. Says in the head that it depends on the client, if it does.
    fn choose(&self, request: &Request<'_>, parts: &mut Parts, content: Content) -> Option<(Coding, bool)>;

    /// Appends the coded content. If that is not possible, false, and there is no telling what was appended.
    fn append(&self, coding: Coding, content: &[u8], out: &mut Vec<u8>) -> bool;

    /// The same piece by piece; or the source again.
    fn stream(&self, coding: Coding, source: Source) -> Result<Box<dyn BodyStream>, Source>;
}

/// Codes what lies behind `start` and in `rest`, if somebody is for that. How the length of the content is said then.
#[cold]
pub(super) fn recoded(
    recode: &dyn Recode,
    out: &mut Vec<u8>,
    start: usize,
    rest: &mut Rest,
    facts: &Facts<'_>,
    parts: &mut Parts,
    length: Length,
) -> Length {
    let Some(request) = facts.context.request else { return length };
    let content = match (&*rest, length) {
        _ if parts.status == StatusCode::NOT_MODIFIED => Content::NotModified,
        _ if parts.is_file || !encode::may_have_body(parts.status) => return length,
        (Rest::File(_) | Rest::Upgrade(_) | Rest::Future(_), _) => return length,
        (Rest::Stream(_), _) => Content::Stream,
        (_, Length::Known(bytes)) => Content::Bytes(bytes),
        // Of HEAD there is no stream, but what would be one.
        _ => Content::Stream,
    };
    let Some((coding, at_once)) = recode.choose(request, parts, content) else { return length };
    if facts.head_only {
        mark(parts, coding);
        return Length::Unsaid;
    }
    let source = match std::mem::replace(rest, Rest::Nothing) {
        Rest::Stream(outflow) => Source::Stream(outflow.stream, outflow.framing),
        Rest::Static(bytes) => Source::Bytes(Bytes::from_static(bytes)),
        Rest::Shared(bytes) => Source::Bytes(bytes),
        _ => Source::Bytes(Bytes::from(out.split_off(start))),
    };
    let source = match source {
        Source::Bytes(bytes) if at_once => {
            if recode.append(coding, &bytes, out) {
                mark(parts, coding);
                *rest = Rest::Coded(bytes.len());
                facts.context.above.coded(bytes.len());
                return Length::Known((out.len() - start) as u64);
            }
            out.truncate(start);
            Source::Bytes(bytes)
        }
        source => match recode.stream(coding, source) {
            Ok(stream) => {
                mark(parts, coding);
                *rest = Rest::Stream(Outflow { stream, framing: OutFraming::Chunked });
                return Length::Chunked;
            }
            Err(source) => source,
        },
    };
    *rest = match source {
        Source::Bytes(bytes) => Rest::Shared(bytes),
        Source::Stream(stream, framing) => Rest::Stream(Outflow { stream, framing }),
    };
    length
}

/// The head of a coded answer. Its bytes are not those that a strong tag stands for, and ranges of them are not to be had.
fn mark(parts: &mut Parts, coding: Coding) {
    parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    parts.headers.remove(ACCEPT_RANGES);
    weaken(parts);
}

/// Makes the tag of an answer a weak one.
pub(crate) fn weaken(parts: &mut Parts) {
    let Some(tag) = parts.headers.get(ETAG).filter(|tag| tag.as_bytes().starts_with(b"\"")) else { return };
    let weak = [b"W/", tag.as_bytes()].concat();
    if let Ok(weak) = HeaderValue::from_bytes(&weak) {
        parts.headers.insert(ETAG, weak);
    }
}
