//! The body of an answer, in pieces that are made when the client takes more.
//!
//! Invariant: no piece is made before the one in front of it was taken by the stream's window, or found room in the little that may wait
//! for that. What was promised is what is sent, or the stream is reset.

use std::fmt;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use hyper::body::{Body, Frame, SizeHint};
use netpoll_core::FileRange;

use super::intake::Ends;
use super::line::Line;
use super::tale::{Leaving, Tale};
use crate::h1::{Outcome, Service};
use crate::message::{BodyBuf, OutFraming, Outflow, Pull, dropped, guarded_or_told};

/// Bytes of a piece: the usual length of a frame.
const PIECE_BYTES: usize = 16 * 1024;

/// What to reserve for one pull of a stream.
const PULL_BYTES: usize = 4096;

/// Pulls in a row that may bring nothing before a stream is given up: as of HTTP/1.1.
const EMPTY_PULLS_MAX: u32 = 64;

/// An answer, or the body of one, that is not going to be whole: the stream is reset.
#[derive(Debug)]
pub(super) struct BrokenOff;

impl fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer was broken off")
    }
}

impl std::error::Error for BrokenOff {}

/// Bytes on their way out, which count as memory of their connection.
pub(super) struct Piece<S: Service> {
    bytes: Bytes,
    length: usize,
    line: Rc<Line<S>>,
    leaving: Rc<Leaving>,
}

impl<S: Service> Buf for Piece<S> {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, bytes: usize) {
        self.bytes.advance(bytes);
        self.leaving.wrote(bytes);
    }
}

impl<S: Service> Drop for Piece<S> {
    fn drop(&mut self) {
        self.leaving.lost(self.bytes.len());
        self.line.let_go(self.length);
    }
}

/// Where a body comes from.
pub(super) enum Source {
    /// Bytes of the program itself, which cost no memory.
    Static(Bytes),
    Bytes(Bytes),
    File(FileRange, u64),
    Stream(Outflow),
}

impl Source {
    /// What of it counts as memory before it is in pieces.
    fn counted_bytes(&self) -> usize {
        if let Self::Bytes(bytes) = self { bytes.len() } else { 0 }
    }
}

pub(super) struct Outgoing<S: Service> {
    source: Option<Source>,
    tale: Rc<Tale<S>>,
    empty_pulls: u32,
    /// What the answer reads on of its request.
    _reads: Option<Ends<S>>,
}

impl<S: Service> Outgoing<S> {
    pub(super) fn new(tale: Rc<Tale<S>>, source: Source, reads: Option<Ends<S>>) -> Self {
        tale.line.made(source.counted_bytes());
        let mut outgoing = Self { source: Some(source), tale, empty_pulls: 0, _reads: reads };
        let is_empty = match &outgoing.source {
            Some(Source::Static(bytes) | Source::Bytes(bytes)) => bytes.is_empty(),
            Some(Source::File(range, _)) => range.length() == 0,
            _ => false,
        };
        if is_empty {
            outgoing.finish();
        }
        outgoing
    }

    /// All of it was handed on.
    fn finish(&mut self) {
        self.let_go();
        self.tale.is_whole();
    }

    /// It is the program's.
    fn let_go(&mut self) {
        self.tale.line.let_go(self.source.as_ref().map_or(0, Source::counted_bytes));
        if !dropped(self.source.take()) {
            self.tale.line.note_panic();
        }
    }

    fn break_off(&mut self, outcome: Outcome) -> Poll<Option<Result<Frame<Piece<S>>, BrokenOff>>> {
        self.tale.breaks_off(outcome);
        self.let_go();
        Poll::Ready(Some(Err(BrokenOff)))
    }

    fn hand(&mut self, bytes: Bytes) -> Poll<Option<Result<Frame<Piece<S>>, BrokenOff>>> {
        let leaving = self.tale.hand(bytes.len());
        let line = Rc::clone(&self.tale.line);
        line.made(bytes.len());
        Poll::Ready(Some(Ok(Frame::data(Piece { length: bytes.len(), bytes, line, leaving }))))
    }

    /// The next piece of a stream.
    fn pull(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Piece<S>>, BrokenOff>>> {
        let Some(Source::Stream(Outflow { stream, framing })) = &mut self.source else {
            unreachable!("called of a stream")
        };
        let worker = &self.tale.line.worker;
        let mut bytes = Vec::with_capacity(PULL_BYTES);
        let mut pulled = Pull::More;
        while pulled == Pull::More && bytes.len() < PULL_BYTES {
            let before = bytes.len();
            let pull = || stream.pull(context, &mut BodyBuf::new(&mut bytes));
            match guarded_or_told(pull, |said| worker.note_panic(said)) {
                Some(next) => pulled = next,
                None => {
                    self.tale.line.note_panic();
                    return self.break_off(Outcome::Panicked);
                }
            }
            if bytes.len() == before {
                break;
            }
        }
        worker.owe(stream.take_coded_bytes());
        if let OutFraming::Remaining(left) = framing {
            let owed = usize::try_from(*left).unwrap_or(usize::MAX);
            bytes.truncate(owed);
            *left -= bytes.len() as u64;
            pulled = match pulled {
                _ if *left == 0 => Pull::Done,
                Pull::Done => Pull::Failed,
                pulled => pulled,
            };
        }
        match pulled {
            Pull::Failed => return self.break_off(Outcome::BrokenOff),
            Pull::Done => self.finish(),
            _ if !bytes.is_empty() => self.empty_pulls = 0,
            Pull::Wait => {
                self.empty_pulls = 0;
                self.tale.waits_for_program();
                return Poll::Pending;
            }
            Pull::More => {
                self.empty_pulls += 1;
                if self.empty_pulls > EMPTY_PULLS_MAX {
                    return self.break_off(Outcome::BrokenOff);
                }
                // Others get their turn before it is asked again.
                context.waker().wake_by_ref();
                self.tale.waits_for_program();
                return Poll::Pending;
            }
        }
        match bytes.is_empty() {
            true => Poll::Ready(None),
            false => {
                let is_whole = self.source.is_none();
                let handed = self.hand(Bytes::from(bytes));
                if is_whole {
                    self.tale.is_whole();
                }
                handed
            }
        }
    }
}

impl<S: Service> Body for Outgoing<S> {
    type Data = Piece<S>;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece<S>>, BrokenOff>>> {
        let this = self.get_mut();
        let piece = match &mut this.source {
            None => return Poll::Ready(None),
            Some(Source::Stream(_)) => return this.pull(context),
            Some(Source::Static(bytes)) => bytes.split_to(bytes.len().min(PIECE_BYTES)),
            Some(Source::Bytes(bytes)) => {
                let piece = bytes.split_to(bytes.len().min(PIECE_BYTES));
                // It counts as a piece from here on.
                this.tale.line.let_go(piece.len());
                piece
            }
            Some(Source::File(range, at)) => {
                let length = usize::try_from(range.length() - *at).unwrap_or(usize::MAX).min(PIECE_BYTES);
                let mut bytes = vec![0; length];
                // Of what is not in memory the worker waits, as of a file that leaves by `sendfile`.
                if range.file().read_exact_at(&mut bytes, range.offset() + *at).is_err() {
                    return this.break_off(Outcome::BrokenOff);
                }
                *at += length as u64;
                Bytes::from(bytes)
            }
        };
        let handed = this.hand(piece);
        let is_whole = match &this.source {
            Some(Source::Static(bytes) | Source::Bytes(bytes)) => bytes.is_empty(),
            Some(Source::File(range, at)) => *at == range.length(),
            _ => false,
        };
        if is_whole {
            this.finish();
        }
        handed
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_none()
    }

    /// Unknown: where it is known, the head says it already.
    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl<S: Service> Drop for Outgoing<S> {
    fn drop(&mut self) {
        self.let_go();
    }
}
