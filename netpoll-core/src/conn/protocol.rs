//! What a user of the fast lane writes: callbacks on one connection.
//!
//! One value per connection, stored inline in its slot and called without dynamic dispatch inside its
//! table. Callbacks never nest: what one wants of another connection is a command, carried out later.

use std::fmt;
use std::io;

use bytes::Bytes;

use super::{Commands, Conn, Message};
use crate::clockwork::Instant;
use crate::sys::Address;

/// Callbacks of one connection.
///
/// A program implements it for each protocol that it speaks, with a value for each connection; only [`received`](Self::received) has to be
/// written. This crate implements it for what stands around a protocol of yours: [`Layered`](crate::Layered), [`Proxied`](crate::Proxied) and
/// [`Either`](crate::Either). Who would rather read and write in a task uses [`net`](crate::net), and none of it.
///
/// | callback | when it is called | the default |
/// |---|---|---|
/// | [`opened`](Self::opened) | once, first: accepted, or connected | changes nothing |
/// | [`received`](Self::received) | bytes are there | none |
/// | [`eof`](Self::eof) | the peer has ended its direction, and all that it sent was offered | closes |
/// | [`peer_ended`](Self::peer_ended) | the same while the input is paused, perhaps in front of bytes that are not read yet | changes nothing |
/// | [`flushed`](Self::flushed) | output that had to wait has left and was acknowledged, or [was asked about](Conn::tell_when_flushed) | nothing |
/// | [`drained`](Self::drained) | the queue was above high water and is at low water | changes nothing |
/// | [`deadline`](Self::deadline) | what [`Conn::set_deadline`] has set has passed | closes |
/// | [`woken`](Self::woken) | a [waker](Conn::waker) of it was woken | changes nothing |
/// | [`told`](Self::told) | another connection, a timer or a thread has sent it a value | drops the value, changes nothing |
/// | [`outgoing`](Self::outgoing) | the same, with bytes for its peer | queues them, changes nothing |
/// | [`finishing`](Self::finishing) | others want its direction to end | ends it, changes nothing else |
/// | [`stopping`](Self::stopping) | a drain begins, or it opens during one | [`Flow::Retire`]: goes on for a moment, then lingers |
/// | [`idle_since`](Self::idle_since) | room is wanted for newcomers, and at the deadline of a drain | `None`: never idle |
/// | [`closing`](Self::closing) | others end it: by an order, for want of room, in a drain | [`Flow::Linger`] |
/// | [`lost`](Self::lost) | once, last; then the value is dropped | nothing |
///
/// To change nothing is to return [`Conn::unchanged_flow`]: who reads goes on reading, who has paused stays so.
///
/// None of them may block: the worker serves all its other connections on the same thread. A panic costs
/// this connection (it is reset, and counted in [`Stats::panics`](crate::Stats::panics)) and no other. One that forks has to
/// see to it that the child executes another program or ends: a child that returns is stopped, with status 101.
///
/// ```
/// use netpoll_core::{Conn, Flow, Input, Protocol};
///
/// struct Echo;
/// impl Protocol for Echo {
///     fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
///         conn.send(input.bytes());
///         input.advance_all();
///         Flow::Continue
///     }
/// }
/// ```
pub trait Protocol: Sized + 'static {
    /// The connection is open, accepted or connected. Called once, first. The default goes on.
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.unchanged_flow()
    }

    /// Bytes are there. What is not consumed is kept, and offered again in front of the bytes that follow, or
    /// [before](Flow#when-left-input-is-offered-again). There is no default.
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow;

    /// The peer has sent all it will send. `input` is what was never consumed. The peer may still read:
    /// what is queued leaves in any case, and after `Flow::Continue` more can be queued later.
    /// The default closes.
    fn eof(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        let _ = (conn, input);
        Flow::Close
    }

    /// The peer of a connection that has paused reading, or that another one holds back ([`Commands::pause`],
    /// [`Commands::forward`]), has ended its direction, perhaps behind bytes that are not read
    /// yet: it has left, or has said all it will say and only listens. Comes once. What it returns takes effect as ever;
    /// the default is to go on pausing, whoever has paused. [`eof`](Self::eof) comes when all its bytes were read.
    fn peer_ended(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.unchanged_flow()
    }

    /// Output that had to wait for the peer has left, and the peer's side has acknowledged it. Time that counts from the end of
    /// an answer, such as idle time, begins here. Comes in a later turn, and only if no more is queued by then; not for
    /// output that left at once, nor behind [`Flow::Retire`]. If the peer's side had not acknowledged all when the last of it left,
    /// it is asked again at the next look ([`ConnLimits::write_grace`](crate::ConnLimits::write_grace)), or before a deadline if that
    /// comes first: so much later this may come. The default does nothing.
    fn flushed(&mut self, conn: &mut Conn<'_>) {
        let _ = conn;
    }

    /// The queue was above high water ([`Conn::is_backed_up`]) and has fallen to low water: there is room
    /// again. Comes once for each time, in a later turn even if everything left at once. The default changes nothing.
    fn drained(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.unchanged_flow()
    }

    /// The deadline that was set has passed. It is cleared; set it again if wanted. What had arrived by then is delivered first,
    /// and input that was left by [`Flow::Yield`] gets one turn. The default closes.
    fn deadline(&mut self, conn: &mut Conn<'_>) -> Flow {
        let _ = conn;
        Flow::Close
    }

    /// A waker of this connection ([`Conn::waker`]) was woken. May also come for no reason. The default changes nothing.
    fn woken(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.unchanged_flow()
    }

    /// Somebody has sent this connection a value: another connection or a timer ([`Commands::tell`](crate::Commands::tell)),
    /// or any thread ([`Handle::tell`](crate::Handle::tell)). What one thread sends to a connection by handles arrives in order, and so
    /// does what the callbacks of one worker send by commands. The two are not in order with each other: a command for a connection of
    /// the same worker is carried out when the callback has returned, what a handle sends comes by mail. The same holds for
    /// [`outgoing`](Self::outgoing) and for what others order. The default drops it and changes nothing.
    fn told(&mut self, conn: &mut Conn<'_>, message: Message) -> Flow {
        drop(message);
        conn.unchanged_flow()
    }

    /// Whether all that lies in the socket of a connection that has failed is to be offered, however much it is and though it is paused: for who
    /// keeps it for somebody else. Asked once, in front of that.
    #[doc(hidden)]
    fn takes_last_input(&mut self) -> bool {
        false
    }

    /// Whether a task has it, whoever waits for which is not waited for by a drain because of it. Asked once, of one that is dialed.
    #[doc(hidden)]
    fn is_of_task(&self) -> bool {
        false
    }

    /// What the process that follows has to know of this connection, which may go on there ([`Builder::handover`](crate::Builder::handover)): between two
    /// messages, with nothing half done, and for whoever made the peer known to it a way to know it again. At most 1024 bytes. Asked when the other process
    /// serves, in front of [`stopping`](Self::stopping), of accepted connections with no output queued, no input left or paused, no task, layer or link; `None`, the default, is
    /// drained as ever. A connection that goes is [lost](Self::lost) here ([`Lost::HandedOver`]), and its name leads nowhere; its peer notices
    /// nothing, and what it has sent lies in the socket. Where the driver has received ahead (io_uring) none does.
    fn hand_over(&mut self, conn: &mut Conn<'_>) -> Option<Vec<u8>> {
        let _ = conn;
        None
    }

    /// This connection comes from another process, whose protocol has said this of it ([`hand_over`](Self::hand_over)). Called once, right behind
    /// [`opened`](Self::opened). The default closes it: what cannot be handed over cannot be taken over.
    fn taken_over(&mut self, conn: &mut Conn<'_>, state: &[u8]) -> Flow {
        let _ = (conn, state);
        Flow::Close
    }

    /// Since when the connection has been idle, if it is: nothing is under way on it, and closing it costs its peer no more than
    /// connecting again. Asked when there is no room for newcomers, or hardly any: those who have idled longest
    /// are closed then ([`Lost::Evicted`]). Asked as well when the deadline of a drain has passed: who is idle is closed, with its
    /// [last word](Self::closing), and not [cut](Lost::Cut). Not asked while output is queued, or input was left or is paused. The default is that it
    /// never is.
    fn idle_since(&mut self, conn: &mut Conn<'_>) -> Option<Instant> {
        let _ = conn;
        None
    }

    /// The runtime is shutting down gracefully. A connection that is in the middle of something may go
    /// on until the drain deadline; it sees [`Conn::is_stopping`] and should close when done. Called once, and right behind
    /// `opened` if the connection opens during the drain. The default is [`Flow::Retire`]: it goes on for a moment and then lingers. One
    /// that must not end so soon, because it waits for a dial or for an answer from elsewhere, returns
    /// [`Conn::unchanged_flow`] and ends itself.
    fn stopping(&mut self, conn: &mut Conn<'_>) -> Flow {
        let _ = conn;
        Flow::Retire
    }

    /// Another connection or thread wants our direction to end ([`Commands::finish`], [`Handle::finish`](crate::Handle::finish)).
    /// The default does it ([`Conn::finish`]), and changes nothing else.
    fn finishing(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.finish();
        conn.unchanged_flow()
    }

    /// The connection is about to be closed because somebody else has asked for it
    /// ([`Commands::close`](crate::Commands::close), [`Handle::close`](crate::Handle::close)), the grace of a drain is over
    /// ([`Flow::Retire`]), it is idle and has to make room ([`Lost::Evicted`]), or the deadline of a drain has passed in that grace
    /// or while it was [idle](Self::idle_since). The moment for a last word; what it returns takes
    /// effect as ever, and the default lingers. Who has to make room is closed in any case, at once: of its last word leaves what the
    /// socket takes.
    fn closing(&mut self, conn: &mut Conn<'_>) -> Flow {
        let _ = conn;
        Flow::Linger
    }

    /// Others send this to the connection: other connections ([`Commands::send`](crate::Commands::send)) or threads
    /// ([`Handle::send`](crate::Handle::send)). The default queues it as it is ([`Conn::send_common`]); a protocol with a framing of its
    /// own frames it here, or drops it. Who wants nothing else returns [`Conn::unchanged_flow`]. `Bytes` are
    /// [`netpoll_core::Bytes`](crate::Bytes).
    ///
    /// Here is where to let a slow reader go before [`ConnLimits::output_bytes_max`](crate::ConnLimits::output_bytes_max) resets it
    /// without a word. What is queued leaves, at the least rate, and the reason behind it; the program that wants it gone at once
    /// returns `Flow::Reset` instead, and what it notes about the reason it finds in [`lost`](Self::lost).
    /// ```
    /// # use netpoll_core::{Bytes, Conn, Flow, Input, Protocol};
    /// # struct Member;
    /// # impl Protocol for Member {
    /// # fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow { Flow::Continue }
    /// fn outgoing(&mut self, conn: &mut Conn<'_>, bytes: Bytes) -> Flow {
    ///     if conn.queued_bytes() + bytes.len() > 1 << 20 {
    ///         conn.send(b"you read too slowly\n");
    ///         return Flow::Linger;
    ///     }
    ///     conn.send_common(bytes);
    ///     conn.unchanged_flow()
    /// }
    /// # }
    /// ```
    fn outgoing(&mut self, conn: &mut Conn<'_>, bytes: Bytes) -> Flow {
        conn.send_common(bytes);
        conn.unchanged_flow()
    }

    /// Input lies in the socket, where a task can take it itself (`Io::announce`). `None` if none does: it is received as ever.
    #[doc(hidden)]
    fn announced(&mut self, conn: &mut Conn<'_>) -> Option<Flow> {
        let _ = conn;
        None
    }

    /// The last call: the connection is gone. The value is dropped next.
    ///
    /// It comes without `opened` when an outgoing connection could not be made ([`Lost::ConnectFailed`]) or an
    /// accepted one could not be registered. The protocol of an accepted one for which the worker has no slot left (16
    /// million connections of its type) is dropped without any call.
    ///
    /// `commands` are carried out when it has returned, as those of other callbacks: close the other half of a pair, dial again. They
    /// know the [time](Commands::now), the [worker](Commands::worker) and its [state](Commands::state); who needs its own name here
    /// keeps it in `opened`.
    /// They are dropped where there is no worker to carry them out: when it ends, and for an outgoing connection that
    /// was never tried ([`NotConnected`](io::ErrorKind::NotConnected)), whose `lost` may come on another thread. The default does nothing.
    fn lost(&mut self, reason: Lost, commands: &mut Commands) {
        let _ = (reason, commands);
    }
}

/// What a callback wants for its connection next. It takes effect when the callback has returned, in front of what the callback has
/// ordered by [`Conn::commands`](crate::Conn::commands).
///
/// Behind [`Close`](Self::Close), [`Linger`](Self::Linger) and [`Reset`](Self::Reset) the only callback is
/// [`lost`](Protocol::lost), however long what is queued takes to leave: no deadline, no waker, no drain and no
/// [`closing`](Protocol::closing). What is sent or told to the connection from then on is dropped, by others and by commands of the
/// same callback, which are carried out behind it; [`Commands::reset`] alone still does what it says.
///
/// # When left input is offered again
///
/// Input that [`received`](Protocol::received) has not consumed is offered again, in front of what has come since:
///
/// | `received` returned | offered again |
/// |---|---|
/// | `Continue` | with the next bytes, or in [`eof`](Protocol::eof). A `Continue` of other callbacks, `told` for one, changes nothing; a `Yield` of one offers it in the next turn |
/// | `Yield` | in the next turn, without new bytes. With nothing left there is no call: reading goes on |
/// | `Pause` | in the turn behind the `Continue` or `Yield` of another callback, without new bytes |
/// | any of them, with more than high water queued | without new bytes, when the queue has fallen to low water: behind [`drained`](Protocol::drained), unless that pauses |
/// | `Retire` | as behind `Continue`; a pause stays a pause |
///
/// The peer's end comes behind the last bytes, so it comes when all of them were read: a `Pause` or `Yield` holds it back, and
/// [`peer_ended`](Protocol::peer_ended) tells of it meanwhile, once, if there is a pause. What `eof` leaves is offered by `received`
/// behind a later `Yield`, or a `Continue` that ends a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Go on reading. Ends a pause.
    Continue,
    /// No more `received` until another callback returns `Continue`. The bytes wait in the kernel, and
    /// the peer feels it.
    Pause,
    /// Go on, but let others come first: the rest of the input is offered again in the next turn.
    Yield,
    /// Send what is queued, then close. Where the kernel would answer what the peer has sent, or may send, with a reset
    /// that destroys a part of the answer, it closes as `Linger` does: when input was left unread, when what was queued did
    /// not leave at once, and when what had to wait before has not been acknowledged yet. Bytes that come later are answered with a reset.
    Close,
    /// Send what is queued, end our direction, discard what the peer still sends until it ends too
    /// ([`ConnLimits::linger_bytes_max`](crate::ConnLimits::linger_bytes_max),
    /// [`linger_silence_max`](crate::ConnLimits::linger_silence_max) and
    /// [`linger_time_max`](crate::ConnLimits::linger_time_max) at most), then close. For refusals, while the
    /// peer is still talking.
    Linger,
    /// Go on as before for the grace of a drain ([`Conn::drain_grace`](crate::Conn::drain_grace)), then `Linger`. What
    /// arrives until then is received, and answered if the protocol does so; a pause stays a pause. For
    /// [`stopping`](Protocol::stopping): a request may be on its way.
    ///
    /// Who has something in hand when the grace is over, because it gave way ([`Yield`](Self::Yield)) or its output waits for the peer,
    /// is offered the rest first, and ends when `received` says `Continue`: between two messages. Until then nothing is read but, for as
    /// long as another grace, what lay in the socket; so a peer that never stops sending ends as well. If in a grace nothing of it was
    /// taken, neither by the protocol nor, at the least rate, by the peer, it ends at once.
    Retire,
    /// Close with a reset, now. What is queued is lost. A Unix socket knows no reset: its peer reads what has left the queue, and
    /// then an end like any other.
    Reset,
}

/// Why a connection ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum Lost {
    /// We closed it, as a callback asked.
    Closed,
    /// We reset it, as a callback asked, or because the other end of a [`Commands::forward`] is gone, or takes no more.
    Reset,
    /// The stream failed, by the peer's reset for example. The kernel's error. What had arrived before, 64 KiB of it at most, was offered first,
    /// unless input was paused.
    Failed(io::Error),
    /// A file that was queued could not be read, or was shorter than promised (`UnexpectedEof`). The connection
    /// was reset, so that the peer does not take what arrived for the whole.
    FileFailed(io::Error),
    /// A [`Layer`](crate::Layer) has ended it, and says why ([`Upper::fail`](crate::Upper::fail)): the peer speaks something else, is not who it should
    /// be, or was cut off. Of TLS the error holds a `rustls::Error`, or is of the kind `TimedOut` or `UnexpectedEof`.
    LayerFailed(io::Error),
    /// The outgoing connection could not be made. The kernel's error, of the last address that was tried; `ConnectionRefused`
    /// where nobody listened and it would have been connected to itself; `TimedOut` from our own deadline; `NotConnected` when its
    /// worker ended before it was tried, or had no slot for it. Of a name that the system's resolver did not find, its error or
    /// `NotFound`; `ResourceBusy` when 4096 others wait to be looked up; `InvalidInput` for what is no [`Target`](crate::Target).
    ConnectFailed(io::Error),
    /// The peer read too slowly for too long, see [`ConnLimits::write_rate_min`](crate::ConnLimits::write_rate_min).
    Stalled,
    /// More input was left unconsumed than [`ConnLimits::input_bytes_max`](crate::ConnLimits::input_bytes_max).
    InputOverflow,
    /// Others sent it more than it takes: more output was queued than
    /// [`ConnLimits::output_bytes_max`](crate::ConnLimits::output_bytes_max).
    OutputOverflow,
    /// It was idle, and newcomers needed room: [`ConnLimits::connections_max`](crate::ConnLimits::connections_max) was
    /// reached or near, or there was no descriptor, or no memory of the kernel, for one.
    Evicted,
    /// It goes on in the process that follows ([`Protocol::hand_over`]).
    HandedOver,
    /// All connections of its worker together hold more memory than
    /// [`ConnLimits::memory_bytes_max`](crate::ConnLimits::memory_bytes_max), and this one wanted to hold more.
    MemoryOverflow,
    /// A callback panicked.
    Panicked,
    /// The drain deadline passed while it was still open or connecting, it was to be connected behind that, or its worker ended by
    /// an error.
    Cut,
}

/// A sentence for logs.
impl fmt::Display for Lost {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Closed => "closed by us",
            Self::Reset => "reset by us",
            Self::Failed(error) => return write!(out, "the stream failed: {error}"),
            Self::FileFailed(error) => return write!(out, "a file on its way failed: {error}"),
            Self::LayerFailed(error) => return write!(out, "its layer has failed: {error}"),
            Self::ConnectFailed(error) => return write!(out, "it could not be connected: {error}"),
            Self::Stalled => "the peer read too slowly",
            Self::InputOverflow => "more input was left unconsumed than allowed",
            Self::OutputOverflow => "more output was queued by others than allowed",
            Self::Evicted => "it was idle, and newcomers needed room",
            Self::HandedOver => "it goes on in another process",
            Self::MemoryOverflow => "its worker's connections hold more memory than allowed",
            Self::Panicked => "a callback panicked",
            Self::Cut => "cut at the end of a drain",
        };
        out.write_str(text)
    }
}

/// Input on offer. Not consuming it is fine: it is kept.
#[derive(Debug)]
pub struct Input<'a> {
    memory: Memory<'a>,
    consumed: usize,
}

/// The block that was read into: nobody else has it until somebody looks at it through a shared slice.
#[derive(Debug)]
enum Memory<'a> {
    Own(&'a mut [u8]),
    Shared(&'a [u8]),
}

impl<'a> Input<'a> {
    #[inline]
    pub(crate) fn new(bytes: &'a mut [u8]) -> Self {
        Self { memory: Memory::Own(bytes), consumed: 0 }
    }

    #[inline]
    pub(crate) fn consumed(&self) -> usize {
        self.consumed
    }

    /// What is there and not consumed. Borrowed from the read block, not from `self`: it can be held
    /// while the input advances.
    #[inline]
    #[must_use]
    pub fn bytes(&mut self) -> &'a [u8] {
        let bytes: &'a [u8] = match std::mem::replace(&mut self.memory, Memory::Shared(&[])) {
            Memory::Own(bytes) => bytes,
            Memory::Shared(bytes) => bytes,
        };
        self.memory = Memory::Shared(bytes);
        &bytes[self.consumed..]
    }

    /// The same, to be changed where it lies: what is decrypted or unmasked in place needs no other memory. What is not
    /// consumed is kept, and offered again, as it is left here.
    ///
    /// # Panics
    /// If [`bytes`](Self::bytes) was called in the same callback before: what it returned may still be held.
    #[inline]
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Memory::Own(bytes) => &mut bytes[self.consumed..],
            Memory::Shared(_) => panic!("`Input::bytes_mut` behind `Input::bytes` in one callback"),
        }
    }

    /// Consumes so many bytes.
    ///
    /// # Panics
    /// If fewer are there.
    #[inline]
    pub fn advance(&mut self, bytes: usize) {
        assert!(bytes <= self.len(), "advanced past the input");
        self.consumed += bytes;
    }

    /// Consumes everything.
    #[inline]
    pub fn advance_all(&mut self) {
        self.consumed = self.all();
    }

    /// Bytes not consumed.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.all() - self.consumed
    }

    #[inline]
    fn all(&self) -> usize {
        match &self.memory {
            Memory::Own(bytes) => bytes.len(),
            Memory::Shared(bytes) => bytes.len(),
        }
    }

    /// Nothing is left.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Who connected, as the accept function sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peer {
    /// The peer's address. [`Address::Unknown`] where the driver accepts without asking for it, which epoll does not:
    /// [`Conn::peer_addr`](crate::Conn::peer_addr) then asks. A peer in the Unix domain hardly ever has a name.
    pub addr: Address,
}

impl Peer {
    /// A peer at this address. For tests of an accept function, and for one that is called for who did not come through a
    /// listener, such as the client of an upgraded connection.
    #[must_use]
    pub fn new(addr: impl Into<Address>) -> Self {
        Self { addr: addr.into() }
    }
}
