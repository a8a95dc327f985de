//! gzip (RFC 1952), by zlib-rs.

use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, Inflate, InflateFlush, Status};

use super::decode::{Step, Stepped, Undecoded};
use super::encode::Stuck;

/// The largest window, with gzip around it: what zlib calls 31.
const GZIP_WINDOW_BITS: u8 = 16 + 15;

/// What is made room for at a time.
const ROOM_BYTES: usize = 4096;

/// 270 KiB.
pub struct Encoder(Deflate);

impl Encoder {
    pub fn new(level: u8) -> Self {
        let config = DeflateConfig {
            level: i32::from(level),
            window_bits: i32::from(GZIP_WINDOW_BITS),
            ..DeflateConfig::default()
        };
        Self(Deflate::new_with_config(config))
    }

    pub fn write(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Stuck> {
        self.run(bytes, out, DeflateFlush::NoFlush)
    }

    pub fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), Stuck> {
        self.run(&[], out, DeflateFlush::SyncFlush)
    }

    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Stuck> {
        self.run(&[], out, DeflateFlush::Finish)?;
        self.0.reset();
        Ok(())
    }

    fn run(&mut self, mut bytes: &[u8], out: &mut Vec<u8>, flush: DeflateFlush) -> Result<(), Stuck> {
        loop {
            let len = out.len();
            out.resize(len + ROOM_BYTES, 0);
            let (seen, made) = (self.0.total_in(), self.0.total_out());
            let status = self.0.compress(bytes, &mut out[len..], flush);
            let made = (self.0.total_out() - made) as usize;
            out.truncate(len + made);
            bytes = &bytes[(self.0.total_in() - seen) as usize..];
            match status {
                Ok(Status::StreamEnd) => return Ok(()),
                // There was room left, so all is written that is to be.
                Ok(_) if bytes.is_empty() && made < ROOM_BYTES && flush != DeflateFlush::Finish => {
                    return Ok(());
                }
                Ok(_) if made > 0 || !bytes.is_empty() => {}
                _ => return Err(Stuck),
            }
        }
    }
}

/// 47 KiB.
pub struct Decoder(Inflate);

impl Decoder {
    pub fn new() -> Self {
        Self(Inflate::new(true, GZIP_WINDOW_BITS))
    }
}

impl Step for Decoder {
    fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<Stepped, Undecoded> {
        let (seen, made) = (self.0.total_in(), self.0.total_out());
        let status =
            self.0.decompress(input, out, InflateFlush::NoFlush).map_err(|_| Undecoded::Malformed)?;
        Ok(Stepped {
            read: (self.0.total_in() - seen) as usize,
            made: (self.0.total_out() - made) as usize,
            is_end: status == Status::StreamEnd,
        })
    }

    /// The next member of a file of several.
    fn go_on(&mut self) -> bool {
        *self = Self::new();
        true
    }
}
