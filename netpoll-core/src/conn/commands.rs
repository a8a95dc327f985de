//! What a callback wants of other connections, carried out after it has returned.
//!
//! Callbacks never nest, so nothing here takes effect at once, and a connection that is gone by then is
//! left alone: the name finds nothing.

use std::any::Any;
use std::time::Duration;

use bytes::Bytes;

use super::connect::{ConnectOptions, Start};
use super::dial::Dial;
use super::mail::Remote;
use super::timers::{TimerId, Timers};
use super::{ConnId, DatagramId, Local, Message, Protocol, Target};
use crate::mem::{DatagramPath, Guarded, Key};
use crate::time::TimerKey;

/// An order for later.
pub enum Command {
    Send {
        to: ConnId,
        bytes: Guarded<Bytes>,
    },
    SendMany {
        to: Vec<ConnId>,
        bytes: Guarded<Bytes>,
    },
    Tell {
        to: ConnId,
        message: Message,
    },
    Close {
        id: ConnId,
        reset: bool,
    },
    Connect(Box<dyn Start>),
    Run {
        worker: u16,
        code: Remote,
    },
    /// Put a timer into the wheel.
    Arm {
        timer: Key,
        after: Duration,
    },
    /// Take the entry of one that was cancelled out of it.
    Disarm(TimerKey),
    SendDatagram {
        from: DatagramId,
        packet: Box<Packet>,
    },
}

/// A datagram that somebody else wants sent from a socket.
pub struct Packet {
    pub to: DatagramPath,
    pub bytes: Guarded<Bytes>,
}

impl Packet {
    pub fn new(to: DatagramPath, bytes: Bytes) -> Box<Self> {
        Box::new(Self { to, bytes: Guarded::new(bytes) })
    }
}

/// Orders of one callback, carried out in order when it has returned; see [`Conn::commands`](crate::Conn::commands) and
/// [`Local::commands`].
///
/// What they lead to may give orders again, and so on for 64 rounds; then others have their turn first.
pub struct Commands {
    queue: Vec<Command>,
    pub(super) timers: Timers,
    pub(super) worker: u16,
    workers: usize,
}

impl Commands {
    /// Those of one of so many workers.
    pub(crate) fn new(worker: u16, workers: usize) -> Self {
        Self { queue: Vec::new(), timers: Timers::new(), worker, workers }
    }

    /// Queues bytes on another connection, on any worker. Nothing happens if it is gone.
    ///
    /// Above 4 KiB the bytes are shared, not copied, however many connections get them. They are queued even if
    /// that connection is backed up; one that falls behind by more than
    /// [`ConnLimits::output_bytes_max`](crate::ConnLimits::output_bytes_max) is reset.
    pub fn send(&mut self, to: ConnId, bytes: Bytes) {
        self.queue.push(Command::Send { to, bytes: Guarded::new(bytes) });
    }

    /// Queues the same bytes on many connections, as [`send`](Self::send) does on one. What is on other workers goes there in
    /// one message for each worker, however many of its connections are among them; a worker sends to 256 in a turn then. Those
    /// of this worker get theirs at once.
    pub fn send_many(&mut self, to: impl IntoIterator<Item = ConnId>, bytes: Bytes) {
        let to = to.into_iter().collect();
        self.queue.push(Command::SendMany { to, bytes: Guarded::new(bytes) });
    }

    /// Hands a value to the protocol of another connection, on any worker, which gets it in
    /// [`Protocol::told`](crate::Protocol::told). Nothing happens if the connection is gone, or not open yet: the
    /// value is dropped.
    pub fn tell<T: Any + Send>(&mut self, to: ConnId, value: T) {
        self.queue.push(Command::Tell { to, message: Message::new(value) });
    }

    /// Runs code on a worker, as [`Handle::run_on`](crate::Handle::run_on) does. On this one it runs when the callback has
    /// returned, in its place among the other orders.
    ///
    /// # Panics
    /// If there is no such worker.
    #[track_caller]
    pub fn run_on(&mut self, worker: usize, code: impl FnOnce(&mut Local<'_>) + Send + 'static) {
        assert!(worker < self.workers, "there is no worker {worker}, there are {}", self.workers);
        self.queue.push(Command::Run { worker: worker as u16, code: Guarded::new(Box::new(code)) });
    }

    pub(super) fn arm(&mut self, timer: Key, after: Duration) -> TimerId {
        self.queue.push(Command::Arm { timer, after });
        TimerId { worker: self.worker, key: timer }
    }

    pub(super) fn disarm(&mut self, entry: TimerKey) {
        self.queue.push(Command::Disarm(entry));
    }

    /// Closes another connection after what it has queued is sent, as [`Flow::Linger`](crate::Flow::Linger) does.
    /// Nothing happens if it is gone.
    pub fn close(&mut self, id: ConnId) {
        self.queue.push(Command::Close { id, reset: false });
    }

    /// Resets another connection; what it has queued is lost. Nothing happens if it is gone.
    pub fn reset(&mut self, id: ConnId) {
        self.queue.push(Command::Close { id, reset: true });
    }

    /// Connects on this worker, to whatever a [`Target`] is made of. `protocol` sees `opened`, or `lost(ConnectFailed)`: with
    /// `NotConnected` when the worker ends first, or has no slot left for it. One allocation.
    ///
    /// A name is looked up on a thread of its own, of which a runtime has four at most, and its addresses are tried one after
    /// the other. [`ConnectOptions::timeout`] bounds all of it.
    pub fn connect<P: Protocol>(&mut self, to: impl Into<Target>, options: ConnectOptions, protocol: P) {
        self.queue.push(Command::Connect(Box::new(Dial::new(to.into(), options, protocol))));
    }

    /// Sends a datagram from a socket, on any worker, to a peer's address or along the path of a datagram that came from it, as
    /// [`DatagramSocket::send`](crate::DatagramSocket::send) does. It is dropped, and counted, if the socket is gone.
    /// One allocation.
    pub fn send_datagram(&mut self, from: DatagramId, to: impl Into<DatagramPath>, bytes: Bytes) {
        self.queue.push(Command::SendDatagram { from, packet: Packet::new(to.into(), bytes) });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Lets the places of timers that are gone be used again.
    #[inline]
    pub(crate) fn reclaim(&mut self) {
        self.timers.reclaim();
    }

    /// Gives back what a spike of timers has left.
    pub(crate) fn shrink(&mut self) {
        self.timers.shrink();
    }

    /// Forgets orders and timers.
    pub(crate) fn clear(&mut self) {
        drop(self.take());
        self.timers.clear();
    }

    pub(crate) fn take(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.queue)
    }
}
