//! A client of frames: says what it is told to, right or wrong, and shows what came back.
//!
//! Fields are sent as literals, without Huffman codes and without the table; of those that come back the status is read, all others are for
//! clients that know how.

use netpoll_http::{TestClient, TestConnection};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const INTERNAL_ERROR: u32 = 2;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const COMPRESSION_ERROR: u32 = 9;
pub const ENHANCE_YOUR_CALM: u32 = 11;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Settings of a client that has no table of fields, so that its answers can be read.
const NO_TABLE: [u8; 6] = [0, 1, 0, 0, 0, 0];

/// The fields of a usual request.
pub const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// A frame as bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![a, b, c, kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Fields as a block.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            // A length of seven bits, and what is above it.
            let length = text.len();
            if length < 127 {
                bytes.push(length as u8);
            } else {
                bytes.push(127);
                let mut left = length - 127;
                while left >= 128 {
                    bytes.push((left % 128) as u8 | 128);
                    left /= 128;
                }
                bytes.push(left as u8);
            }
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}

/// What came back of one request.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub status: Option<u16>,
    pub body: Vec<u8>,
    /// Its last frame said so.
    pub is_whole: bool,
    pub reset: Option<u32>,
    pub data_frames: usize,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

pub struct Peer {
    pub connection: TestConnection,
    left: Vec<u8>,
    pub frames: Vec<Frame>,
}

impl Peer {
    /// A connection on which nothing was said.
    pub fn silent(client: &TestClient) -> Self {
        Self { connection: client.connect(), left: Vec::new(), frames: Vec::new() }
    }

    /// A connection that has begun.
    pub fn new(client: &TestClient) -> Self {
        Self::with(client, &[])
    }

    /// The same with settings of the client.
    pub fn with(client: &TestClient, settings: &[(u16, u32)]) -> Self {
        let mut peer = Self::silent(client);
        let mut all = NO_TABLE.to_vec();
        for (name, value) in settings {
            all.extend_from_slice(&name.to_be_bytes());
            all.extend_from_slice(&value.to_be_bytes());
        }
        peer.raw(&[PREFACE, &frame(SETTINGS, 0, 0, &all)].concat());
        peer.raw(&frame(SETTINGS, ACK, 0, &[]));
        peer
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        self.connection.send(bytes);
        self.take();
    }

    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.raw(&frame(kind, flags, stream, payload));
    }

    /// Sends the head of a request.
    pub fn ask(&mut self, stream: u32, fields: &[(&str, &str)], is_whole: bool) {
        let flags = END_HEADERS | if is_whole { END_STREAM } else { 0 };
        self.send(HEADERS, flags, stream, &block(fields));
    }

    /// Sends a request and shows what came back.
    pub fn get(&mut self, stream: u32, path: &str) -> Answer {
        self.ask(stream, &with(&[(":path", path)]), true);
        self.answer(stream)
    }

    /// Takes in what has come.
    pub fn take(&mut self) {
        self.left.extend(self.connection.received());
        while self.left.len() >= 9 {
            let length = u32::from_be_bytes([0, self.left[0], self.left[1], self.left[2]]) as usize;
            if self.left.len() < 9 + length {
                break;
            }
            let bytes: Vec<u8> = self.left.drain(..9 + length).collect();
            let stream = u32::from_be_bytes(bytes[5..9].try_into().unwrap());
            self.frames.push(Frame { kind: bytes[3], flags: bytes[4], stream, payload: bytes[9..].to_vec() });
        }
    }

    pub fn of(&self, kind: u8) -> impl Iterator<Item = &Frame> {
        self.frames.iter().filter(move |frame| frame.kind == kind)
    }

    /// What has come of an answer by now.
    pub fn answer(&mut self, stream: u32) -> Answer {
        self.take();
        let mut answer = Answer::default();
        for frame in self.frames.iter().filter(|frame| frame.stream == stream) {
            match frame.kind {
                HEADERS => answer.status = answer.status.or(Some(status(&frame.payload))),
                DATA => {
                    answer.body.extend_from_slice(&frame.payload);
                    answer.data_frames += 1;
                }
                RST_STREAM => answer.reset = Some(code(&frame.payload)),
                _ => continue,
            }
            answer.is_whole |= frame.kind != RST_STREAM && frame.flags & END_STREAM != 0;
        }
        answer
    }

    /// The last stream and the reason of the last goodbye.
    pub fn goodbye(&mut self) -> Option<(u32, u32)> {
        self.take();
        let last = self.of(GOAWAY).last()?;
        Some((code(&last.payload) & (u32::MAX >> 1), code(&last.payload[4..])))
    }

    /// Whether the server has ended the connection, with this reason.
    #[track_caller]
    pub fn assert_over(&mut self, reason: u32) {
        assert_eq!(self.goodbye().map(|(_, reason)| reason), Some(reason), "{:?}", self.frames);
        assert!(self.connection.is_closed(), "{:?}", self.frames);
    }

    /// Whether the connection is as good as ever.
    #[track_caller]
    pub fn assert_well(&mut self, stream: u32) {
        let answer = self.get(stream, "/");
        assert_eq!((answer.status, answer.is_whole), (Some(200), true), "{:?}", self.frames);
        assert!(self.goodbye().is_none() && !self.connection.is_closed(), "{:?}", self.frames);
    }
}

/// The fields of a usual request with these in the place of theirs, or behind them.
pub fn with<'f>(fields: &[(&'f str, &'f str)]) -> Vec<(&'f str, &'f str)> {
    let mut all: Vec<(&str, &str)> = GET.to_vec();
    for (name, value) in fields {
        match all.iter_mut().find(|(known, _)| known == name) {
            Some(known) => known.1 = value,
            None => all.push((name, value)),
        }
    }
    all
}

fn code(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload[..4].try_into().unwrap())
}

/// The status that a block of fields begins with.
fn status(block: &[u8]) -> u16 {
    // The size of the table may be said before.
    let at = block.iter().position(|byte| byte & 0xe0 != 0x20).unwrap();
    match block[at] {
        0x88 => 200,
        0x89 => 204,
        0x8a => 206,
        0x8b => 304,
        0x8c => 400,
        0x8d => 404,
        0x8e => 500,
        // A literal whose name is `:status`, and whose value is in Huffman codes.
        0x48 | 0x08 | 0x18 => {
            let length = usize::from(block[at + 1] & 0x7f);
            let bits: Vec<u8> = block[at + 2..][..length]
                .iter()
                .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1))
                .collect();
            digits(&bits)
        }
        other => panic!("no status: {other:#x} in {block:?}"),
    }
}

/// Three digits (RFC 7541, appendix B): those up to 2 have five bits, the others six.
fn digits(mut bits: &[u8]) -> u16 {
    let mut number = 0;
    for _ in 0..3 {
        let value = |bits: &[u8]| bits.iter().fold(0_u16, |value, bit| value * 2 + u16::from(*bit));
        let short = value(&bits[..5]);
        let (digit, length) = if short < 3 { (short, 5) } else { (value(&bits[..6]) - 0x19 + 3, 6) };
        number = number * 10 + digit;
        bits = &bits[length..];
    }
    number
}
