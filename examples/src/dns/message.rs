//! DNS messages: a question in, an answer out (RFC 1035, section 4), with version 0 of EDNS (RFC 6891).
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
    /// Of EDNS. The upper bits of what is more than 15 are in the OPT record.
    BadVersion = 16,
}

impl Code {
    fn in_header(self) -> u16 {
        self as u16 & 0b1111
    }
}

/// A message that is a question, or nearly.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    Question(Question<'a>),
    Fault(Fault<'a>),
    /// Nothing to answer.
    Silence,
}

/// A question that can only be answered with what is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault<'a> {
    id: u16,
    flags: u16,
    code: Code,
    /// Who speaks EDNS gets the question back, and an OPT record behind it (RFC 6891, section 7).
    edns: Option<(&'a [u8], Edns)>,
}

impl Fault<'_> {
    /// Writes an answer without a record about a name.
    pub fn answer(&self, out: &mut Vec<u8>) {
        let flags = RESPONSE | self.flags | self.code.in_header();
        let Some((question, edns)) = self.edns else { return header(out, self.id, flags, [0; 4]) };
        header(out, self.id, flags, [1, 0, 0, 1]);
        out.extend_from_slice(question);
        out.extend_from_slice(&edns.answer(self.code));
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
    /// It came with an OPT record, so one belongs into the answer.
    edns: Option<Edns>,
}

impl<'a> Question<'a> {
    /// Reads a message.
    pub fn parse(message: &'a [u8]) -> Verdict<'a> {
        let word = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
        if message.len() < HEADER_BYTES || word(2) & RESPONSE != 0 {
            return Verdict::Silence;
        }
        let (id, flags) = (word(0), word(2) & (OPCODE | RECURSION_DESIRED));
        let counts = [4, 6, 8, 10].map(word);
        let body = Body::parse(&message[HEADER_BYTES..], counts);
        let edns = body.as_ref().and_then(|body| Some((body.question, body.edns?)));
        let fault = |code| Verdict::Fault(Fault { id, flags, code, edns });
        match body {
            // Whatever else is in it: it may mean something else there.
            _ if flags & OPCODE != 0 => fault(Code::NotImplemented),
            None => fault(Code::FormatError),
            Some(Body { edns: Some(Edns { version: 1.., .. }), .. }) => fault(Code::BadVersion),
            Some(Body { class, .. }) if class != CLASS_IN => fault(Code::Refused),
            Some(Body { question: bytes, name, kind, edns, .. }) => {
                Verdict::Question(Question { id, flags, bytes, name, kind, edns })
            }
        }
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
        header(out, self.id, RESPONSE | authority | self.flags | code.in_header(), [1, 0, 0, 0]);
        out.extend_from_slice(self.bytes);
        let opt = self.edns.map(|edns| edns.answer(code));
        let bytes_max = self.edns.map_or(PLAIN_BYTES_MAX, |edns| edns.answer_bytes_max - OPT_BYTES);
        Answer { out, start, bytes_max, records: [0; 2], opt, is_truncated: false }
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
    opt: Option<[u8; OPT_BYTES]>,
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
        let opts = u16::from(self.opt.is_some());
        if let Some(opt) = self.opt {
            self.out.extend_from_slice(&opt);
        }
        let header = &mut self.out[self.start..];
        if self.is_truncated {
            header[2] |= (TRUNCATED >> 8) as u8;
        }
        for (place, count) in [(6, self.records[0]), (8, self.records[1]), (10, opts)] {
            header[place..place + 2].copy_from_slice(&count.to_be_bytes());
        }
    }
}

/// What is behind the header of a message that asks about one name.
struct Body<'a> {
    /// Name, type and class.
    question: &'a [u8],
    name: &'a [u8],
    kind: u16,
    class: u16,
    edns: Option<Edns>,
}

impl<'a> Body<'a> {
    /// Reads it: one question, and behind it an OPT record or nothing. The counts are those of the header. A second OPT record is
    /// an error by RFC 6891, section 6.1.1, and no other record says anything to us.
    fn parse(bytes: &'a [u8], counts: [u16; 4]) -> Option<Self> {
        let [1, 0, 0, additional @ 0..=1] = counts else { return None };
        let (name, rest) = split_name(bytes)?;
        let (&[kind_high, kind_low, class_high, class_low], rest) = rest.split_first_chunk()?;
        let edns = match additional {
            0 if rest.is_empty() => None,
            0 => return None,
            _ => Some(Edns::parse(rest)?),
        };
        Some(Self {
            question: &bytes[..bytes.len() - rest.len()],
            name,
            kind: u16::from_be_bytes([kind_high, kind_low]),
            class: u16::from_be_bytes([class_high, class_low]),
            edns,
        })
    }
}

/// What an OPT record says (RFC 6891, section 6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Edns {
    version: u8,
    /// How long an answer may be: what the record says, but no less than without one (section 6.2.3).
    answer_bytes_max: usize,
    wants_dnssec: bool,
}

const OPT_BYTES: usize = 11;

impl Edns {
    /// Reads an OPT record that is all that is left. Its options mean nothing to us.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (fixed, mut options): (&[u8; OPT_BYTES], _) = bytes.split_first_chunk()?;
        let &[root, kind_high, kind_low, length_high, length_low, _, version, flags, _, data_high, data_low] =
            fixed;
        let is_opt = root == 0 && u16::from_be_bytes([kind_high, kind_low]) == OPT;
        if !is_opt || usize::from(u16::from_be_bytes([data_high, data_low])) != options.len() {
            return None;
        }
        // How those of other versions look nobody knows.
        while version == 0 && !options.is_empty() {
            let (&[_, _, length_high, length_low], rest) = options.split_first_chunk()?;
            options = rest.get(usize::from(u16::from_be_bytes([length_high, length_low]))..)?;
        }
        let length = usize::from(u16::from_be_bytes([length_high, length_low]));
        let answer_bytes_max = length.clamp(PLAIN_BYTES_MAX, BYTES_MAX);
        Some(Self { version, answer_bytes_max, wants_dnssec: flags & 0x80 != 0 })
    }

    /// The OPT record of an answer: of the root, with the length that we take as its class, version 0, and no options. That DNSSEC is
    /// wanted is repeated (RFC 3225, section 3), although there are no signatures.
    fn answer(self, code: Code) -> [u8; OPT_BYTES] {
        let length = (BYTES_MAX as u16).to_be_bytes();
        let flags = if self.wants_dnssec { 0x80 } else { 0 };
        [0, 0, OPT as u8, length[0], length[1], (code as u16 >> 4) as u8, 0, flags, 0, 0, 0]
    }
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
