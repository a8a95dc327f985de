//! An answer that hooks have to see before it leaves.
//!
//! Its head is kept back until whoever answers has returned, and its body waits in the write queue meanwhile. So the
//! hooks run once, for what leaves: an answer that was taken back, because its handler panicked behind it or its value
//! could not be serialised, is never shown to them.
//!
//! Invariant: a head that is held is written by [`finish`], or dropped with the answer that takes its place.

use http::StatusCode;
use http::header::UPGRADE;

use super::head::{final_status, write_head};
use super::recode::recoded;
use super::{Extra, Facts, Outflow, Replied, Rest};
use crate::message::response::says_close;
use crate::message::{Body, Error, Parts, Response, dropped, errors, guarded, guarded_or_told};
use crate::wire::{Length, response as encode};

/// A head that was not written yet.
pub(crate) struct Held {
    pub(super) parts: Parts,
    /// Never deferred once the body is there.
    pub(super) length: Length,
}

/// Finishes an answer that is not a usual one: it has hooks, or it is taken back because of a panic.
///
/// `out[start..]` is what was written of it, `replied` what came back, if anything did. Returns what to do with the
/// connection, and how often the program has panicked.
#[cold]
#[inline(never)]
pub(crate) fn finish(
    out: &mut Vec<u8>,
    start: usize,
    rest: &mut Rest,
    extra: Option<Box<Extra>>,
    replied: Option<Replied>,
    facts: &Facts<'_>,
    may_switch: bool,
) -> (Replied, u32) {
    let mut panics = 0;
    let held = extra.and_then(|extra| {
        let Extra { headers, held } = *extra;
        dropped(headers);
        held
    });
    let (held, mut keep_alive) = match (held, replied) {
        (Some(_), Some(replied))
            if matches!(rest, Rest::Upgrade(_)) && !(may_switch && replied.keep_alive) =>
        {
            (put(out, start, rest, facts, too_late_to_switch(), &mut panics), replied.keep_alive)
        }
        (Some(held), Some(replied)) => (held, replied.keep_alive),
        // Not answered yet: hooks see the answer when it is there.
        (None, Some(replied)) if rest.is_unwritten() => return (replied, 0),
        (held, _) => {
            dropped(held);
            panics += 1;
            let apology = Error::from(StatusCode::INTERNAL_SERVER_ERROR);
            (put(out, start, rest, facts, apology, &mut panics), false)
        }
    };
    let Held { mut parts, mut length } = held;
    let mut text = None;
    if guarded_or_told(|| facts.after(&mut parts), |said| text = Some(said.to_owned())).is_none() {
        parts.apologise(text);
    }
    keep_alive &= panics + parts.panics == 0 && !says_close(&parts.headers);
    if parts.is_taken_back {
        // Hooks around the one that panicked have seen the error; what they have made of its head stays.
        let apology = parts.error.take().unwrap_or_else(|| Error::from(StatusCode::INTERNAL_SERVER_ERROR));
        let put = put(out, start, rest, facts, apology, &mut panics);
        errors::add_missing(&mut parts.headers, put.parts.headers);
        parts.error = put.parts.error;
        length = put.length;
    }
    panics += parts.panics;
    match std::mem::replace(rest, Rest::Nothing) {
        Rest::Upgrade(mut switching) if parts.status.as_u16() < 400 => {
            parts.headers.insert(UPGRADE, switching.takeover.protocol.clone());
            switching.headers = std::mem::take(&mut parts.headers);
            *rest = Rest::Upgrade(switching);
            panics += u32::from(!dropped(parts));
            return (Replied { keep_alive }, panics);
        }
        declined @ Rest::Upgrade(_) => {
            panics += u32::from(!dropped(declined));
            length = Length::Known(0);
        }
        other => *rest = other,
    }
    parts.status = final_status(parts.status);
    if let Some(recode) = parts.recode.take() {
        length = recoded(&*recode, out, start, rest, facts, &mut parts, length);
    }
    if facts.head_only || !encode::may_have_body(parts.status) {
        panics += u32::from(!dropped(std::mem::replace(rest, Rest::Nothing)));
        out.truncate(start);
    }
    let body_end = out.len();
    let slot = write_head(out, facts, keep_alive, &parts, length);
    debug_assert!(slot.is_none(), "the length of a held answer is known");
    let head_bytes = out.len() - body_end;
    out[start..].rotate_right(head_bytes);
    panics += u32::from(!dropped(parts));
    (Replied { keep_alive }, panics)
}

/// Puts an error in the place of an answer, as the program has it, or as text if that panics as well.
fn put(
    out: &mut Vec<u8>,
    start: usize,
    rest: &mut Rest,
    facts: &Facts<'_>,
    error: Error,
    panics: &mut u32,
) -> Held {
    *panics += u32::from(!dropped(std::mem::replace(rest, Rest::Nothing)));
    out.truncate(start);
    let rendered = guarded(|| {
        facts.note(&error);
        facts.render(&error)
    });
    *panics += u32::from(rendered.is_none());
    let Response { status, headers, body } = rendered.flatten().unwrap_or_else(|| errors::text_of(&error));
    let (length, _) = facts.length(&body);
    match body {
        Body::Empty | Body::Upgrade(_) => {}
        Body::Static(bytes) => out.extend_from_slice(bytes),
        Body::Shared(bytes) => out.extend_from_slice(&bytes),
        Body::Owned(bytes) => out.extend_from_slice(&bytes),
        Body::File(range) => *rest = Rest::File(range),
        Body::Stream { stream, length: known } => {
            *rest = Rest::Stream(Outflow::new(stream, known, length));
        }
    }
    Held { parts: errors::head(error, status, headers), length }
}

/// The answer to an upgrade that cannot be, although the handler accepted it.
pub(crate) fn too_late_to_switch() -> Error {
    Error::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "the connection cannot switch protocols: it is about to be closed, or was not asked to",
    )
}
