//! What holds for all bytes, tried on generated ones.

use proptest::prelude::*;

use super::super::headers::HEADERS_MAX;
use super::super::target::{decode_form, decode_segment};
use super::*;

/// Heads made of pieces that are each fine or broken in a way that matters.
pub(super) fn heads() -> impl Strategy<Value = Vec<u8>> {
    let line = prop::sample::select(vec![
        "Host: a",
        "Host: b",
        "Content-Length: 5",
        "Content-Length: +5",
        "Transfer-Encoding: chunked",
        "Expect: x",
        "Connection: close",
        "X: \u{e4}",
        "X : a",
        " fold",
        "NoColon",
        "A:",
        "Expect: 100-continue",
        "X: a\0",
        "Upgrade: h2c",
        "Transfer-Encoding: gzip, chunked",
        "Long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ]);
    let end = || {
        prop::sample::select(vec![
            "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r", "\r\r\n",
        ])
    };
    let start = prop::sample::select(vec![
        "GET / HTTP/1.1",
        "POST /a?b HTTP/1.1",
        "GET / HTTP/1.0",
        "GET  / HTTP/1.1",
        "GET / HTTP/2.0",
        "PRI * HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET http://x/ HTTP/1.1",
        "\r\nGET / HTTP/1.1",
        "CONNECT a:1 HTTP/1.1",
        "GET /",
    ]);
    (start, end(), prop::collection::vec((line, end()), 0..6), end(), "[a-z\r\n]{0,8}").prop_map(
        |(start, end, lines, last, rest)| {
            let mut bytes = [start, end].concat();
            for (line, end) in lines {
                bytes += line;
                bytes += end;
            }
            (bytes + last + &rest).into_bytes()
        },
    )
}

/// Those heads with one byte changed.
pub(super) fn broken_heads() -> impl Strategy<Value = Vec<u8>> {
    (heads(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut bytes, at, byte)| {
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes
    })
}

/// White space behind a name gets one of two sentences: which depends on what is seen behind it.
fn same(split: &Result<Option<usize>, Violation>, whole: &Result<Option<usize>, Violation>) -> bool {
    let blank = [Violation::SpaceBeforeColon, Violation::BadHeaderName];
    match (split, whole) {
        (Err(split), Err(whole)) => split == whole || (blank.contains(split) && blank.contains(whole)),
        (split, whole) => split == whole,
    }
}

/// Holds a verdict against `partial`, which reads byte by byte, and against httparse.
fn check_against_others(bytes: &[u8]) {
    let limits = Limits::default();
    let whole = parsed(bytes, &limits);
    // What `partial` says of the bytes behind the empty lines; only the rules of a whole head come on top.
    let skipped = bytes.chunks(2).take_while(|pair| pair == b"\r\n").count() * 2;
    let window = &bytes[skipped..];
    if skipped <= 8
        && !matches!(window, [] | [b'\r' | b'\n' | 0x16, ..])
        && window.len() < limits.head_bytes_max
    {
        let mut scan = Scan::default();
        match (partial::examine(window, &mut scan, &limits), &whole) {
            (Ok(true), Ok(Some(head))) => assert_eq!(usize::from(scan.scanned), head.bytes.len()),
            (Ok(true), Err(_)) | (Ok(false), Ok(None)) => {}
            (Err(violation), Err(other)) => assert_eq!(violation, *other),
            (examined, whole) => panic!("{examined:?} {whole:?} {}", bytes.escape_ascii()),
        }
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match (request.parse(bytes), &whole) {
        (Ok(httparse::Status::Complete(len)), Ok(Some(head))) => {
            assert_eq!(len, head.consumed());
            assert_eq!((request.method, request.path), (Some(head.method_name()), Some(head.target())));
            assert_eq!(request.version, Some(head.minor_version));
            let headers = request.headers.iter().map(|header| (header.name, header.value));
            assert!(headers.eq(head.headers()), "{}", bytes.escape_ascii());
        }
        (Ok(httparse::Status::Partial), Ok(None)) | (_, Err(_)) => {}
        // It refuses a version before we know which of two errors that is.
        (Err(httparse::Error::Version), Ok(None)) if !window.contains(&b'\n') => {}
        // It knows 1.0 and 1.1 only.
        (Err(httparse::Error::Version), Ok(_)) if is_later_minor_version(window) => {}
        (other, whole) => panic!("{other:?} {whole:?} {}", bytes.escape_ascii()),
    }
}

fn is_later_minor_version(window: &[u8]) -> bool {
    let at = window.windows(8).position(|text| text == b" HTTP/1.").map(|at| at + 8);
    at.and_then(|at| window.get(at)).is_some_and(|digit| (b'2'..=b'9').contains(digit))
}

#[test]
fn whatever_byte_is_changed_we_take_no_more_than_httparse_and_read_the_same() {
    let heads: [&[u8]; 4] = [
        b"GET /a?b HTTP/1.1\r\nHost: example.org:80\r\nX_y: \t a \xff b\t\r\nEmpty:\r\nA-long-name: 0123456789abcdef\r\n\r\nGET",
        b"\r\nOPTIONS * HTTP/1.0\r\nConnection: keep-alive, x\r\nContent-Length: 15\r\n\r\n",
        b"POST http://a/ HTTP/1.1\r\nHost:a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
        b"M-SEARCH / HTTP/1.1\r\nHost: [::1]\r\nConnection:Upgrade\r\nUpgrade:h2c\r\nCookie: a=b\r\n\r\n",
    ];
    for head in heads {
        for len in 1..=head.len() {
            check_against_others(&head[..len]);
        }
        for at in 0..head.len() {
            for byte in 0..=255 {
                let mut bytes = head.to_vec();
                bytes[at] = byte;
                check_against_others(&bytes);
                bytes[at] = head[at];
                bytes.insert(at, byte);
                check_against_others(&bytes);
            }
            let mut bytes = head.to_vec();
            bytes.remove(at);
            check_against_others(&bytes);
        }
    }
}

proptest! {
    #[test]
    fn we_take_no_more_than_httparse_and_read_the_same(
        head in prop_oneof![heads(), broken_heads()], rest in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        check_against_others(&head);
        check_against_others(&[head, rest].concat());
    }

    #[test]
    fn a_head_cut_anywhere_gives_the_same_verdict(bytes in prop_oneof![heads(), broken_heads()], step in 1_usize..40) {
        let limits = Limits::default();
        let whole = parsed(&bytes, &limits).map(|head| head.map(|head| head.consumed()));
        let split = trickled(&bytes, step, &limits);
        prop_assert!(same(&split, &whole), "{split:?} {whole:?} {}", bytes.escape_ascii());
        for cut in 1..bytes.len() {
            let (mut scan, mut index) = (Scan::default(), HeadIndex::new());
            let skip = match parse(&bytes[..cut], &mut scan, &limits, &mut index) {
                Ok(Progress::Partial { skip }) => skip,
                Ok(Progress::Done(head)) => {
                    prop_assert_eq!(&Ok(Some(head.consumed())), &whole);
                    continue;
                }
                Err(error) => {
                    prop_assert!(same(&Err(error.violation()), &whole), "{error:?} {whole:?}");
                    continue;
                }
            };
            let rest = match parse(&bytes[skip..], &mut scan, &limits, &mut index) {
                Ok(Progress::Partial { .. }) => Ok(None),
                Ok(Progress::Done(head)) => Ok(Some(skip + head.consumed())),
                Err(error) => Err(error.violation()),
            };
            prop_assert!(same(&rest, &whole), "cut {cut}: {rest:?} {whole:?} {}", bytes.escape_ascii());
        }
    }

    #[test]
    fn an_accepted_head_has_one_reading(bytes in heads()) {
        let Ok(Some(head)) = parsed(&bytes, &Limits::default()) else { return Ok(()) };
        let text = head.bytes;
        prop_assert!(text.ends_with(b"\r\n\r\n"));
        let lines = text.iter().filter(|&&byte| byte == b'\n').count();
        prop_assert_eq!(lines, head.headers().count() + 2);
        prop_assert_eq!(text.iter().filter(|&&byte| byte == b'\r').count(), lines);
        prop_assert!(!text.contains(&0));
        let lengths = head.headers().filter(|(name, _)| name.eq_ignore_ascii_case("content-length")).count();
        let codings = head.headers().filter(|(name, _)| name.eq_ignore_ascii_case("transfer-encoding")).count();
        let expected = match head.framing {
            Framing::None => (0, 0),
            Framing::Length(_) => (1, 0),
            Framing::Chunked => (0, 1),
        };
        prop_assert_eq!((lengths, codings), expected);
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_never_depend_on_the_cut(
        bytes in prop::collection::vec(any::<u8>(), 0..200), step in 1_usize..20,
    ) {
        let limits = Limits::default();
        let whole = parsed(&bytes, &limits).map(|head| head.map(|head| head.consumed()));
        prop_assert!(same(&trickled(&bytes, step, &limits), &whole));
    }

    #[test]
    fn chunked_data_survives_any_chunking_and_any_cut(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8),
        step in 1_usize..30,
        rest in prop::collection::vec(any::<u8>(), 0..10),
    ) {
        let mut body = Vec::new();
        for data in &chunks {
            response::chunk(&mut body, data);
        }
        response::last_chunk(&mut body);
        let end = body.len();
        body.extend_from_slice(&rest);
        let (mut decoder, mut out, mut consumed) = (Decoder::new(), Vec::new(), 0);
        for read in body.chunks(step) {
            let decoded = decoder.decode(read, &mut out, 1 << 20).unwrap();
            consumed += decoded.consumed;
            if decoded.done {
                break;
            }
        }
        prop_assert!(decoder.is_done());
        prop_assert_eq!(consumed, end);
        prop_assert_eq!(decoder.data_bytes(), out.len() as u64);
        prop_assert_eq!(out, chunks.concat());
    }

    #[test]
    fn what_is_percent_encoded_decodes_to_itself(text in "\\PC{0,20}") {
        let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        prop_assert_eq!(decode_segment(&encoded).unwrap(), text.clone());
        prop_assert_eq!(decode_form(&encoded).unwrap(), text);
    }
}
