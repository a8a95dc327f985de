//! permessage-deflate, message by message.

use zlib_rs::{Deflate, DeflateFlush};

use super::*;

fn inflated_within(inflater: &mut Inflater, is_text: bool, payload: &[u8], message_bytes_max: u32) -> Seen {
    Seen::of(&inflater.inflate(is_text, payload, &Limits { message_bytes_max, ..Limits::default() }))
}

/// What an inflater that is new, and one that was used, make of a payload.
fn inflated(payload: &[u8]) -> Seen {
    let new = inflated_within(&mut Inflater::new(), true, payload, 1 << 20);
    let mut used = Inflater::new();
    let others = [
        &deflated(b"and another thing")[..],
        b"\xff\xff\xff",
        &deflated(&[7; 70_000]),
        b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00",
    ];
    for payload in others {
        inflated_within(&mut used, false, payload, 1 << 20);
    }
    assert_eq!(inflated_within(&mut used, true, payload, 1 << 20), new);
    new
}

/// As any client would send it.
fn deflated(payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0; payload.len() + 100];
    let mut state = Deflate::new(6, false, 15);
    state.compress(payload, &mut out, DeflateFlush::SyncFlush).expect("room enough");
    out.truncate(state.total_out() as usize - 4);
    out
}

const BAD: Seen = Seen::Failed(Violation::BadCompression);

#[test]
fn the_examples_of_the_rfc_are_inflated() {
    for payload in [
        &b"\xf2\x48\xcd\xc9\xc9\x07\x00"[..],
        b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00",
        b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00",
        b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00",
    ] {
        assert_eq!(inflated(payload), text("Hello"), "{payload:x?}");
    }
    assert_eq!(inflated(b"\x00"), text(""), "an empty message");
}

#[test]
fn an_empty_payload_is_an_empty_message() {
    assert_eq!(inflated(b""), text(""));
}

#[test]
fn a_stream_that_ends_may_be_followed_by_others_but_not_by_many() {
    let hello = b"\xf3\x48\xcd\xc9\xc9\x07\x00";
    assert_eq!(inflated(hello), text("Hello"), "nothing is left out behind a last block");
    assert_eq!(inflated(&hello.repeat(3)), text("HelloHelloHello"));
    assert_eq!(inflated(&hello.repeat(64)), text(&"Hello".repeat(64)));
    assert_eq!(inflated(&hello.repeat(65)), BAD);
    assert_eq!(inflated(&b"\x03\x00".repeat(10_000)), BAD, "empty ones");
}

#[test]
fn what_is_cut_or_no_stream_is_refused() {
    let payload = deflated(
        "a text that is long enough for a block with tables of its own, as texts are".repeat(9).as_bytes(),
    );
    for end in 1..payload.len() {
        assert_eq!(inflated(&payload[..end]), BAD, "{end} of {}", payload.len());
    }
    for payload in
        [&b"\xff"[..], b"\x07", b"\x01", b"\x02", b"\x00\x09\x00\xf6\xff\x48", b"\x00\x05\x00\xfa\xfe"]
    {
        assert_eq!(inflated(payload), BAD, "{payload:x?}");
    }
    let too_much = [&payload[..], LEFT_OUT, b"\x01\x00\x00\xff\xff", b"\x07"].concat();
    assert_eq!(inflated(&too_much), BAD);
}

const LEFT_OUT: &[u8] = b"\x00\x00\xff\xff";

#[test]
fn a_message_that_refers_to_the_one_before_it_is_refused() {
    let message = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut state = Deflate::new(9, false, 15);
    let mut payloads = [0; 2].map(|_| {
        let (mut out, before) = (vec![0; 200], state.total_out());
        state.compress(message, &mut out, DeflateFlush::SyncFlush).expect("room enough");
        out.truncate((state.total_out() - before) as usize - 4);
        out
    });
    let [first, second] = &mut payloads;
    assert!(second.len() < first.len());
    let mut inflater = Inflater::new();
    assert_eq!(inflated_within(&mut inflater, false, first, 100), binary(message));
    assert_eq!(inflated_within(&mut inflater, false, second, 100), BAD);
}

#[test]
fn the_limit_is_that_of_what_comes_out() {
    let message = vec![b'x'; 100_000];
    let payload = deflated(&message);
    assert!(payload.len() < 300);
    let mut inflater = Inflater::new();
    for limit in [100_000, 100_001, 1 << 20, u32::MAX] {
        assert_eq!(inflated_within(&mut inflater, false, &payload, limit), binary(&message), "{limit}");
    }
    for limit in [99_999, 50_000, 4096, 1, 0] {
        assert_eq!(
            inflated_within(&mut inflater, false, &payload, limit),
            Seen::Failed(Violation::MessageTooLarge),
            "{limit}"
        );
    }
}

#[test]
fn a_text_is_judged_when_it_is_inflated() {
    let mut inflater = Inflater::new();
    let payload = deflated(b"\xed\xa0\x80");
    assert_eq!(inflated_within(&mut inflater, true, &payload, 9), Seen::Failed(Violation::BadText));
    assert_eq!(inflated_within(&mut inflater, false, &payload, 9), binary(b"\xed\xa0\x80"));
}

#[test]
fn a_message_is_compressed_if_it_becomes_shorter() {
    let mut deflater = Deflater::new();
    let json = br#"{"id":12345,"name":"somebody","tags":["a","b"]},"#;
    let mut noise = 1_u32;
    let noise = std::iter::repeat_with(|| {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (noise >> 24) as u8
    });
    let noise: Vec<u8> = noise.take(10_000).collect();
    assert_eq!(deflater.deflate(&json.repeat(10)), None, "too short");
    assert_eq!(deflater.deflate(&noise), None, "it has nothing to say");
    for repeated in [11, 1000, 100_000] {
        let message = json.repeat(repeated);
        let payload = deflater.deflate(&message).expect("a shorter one");
        assert!(payload.len() < message.len() / 2);
        let frame = frame::shared(Kind::BINARY.compressed(), payload);
        let limits = Limits { message_bytes_max: 8 << 20, ..Limits::default() };
        let mut reader = Reader::new(Role::Client, true, limits);
        let mut seen = Vec::new();
        feed(&mut reader, &frame, &mut seen);
        let [Seen::Compressed(false, payload)] = &seen[..] else { panic!("{seen:?}") };
        assert!(inflated_within(&mut Inflater::new(), false, payload, 8 << 20) == Seen::Binary(message));
    }
}

#[test]
fn who_stops_a_reader_hears_no_more() {
    let mut reader = Reader::new(Role::Server, true, Limits::default());
    let mut seen = Vec::new();
    feed(&mut reader, &masked(Kind::TEXT, "a")[..7], &mut seen);
    feed(&mut reader, &masked(Kind::BINARY.first(), "b"), &mut seen);
    reader.stop();
    assert_eq!(reader.gathered_bytes(), 0);
    feed(&mut reader, &masked(Kind::TEXT, "c"), &mut seen);
    assert_eq!(seen, [text("a")]);
    assert!(reader.is_done());
}
