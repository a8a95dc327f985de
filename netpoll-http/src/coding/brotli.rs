//! Brotli (RFC 7932), by the crate of that name.

use std::io::Write;

use brotli::enc::BrotliEncoderParams;
use brotli::{BrotliDecompressStream, BrotliResult, BrotliState, CompressorWriter};

use super::decode::{Step, Stepped, Undecoded};
use super::encode::Stuck;

/// How far back a copy may reach, as a power of two: 256 KiB. The largest there is, 16 MiB, is memory for each stream in flight.
const WINDOW_BITS: i32 = 18;

/// What it takes in before it hands something on.
const BUFFER_BYTES: usize = 4096;

/// Cannot be reset: its memory is allocated anew for each content.
pub struct Encoder {
    quality: u8,
    state: Option<Box<CompressorWriter<Vec<u8>>>>,
}

impl Encoder {
    pub fn new(quality: u8) -> Self {
        Self { quality, state: None }
    }

    pub fn write(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Stuck> {
        self.run(out, |state| state.write_all(bytes))
    }

    pub fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), Stuck> {
        self.run(out, CompressorWriter::flush)
    }

    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Stuck> {
        self.state();
        if let Some(state) = self.state.take() {
            out.append(&mut state.into_inner());
        }
        Ok(())
    }

    fn state(&mut self) -> &mut CompressorWriter<Vec<u8>> {
        self.state.get_or_insert_with(|| {
            let params = BrotliEncoderParams {
                quality: i32::from(self.quality),
                lgwin: WINDOW_BITS,
                ..BrotliEncoderParams::default()
            };
            Box::new(CompressorWriter::with_params(Vec::new(), BUFFER_BYTES, &params))
        })
    }

    fn run(
        &mut self,
        out: &mut Vec<u8>,
        act: impl FnOnce(&mut CompressorWriter<Vec<u8>>) -> std::io::Result<()>,
    ) -> Result<(), Stuck> {
        let state = self.state();
        act(state).map_err(|_| Stuck)?;
        out.append(state.get_mut());
        Ok(())
    }
}

/// As much memory as the window that the sender names, up to 16 MiB.
pub struct Decoder(
    Box<BrotliState<brotli::enc::StandardAlloc, brotli::enc::StandardAlloc, brotli::enc::StandardAlloc>>,
);

impl Decoder {
    pub fn new() -> Self {
        let memory = brotli::enc::StandardAlloc::default;
        Self(Box::new(BrotliState::new(memory(), memory(), memory())))
    }
}

impl Step for Decoder {
    fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<Stepped, Undecoded> {
        let (mut input_left, mut read, mut room, mut made, mut total) = (input.len(), 0, out.len(), 0, 0);
        let result = BrotliDecompressStream(
            &mut input_left,
            &mut read,
            input,
            &mut room,
            &mut made,
            out,
            &mut total,
            &mut self.0,
        );
        match result {
            BrotliResult::ResultFailure => Err(Undecoded::Malformed),
            BrotliResult::ResultSuccess => Ok(Stepped { read, made, is_end: true }),
            BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {
                Ok(Stepped { read, made, is_end: false })
            }
        }
    }
}
