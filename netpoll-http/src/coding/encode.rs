//! One coder of any kind: bytes in, coded bytes appended.
//!
//! Invariant: a coder that has finished begins anew with the next byte. One that has not, because what it coded was given up, is
//! dropped, not reused.

use super::Coding;
#[cfg(feature = "br")]
use super::brotli;
use super::gzip;
#[cfg(feature = "zstd")]
use super::zstandard;

/// How hard each coder tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// 1 to 9.
    pub gzip: u8,
    /// 0 to 11.
    pub br: u8,
    /// 1 to 19.
    pub zstd: u8,
}

/// There is no memory for a coder, or it has failed for another reason of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stuck;

/// Codes one content after the other.
pub enum Encoder {
    /// 0.3 MiB.
    Gzip(gzip::Encoder),
    /// Its memory is there while it codes.
    #[cfg(feature = "br")]
    Br(brotli::Encoder),
    /// 1.3 MiB.
    #[cfg(feature = "zstd")]
    Zstd(zstandard::Encoder),
}

/// Calls the same method of each kind.
macro_rules! each {
    ($encoder:expr, $inner:ident => $call:expr) => {
        match $encoder {
            Encoder::Gzip($inner) => $call,
            #[cfg(feature = "br")]
            Encoder::Br($inner) => $call,
            #[cfg(feature = "zstd")]
            Encoder::Zstd($inner) => $call,
        }
    };
}

impl Encoder {
    /// One that has coded nothing.
    ///
    /// # Errors
    /// There is no memory for it, or this build does not have it.
    pub fn new(coding: Coding, levels: Levels) -> Result<Self, Stuck> {
        match coding {
            Coding::Gzip => Ok(Self::Gzip(gzip::Encoder::new(levels.gzip))),
            #[cfg(feature = "br")]
            Coding::Br => Ok(Self::Br(brotli::Encoder::new(levels.br))),
            #[cfg(feature = "zstd")]
            Coding::Zstd => zstandard::Encoder::new(levels.zstd).map(Self::Zstd),
            #[cfg(not(all(feature = "br", feature = "zstd")))]
            _ => Err(Stuck),
        }
    }

    /// What it makes.
    pub fn coding(&self) -> Coding {
        match self {
            Self::Gzip(_) => Coding::Gzip,
            #[cfg(feature = "br")]
            Self::Br(_) => Coding::Br,
            #[cfg(feature = "zstd")]
            Self::Zstd(_) => Coding::Zstd,
        }
    }

    /// Takes all of `bytes`, and appends what has come out by now.
    ///
    /// # Errors
    /// It is stuck.
    pub fn write(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Stuck> {
        each!(self, encoder => encoder.write(bytes, out))
    }

    /// Appends what a decoder needs to have all that was written.
    ///
    /// # Errors
    /// It is stuck.
    pub fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), Stuck> {
        each!(self, encoder => encoder.flush(out))
    }

    /// Appends the end.
    ///
    /// # Errors
    /// It is stuck.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Stuck> {
        each!(self, encoder => encoder.finish(out))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Bounds, Undecoded, decode};
    use super::*;

    const LEVELS: Levels = Levels { gzip: 6, br: 4, zstd: 3 };

    fn encoders() -> impl Iterator<Item = Encoder> {
        Coding::ALL.into_iter().filter_map(|coding| Encoder::new(coding, LEVELS).ok())
    }

    fn decoded(coding: Coding, bytes: &[u8]) -> Result<Vec<u8>, Undecoded> {
        decode(coding, bytes, Bounds { bytes_max: 1 << 20, ratio_max: usize::MAX })
    }

    /// What a decoder has when so much has come.
    fn begun(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        use super::super::decode::Step;
        let mut out = vec![0; 1 << 20];
        let mut all = |mut decoder: Box<dyn Step>| {
            let (mut read, mut made) = (0, 0);
            loop {
                let stepped = decoder.step(&bytes[read..], &mut out[made..]).expect("what was coded");
                (read, made) = (read + stepped.read, made + stepped.made);
                if stepped.read + stepped.made == 0 || stepped.is_end {
                    return made;
                }
            }
        };
        let made = match coding {
            Coding::Gzip => all(Box::new(gzip::Decoder::new())),
            #[cfg(feature = "br")]
            Coding::Br => all(Box::new(brotli::Decoder::new())),
            #[cfg(feature = "zstd")]
            Coding::Zstd => all(Box::new(zstandard::Decoder::new().expect("memory"))),
            #[cfg(not(all(feature = "br", feature = "zstd")))]
            _ => unreachable!("there is no coder for it"),
        };
        out.truncate(made);
        out
    }

    #[test]
    fn behind_a_flush_a_decoder_has_all_that_was_written() {
        for mut encoder in encoders() {
            let (mut out, mut written) = (Vec::new(), Vec::new());
            for event in 0..50 {
                let event = format!("data: {event} {}\n\n", "x".repeat(event * 37));
                written.extend_from_slice(event.as_bytes());
                encoder.write(event.as_bytes(), &mut out).expect("memory");
                encoder.flush(&mut out).expect("memory");
                assert!(begun(encoder.coding(), &out) == written, "{:?}", encoder.coding());
            }
            encoder.finish(&mut out).expect("memory");
            assert!(decoded(encoder.coding(), &out).as_deref() == Ok(&written[..]), "{:?}", encoder.coding());
        }
    }

    #[test]
    fn a_coder_that_has_finished_begins_anew() {
        for mut encoder in encoders() {
            let mut first = Vec::new();
            for round in 0..3 {
                let mut out = Vec::new();
                for piece in [&b"some "[..], b"", &[b'a'; 100_000], b"end"] {
                    encoder.write(piece, &mut out).expect("memory");
                }
                encoder.finish(&mut out).expect("memory");
                let whole = [&b"some "[..], &[b'a'; 100_000], b"end"].concat();
                assert!(
                    decoded(encoder.coding(), &out) == Ok(whole),
                    "{:?}, round {round}",
                    encoder.coding()
                );
                if round == 0 {
                    first = out;
                } else {
                    assert!(out == first, "{:?}: nothing is left of what was before", encoder.coding());
                }
            }
            let mut empty = Vec::new();
            encoder.finish(&mut empty).expect("memory");
            assert_eq!(decoded(encoder.coding(), &empty), Ok(Vec::new()));
        }
    }
}
