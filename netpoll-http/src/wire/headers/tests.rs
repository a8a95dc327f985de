//! The index of a head, and the names that it knows.

use super::*;

fn indexed(head: &'static str) -> HeadIndex {
    let mut index = HeadIndex::new();
    index.clear();
    for line in head.lines() {
        let (name, value) = line.split_once(':').expect("name:value");
        let start = name.as_ptr().addr() - head.as_ptr().addr();
        let entry = Entry::new(start, name.len(), start + name.len() + 1, value.len());
        let slot = Known::of_line(line.as_bytes()).map_or(Slot::OTHER, |(slot, _)| slot);
        index.note(index.len(), slot, entry);
        index.set_count(index.len() + 1);
    }
    index
}

#[test]
fn a_header_is_found_in_any_case() {
    let head = "HOST:a\nX-Id:7\ncookie:c";
    let index = indexed(head);
    let head = head.as_bytes();
    assert_eq!(index.known(head, Known::Host), Some(&b"a"[..]));
    assert_eq!(index.get(head, "x-ID"), Some(&b"7"[..]));
    assert_eq!(index.get(head, "x-idd"), None);
    assert_eq!(index.known(head, Known::Expect), None);
    assert_eq!(index.iter(head).count(), 3);
}

#[test]
fn names_of_any_length_are_the_same_in_any_case_of_their_letters_and_of_nothing_else() {
    for length in 0..24 {
        let name: Vec<u8> = (0..length).map(|at| b"x-Any_name.w^th~s!gns"[at % 21]).collect();
        assert!(is_same_name(&name, &name));
        for at in 0..length {
            let (mut name, mut other) = (name.clone(), name.clone());
            for byte in 0..128 {
                name[at] = byte;
                for byte in 0..128 {
                    other[at] = byte;
                    let expected = name.eq_ignore_ascii_case(&other);
                    assert_eq!(is_same_name(&name, &other), expected, "{name:?} {other:?}");
                }
                other[at] = byte | 0x80;
                assert!(!is_same_name(&name, &other) && !is_same_name(&other, &name));
            }
        }
    }
}

#[test]
fn each_line_of_some_names_is_shown_in_the_order_of_the_lines() {
    let head = "b:1\nX-Request-Id:2\nx-request-ie:3\nB:4\nx-REQUEST-id:5\nc:6";
    let index = indexed(head);
    let mut seen = Vec::new();
    index.each_of(head.as_bytes(), ["x-request-id", "b", "d", "B"], |at, value| {
        seen.push((at, value[0]));
    });
    assert_eq!(seen, [(1, b'1'), (3, b'1'), (0, b'2'), (1, b'4'), (3, b'4'), (0, b'5')]);
}

#[test]
fn a_repeated_header_keeps_all_its_lines_in_order() {
    let head = "Connection:a\nX:1\nconnection:b\nconnectiom:c";
    let index = indexed(head);
    let lines: Vec<_> = index.known_lines(head.as_bytes(), Known::Connection).collect();
    assert!(index.is_repeated(Known::Connection));
    assert_eq!(lines, [b"a", b"b"]);
}

#[test]
fn a_used_index_forgets_the_previous_head() {
    let mut index = indexed("Host:a\nHost:b");
    index.clear();
    assert!(index.is_empty() && !index.has(Known::Host) && !index.is_repeated(Known::Host));
    assert_eq!(index.known_lines(b"", Known::Host).count(), 0);
}

#[test]
fn a_known_name_differs_from_all_others() {
    const NAMES: [(&str, Known); KNOWN] = [
        ("host", Known::Host),
        ("connection", Known::Connection),
        ("content-length", Known::ContentLength),
        ("transfer-encoding", Known::TransferEncoding),
        ("expect", Known::Expect),
        ("upgrade", Known::Upgrade),
        ("content-type", Known::ContentType),
        ("cookie", Known::Cookie),
    ];
    for (name, known) in NAMES {
        let line = format!("{name}:");
        for at in 0..line.len() {
            for byte in 0..=255 {
                let mut line = line.clone().into_bytes();
                let is_same = line[at].eq_ignore_ascii_case(&byte);
                line[at] = byte;
                let expected = is_same.then_some((known.slot(), name.len()));
                assert_eq!(Known::of_line(&line), expected, "{}", line.escape_ascii());
                assert_eq!(Known::of_line(&[&line, &b" 1\r\n\r\n"[..]].concat()), expected);
            }
            assert_eq!(Known::of_line(&line.as_bytes()[..at]), None);
        }
    }
}

#[test]
fn an_underscore_makes_another_name() {
    let index = indexed("Content_Length:1\nTransfer_Encoding:chunked");
    assert!(!index.has(Known::ContentLength) && !index.has(Known::TransferEncoding));
}
