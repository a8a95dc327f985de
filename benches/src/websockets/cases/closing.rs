//! Goodbyes.

use super::{Case, Expect, fragmented};
use crate::wire::{self, CLOSE, CONTINUATION, Message, Out, PING, TEXT};

const SECTION: &str = "closing";

fn closed(codes: &[Option<u16>]) -> Expect {
    Expect::Closed { messages: vec![], codes: codes.to_vec() }
}

pub fn cases() -> Vec<Case> {
    [answered(), broken(), behind()].concat()
}

fn answered() -> Vec<Case> {
    let mut cases = vec![
        // A Close without a code is answered by one without, or with 1000.
        Case::new(SECTION, "6455 5.5.1", "without a code", closed(&[None, Some(1000)]))
            .piece(wire::frame(CLOSE, b"")),
        Case::new(SECTION, "6455 5.5.1", "without a code, byte by byte", closed(&[None, Some(1000)]))
            .pieces(wire::frame(CLOSE, b"").chunks(1).map(<[u8]>::to_vec).collect()),
    ];
    for code in
        [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
    {
        // "When sending a Close frame in response, the endpoint typically echos the status code it received."
        let expect = closed(&[Some(code), Some(1000), None]);
        cases.push(
            Case::new(SECTION, "6455 5.5.1, 7.4", format!("code {code}"), expect)
                .piece(wire::close(code, b"")),
        );
        let expect = closed(&[Some(code)]);
        cases.push(
            Case::new(SECTION, "6455 5.5.1", format!("code {code} comes back"), expect)
                .piece(wire::close(code, b""))
                .should(),
        );
    }
    for len in [1, 2, 100, 122, 123] {
        let expect = closed(&[Some(1000), None]);
        let case = Case::new(SECTION, "6455 5.5.1", format!("a reason of {len} bytes"), expect);
        cases.push(case.piece(wire::close(1000, &vec![b'x'; len])));
    }
    let reason = "auf Wiederhören 再见".as_bytes();
    let case = Case::new(SECTION, "6455 5.5.1", "a reason in other letters", closed(&[Some(1000), None]));
    cases.push(case.piece(wire::close(1000, reason)));
    cases
}

fn broken() -> Vec<Case> {
    let mut cases = Vec::new();
    let fails = |name: String, codes, frame: Vec<u8>| {
        Case::new(SECTION, "6455 5.5.1, 7.4.1", name, Expect::Failed(codes)).piece(frame)
    };
    cases.push(fails("half a code".to_owned(), &[1002], wire::frame(CLOSE, &[3])));
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 9999, 65_535] {
        let case = fails(format!("code {code}, which nobody may say"), &[1002], wire::close(code, b""));
        // It ends in either case; what says that the code was no good is the answer.
        let frame = wire::close(code, b"");
        let case = Case { expect: closed(&[Some(1002)]), pieces: vec![frame], ..case };
        cases.push(case.should());
    }
    for (name, reason) in [
        ("a wrong byte", &b"\xff"[..]),
        ("a character that is cut", b"ok \xe4\xbd"),
        ("half a pair", b"\xed\xa0\x80"),
    ] {
        let expect = closed(&[Some(1007), Some(1002)]);
        let case = Case::new(SECTION, "6455 5.5.1, 8.1", format!("a reason with {name}"), expect);
        cases.push(case.piece(wire::close(1000, reason)).should());
    }
    cases
}

/// What comes behind a Close, and what was owed in front of it.
fn behind() -> Vec<Case> {
    let bye = wire::close(1000, b"bye");
    let any = [Some(1000), None];
    let case = |name: &str, messages: Vec<Message>, pieces: Vec<Vec<u8>>| {
        let expect = Expect::Closed { messages, codes: any.to_vec() };
        Case::new(SECTION, "6455 5.5.1", name, expect).pieces(pieces)
    };
    let text = wire::frame(TEXT, b"late");
    vec![
        case("a message behind it is not echoed", vec![], vec![[bye.clone(), text.clone()].concat()]),
        case("nor is one in a segment of its own", vec![], vec![bye.clone(), text.clone()]).should(),
        case(
            "a ping behind it is not answered",
            vec![],
            vec![[bye.clone(), wire::frame(PING, b"late")].concat()],
        )
        .should(),
        case("two of them are answered by one", vec![], vec![[bye.clone(), bye.clone()].concat()]),
        case(
            "what is no frame behind it changes nothing",
            vec![],
            vec![[bye.clone(), vec![0xff; 100]].concat()],
        )
        .should(),
        case(
            "an echo that is owed comes first",
            vec![Message::text("late")],
            vec![[text, bye.clone()].concat()],
        ),
        case(
            "so does a large one",
            vec![Message::text(vec![b'x'; 1 << 20])],
            vec![[wire::frame(TEXT, &vec![b'x'; 1 << 20]), bye.clone()].concat()],
        ),
        case(
            "so do a hundred",
            vec![Message::text("many"); 100],
            vec![[wire::frame(TEXT, b"many").repeat(100), bye.clone()].concat()],
        ),
        case(
            "inside of a message",
            vec![],
            vec![[Out::new(TEXT, b"hel").more().bytes(), bye.clone()].concat()],
        ),
        case(
            "inside of a message that goes on behind it",
            vec![],
            vec![
                [Out::new(TEXT, b"hel").more().bytes(), bye.clone(), wire::frame(CONTINUATION, b"lo")]
                    .concat(),
            ],
        ),
        case(
            "behind a message in fragments",
            vec![Message::text("hello")],
            vec![[fragmented(TEXT, &[b"hel", b"lo"]), bye].concat()],
        ),
    ]
}
