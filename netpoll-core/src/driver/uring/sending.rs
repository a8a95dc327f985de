//! Small output: it leaves with the enter that waits.
//!
//! A send is ordered *now or not at all*: the enter that takes the order carries it out, and says nothing if all of it left. So the
//! kernel looks at the bytes within that enter only, a wait is not ended by what it has sent itself, and a request needs no
//! system call of its own. What the socket had no room for goes back to whoever queued it, and follows as with any poller.
//!
//! To the floors above such output has left ([`Flushed::Done`](super::super::Flushed::Done)), as it has when the kernel keeps it in a
//! socket. So whatever comes behind it waits for the enter: what is queued meanwhile, the end of our direction, a close.
//!
//! Output that is more than [`SOON_BYTES_MAX`], or has a file in it, is sent at once, by the engine: it may not fit, and its connection
//! should learn of that before it brings more.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};

use io_uring::types::Timespec;

use super::super::poll::source::Source;
use super::super::{Flushed, IoCounts};
use super::buffers::Chunk;
use super::half::State;
use super::ring::{SOON, special};
use super::slots::Kind;
use crate::mem::{Key, Pool, WriteQueue};

/// What the floors above let wait for others (`FLUSH_LATER_BYTES_MAX` of `conn/output.rs`).
const SOON_BYTES_MAX: usize = 16 * 1024;

/// Pieces of one send, as `sendmsg` has them in `poll/sending.rs`.
const PIECES_MAX: usize = 64;

/// How long what a closed stream had to send is kept when its peer takes nothing.
static LEFTOVER_TIME: Timespec = Timespec::new().sec(10);

/// What lists the pieces of a send.
pub struct Gather {
    header: libc::msghdr,
    pieces: [libc::iovec; PIECES_MAX],
}

/// Where the bytes are.
pub enum Bytes {
    /// Taken from a queue; of more than one piece with a list, which is kept for the kernel.
    Queue(WriteQueue, #[expect(dead_code, reason = "held, and read by the kernel")] Option<Box<Gather>>),
    /// A part of a chunk that was received.
    Chunk { chunk: Chunk, start: usize, end: usize },
    /// They have been dealt with.
    None,
}

/// Output that leaves with the next enter.
pub struct Soon {
    pub key: Key,
    pub bytes: Bytes,
    /// If not all of it left: how much did, or the error.
    pub answer: Option<i32>,
    /// Our direction ends behind it.
    pub finishes: bool,
    /// Its stream was closed meanwhile.
    pub closes: Option<OwnedFd>,
    /// By a reset: what does not leave at once is lost.
    pub resets: bool,
}

impl State {
    /// Orders what is queued to be sent, and takes it; `None` if it is to be sent at once.
    pub fn send_soon(
        &mut self,
        key: Key,
        source: &mut Source,
        queue: &mut WriteQueue,
        pool: &mut Pool,
        counts: &mut IoCounts,
    ) -> Option<Flushed> {
        let place = self.sides.get(key)?.soon;
        if place > 0 && !self.hasten(place, source, pool, counts) || queue.queued_bytes() > SOON_BYTES_MAX {
            return None;
        }
        let is_single = queue.is_single();
        if !is_single && queue.has_file() {
            return None;
        }
        let id = special(SOON, self.soon.len());
        let fd = source.fd.as_fd();
        let bytes = if is_single {
            let taken = queue.take();
            let front = taken.front();
            // SAFETY: the bytes have to stay until the order was taken. They are the block of a queue that nobody else has, which
            // the list below holds until then. (test: `what_is_sent_soon_has_left_with_the_next_wait`)
            unsafe { self.ring.send(fd, front.as_ptr(), front.len() as u32, id) };
            Bytes::Queue(taken, None)
        } else {
            let mut slices = [IoSlice::new(&[]); PIECES_MAX];
            let filled = queue.slices(&mut slices);
            if slices[..filled].iter().map(|slice| slice.len()).sum::<usize>() < queue.queued_bytes() {
                return None;
            }
            let gather = Gather::of(&slices[..filled]);
            // SAFETY: as above; the list is boxed, its pieces are those of the queue, and the list below holds both.
            // (test: `what_is_sent_soon_has_left_with_the_next_wait`)
            unsafe { self.ring.send_pieces(fd, &raw const gather.header, id) };
            Bytes::Queue(queue.take(), Some(gather))
        };
        counts.sent_bytes += bytes.len() as u64;
        self.push_soon(key, bytes);
        Some(Flushed::Done)
    }

    /// Orders a part of a chunk to be sent back; false if something else has to leave first.
    pub fn reply_soon(&mut self, key: Key, source: &Source, chunk: Chunk, start: usize, end: usize) -> bool {
        if self.sides.get(key).is_none_or(|side| side.soon > 0) {
            return false;
        }
        let id = special(SOON, self.soon.len());
        let place = self.buffers.place(chunk);
        assert!(start <= end && end <= chunk.len, "a reply is a part of its chunk");
        // SAFETY: the bytes have to stay until the order was taken. They are inside the chunk, as checked, which is held below until
        // then. (test: `what_is_sent_soon_has_left_with_the_next_wait`)
        unsafe {
            self.ring.send(source.fd.as_fd(), place.as_ptr().wrapping_add(start), (end - start) as u32, id)
        };
        self.buffers.hold(chunk);
        self.push_soon(key, Bytes::Chunk { chunk, start, end });
        true
    }

    fn push_soon(&mut self, key: Key, bytes: Bytes) {
        self.soon.push(Soon { key, bytes, answer: None, finishes: false, closes: None, resets: false });
        if let Some(side) = self.sides.get_mut(key) {
            side.soon = self.soon.len() as u32;
        }
    }

    /// Has what is sent soon sent at once, because more comes behind it. False if not all of it left: that is queued again first.
    #[cold]
    fn hasten(&mut self, place: u32, source: &mut Source, pool: &mut Pool, counts: &mut IoCounts) -> bool {
        self.submit();
        let soon = &mut self.soon[place as usize - 1];
        if soon.answer.is_none() && !self.ring.has_orders() {
            let bytes = std::mem::replace(&mut soon.bytes, Bytes::None);
            if let Some(side) = self.sides.get_mut(soon.key) {
                side.soon = 0;
            }
            self.discard(bytes, pool);
            return true;
        }
        // Behind the next wait, which does not sleep, it is settled, and there is room again or an error.
        match soon.answer.and_then(failure) {
            Some(error) => source.send_failed(&error),
            None => source.cut_short(counts),
        }
        self.acts_next = true;
        false
    }

    /// Hands over the orders, and notes which sends were cut short.
    pub fn submit(&mut self) {
        self.ring.submit();
        self.note_short_sends();
    }

    /// Notes what was said of sends.
    pub fn note_short_sends(&mut self) {
        for (place, answer) in self.ring.short_sends() {
            // It is settled before anybody sleeps.
            self.acts_next = true;
            if let Some(soon) = self.soon.get_mut(place) {
                soon.answer = Some(answer);
            }
        }
    }

    /// What of such output did not leave, as a queue.
    pub fn rest_of(&mut self, bytes: Bytes, sent: usize, pool: &mut Pool) -> WriteQueue {
        match bytes {
            Bytes::Queue(mut queue, _) => {
                queue.consume(pool, sent);
                queue
            }
            Bytes::Chunk { chunk, start, end } => {
                let mut queue = WriteQueue::new();
                let place = self.buffers.place(chunk);
                // SAFETY: the chunk is held until it is released below, and nobody else looks at it: its delivery is over.
                // (test: `what_a_full_socket_does_not_take_of_a_reply_is_queued`)
                let bytes = unsafe { place.bytes() };
                queue.write(pool, &bytes[start + sent..end]);
                self.buffers.release(chunk);
                queue
            }
            Bytes::None => WriteQueue::new(),
        }
    }

    /// All of it has left.
    pub fn discard(&mut self, bytes: Bytes, pool: &mut Pool) {
        match bytes {
            Bytes::Queue(mut queue, _) => queue.clear(pool),
            Bytes::Chunk { chunk, .. } => self.buffers.release(chunk),
            Bytes::None => {}
        }
    }

    /// Closes a stream behind what is sent soon.
    pub fn close_behind(&mut self, place: u32, fd: OwnedFd) {
        self.soon[place as usize - 1].closes = Some(fd);
        self.acts_next = true;
    }

    /// What is sent soon of a stream is not kept if there is no room for it.
    pub fn abandon(&mut self, key: Key) {
        let place = self.sides.get(key).map_or(0, |side| side.soon);
        if place > 0 {
            self.soon[place as usize - 1].resets = true;
        }
    }

    /// Ends our direction of a stream behind what is sent soon; false if that is nothing.
    pub fn finish_behind(&mut self, key: Key) -> bool {
        let place = self.sides.get(key).map_or(0, |side| side.soon);
        if place == 0 {
            return false;
        }
        self.soon[place as usize - 1].finishes = true;
        self.acts_next = true;
        true
    }

    pub fn unsent_bytes(&self, key: Key) -> usize {
        let place = self.sides.get(key).map_or(0, |side| side.soon);
        if place == 0 { 0 } else { self.soon[place as usize - 1].bytes.len() }
    }

    /// What a stream had to send when it was closed waits for room.
    pub fn await_leftover(&mut self, leftover: Key, fd: &OwnedFd) {
        let id = self.orders.begin(Kind::Leftover, leftover);
        self.ring.poll_for(fd.as_fd(), libc::POLLOUT as u32, &LEFTOVER_TIME, id.to_bits());
    }
}

/// The error that a send ended with, if it is more than a lack of room.
pub fn failure(answer: i32) -> Option<io::Error> {
    let error = (answer < 0).then(|| io::Error::from_raw_os_error(-answer))?;
    (!matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)).then_some(error)
}

impl Bytes {
    pub fn len(&self) -> usize {
        match self {
            Self::Queue(queue, _) => queue.queued_bytes(),
            Self::Chunk { start, end, .. } => end - start,
            Self::None => 0,
        }
    }
}

impl Gather {
    /// The pieces, wherever they are.
    fn of(slices: &[IoSlice<'_>]) -> Box<Self> {
        let empty = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: a `msghdr` is made of pointers and numbers, for which zero is a value.
        // (test: `what_is_sent_soon_has_left_with_the_next_wait`)
        let header = unsafe { std::mem::zeroed() };
        let mut gather = Box::new(Self { header, pieces: [empty; PIECES_MAX] });
        for (piece, slice) in gather.pieces.iter_mut().zip(slices) {
            *piece = libc::iovec { iov_base: slice.as_ptr().cast_mut().cast(), iov_len: slice.len() };
        }
        gather.header.msg_iov = gather.pieces.as_mut_ptr();
        gather.header.msg_iovlen = slices.len() as _;
        gather
    }
}
