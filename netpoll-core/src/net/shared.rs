//! What a stream's handle and its connection share: input that was received and not read, output that was written and not taken
//! over, who waits, and what became of it.
//!
//! The connection is one of [`Link`](super::link::Link) in an ordinary table; the handle is in a task. Neither reaches the other, so each
//! leaves what it has here: the connection wakes the task, the task stirs the connection, which looks here in
//! [`woken`](crate::Protocol::woken).
//!
//! Invariants: nothing is borrowed while a waker is touched. An idle stream owns no block. `PAUSED` is what the connection was told
//! last, and whoever reads what held it back stirs it. `BACKED_UP` ends with `drained`, `closing` or `lost`, which wake the writer.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::wait::Wait;
use crate::conn::{Lost, desk};
use crate::driver::Io;
use crate::mem::{Key, Pool, ReadBuffer, WriteQueue};
use crate::sys;
use crate::task::Lane;

/// It has its key: it is open, or was.
const OPEN: u16 = 1;
/// The connection is gone.
const GONE: u16 = 1 << 1;
/// The peer has sent all it will send.
const ENDED: u16 = 1 << 2;
/// So much input waits to be read that the connection was paused.
const PAUSED: u16 = 1 << 3;
/// The connection has more queued than it should.
const BACKED_UP: u16 = 1 << 4;
/// It stands on the list of those that are looked after.
const STIRRED: u16 = 1 << 5;
/// Nobody reads any more.
const READER_LEFT: u16 = 1 << 6;
/// Nobody writes any more: our direction ends behind what was written.
const WRITER_LEFT: u16 = 1 << 7;
/// It is to be reset.
const RESET: u16 = 1 << 8;
/// The connection may have something queued itself: what is sent past its queue would come first.
const BUSY: u16 = 1 << 9;
/// Somebody else closes it: nothing more is received or sent.
const CLOSING: u16 = 1 << 10;

/// A layer has the connection: nothing is sent past its queue.
const VEILED: u16 = 1 << 11;

/// Input, in bytes, above which a stream's connection is paused until it is read: the read quantum of one turn.
pub const INPUT_BYTES_MAX: usize = 64 * 1024;
/// Output, in bytes, that a task may leave here before it has to wait for the connection to take it over.
pub const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// What is written in pieces of so many bytes is sent at once, from where it lies; smaller ones are gathered.
const SENT_AT_ONCE_BYTES_MIN: usize = 4 * 1024;

/// One stream.
pub struct Shared {
    lane: Rc<Lane>,
    key: Cell<Key>,
    bits: Cell<u16>,
    /// Input that a reader wants to be there before it is woken, in bytes; zero for any.
    wanted: Cell<usize>,
    state: RefCell<State>,
    pub reader: Wait,
    pub writer: Wait,
}

#[derive(Default)]
struct State {
    input: ReadBuffer,
    out: WriteQueue,
    failure: Option<io::Error>,
}

/// The connection, for what a link does in its callbacks.
pub use crate::conn::Conn;

impl Shared {
    pub fn new(lane: Rc<Lane>) -> Rc<Self> {
        Rc::new(Self {
            lane,
            key: Cell::new(Key::new(0, 0, 0)),
            bits: Cell::new(0),
            wanted: Cell::new(0),
            state: RefCell::default(),
            reader: Wait::default(),
            writer: Wait::default(),
        })
    }

    #[inline]
    fn has(&self, bits: u16) -> bool {
        self.bits.get() & bits != 0
    }

    #[inline]
    fn set(&self, bits: u16) {
        self.bits.set(self.bits.get() | bits);
    }

    #[inline]
    fn clear(&self, bits: u16) {
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
        desk::with_pool(self.lane.number(), borrow)
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

    /// Why nothing more can be read or written.
    fn failed(&self) -> io::Error {
        match &self.state.borrow().failure {
            Some(error) => again(error),
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
        let mut state = self.state.borrow_mut();
        if !state.input.is_empty() {
            std::mem::swap(&mut state.input, into);
            drop(state);
            self.took_input();
            return Poll::Ready(Ok(()));
        }
        drop(state);
        self.poll_none(waker)
    }

    /// There is no input: is it the end, an error, or too early?
    #[inline]
    fn poll_none(&self, waker: &Waker) -> Poll<io::Result<()>> {
        if self.has(ENDED | CLOSING) {
            return Poll::Ready(Ok(()));
        }
        if self.has(GONE) {
            return Poll::Ready(Err(self.failed()));
        }
        self.reader.wait(waker);
        Poll::Pending
    }

    /// Waits until so many bytes lie here, or there will not be as many. How many there are.
    pub fn poll_wanted(&self, waker: &Waker, wanted: usize) -> Poll<io::Result<usize>> {
        let there = self.state.borrow().input.len();
        if there >= wanted || self.has(ENDED | CLOSING) {
            self.wanted.set(0);
            return Poll::Ready(Ok(there));
        }
        if self.has(GONE) {
            self.wanted.set(0);
            return Poll::Ready(Err(self.failed()));
        }
        self.wanted.set(wanted);
        self.reader.wait(waker);
        self.took_input();
        Poll::Pending
    }

    /// Nobody waits for so much any more.
    pub fn want_any(&self) {
        self.wanted.set(0);
        self.took_input();
    }

    /// Copies input out, from the front. It stays there if it is only looked at.
    pub fn copy_input(&self, into: &mut [u8], keep: bool) -> usize {
        let mut state = self.state.borrow_mut();
        let count = state.input.len().min(into.len());
        into[..count].copy_from_slice(&state.input.bytes()[..count]);
        if keep {
            return count;
        }
        self.with_pool(|pool| state.input.advance(pool, count));
        drop(state);
        self.took_input();
        count
    }

    /// Puts a block back that was taken and not read to its end.
    pub fn put_back(&self, block: &mut ReadBuffer) {
        if block.is_empty() {
            return;
        }
        let mut state = self.state.borrow_mut();
        if state.input.is_empty() {
            std::mem::swap(&mut state.input, block);
            return;
        }
        let state = &mut *state;
        self.with_pool(|pool| {
            block.append(pool, state.input.bytes());
            state.input.clear(pool);
        });
        std::mem::swap(&mut state.input, block);
    }

    /// Gives a block that was read to its end back.
    #[inline]
    pub fn advance(&self, block: &mut ReadBuffer, bytes: usize) {
        self.with_pool(|pool| block.advance(pool, bytes));
    }

    /// Input goes on if it was held back.
    #[inline]
    fn took_input(&self) {
        if self.has(PAUSED) && !self.is_full(self.state.borrow().input.len()) {
            self.stir();
        }
    }

    #[inline]
    fn is_full(&self, input_bytes: usize) -> bool {
        input_bytes >= INPUT_BYTES_MAX.max(self.wanted.get())
    }

    /// Waits until there is room to write.
    #[inline]
    pub fn poll_room(&self, waker: &Waker) -> Poll<io::Result<()>> {
        if self.has(GONE | WRITER_LEFT | CLOSING) {
            return Poll::Ready(Err(self.is_closed()));
        }
        if self.has(BACKED_UP) || self.state.borrow().out.queued_bytes() > OUTPUT_BYTES_MAX {
            self.writer.wait(waker);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    #[cold]
    fn is_closed(&self) -> io::Error {
        if self.state.borrow().failure.is_some() {
            return self.failed();
        }
        io::ErrorKind::BrokenPipe.into()
    }

    /// Sends these bytes at once if they are many and nothing is in front of them; queues what is left.
    #[inline]
    pub fn write(&self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let sent = if bytes.len() >= SENT_AT_ONCE_BYTES_MIN { self.send_at_once(bytes) } else { 0 };
        if sent < bytes.len() {
            let mut state = self.state.borrow_mut();
            self.with_pool(|pool| state.out.write(pool, &bytes[sent..]));
            drop(state);
            self.stir();
        }
    }

    fn send_at_once(&self, bytes: &[u8]) -> usize {
        if self.bits.get() & (OPEN | BUSY | GONE | VEILED) != OPEN || !self.state.borrow().out.is_empty() {
            return 0;
        }
        // A forked child would send on a connection of its parent.
        sys::assert_not_forked();
        desk::with(self.lane.number(), |desk| desk.io.send(self.key.get(), bytes)).unwrap_or(0)
    }

    /// Queues what `write` puts into the queue.
    pub fn queue(&self, write: impl FnOnce(&mut WriteQueue, &mut Pool)) {
        let mut state = self.state.borrow_mut();
        self.with_pool(|pool| write(&mut state.out, pool));
        drop(state);
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
            let failure = self.state.borrow_mut().failure.take();
            return Poll::Ready(Err(failure.unwrap_or_else(|| io::ErrorKind::NotConnected.into())));
        }
        self.writer.wait(waker);
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
        self.writer.wake();
        self.reader.wake();
    }

    /// Input for the reader. True if there is room for more.
    #[inline]
    pub fn receive(&self, pool: &mut Pool, bytes: &[u8]) -> bool {
        if self.has(READER_LEFT) {
            self.set(PAUSED);
            return false;
        }
        let mut state = self.state.borrow_mut();
        state.input.append(pool, bytes);
        let there = state.input.len();
        drop(state);
        if there >= self.wanted.get() {
            self.reader.wake();
        }
        let is_full = self.is_full(there);
        if is_full {
            self.set(PAUSED);
        }
        !is_full
    }

    /// The peer has sent all it will send.
    pub fn end(&self) {
        self.set(ENDED);
        self.reader.wake();
    }

    /// Others want it closed: it says no more, and hears no more.
    pub fn close(&self, conn: &mut Conn<'_>) {
        self.hand_over(conn);
        self.set(CLOSING);
        self.reader.wake();
        self.writer.wake();
    }

    /// The queue has come down to low water.
    pub fn drained(&self) {
        self.clear(BACKED_UP);
        self.writer.wake();
    }

    /// Others have queued something on it.
    pub fn is_busy(&self) {
        self.set(BUSY);
    }

    /// Gives the connection what was written. Shared bytes that have left are dropped, so nothing is borrowed meanwhile.
    #[inline]
    fn hand_over(&self, conn: &mut Conn<'_>) {
        let mut out = std::mem::take(&mut self.state.borrow_mut().out);
        if !out.is_empty() {
            conn.take_over(&mut out);
        }
    }

    /// Does what the handle has left to do.
    #[inline]
    pub fn look_after(&self, conn: &mut Conn<'_>) -> Next {
        self.clear(STIRRED);
        if self.has(RESET) {
            return Next::Reset;
        }
        self.hand_over(conn);
        let queued = conn.queued_bytes();
        if queued == 0 {
            self.clear(BUSY);
        } else {
            self.set(BUSY);
            if queued > conn.limits().write_high_bytes && !conn.is_finished() {
                self.set(BACKED_UP);
            }
        }
        if !self.has(BACKED_UP) {
            self.writer.wake();
        }
        if self.has(WRITER_LEFT) {
            if self.has(READER_LEFT) {
                return Next::Linger;
            }
            conn.finish();
        }
        if self.has(READER_LEFT) {
            return Next::Hold;
        }
        if self.has(PAUSED) && !self.is_full(self.state.borrow().input.len()) {
            self.clear(PAUSED);
            return Next::Receive;
        }
        Next::Unchanged
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
            Lost::Failed(error) | Lost::FileFailed(error) | Lost::ConnectFailed(error) => Some(error),
            Lost::Reset => Some(io::ErrorKind::ConnectionAborted.into()),
            Lost::Stalled => {
                Some(io::Error::new(io::ErrorKind::TimedOut, "the peer read too slowly for too long"))
            }
            Lost::MemoryOverflow => Some(io::ErrorKind::OutOfMemory.into()),
            other => Some(io::Error::new(io::ErrorKind::ConnectionAborted, format!("{other}"))),
        };
        self.state.borrow_mut().failure = failure;
        self.reader.wake();
        self.writer.wake();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        let (mut input, mut out) = (std::mem::take(&mut state.input), std::mem::take(&mut state.out));
        if input.is_empty() && out.is_empty() {
            return;
        }
        self.with_pool(|pool| {
            input.clear(pool);
            out.clear(pool);
        });
    }
}
