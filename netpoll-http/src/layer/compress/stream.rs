//! A body that is compressed while it leaves.
//!
//! Invariant: what its source has written before it waits, or has nothing for now, was flushed; at most a share of it is compressed before others get their turn.

use std::task::Context;

use super::pool::Lease;
use crate::coding::Stuck;
use crate::message::{BodyBuf, BodyStream, OutFraming, Pull, Source};

/// What is compressed of one body before others get their turn. A millisecond of gzip, about.
pub const SHARE_BYTES: usize = 32 * 1024;

/// What is compressed of bytes that are there before room in the queue is looked for.
const PIECE_BYTES: usize = 16 * 1024;

pub struct Pressed {
    /// There until the end.
    lease: Option<Lease>,
    source: Source,
    /// Something was written that was not flushed.
    holds: bool,
    /// Compressed since others had their turn.
    share: usize,
    /// Compressed since somebody asked.
    coded: usize,
}

impl Pressed {
    pub fn new(lease: Lease, source: Source) -> Self {
        Self { lease: Some(lease), source, holds: false, share: 0, coded: 0 }
    }

    /// Compresses the next piece of the source. How long it was, and what the source says.
    fn piece(&mut self, context: &mut Context<'_>, out: &mut Vec<u8>) -> Result<(usize, Pull), Stuck> {
        let Some(lease) = &mut self.lease else { return Ok((0, Pull::Done)) };
        match &mut self.source {
            Source::Bytes(bytes) => {
                let piece = bytes.split_to(bytes.len().min(PIECE_BYTES));
                lease.encoder().write(&piece, out)?;
                Ok((piece.len(), if bytes.is_empty() { Pull::Done } else { Pull::More }))
            }
            Source::Stream(stream, framing) => {
                let pool = std::rc::Rc::clone(lease.pool());
                pool.with_scratch(|scratch| {
                    let pulled = stream.pull(context, &mut BodyBuf::new(scratch));
                    let pulled = match framing {
                        OutFraming::Remaining(owed) => cut(scratch, owed, pulled),
                        _ => pulled,
                    };
                    if !scratch.is_empty() {
                        lease.encoder().write(scratch, out)?;
                    }
                    Ok((scratch.len(), pulled))
                })
            }
        }
    }

    fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), Stuck> {
        match &mut self.lease {
            Some(lease) if std::mem::take(&mut self.holds) => lease.encoder().flush(out),
            _ => Ok(()),
        }
    }

    fn go_on(&mut self, context: &mut Context<'_>, out: &mut Vec<u8>) -> Result<Pull, Stuck> {
        if self.share >= SHARE_BYTES {
            // Nothing, and others get their turn.
            self.share = 0;
            return Ok(Pull::More);
        }
        let start = out.len();
        loop {
            let (bytes, pulled) = self.piece(context, out)?;
            self.share += bytes;
            self.coded += bytes;
            self.holds |= bytes > 0;
            match pulled {
                Pull::More if bytes > 0 => {
                    if out.len() > start || self.share >= SHARE_BYTES {
                        return Ok(Pull::More);
                    }
                }
                Pull::More | Pull::Wait => {
                    self.share = 0;
                    self.flush(out)?;
                    return Ok(pulled);
                }
                Pull::Done => {
                    if let Some(mut lease) = self.lease.take() {
                        lease.encoder().finish(out)?;
                        lease.give_back();
                    }
                    return Ok(Pull::Done);
                }
                Pull::Failed => return Ok(Pull::Failed),
            }
        }
    }
}

impl BodyStream for Pressed {
    fn pull(&mut self, context: &mut Context<'_>, out: &mut BodyBuf<'_>) -> Pull {
        self.go_on(context, out.bytes_mut()).unwrap_or(Pull::Failed)
    }

    fn take_coded_bytes(&mut self) -> usize {
        std::mem::take(&mut self.coded)
    }
}

/// Holds a stream to the length that it has promised.
fn cut(piece: &mut Vec<u8>, owed: &mut u64, pulled: Pull) -> Pull {
    piece.truncate(usize::try_from(*owed).unwrap_or(usize::MAX));
    *owed -= piece.len() as u64;
    match pulled {
        _ if *owed == 0 => Pull::Done,
        Pull::Done => Pull::Failed,
        pulled => pulled,
    }
}
