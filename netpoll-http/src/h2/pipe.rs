//! What lies between a connection, which is told of bytes, and who reads and writes frames, which asks for them.
//!
//! Invariant: everything happens inside a callback of the connection, which puts in what has come before and takes out what was written
//! behind it. So nobody registers a waker here: who finds nothing, or no room, is polled again when there is.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};

/// What is written in one go, before it is queued.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// Buffers up to this size stay with a connection that has nothing to do.
const KEPT_BYTES_MAX: usize = 1024;

#[derive(Default)]
pub(super) struct Pipe {
    input: RefCell<Vec<u8>>,
    /// Of `input`, what was read.
    read_bytes: Cell<usize>,
    /// The peer has ended its direction, behind what is in `input`.
    has_ended: Cell<bool>,
    output: RefCell<Vec<u8>>,
    /// The connection takes output.
    has_room: Cell<bool>,
    /// Somebody wanted to write, and there was no room.
    was_full: Cell<bool>,
}

impl Pipe {
    /// Puts in what has come.
    pub(super) fn put(&self, bytes: &[u8]) {
        let mut input = self.input.borrow_mut();
        input.drain(..self.read_bytes.replace(0));
        input.extend_from_slice(bytes);
    }

    /// Nothing more is going to come.
    pub(super) fn end(&self) {
        self.has_ended.set(true);
    }

    /// What waits to be read.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.input.borrow().len() - self.read_bytes.get()
    }

    /// Whether the connection takes output, from now on.
    pub(super) fn set_room(&self, has_room: bool) {
        self.has_room.set(has_room);
        self.was_full.set(false);
    }

    /// Whether somebody has more to write than there was room for.
    pub(super) fn was_full(&self) -> bool {
        self.was_full.get()
    }

    /// Hands on what was written.
    pub(super) fn take_output(&self, take: impl FnOnce(&[u8])) {
        let mut output = self.output.borrow_mut();
        if !output.is_empty() {
            take(&output);
            output.clear();
        }
    }

    /// Lets go of buffers that nobody needs now.
    pub(super) fn rest(&self) {
        for buffer in [&self.input, &self.output] {
            let mut buffer = buffer.borrow_mut();
            if buffer.capacity() > KEPT_BYTES_MAX
                && (buffer.len() == self.read_bytes.get() || buffer.is_empty())
            {
                *buffer = Vec::new();
            }
        }
        if self.input.borrow().is_empty() {
            self.read_bytes.set(0);
        }
    }
}

/// The end of it where frames are read and written.
pub(super) struct End(pub(super) Rc<Pipe>);

impl Read for End {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let pipe = &*self.0;
        let (input, read_bytes) = (pipe.input.borrow(), pipe.read_bytes.get());
        let left = &input[read_bytes..];
        if left.is_empty() {
            return if pipe.has_ended.get() { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        let taken = left.len().min(into.remaining());
        into.put_slice(&left[..taken]);
        pipe.read_bytes.set(read_bytes + taken);
        Poll::Ready(Ok(()))
    }
}

impl Write for End {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let pipe = &*self.0;
        let mut output = pipe.output.borrow_mut();
        let room = OUTPUT_BYTES_MAX.saturating_sub(output.len());
        if !pipe.has_room.get() || (room == 0 && !bytes.is_empty()) {
            pipe.was_full.set(true);
            return Poll::Pending;
        }
        let taken = room.min(bytes.len());
        output.extend_from_slice(&bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Whoever ends the connection does so behind what was written.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(end: &mut End, room: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; room];
        let mut buffer = hyper::rt::ReadBuf::new(&mut bytes);
        let mut context = Context::from_waker(std::task::Waker::noop());
        match Pin::new(end).poll_read(&mut context, buffer.unfilled()) {
            Poll::Ready(read) => read.map(|()| buffer.filled().to_vec()).ok(),
            Poll::Pending => None,
        }
    }

    #[test]
    fn what_was_put_in_is_read_once_and_in_order_and_the_end_comes_behind_it() {
        let mut end = End(Rc::new(Pipe::default()));
        assert_eq!(read(&mut end, 4), None);
        end.0.put(b"abcdef");
        assert_eq!(read(&mut end, 4).as_deref(), Some(&b"abcd"[..]));
        end.0.put(b"gh");
        end.0.end();
        assert_eq!(end.0.waiting_bytes(), 4);
        assert_eq!(read(&mut end, 9).as_deref(), Some(&b"efgh"[..]));
        end.0.rest();
        assert_eq!(read(&mut end, 9).as_deref(), Some(&b""[..]), "the end");
    }

    #[test]
    fn who_finds_no_room_is_remembered_and_what_was_written_is_taken_once() {
        let mut end = End(Rc::new(Pipe::default()));
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut write = |bytes: &[u8]| match Pin::new(&mut end).poll_write(&mut context, bytes) {
            Poll::Ready(taken) => taken.ok(),
            Poll::Pending => None,
        };
        assert_eq!(write(b"early"), None);
        end.0.set_room(true);
        let pipe = Rc::clone(&end.0);
        let mut write = |bytes: &[u8]| match Pin::new(&mut end).poll_write(&mut context, bytes) {
            Poll::Ready(taken) => taken.ok(),
            Poll::Pending => None,
        };
        assert_eq!((write(&[1; OUTPUT_BYTES_MAX + 1]), pipe.was_full()), (Some(OUTPUT_BYTES_MAX), false));
        assert_eq!((write(&[1]), pipe.was_full()), (None, true));
        let mut taken = 0;
        pipe.take_output(|bytes| taken += bytes.len());
        pipe.take_output(|bytes| taken += bytes.len());
        assert_eq!(taken, OUTPUT_BYTES_MAX);
    }
}
