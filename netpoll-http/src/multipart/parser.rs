//! The bytes of `multipart/form-data` (RFC 7578), in any pieces: parts out, without I/O.
//!
//! Strict: whatever two readers could read in two ways is refused. There is nothing in front of the first delimiter and nothing behind the last
//! but a line end each, a line that begins with the delimiter is one or the body is malformed, and a part says who it is once.
//!
//! Invariant: how the bytes were cut changes neither the steps, but for where data is cut, nor the violation. What is kept is the header
//! section of one part, and how much of a delimiter was seen: that is data if it turns out to be none.

use memchr::memmem::Finder;
use memchr::memrchr;

use super::MultipartLimits;
use super::head::PartHead;

/// Bytes of a boundary (RFC 2046 section 5.1.1).
const BOUNDARY_BYTES_MAX: usize = 70;

/// What a body breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// It says something wrong, and the sentence says what.
    Malformed(&'static str),
    /// It has more of something than it may.
    TooLarge(&'static str),
}

pub(super) const fn malformed(sentence: &'static str) -> Violation {
    Violation::Malformed(sentence)
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'p, 'i> {
    /// A part begins.
    Part(PartHead),
    /// Data of it, a slice of the input.
    Data(&'i [u8]),
    /// Data of it that had been taken for the beginning of a delimiter.
    Held(&'p [u8]),
    /// It ends.
    PartEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing has come.
    Start,
    /// In the first delimiter, whose line end may be missing.
    First,
    /// Behind a delimiter, and behind this byte of what follows it.
    Behind(Option<u8>),
    Headers,
    Data,
    /// Behind the last delimiter, and so many bytes of the line end that may follow.
    Epilogue(usize),
    Failed(Violation),
}

/// Takes one body apart.
#[derive(Debug)]
pub struct Parser {
    /// CRLF, two dashes, and the boundary. CR is nowhere else in it.
    delimiter: Box<[u8]>,
    finder: Finder<'static>,
    limits: MultipartLimits,
    state: State,
    /// Bytes of the delimiter that have come, and nothing else behind them.
    matched: usize,
    /// What has come of a header section.
    head: Vec<u8>,
    parts: usize,
    part_bytes: u64,
    bytes: u64,
}

impl Parser {
    /// Of a body with this boundary, which is [valid](is_boundary).
    pub fn new(boundary: &[u8], limits: MultipartLimits) -> Self {
        let delimiter: Box<[u8]> = [b"\r\n--", boundary].concat().into();
        Self {
            finder: Finder::new(&delimiter).into_owned(),
            delimiter,
            limits,
            state: State::Start,
            matched: 0,
            head: Vec::new(),
            parts: 0,
            part_bytes: 0,
            bytes: 0,
        }
    }

    /// Goes on with the input, and takes off it what was looked at. `None` when all of it was.
    ///
    /// # Errors
    /// The first violation; the same one again from then on.
    pub fn next<'p, 'i>(&'p mut self, input: &mut &'i [u8]) -> Result<Option<Step<'p, 'i>>, Violation> {
        let before = input.len();
        let left = usize::try_from(self.limits.bytes_max - self.bytes).unwrap_or(usize::MAX);
        let mut view = &input[..before.min(left)];
        let view_bytes = view.len();
        let found = self.step(&mut view);
        let taken = view_bytes - view.len();
        self.bytes += taken as u64;
        *input = &input[taken..];
        match found {
            Ok(Found::Nothing) if !input.is_empty() => {
                Err(self.fail(Violation::TooLarge("the form has too many bytes")))
            }
            Ok(Found::Nothing) => Ok(None),
            Ok(Found::Part) => match PartHead::parse(&self.head) {
                Ok(head) => {
                    self.head.clear();
                    Ok(Some(Step::Part(head)))
                }
                Err(violation) => Err(self.fail(violation)),
            },
            Ok(Found::Data(data)) => Ok(Some(Step::Data(data))),
            Ok(Found::Held(bytes)) => Ok(Some(Step::Held(&self.delimiter[..bytes]))),
            Ok(Found::PartEnd) => Ok(Some(Step::PartEnd)),
            Err(violation) => Err(self.fail(violation)),
        }
    }

    /// There is no more input.
    ///
    /// # Errors
    /// It ends in the middle; or the violation that there was.
    pub fn finish(&mut self) -> Result<(), Violation> {
        match self.state {
            State::Epilogue(0 | 2) => Ok(()),
            State::Failed(violation) => Err(violation),
            _ => Err(self.fail(malformed("the form ends in the middle"))),
        }
    }

    fn fail(&mut self, violation: Violation) -> Violation {
        self.state = State::Failed(violation);
        self.head = Vec::new();
        violation
    }

    fn step<'a>(&mut self, input: &mut &'a [u8]) -> Result<Found<'a>, Violation> {
        loop {
            match self.state {
                State::Failed(violation) => return Err(violation),
                State::Data if self.matched == 0 => match self.data(input)? {
                    Found::Nothing if self.matched > 0 => {}
                    found => return Ok(found),
                },
                State::Start => {
                    let Some(byte) = input.first() else { return Ok(Found::Nothing) };
                    // The first has no line in front of it, or an empty one.
                    self.matched = if *byte == b'\r' { 0 } else { 2 };
                    self.state = State::First;
                }
                State::First | State::Data => {
                    let wanted = &self.delimiter[self.matched..];
                    let compared = wanted.len().min(input.len());
                    if input[..compared] != wanted[..compared] {
                        if self.state == State::First {
                            return Err(malformed("the form does not begin with its boundary"));
                        }
                        let held = std::mem::take(&mut self.matched);
                        return self.some_data(held).map(Found::Held);
                    }
                    self.matched += compared;
                    *input = &input[compared..];
                    if self.matched < self.delimiter.len() {
                        return Ok(Found::Nothing);
                    }
                    self.matched = 0;
                    let was_in_part = std::mem::replace(&mut self.state, State::Behind(None)) == State::Data;
                    if was_in_part {
                        return Ok(Found::PartEnd);
                    }
                }
                State::Headers => {
                    if self.headers(input)? {
                        (self.state, self.part_bytes) = (State::Data, 0);
                        return Ok(Found::Part);
                    }
                    return Ok(Found::Nothing);
                }
                State::Behind(_) | State::Epilogue(_) => {
                    let Some((&byte, rest)) = input.split_first() else { return Ok(Found::Nothing) };
                    *input = rest;
                    self.state = self.behind(byte)?;
                }
            }
        }
    }

    /// A byte behind a delimiter.
    fn behind(&mut self, byte: u8) -> Result<State, Violation> {
        match (self.state, byte) {
            (State::Behind(None), b'\r' | b'-') => Ok(State::Behind(Some(byte))),
            (State::Behind(Some(b'\r')), b'\n') => {
                self.parts += 1;
                if self.parts > self.limits.parts_max {
                    return Err(Violation::TooLarge("the form has too many parts"));
                }
                Ok(State::Headers)
            }
            (State::Behind(Some(b'-')), b'-') => Ok(State::Epilogue(0)),
            (State::Epilogue(0), b'\r') => Ok(State::Epilogue(1)),
            (State::Epilogue(1), b'\n') => Ok(State::Epilogue(2)),
            (State::Epilogue(_), _) => Err(malformed("something follows the end of the form")),
            _ => Err(malformed("a boundary is followed by neither a line end nor two dashes")),
        }
    }

    /// Gathers a header section; true when it is there, with its empty line.
    fn headers(&mut self, input: &mut &[u8]) -> Result<bool, Violation> {
        while let Some((&byte, rest)) = input.split_first() {
            *input = rest;
            if self.head.len() == self.limits.header_bytes_max {
                return Err(Violation::TooLarge("the headers of a part have too many bytes"));
            }
            self.head.push(byte);
            if byte == b'\n' && (self.head.ends_with(b"\r\n\r\n") || self.head == b"\r\n") {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Data up to a delimiter, or to what may become one.
    fn data<'a>(&mut self, input: &mut &'a [u8]) -> Result<Found<'a>, Violation> {
        let (data_bytes, matched) = match self.finder.find(input) {
            Some(0) => (0, self.delimiter.len()),
            Some(at) => (at, 0),
            None => {
                // CR is the first byte of a delimiter and no other, so the last one decides.
                let tail = input.len().saturating_sub(self.delimiter.len() - 1);
                let begins = memrchr(b'\r', &input[tail..]).map(|at| tail + at);
                match begins.filter(|&at| self.delimiter.starts_with(&input[at..])) {
                    Some(0) => (0, input.len()),
                    Some(at) => (at, 0),
                    None => (input.len(), 0),
                }
            }
        };
        if matched > 0 {
            // What is matched here is looked at where matches go on.
            self.matched = 1;
            *input = &input[1..];
            return Ok(Found::Nothing);
        }
        let data_bytes = self.some_data(data_bytes)?;
        let (data, rest) = input.split_at(data_bytes);
        *input = rest;
        Ok(if data.is_empty() { Found::Nothing } else { Found::Data(data) })
    }

    /// So many bytes of data, or as many as the part may still have; behind those it fails.
    fn some_data(&mut self, bytes: usize) -> Result<usize, Violation> {
        const TOO_LARGE: Violation = Violation::TooLarge("a part of the form has too many bytes");
        let left = self.limits.part_bytes_max - self.part_bytes;
        let most = usize::try_from(left).unwrap_or(usize::MAX);
        if bytes > most {
            if most == 0 {
                return Err(TOO_LARGE);
            }
            self.state = State::Failed(TOO_LARGE);
        }
        let bytes = bytes.min(most);
        self.part_bytes += bytes as u64;
        Ok(bytes)
    }
}

/// As [`Step`], with what lies in the parser by its length.
enum Found<'a> {
    Nothing,
    Part,
    Data(&'a [u8]),
    Held(usize),
    PartEnd,
}

/// Whether it may be a boundary: `bcharsnospace`, and no space at its end.
pub fn is_boundary(boundary: &[u8]) -> bool {
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(byte);
    (1..=BOUNDARY_BYTES_MAX).contains(&boundary.len())
        && boundary.iter().all(is_allowed)
        && !boundary.ends_with(b" ")
}
