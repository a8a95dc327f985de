//! What is too much.

use super::{Case, Expect, served};
use crate::wire::{self, BINARY, CONTINUATION, MASK, Message, Out, PING, TEXT};

const SECTION: &str = "limits";
const TOO_BIG: &[u16] = &[1009];

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, len) in [
        ("2 GiB", 1_u64 << 31),
        ("4 GiB and a byte", (1 << 32) + 1),
        ("an exbibyte", 1 << 60),
        ("all that can be said", (1 << 63) - 1),
    ] {
        for (opcode, kind) in [(TEXT, "text"), (BINARY, "binary")] {
            let mut frame = vec![0x80 | opcode, 0xff];
            frame.extend(len.to_be_bytes());
            frame.extend(MASK);
            let case = Case::new(
                SECTION,
                "6455 7.4.1, 10.4",
                format!("a {kind} of {name} is announced"),
                Expect::FailsFast(TOO_BIG),
            );
            cases.push(case.piece(frame).should());
        }
    }
    // What together is more than anybody takes by default: 128 MiB.
    let piece = Out { ..Out::new(CONTINUATION, &vec![b'x'; 1 << 20]) }.more().bytes();
    let mut pieces = vec![Out::new(BINARY, b"x").more().bytes()];
    pieces.extend(std::iter::repeat_n(piece, 128));
    let case = Case::new(SECTION, "6455 10.4", "fragments of 128 MiB together", Expect::FailsFast(TOO_BIG));
    cases.push(case.pieces(pieces).should());
    // A million fragments of nothing, which no limit on bytes stops.
    let nothing = Out::new(CONTINUATION, b"").more().bytes().repeat(100_000);
    let mut pieces = vec![Out::new(BINARY, b"").more().bytes()];
    pieces.extend(std::iter::repeat_n(nothing, 10));
    let case =
        Case::new(SECTION, "6455 10.4", "a million fragments of nothing", Expect::FailsFast(&[1008, 1009]));
    cases.push(case.pieces(pieces).should());
    // Pings that are answered, or the last of which is, and nobody suffers.
    let pings = wire::frame(PING, &[b'p'; 125]).repeat(1000);
    let expect = Expect::Served { messages: vec![Message::text("behind them")], pongs: None };
    cases.push(
        Case::new(SECTION, "6455 5.5.3", "a hundred thousand pings", expect)
            .pieces(std::iter::repeat_n(pings, 100).chain([wire::frame(TEXT, b"behind them")]).collect()),
    );
    let many = wire::frame(TEXT, b"m").repeat(10_000);
    let expect = served(vec![Message::text("m"); 10_000]);
    cases.push(Case::new(SECTION, "6455 5.4", "ten thousand messages at once", expect).piece(many));
    cases
}
