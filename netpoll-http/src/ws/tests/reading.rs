//! Messages, fragments, control frames, limits and ends.

use super::*;

fn within(bytes: &[u8], message_bytes_max: u32, fragments_max: u32) -> Vec<Seen> {
    seen_within(bytes, Role::Server, false, Limits { message_bytes_max, fragments_max })
}

#[test]
fn messages_come_in_order_and_empty_ones_too() {
    let bytes = [
        masked(Kind::TEXT, "a"),
        masked(Kind::BINARY, b"\xff"),
        masked(Kind::TEXT, ""),
        masked(Kind::BINARY, b""),
    ];
    assert_eq!(seen(bytes.concat()), [text("a"), binary(b"\xff"), text(""), binary(b"")]);
}

#[test]
fn the_fragments_of_a_message_are_one_message() {
    let first = masked(Kind::TEXT.first(), "a");
    let bytes =
        [first, masked(Kind::CONTINUATION, ""), masked(Kind::CONTINUATION, "b"), masked(Kind::LAST, "c")];
    assert_eq!(seen(bytes.concat()), [text("abc")]);
    let empty = [masked(Kind::BINARY.first(), ""), masked(Kind::CONTINUATION, ""), masked(Kind::LAST, "")];
    assert_eq!(seen(empty.concat()), [binary(b"")]);
}

#[test]
fn control_frames_may_come_between_fragments_and_change_nothing() {
    let bytes = [
        masked(Kind::TEXT.first(), "ä"),
        masked(Kind::PONG, "1"),
        masked(Kind::CONTINUATION, "b"),
        masked(Kind::PING, [0xff; 125]),
        masked(Kind::PING, ""),
        masked(Kind::LAST, "c"),
        masked(Kind::TEXT, "d"),
    ];
    let pings = [Seen::Pong(b"1".to_vec()), Seen::Ping(vec![0xff; 125]), Seen::Ping(vec![])];
    assert_eq!(seen(bytes.concat()), [&pings[..], &[text("äbc"), text("d")]].concat());
}

#[test]
fn a_continuation_follows_a_first_fragment_only() {
    assert_eq!(refused(masked(Kind::CONTINUATION, "a")), Violation::NothingToContinue);
    assert_eq!(refused(masked(Kind::LAST, "a")), Violation::NothingToContinue);
    let after_the_last = [masked(Kind::TEXT.first(), "a"), masked(Kind::LAST, "b"), masked(Kind::LAST, "c")];
    assert_eq!(refused(after_the_last.concat()), Violation::NothingToContinue);
    assert_eq!(
        refused([masked(Kind::TEXT, "a"), masked(Kind::LAST, "c")].concat()),
        Violation::NothingToContinue
    );
}

#[test]
fn no_message_begins_inside_another_one() {
    for first in ["a", ""] {
        for second in [Kind::TEXT, Kind::BINARY, Kind::TEXT.first(), Kind::BINARY.first()] {
            let bytes = [masked(Kind::TEXT.first(), first), masked(second, "b")].concat();
            assert_eq!(refused(bytes), Violation::MessageInMessage, "behind {first:?}");
        }
    }
}

#[test]
fn a_text_may_be_cut_inside_a_character_but_may_not_end_there() {
    let euro = "€".as_bytes();
    let bytes = [
        masked(Kind::TEXT.first(), &euro[..1]),
        masked(Kind::CONTINUATION, &euro[1..2]),
        masked(Kind::LAST, &euro[2..]),
    ];
    assert_eq!(seen(bytes.concat()), [text("€")]);
    assert_eq!(refused(masked(Kind::TEXT, &euro[..2])), Violation::BadText);
    let bytes = [masked(Kind::TEXT.first(), &euro[..1]), masked(Kind::LAST, "")].concat();
    assert_eq!(refused(bytes), Violation::BadText);
    let bytes = [masked(Kind::TEXT.first(), &euro[..1]), masked(Kind::LAST, "€")].concat();
    assert_eq!(refused(bytes), Violation::BadText);
}

#[test]
fn a_wrong_text_is_refused_at_its_first_wrong_byte_inside_a_frame_too() {
    let long = [b"a".repeat(300), b"\xed\xa0".to_vec(), b"a".repeat(300)].concat();
    let frame = masked(Kind::TEXT, &long);
    let wrong = frame.len() - 300;
    let mut reader = Reader::new(Role::Server, false, Limits::default());
    let mut seen = Vec::new();
    feed(&mut reader, &frame[..wrong - 1], &mut seen);
    assert_eq!(seen, [], "a surrogate begins as other characters do");
    feed(&mut reader, &frame[wrong - 1..wrong], &mut seen);
    assert_eq!(seen, [Seen::Failed(Violation::BadText)]);
    assert_eq!(reader.gathered_bytes(), 0);
}

#[test]
fn binary_and_compressed_messages_need_not_be_text() {
    assert_eq!(seen(masked(Kind::BINARY, b"\xff\xfe")), [binary(b"\xff\xfe")]);
    let bytes = [masked(Kind::BINARY.first(), b"\xff"), masked(Kind::LAST, b"\xc3")].concat();
    assert_eq!(seen(&bytes), [binary(b"\xff\xc3")]);
}

#[test]
fn a_close_says_a_code_and_a_reason_and_is_the_last_event() {
    let bytes = [masked(Kind::CLOSE, b"\x03\xe8bye"), masked(Kind::TEXT, "a"), vec![0xff; 40]].concat();
    assert_eq!(seen(bytes), [Seen::Close(Some(1000), "bye".to_owned())]);
    assert_eq!(seen(masked(Kind::CLOSE, "")), [Seen::Close(None, String::new())]);
    let within_a_message =
        [masked(Kind::TEXT.first(), "a"), masked(Kind::CLOSE, b"\x0f\xa0"), masked(Kind::LAST, "b")];
    assert_eq!(seen(within_a_message.concat()), [Seen::Close(Some(4000), String::new())]);
}

#[test]
fn a_close_that_says_what_may_not_be_said_is_refused() {
    assert_eq!(refused(masked(Kind::CLOSE, b"\x03")), Violation::BadClosePayload);
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        assert_eq!(refused(masked(Kind::CLOSE, code.to_be_bytes())), Violation::BadCloseCode, "{code}");
    }
    for code in [1000_u16, 1001, 1002, 1003, 1007, 1010, 1011, 1014, 3000, 4999] {
        assert_eq!(seen(masked(Kind::CLOSE, code.to_be_bytes())), [Seen::Close(Some(code), String::new())]);
    }
    assert_eq!(refused(masked(Kind::CLOSE, b"\x03\xe8\xff")), Violation::BadCloseReason);
}

#[test]
fn behind_a_violation_nothing_is_read() {
    let bytes = [
        masked(Kind::TEXT, "a"),
        masked(Kind::TEXT, b"\xff"),
        masked(Kind::TEXT, "b"),
        masked(Kind::CLOSE, ""),
    ];
    assert_eq!(seen(bytes.concat()), [text("a"), Seen::Failed(Violation::BadText)]);
}

#[test]
fn a_message_above_the_limit_is_refused_by_its_header() {
    assert_eq!(within(&masked(Kind::BINARY, b"1234"), 4, 9), [binary(b"1234")]);
    assert_eq!(within(&masked(Kind::BINARY, b"12345"), 4, 9), [Seen::Failed(Violation::MessageTooLarge)]);
    let header = &masked(Kind::BINARY, [0; 200])[..8];
    assert_eq!(within(header, 199, 9), [Seen::Failed(Violation::MessageTooLarge)], "before its payload");
    let ping = [masked(Kind::PING, b"12345"), masked(Kind::TEXT, "1234")].concat();
    assert_eq!(within(&ping, 4, 9), [Seen::Ping(b"12345".to_vec()), text("1234")], "control frames are none");
}

#[test]
fn the_limit_is_that_of_all_fragments_together() {
    let two = |second: &str| [masked(Kind::BINARY.first(), "123"), masked(Kind::LAST, second)].concat();
    assert_eq!(within(&two("4"), 4, 9), [binary(b"1234")]);
    assert_eq!(within(&two("45"), 4, 9), [Seen::Failed(Violation::MessageTooLarge)]);
    assert_eq!(
        within(&[two("4"), two("4")].concat(), 4, 9),
        [binary(b"1234"), binary(b"1234")],
        "of each message"
    );
}

#[test]
fn fragments_are_counted_and_empty_ones_too() {
    for payload in ["", "a"] {
        let of = |fragments: usize| {
            let middle = masked(Kind::CONTINUATION, payload).repeat(fragments - 2);
            [masked(Kind::BINARY.first(), payload), middle, masked(Kind::LAST, payload)].concat()
        };
        let whole = binary(payload.repeat(5).as_bytes());
        assert_eq!(within(&of(5), 100, 5), std::slice::from_ref(&whole));
        assert_eq!(within(&of(6), 100, 5), [Seen::Failed(Violation::TooManyFragments)]);
        assert_eq!(within(&[of(5), of(5)].concat(), 100, 5), [whole.clone(), whole], "in each message");
    }
    assert_eq!(within(&masked(Kind::TEXT, "a"), 100, 0), [text("a")], "what is not fragmented has none");
}

#[test]
fn a_whole_message_is_lent_where_it_lies() {
    let mut chunk = [masked(Kind::TEXT, "Hello"), masked(Kind::BINARY, [7; 300])].concat();
    let range = chunk.as_ptr_range();
    let mut reader = Reader::new(Role::Server, false, Limits::default());
    let mut rest = chunk.as_mut_slice();
    for _ in 0..2 {
        let at = match reader.next(&mut rest) {
            Some(Event::Text(text)) => text.as_ptr(),
            Some(Event::Binary(bytes)) => bytes.as_ptr(),
            other => panic!("{other:?}"),
        };
        assert!(range.contains(&at));
    }
    assert_eq!(reader.gathered_bytes(), 0);
}

#[test]
fn who_stops_in_a_chunk_keeps_the_rest_as_it_is() {
    let (first, second) = (masked(Kind::TEXT, "a"), masked(Kind::TEXT, "b"));
    let mut chunk = [first, second.clone()].concat();
    let mut reader = Reader::new(Role::Server, false, Limits::default());
    let mut rest = chunk.as_mut_slice();
    assert_eq!(reader.next(&mut rest), Some(Event::Text("a")));
    assert_eq!(*rest, second);
    assert!(reader.is_between_messages());
}

#[test]
fn an_incomplete_message_takes_memory_for_what_has_come_of_it_only() {
    let frame = masked(Kind::BINARY, vec![7; 1 << 20]);
    let mut reader = Reader::new(Role::Server, false, Limits::default());
    let mut seen = Vec::new();
    feed(&mut reader, &frame[..14], &mut seen);
    assert_eq!(reader.gathered_bytes(), 0, "none for what was announced");
    let mut at = 14;
    for end in [15, 100, 5_000, 100_000, 1 << 20] {
        feed(&mut reader, &frame[at..end], &mut seen);
        at = end;
        let most = (2 * (end - 14)).clamp(512, 1 << 20);
        assert!(reader.gathered_bytes() <= most, "{} bytes for {end}", reader.gathered_bytes());
        assert!(!reader.is_between_messages());
    }
    feed(&mut reader, &frame[at..], &mut seen);
    assert_eq!(seen, [Seen::Binary(vec![7; 1 << 20])]);
    assert_eq!(reader.gathered_bytes(), 0, "and none when it is complete");
}

#[test]
fn a_fragment_costs_its_payload() {
    let mut reader = Reader::new(Role::Server, false, Limits::default());
    let mut seen = Vec::new();
    feed(&mut reader, &masked(Kind::BINARY.first(), "a"), &mut seen);
    for _ in 0..10_000 {
        feed(&mut reader, &masked(Kind::CONTINUATION, "b"), &mut seen);
    }
    assert!(reader.gathered_bytes() <= 2 * 10_001, "{}", reader.gathered_bytes());
    feed(&mut reader, &masked(Kind::CONTINUATION, "").repeat(6000), &mut seen);
    assert!(reader.gathered_bytes() <= 2 * 10_001, "nothing for empty ones");
    assert_eq!(seen, []);
}

#[test]
fn who_stops_behind_a_gathered_message_may_release_its_memory() {
    let mut reader = Reader::new(Role::Server, false, Limits::default());
    let mut frame = masked(Kind::BINARY, [7; 1000]);
    let (one, other) = frame.split_at_mut(500);
    let (mut one, mut other) = (one, other);
    assert_eq!(reader.next(&mut one), None);
    assert_eq!(reader.next(&mut other), Some(Event::Binary(&[7; 1000])));
    assert!(reader.gathered_bytes() >= 1000);
    reader.release();
    assert_eq!(reader.gathered_bytes(), 0);
}

#[test]
fn releasing_within_a_message_keeps_what_has_come_of_it() {
    let bytes =
        [masked(Kind::TEXT.first(), "a"), masked(Kind::PING, "ping"), masked(Kind::LAST, "b")].concat();
    let mut reader = Reader::new(Role::Server, false, Limits::default());
    let mut seen = Vec::new();
    for chunk in bytes.chunks(3) {
        feed(&mut reader, chunk, &mut seen);
        reader.release();
    }
    assert_eq!(seen, [Seen::Ping(b"ping".to_vec()), text("ab")]);
}
