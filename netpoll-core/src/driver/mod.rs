//! The contract between the kernel (or its stand-in) and everything above it.
//!
//! Readiness and completion meet here and nowhere else: the floors above see *bytes arrived*,
//! *bytes left*, *accepted*, *hung up*, never "readable". A driver has two halves. [`Driver`] waits
//! and delivers; only the reactor drives it. [`Io`] takes orders and may be called from inside a
//! delivery, so that a callback can pause or close a connection and a large answer leaves at once.
//!
//! Invariants that every driver keeps:
//! - a key is never reported after [`Io::close`] returned for it;
//! - a chunk is handed on once, in order, and the end of the stream comes after the last chunk;
//! - that the peer of a paused source has ended is told as well, once: nobody waits for one who is gone;
//! - a stream that stopped with input left is either paused or reported [`Sink::unfinished`]; a listener with
//!   peers left is paused, or goes on in the next wait;
//! - whoever connects again under a key that was closed, or whose connection could not be made, hears of the new attempt only;
//! - the kernel only touches memory that the driver or a [`WriteQueue`] segment owns, or that was lent to
//!   [`Io::send`], and that only until it returns.
//!
//! `Io` is called through a vtable (two indirect calls per connection event, about a nanosecond
//! each): it keeps connection tables free of the driver's type, see `docs/decisions/0001`.

mod counts;
mod datagrams;
mod files;
mod poll;
mod sim;
#[cfg(all(feature = "uring", target_os = "linux", not(netpoll_portable)))]
#[expect(unsafe_code, reason = "memory that the kernel fills between two calls; see docs/UNSAFE.md")]
mod uring;
mod watched;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use crate::mem::{DatagramQueue, Key, Pool, WriteQueue};
use crate::sys::{Address, DatagramOption, StreamOptions};

pub use counts::IoCounts;
pub use datagrams::{Datagram, DatagramBind, DatagramSetup, Datagrams, DatagramsFlushed, Place};
pub use files::read_part;
pub use poll::is_exhaustion;
#[cfg(all(target_os = "linux", not(netpoll_portable)))]
pub use poll::{Epoll, EpollOptions};
#[cfg(any(feature = "mio", not(target_os = "linux"), netpoll_portable))]
pub use poll::{Mio, MioOptions};
pub use sim::{Answer, Faults, Random, SimDriver, SimNet};
#[cfg(all(feature = "uring", target_os = "linux", not(netpoll_portable)))]
pub use uring::{Features as UringFeatures, Options as UringOptions, Uring, probe as probe_uring};
pub use watched::{Interest, Ready, Watcher};

/// The half that waits and delivers.
pub trait Driver {
    /// The half that takes orders.
    fn io(&mut self) -> &mut dyn Io;

    /// Waits as told for at most `limits.events` events. Nothing is delivered yet, so that the worker is awake and its
    /// clock fresh before anything is.
    ///
    /// # Errors
    /// Only what makes further waiting pointless; an error of one source goes to that source.
    fn wait(&mut self, limits: &Limits, wait: Wait) -> io::Result<()>;

    /// Delivers to `sink` what the wait has brought. Called once behind each wait.
    fn deliver<S: Sink>(&mut self, limits: &Limits, sink: &mut S) -> Waited;

    /// Delivers more of a source that stopped with input left, or accepts from a listener that is about to be closed.
    fn resume<S: Sink>(&mut self, key: Key, limits: &Limits, sink: &mut S);

    /// Delivers what has happened to a source by now, one share of its input at most, whether a wait has reported it or
    /// not. It comes before a deadline of the source is honoured: a wait may have been full or interrupted, or the process
    /// may have stood still, and what lies in the socket counts more than the clock. Of a paused source it delivers nothing.
    fn look<S: Sink>(&mut self, key: Key, limits: &Limits, sink: &mut S);
}

/// The half that takes orders, callable from inside a delivery.
pub trait Io {
    /// Starts to accept on a listening socket.
    fn listen(&mut self, key: Key, socket: OwnedFd, queue: Queue) -> io::Result<()>;

    /// Starts a connection; its outcome is [`Sink::opened`]. `WouldBlock` while the queue of a Unix listener is full: nothing
    /// tells when there is room.
    fn connect(&mut self, key: Key, to: &Address, options: &StreamOptions) -> io::Result<()>;

    /// Takes over a connected stream, and registers it at once, once for its whole life.
    fn adopt(&mut self, key: Key, socket: OwnedFd) -> io::Result<()>;

    /// Lets input flow or holds it back in the kernel. Flowing, true means that input may be waiting already: the
    /// caller then owes a [`Driver::resume`]. Pausing, it means what [`Sink::ending`] does, which does not come then.
    fn receive(&mut self, key: Key, demand: Demand) -> bool;

    /// Whether input may lie unread in the socket, so that closing it would be a reset. What the driver knows without
    /// asking the kernel; true if it cannot tell.
    fn may_have_input(&mut self, key: Key) -> bool;

    /// Whether input lies unread in the socket. The kernel is asked.
    fn has_input(&mut self, key: Key) -> bool;

    /// Takes what lies unread in the socket of a stream that has failed, as far as there is room. Zero if there is nothing more: a
    /// kernel may throw it away when the peer's reset arrives.
    fn salvage(&mut self, _key: Key, _into: &mut [u8]) -> usize {
        0
    }

    /// Sends what is queued, as far as the peer takes it, but of files no more than a share: others wait.
    fn flush(&mut self, key: Key, queue: &mut WriteQueue, pool: &mut Pool) -> Flushed;

    /// Sends bytes that the caller lends, of a source with nothing queued and nothing in flight. How many of them
    /// were taken: the caller keeps the rest, queues it and flushes, and learns there why it was left.
    ///
    /// Nothing of `bytes` is used after the return. A driver whose sends end later takes nothing, which is
    /// always right: the queue is what it can keep.
    fn send(&mut self, key: Key, bytes: &[u8]) -> usize;

    /// What a stream receives from now on may go to another one without a copy, see [`Sink::splices_to`]. The driver
    /// stops that by itself when it does not pay, and has to be told again. False if it cannot, now or ever.
    fn splice(&mut self, from: Key) -> bool {
        let _ = from;
        false
    }

    /// What a stream receives from now on its receiver takes itself, into memory of its own, see [`Sink::announced`]. The driver stops that by
    /// itself when it does not pay, and has to be told again. Nothing happens if it cannot.
    fn announce(&mut self, key: Key) {
        let _ = key;
    }

    /// Takes input of the stream that is being [announced](Sink::announced). Zero of any other, and if there is none, or no more than an end: the
    /// rest is told as ever.
    fn take(&mut self, key: Key, into: &mut [u8]) -> usize {
        let _ = (key, into);
        0
    }

    /// Starts to receive datagrams on a bound socket, see `datagrams.rs`.
    ///
    /// # Errors
    /// `Unsupported` of a driver that has no datagrams; what the kernel says of registering it.
    fn bind(&mut self, key: Key, socket: OwnedFd, setup: &DatagramSetup) -> io::Result<()> {
        let _ = (key, socket, setup);
        Err(io::Error::new(io::ErrorKind::Unsupported, "this driver has no datagrams"))
    }

    /// Makes a socket for datagrams, binds it and starts to receive. Where it is bound.
    ///
    /// # Errors
    /// `Unsupported` of a driver that has no datagrams; what the kernel says.
    fn open_datagrams(&mut self, key: Key, bind: &DatagramBind) -> io::Result<SocketAddr> {
        let _ = (key, bind);
        Err(io::Error::new(io::ErrorKind::Unsupported, "this driver has no datagrams"))
    }

    /// Sets an option of a datagram socket.
    ///
    /// # Errors
    /// `Unsupported` of a driver without real sockets; what the kernel says.
    fn set_datagram_option(&mut self, key: Key, option: DatagramOption) -> io::Result<()> {
        let _ = (key, option);
        Err(io::Error::new(io::ErrorKind::Unsupported, "the simulated network has no such option"))
    }

    /// Sends what is queued, as far as the kernel takes it. What it refuses is lost and counted.
    fn send_to(&mut self, key: Key, queue: &mut DatagramQueue) -> DatagramsFlushed {
        let _ = key;
        // Nothing was bound, so nobody is waiting for them.
        queue.clear();
        DatagramsFlushed::Done
    }

    /// Where descriptors of somebody else are watched, see `watched.rs`. `None` of a driver that has no descriptors.
    fn watcher(&self) -> Option<Rc<dyn Watcher>> {
        None
    }

    /// Lets nobody get in line at a listener from now on; who stands there, or had begun to, is accepted as ever.
    fn retire(&mut self, listener: Key) -> Retired;

    /// Takes in whoever stands in the queue of a listener: [`Sink::accepted`] for each, and in the end
    /// [`Sink::listener_empty`]. True means that the caller owes a [`Driver::resume`]; a driver whose accepts complete later
    /// returns false, and brings them in the waits that follow. While the listener is paused nothing comes; given once more, the
    /// order changes nothing.
    fn drain_listener(&mut self, listener: Key) -> bool;

    /// The address of the peer of a stream, if it is connected. The kernel may be asked.
    fn peer_addr(&mut self, key: Key) -> Option<Address>;

    /// Our address of a stream. The kernel may be asked.
    fn local_addr(&mut self, key: Key) -> Option<Address>;

    /// Whether what it drives are sockets of the system, which can be made elsewhere and handed to it.
    fn has_sockets(&self) -> bool {
        true
    }

    /// Starts to accept at an address of a network that is the driver's own. The address, with the port that it chose if that was left
    /// to it.
    ///
    /// # Errors
    /// `Unsupported` of a driver whose sockets are the system's; `AddrInUse`.
    fn listen_at(&mut self, key: Key, addr: &Address) -> io::Result<Address> {
        let _ = (key, addr);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Takes a stream with nothing queued and nothing in flight out of the driver, which forgets it: what lies in its socket stays there. `None`, and
    /// nothing has changed, of a driver that has no sockets or receives ahead, and of a stream that has ended.
    fn take_out(&mut self, key: Key) -> Option<OwnedFd> {
        let _ = key;
        None
    }

    /// The socket of a stream, to ask it or to set an option of it. `None` where there is none, as in a simulation. Nothing is read from it,
    /// written to it or registered: the driver would not know.
    fn socket(&self, key: Key) -> Option<BorrowedFd<'_>> {
        let _ = key;
        None
    }

    /// Ends our direction of the stream (FIN). Everything queued must have been sent.
    fn finish(&mut self, key: Key);

    /// Bytes that left the queue and that the peer has not acknowledged, if the driver can tell. In the Unix domain, where peers
    /// share one buffer, those that it has not read.
    fn unacknowledged(&mut self, key: Key) -> Option<usize>;

    /// How much a peer may have read without a change of [`unacknowledged`](Self::unacknowledged), in bytes: that of a Unix
    /// socket goes down a piece at a time. Zero where it follows the peer closely.
    fn unacknowledged_step(&mut self, key: Key) -> usize;

    /// Forgets the source and closes its socket.
    fn close(&mut self, key: Key, how: Close);

    /// Gives back memory that a spike has left behind.
    fn shrink(&mut self);

    /// What was done so far.
    fn counts(&self) -> &IoCounts;
}

/// What a driver reports. The worker implements it, once.
pub trait Sink {
    /// Where blocks go back to that a driver took out of a queue.
    fn pool(&mut self) -> &mut Pool;
    /// A peer was accepted. The key to open it under, or `None` to turn it away. Its address, if the driver has it without
    /// asking: who needs it asks [`Io::peer_addr`] once it is open.
    /// An error means that accepting stopped: the listener is paused until told to flow again.
    fn accepted(&mut self, io: &mut dyn Io, listener: Key, peer: io::Result<Option<Address>>) -> Option<Key>;
    /// Nobody stands in the queue of a listener that is being drained. Told once for each [`Io::drain_listener`].
    fn listener_empty(&mut self, io: &mut dyn Io, listener: Key);
    /// A stream is ready for use, or could not be made so (the driver has forgotten it then). Its first bytes may come
    /// in the same wait, or what ended it.
    fn opened(&mut self, io: &mut dyn Io, key: Key, result: io::Result<()>);
    /// Bytes arrived. They may have been taken off the socket before the source was paused. The receiver may change them:
    /// the driver looks at them again only where a [`Verdict::Reply`] says so.
    fn received(&mut self, io: &mut dyn Io, key: Key, chunk: &mut [u8]) -> Verdict;
    /// Where all that this stream receives is to go now, of which nothing waits in between, asked before each step of an
    /// [`Io::splice`]. `None` if it is read as ever.
    fn splices_to(&mut self, key: Key) -> Option<Key> {
        let _ = key;
        None
    }
    /// So many bytes of a stream went to where [`splices_to`](Self::splices_to) had said. `rest` came behind them and did not, because the
    /// target takes no more or has failed: the receiver has it now.
    fn spliced(&mut self, io: &mut dyn Io, key: Key, bytes: usize, rest: &[u8]) -> Verdict {
        let _ = (io, key, bytes, rest);
        Verdict::Gone
    }
    /// Input may lie in the socket of a stream of which it is to be [announced](Io::announce). Inside, and only there, it can be [taken](Io::take);
    /// what is left is told as ever. `None` if nobody takes it.
    fn announced(&mut self, io: &mut dyn Io, key: Key) -> Option<Verdict> {
        let _ = (io, key);
        None
    }
    /// These bytes of a [`Verdict::Reply`], or of a flush that was [`Flushed::Done`], were not sent: they are queued in front of everything
    /// else.
    fn unsent(&mut self, key: Key, bytes: &[u8]);
    /// So many bytes of an earlier flush left; zero when a poller only knows that there is room again.
    fn sent(&mut self, io: &mut dyn Io, key: Key, bytes: usize);
    /// The peer ended its direction or the stream failed. A failed source still needs a close.
    fn hung_up(&mut self, io: &mut dyn Io, key: Key, how: HangUp);
    /// The peer of a paused source has ended its direction, perhaps behind bytes that are not read yet. Told once. The
    /// end itself comes as [`hung_up`](Self::hung_up) behind the last chunk, if the source is let go.
    fn ending(&mut self, io: &mut dyn Io, key: Key);
    /// Datagrams arrived. Those that are not taken out of the batch are lost.
    fn datagrams(&mut self, io: &mut dyn Io, key: Key, batch: &mut Datagrams<'_>) {
        let _ = (io, key, batch);
    }
    /// A watched descriptor is ready. It says so once for each change, so that whoever is told has to remember it.
    fn ready(&mut self, key: Key, ready: Ready) {
        let _ = (key, ready);
    }
    /// The source used up its share of this turn and has to be resumed in the next.
    fn unfinished(&mut self, key: Key);
    /// A batch of events was delivered, at the latest the last of a wait, and its replies were sent: what else was
    /// queued may leave.
    fn delivered(&mut self, io: &mut dyn Io);
}

/// Bounds on one turn.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Events taken from the kernel.
    pub events: usize,
    /// Bytes read from one connection.
    pub read_bytes: usize,
    /// Peers accepted from one report of a listener, at most.
    pub accepts: usize,
}

/// Fewer bytes at a time are cheaper copied than [spliced](Io::splice) (`docs/decisions/0014`).
pub const SPLICED_BYTES_MIN: usize = 16 * 1024;

/// Fewer bytes at a time are cheaper received with those of other streams and copied than [announced](Io::announce) and taken
/// (`docs/decisions/0021`).
pub const TAKEN_BYTES_MIN: usize = 2 * 1024;
/// Whoever fills less room than this at once, and finds more, would take it in small pieces: it is received in one and copied.
const TAKING_ROOM_MIN: usize = 16 * 1024;

/// Whether announcing the next input pays, when so many bytes were taken at once by who had so much room.
pub fn pays_to_take(bytes: usize, room: usize) -> bool {
    bytes >= TAKEN_BYTES_MIN && (bytes < room || room >= TAKING_ROOM_MIN)
}

/// How to wait for the first event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Only look.
    Poll,
    /// Sleep until something happens, at most so long; `None` for ever.
    Block(Option<Duration>),
}

/// What a wait brought.
#[derive(Debug, Clone, Copy, Default)]
pub struct Waited {
    /// Events delivered, the bell included.
    pub events: usize,
    /// The bound on events was reached: more may be waiting.
    pub saturated: bool,
}

/// What the receiver of a chunk wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// More, now.
    Continue,
    /// More, now; and this part of the chunk goes back to where it came from, before the next
    /// [`Sink::delivered`], unless the source is closed by then. Nothing is in flight for it, and what is queued comes
    /// behind it. A driver that cannot send lent bytes hands them all to [`Sink::unsent`].
    Reply { start: u32, end: u32 },
    /// No more for now: the source was paused, or waits on the ready list.
    Stop,
    /// The source was closed while its chunk was handled.
    Gone,
}

/// Whether input may flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// Deliver what arrives.
    Flow,
    /// Leave it in the kernel.
    Pause,
}

/// Whose queue a listening socket leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    /// This worker's, of TCP.
    Own,
    /// One for all of so many workers, in the Unix domain.
    Workers { workers: usize },
    /// One for so many workers, of TCP, which the next process may have as well.
    Several { workers: usize },
    /// One for so many workers, and for somebody else, who goes on with it.
    Foreign { workers: usize },
}

impl Queue {
    /// Others accept from it too.
    pub fn is_shared(self) -> bool {
        self != Self::Own
    }

    /// Several workers accept from it, and take turns.
    pub fn takes_turns(self) -> bool {
        matches!(
            self,
            Self::Workers { workers: 2.. } | Self::Several { workers: 2.. } | Self::Foreign { workers: 2.. }
        )
    }
}

/// How far a listener keeps newcomers away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retired {
    /// Whoever had begun to get in line may still do so.
    Soon,
    /// Who is not in line now never will be.
    Now,
    /// It does not: it cannot, or the queue is not ours to close.
    Not,
}

/// How a socket is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// `close(2)`: FIN, or RST when unread input remains.
    Now,
    /// RST in any case (`SO_LINGER` zero).
    Reset,
}

/// How the other side went away.
#[derive(Debug)]
pub enum HangUp {
    /// The peer's FIN: it may still read.
    Eof,
    /// The stream is dead.
    Failed(io::Error),
}

/// What became of a flush.
#[derive(Debug)]
pub enum Flushed {
    /// The queue is empty and nothing is under way. A driver may have what is small still in hand: it leaves with the next wait,
    /// before anything else that is ordered for the stream, a close included; what a full socket does not take of it comes back
    /// by [`Sink::unsent`].
    Done,
    /// The peer does not take more now; [`Sink::sent`] follows. `in_flight` bytes were taken from the
    /// queue and are not yet sent (zero for a poller, which leaves them queued).
    Blocked { in_flight: usize },
    /// The peer would take more, but the share of files is used up and a file comes next: the caller owes
    /// another flush, in the next turn. Nothing is under way.
    ShareSpent,
    /// The stream is dead.
    Failed(io::Error),
    /// A file could not be read, or was shorter than promised: what was queued cannot be completed.
    Broken(io::Error),
}
