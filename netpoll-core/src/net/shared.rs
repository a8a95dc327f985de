//! What a stream's handle and its connection share: input that was received and not read, output that was written and not taken
//! over, who waits, and what became of it.
//!
//! The connection is one of [`Link`](super::link::Link) in an ordinary table; the handle is in a task. Neither reaches the other, so each
//! leaves what it has here: the connection wakes the task, the task stirs the connection, which looks here in
//! [`woken`](crate::Protocol::woken).
//!
//! Invariants: nothing is borrowed while a waker is touched. An idle stream owns no block, and nothing but itself ([`Rest`](rest::Rest)). `PAUSED` is what the connection was told
//! last, and whoever reads what held it back stirs it. `BACKED_UP` ends with `drained`, `closing` or `lost`, which wake the writer.

mod idle;
mod rest;
mod waits;

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::conn::Lost;
use crate::conn::desk::{self, Desk};
use crate::driver::{Io, TAKEN_BYTES_MIN, pays_to_take};
use crate::mem::{Key, Pool, ReadBuffer, WriteQueue};
use crate::sys;
use crate::task::Lane;

use rest::Place;

/// It has its key: it is open, or was.
const OPEN: u32 = 1;
/// The connection is gone.
const GONE: u32 = 1 << 1;
/// The peer has sent all it will send.
const ENDED: u32 = 1 << 2;
/// So much input waits to be read that the connection was paused.
const PAUSED: u32 = 1 << 3;
/// The connection has more queued than it should.
const BACKED_UP: u32 = 1 << 4;
/// It stands on the list of those that are looked after.
const STIRRED: u32 = 1 << 5;
/// Nobody reads any more.
const READER_LEFT: u32 = 1 << 6;
/// Nobody writes any more: our direction ends behind what was written.
const WRITER_LEFT: u32 = 1 << 7;
/// It is to be reset.
const RESET: u32 = 1 << 8;
/// The connection may have something queued itself: what is sent past its queue would come first.
const BUSY: u32 = 1 << 9;
/// Somebody else closes it: nothing more is received or sent.
const CLOSING: u32 = 1 << 10;

/// A layer has the connection: nothing is sent past its queue.
const VEILED: u32 = 1 << 11;
/// Others have ended our direction.
const FINISHED: u32 = 1 << 13;
/// Its task is polled for it just now, and nothing that was written waits in front of the draft of the lane, where small pieces go.
const DRAFTS: u32 = 1 << 12;
/// Input may lie here; if not there is none.
const INPUT: u32 = 1 << 15;
/// Something that was written may wait here; if not nothing does.
const WRITTEN: u32 = 1 << 14;

/// It was dialed: whoever drops it has no answer under way that its peer would lose.
const DIALED: u32 = 1 << 16;

/// Nothing is under way on it, as its task has said.
const IDLE: u32 = 1 << 17;
/// A drain closes it unless something comes: the connection looks here for that.
const RETIRES: u32 = 1 << 18;

/// A reader wants more than any input before it is woken.
const WANTS: u32 = 1 << 19;
/// Somebody waits to write.
const WRITER_WAITS: u32 = 1 << 20;
/// Its task is polled for it just now, and takes input out of the socket.
const TAKES: u32 = 1 << 21;

/// No two are the same: there are twenty-two.
const _: () = assert!(
    OPEN ^ GONE
        ^ ENDED
        ^ PAUSED
        ^ BACKED_UP
        ^ STIRRED
        ^ READER_LEFT
        ^ WRITER_LEFT
        ^ RESET
        ^ BUSY
        ^ CLOSING
        ^ VEILED
        ^ DRAFTS
        ^ FINISHED
        ^ WRITTEN
        ^ INPUT
        ^ DIALED
        ^ IDLE
        ^ RETIRES
        ^ WANTS
        ^ WRITER_WAITS
        ^ TAKES
        == (1 << 22) - 1
);

/// Input, in bytes, above which a stream's connection is paused until it is read: the read quantum of one turn.
pub const INPUT_BYTES_MAX: usize = 64 * 1024;
/// Output, in bytes, that a task may leave here before it has to wait for the connection to take it over.
pub const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// What is written in pieces of so many bytes is sent at once, from where it lies; smaller ones are gathered.
const SENT_AT_ONCE_BYTES_MIN: usize = 4 * 1024;
/// What one poll sends past queues, in bytes, until it has to wait: others are served meanwhile.
const SENT_IN_A_POLL_BYTES_MAX: usize = 256 * 1024;
/// What the draft of a lane may hold; more is queued.
const DRAFT_BYTES_MAX: usize = 16 * 1024;

/// One stream.
pub struct Shared {
    bits: Cell<u32>,
    /// Since when it has been idle, if it is (`idle.rs`).
    idle_since: Cell<u32>,
    lane: Rc<Lane>,
    /// Who waits for input: nobody, the key of a task, or whom a waker leads to (`waits.rs`).
    reader: Cell<u64>,
    key: Cell<Key>,
    rest: Place,
}

// With its counts it is 56 bytes: what the C library has in pieces of 64.
const _: () = assert!(size_of::<Shared>() == 40);

/// The connection, for what a link does in its callbacks.
pub use crate::conn::Conn;

impl Shared {
    pub fn new(lane: Rc<Lane>) -> Rc<Self> {
        Rc::new(Self {
            lane,
            bits: Cell::new(0),
            idle_since: Cell::new(0),
            reader: Cell::new(waits::NOBODY),
            key: Cell::new(Key::new(0, 0, 0)),
            rest: Place::default(),
        })
    }

    #[inline]
    fn has(&self, bits: u32) -> bool {
        self.bits.get() & bits != 0
    }

    #[inline]
    fn set(&self, bits: u32) {
        self.bits.set(self.bits.get() | bits);
    }

    #[inline]
    fn clear(&self, bits: u32) {
        self.bits.set(self.bits.get() & !bits);
    }

    /// Has the connection look here. Nothing happens before it is open, when it looks by itself, and behind its end.
    #[inline]
    fn stir(&self) {
        if self.bits.get() & (OPEN | GONE | STIRRED) == OPEN {
            self.set(STIRRED);
            self.lane.stir(self.key.get());
        }
    }

    /// The pool of its worker, or one that stands in for it.
    #[inline]
    fn with_pool<R>(&self, borrow: impl FnOnce(&mut Pool) -> R) -> R {
        desk::with_pool(&self.lane, borrow)
    }

    /// Asks the driver about its socket. `None` if the stream is gone; an error where the worker is out of reach.
    pub fn ask<R>(&self, ask: impl FnOnce(&mut dyn Io, Key) -> R) -> io::Result<R> {
        if self.bits.get() & (OPEN | GONE) != OPEN {
            return Err(self.failed());
        }
        let asked = desk::with(self.lane.number(), |desk| ask(desk.io, self.key.get()));
        asked.ok_or_else(|| {
            let text =
                "a socket is asked from tasks and handlers of its worker, not from callbacks or destructors";
            io::Error::new(io::ErrorKind::Unsupported, text)
        })
    }

    /// It is a client's.
    pub fn set_dialed(&self) {
        self.set(DIALED);
    }

    /// Its socket is on the way to the worker.
    pub fn set_socket(&self, socket: OwnedFd) {
        self.rest.get_or_make().socket = Some(socket);
    }

    /// The worker has it.
    pub fn take_socket(&self) -> Option<OwnedFd> {
        self.rest.get()?.socket.take()
    }

    /// Asks a socket that the worker does not have yet.
    pub fn ask_early<R>(&self, ask: impl FnOnce(BorrowedFd<'_>) -> R) -> Option<R> {
        // Taken out meanwhile: what asks may be code of the program.
        let socket = self.take_socket()?;
        let asked = ask(socket.as_fd());
        self.set_socket(socket);
        Some(asked)
    }

    /// Why nothing more can be read or written.
    fn failed(&self) -> io::Error {
        match self.rest.get().and_then(|rest| rest.failure.as_ref().map(again)) {
            Some(error) => error,
            // Others close it, on this side.
            None if self.has(CLOSING) => io::ErrorKind::ConnectionAborted.into(),
            None => io::ErrorKind::NotConnected.into(),
        }
    }
}

/// The same error once more: it is told to the reader and to the writer.
fn again(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

// What the handle does.
impl Shared {
    /// Whether input is there, more than was asked for before; takes the block it lies in. An empty one is the end.
    #[inline]
    pub fn poll_take(&self, waker: &Waker, into: &mut ReadBuffer) -> Poll<io::Result<()>> {
        debug_assert!(into.is_empty(), "the last block was read");
        if self.has(INPUT) {
            self.keep_chunk();
            self.clear(INPUT);
            if let Some(mut rest) = self.rest.get() {
                std::mem::swap(&mut rest.input, into);
            }
            if !into.is_empty() {
                self.took_input();
                return Poll::Ready(Ok(()));
            }
        }
        let append = |bytes: &[u8]| self.with_pool(|pool| into.append(pool, bytes));
        if self.take_chunk(append) { Poll::Ready(Ok(())) } else { self.poll_none(waker) }
    }

    /// Reads input that is there. How much; zero is the end.
    #[inline]
    pub fn poll_read(&self, waker: &Waker, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let room = into.len();
        match self.bits.get() & (TAKES | INPUT) {
            0 => match self.copy_chunk(room, |bytes| into[..bytes.len()].copy_from_slice(bytes)) {
                0 => {}
                count => {
                    if count >= TAKEN_BYTES_MIN {
                        self.copied_much(count, room);
                    }
                    return Poll::Ready(Ok(count));
                }
            },
            TAKES => match self.take_from_socket(into) {
                0 => {}
                count => return Poll::Ready(Ok(count)),
            },
            _ => {
                return self.poll_copy(waker, room, |bytes| into[..bytes.len()].copy_from_slice(bytes));
            }
        }
        self.poll_none(waker).map_ok(|()| 0)
    }

    /// Receives into memory of whoever reads, in the order of all that came before: nothing lies here.
    #[inline(never)]
    fn take_from_socket(&self, into: &mut [u8]) -> usize {
        // A forked child would take input of its parent.
        sys::assert_not_forked();
        let count = desk::with(self.lane.number(), |desk| desk.io.take(self.key.get(), into)).unwrap_or(0);
        if count < into.len() {
            // There is no more, or no more in this turn: it need not be asked again.
            self.clear(TAKES);
        }
        if count > 0 && self.has(IDLE) {
            self.end_idle_time();
        }
        count
    }

    /// A large piece was copied out of the worker's memory: the next one is taken out of the socket, if this was all and that pays.
    #[cold]
    fn copied_much(&self, count: usize, room: usize) {
        // Under a layer nobody could: what lies in the socket is not what is read.
        let may_take = !self.has(VEILED) && pays_to_take(count, room);
        if may_take && self.with_chunk(|chunk| chunk.is_empty()) == Some(true) {
            desk::with(self.lane.number(), |desk| desk.io.announce(self.key.get()));
        }
    }

    /// Gives input out to be copied, up to `room` bytes of it. How many there were; zero is the end.
    #[inline]
    pub fn poll_copy(&self, waker: &Waker, room: usize, copy: impl FnOnce(&[u8])) -> Poll<io::Result<usize>> {
        if self.has(INPUT) {
            if self.is_behind() {
                return Poll::Ready(Ok(self.give_input(room, false, copy)));
            }
            self.clear(INPUT);
        }
        match self.copy_chunk(room, copy) {
            0 => self.poll_none(waker).map_ok(|()| 0),
            count => Poll::Ready(Ok(count)),
        }
    }

    /// Gives out what has just arrived, up to `room` bytes of it. How many there were.
    #[inline]
    fn copy_chunk(&self, room: usize, copy: impl FnOnce(&[u8])) -> usize {
        let copied = self.with_chunk(|chunk| {
            let (now, later) = chunk.split_at(chunk.len().min(room));
            if !now.is_empty() {
                copy(now);
            }
            *chunk = later;
            now.len()
        });
        copied.unwrap_or(0)
    }

    /// Input that has just arrived, while the task that waits for it is polled: it lies where the worker has read it, behind what lies here.
    #[inline]
    fn with_chunk<R>(&self, borrow: impl FnOnce(&mut &[u8]) -> R) -> Option<R> {
        self.lane.with_offer(self.key.get(), borrow)
    }

    /// Takes over what is left of a chunk. False if nothing is.
    #[inline]
    fn take_chunk(&self, keep: impl FnOnce(&[u8])) -> bool {
        let taken = self.with_chunk(|chunk| {
            let bytes = std::mem::take(chunk);
            if !bytes.is_empty() {
                keep(bytes);
            }
            !bytes.is_empty()
        });
        taken == Some(true)
    }

    /// Takes it over for whoever wants it in one piece with what lies here, or for longer.
    #[inline]
    fn keep_chunk(&self) {
        let append = |bytes: &[u8]| {
            let mut rest = self.rest.get_or_make();
            self.with_pool(|pool| rest.input.append(pool, bytes));
        };
        if self.take_chunk(append) {
            self.set(INPUT);
        }
    }

    /// There is no input: is it the end, an error, or too early?
    #[inline]
    fn poll_none(&self, waker: &Waker) -> Poll<io::Result<()>> {
        if self.has(ENDED) {
            return Poll::Ready(Ok(()));
        }
        if self.has(GONE | CLOSING) {
            return Poll::Ready(Err(self.failed()));
        }
        self.wait_for_any(waker);
        Poll::Pending
    }

    /// Waits until so many bytes lie here, or there will not be as many. How many there are.
    pub fn poll_wanted(&self, waker: &Waker, wanted: usize) -> Poll<io::Result<usize>> {
        self.keep_chunk();
        let there = self.input_bytes();
        if there >= wanted || self.has(ENDED) {
            self.want_nothing();
            return Poll::Ready(Ok(there));
        }
        if self.has(GONE | CLOSING) {
            self.want_nothing();
            return Poll::Ready(Err(self.failed()));
        }
        self.wait_for_bytes(waker, wanted);
        self.took_input();
        Poll::Pending
    }

    /// Nobody waits for so much any more.
    pub fn want_any(&self) {
        self.want_nothing();
        self.took_input();
    }

    fn want_nothing(&self) {
        if self.has(WANTS) {
            self.clear(WANTS);
            self.rest.get_or_make().wanted = 0;
        }
    }

    /// What a reader wants before it is woken; zero for any.
    #[inline]
    fn wanted(&self) -> usize {
        if self.has(WANTS) { self.rest.get().map_or(0, |rest| rest.wanted) } else { 0 }
    }

    /// How much lies here.
    #[inline]
    fn input_bytes(&self) -> usize {
        if self.has(INPUT) { self.rest.get().map_or(0, |rest| rest.input.len()) } else { 0 }
    }

    /// Copies input out, from the front. It stays there if it is only looked at.
    pub fn copy_input(&self, into: &mut [u8], keep: bool) -> usize {
        self.give_input(into.len(), keep, |bytes| into[..bytes.len()].copy_from_slice(bytes))
    }

    fn give_input(&self, room: usize, keep: bool, copy: impl FnOnce(&[u8])) -> usize {
        let Some(mut rest) = self.rest.get() else { return 0 };
        let count = rest.input.len().min(room);
        copy(&rest.input.bytes()[..count]);
        if keep {
            return count;
        }
        self.with_pool(|pool| rest.input.advance(pool, count));
        drop(rest);
        self.took_input();
        count
    }

    /// Puts a block back that was taken and not read to its end.
    pub fn put_back(&self, block: &mut ReadBuffer) {
        if block.is_empty() {
            return;
        }
        self.keep_chunk();
        self.set(INPUT);
        let mut rest = self.rest.get_or_make();
        if !rest.input.is_empty() {
            self.with_pool(|pool| {
                block.append(pool, rest.input.bytes());
                rest.input.clear(pool);
            });
        }
        std::mem::swap(&mut rest.input, block);
    }

    /// Puts what has come since behind what was taken.
    pub fn take_more(&self, block: &mut ReadBuffer) {
        self.keep_chunk();
        let Some(mut rest) = self.rest.get() else { return };
        if !rest.input.is_empty() {
            self.with_pool(|pool| {
                block.append(pool, rest.input.bytes());
                rest.input.clear(pool);
            });
            drop(rest);
            self.took_input();
        }
    }

    /// Where a byte lies among the input, from there on.
    pub fn find(&self, byte: u8, from: usize) -> Option<usize> {
        let rest = self.rest.get()?;
        let found = rest.input.bytes()[from..].iter().position(|other| *other == byte)?;
        Some(from + found)
    }

    /// Gives a block that was read to its end back.
    #[inline]
    pub fn advance(&self, block: &mut ReadBuffer, bytes: usize) {
        self.with_pool(|pool| block.advance(pool, bytes));
    }

    /// Input goes on if it was held back.
    #[inline]
    fn took_input(&self) {
        if self.has(PAUSED) && !self.is_full(self.input_bytes()) {
            self.stir();
        }
    }

    #[inline]
    fn is_full(&self, input_bytes: usize) -> bool {
        input_bytes >= INPUT_BYTES_MAX.max(self.wanted())
    }

    /// Waits until there is room to write.
    #[inline]
    pub fn poll_room(&self, waker: &Waker) -> Poll<io::Result<()>> {
        let bits = self.bits.get();
        if bits & (GONE | WRITER_LEFT | CLOSING | FINISHED | IDLE) != 0 {
            if bits & (GONE | WRITER_LEFT | CLOSING | FINISHED) != 0 {
                return Poll::Ready(Err(self.is_closed()));
            }
            self.end_idle_time();
        }
        if bits & DRAFTS != 0 {
            return Poll::Ready(Ok(()));
        }
        let written = || self.rest.get().map_or(0, |rest| rest.out.queued_bytes());
        let is_full = || self.has(WRITTEN) && written() > OUTPUT_BYTES_MAX;
        if bits & BACKED_UP != 0 || is_full() {
            self.wait_to_write(waker);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    #[cold]
    fn is_closed(&self) -> io::Error {
        if self.rest.get().is_some_and(|rest| rest.failure.is_some()) {
            return self.failed();
        }
        io::ErrorKind::BrokenPipe.into()
    }

    /// Sends these bytes at once if they are many and nothing is in front of them; queues what is left.
    #[inline]
    pub fn write(&self, bytes: &[u8]) {
        if bytes.len() < SENT_AT_ONCE_BYTES_MIN && self.has(DRAFTS) {
            let mut draft = self.lane.draft().borrow_mut();
            if bytes.len() <= DRAFT_BYTES_MAX - draft.len() {
                return draft.extend_from_slice(bytes);
            }
        }
        self.write_past_draft(bytes);
    }

    /// The same of several slices, up to [`OUTPUT_BYTES_MAX`] in all; how many bytes were taken.
    #[inline]
    pub fn write_vectored(&self, slices: &[IoSlice<'_>]) -> usize {
        let bytes = slices.iter().map(|slice| slice.len()).sum();
        if bytes < SENT_AT_ONCE_BYTES_MIN && self.has(DRAFTS) {
            let mut draft = self.lane.draft().borrow_mut();
            if bytes <= DRAFT_BYTES_MAX - draft.len() {
                slices.iter().for_each(|slice| draft.extend_from_slice(slice));
                return bytes;
            }
        }
        if bytes == 0 {
            return 0;
        }
        let mut room = OUTPUT_BYTES_MAX;
        self.queue(|out, pool| {
            for slice in slices.iter().filter(|slice| !slice.is_empty()) {
                let taken = slice.len().min(room);
                out.write(pool, &slice[..taken]);
                room -= taken;
                if room == 0 {
                    break;
                }
            }
        });
        OUTPUT_BYTES_MAX - room
    }

    fn write_past_draft(&self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let sent = if bytes.len() >= SENT_AT_ONCE_BYTES_MIN { self.send_at_once(bytes) } else { 0 };
        if sent < bytes.len() {
            self.queue(|out, pool| out.write(pool, &bytes[sent..]));
        }
    }

    fn send_at_once(&self, bytes: &[u8]) -> usize {
        if self.bits.get() & (OPEN | BUSY | GONE | VEILED) != OPEN || self.has_written() {
            return 0;
        }
        // A forked child would send on a connection of its parent.
        sys::assert_not_forked();
        let send = |desk: &mut Desk<'_>| {
            desk.sent_at_once += bytes.len();
            let is_enough = desk.sent_at_once > SENT_IN_A_POLL_BYTES_MAX;
            if is_enough { 0 } else { desk.io.send(self.key.get(), bytes) }
        };
        desk::with(self.lane.number(), send).unwrap_or(0)
    }

    /// Something was written that the connection does not have yet.
    fn has_written(&self) -> bool {
        self.has(WRITTEN) || (self.has(DRAFTS) && !self.lane.draft().borrow().is_empty())
    }

    /// Queues what `write` puts into the queue, behind what was written before.
    pub fn queue(&self, write: impl FnOnce(&mut WriteQueue, &mut Pool)) {
        let mut rest = self.rest.get_or_make();
        let drafts = self.has(DRAFTS);
        self.clear(DRAFTS);
        self.set(WRITTEN);
        self.with_pool(|pool| {
            if drafts {
                let mut draft = self.lane.draft().borrow_mut();
                rest.out.write(pool, &draft);
                draft.clear();
            }
            write(&mut rest.out, pool);
        });
        drop(rest);
        self.stir();
    }

    /// Our direction ends behind what was written.
    pub fn finish(&self) {
        self.set(WRITER_LEFT);
        self.stir();
    }

    /// Nobody reads any more.
    pub fn stop_reading(&self) {
        self.set(READER_LEFT);
        self.stir();
    }

    /// The connection is reset, and what was written and has not left is lost.
    pub fn reset(&self) {
        self.set(RESET);
        self.stir();
        if self.has(CLOSING)
            && let Some(id) = super::connect::id_of(self)
        {
            // It does not look here any more.
            super::connect::later(&self.lane, move |cx| cx.commands.reset(id));
        }
    }

    /// Its key, if it is open.
    pub fn open_key(&self) -> Option<Key> {
        (self.bits.get() & (OPEN | GONE) == OPEN).then(|| self.key.get())
    }

    /// Whether it is open or was; the error if it could not be made.
    pub fn poll_opened(&self, waker: &Waker) -> Poll<io::Result<()>> {
        if self.has(OPEN) {
            return Poll::Ready(Ok(()));
        }
        if self.has(GONE) {
            let failure = self.rest.get().and_then(|mut rest| rest.failure.take());
            return Poll::Ready(Err(failure.unwrap_or_else(|| io::ErrorKind::NotConnected.into())));
        }
        self.wait_to_write(waker);
        Poll::Pending
    }

    /// The lane of its worker.
    pub fn lane(&self) -> &Rc<Lane> {
        &self.lane
    }
}

/// What the connection is to do next.
pub enum Next {
    /// Whatever it did.
    Unchanged,
    /// Receive.
    Receive,
    /// Hold its input back.
    Hold,
    /// Send what is queued, then end.
    Close,
    /// The same, and hear the peer out.
    Linger,
    /// End now.
    Reset,
}

// What the connection does.
impl Shared {
    /// It is open.
    pub fn opened(&self, key: Key, is_veiled: bool) {
        self.key.set(key);
        self.set(if is_veiled { OPEN | VEILED } else { OPEN });
        self.wake_writer();
        self.wake_reader();
    }

    /// Lets a task that `poll` polls find this input where it lies; what it has not taken is left. Whatever it leaves to be done is for the
    /// caller, who looks behind it.
    #[inline]
    pub fn offer(&self, chunk: &mut &[u8], poll: impl FnOnce()) {
        if self.has(BACKED_UP | VEILED | WRITTEN | IDLE) {
            self.begin_offer();
        } else {
            self.set(STIRRED | DRAFTS);
            self.lane.draft().borrow_mut().clear();
        }
        self.lane.offer(self.key.get(), chunk, poll);
    }

    /// Lets a task that `poll` polls find input in the socket. Whatever it leaves to be done is for the caller, who looks behind it.
    pub fn announce(&self, poll: impl FnOnce()) {
        self.set(STIRRED | TAKES);
        if !self.has(BACKED_UP | VEILED | WRITTEN) {
            self.set(DRAFTS);
            self.lane.draft().borrow_mut().clear();
        }
        poll();
        self.clear(TAKES);
    }

    /// Whether so much waits that the connection is to hold more back.
    pub fn is_paused(&self) -> bool {
        self.has(PAUSED)
    }

    /// Whether input waits that nobody has read.
    pub fn is_behind(&self) -> bool {
        self.input_bytes() > 0
    }

    /// Input for the reader. True if there is room for more.
    #[inline]
    pub fn receive(&self, pool: &mut Pool, bytes: &[u8]) -> bool {
        if self.has(READER_LEFT | IDLE) {
            self.clear(IDLE);
            if self.has(READER_LEFT) {
                self.set(PAUSED);
                return false;
            }
        }
        self.set(INPUT);
        let mut rest = self.rest.get_or_make();
        rest.input.append(pool, bytes);
        let (there, wanted) = (rest.input.len(), rest.wanted);
        drop(rest);
        let is_full = self.is_full(there);
        if is_full {
            self.set(PAUSED);
        }
        // Last: a waker may poll where it is woken, and what it takes goes on.
        if there >= wanted {
            self.wake_reader();
        }
        !is_full
    }

    /// The peer has sent all it will send.
    pub fn end(&self) {
        self.set(ENDED);
        self.wake_reader();
    }

    /// Others want it closed: it says no more, and hears no more.
    pub fn close(&self, conn: &mut Conn<'_>) {
        self.hand_over(conn);
        self.set(CLOSING);
        self.wake_reader();
        self.wake_writer();
    }

    /// The queue has come down to low water.
    pub fn drained(&self) {
        self.clear(BACKED_UP);
        self.wake_writer();
    }

    /// Others queue something on it, which comes behind what was written.
    pub fn give_way(&self, conn: &mut Conn<'_>) {
        self.hand_over(conn);
        self.set(BUSY);
    }

    /// Others end our direction, behind what was written.
    pub fn finish_for_others(&self, conn: &mut Conn<'_>) {
        self.hand_over(conn);
        self.is_finished();
    }

    /// Nothing that is written leaves any more.
    fn is_finished(&self) {
        self.set(FINISHED);
        self.clear(BACKED_UP);
        self.wake_writer();
    }

    /// Gives the connection what was written. Shared bytes that have left are dropped, so nothing is borrowed meanwhile.
    #[inline]
    fn hand_over(&self, conn: &mut Conn<'_>) {
        if !self.has(WRITTEN) {
            return;
        }
        self.clear(WRITTEN);
        let Some(mut out) = self.rest.get().map(|mut rest| std::mem::take(&mut rest.out)) else { return };
        if !out.is_empty() {
            conn.take_over(&mut out);
        }
    }

    /// Behind a poll that has left nothing to do but to send its draft: does so. False if there is more to look after.
    #[inline]
    pub fn send_draft(&self, conn: &mut Conn<'_>) -> bool {
        // Nobody can wait for room: neither is the connection backed up, nor was anything queued here.
        let bits = self.bits.get() & !(INPUT | IDLE | DIALED | WANTS);
        if bits != OPEN | STIRRED | DRAFTS || conn.is_finished() {
            return false;
        }
        self.clear(STIRRED | DRAFTS);
        let draft = self.lane.draft().borrow();
        if draft.is_empty() {
            return true;
        }
        conn.send_past_reply(&draft);
        conn.queued_bytes() == 0
    }

    /// Does what the handle has left to do.
    #[inline]
    pub fn look_after(&self, conn: &mut Conn<'_>) -> Next {
        let bits = self.bits.get();
        self.clear(STIRRED | DRAFTS);
        if bits & RESET != 0 {
            return Next::Reset;
        }
        if bits & DRAFTS != 0 {
            conn.send_now(&self.lane.draft().borrow());
        } else {
            self.hand_over(conn);
        }
        let queued = conn.queued_bytes();
        if queued == 0 && !conn.is_watched() {
            self.clear(BUSY);
        } else {
            self.set(BUSY);
            if queued > conn.limits().write_high_bytes && !conn.is_finished() {
                self.set(BACKED_UP);
            }
        }
        if !self.has(BACKED_UP) {
            self.wake_writer();
        }
        if self.has(WRITER_LEFT) {
            if self.has(READER_LEFT) {
                self.forget_input(conn);
                return if self.has(DIALED) { Next::Close } else { Next::Linger };
            }
            conn.finish();
        } else if conn.is_finished() && !self.has(FINISHED) {
            self.is_finished();
        }
        self.look_at_grace(conn);
        if self.has(READER_LEFT) {
            self.forget_input(conn);
            return Next::Hold;
        }
        if self.has(PAUSED) && !self.is_full(self.input_bytes()) {
            self.clear(PAUSED);
            return Next::Receive;
        }
        self.rest.settle();
        Next::Unchanged
    }

    /// Nobody reads it any more.
    fn forget_input(&self, conn: &mut Conn<'_>) {
        if let Some(mut rest) = self.rest.get() {
            rest.input.clear(conn.pool());
        }
    }

    /// There is no connection, and will be none.
    pub fn abandon(&self) {
        if !self.has(GONE) {
            self.lost(Lost::Failed(io::ErrorKind::NotConnected.into()));
        }
    }

    /// The connection is gone.
    pub fn lost(&self, reason: Lost) {
        self.set(GONE);
        let failure = match reason {
            Lost::Closed => None,
            Lost::Failed(error)
            | Lost::FileFailed(error)
            | Lost::LayerFailed(error)
            | Lost::ConnectFailed(error) => Some(error),
            Lost::Reset => Some(io::ErrorKind::ConnectionAborted.into()),
            Lost::Stalled => {
                Some(io::Error::new(io::ErrorKind::TimedOut, "the peer read too slowly for too long"))
            }
            Lost::MemoryOverflow => Some(io::ErrorKind::OutOfMemory.into()),
            other => Some(io::Error::new(io::ErrorKind::ConnectionAborted, format!("{other}"))),
        };
        if failure.is_some() {
            self.rest.get_or_make().failure = failure;
        }
        self.wake_reader();
        self.wake_writer();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let Some(mut rest) = self.rest.take() else { return };
        let (mut input, mut out) = (std::mem::take(&mut rest.input), std::mem::take(&mut rest.out));
        if !input.is_empty() || !out.is_empty() {
            self.with_pool(|pool| {
                input.clear(pool);
                out.clear(pool);
            });
        }
        // Last: it may drop a waker, which may panic.
        rest::keep_if_vacant(rest);
    }
}
