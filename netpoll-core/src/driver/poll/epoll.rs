//! Linux epoll: at most one registration per connection, edge-triggered; listeners level-triggered.
//!
//! Write interest is registered from the start: in edge-triggered mode it costs nothing, and no
//! `epoll_ctl` is ever needed to add it. The event array is allocated once, at its maximum; the poll
//! budget only chooses how much of it one wait may fill.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::sync::Arc;

use super::super::{Driver, Interest, Io, Limits, Ready, Sink, Wait, Waited, Watcher};
use super::batch::Batch;
use super::source::Readiness;
use super::splicing::Splicer;
use super::streams::{Register, Streams};
use super::watcher::{WATCHED, Watch};
use crate::mem::Key;
use crate::sys::{self, Doorbell, Events};

/// The bell's token: a key that no table issues (all ones).
const BELL: u64 = u64::MAX;

/// The least token with a driver's bits: keys of sources have none.
const SPECIAL: u64 = Key::from_bits(0).with_driver_bits(WATCHED);

/// How an epoll driver is set up.
#[derive(Debug, Clone, Copy)]
pub struct EpollOptions {
    /// Length of the event array: the most that any budget can take in one wait.
    pub events_max: usize,
    /// Kernel busy polling (`EPIOCSPARAMS`): microseconds, packets per poll, prefer.
    pub busy_poll: Option<(u32, u16, bool)>,
    /// Whether bytes of relays may be moved by the kernel.
    pub splices: bool,
}

/// The driver for Linux.
pub struct Epoll {
    streams: Streams<Rc<sys::Epoll>>,
    watch: Rc<Watch<sys::Epoll>>,
    events: Events,
    events_max: usize,
    /// What the last wait brought, until it is delivered.
    waited: Waited,
    batch: Batch,
    /// Kept open: a closed eventfd leaves the epoll set.
    _bell: Arc<Doorbell>,
}

impl Epoll {
    /// `bell` ends a wait from another thread.
    ///
    /// # Errors
    /// No descriptor left, or kernel busy polling asked of a kernel that lacks it (before 6.9).
    pub fn new(options: EpollOptions, bell: Arc<Doorbell>) -> io::Result<Self> {
        let epoll = sys::Epoll::new()?;
        if let Some((usecs, budget, prefer)) = options.busy_poll {
            epoll.set_busy_poll(usecs, budget, prefer).map_err(no_busy_polling)?;
        }
        epoll.add(bell.as_fd(), sys::EDGE_IN, BELL)?;
        let epoll = Rc::new(epoll);
        let watch = Rc::new(Watch::new(Rc::clone(&epoll)));
        let mut streams = Streams::new(epoll)?;
        streams.splicer = Splicer::new(options.splices);
        streams.watcher = Some(Rc::clone(&watch) as Rc<dyn Watcher>);
        Ok(Self {
            streams,
            watch,
            events: Events::with_capacity(options.events_max),
            events_max: options.events_max,
            waited: Waited::default(),
            batch: Batch::new(),
            _bell: bell,
        })
    }
}

/// Says what is missing, which the kernel's "inappropriate ioctl" does not.
#[cold]
fn no_busy_polling(error: io::Error) -> io::Error {
    let missing = match error.kind() {
        io::ErrorKind::PermissionDenied => "more than 64 packets per poll need CAP_NET_ADMIN",
        _ => "it needs Linux 6.9 with CONFIG_NET_RX_BUSY_POLL, and at most 2147483647 us",
    };
    io::Error::new(error.kind(), format!("kernel busy polling was refused ({error}): {missing}"))
}

impl Register for sys::Epoll {
    const REPORTS_LISTENERS_ONCE: bool = false;

    fn register_stream(&self, fd: BorrowedFd<'_>, key: Key) -> io::Result<()> {
        self.add(fd, sys::EDGE_STREAM, key.to_bits())
    }

    fn register_listener(&self, fd: BorrowedFd<'_>, key: Key, shared: bool) -> io::Result<()> {
        self.add(fd, if shared { sys::LEVEL_IN_SHARED } else { sys::LEVEL_IN }, key.to_bits())
    }

    fn hush_listener(&self, fd: BorrowedFd<'_>, key: Key, shared: bool, hush: bool) -> io::Result<()> {
        match (shared, hush) {
            (true, true) => self.delete(fd),
            (true, false) => self.register_listener(fd, key, true),
            (false, true) => self.modify(fd, sys::NOTHING, key.to_bits()),
            (false, false) => self.modify(fd, sys::LEVEL_IN, key.to_bits()),
        }
    }

    fn forget(&self, fd: BorrowedFd<'_>) {
        // It may not be, as a listener that is paused; and what is not there is not reported.
        let _ = self.delete(fd);
    }

    fn register_datagrams(&self, fd: BorrowedFd<'_>, key: Key) -> io::Result<()> {
        self.add(fd, sys::EDGE_IN, key.to_bits())
    }

    fn await_room(&self, fd: BorrowedFd<'_>, key: Key, awaits: bool) -> io::Result<()> {
        self.modify(fd, if awaits { sys::EDGE_IN_OUT } else { sys::EDGE_IN }, key.to_bits())
    }

    fn watch(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        let wanted = |which, bits| if interest.contains(which) { bits } else { 0 };
        let bits = wanted(Interest::READABLE, sys::WATCH_IN)
            | wanted(Interest::WRITABLE, sys::WATCH_OUT)
            | wanted(Interest::PRIORITY, sys::WATCH_URGENT);
        self.add(fd, bits, token)
    }

    fn unwatch(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.delete(fd)
    }
}

impl Driver for Epoll {
    fn io(&mut self) -> &mut dyn Io {
        &mut self.streams
    }

    fn wait(&mut self, limits: &Limits, wait: Wait) -> io::Result<()> {
        let timeout = match wait {
            Wait::Poll => sys::Timeout::Now,
            Wait::Block(None) => sys::Timeout::Never,
            Wait::Block(Some(time)) => sys::Timeout::After(time),
        };
        let events_max = limits.events.clamp(1, self.events_max);
        self.streams.counts.syscalls_wait += 1;
        self.streams.counts.syscalls_ctl += self.watch.take_calls();
        let events = self.streams.poller.wait(&mut self.events, events_max, timeout)?;
        self.waited = Waited { events, saturated: events == events_max };
        Ok(())
    }

    fn deliver<S: Sink>(&mut self, limits: &Limits, sink: &mut S) -> Waited {
        let waited = std::mem::take(&mut self.waited);
        for index in 0..waited.events {
            if self.batch.is_full() {
                self.streams.deliver(&mut self.batch, limits, sink);
            }
            let event = self.events.get(index);
            if event.data >= SPECIAL {
                // The mailbox is looked at in every turn; the bell only ends the wait.
                if event.data != BELL {
                    sink.ready(Key::split_driver_bits(event.data).0, ready(event));
                }
                continue;
            }
            let (key, is_plain_input) = (Key::from_bits(event.data), event.is_plain_input());
            self.streams.take_in(&mut self.batch, limits, sink, key, is_plain_input, || Readiness {
                readable: event.is_readable(),
                writable: event.is_writable(),
                ending: event.is_peer_closed() || event.is_hang_up() || event.is_error(),
                urgent: event.is_urgent(),
                failed: event.is_error(),
            });
        }
        self.streams.deliver(&mut self.batch, limits, sink);
        waited
    }

    fn resume<S: Sink>(&mut self, key: Key, limits: &Limits, sink: &mut S) {
        self.streams.resume(&mut self.batch, limits, sink, key);
    }

    fn look<S: Sink>(&mut self, key: Key, limits: &Limits, sink: &mut S) {
        self.streams.look(self.batch.scratch(), limits, sink, key);
    }
}

/// What an event says of a watched descriptor.
pub fn ready(event: sys::Event) -> Ready {
    let when = |holds, ready| if holds { ready } else { Ready::EMPTY };
    let hung_up = event.is_hang_up();
    when(event.is_readable(), Ready::READABLE)
        | when(event.is_writable(), Ready::WRITABLE)
        | when(event.is_urgent(), Ready::PRIORITY)
        | when(hung_up || event.is_peer_closed(), Ready::READ_CLOSED)
        // Of the pipe whose reader is gone there is an error, and that is what writing says as well.
        | when(hung_up || (event.is_writable() && event.is_error()), Ready::WRITE_CLOSED)
        | when(event.is_error(), Ready::ERROR)
}
