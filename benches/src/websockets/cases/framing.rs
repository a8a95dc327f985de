//! Frames by themselves.

use super::{Case, Expect, served};
use crate::wire::{self, BINARY, CLOSE, CONTINUATION, Message, Out, PING, PONG, TEXT};

const SECTION: &str = "framing";
const PROTOCOL_ERROR: &[u16] = &[1002];

pub fn cases() -> Vec<Case> {
    [lengths(), broken(), control()].concat()
}

fn lengths() -> Vec<Case> {
    let mut cases = Vec::new();
    for len in [
        0,
        1,
        2,
        3,
        4,
        5,
        7,
        8,
        15,
        16,
        63,
        124,
        125,
        126,
        127,
        128,
        1000,
        4096,
        16_384,
        65_535,
        65_536,
        70_000,
        1 << 20,
    ] {
        let payload: Vec<u8> = (0..len).map(|at| b'a' + (at % 26) as u8).collect();
        for (opcode, kind, message) in
            [(TEXT, "text", Message::text(&payload)), (BINARY, "binary", Message::binary(&payload))]
        {
            let case =
                Case::new(SECTION, "6455 5.2", format!("{kind} of {len} bytes"), served(vec![message]))
                    .piece(wire::frame(opcode, &payload));
            if len <= 200 {
                cases.push(case.clone().dripped());
            }
            cases.push(case);
        }
    }
    for cut in [1, 2, 3, 4, 5, 6, 8, 9, 13] {
        let frame = wire::frame(TEXT, &[b'x'; 300]);
        let (left, right) = frame.split_at(cut);
        let case = Case::new(
            SECTION,
            "6455 5.2",
            format!("cut behind {cut} bytes"),
            served(vec![Message::text([b'x'; 300])]),
        );
        cases.push(case.piece(left).piece(right));
    }
    for count in [2, 10, 1000] {
        let messages = (0..count).map(|at| Message::text(format!("message {at}"))).collect::<Vec<_>>();
        let bytes =
            messages.iter().map(|message| wire::frame(TEXT, &message.payload)).collect::<Vec<_>>().concat();
        cases.push(
            Case::new(SECTION, "6455 5.4", format!("{count} messages at once"), served(messages))
                .piece(bytes),
        );
    }
    cases
}

fn broken() -> Vec<Case> {
    let fails = |basis, name: String, frame: Vec<u8>| {
        Case::new(SECTION, basis, name, Expect::Failed(PROTOCOL_ERROR)).piece(frame)
    };
    let names = [
        (TEXT, "text"),
        (BINARY, "binary"),
        (PING, "ping"),
        (PONG, "pong"),
        (CLOSE, "close"),
        (CONTINUATION, "continuation"),
    ];
    let mut cases = Vec::new();
    for (opcode, name) in names {
        for len in [0, 5, 125] {
            let payload =
                if opcode == CLOSE && len > 0 { vec![3, 0xe8, b'b', b'y', b'e'] } else { vec![b'x'; len] };
            if opcode == CLOSE && len > 5 {
                continue;
            }
            let frame = Out { is_masked: false, ..Out::new(opcode, &payload) }.bytes();
            cases.push(fails("6455 5.1", format!("unmasked {name} of {len} bytes"), frame));
        }
        for rsv in 1..8 {
            if rsv == 4 || opcode == CONTINUATION {
                continue;
            }
            cases.push(fails(
                "6455 5.2",
                format!("{name} with reserved bits {rsv:03b}"),
                Out::new(opcode, b"").rsv(rsv).bytes(),
            ));
        }
        cases.push(fails(
            "6455 5.2",
            format!("{name} with the first reserved bit and no extension"),
            Out::new(opcode, b"").rsv(4).bytes(),
        ));
    }
    let frame = Out { is_masked: false, ..Out::new(TEXT, &[b'x'; 300]) }.bytes();
    cases.push(fails("6455 5.1", "unmasked text of 300 bytes".to_owned(), frame));
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        for payload in [&b""[..], b"hello"] {
            let name = format!("opcode {opcode} of {} bytes", payload.len());
            cases.push(fails("6455 5.2", name, wire::frame(opcode, payload)));
        }
        cases.push(fails(
            "6455 5.2",
            format!("opcode {opcode} without its end"),
            Out::new(opcode, b"x").more().bytes(),
        ));
        let behind = [wire::frame(TEXT, b"good"), wire::frame(opcode, b"")].concat();
        cases.push(fails("6455 5.2", format!("opcode {opcode} behind a message"), behind).behind(1));
    }
    for (length_bytes, len) in [(2, 0), (2, 1), (2, 125), (8, 0), (8, 125), (8, 126), (8, 65_535)] {
        let payload = vec![b'x'; len];
        for (opcode, name) in [(TEXT, "text"), (BINARY, "binary")] {
            let frame = Out { length_bytes: Some(length_bytes), ..Out::new(opcode, &payload) }.bytes();
            // It binds who sends; what becomes of it is left open.
            cases.push(
                fails("6455 5.2", format!("{name} of {len} bytes, said in {length_bytes}"), frame).should(),
            );
        }
    }
    for high in [0x80, 0xff] {
        let mut frame = vec![0x82, 0xff, high, 0, 0, 0, 0, 0, 0, 1];
        frame.extend(wire::MASK);
        frame.push(0);
        let case = Case::new(
            SECTION,
            "6455 5.2",
            format!("a length with its highest bits {high:#x}"),
            Expect::Failed(&[1002, 1009]),
        );
        cases.push(case.piece(frame));
    }
    cases
}

fn control() -> Vec<Case> {
    let mut cases = Vec::new();
    for len in [0, 1, 2, 3, 64, 124, 125] {
        let payload: Vec<u8> = (0..len).map(|at| (at * 7) as u8).collect();
        let expect = Expect::Served { messages: vec![], pongs: Some(vec![payload.clone()]) };
        let case = Case::new(SECTION, "6455 5.5.2", format!("a ping of {len} bytes"), expect)
            .piece(wire::frame(PING, &payload));
        cases.push(case.clone().dripped());
        cases.push(case);
        let expect = Expect::Served { messages: vec![], pongs: Some(vec![]) };
        cases.push(
            Case::new(
                SECTION,
                "6455 5.5.3",
                format!("a pong of {len} bytes that nobody has asked for"),
                expect,
            )
            .piece(wire::frame(PONG, &payload)),
        );
    }
    let pings = (0..10).map(|at| vec![at; 3]).collect::<Vec<_>>();
    let bytes = pings.iter().map(|payload| wire::frame(PING, payload)).collect::<Vec<_>>();
    let expect = Expect::Served { messages: vec![], pongs: Some(pings) };
    cases.push(Case::new(SECTION, "6455 5.5.3", "ten pings", expect.clone()).piece(bytes.concat()));
    cases.push(Case::new(SECTION, "6455 5.5.3", "ten pings, one by one", expect).pieces(bytes));
    for (opcode, name) in [(PING, "ping"), (PONG, "pong"), (CLOSE, "close")] {
        let fails = |what: String, frame: Vec<u8>| {
            Case::new(SECTION, "6455 5.5", what, Expect::Failed(PROTOCOL_ERROR)).piece(frame)
        };
        cases.push(fails(format!("a {name} in fragments"), Out::new(opcode, b"").more().bytes()));
        let long = if opcode == CLOSE { [&[3, 0xe8][..], &[b'x'; 124]].concat() } else { vec![b'x'; 126] };
        cases.push(fails(format!("a {name} of 126 bytes"), wire::frame(opcode, &long)));
        cases.push(fails(format!("a {name} of 65 536 bytes"), wire::frame(opcode, &vec![b'x'; 65_536])));
        let frame = Out { length_bytes: Some(2), ..Out::new(opcode, b"") }.bytes();
        cases.push(fails(format!("a {name} of no bytes, said in two"), frame).should());
    }
    cases
}
