//! What processes say to each other, as bytes. Numbers are big-endian.
//!
//! | byte | what |
//! |---|---|
//! | 0 | the version, 1 |
//! | 1 | what it is: a text (0) or binary (1) message, a digest (2), a question for digests (3) |
//! | 2 | which process says it, eight bytes |
//!
//! A message goes on with where it is ([`Place`]), the length of its key in two bytes (`ffff` if it has none), the key and the payload. A digest is places.
//!
//! Plain data: whatever the bytes are, they are read or refused.

use std::time::Duration;

use crate::websocket::Frame;

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 10;
const NO_KEY: u16 = u16::MAX;

/// What is around the payload of a message, the name of its room and its key left out.
pub const AROUND_BYTES: usize = HEAD_BYTES + PLACE_BYTES + 2;

/// A place without the name of its room.
pub const PLACE_BYTES: usize = 8 + 8 + 8 + 2;

/// Where a process is in a room, or a message of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    pub room: &'a str,
    /// Which life of the room in that process; a later one has a greater number.
    pub life: u64,
    /// Messages that the process has published there, up to here.
    pub number: u64,
    /// How long ago the first of them was published.
    pub age: Duration,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Said<'a> {
    Message {
        at: Place<'a>,
        key: Option<&'a str>,
        payload: Payload<'a>,
    },
    Digest(Vec<Place<'a>>),
    /// Everybody is to say where they are in all rooms.
    Question,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
}

impl Payload<'_> {
    pub fn frame(self) -> Frame {
        match self {
            Self::Text(text) => Frame::text(text),
            Self::Binary(bytes) => Frame::binary(bytes),
        }
    }
}

fn begin(what: u8, process: u64, bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_BYTES + bytes);
    out.extend([VERSION, what]);
    out.extend(process.to_be_bytes());
    out
}

pub fn question(process: u64) -> Vec<u8> {
    begin(3, process, 0)
}

/// A digest that has no places yet.
pub fn digest(process: u64) -> Vec<u8> {
    begin(2, process, 1024)
}

/// Names have less than 64 KiB: whoever has made a room has seen to that.
fn put_name(out: &mut Vec<u8>, name: &str) {
    let len = u16::try_from(name.len()).expect("the name of a room has a limit");
    out.extend(len.to_be_bytes());
    out.extend(name.as_bytes());
}

pub fn put_place(out: &mut Vec<u8>, at: &Place<'_>) {
    // Rounded up: nothing is said to be younger than it is.
    let age = u64::try_from(at.age.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
    for number in [at.life, at.number, age] {
        out.extend(number.to_be_bytes());
    }
    put_name(out, at.room);
}

pub fn message(process: u64, at: &Place<'_>, key: Option<&str>, frame: &Frame) -> Vec<u8> {
    let payload = frame.payload();
    let names = at.room.len() + key.map_or(0, str::len);
    let mut out = begin(u8::from(!frame.is_text()), process, AROUND_BYTES + names + payload.len());
    put_place(&mut out, at);
    match key {
        Some(key) => put_name(&mut out, key),
        None => out.extend(NO_KEY.to_be_bytes()),
    }
    out.extend(payload);
    out
}

/// Takes from the front.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (first, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(first)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.bytes(2)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.bytes(8)?.try_into().ok()?))
    }

    fn text(&mut self, len: u16) -> Option<&'a str> {
        std::str::from_utf8(self.bytes(usize::from(len))?).ok()
    }

    fn place(&mut self) -> Option<Place<'a>> {
        let (life, number, age) = (self.u64()?, self.u64()?, Duration::from_millis(self.u64()?));
        let len = self.u16()?;
        Some(Place { room: self.text(len)?, life, number, age })
    }
}

/// Who says what. `None` if it is nothing that a process says.
pub fn read(bytes: &[u8]) -> Option<(u64, Said<'_>)> {
    let mut rest = Rest(bytes);
    let &[VERSION, what] = rest.bytes(2)? else { return None };
    let process = rest.u64()?;
    let said = match what {
        0 | 1 => {
            let at = rest.place()?;
            let key = match rest.u16()? {
                NO_KEY => None,
                len => Some(rest.text(len)?),
            };
            let payload = match what {
                0 => Payload::Text(std::str::from_utf8(rest.0).ok()?),
                _ => Payload::Binary(rest.0),
            };
            Said::Message { at, key, payload }
        }
        2 => {
            let mut places = Vec::new();
            while !rest.0.is_empty() {
                places.push(rest.place()?);
            }
            Said::Digest(places)
        }
        3 if rest.0.is_empty() => Said::Question,
        _ => return None,
    };
    Some((process, said))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_one_process_says_another_one_reads(
            (process, life, number, age) in (any::<u64>(), any::<u64>(), any::<u64>(), 0..1_u64 << 50),
            room in ".{0,20}",
            key in proptest::option::of(".{0,20}"),
            text in ".{0,50}",
            is_text in any::<bool>(),
        ) {
            let age = Duration::from_millis(age);
            let at = Place { room: &room, life, number, age };
            let frame = if is_text { Frame::text(&text) } else { Frame::binary(&text) };
            let payload = if is_text { Payload::Text(&text) } else { Payload::Binary(text.as_bytes()) };
            let read_at = Place { age: age + Duration::from_millis(1), ..at };
            let bytes = message(process, &at, key.as_deref(), &frame);
            let said = Said::Message { at: read_at, key: key.as_deref(), payload };
            prop_assert_eq!(read(&bytes), Some((process, said)));
            let mut bytes = digest(process);
            put_place(&mut bytes, &at);
            put_place(&mut bytes, &at);
            prop_assert_eq!(read(&bytes), Some((process, Said::Digest(vec![read_at; 2]))));
            let bytes = question(process);
            prop_assert_eq!(read(&bytes), Some((process, Said::Question)));
        }

        #[test]
        fn no_bytes_are_too_strange_to_be_refused(
            what in 0..5_u8,
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
            cut in any::<prop::sample::Index>(),
        ) {
            let all = [&[VERSION, what], &bytes[..]].concat();
            let _ = (read(&all), read(&bytes), read(&all[..cut.index(all.len())]));
        }
    }
}
