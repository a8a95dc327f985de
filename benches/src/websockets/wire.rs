//! Frames as a client makes them, right or wrong, and as a server's are read.

/// What a client masks with.
pub const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// A frame that a client sends.
#[derive(Clone, Copy)]
pub struct Out<'p> {
    pub fin: bool,
    /// The three reserved bits, the first as 4.
    pub rsv: u8,
    pub opcode: u8,
    pub payload: &'p [u8],
    pub is_masked: bool,
    /// Bytes of the extended length, where it is not the shortest.
    pub length_bytes: Option<usize>,
}

impl<'p> Out<'p> {
    pub fn new(opcode: u8, payload: &'p [u8]) -> Self {
        Self { fin: true, rsv: 0, opcode, payload, is_masked: true, length_bytes: None }
    }

    pub fn more(self) -> Self {
        Self { fin: false, ..self }
    }

    pub fn rsv(self, rsv: u8) -> Self {
        Self { rsv, ..self }
    }

    pub fn bytes(self) -> Vec<u8> {
        let len = self.payload.len();
        let shortest = match len {
            0..=125 => 0,
            126..=65_535 => 2,
            _ => 8,
        };
        let mut bytes = vec![u8::from(self.fin) << 7 | self.rsv << 4 | self.opcode];
        let masked = u8::from(self.is_masked) << 7;
        match self.length_bytes.unwrap_or(shortest) {
            0 => bytes.push(masked | len as u8),
            2 => {
                bytes.push(masked | 126);
                bytes.extend((len as u16).to_be_bytes());
            }
            _ => {
                bytes.push(masked | 127);
                bytes.extend((len as u64).to_be_bytes());
            }
        }
        if self.is_masked {
            bytes.extend(MASK);
            bytes.extend(self.payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        } else {
            bytes.extend(self.payload);
        }
        bytes
    }
}

pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    Out::new(opcode, payload).bytes()
}

/// A Close with a code and a reason.
pub fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(CLOSE, &[&code.to_be_bytes()[..], reason].concat())
}

/// A frame that a server has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub fin: bool,
    pub rsv: u8,
    pub opcode: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn code(&self) -> Option<u16> {
        self.payload.first_chunk().map(|code| u16::from_be_bytes(*code))
    }
}

/// The frames that are there as a whole, and how many bytes they have; or what is wrong with one.
pub fn read(bytes: &[u8]) -> Result<(Vec<Frame>, usize), String> {
    let (mut frames, mut at) = (Vec::new(), 0);
    while let Some((frame, len)) = read_one(&bytes[at..])? {
        at += len;
        frames.push(frame);
    }
    Ok((frames, at))
}

fn read_one(bytes: &[u8]) -> Result<Option<(Frame, usize)>, String> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    let (fin, rsv, opcode) = (first >> 7 == 1, first >> 4 & 7, first & 15);
    if second >> 7 == 1 {
        return Err("the server masks".to_owned());
    }
    if !matches!(opcode, CONTINUATION..=BINARY | CLOSE..=PONG) {
        return Err(format!("the server sends a frame of opcode {opcode}"));
    }
    let (len, head) = match second & 127 {
        126 => match rest.first_chunk() {
            Some(len) => (u64::from(u16::from_be_bytes(*len)), 4),
            None => return Ok(None),
        },
        127 => match rest.first_chunk() {
            Some(len) => (u64::from_be_bytes(*len), 10),
            None => return Ok(None),
        },
        len => (u64::from(len), 2),
    };
    let shortest = match len {
        0..=125 => 2,
        126..=65_535 => 4,
        _ => 10,
    };
    if head != shortest {
        return Err(format!("the server says a length of {len} in a head of {head} bytes"));
    }
    if opcode >= CLOSE && (!fin || len > 125 || rsv != 0) {
        return Err(format!("the server sends a control frame of {len} bytes, fin {fin}, rsv {rsv}"));
    }
    let Some(payload) = usize::try_from(len).ok().and_then(|len| bytes.get(head..head + len)) else {
        return Ok(None);
    };
    Ok(Some((Frame { fin, rsv, opcode, payload: payload.to_vec() }, head + payload.len())))
}

/// A message as it was put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub is_text: bool,
    pub payload: Vec<u8>,
    pub is_compressed: bool,
}

impl Message {
    pub fn text(text: impl AsRef<[u8]>) -> Self {
        Self { is_text: true, payload: text.as_ref().to_vec(), is_compressed: false }
    }

    pub fn binary(bytes: impl AsRef<[u8]>) -> Self {
        Self { is_text: false, payload: bytes.as_ref().to_vec(), is_compressed: false }
    }
}

/// The whole messages of these frames, or what is wrong with how they follow one another.
pub fn messages(frames: &[Frame]) -> Result<Vec<Message>, String> {
    let (mut messages, mut open): (Vec<Message>, Option<Message>) = (Vec::new(), None);
    for frame in frames.iter().filter(|frame| frame.opcode < CLOSE) {
        let mut message = match (frame.opcode, open.take()) {
            (CONTINUATION, Some(open)) if frame.rsv == 0 => open,
            (TEXT | BINARY, None) if frame.rsv & 3 == 0 => {
                Message { is_text: frame.opcode == TEXT, payload: Vec::new(), is_compressed: frame.rsv == 4 }
            }
            _ => return Err(format!("the server sends opcode {} out of place", frame.opcode)),
        };
        message.payload.extend(&frame.payload);
        if frame.fin {
            messages.push(message);
        } else {
            open = Some(message);
        }
    }
    Ok(messages)
}
