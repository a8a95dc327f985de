//! Texts are UTF-8, and one that is not fails at its first wrong byte.

use super::{Case, Expect, fragmented, served};
use crate::wire::{self, BINARY, CONTINUATION, Message, Out, TEXT};

const SECTION: &str = "text";
const NOT_TEXT: &[u8] = b"";
const BAD_TEXT: &[u16] = &[1007];

/// Texts that have characters of every length, and those at the edges.
const GOOD: &[(&str, &[u8])] = &[
    ("two, three and four bytes", "κόσμε 世界 𝄞 🎉".as_bytes()),
    ("U+0000", b"\0"),
    ("U+007F", b"\x7f"),
    ("U+0080", b"\xc2\x80"),
    ("U+07FF", b"\xdf\xbf"),
    ("U+0800", b"\xe0\xa0\x80"),
    ("U+D7FF", b"\xed\x9f\xbf"),
    ("U+E000", b"\xee\x80\x80"),
    ("U+FEFF", b"\xef\xbb\xbf"),
    ("U+FFFD", b"\xef\xbf\xbd"),
    ("U+FFFE", b"\xef\xbf\xbe"),
    ("U+FFFF", b"\xef\xbf\xbf"),
    ("U+10000", b"\xf0\x90\x80\x80"),
    ("U+10FFFF", b"\xf4\x8f\xbf\xbf"),
];

/// What is none, and the place of the first byte that shows it.
const BAD: &[(&str, &[u8], usize)] = &[
    ("a byte that continues nothing", b"\x80", 0),
    ("the last of those", b"\xbf", 0),
    ("C0, which is too long for what it says", b"\xc0\xaf", 0),
    ("C1, the same", b"\xc1\xbf", 0),
    ("E0 80, the same", b"\xe0\x80\xaf", 1),
    ("E0 9F, the same", b"\xe0\x9f\xbf", 1),
    ("F0 80, the same", b"\xf0\x80\x80\xaf", 1),
    ("F0 8F, the same", b"\xf0\x8f\xbf\xbf", 1),
    ("U+D800, a half of a pair", b"\xed\xa0\x80", 1),
    ("U+DFFF, the same", b"\xed\xbf\xbf", 1),
    ("a pair of halves", b"\xed\xa0\x80\xed\xb0\x80", 1),
    ("U+110000, which is none", b"\xf4\x90\x80\x80", 1),
    ("F5", b"\xf5\x80\x80\x80", 0),
    ("F8, five bytes", b"\xf8\x88\x80\x80\x80", 0),
    ("FC, six bytes", b"\xfc\x84\x80\x80\x80\x80", 0),
    ("FE", b"\xfe", 0),
    ("FF", b"\xff", 0),
    ("two bytes of which the second is none", b"\xc2\x41", 1),
    ("three of which the second is none", b"\xe4\x41\xbd", 1),
    ("three of which the third is none", b"\xe4\xbd\x41", 2),
    ("four of which the fourth is none", b"\xf0\x9f\x8e\x41", 3),
    ("a new character inside of another", b"\xe4\xbd\xc3\xa4", 2),
];

/// Characters that never end.
const CUT: &[(&str, &[u8])] = &[
    ("one of two bytes", b"\xc3"),
    ("one of three", b"\xe4"),
    ("two of three", b"\xe4\xbd"),
    ("one of four", b"\xf0"),
    ("two of four", b"\xf0\x9f"),
    ("three of four", b"\xf0\x9f\x8e"),
];

pub fn cases() -> Vec<Case> {
    [good(), bad(), cut(), fast()].concat()
}

fn case(name: String, expect: Expect) -> Case {
    Case::new(SECTION, "6455 8.1", name, expect)
}

fn good() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, text) in GOOD {
        let whole = served(vec![Message::text(text)]);
        cases.push(case((*name).to_string(), whole.clone()).piece(wire::frame(TEXT, text)).dripped());
        for cut in 1..text.len() {
            let (left, right) = text.split_at(cut);
            let fragments = fragmented(TEXT, &[left, right]);
            cases.push(case(format!("{name}, in fragments behind {cut}"), whole.clone()).piece(fragments));
        }
    }
    let text = "世界".repeat(400).into_bytes();
    for cut in [1, 2, 3, 511, 512, 513, 1199, 1200, 1201] {
        let fragments = fragmented(TEXT, &[&text[..cut], &text[cut..]]);
        cases.push(
            case(format!("a long one in fragments behind {cut}"), served(vec![Message::text(&text)]))
                .piece(fragments),
        );
    }
    for (name, bytes, _) in BAD {
        let expect = served(vec![Message::binary(bytes)]);
        cases.push(case(format!("{name}, in bytes"), expect).piece(wire::frame(BINARY, bytes)));
    }
    cases
}

fn bad() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, bytes, at) in BAD {
        let whole = case((*name).to_string(), Expect::Failed(BAD_TEXT)).piece(wire::frame(TEXT, bytes));
        cases.push(whole.clone().dripped());
        cases.push(whole);
        let long = [&[b'x'; 1000][..], bytes, &[b'y'; 1000]].concat();
        cases.push(
            case(format!("{name}, in the middle of a long one"), Expect::Failed(BAD_TEXT))
                .piece(wire::frame(TEXT, &long)),
        );
        if *at > 0 {
            let fragments = fragmented(TEXT, &[&bytes[..*at], &bytes[*at..]]);
            cases.push(case(format!("{name}, in fragments"), Expect::Failed(BAD_TEXT)).piece(fragments));
        }
        let last = fragmented(TEXT, &[b"good", bytes]);
        cases.push(case(format!("{name}, in the last fragment"), Expect::Failed(BAD_TEXT)).piece(last));
    }
    cases
}

fn cut() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, bytes) in CUT {
        cases.push(
            case(format!("{name} at the end"), Expect::Failed(BAD_TEXT)).piece(wire::frame(TEXT, bytes)),
        );
        let fragments = fragmented(TEXT, &[bytes, NOT_TEXT]);
        cases.push(
            case(format!("{name} in front of an empty last fragment"), Expect::Failed(BAD_TEXT))
                .piece(fragments),
        );
        let behind = [&[b'x'; 300][..], bytes].concat();
        cases.push(
            case(format!("{name} at the end of a long one"), Expect::Failed(BAD_TEXT))
                .piece(wire::frame(TEXT, &behind)),
        );
    }
    cases
}

/// Nothing that follows can make it good, so it is not waited for.
fn fast() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, bytes, at) in BAD {
        let fragment = Out::new(TEXT, &bytes[..=*at]).more().bytes();
        cases.push(
            case(format!("{name}, in a fragment that is not the last"), Expect::FailsFast(BAD_TEXT))
                .piece(fragment),
        );
        // A frame whose end does not come.
        let whole = [bytes, &[b'z'; 100][..]].concat();
        let mut frame = wire::frame(TEXT, &whole);
        frame.truncate(6 + at + 1);
        cases.push(
            case(format!("{name}, in a frame that is not there as a whole"), Expect::FailsFast(BAD_TEXT))
                .piece(frame),
        );
    }
    let pieces = [Out::new(TEXT, b"\xe4").more().bytes(), Out::new(CONTINUATION, b"A").more().bytes()];
    cases.push(
        case("a character that the next fragment breaks".to_owned(), Expect::FailsFast(BAD_TEXT))
            .pieces(pieces.to_vec()),
    );
    cases
}
