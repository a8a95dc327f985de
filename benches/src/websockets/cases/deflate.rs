//! Compression of messages (RFC 7692). Payloads are blocks that store what is in them, or that were made once.

use super::{Case, Expect, Opening, served};
use crate::wire::{self, BINARY, CONTINUATION, Message, Out, PING, TEXT};

const SECTION: &str = "deflate";
const OFFER: &str = "permessage-deflate; client_max_window_bits";

/// A payload of stored blocks, without the empty one at its end.
fn stored(bytes: &[u8]) -> Vec<u8> {
    let blocks = bytes.chunks(65_535).flat_map(|block| {
        let len = block.len() as u16;
        [&[0][..], &len.to_le_bytes(), &(!len).to_le_bytes(), block].concat()
    });
    // The byte that begins the empty block, whose lengths are left out.
    blocks.chain([0]).collect()
}

/// `Hello`, as RFC 7692 (section 7.2.3.1) has it.
const HELLO: &[u8] = &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
/// The same referring to a message before (section 7.2.3.2).
const HELLO_AGAIN: &[u8] = &[0xf2, 0x00, 0x11, 0x00, 0x00];

fn compressed(opcode: u8, payload: &[u8]) -> Vec<u8> {
    Out::new(opcode, payload).rsv(4).bytes()
}

fn on(case: Case) -> Case {
    case.opening(Opening::Offering(OFFER.to_owned()))
}

pub fn cases() -> Vec<Case> {
    [offers(), messages(), broken(), bombs()].concat()
}

fn offers() -> Vec<Case> {
    let mut cases = Vec::new();
    let case = |offer: &str, is_agreed| {
        let name = format!("{}: {offer}", if is_agreed { "agreed on" } else { "declined" });
        Case::new(SECTION, "7692 7.1", name, Expect::Extension(is_agreed))
            .opening(Opening::Offering(offer.to_owned()))
    };
    for offer in [
        "permessage-deflate",
        OFFER,
        "permessage-deflate; client_max_window_bits=15",
        "permessage-deflate; client_max_window_bits=8",
        "permessage-deflate; server_no_context_takeover",
        "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
        "permessage-deflate; server_max_window_bits=15",
        "permessage-deflate; client_max_window_bits=\"10\"",
        "permessage-deflate ;  client_max_window_bits",
        "x-unknown, permessage-deflate",
        "permessage-deflate; server_max_window_bits=99, permessage-deflate",
    ] {
        cases.push(case(offer, true));
    }
    for parameters in [
        "x_unknown",
        "x_unknown=1",
        "client_max_window_bits=7",
        "client_max_window_bits=16",
        "client_max_window_bits=0",
        "client_max_window_bits=08",
        "client_max_window_bits=+9",
        "client_max_window_bits=9x",
        "server_max_window_bits",
        "server_max_window_bits=7",
        "server_max_window_bits=16",
        "server_max_window_bits=010",
        "server_max_window_bits=1e1",
        "server_no_context_takeover=1",
        "client_no_context_takeover=true",
        "server_no_context_takeover; server_no_context_takeover",
        "client_max_window_bits; client_max_window_bits=10",
        "server_max_window_bits=10; server_max_window_bits=11",
    ] {
        cases.push(case(&format!("permessage-deflate; {parameters}"), false));
    }
    cases.push(case("permessage-deflat", false));
    cases.push(case("deflate", false));
    cases
}

fn messages() -> Vec<Case> {
    let case =
        |name: &str, messages: Vec<Message>| on(Case::new(SECTION, "7692 6, 7.2", name, served(messages)));
    let hello = || Message::text("Hello");
    let long: Vec<u8> = (0..100_000_u32).map(|at| b'a' + (at % 23) as u8).collect();
    let (left, right) = HELLO.split_at(3);
    let first = Out::new(TEXT, left).rsv(4).more().bytes();
    let second = Out::new(CONTINUATION, right).bytes();
    let mut cases = vec![
        case("one of the RFC's", vec![hello()]).piece(compressed(TEXT, HELLO)),
        case("one of the RFC's, byte by byte", vec![hello()])
            .pieces(compressed(TEXT, HELLO).chunks(1).map(<[u8]>::to_vec).collect()),
        case("stored", vec![hello()]).piece(compressed(TEXT, &stored(b"Hello"))),
        case("stored, of bytes", vec![Message::binary(b"\xff\0")])
            .piece(compressed(BINARY, &stored(b"\xff\0"))),
        case("large", vec![Message::text(&long)]).piece(compressed(TEXT, &stored(&long))),
        case("of nothing", vec![Message::text("")]).piece(compressed(TEXT, &[0])),
        case("of nothing, twice, behind another", vec![hello(), Message::text(""), Message::text("")])
            .piece([compressed(TEXT, HELLO), compressed(TEXT, &[0]), compressed(TEXT, &[0])].concat()),
        case("not compressed though it could be", vec![hello()]).piece(wire::frame(TEXT, b"Hello")),
        case("compressed and not by turns", vec![hello(), Message::text("plain"), hello()])
            .piece([compressed(TEXT, HELLO), wire::frame(TEXT, b"plain"), compressed(TEXT, HELLO)].concat()),
        case("in two fragments", vec![hello()]).piece([first.clone(), second.clone()].concat()),
        case("in two fragments and a ping between", vec![hello()])
            .piece([first, wire::frame(PING, b""), second].concat()),
        case("in fragments of one byte", vec![hello()]).piece(
            HELLO
                .iter()
                .enumerate()
                .flat_map(|(at, byte)| {
                    let payload = [*byte];
                    let frame = Out::new(if at == 0 { TEXT } else { CONTINUATION }, &payload);
                    let frame = if at == 0 { frame.rsv(4) } else { frame };
                    if at + 1 == HELLO.len() { frame.bytes() } else { frame.more().bytes() }
                })
                .collect::<Vec<_>>(),
        ),
        case("with a last block, and another message behind it", vec![hello(), hello()])
            // Section 7.2.3.4: a last block, and a byte for the empty one behind it.
            .piece(
                [
                    compressed(TEXT, &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00]),
                    compressed(TEXT, HELLO),
                ]
                .concat(),
            ),
        case("in two blocks", vec![hello()])
            // Section 7.2.3.5.
            .piece(compressed(
                TEXT,
                &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
            )),
    ];
    for count in [10, 100] {
        let name = format!("{count} of them at once");
        cases.push(case(&name, vec![hello(); count]).piece(compressed(TEXT, HELLO).repeat(count)));
    }
    cases
}

fn broken() -> Vec<Case> {
    let fails = |name: &str, codes, pieces: Vec<Vec<u8>>| {
        on(Case::new(SECTION, "7692 6", name, Expect::Failed(codes)).pieces(pieces))
    };
    let first = Out::new(TEXT, &HELLO[..3]).rsv(4).more().bytes();
    let mut cases = vec![
        fails("what is no deflate", &[1002, 1007, 1003], vec![compressed(TEXT, &[0xff; 20])]),
        fails("a block of a kind that there is not", &[1002, 1007, 1003], vec![compressed(TEXT, &[0x07])]),
        fails(
            "stored lengths that do not fit",
            &[1002, 1007, 1003],
            vec![compressed(TEXT, &[0, 5, 0, 5, 0, b'h'])],
        ),
        fails("a reference to what was never sent", &[1002, 1007, 1003], vec![compressed(TEXT, HELLO_AGAIN)]),
        fails("bytes that are no text", &[1007], vec![compressed(TEXT, &stored(b"\xff"))]),
        fails("a character that is cut", &[1007], vec![compressed(TEXT, &stored(b"ok \xe4\xbd"))]),
        fails(
            "a continuation that says it is compressed",
            &[1002],
            vec![first.clone(), Out::new(CONTINUATION, &HELLO[3..]).rsv(4).bytes()],
        ),
        fails("a ping that says it is compressed", &[1002], vec![compressed(PING, b"")]),
        fails("a pong that says it is compressed", &[1002], vec![compressed(wire::PONG, b"")]),
        fails("a Close that says it is compressed", &[1002], vec![compressed(wire::CLOSE, b"")]),
        fails("a message inside of a compressed one", &[1002], vec![first, wire::frame(TEXT, b"lo")]),
    ];
    for rsv in [2, 1, 6, 5, 7] {
        let name = format!("reserved bits {rsv:03b}");
        cases.push(fails(&name, &[1002], vec![Out::new(TEXT, HELLO).rsv(rsv).bytes()]));
    }
    cases
}

/// Little that becomes much: a run of one byte, in blocks with fixed codes.
fn bombs() -> Vec<Case> {
    // A literal zero and 258-byte copies of it at distance 1: literal 00110000, length 285 11000101, distance 0 00000.
    let mut bits = Bits::default();
    bits.put(0b010, 3); // not the last, fixed codes (1, from the lowest bit)
    bits.put_code(0b0011_0000, 8);
    for _ in 0..100_000 {
        bits.put_code(0b1100_0101, 8);
        bits.put_code(0, 5);
    }
    bits.put_code(0, 7);
    bits.put(0, 3); // an empty stored block, whose lengths are left out
    let bomb = bits.bytes;
    let case = Case::new(SECTION, "6455 10.4, 7.4.1", "160 KiB that become 25 MB", Expect::Failed(&[1009]));
    let twice = Case::new(SECTION, "6455 10.4, 7.4.1", "the same in fragments", Expect::Failed(&[1009]));
    let (left, right) = bomb.split_at(bomb.len() / 2);
    vec![
        on(case.piece(compressed(BINARY, &bomb))).should(),
        on(twice
            .piece(Out::new(BINARY, left).rsv(4).more().bytes())
            .piece(Out::new(CONTINUATION, right).bytes()))
        .should(),
    ]
}

/// Bits of deflate: fields from the lowest bit, codes from the highest.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: u32,
}

impl Bits {
    fn put(&mut self, field: u32, bits: u32) {
        for at in 0..bits {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if field >> at & 1 == 1
                && let Some(last) = self.bytes.last_mut()
            {
                *last |= 1 << (self.used % 8);
            }
            self.used += 1;
        }
    }

    fn put_code(&mut self, code: u32, bits: u32) {
        for at in (0..bits).rev() {
            self.put(code >> at & 1, 1);
        }
    }
}
