//! DNS messages: a question in, an answer out (RFC 1035, section 4; EDNS of RFC 6891 as far as a length).
//!
//! Everything that comes from the network is checked before it is used, and what is not a plain question about one name is
//! answered with a fault that says so, or not at all. Names in questions are not compressed: nothing before them could be
//! pointed at.

/// Bytes of a question, and of an answer, at most.
pub const BYTES_MAX: usize = 1232;
/// Bytes of an answer to somebody who does not say that more may come (RFC 1035, section 2.3.4).
const PLAIN_BYTES_MAX: usize = 512;

const HEADER_BYTES: usize = 12;
/// Bytes of a name with its lengths and its end (RFC 1035, section 2.3.4).
const NAME_BYTES_MAX: usize = 255;
const LABEL_BYTES_MAX: usize = 63;

const RESPONSE: u16 = 1 << 15;
const OPCODE: u16 = 0b1111 << 11;
const AUTHORITATIVE: u16 = 1 << 10;
const TRUNCATED: u16 = 1 << 9;
const RECURSION_DESIRED: u16 = 1 << 8;

/// Types of records that are spoken of here.
pub const A: u16 = 1;
pub const SOA: u16 = 6;
pub const MX: u16 = 15;
pub const TXT: u16 = 16;
pub const AAAA: u16 = 28;
const OPT: u16 = 41;
/// All types (RFC 8482 lets us answer with any of them).
pub const ANY: u16 = 255;
const CLASS_IN: u16 = 1;

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Code {
    Answered = 0,
    FormatError = 1,
    NoSuchName = 3,
    NotImplemented = 4,
    Refused = 5,
}

/// A message that is a question, or nearly.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    Question(Question<'a>),
    Fault(Fault),
    /// Nothing to answer.
    Silence,
}

/// A question that can only be answered with what is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    id: u16,
    flags: u16,
    code: Code,
}

impl Fault {
    /// The header of an answer, and nothing else.
    pub fn answer(&self, out: &mut Vec<u8>) {
        header(out, self.id, RESPONSE | self.flags | self.code as u16, [0; 4]);
    }
}

/// A question about one name.
#[derive(Debug, PartialEq, Eq)]
pub struct Question<'a> {
    id: u16,
    /// Those that an answer repeats.
    flags: u16,
    /// The question as it came: name, type and class.
    bytes: &'a [u8],
    /// The name with its lengths, without its end.
    name: &'a [u8],
    pub kind: u16,
    /// How long an answer may be.
    bytes_max: usize,
    /// It came with an OPT record, so one belongs into the answer.
    has_edns: bool,
}

impl<'a> Question<'a> {
    /// Reads a message.
    pub fn parse(message: &'a [u8]) -> Verdict<'a> {
        let word = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
        if message.len() < HEADER_BYTES || word(2) & RESPONSE != 0 {
            return Verdict::Silence;
        }
        let (id, flags) = (word(0), word(2) & (OPCODE | RECURSION_DESIRED));
        let fault = |code| Verdict::Fault(Fault { id, flags, code });
        if flags & OPCODE != 0 {
            return fault(Code::NotImplemented);
        }
        let [questions, answers, authorities, additional] = [4, 6, 8, 10].map(word);
        if (questions, answers, authorities) != (1, 0, 0) || additional > 1 {
            return fault(Code::FormatError);
        }
        let Some((name, rest)) = split_name(&message[HEADER_BYTES..]) else {
            return fault(Code::FormatError);
        };
        let Some((&[kind_high, kind_low, class_high, class_low], rest)) = rest.split_first_chunk() else {
            return fault(Code::FormatError);
        };
        let (mut bytes_max, has_edns) = (PLAIN_BYTES_MAX, additional == 1);
        if has_edns {
            match edns(rest) {
                Some(length) => bytes_max = usize::from(length).clamp(PLAIN_BYTES_MAX, BYTES_MAX),
                None => return fault(Code::FormatError),
            }
        } else if !rest.is_empty() {
            return fault(Code::FormatError);
        }
        if u16::from_be_bytes([class_high, class_low]) != CLASS_IN {
            return fault(Code::Refused);
        }
        let end = HEADER_BYTES + name.len() + 1 + 4;
        let kind = u16::from_be_bytes([kind_high, kind_low]);
        let bytes = &message[HEADER_BYTES..end];
        Verdict::Question(Question { id, flags, bytes, name, kind, bytes_max, has_edns })
    }

    /// The labels of the name, the first one first.
    pub fn labels(&self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.name;
        std::iter::from_fn(move || {
            let (length, behind) = rest.split_first()?;
            let (label, behind) = behind.split_at(usize::from(*length));
            rest = behind;
            Some(label)
        })
    }

    /// Begins an answer.
    pub fn reply<'b>(&self, code: Code, out: &'b mut Vec<u8>) -> Answer<'b> {
        let start = out.len();
        let authority = if code == Code::Refused { 0 } else { AUTHORITATIVE };
        header(out, self.id, RESPONSE | authority | self.flags | code as u16, [1, 0, 0, 0]);
        out.extend_from_slice(self.bytes);
        let reserved = if self.has_edns { EDNS.len() } else { 0 };
        let bytes_max = self.bytes_max - reserved;
        Answer { out, start, bytes_max, records: [0; 2], has_edns: self.has_edns, is_truncated: false }
    }
}

/// Which part of an answer a record belongs into.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Section {
    Answer,
    Authority,
}

/// An answer that is being written. `finish` completes it.
pub struct Answer<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    bytes_max: usize,
    records: [u16; 2],
    has_edns: bool,
    is_truncated: bool,
}

impl Answer<'_> {
    /// Adds a record about the name that was asked for, or one of its ends: so many bytes into it. One that does not fit is left
    /// out, and the answer says so.
    pub fn record(&mut self, section: Section, name_start: usize, kind: u16, seconds: u32, data: &[u8]) {
        const FIXED_BYTES: usize = 12;
        if self.is_truncated || self.out.len() - self.start + FIXED_BYTES + data.len() > self.bytes_max {
            self.is_truncated = true;
            return;
        }
        // A pointer to the name in the question (RFC 1035, section 4.1.4): a message is shorter than 2^14.
        self.out.extend_from_slice(&(0xc000 | (HEADER_BYTES + name_start) as u16).to_be_bytes());
        for word in [kind, CLASS_IN] {
            self.out.extend_from_slice(&word.to_be_bytes());
        }
        self.out.extend_from_slice(&seconds.to_be_bytes());
        self.out.extend_from_slice(&(data.len() as u16).to_be_bytes());
        self.out.extend_from_slice(data);
        self.records[section as usize] += 1;
    }

    /// Completes the answer.
    pub fn finish(self) {
        if self.has_edns {
            self.out.extend_from_slice(&EDNS);
        }
        let header = &mut self.out[self.start..];
        if self.is_truncated {
            header[2] |= (TRUNCATED >> 8) as u8;
        }
        for (place, count) in [(6, self.records[0]), (8, self.records[1]), (10, u16::from(self.has_edns))] {
            header[place..place + 2].copy_from_slice(&count.to_be_bytes());
        }
    }
}

/// An OPT record that says how much we take: of the root, with the length as its class and nothing else.
const EDNS: [u8; 11] = {
    let length = (BYTES_MAX as u16).to_be_bytes();
    [0, 0, OPT as u8, length[0], length[1], 0, 0, 0, 0, 0, 0]
};

/// Reads an OPT record that is all that is left: how long an answer may be.
fn edns(bytes: &[u8]) -> Option<u16> {
    let (&[root, kind_high, kind_low, length_high, length_low, _, version, _, _, data_high, data_low], data) =
        bytes.split_first_chunk()?;
    let is_opt = root == 0 && u16::from_be_bytes([kind_high, kind_low]) == OPT && version == 0;
    let is_whole = usize::from(u16::from_be_bytes([data_high, data_low])) == data.len();
    (is_opt && is_whole).then_some(u16::from_be_bytes([length_high, length_low]))
}

/// A name without its end, and what is behind it. None if it is too long, or not there as it should be.
fn split_name(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut at = 0;
    loop {
        match usize::from(*bytes.get(at)?) {
            0 => return Some((&bytes[..at], &bytes[at + 1..])),
            // A pointer, or what nobody has defined.
            length if length > LABEL_BYTES_MAX => return None,
            length => at += 1 + length,
        }
        if at >= NAME_BYTES_MAX {
            return None;
        }
    }
}

fn header(out: &mut Vec<u8>, id: u16, flags: u16, counts: [u16; 4]) {
    for word in [id, flags].into_iter().chain(counts) {
        out.extend_from_slice(&word.to_be_bytes());
    }
}
