//! zstd (RFC 8878), by the library of its authors.

use zstd::stream::raw::{self, CParameter, DParameter, InBuffer, Operation, OutBuffer};

use super::decode::{Step, Stepped, Undecoded};
use super::encode::Stuck;

/// How far back a copy may reach, as a power of two: 256 KiB, as Brotli's here. Level 3 would take 2 MiB for each stream in flight.
const WINDOW_BITS: u32 = 18;

/// The most that a sender may ask for: 8 MiB (RFC 9659).
const WINDOW_BITS_MAX: u32 = 23;

/// What is made room for at a time.
const ROOM_BYTES: usize = 4096;

pub struct Encoder(raw::Encoder<'static>);

impl Encoder {
    pub fn new(level: u8) -> Result<Self, Stuck> {
        let mut state = raw::Encoder::new(i32::from(level)).map_err(|_| Stuck)?;
        state.set_parameter(CParameter::WindowLog(WINDOW_BITS)).map_err(|_| Stuck)?;
        Ok(Self(state))
    }

    pub fn write(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Stuck> {
        let mut input = InBuffer::around(bytes);
        while input.pos() < bytes.len() {
            append(out, |room| self.0.run(&mut input, room))?;
        }
        Ok(())
    }

    pub fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), Stuck> {
        while append(out, |room| self.0.flush(room))? > 0 {}
        Ok(())
    }

    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Stuck> {
        while append(out, |room| self.0.finish(room, true))? > 0 {}
        self.0.reinit().map_err(|_| Stuck)
    }
}

/// Makes room, and keeps of it what was written.
fn append(
    out: &mut Vec<u8>,
    act: impl FnOnce(&mut OutBuffer<'_, [u8]>) -> std::io::Result<usize>,
) -> Result<usize, Stuck> {
    let len = out.len();
    out.resize(len + ROOM_BYTES, 0);
    let mut room = OutBuffer::around(&mut out[len..]);
    let result = act(&mut room);
    let made = room.pos();
    out.truncate(len + made);
    result.map_err(|_| Stuck)
}

/// As much memory as the window that the sender names, up to 8 MiB.
pub struct Decoder(raw::Decoder<'static>);

impl Decoder {
    pub fn new() -> Result<Self, Undecoded> {
        let mut state = raw::Decoder::new().map_err(|_| Undecoded::Unknown)?;
        state.set_parameter(DParameter::WindowLogMax(WINDOW_BITS_MAX)).map_err(|_| Undecoded::Unknown)?;
        Ok(Self(state))
    }
}

impl Step for Decoder {
    fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<Stepped, Undecoded> {
        let mut from = InBuffer::around(input);
        let mut to = OutBuffer::around(out);
        let left = self.0.run(&mut from, &mut to).map_err(|_| Undecoded::Malformed)?;
        Ok(Stepped { read: from.pos(), made: to.pos(), is_end: left == 0 })
    }

    /// The next frame: the decoder is ready for it.
    fn go_on(&mut self) -> bool {
        true
    }
}
