//! What two processes say to each other when one takes over from the other: messages as bytes.
//!
//! A message is its kind, a zero, the length of the rest in two bytes, and the rest; numbers are little-endian. The first one of each side
//! begins with [`MAGIC`] and the version, and nothing else of a version that the other side does not speak is looked at. Invariant: any
//! bytes are read to an end or to an error, without a panic.

use std::io;

use crate::conn::{SocketKind, SocketName};

/// What both sides begin with.
const MAGIC: &[u8; 16] = b"netpoll-handover";

/// What is spoken here. It changes with the meaning of any message.
pub const VERSION: u16 = 1;

/// The longest message: two names of a socket with their addresses, or the numbers of all sockets.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// The longest reason for a refusal.
const REASON_BYTES_MAX: usize = 1024;

pub const HEADER_BYTES: usize = 4;

/// Who is told how the service is, and how often it wants to hear that it lives (microseconds).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagerName {
    pub address: Vec<u8>,
    pub watchdog_usec: Option<u64>,
}

/// One message. Who follows says the first, and then they take turns; connections come behind one another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// This is what I speak. Both say it.
    Hello { version: u16 },
    /// No, and why.
    Refused(String),
    /// So many sockets follow.
    Offer { sockets: u16, manager: Option<ManagerName> },
    /// A socket, with its descriptor.
    Socket { number: u16, name: SocketName },
    /// Who follows has made everything that can fail.
    Ready,
    /// Then serve.
    GoAhead,
    /// Who follows serves, at these sockets: the other one drains.
    Serving { claimed: Vec<u16> },
    /// A connection that goes on with who follows, with its descriptor, and what its protocol says of it.
    Connection(Vec<u8>),
    /// There are no more of them.
    End,
}

impl Message {
    /// As it is sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![0; HEADER_BYTES];
        out[0] = match self {
            Self::Hello { version } => {
                out.extend_from_slice(MAGIC);
                out.extend_from_slice(&version.to_le_bytes());
                1
            }
            Self::Refused(why) => {
                out.extend_from_slice(cut(why, REASON_BYTES_MAX).as_bytes());
                2
            }
            Self::Offer { sockets, manager } => {
                out.extend_from_slice(&sockets.to_le_bytes());
                if let Some(ManagerName { address, watchdog_usec }) = manager {
                    out.extend_from_slice(&watchdog_usec.unwrap_or(0).to_le_bytes());
                    out.extend_from_slice(address);
                }
                3
            }
            Self::Socket { number, name } => {
                out.extend_from_slice(&number.to_le_bytes());
                let kind = match name.kind {
                    SocketKind::Stream => 0,
                    SocketKind::Datagrams => 1,
                };
                out.extend_from_slice(&[kind, u8::from(name.is_foreign)]);
                put_text(&mut out, &name.asked);
                put_text(&mut out, &name.bound);
                4
            }
            Self::Ready => 5,
            Self::GoAhead => 6,
            Self::Serving { claimed } => {
                claimed.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
                7
            }
            Self::Connection(state) => {
                out.extend_from_slice(state);
                8
            }
            Self::End => 9,
        };
        // Addresses are short, and there are at most `SOCKETS_MAX` numbers.
        let len = u16::try_from(out.len() - HEADER_BYTES).expect("a message is short");
        out[2..HEADER_BYTES].copy_from_slice(&len.to_le_bytes());
        out
    }

    /// How many bytes follow this header.
    ///
    /// # Errors
    /// `InvalidData`: nobody begins like that who speaks this.
    pub fn rest_of(header: [u8; HEADER_BYTES]) -> io::Result<usize> {
        let [kind, zero, low, high] = header;
        let len = usize::from(u16::from_le_bytes([low, high]));
        if kind == 0 || zero != 0 || len > MESSAGE_BYTES_MAX { Err(garbage()) } else { Ok(len) }
    }

    /// Reads what [`to_bytes`](Self::to_bytes) has written, behind its header.
    ///
    /// # Errors
    /// `InvalidData`.
    pub fn read(kind: u8, rest: &[u8]) -> io::Result<Self> {
        let mut rest = Rest(rest);
        let message = match kind {
            1 => {
                if rest.take(MAGIC.len())? != MAGIC {
                    return Err(garbage());
                }
                let version = rest.number()?;
                if version != VERSION {
                    // What else it says is not ours to judge.
                    rest.all();
                }
                Self::Hello { version }
            }
            2 => Self::Refused(String::from_utf8_lossy(rest.all()).into_owned()),
            3 => {
                let sockets = rest.number()?;
                let manager = match rest.0.is_empty() {
                    true => None,
                    false => {
                        let usec = u64::from_le_bytes(rest.array()?);
                        let watchdog_usec = (usec > 0).then_some(usec);
                        Some(ManagerName { watchdog_usec, address: rest.all().to_vec() })
                    }
                };
                Self::Offer { sockets, manager }
            }
            4 => {
                let number = rest.number()?;
                let [kind, is_foreign] = rest.array()?;
                let kind = match kind {
                    0 => SocketKind::Stream,
                    1 => SocketKind::Datagrams,
                    _ => return Err(garbage()),
                };
                let (asked, bound) = (rest.text()?, rest.text()?);
                Self::Socket { number, name: SocketName { kind, asked, bound, is_foreign: is_foreign != 0 } }
            }
            5 => Self::Ready,
            6 => Self::GoAhead,
            7 => {
                let mut claimed = Vec::with_capacity(rest.0.len() / 2);
                while !rest.0.is_empty() {
                    claimed.push(rest.number()?);
                }
                Self::Serving { claimed }
            }
            8 => Self::Connection(rest.all().to_vec()),
            9 => Self::End,
            _ => return Err(garbage()),
        };
        if rest.0.is_empty() { Ok(message) } else { Err(garbage()) }
    }

    /// For people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello { .. } => "hello",
            Self::Refused(_) => "refused",
            Self::Offer { .. } => "offer",
            Self::Socket { .. } => "socket",
            Self::Ready => "ready",
            Self::GoAhead => "go ahead",
            Self::Serving { .. } => "serving",
            Self::Connection(_) => "connection",
            Self::End => "end",
        }
    }
}

/// So much of a text, cut between two characters. (`str::floor_char_boundary` wants Rust 1.91.)
fn cut(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max.min(text.len())).rev().find(|&at| text.is_char_boundary(at));
    &text[..end.unwrap_or(0)]
}

#[cold]
pub fn garbage() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what the other process says is no handover")
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let text = cut(text, usize::from(u8::MAX));
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, len: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or_else(garbage)?;
        self.0 = rest;
        Ok(taken)
    }

    fn all(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let taken = self.take(N)?;
        Ok(taken.try_into().expect("as many were taken"))
    }

    fn number(&mut self) -> io::Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn text(&mut self) -> io::Result<String> {
        let [len] = self.array()?;
        let bytes = self.take(usize::from(len))?;
        String::from_utf8(bytes.to_vec()).map_err(|_| garbage())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> io::Result<Message> {
        let header = *bytes.first_chunk().unwrap();
        assert_eq!(Message::rest_of(header).unwrap(), bytes.len() - HEADER_BYTES);
        Message::read(header[0], &bytes[HEADER_BYTES..])
    }

    #[test]
    fn what_is_written_is_read_again() {
        let name = SocketName {
            kind: SocketKind::Datagrams,
            asked: "[::]:0".to_owned(),
            bound: "[::]:53".to_owned(),
            is_foreign: true,
        };
        let manager = ManagerName { address: b"@notify".to_vec(), watchdog_usec: Some(7) };
        let messages = [
            Message::Hello { version: VERSION },
            Message::Refused("no".to_owned()),
            Message::Offer { sockets: 3, manager: None },
            Message::Offer { sockets: 3, manager: Some(manager) },
            Message::Socket { number: 4095, name },
            Message::Ready,
            Message::GoAhead,
            Message::Serving { claimed: (0..4096).collect() },
            Message::Connection(b"state".to_vec()),
            Message::Connection(Vec::new()),
            Message::End,
        ];
        for message in messages {
            let bytes = message.to_bytes();
            assert!(bytes.len() <= MESSAGE_BYTES_MAX, "{message:?}");
            assert_eq!(read(&bytes).unwrap(), message);
        }
    }

    #[test]
    fn of_another_version_only_the_number_is_read() {
        let mut bytes = Message::Hello { version: 77 }.to_bytes();
        bytes.extend_from_slice(b"and more");
        bytes[2] += 8;
        assert_eq!(read(&bytes).unwrap(), Message::Hello { version: 77 });
    }

    #[test]
    fn a_long_reason_is_cut_between_two_characters() {
        let Message::Refused(why) = read(&Message::Refused("\u{20ac}".repeat(1000)).to_bytes()).unwrap()
        else {
            panic!("it is a refusal");
        };
        assert_eq!(why, "\u{20ac}".repeat(341));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_an_end(
            header in any::<[u8; HEADER_BYTES]>(),
            kind in 0..11_u8,
            rest in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let _ = Message::rest_of(header);
            let _ = Message::read(kind, &rest);
        }
    }
}
