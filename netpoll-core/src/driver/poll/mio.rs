//! The poller of the crate `mio`: edge-triggered all over, listeners included.
//!
//! For systems that have no epoll, and to hold the stream engine against a second poller where there is one. A listener is reported
//! once for whoever has come, so the rest of its queue is accepted by way of the ready list (`accept.rs`). mio fills its list of events
//! as far as there is room in it; a list is as long as the poll budget, and one that has changed gets another list. Waits that are
//! timed sleep in whole milliseconds, rounded up.
//!
//! Cost beside epoll's driver: an `accept4` that finds nothing for each time that a queue is emptied; an allocation for each change of the
//! budget; one descriptor more for each worker, by which streams are registered while the other is borrowed.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};

use super::super::{Driver, Io, Limits, Ready, Sink, Wait, Waited, Watcher};
use super::batch::Batch;
use super::source::Readiness;
use super::splicing::Splicer;
use super::streams::{Register, Streams};
use super::urgent::URGENT;
use super::watcher::{WATCHED, Watch};
use crate::driver::watched;
use crate::mem::Key;
use crate::sys::Doorbell;

const _: () = assert!(usize::BITS == 64, "a token has room for a key");

/// The bell's token: a key that no table issues (all ones).
const BELL: u64 = u64::MAX;

/// The least token with a driver's bits: keys of sources have none.
const SPECIAL: u64 = Key::from_bits(0).with_driver_bits(WATCHED);

const READABLE: Interest = Interest::READABLE;
const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);
const STREAM: Interest = match URGENT {
    Some(urgent) => BOTH.add(urgent),
    None => BOTH,
};

/// How a driver on mio is set up.
#[derive(Debug, Clone, Copy)]
pub struct MioOptions {
    /// Whether bytes of relays may be moved by the kernel.
    pub splices: bool,
}

/// The driver on mio.
pub struct Mio {
    poll: Poll,
    streams: Streams<Rc<Registry>>,
    watch: Rc<Watch<Registry>>,
    /// Has room for as many events as the wait in hand may bring.
    events: Events,
    events_max: usize,
    batch: Batch,
    /// Kept open: a closed doorbell is not reported.
    _bell: Arc<Doorbell>,
}

impl Mio {
    /// `bell` ends a wait from another thread.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn new(options: MioOptions, bell: Arc<Doorbell>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let registry = Rc::new(poll.registry().try_clone()?);
        register(&registry, bell.as_fd(), BELL, READABLE)?;
        let watch = Rc::new(Watch::new(Rc::clone(&registry)));
        let mut streams = Streams::new(registry)?;
        streams.splicer = Splicer::new(options.splices);
        streams.watcher = Some(Rc::clone(&watch) as Rc<dyn Watcher>);
        let (events, events_max) = (Events::with_capacity(1), 1);
        Ok(Self { poll, streams, watch, events, events_max, batch: Batch::new(), _bell: bell })
    }
}

fn register(registry: &Registry, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
    registry.register(&mut SourceFd(&fd.as_raw_fd()), Token(token as usize), interest)
}

impl Register for Registry {
    const REPORTS_LISTENERS_ONCE: bool = true;

    fn register_stream(&self, fd: BorrowedFd<'_>, key: Key) -> io::Result<()> {
        register(self, fd, key.to_bits(), STREAM)
    }

    fn register_listener(&self, fd: BorrowedFd<'_>, key: Key, _shared: bool) -> io::Result<()> {
        register(self, fd, key.to_bits(), READABLE)
    }

    fn hush_listener(&self, fd: BorrowedFd<'_>, key: Key, _shared: bool, hush: bool) -> io::Result<()> {
        match hush {
            true => self.deregister(&mut SourceFd(&fd.as_raw_fd())),
            // Whoever has come meanwhile is reported.
            false => register(self, fd, key.to_bits(), READABLE),
        }
    }

    fn forget(&self, fd: BorrowedFd<'_>) {
        // It may not be, as a listener that is paused; and what is not there is not reported.
        let _ = self.deregister(&mut SourceFd(&fd.as_raw_fd()));
    }

    fn register_datagrams(&self, fd: BorrowedFd<'_>, key: Key) -> io::Result<()> {
        register(self, fd, key.to_bits(), READABLE)
    }

    fn await_room(&self, fd: BorrowedFd<'_>, key: Key, awaits: bool) -> io::Result<()> {
        let interest = if awaits { BOTH } else { READABLE };
        self.reregister(&mut SourceFd(&fd.as_raw_fd()), Token(key.to_bits() as usize), interest)
    }

    fn watch(&self, fd: BorrowedFd<'_>, token: u64, interest: watched::Interest) -> io::Result<()> {
        let wanted = |which, mios| interest.contains(which).then_some(mios);
        let wanted = [
            wanted(watched::Interest::READABLE, Interest::READABLE),
            wanted(watched::Interest::WRITABLE, Interest::WRITABLE),
            URGENT.and_then(|urgent| wanted(watched::Interest::PRIORITY, urgent)),
        ];
        let interest = wanted.into_iter().flatten().reduce(Interest::add);
        let interest = interest.ok_or_else(|| {
            io::Error::new(io::ErrorKind::Unsupported, "this system does not report what is urgent")
        })?;
        register(self, fd, token, interest)
    }

    fn unwatch(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.deregister(&mut SourceFd(&fd.as_raw_fd()))
    }
}

impl Driver for Mio {
    fn io(&mut self) -> &mut dyn Io {
        &mut self.streams
    }

    fn wait(&mut self, limits: &Limits, wait: Wait) -> io::Result<()> {
        let timeout = match wait {
            Wait::Poll => Some(Duration::ZERO),
            Wait::Block(time) => time,
        };
        let events_max = limits.events.max(1);
        if self.events_max != events_max {
            self.events = Events::with_capacity(events_max);
            self.events_max = events_max;
        }
        self.streams.counts.syscalls_wait += 1;
        self.streams.counts.syscalls_ctl += self.watch.take_calls();
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            result => result?,
        }
        Ok(())
    }

    fn deliver<S: Sink>(&mut self, limits: &Limits, sink: &mut S) -> Waited {
        let mut count = 0;
        for event in &self.events {
            count += 1;
            if self.batch.is_full() {
                self.streams.deliver(&mut self.batch, limits, sink);
            }
            let token = event.token().0 as u64;
            if token >= SPECIAL {
                // The mailbox is looked at in every turn; the bell only ends the wait.
                if token != BELL {
                    sink.ready(Key::split_driver_bits(token).0, ready(event));
                }
                continue;
            }
            let ending = event.is_read_closed() || event.is_error();
            let urgent = event.is_priority();
            let readable = event.is_readable();
            let is_plain_input = readable && !ending && !urgent;
            self.streams.take_in(
                &mut self.batch,
                limits,
                sink,
                Key::from_bits(token),
                is_plain_input,
                || Readiness {
                    readable,
                    writable: event.is_writable(),
                    ending,
                    urgent,
                    failed: event.is_error(),
                },
            );
        }
        self.streams.deliver(&mut self.batch, limits, sink);
        Waited { events: count, saturated: count >= self.events_max }
    }

    fn resume<S: Sink>(&mut self, key: Key, limits: &Limits, sink: &mut S) {
        self.streams.resume(&mut self.batch, limits, sink, key);
    }

    fn look<S: Sink>(&mut self, key: Key, limits: &Limits, sink: &mut S) {
        self.streams.look(self.batch.scratch(), limits, sink, key);
    }
}

/// What an event says of a watched descriptor.
fn ready(event: &Event) -> Ready {
    let when = |holds, ready| if holds { ready } else { Ready::EMPTY };
    // What is urgent counts as readable there, so that a read may find nothing.
    when(event.is_readable(), Ready::READABLE)
        | when(event.is_writable(), Ready::WRITABLE)
        | when(event.is_priority(), Ready::PRIORITY)
        | when(event.is_read_closed(), Ready::READ_CLOSED)
        | when(event.is_write_closed(), Ready::WRITE_CLOSED)
        | when(event.is_error(), Ready::ERROR)
}
