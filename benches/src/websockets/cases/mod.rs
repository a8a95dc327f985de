//! What is sent, and what has to come of it.

mod closing;
mod deflate;
mod fragments;
mod framing;
mod limits;
mod opening;
mod text;

use crate::wire::{self, Message};

/// How binding a rule is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Must,
    Should,
}

/// How a connection is opened.
#[derive(Clone, Debug)]
pub enum Opening {
    Good,
    /// The same byte by byte.
    Dripped,
    /// The same with these extensions offered.
    Offering(String),
    /// The same with these lines, each with its end.
    With(String),
    /// These bytes, with `{path}` and `{host}` in them.
    Raw(String),
}

/// What has to come of it.
#[derive(Clone, Debug)]
pub enum Expect {
    /// A 101 that is right.
    Opened,
    /// An answer of 400 or more (must), and one of these (should).
    Refused(&'static [u16]),
    /// The same with a field in it (should).
    RefusedWith(u16, (&'static str, &'static str)),
    /// A 101, and the extension is agreed on or not.
    Extension(bool),
    /// These messages come back, nothing else does, and the connection goes on. Of pings those are answered, or the last of them.
    Served { messages: Vec<Message>, pongs: Option<Vec<Vec<u8>>> },
    /// It is not served, nor is what follows, and the connection ends (must); a Close with one of these codes comes first (should).
    Failed(&'static [u16]),
    /// The same although the frame is not there as a whole (should).
    FailsFast(&'static [u16]),
    /// These messages come back, then a Close with one of these codes, then the server ends the connection.
    Closed { messages: Vec<Message>, codes: Vec<Option<u16>> },
}

/// One exchange.
#[derive(Clone, Debug)]
pub struct Case {
    pub section: &'static str,
    pub name: String,
    /// Where it says so.
    pub basis: &'static str,
    pub level: Level,
    pub opening: Opening,
    /// What is sent behind the opening, each by a system call of its own.
    pub pieces: Vec<Vec<u8>>,
    /// The pieces are sent in one with the opening.
    pub in_one: bool,
    /// Good messages in front of what fails.
    pub echoes_before: usize,
    pub expect: Expect,
}

impl Case {
    fn new(section: &'static str, basis: &'static str, name: impl Into<String>, expect: Expect) -> Self {
        Self {
            section,
            name: name.into(),
            basis,
            level: Level::Must,
            opening: Opening::Good,
            pieces: Vec::new(),
            in_one: false,
            echoes_before: 0,
            expect,
        }
    }

    fn should(self) -> Self {
        Self { level: Level::Should, ..self }
    }

    fn opening(self, opening: Opening) -> Self {
        Self { opening, ..self }
    }

    fn raw(self, text: impl Into<String>) -> Self {
        self.opening(Opening::Raw(text.into()))
    }

    fn piece(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.pieces.push(bytes.into());
        self
    }

    fn pieces(self, pieces: Vec<Vec<u8>>) -> Self {
        Self { pieces, ..self }
    }

    fn in_one(self) -> Self {
        Self { in_one: true, ..self }
    }

    fn behind(self, echoes_before: usize) -> Self {
        Self { echoes_before, ..self }
    }

    /// The same with everything sent byte by byte.
    fn dripped(mut self) -> Self {
        let bytes = self.pieces.concat();
        self.pieces = bytes.chunks(1).map(<[u8]>::to_vec).collect();
        self.name.push_str(", byte by byte");
        self
    }
}

fn served(messages: Vec<Message>) -> Expect {
    Expect::Served { messages, pongs: None }
}

/// A message in frames with these payloads.
fn fragmented(opcode: u8, payloads: &[&[u8]]) -> Vec<u8> {
    let last = payloads.len() - 1;
    let frames = payloads.iter().enumerate().map(|(at, payload)| {
        let opcode = if at == 0 { opcode } else { wire::CONTINUATION };
        let frame = wire::Out::new(opcode, payload);
        if at == last { frame.bytes() } else { frame.more().bytes() }
    });
    frames.collect::<Vec<_>>().concat()
}

/// All of them.
pub fn all() -> Vec<Case> {
    [
        opening::cases(),
        framing::cases(),
        fragments::cases(),
        text::cases(),
        closing::cases(),
        limits::cases(),
        deflate::cases(),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_cases_have_one_name() {
        let mut names: Vec<_> = all().into_iter().map(|case| (case.section, case.name)).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
