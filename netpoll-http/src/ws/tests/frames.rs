//! Headers and frames that are sent.

use std::io::Write;

use super::*;
use crate::ws::frame::{Builder, Context, Head, Header};

fn parsed(bytes: &[u8], role: Role) -> Result<Option<(Header, usize)>, Violation> {
    Header::parse(bytes, Context { role, compression: false, in_message: false })
}

#[test]
fn the_examples_of_the_rfc_are_read_and_written() {
    let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(masked(Kind::TEXT, "Hello"), hello);
    assert_eq!(seen(hello), [text("Hello")]);
    assert_eq!(&frame::shared(Kind::TEXT, b"Hello")[..], [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
    assert_eq!(&Head::new(Kind::BINARY, 256)[..], [0x82, 0x7e, 0x01, 0x00]);
    assert_eq!(&Head::new(Kind::BINARY, 65536)[..], [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]);
    assert_eq!(&Head::new(Kind::TEXT.first(), 3)[..], [0x01, 0x03]);
    assert_eq!(&Head::new(Kind::LAST, 2)[..], [0x80, 0x02]);
    assert_eq!(&Head::new(Kind::TEXT.compressed(), 7)[..], [0xc1, 0x07]);
}

#[test]
fn a_header_that_is_written_is_read_with_the_same_meaning() {
    for len in [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 20] {
        let head = Head::new(Kind::BINARY, len);
        let (header, header_bytes) = parsed(&head, Role::Client).expect("valid").expect("whole");
        assert_eq!((header.len, header_bytes, header.mask), (len as u64, head.len(), None));
        let head = Head::masked(Kind::BINARY, len, KEY);
        let (header, header_bytes) = parsed(&head, Role::Server).expect("valid").expect("whole");
        assert_eq!((header.len, header_bytes, header.mask), (len as u64, head.len(), Some(Mask::new(KEY))));
        for end in 0..head.len() {
            assert_eq!(parsed(&head[..end], Role::Server), Ok(None), "{end} of {} bytes", head.len());
        }
    }
}

#[test]
fn a_length_is_written_in_as_few_bytes_as_it_needs() {
    for (first, length) in
        [(126, &[0, 125][..]), (126, &[0, 0]), (127, &[0, 0, 0, 0, 0, 0, 0xff, 0xff]), (127, &[0; 8])]
    {
        let length = [&[first], length].concat();
        assert_eq!(refused(odd(0x82, &length, b"")), Violation::LengthNotMinimal, "{length:?}");
    }
}

#[test]
fn a_length_has_63_bits() {
    let too_large = [127, 0x80, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(refused(odd(0x82, &too_large, b"")), Violation::LengthTooLarge);
    let largest = [127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    assert_eq!(refused(odd(0x82, &largest, b"")), Violation::MessageTooLarge);
}

#[test]
fn a_client_masks_and_a_server_does_not() {
    assert_eq!(refused(b"\x81\x05Hello"), Violation::NotMasked);
    assert_eq!(refused(b"\x88\x00"), Violation::NotMasked, "a Close too");
    let of_server = |bytes: &[u8]| seen_within(bytes, Role::Client, false, Limits::default());
    assert_eq!(of_server(b"\x81\x05Hello"), [text("Hello")]);
    assert_eq!(of_server(&masked(Kind::TEXT, "Hello")), [Seen::Failed(Violation::Masked)]);
}

#[test]
fn reserved_opcodes_are_refused() {
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        assert_eq!(refused(odd(0x80 | opcode, &[0], b"")), Violation::ReservedOpcode, "{opcode}");
        assert_eq!(refused(odd(opcode, &[0], b"")), Violation::ReservedOpcode, "{opcode} without FIN");
    }
}

#[test]
fn reserved_bits_are_refused_unless_the_first_frame_of_a_message_says_that_it_is_compressed() {
    for bits in [0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70] {
        for opcode in [1, 2, 8, 9, 10] {
            assert_eq!(
                refused(odd(0x80 | bits | opcode, &[0], b"")),
                Violation::ReservedBits,
                "{bits:x} {opcode}"
            );
        }
    }
    let compressed = |bytes: &[u8]| seen_within(bytes, Role::Server, true, Limits::default());
    assert_eq!(compressed(&odd(0xc1, &[1], b"\xff")), [Seen::Compressed(true, vec![0xff])]);
    assert_eq!(compressed(&odd(0xc2, &[0], b"")), [Seen::Compressed(false, vec![])]);
    let in_two = [odd(0x41, &[1], b"\xff"), masked(Kind::LAST, b"\xfe")].concat();
    assert_eq!(compressed(&in_two), [Seen::Compressed(true, vec![0xff, 0xfe])]);
    assert_eq!(compressed(&masked(Kind::TEXT, "a")), [text("a")], "and others are as they were");
    let refused = [Seen::Failed(Violation::ReservedBits)];
    for first in [0xa1, 0x91, 0xe1, 0xc8, 0xc9, 0xca] {
        assert_eq!(compressed(&odd(first, &[0], b"")), refused, "{first:x}");
    }
    assert_eq!(compressed(&[odd(0x41, &[0], b""), odd(0xc0, &[0], b"")].concat()), refused, "a continuation");
}

#[test]
fn a_peer_hears_at_the_first_byte_that_is_wrong() {
    let context = Context { role: Role::Server, compression: false, in_message: false };
    for (bytes, violation) in [
        (&b"\x83"[..], Violation::ReservedOpcode),
        (b"\xc1", Violation::ReservedBits),
        (b"\x80", Violation::NothingToContinue),
        (b"\x09", Violation::ControlFragmented),
        (b"\x81\x05", Violation::NotMasked),
        (b"\x89\xfe", Violation::ControlTooLong),
        (b"\x81\xfe\x00\x05", Violation::LengthNotMinimal),
    ] {
        assert_eq!(Header::parse(bytes, context), Err(violation), "{bytes:x?}");
        assert_eq!(Header::parse(&bytes[..bytes.len() - 1], context), Ok(None), "{bytes:x?}");
    }
}

#[test]
fn control_frames_are_short_and_whole() {
    for opcode in [8, 9, 10] {
        assert_eq!(refused(odd(0x80 | opcode, &[126, 0, 126], &[0; 126])), Violation::ControlTooLong);
        assert_eq!(
            refused(odd(0x80 | opcode, &[127, 0, 0, 0, 0, 0, 1, 0, 0], b"")),
            Violation::ControlTooLong
        );
        assert_eq!(refused(odd(opcode, &[0], b"")), Violation::ControlFragmented);
    }
    let longest = [b'x'; 125];
    assert_eq!(seen(masked(Kind::PING, longest)), [Seen::Ping(longest.to_vec())]);
}

#[test]
#[should_panic(expected = "a control frame of 126 bytes")]
fn a_control_frame_that_is_too_long_is_not_sent() {
    frame::push(&mut Vec::new(), Kind::PONG, &[0; 126]);
}

#[test]
fn a_shared_frame_is_header_and_payload_in_one_piece() {
    for payload_bytes in [0, 1, 125, 126, 65_535, 65_536, 100_000] {
        let payload = vec![b'x'; payload_bytes];
        let mut pushed = Vec::new();
        frame::push(&mut pushed, Kind::BINARY, &payload);
        let mut builder = Builder::with_capacity(10);
        for piece in payload.chunks(333) {
            builder.write_all(piece).expect("memory takes all");
        }
        assert_eq!(builder.payload(), payload);
        assert_eq!(builder.finish(Kind::BINARY), pushed);
        assert_eq!(frame::shared(Kind::BINARY, &payload), pushed);
        assert_eq!(seen_within(&pushed, Role::Client, false, Limits::default()), [Seen::Binary(payload)]);
    }
}
