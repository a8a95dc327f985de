//! Answer heads and chunk framing.

use http::StatusCode;

use super::super::response::*;
use super::*;

/// With the date of the examples, Sun, 06 Nov 1994 08:49:37 GMT.
fn starts() -> HeadStarts {
    let mut starts = HeadStarts::new();
    starts.at(784_111_777);
    starts
}

fn written(status: u16, content_type: ContentType<'_>, connection: Connection, length: Length) -> String {
    let status = StatusCode::from_u16(status).unwrap();
    let mut out = Vec::new();
    let slot = head(&mut out, &ResponseHead { status, content_type, starts: &starts(), connection, length });
    assert_eq!(slot.is_some(), length == Length::Deferred && may_have_body(status));
    String::from_utf8(out).unwrap()
}

#[test]
fn the_usual_answer_has_server_type_date_and_length() {
    assert_eq!(
        written(200, ContentType::Plain, Connection::Unsaid, Length::Known(13)),
        "HTTP/1.1 200 OK\r\nServer: netpoll\r\nContent-Type: text/plain\r\n\
         Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 13\r\n\r\n"
    );
}

#[test]
fn a_head_says_the_same_whether_it_is_a_constant_or_put_together() {
    let types = [
        (ContentType::Plain, "text/plain"),
        (ContentType::Text, "text/plain; charset=utf-8"),
        (ContentType::Html, "text/html; charset=utf-8"),
        (ContentType::Json, "application/json"),
        (ContentType::Bytes, "application/octet-stream"),
        (ContentType::None, ""),
    ];
    for (named, text) in types {
        for status in [200, 201, 404] {
            let of = |content_type| written(status, content_type, Connection::Unsaid, Length::Known(0));
            assert_eq!(of(named), of(ContentType::Other(text)));
        }
    }
}

#[test]
fn every_status_has_its_line() {
    for code in 100..=999 {
        let status = StatusCode::from_u16(code).unwrap();
        let head = written(code, ContentType::None, Connection::Unsaid, Length::Unsaid);
        let line = head.lines().next().unwrap();
        // The crate `http` spells these in its own way; ours is the registry's.
        let reason = match code {
            203 => "Non-Authoritative Information",
            413 => "Content Too Large",
            422 => "Unprocessable Content",
            _ => status.canonical_reason().unwrap_or(""),
        };
        assert_eq!(line, format!("HTTP/1.1 {code} {reason}"));
        let end = if code == 205 { "\r\nContent-Length: 0\r\n\r\n" } else { "GMT\r\n\r\n" };
        assert!(head.contains("\r\nServer: netpoll\r\n") && head.ends_with(end));
    }
}

#[test]
fn every_answer_has_one_date() {
    for status in [101, 200, 204, 304, 404, 500] {
        let head = written(status, ContentType::Json, Connection::Close, Length::Known(2));
        assert_eq!(head.matches("\r\nDate: ").count(), 1);
    }
}

#[test]
fn statuses_without_a_body_get_no_length_and_no_encoding() {
    for status in [100, 101, 103, 199, 204, 304] {
        for length in [Length::Known(5), Length::Chunked, Length::Deferred, Length::Unsaid] {
            let head = written(status, ContentType::None, Connection::Unsaid, length);
            assert!(!head.contains("Content-Length") && !head.contains("Transfer-Encoding"), "{head}");
        }
    }
}

#[test]
fn the_connection_is_mentioned_when_asked() {
    let of = |connection| written(200, ContentType::None, connection, Length::Known(0));
    assert!(!of(Connection::Unsaid).contains("Connection"));
    assert!(of(Connection::Close).contains("\r\nConnection: close\r\n"));
    assert!(
        of(Connection::KeepAlive(75)).contains("\r\nConnection: keep-alive\r\nKeep-Alive: timeout=75\r\n")
    );
    assert!(of(Connection::KeepAlive(0)).contains("\r\nConnection: keep-alive\r\nContent"));
    assert!(of(Connection::Upgrade).contains("\r\nConnection: upgrade\r\n"));
    assert!(of(Connection::Unsaid.with_upgrade()).contains("\r\nConnection: upgrade\r\n"));
    assert!(of(Connection::Close.with_upgrade()).contains("\r\nConnection: close, upgrade\r\n"));
    assert!(of(Connection::KeepAlive(7).with_upgrade()).contains("\r\nConnection: keep-alive, upgrade\r\n"));
}

#[test]
fn reset_content_has_a_length_of_zero_and_nothing_else() {
    for length in [Length::Known(5), Length::Chunked, Length::Unsaid, Length::Deferred] {
        let head = written(205, ContentType::None, Connection::Unsaid, length);
        assert!(head.contains("\r\nContent-Length: 0\r\n") && !head.contains("Transfer-Encoding"), "{head}");
    }
}

#[test]
fn a_second_line_would_contradict_some_headers_and_complete_others() {
    for single in ["content-type", "location", "etag", "retry-after", "x-frame-options"] {
        assert!(is_single(single), "{single}");
    }
    for list in ["set-cookie", "vary", "cache-control", "link", "www-authenticate", "x-anything", ""] {
        assert!(!is_single(list), "{list}");
    }
}

#[test]
fn a_deferred_length_is_filled_in_behind_spaces() {
    for (length, field) in
        [(0, "         0"), (7, "         7"), (12345, "     12345"), (9_999_999_999, "9999999999")]
    {
        let mut out = b"earlier answer".to_vec();
        let deferred = ResponseHead {
            status: StatusCode::OK,
            content_type: ContentType::Json,
            starts: &starts(),
            connection: Connection::Unsaid,
            length: Length::Deferred,
        };
        let slot = head(&mut out, &deferred).expect("a slot");
        out.extend_from_slice(b"body");
        patch_length(&mut out, slot, length);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains(&format!("\r\nContent-Length: {field}\r\n\r\nbody")), "{text}");
    }
}

#[test]
fn a_usual_head_is_the_head_by_another_way() {
    use ContentType::{Bytes, Html, Json, None as NoType, Other, Plain, Text};
    let starts = starts();
    for content_type in [NoType, Plain, Text, Html, Json, Bytes, Other("a/b")] {
        for length in
            (0..10_050).map(Length::Known).chain([Length::Deferred, Length::Chunked, Length::Unsaid])
        {
            for status in [StatusCode::OK, StatusCode::CREATED, StatusCode::NO_CONTENT] {
                let (mut long, mut short) = (b"earlier".to_vec(), b"earlier".to_vec());
                let slot = head(
                    &mut long,
                    &ResponseHead {
                        status,
                        content_type,
                        starts: &starts,
                        connection: Connection::Unsaid,
                        length,
                    },
                );
                match usual_head(&mut short, &starts, status, content_type, length) {
                    Some(usual) => assert_eq!((usual, &short), (slot, &long)),
                    None => assert_eq!(short, b"earlier"),
                }
                let is_usual = status == StatusCode::OK
                    && content_type != Other("a/b")
                    && matches!(length, Length::Known(..10_000) | Length::Deferred);
                assert_eq!(short.len() > 7, is_usual, "{status} {content_type:?} {length:?}");
            }
        }
    }
}

#[test]
fn every_length_is_written_in_decimal() {
    let lengths = (0..12_000).chain([99_999, 100_000, 4_294_967_295, 4_294_967_296, u64::MAX]);
    for length in lengths {
        let answer = written(200, ContentType::None, Connection::Unsaid, Length::Known(length));
        assert!(answer.ends_with(&format!("\r\nContent-Length: {length}\r\n\r\n")), "{length}: {answer}");
    }
}

#[test]
#[should_panic(expected = "the slot of a deferred length")]
fn a_length_of_another_buffer_is_not_patched() {
    let mut out = Vec::new();
    let slot = open_head(
        &mut out,
        &ResponseHead {
            status: StatusCode::OK,
            content_type: ContentType::None,
            starts: &starts(),
            connection: Connection::Unsaid,
            length: Length::Deferred,
        },
    )
    .expect("a slot");
    out.rotate_left(1);
    patch_length(&mut out, slot, 1);
}

#[test]
fn free_headers_go_between_the_head_and_its_empty_line() {
    let mut out = Vec::new();
    let open = ResponseHead {
        status: StatusCode::OK,
        content_type: ContentType::None,
        starts: &starts(),
        connection: Connection::Unsaid,
        length: Length::Unsaid,
    };
    assert!(open_head(&mut out, &open).is_none());
    header(&mut out, "X-Id", b"a\tb \xff").unwrap();
    close_head(&mut out);
    assert!(out.ends_with(b" GMT\r\nX-Id: a\tb \xff\r\n\r\n"));
}

#[test]
fn a_header_that_would_split_the_answer_is_refused_whole() {
    for (name, value) in [
        ("X", &b"a\r\nSet-Cookie: b"[..]),
        ("X", b"a\nb"),
        ("X", b"a\rb"),
        ("X", b"a\0b"),
        ("X", b"a\x7f"),
        ("X\r\nY", b"a"),
        ("X:", b"a"),
        ("", b"a"),
        ("X Y", b"a"),
        ("\u{e4}", b"a"),
    ] {
        let mut out = b"before".to_vec();
        assert_eq!(header(&mut out, name, value), Err(InvalidHeader), "{name:?}");
        assert_eq!(out, b"before");
    }
    let split = ContentType::Other("text/plain\r\nX: y");
    assert!(!written(200, split, Connection::Unsaid, Length::Known(0)).contains("text/plain"));
}

#[test]
fn headers_that_the_encoder_writes_are_reserved() {
    assert!(is_reserved("content-LENGTH") && is_reserved("Transfer-Encoding") && !is_reserved("X"));
}

#[test]
fn chunks_are_what_the_decoder_reads() {
    for len in [1, 9, 15, 16, 255, 256, 4096, 70_000] {
        let data = vec![b'x'; len];
        let mut out = Vec::new();
        chunk(&mut out, &data);
        chunk(&mut out, b"");
        chunk_with(&mut out, |out| out.extend_from_slice(&data));
        chunk_with(&mut out, |_| {});
        last_chunk(&mut out);
        assert!(out.starts_with(format!("{len:x}\r\n").as_bytes()));

        let mut decoded = Vec::new();
        let done = Decoder::new().decode(&out, &mut decoded, 1 << 20).unwrap();
        assert_eq!(done, Decoded { consumed: out.len(), done: true });
        assert_eq!(decoded, [&data[..], &data[..]].concat());
    }
}
