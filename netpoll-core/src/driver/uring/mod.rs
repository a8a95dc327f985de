//! Linux io_uring: the kernel receives and sends, and one system call in each turn does it all.
//!
//! A stream has one receive outstanding for its whole life, into blocks that are provided by the worker (`buffers.rs`). What is small
//! leaves with the enter that waits (`sending.rs`). Peers, connects, datagrams and room are polls of the ring, and the engine of
//! the pollers does the rest (`half.rs`), files and large output included.
//!
//! The share of one stream in one turn is the kernel's business: a receive ends when it has brought so much (Linux 6.17). Before that
//! the blocks that there are bound it.
//!
//! What the kernel holds of ours between two enters is the blocks, and nothing else. So a driver that goes cancels what is
//! outstanding, and frees them when the last receive has ended, or leaves them to the kernel (`teardown.rs`).
//!
//! Cost per keep-alive request: two entries in shared memory, and a share of one `io_uring_enter`.

mod buffers;
mod half;
mod receiving;
mod ring;
mod selftest;
mod sending;
mod settling;
mod slots;
mod teardown;

use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::poll::epoll;
use super::poll::source::{CONNECTING, ENDED, PAUSED, POLLED, READABLE, Readiness, Scratch};
use super::poll::splicing::Splicer;
use super::poll::streams::Streams;
use super::poll::watcher::Watch;
use super::{Driver, Io, Limits, Sink, Wait, Waited, Watcher};
use crate::mem::Key;
use crate::sys::{self, Doorbell};
use half::Half;
use ring::{Answer, BELL, WATCHED, special};
use settling::Leftovers;
use slots::Kind;

pub use selftest::{Features, probe};

/// Events of one look at descriptors of somebody else.
const WATCHED_EVENTS: usize = 64;

/// How a driver is made.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// What [`probe`] has found.
    pub features: Features,
    /// The kernel polls network cards before it sleeps (`IORING_REGISTER_NAPI`): microseconds, prefer.
    pub busy_poll: Option<(u32, bool)>,
    /// Relays may be spliced.
    pub splices: bool,
}

/// The driver for Linux 6.1 and later.
pub struct Uring {
    streams: Streams<Rc<Half>>,
    half: Rc<Half>,
    watch: Rc<Watch<Half>>,
    watched_events: sys::Events,
    /// The last look at them was full.
    watched_more: bool,
    scratch: Scratch,
    leftovers: Leftovers,
    bell: Arc<Doorbell>,
}

impl Uring {
    /// `bell` ends a wait from another thread. The ring belongs to this one.
    ///
    /// # Errors
    /// No descriptor left, or no memory that may be locked; what [`probe`] would have said; kernel busy polling asked of a kernel that
    /// lacks it (before 6.9).
    pub fn new(options: Options, bell: Arc<Doorbell>) -> io::Result<Self> {
        let Options { features, busy_poll, splices } = options;
        let half = Rc::new(Half::new(features).map_err(selftest::cannot_be_made)?);
        if let Some((usecs, prefer)) = busy_poll {
            half.state.borrow().ring.busy_poll(usecs, prefer).map_err(no_busy_polling)?;
        }
        let watch = Rc::new(Watch::new(Rc::clone(&half)));
        let mut streams = Streams::new(Rc::clone(&half))?;
        streams.splicer = Splicer::new(splices);
        streams.watcher = Some(Rc::clone(&watch) as Rc<dyn Watcher>);
        let driver = Self {
            streams,
            half,
            watch,
            watched_events: sys::Events::with_capacity(WATCHED_EVENTS),
            watched_more: false,
            scratch: Scratch::new(),
            leftovers: Leftovers::new(),
            bell,
        };
        driver.listen_to_bell();
        driver.listen_to_watched();
        Ok(driver)
    }

    fn listen_to_bell(&self) {
        let ring = &mut self.half.state.borrow_mut().ring;
        ring.poll(self.bell.as_fd(), libc::POLLIN as u32, true, special(BELL, 0));
    }

    fn listen_to_watched(&self) {
        let ring = &mut self.half.state.borrow_mut().ring;
        ring.poll(self.half.watched.as_fd(), libc::POLLIN as u32, true, special(WATCHED, 0));
    }

    /// Brings the orders of streams in line with what has become of them in this turn.
    fn rein_streams(&mut self) {
        let mut state = self.half.state.borrow_mut();
        if state.reined.is_empty() {
            return;
        }
        let mut reined = std::mem::take(&mut state.reined);
        for key in reined.drain(..) {
            state.rein(key, self.streams.sources.get(key));
        }
        state.reined = reined;
    }

    fn handle<S: Sink>(&mut self, answer: Answer, limits: &Limits, sink: &mut S) {
        match Key::split_driver_bits(answer.id).1 {
            BELL => {
                // The mailbox is looked at in every turn; the bell only ends the wait.
                if !answer.has_more() {
                    self.listen_to_bell();
                }
                return;
            }
            WATCHED => {
                if !answer.has_more() {
                    self.listen_to_watched();
                }
                return self.look_at_watched(sink);
            }
            _ => {}
        }
        let mut state = self.half.state.borrow_mut();
        let Some((kind, owner)) = state.orders.get(answer.id) else { return };
        if !answer.has_more() {
            state.ended(answer.id, owner);
        }
        drop(state);
        match (kind, owner) {
            (Kind::Input, owner) => self.input(sink, owner, answer),
            (_, None) => {}
            (Kind::Room, Some(key)) => self.room(sink, key, answer.result),
            (Kind::Edges, Some(key)) => self.edges(limits, sink, key, answer),
            (Kind::End, Some(key)) => self.ended(sink, key, answer),
            (Kind::Peers, Some(key)) => {
                self.streams.accept_share(limits, sink, key);
                self.await_peers(key);
            }
            (Kind::Datagrams | Kind::DatagramRoom, Some(key)) => self.datagrams(sink, key, kind, answer),
            (Kind::Leftover, Some(key)) => self.send_leftover(sink, key, answer.result),
        }
    }

    /// Waits for more peers of a listener that is not paused.
    fn await_peers(&mut self, key: Key) {
        if let Some(door) = self.streams.doors.get(key)
            && !door.is_paused
        {
            self.half.state.borrow_mut().poll_peers(door.socket().as_fd(), key, door.queue.takes_turns());
        }
    }

    fn datagrams<S: Sink>(&mut self, sink: &mut S, key: Key, kind: Kind, answer: Answer) {
        let says = |bits: i16| answer.result > 0 && answer.result & i32::from(bits) != 0;
        let now = Readiness {
            readable: says(libc::POLLIN),
            writable: kind == Kind::DatagramRoom,
            failed: says(libc::POLLERR),
            ..Readiness::default()
        };
        if kind == Kind::Datagrams
            && !answer.has_more()
            && let Some(socket) = self.streams.datagrams.socket(key)
        {
            self.half.state.borrow_mut().poll_datagrams(socket, key);
        }
        self.streams.datagrams_ready(sink, key, now);
    }

    /// Says which descriptors of somebody else are ready.
    #[cold]
    fn look_at_watched<S: Sink>(&mut self, sink: &mut S) {
        self.streams.counts.syscalls_wait += 1;
        // Never an error of an instance that is open.
        let count =
            self.half.watched.wait(&mut self.watched_events, WATCHED_EVENTS, sys::Timeout::Now).unwrap_or(0);
        self.watched_more = count == WATCHED_EVENTS;
        for index in 0..count {
            let event = self.watched_events.get(index);
            sink.ready(Key::split_driver_bits(event.data).0, epoll::ready(event));
        }
    }

    /// Lets the streams receive that found no buffer, if there is one now.
    #[cold]
    fn feed(&mut self) {
        let mut state = self.half.state.borrow_mut();
        if !state.buffers.has_provided() {
            // What is sent from them will have left with the next enter.
            state.acts_next = true;
            return;
        }
        let mut starved = std::mem::take(&mut state.starved);
        drop(state);
        for key in starved.drain(..) {
            self.go_on(key);
        }
        self.half.state.borrow_mut().starved = starved;
    }
}

/// Says what is missing, which the kernel's "invalid argument" does not.
#[cold]
fn no_busy_polling(error: io::Error) -> io::Error {
    let missing = "for a ring it needs Linux 6.9 with CONFIG_NET_RX_BUSY_POLL";
    io::Error::new(error.kind(), format!("kernel busy polling was refused ({error}): {missing}"))
}

impl Driver for Uring {
    fn io(&mut self) -> &mut dyn Io {
        &mut self.streams
    }

    fn wait(&mut self, limits: &Limits, wait: Wait) -> io::Result<()> {
        self.rein_streams();
        self.half.set_cap(limits.read_bytes);
        let mut state = self.half.state.borrow_mut();
        let acts_next = std::mem::take(&mut state.acts_next) || self.watched_more;
        let sleeps = wait != Wait::Poll && !acts_next && state.ring.came().is_empty();
        let time = match wait {
            Wait::Block(time) => time,
            Wait::Poll => Some(Duration::ZERO),
        };
        let entered = if !sleeps && state.ring.is_idle() {
            // Not even a look costs a system call: the kernel says in shared memory whether there is anything to do.
            state.ring.take_in();
            Ok(())
        } else {
            state.buffers.align();
            state.ring.enter(sleeps, time)
        };
        state.note_short_sends();
        // The delivery begins with that, if the kernel has taken all orders.
        state.acts_next = state.ring.has_orders();
        self.streams.counts.syscalls_wait += state.ring.take_enters();
        self.streams.counts.syscalls_ctl += self.watch.take_calls();
        entered
    }

    fn deliver<S: Sink>(&mut self, limits: &Limits, sink: &mut S) -> Waited {
        self.settle(sink);
        if std::mem::take(&mut self.watched_more) {
            self.look_at_watched(sink);
        }
        let mut events = 0;
        while events < limits.events {
            let Some(answer) = self.half.state.borrow_mut().ring.came().pop_front() else { break };
            self.handle(answer, limits, sink);
            events += 1;
        }
        if !self.half.state.borrow().starved.is_empty() {
            self.feed();
        }
        sink.delivered(&mut self.streams);
        Waited { events, saturated: events == limits.events }
    }

    fn resume<S: Sink>(&mut self, key: Key, limits: &Limits, sink: &mut S) {
        if let Some(source) = self.streams.sources.get(key) {
            if source.has(POLLED) && !self.half.receives(key) {
                self.streams.read(&mut self.scratch, limits, sink, key);
            }
            return self.go_on(key);
        }
        if self.streams.datagrams.has(key) {
            return self.streams.receive_datagrams(sink, key);
        }
        self.streams.accept_rest(limits, sink, key);
        self.await_peers(key);
        sink.delivered(&mut self.streams);
    }

    fn look<S: Sink>(&mut self, key: Key, limits: &Limits, sink: &mut S) {
        let Some(source) = self.streams.sources.get(key) else {
            self.streams.datagrams.look(key);
            return self.streams.receive_datagrams(sink, key);
        };
        if source.has(CONNECTING) {
            return self.streams.look(&mut self.scratch, limits, sink, key);
        }
        // What has happened comes in; of it, what is this one's is delivered.
        let _ = self.half.state.borrow_mut().ring.enter(false, None);
        self.half.state.borrow_mut().note_short_sends();
        while let Some(answer) = self.half.next_of(key) {
            self.handle(answer, limits, sink);
        }
        // Of one that has no receive outstanding nothing has come in.
        if let Some(source) = self.streams.sources.get_mut(key)
            && !source.has(PAUSED | ENDED | CONNECTING)
            && !self.half.receives(key)
        {
            source.bits |= READABLE;
            self.streams.read(&mut self.scratch, limits, sink, key);
            self.go_on_if_drained(key);
        }
    }
}

impl Uring {
    fn go_on_if_drained(&mut self, key: Key) {
        if self.streams.sources.get(key).is_some_and(|source| !source.has(READABLE)) {
            self.go_on(key);
        }
    }
}

#[cfg(test)]
mod tests;
