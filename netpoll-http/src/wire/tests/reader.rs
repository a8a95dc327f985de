//! What is remembered makes no difference but to the time that it takes.

use proptest::prelude::*;

use super::properties::{broken_heads, heads};
use super::*;

const ALL_KNOWN: [Known; 8] = [
    Known::Host,
    Known::Connection,
    Known::ContentLength,
    Known::TransferEncoding,
    Known::Expect,
    Known::Upgrade,
    Known::ContentType,
    Known::Cookie,
];

/// All that a head says.
fn told(head: &Head<'_>) -> String {
    let known = ALL_KNOWN.map(|known| {
        let lines: Vec<_> = head.index().known_lines(head.bytes, known).map(<[u8]>::escape_ascii).collect();
        format!("{:?} {lines:?}", head.known(known))
    });
    format!(
        "{} {} {:?} {:?} {:?} {:?} {:?} {:?} {} {:?}",
        head.consumed(),
        head.method_name(),
        head.target(),
        head.path(),
        head.query(),
        head.authority(),
        (head.method, head.minor_version, head.keep_alive, head.expect_continue, head.upgrade, head.framing),
        head.headers().collect::<Vec<_>>(),
        head.index().len(),
        known,
    )
}

fn verdict_of(read: Result<Progress<'_>, Violation>) -> String {
    match read {
        Ok(Progress::Done(head)) => told(&head),
        other => format!("{other:?}"),
    }
}

/// What a reader that has read others says of bytes that arrive at once.
fn read_by(reader: &mut HeadReader, bytes: &[u8], limits: &Limits) -> String {
    let mut scan = Scan::default();
    match reader.parse_whole(bytes, &scan, limits) {
        Some(len) => told(&Head::new(&bytes[..len], reader.index())),
        None => verdict_of(
            reader.parse_slowly(bytes, &mut scan, limits).map_err(|refused| refused.error.violation()),
        ),
    }
}

/// What one says that has read nothing.
fn read_alone(bytes: &[u8], limits: &Limits) -> String {
    let mut index = HeadIndex::new();
    let read = parse(bytes, &mut Scan::default(), limits, &mut index);
    verdict_of(read.map_err(|error| error.violation()))
}

const BROWSER: &[u8] =
    b"Host: shop.example\r\nUser-Agent: Browser/1.0 (a; b)\r\nAccept: */*\r\nCookie: a=b; c=d\r\n\
    Content-Length: 12\r\nConnection: keep-alive, x\r\n\r\n";
const LINES: [&str; 10] = [
    "GET / HTTP/1.1\r\n",
    "GET /a/longer/path?and=a&query HTTP/1.1\r\n",
    "POST / HTTP/1.1\r\n",
    "HEAD /x HTTP/1.1\r\n",
    "M-SEARCH /x HTTP/1.1\r\n",
    "GET / HTTP/1.0\r\n",
    "GET / HTTP/1.9\r\n",
    "OPTIONS * HTTP/1.1\r\n",
    "GET http://other.example/ HTTP/1.1\r\n",
    "GET /\x7f HTTP/1.1\r\n",
];

/// A reader that remembers this section, of a head of this version.
fn reader_of(section: &[u8], version: u8) -> HeadReader {
    let mut reader = HeadReader::new();
    let head = [format!("GET /first HTTP/1.{version}\r\n").as_bytes(), section].concat();
    for _ in 0..3 {
        assert_eq!(read_by(&mut reader, &head, &Limits::default()), read_alone(&head, &Limits::default()));
    }
    reader
}

#[test]
fn the_same_section_is_read_the_same_behind_every_request_line() {
    let sections: [&[u8]; 8] = [
        BROWSER,
        b"Host: shop.example\r\n\r\n",
        b"\r\n",
        b"Content-Length: 12\r\nX: 1\r\n\r\n",
        b"Host: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"Host: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        b"Host: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"Host: a\r\nConnection: close\r\n\r\n",
    ];
    let limits = Limits::default();
    for section in sections {
        for version in [0, 1] {
            let mut reader = reader_of(section, version);
            for (line, behind) in LINES.iter().flat_map(|line| [(line, ""), (line, "GET / HTTP/1.1\r\n")]) {
                let head = [line.as_bytes(), section, behind.as_bytes()].concat();
                for _ in 0..3 {
                    let said = read_by(&mut reader, &head, &limits);
                    assert_eq!(said, read_alone(&head, &limits), "{}", head.escape_ascii());
                }
            }
        }
    }
}

#[test]
fn a_byte_that_differs_anywhere_or_is_missing_is_noticed() {
    let limits = Limits::default();
    let line = b"GET /second HTTP/1.1\r\n";
    for at in 0..BROWSER.len() {
        for byte in [BROWSER[at] ^ 0x20, BROWSER[at].wrapping_add(1), b'\r', b'\n', 0] {
            let mut reader = reader_of(BROWSER, 1);
            let mut section = BROWSER.to_vec();
            section[at] = byte;
            for section in [&section[..], &BROWSER[..at], &[&BROWSER[..at], &BROWSER[at + 1..]].concat()] {
                let head = [&line[..], section].concat();
                let said = read_by(&mut reader, &head, &limits);
                assert_eq!(said, read_alone(&head, &limits), "{}", head.escape_ascii());
            }
        }
    }
}

#[test]
fn limits_hold_for_what_is_remembered() {
    let mut reader = reader_of(BROWSER, 1);
    let head = [&b"GET /second HTTP/1.1\r\n"[..], BROWSER].concat();
    let wide = Limits::default();
    for limits in [
        Limits { head_bytes_max: head.len() - 1, ..wide },
        Limits { head_bytes_max: head.len(), ..wide },
        Limits { headers_max: 5, ..wide },
        Limits { headers_max: 6, ..wide },
        Limits { target_bytes_max: 6, ..wide },
        Limits { target_bytes_max: 7, ..wide },
    ] {
        // A refusal forgets, so it is remembered anew.
        for bytes in [&head, &head, &head] {
            assert_eq!(read_by(&mut reader, bytes, &limits), read_alone(bytes, &limits), "{limits:?}");
        }
        for _ in 0..3 {
            assert_eq!(read_by(&mut reader, &head, &wide), read_alone(&head, &wide));
        }
    }
}

#[test]
fn sections_of_every_length_are_read_the_same_again() {
    let limits = Limits { head_bytes_max: usize::MAX, ..Limits::default() };
    let mut reader = HeadReader::new();
    for len in (0..40).chain(1990..2060).chain([65_000, 65_510, 65_520]) {
        let section = format!("Host: a\r\nX: {}\r\n\r\n", "x".repeat(len));
        for line in ["GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\n", "GET /x HTTP/1.1\r\n", "GET / HTTP/1.1\r\n"]
        {
            let head = [line, &section].concat().into_bytes();
            assert_eq!(read_by(&mut reader, &head, &limits), read_alone(&head, &limits), "{len}");
        }
    }
}

proptest! {
    #[test]
    fn whatever_was_read_before_a_head_is_read_as_if_it_were_the_first(
        pool in prop::collection::vec(prop_oneof![4 => heads(), 1 => broken_heads()], 1..4),
        order in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(&LINES[..]), any::<bool>()), 1..24),
    ) {
        let mut reader = HeadReader::new();
        let limits = [Limits::default(), Limits { head_bytes_max: 96, headers_max: 4, target_bytes_max: 24 }];
        for (nth, line, is_tight) in order {
            let bytes = nth.get(&pool);
            let section = bytes.windows(2).position(|pair| pair == b"\r\n").map_or(&[][..], |at| &bytes[at + 2..]);
            let other = [line.as_bytes(), section].concat();
            let limits = &limits[usize::from(is_tight)];
            for bytes in [bytes, &other, &other] {
                prop_assert_eq!(read_by(&mut reader, bytes, limits), read_alone(bytes, limits), "{}", bytes.escape_ascii());
            }
        }
    }
}
