//! Messages in several frames.

use super::{Case, Expect, fragmented, served};
use crate::wire::{self, BINARY, CONTINUATION, Message, Out, PING, PONG, TEXT};

const SECTION: &str = "fragments";
const PROTOCOL_ERROR: &[u16] = &[1002];

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let shapes: &[(&str, &[&[u8]])] = &[
        ("two", &[b"hello, ", b"world"]),
        ("three", &[b"a", b"b", b"c"]),
        ("an empty one first", &[b"", b"hello"]),
        ("an empty one last", &[b"hello", b""]),
        ("an empty one between", &[b"he", b"", b"llo"]),
        ("empty ones only", &[b"", b"", b""]),
        ("long ones", &[&[b'x'; 200], &[b'y'; 70_000], &[b'z'; 3]]),
    ];
    for (name, payloads) in shapes {
        let whole = payloads.concat();
        for (opcode, kind, message) in
            [(TEXT, "text", Message::text(&whole)), (BINARY, "binary", Message::binary(&whole))]
        {
            let bytes = fragmented(opcode, payloads);
            let case =
                Case::new(SECTION, "6455 5.4", format!("{kind}: {name}"), served(vec![message])).piece(bytes);
            if whole.len() < 200 {
                cases.push(case.clone().dripped());
            }
            cases.push(case);
        }
    }
    for count in [10, 1000, 10_000] {
        let payloads = vec![&b"x"[..]; count];
        let expect = served(vec![Message::text(vec![b'x'; count])]);
        let case = Case::new(SECTION, "6455 5.4", format!("{count} of one byte"), expect);
        let case = case.piece(fragmented(TEXT, &payloads));
        // Whoever counts them may refuse many.
        cases.push(if count > 1000 { case.should() } else { case });
    }
    cases.extend(interleaved());
    cases.extend(broken());
    cases
}

fn interleaved() -> Vec<Case> {
    let first = Out::new(TEXT, b"hel").more().bytes();
    let last = wire::frame(CONTINUATION, b"lo");
    let ping = wire::frame(PING, b"now");
    let pong = wire::frame(PONG, b"now");
    let expect =
        |pongs: Vec<Vec<u8>>| Expect::Served { messages: vec![Message::text("hello")], pongs: Some(pongs) };
    let case = |name: &str, pongs, pieces: &[&Vec<u8>]| {
        let pieces = pieces.iter().map(|piece| (*piece).clone()).collect();
        Case::new(SECTION, "6455 5.4", name, expect(pongs)).pieces(pieces)
    };
    let answered = || vec![b"now".to_vec()];
    let mut cases = vec![
        case("a ping between", answered(), &[&first, &ping, &last]),
        case("a pong between", vec![], &[&first, &pong, &last]),
        case("a ping in front", answered(), &[&ping, &first, &last]),
        case("a ping behind", answered(), &[&first, &last, &ping]),
        case("three pings between", vec![b"now".to_vec(); 3], &[&first, &ping, &ping, &ping, &last]),
    ];
    let dripped: Vec<Case> = cases.iter().cloned().map(Case::dripped).collect();
    cases.extend(dripped);
    let wait = Expect::Served { messages: vec![], pongs: Some(answered()) };
    cases.push(
        Case::new(SECTION, "6455 5.5.2", "a ping is answered before the message is whole", wait)
            .piece(first)
            .piece(ping),
    );
    cases
}

fn broken() -> Vec<Case> {
    let fails = |name: &str, pieces: Vec<Vec<u8>>| {
        Case::new(SECTION, "6455 5.4", name, Expect::Failed(PROTOCOL_ERROR)).pieces(pieces)
    };
    let first = |opcode| Out::new(opcode, b"hel").more().bytes();
    let mut cases = vec![
        fails("a continuation of nothing", vec![wire::frame(CONTINUATION, b"lo")]),
        fails("an empty continuation of nothing", vec![wire::frame(CONTINUATION, b"")]),
        fails("a continuation of nothing that goes on", vec![Out::new(CONTINUATION, b"lo").more().bytes()]),
        fails(
            "a continuation behind a whole message",
            vec![wire::frame(TEXT, b"good"), wire::frame(CONTINUATION, b"lo")],
        )
        .behind(1),
        fails(
            "a continuation behind the last one",
            vec![first(TEXT), wire::frame(CONTINUATION, b"lo"), wire::frame(CONTINUATION, b"lo")],
        )
        .behind(1),
    ];
    for (one, name) in [(TEXT, "text"), (BINARY, "binary")] {
        for (two, other) in [(TEXT, "text"), (BINARY, "binary")] {
            cases.push(fails(
                &format!("a {other} inside of a {name}"),
                vec![first(one), wire::frame(two, b"lo")],
            ));
            cases.push(fails(
                &format!("the beginning of a {other} inside of a {name}"),
                vec![first(one), first(two)],
            ));
            let empty = Out::new(one, b"").more().bytes();
            cases.push(fails(
                &format!("a {other} inside of a {name} that begins empty"),
                vec![empty, wire::frame(two, b"lo")],
            ));
        }
        for rsv in [1, 2, 4] {
            cases.push(fails(
                &format!("a continuation of a {name} with reserved bits {rsv:03b}"),
                vec![first(one), Out::new(CONTINUATION, b"lo").rsv(rsv).bytes()],
            ));
        }
        let unmasked = Out { is_masked: false, ..Out::new(CONTINUATION, b"lo") }.bytes();
        cases.push(fails(&format!("an unmasked continuation of a {name}"), vec![first(one), unmasked]));
    }
    cases
}
