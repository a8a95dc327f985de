//! The name server, asked as a resolver would, and as nobody should.

use std::net::UdpSocket;

use crate::support::{PATIENCE, Program};

const A: u16 = 1;
const SOA: u16 = 6;
const MX: u16 = 15;
const TXT: u16 = 16;
const AAAA: u16 = 28;

fn start() -> (Program, UdpSocket) {
    let program = Program::start(env!("CARGO_BIN_EXE_dns"), &["127.0.0.1:0"]);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.connect(program.addr).unwrap();
    (program, client)
}

fn wire(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    let mut bytes: Vec<u8> =
        labels.flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
    bytes.push(0);
    bytes
}

fn question(name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    bytes.extend(wire(name));
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

/// The same with an OPT record that says how much we take.
fn with_edns(mut question: Vec<u8>, length: u16) -> Vec<u8> {
    question[11] = 1;
    question.extend([0, 0, 41]);
    question.extend(length.to_be_bytes());
    question.extend([0; 6]);
    question
}

/// The same with another OPT record, all of it.
fn with_opt(mut question: Vec<u8>, records: &[&[u8]]) -> Vec<u8> {
    question[11] = records.len() as u8;
    question.extend(records.concat());
    question
}

/// What an answer says: its code, whether it is cut, and its records: section, type, data.
#[derive(Debug, PartialEq)]
struct Said {
    code: u8,
    is_truncated: bool,
    records: Vec<(usize, u16, Vec<u8>)>,
}

fn read(question: &[u8], answer: &[u8]) -> Said {
    let word = |at: usize| u16::from_be_bytes([answer[at], answer[at + 1]]);
    assert_eq!(answer[..2], question[..2], "the same id");
    assert_eq!(answer[2] & 0x81, 0x81, "a response to one who desires recursion");
    assert_eq!(answer[3] & 0xf0, 0, "which is not to be had");
    let mut at = 12;
    if word(4) == 1 {
        let end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
        assert_eq!(answer[12..end], question[12..end], "the question is repeated");
        at = end;
    }
    let mut records = Vec::new();
    for (section, count) in [word(6), word(8), word(10)].into_iter().enumerate() {
        for _ in 0..count {
            if section == 2 {
                assert_eq!(answer[at..at + 3], [0, 0, 41]);
                at += 11;
                continue;
            }
            assert_eq!(answer[at] & 0xc0, 0xc0, "a pointer into the question");
            assert_eq!(word(at + 4), 1, "of the Internet");
            let len = usize::from(word(at + 10));
            records.push((section, word(at + 2), answer[at + 12..at + 12 + len].to_vec()));
            at += 12 + len;
        }
    }
    assert_eq!(at, answer.len(), "nothing is behind it");
    Said { code: answer[3] & 0xf, is_truncated: answer[2] & 2 != 0, records }
}

fn exchange(client: &UdpSocket, question: &[u8]) -> Vec<u8> {
    client.send(question).unwrap();
    let mut answer = [0; 4096];
    let len = client.recv(&mut answer).unwrap();
    answer[..len].to_vec()
}

fn ask(client: &UdpSocket, question: &[u8]) -> Said {
    read(question, &exchange(client, question))
}

#[test]
fn dns_answers_what_its_first_comment_says() {
    let (program, client) = start();
    let www = ask(&client, &question("www.example.test", A));
    assert_eq!(www, Said { code: 0, is_truncated: false, records: vec![(0, A, vec![192, 0, 2, 80])] });
    assert_eq!(ask(&client, &question("WwW.ExAmPlE.tEsT", A)), www, "as RFC 4343 says");
    for (kind, starts_with) in [
        (MX, &b"\x00\x0a\x04mail\x07example"[..]),
        (TXT, b"\x11served by netpoll"),
        (AAAA, b"\x20\x01\x0d\xb8"),
    ] {
        let said = ask(&client, &question("example.test", kind));
        assert_eq!((said.code, said.records.len(), said.records[0].1), (0, 1, kind));
        assert!(said.records[0].2.starts_with(starts_with), "{said:?}");
    }
    let (printed, status) = program.terminate();
    assert!(status.success() && printed.contains("5 requests"), "{printed}");
}

#[test]
fn dns_says_what_does_not_exist_and_what_is_not_its_own() {
    let (_program, client) = start();
    for name in ["nothing.example.test", "a.www.example.test", "xexample.example.test"] {
        let said = ask(&client, &question(name, A));
        assert_eq!((said.code, said.records.len()), (3, 1), "{name}");
        assert_eq!(said.records[0].1, SOA);
    }
    let said = ask(&client, &question("www.example.test", TXT));
    assert_eq!((said.code, said.records[0].0, said.records[0].1), (0, 1, SOA), "there, but no text");
    for name in ["example.org", "test", "", "xexample.test"] {
        assert_eq!(
            ask(&client, &question(name, A)),
            Said { code: 5, is_truncated: false, records: vec![] },
            "{name}"
        );
    }
}

#[test]
fn dns_sends_no_more_than_it_was_told_that_its_client_takes() {
    let (_program, client) = start();
    let plain = question("many.example.test", A);
    for (question, bytes_max, is_truncated) in [
        (plain.clone(), 512, true),
        (with_edns(plain.clone(), 100), 512, true),
        (with_edns(plain.clone(), 600), 600, true),
        (with_edns(plain.clone(), 1232), 1232, false),
        (with_edns(plain, 65_535), 1232, false),
    ] {
        let answer = exchange(&client, &question);
        let said = read(&question, &answer);
        assert!(answer.len() <= bytes_max && answer.len() > bytes_max / 2, "{}", answer.len());
        assert_eq!((said.is_truncated, said.records.len() == 40), (is_truncated, !is_truncated));
    }
}

#[test]
fn dns_has_an_opt_record_in_its_answer_if_there_is_one_in_the_question() {
    let (_program, client) = start();
    let many = question("many.example.test", A);
    let mut other_class = question("www.example.test", A);
    *other_class.last_mut().unwrap() = 3;
    let mut other_kind = question("www.example.test", A);
    other_kind[2] = 0x29;
    for (question, code) in [
        (question("www.example.test", A), 0),
        (question("nothing.example.test", A), 3),
        (question("example.org", A), 5),
        (many, 0),
        (other_class, 5),
        (other_kind, 4),
    ] {
        assert_eq!(exchange(&client, &question)[10..12], [0, 0], "{code}");
        let asked = with_edns(question.clone(), 600);
        let answer = exchange(&client, &asked);
        assert_eq!((read(&asked, &answer).code, &answer[10..12]), (code, &[0, 1][..]));
        // Root, type, our length, and nothing else.
        assert_eq!(answer[answer.len() - 11..], [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        assert_eq!(answer[4..6], [0, 1], "RFC 6891, section 7: header, question and OPT at least");
    }
}

#[test]
fn dns_says_that_it_does_not_know_another_version_of_edns() {
    let (_program, client) = start();
    let plain = question("www.example.test", A);
    for version in [1, 255] {
        // With an option that no version 0 could have.
        let asked = with_opt(plain.clone(), &[&[0, 0, 41, 4, 208, 0, version, 0, 0, 0, 1, 9]]);
        let answer = exchange(&client, &asked);
        let said = read(&asked, &answer);
        assert_eq!((said.code, said.records.len(), &answer[4..12]), (0, 0, &[0, 1, 0, 0, 0, 0, 0, 1][..]));
        assert_eq!(answer[answer.len() - 11..], [0, 0, 41, 4, 208, 1, 0, 0, 0, 0, 0], "BADVERS, version 0");
    }
}

#[test]
fn dns_repeats_of_the_flags_of_edns_that_dnssec_is_wanted_and_passes_over_options() {
    let (_program, client) = start();
    let plain = question("www.example.test", A);
    let option = [0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8];
    let opt = [&[0, 0, 41, 4, 208, 0, 0, 0xff, 0xff, 0, 12][..], &option].concat();
    let answer = exchange(&client, &with_opt(plain, &[&opt]));
    assert_eq!(answer[3] & 0xf, 0);
    assert_eq!(answer[answer.len() - 11..], [0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 0], "RFC 3225, section 3");
}

#[test]
fn dns_refuses_what_is_no_opt_record_or_more_than_one() {
    let (_program, client) = start();
    let plain = question("www.example.test", A);
    let opt: &[u8] = &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
    for (records, what) in [
        (&[opt, opt][..], "two"),
        (&[&[0, 0, 41, 4, 208, 0, 1, 0, 0, 0, 0], opt], "two, one of another version"),
        (&[&[1, b'x', 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]], "not of the root"),
        (&[&[0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4]], "another record"),
        (&[&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 1]], "shorter than it says"),
        (&[&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0, 9]], "longer than it says"),
        (&[&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 3, 0, 10, 0]], "half the head of an option"),
        (&[&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 5, 0, 10, 0, 2, 1]], "half an option"),
    ] {
        let answer = exchange(&client, &with_opt(plain.clone(), records));
        assert_eq!((answer[3] & 0xf, answer.len()), (1, 12), "{what}");
    }
}

#[test]
fn dns_refuses_what_is_no_plain_question() {
    let (_program, client) = start();
    let plain = question("www.example.test", A);
    let changed = |at: usize, byte: u8| {
        let mut bytes = plain.clone();
        bytes[at] = byte;
        bytes
    };
    let mut long = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    long.extend(wire(&["x".repeat(63), "x".repeat(63), "x".repeat(63), "x".repeat(63)].join(".")));
    long.extend([0, 1, 0, 1]);
    let faults = [
        (changed(2, 0x29), 4, "another kind of request"),
        (changed(5, 0), 1, "without a question"),
        (changed(5, 2), 1, "with two"),
        (changed(7, 1), 1, "with an answer in it"),
        (changed(9, 1), 1, "with an authority in it"),
        (changed(11, 2), 1, "with more than there is"),
        (changed(11, 1), 1, "with less than it says"),
        (changed(12, 0xc0), 1, "a pointer"),
        (changed(12, 64), 1, "a label that is too long"),
        (changed(12, 63), 1, "a label that goes beyond the end"),
        (changed(plain.len() - 1, 3), 5, "another class"),
        (plain[..plain.len() - 1].to_vec(), 1, "cut short"),
        (plain[..12].to_vec(), 1, "a header alone"),
        ([&plain[..], b"x"].concat(), 1, "something behind it"),
        (long, 1, "a name that is too long"),
    ];
    for (bytes, code, what) in faults {
        let answer = exchange(&client, &bytes);
        assert_eq!((&answer[..2], answer[3] & 0xf, answer.len()), (&b"\xab\xcd"[..], code, 12), "{what}");
    }
}

#[test]
fn dns_keeps_silent_about_what_is_no_question_and_survives_any_bytes() {
    let (_program, client) = start();
    let answer = exchange(&client, &question("www.example.test", A));
    let silence: [&[u8]; 4] = [b"", b"x", &answer[..11], &answer];
    for bytes in silence {
        client.send(bytes).unwrap();
    }
    let long = [question("www.example.test", A), vec![0; 2000]].concat();
    client.send(&long).unwrap();
    // The next answer is that to the next question.
    let mut bytes = question("mail.example.test", A);
    bytes[..2].copy_from_slice(b"no");
    assert_eq!(ask(&client, &bytes).records, [(0, A, vec![192, 0, 2, 25])]);

    // Every byte of a question in turn is anything else; all that do not look like an answer get one, and at most so much.
    let plain = with_edns(question("many.example.test", A), 4096);
    let (mut sent, mut seed) = (0, 1_u32);
    for at in 0..plain.len() {
        for _ in 0..8 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let mut bytes = plain.clone();
            bytes[at] = (seed >> 24) as u8;
            if bytes[2] & 0x80 != 0 {
                continue;
            }
            assert!(exchange(&client, &bytes).len() <= 1232);
            sent += 1;
        }
    }
    assert!(sent > 300);
}
