//! The rules of WebSocket, one sentence each, on raw bytes.
//!
//! Every stream goes through [`seen_within`], which feeds it whole and in pieces and wants the same events.

mod compression;
mod frames;
mod handshake;
mod properties;
mod reading;

use super::*;
use crate::ws::frame;

/// An [`Event`] that owns what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Compressed(bool, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    Failed(Violation),
}

impl Seen {
    fn of(event: &Event<'_>) -> Seen {
        match event {
            Event::Text(text) => Seen::Text((*text).to_owned()),
            Event::Binary(bytes) => Seen::Binary(bytes.to_vec()),
            Event::Compressed { is_text, payload } => Seen::Compressed(*is_text, payload.to_vec()),
            Event::Ping(payload) => Seen::Ping(payload.to_vec()),
            Event::Pong(payload) => Seen::Pong(payload.to_vec()),
            Event::Close(close) => Seen::Close(close.code.map(CloseCode::get), close.reason.to_owned()),
            Event::Failed(violation) => Seen::Failed(*violation),
        }
    }
}

/// Feeds a chunk that is a copy; what is seen in it is appended.
fn feed(reader: &mut Reader, chunk: &[u8], seen: &mut Vec<Seen>) {
    let mut chunk = chunk.to_vec();
    let mut rest = chunk.as_mut_slice();
    while let Some(event) = reader.next(&mut rest) {
        seen.push(Seen::of(&event));
    }
    assert!(rest.is_empty(), "all of a chunk is read");
}

/// What comes out when every read brings `step` bytes.
fn seen_in_steps(mut reader: Reader, bytes: &[u8], step: usize) -> (Vec<Seen>, Reader) {
    let mut seen = Vec::new();
    for chunk in bytes.chunks(step.max(1)) {
        feed(&mut reader, chunk, &mut seen);
    }
    (seen, reader)
}

/// What these bytes come to, after checking that it makes no difference how they arrive.
fn seen_within(bytes: &[u8], role: Role, compression: bool, limits: Limits) -> Vec<Seen> {
    let reader = || Reader::new(role, compression, limits);
    let (whole, _) = seen_in_steps(reader(), bytes, bytes.len());
    for step in [1, 2, 3, 5, 7, 64, 1000] {
        let (seen, reader) = seen_in_steps(reader(), bytes, step);
        assert_eq!(seen, whole, "in steps of {step}: {}", bytes.escape_ascii());
        if reader.is_between_messages() || reader.is_done() {
            assert_eq!(reader.gathered_bytes(), 0, "in steps of {step}: {}", bytes.escape_ascii());
        }
    }
    whole
}

/// What a server sees of these bytes.
fn seen(bytes: impl AsRef<[u8]>) -> Vec<Seen> {
    seen_within(bytes.as_ref(), Role::Server, false, Limits::default())
}

/// The rule that these bytes break at last.
fn refused(bytes: impl AsRef<[u8]>) -> Violation {
    match seen(bytes.as_ref()).last() {
        Some(Seen::Failed(violation)) => *violation,
        other => panic!("no violation but {other:?} in {}", bytes.as_ref().escape_ascii()),
    }
}

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A client's frame.
fn masked(kind: Kind, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    frame::push_masked(&mut out, kind, payload.as_ref(), KEY);
    out
}

/// A client's frame whose first byte is this one, and whose length takes so many bytes.
fn odd(first: u8, length: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    out.extend_from_slice(length);
    out[1] |= 0x80;
    out.extend_from_slice(&KEY);
    let mut payload = payload.to_vec();
    Mask::new(KEY).apply(&mut payload);
    [out, payload].concat()
}

fn text(text: &str) -> Seen {
    Seen::Text(text.to_owned())
}

fn binary(bytes: &[u8]) -> Seen {
    Seen::Binary(bytes.to_vec())
}
