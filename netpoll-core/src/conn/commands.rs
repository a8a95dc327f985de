//! What a callback wants of other connections, carried out after it has returned.
//!
//! Callbacks never nest, so nothing here takes effect at once, and a connection that is gone by then is
//! left alone: the name finds nothing.

use std::any::Any;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::connect::{ConnectOptions, Order, Start};
use super::dial::Dial;
use super::forward::Forward;
use super::mail::Remote;
use super::timers::{TimerId, Timers};
use super::{
    ConnId, Context, DatagramId, DialNames, Handle, Listeners, Local, Message, Protocol, Sockets, States,
    Target, Template,
};
use crate::clockwork::{ClockReader, Instant, TimerKey};
use crate::driver::Io;
use crate::mem::{DatagramPath, Guarded, Key};

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
    TellMany {
        to: Vec<ConnId>,
        template: Box<dyn Template>,
    },
    Order {
        id: ConnId,
        order: Order,
    },
    Connect(Box<dyn Start>),
    Run {
        worker: u16,
        code: Remote,
    },
    /// The same on this worker, in its next turn.
    RunLater(Later),
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
    /// Something is to be done to the datagram sockets of this worker, by the machinery itself.
    OnSockets(OnSockets),
    /// Input of one connection goes to another.
    Link {
        from: ConnId,
        to: ConnId,
    },
    /// A listener of a task.
    Install(Install),
    /// The machinery's own, about a link.
    Forward(Forward),
    /// How much another connection has queued.
    Queued {
        id: ConnId,
        answer: Guarded<Answer>,
    },
}

/// Code for the next turn of its worker.
pub type Later = Guarded<Box<dyn FnOnce(&mut Local<'_>)>>;

/// What adds a listener to a worker that runs.
pub type Install = Box<dyn FnOnce(&mut Listeners, &mut Context, &mut dyn Io)>;

/// What is done to the datagram sockets of a worker.
pub type OnSockets = Box<dyn FnOnce(&mut Sockets, &mut Context, &mut dyn Io)>;

/// What is done with how much a connection has queued.
pub type Answer = Box<dyn FnOnce(Option<usize>, &mut Commands)>;

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
/// [`Local::commands`]. Tasks, and futures that a callback polls, give theirs in [`Commands::with`].
///
/// The [`Flow`](crate::Flow) that the callback returns comes first: what is ordered for its own connection finds that closing, or gone
/// behind a `Reset`, and what it has queued itself leaves in front of what is sent by order. What
/// [`lost`](crate::Protocol::lost) orders comes behind what the callback had ordered that ended it.
///
/// What they lead to may give orders again, and so on for 64 rounds; then others have their turn first.
pub struct Commands {
    queue: Vec<Command>,
    pub(super) timers: Timers,
    pub(super) worker: u16,
    workers: usize,
    names: DialNames,
    /// The worker that carries them out, if one does.
    home: Option<Home>,
}

/// What code that gives commands may ask of its worker.
#[derive(Clone)]
struct Home {
    states: States,
    clock: ClockReader,
}

/// More than these are not kept room for between two callbacks.
const KEPT_MAX: usize = 64;

impl Commands {
    /// Those of a worker with these states.
    pub(crate) fn new(worker: u16, handle: &Handle, states: &States) -> Self {
        let home = Home { states: states.clone(), clock: handle.clock.clone() };
        Self::of(worker, handle.workers.len(), handle.names.clone(), Some(home))
    }

    fn of(worker: u16, workers: usize, names: DialNames, home: Option<Home>) -> Self {
        Self { queue: Vec::new(), timers: Timers::new(), worker, workers, names, home }
    }

    /// Others of the same worker, without an order yet.
    pub(super) fn more(&self) -> Self {
        let (worker, workers, names) = (self.worker, self.workers, self.names.clone());
        Self {
            queue: Vec::new(),
            timers: self.timers.clone(),
            worker,
            workers,
            names,
            home: self.home.clone(),
        }
    }

    /// Those that nobody carries out; names that come of them lead nowhere.
    pub(crate) fn nobodys() -> Self {
        Self::of(u16::MAX, usize::from(u16::MAX), DialNames::default(), None)
    }

    /// The worker that carries them out, counted from zero. `None` where nobody does: in the
    /// [`lost`](crate::Protocol::lost) of a connection that was never tried.
    #[must_use]
    pub fn worker(&self) -> Option<usize> {
        self.home.is_some().then_some(usize::from(self.worker))
    }

    /// The time, on the clock of all workers: later than [`Conn::now`](crate::Conn::now) by what this turn has taken so far.
    /// `None` where there is no [worker](Self::worker). Reads the clock; a callback that has a `Conn` or a [`Local`] asks that.
    #[must_use]
    pub fn now(&self) -> Option<Instant> {
        Some(self.home.as_ref()?.clock.now())
    }

    /// The value of this type that [`Builder::state`](crate::Builder::state) made for this worker. `None` where there is no
    /// [worker](Self::worker).
    ///
    /// ```
    /// use std::cell::Cell;
    ///
    /// use netpoll_core::{Commands, Conn, Flow, Input, Lost, Protocol};
    ///
    /// /// Connections of this worker that were lost by an error.
    /// #[derive(Default)]
    /// struct Failures(Cell<u64>);
    ///
    /// struct Sink;
    /// impl Protocol for Sink {
    ///     fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
    ///         input.advance_all();
    ///         Flow::Continue
    ///     }
    ///
    ///     fn lost(&mut self, reason: Lost, commands: &mut Commands) {
    ///         if let (Lost::Failed(_), Some(failures)) = (reason, commands.state::<Failures>()) {
    ///             failures.0.set(failures.0.get() + 1);
    ///         }
    ///     }
    /// }
    /// ```
    ///
    /// # Panics
    /// If the worker has none of this type.
    #[must_use]
    #[track_caller]
    pub fn state<S: 'static>(&self) -> Option<Rc<S>> {
        self.home.as_ref().map(|home| home.states.get())
    }

    /// Queues bytes on another connection, on any worker. Nothing happens if it is gone.
    ///
    /// `Bytes` are those of the crate `bytes`, exported as [`netpoll_core::Bytes`](crate::Bytes); a `Vec`, a `String` and what is
    /// `'static` become some by `into()`. Above 4 KiB they are shared, not copied, however many connections get them. They are queued
    /// even if that connection is backed up; one that falls behind by more than
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

    /// Hands a copy of a value to each of many connections, as [`tell`](Self::tell) does to one: one order, and each copy is made when its connection
    /// is told. What is on other workers goes there in one message for each worker; a worker tells 256 in a turn then. Those of this worker are
    /// told at once.
    pub fn tell_many<T: Any + Send + Clone>(&mut self, to: impl IntoIterator<Item = ConnId>, value: T) {
        let to = to.into_iter().collect();
        self.queue.push(Command::TellMany { to, template: Box::new(Guarded::new(value)) });
    }

    /// Runs code on a worker, as [`Handle::run_on`](crate::Handle::run_on) does. On this one it runs when the callback has
    /// returned, in its place among the other orders.
    ///
    /// Who waits for an answer from there gets none if the code panics, or if that worker has ended: the code is dropped then. So let what
    /// the code owns answer when it is dropped, as the [example on the first page](crate#one-worker-and-the-others) does.
    ///
    /// # Panics
    /// If there is no such worker.
    #[track_caller]
    pub fn run_on(&mut self, worker: usize, code: impl FnOnce(&mut Local<'_>) + Send + 'static) {
        assert!(worker < self.workers, "there is no worker {worker}, there are {}", self.workers);
        self.queue.push(Command::Run { worker: worker as u16, code: Guarded::new(Box::new(code)) });
    }

    /// Runs code on this worker when others have had their turn: once, between mail and what the sockets bring, in the next turn, or in this one if
    /// that has not come so far. Who has a lot to do does a part, and asks for the rest so: between two parts every socket that has something
    /// is served, and what was sent leaves. The worker does not sleep before.
    ///
    /// ```
    /// use std::cell::Cell;
    /// use std::rc::Rc;
    ///
    /// use netpoll_core::Local;
    /// use netpoll_core::sim::{Options, Sim};
    ///
    /// fn count(local: &mut Local<'_>, from: usize, done: Rc<Cell<usize>>) {
    ///     done.set((from + 100).min(1000)); // a part
    ///     if done.get() < 1000 {
    ///         local.commands().next_turn(move |local| count(local, from + 100, done));
    ///     }
    /// }
    ///
    /// let mut sim = Sim::new(Options::default());
    /// let done = Rc::new(Cell::new(0));
    /// let counted = Rc::clone(&done);
    /// sim.commands().next_turn(move |local| count(local, 0, counted));
    /// sim.turn();
    /// assert_eq!(done.get(), 100);
    /// sim.run();
    /// assert_eq!(done.get(), 1000);
    /// ```
    ///
    /// A push, and the allocation for the code. If it panics, that is counted and nothing else notices. It holds up no drain: what is asked for
    /// by then is dropped when the worker ends, at the latest after 64 more turns.
    pub fn next_turn(&mut self, code: impl FnOnce(&mut Local<'_>) + 'static) {
        self.queue.push(Command::RunLater(Guarded::new(Box::new(code))));
    }

    pub(super) fn arm(&mut self, timer: Key, after: Duration) -> TimerId {
        self.queue.push(Command::Arm { timer, after });
        TimerId { worker: self.worker, key: timer }
    }

    pub(super) fn disarm(&mut self, entry: TimerKey) {
        self.queue.push(Command::Disarm(entry));
    }

    /// Closes another connection after what it has queued is sent: its [`closing`](crate::Protocol::closing) is called, whose
    /// default is [`Flow::Linger`](crate::Flow::Linger) and not `Close`. So it stays for its peer's end, two seconds of silence by
    /// default ([`ConnLimits::linger_silence_max`](crate::ConnLimits::linger_silence_max)). One that is not made yet is given up.
    /// Nothing happens if it is gone.
    pub fn close(&mut self, id: ConnId) {
        self.order(id, Order::Close);
    }

    /// Ends our direction of another connection behind what it has queued, as [`Conn::finish`](crate::Conn::finish) does.
    /// Nothing happens if it is gone.
    pub fn finish(&mut self, id: ConnId) {
        self.order(id, Order::Finish);
    }

    /// Resets another connection; what it has queued is lost. Nothing happens if it is gone.
    pub fn reset(&mut self, id: ConnId) {
        self.order(id, Order::Reset);
    }

    /// Calls [`woken`](crate::Protocol::woken) on another connection, without a [`Waker`](std::task::Waker). Nothing happens if it is
    /// gone, or not open.
    pub fn wake(&mut self, id: ConnId) {
        self.order(id, Order::Wake);
    }

    /// Holds the input of another connection back, until [`resume`](Self::resume). Whatever its own callbacks return meanwhile, and
    /// beside a pause of its own: it is received from when both are over. Its peer's end is told as in any pause
    /// ([`Protocol::peer_ended`]). Nothing happens if it is gone.
    pub fn pause(&mut self, id: ConnId) {
        self.order(id, Order::Pause);
    }

    /// Ends what [`pause`](Self::pause) began.
    pub fn resume(&mut self, id: ConnId) {
        self.order(id, Order::Resume);
    }

    /// Asks how many bytes another connection of this worker has queued: those that have not left, as
    /// [`Conn::queued_bytes`](crate::Conn::queued_bytes) says it, with what waits above a [`Layer`](crate::Layer). `None` if it is gone, or
    /// lives on another worker.
    ///
    /// A callback has its own connection in hand and no other, so the answer comes when it has returned, behind the commands that were
    /// given before; what `answer` commands is carried out then too. So a sender can leave out who is behind:
    /// ```
    /// # use bytes::Bytes;
    /// # use netpoll_core::{Commands, ConnId};
    /// fn tell_if_it_keeps_up(commands: &mut Commands, to: ConnId, news: Bytes) {
    ///     commands.queued_bytes(to, move |queued, commands| {
    ///         if queued.is_some_and(|bytes| bytes < 64 << 10) {
    ///             commands.send(to, news);
    ///         }
    ///     });
    /// }
    /// ```
    /// One allocation. A panic in `answer` is caught and counted.
    pub fn queued_bytes(&mut self, id: ConnId, answer: impl FnOnce(Option<usize>, &mut Self) + 'static) {
        self.queue.push(Command::Queued { id, answer: Guarded::new(Box::new(answer)) });
    }

    /// Sends the input of one connection to another one from now on, both of this worker: a relay, if it is done in both directions.
    ///
    /// ```
    /// use netpoll_core::sim::{Options, Sim};
    /// use netpoll_core::{Commands, Conn, ConnId, ConnectOptions, Flow, Input, Lost, Protocol};
    ///
    /// const UPSTREAMS: [&str; 2] = ["10.0.0.1:80", "10.0.0.2:80"];
    ///
    /// /// Who has connected. Paused until its input is forwarded: what it says meanwhile waits in the kernel.
    /// struct Client;
    /// impl Protocol for Client {
    ///     fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
    ///         let client = conn.id();
    ///         Upstream::dial(client, 0, conn.commands());
    ///         Flow::Pause
    ///     }
    ///
    ///     fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
    ///         Flow::Pause // before the forward begins; nothing of it is consumed
    ///     }
    ///
    ///     fn eof(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
    ///         Flow::Pause // it has said all, and waits for an answer: the end is forwarded too
    ///     }
    ///
    ///     fn stopping(&mut self, conn: &mut Conn<'_>) -> Flow {
    ///         conn.unchanged_flow() // in a drain the dial goes on, and so does the pair
    ///     }
    /// }
    ///
    /// /// Where its input goes.
    /// struct Upstream {
    ///     client: ConnId,
    ///     index: usize,
    ///     is_open: bool,
    /// }
    ///
    /// impl Upstream {
    ///     fn dial(client: ConnId, index: usize, commands: &mut Commands) {
    ///         match UPSTREAMS.get(index) {
    ///             Some(to) => {
    ///                 let upstream = Self { client, index, is_open: false };
    ///                 commands.connect(*to, ConnectOptions::default(), upstream);
    ///             }
    ///             None => commands.reset(client),
    ///         }
    ///     }
    /// }
    ///
    /// impl Protocol for Upstream {
    ///     fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
    ///         self.is_open = true;
    ///         let upstream = conn.id();
    ///         conn.commands().forward(self.client, upstream);
    ///         conn.commands().forward(upstream, self.client);
    ///         Flow::Continue
    ///     }
    ///
    ///     fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
    ///         Flow::Continue // never called: its input is forwarded before any of it is read
    ///     }
    ///
    ///     fn stopping(&mut self, conn: &mut Conn<'_>) -> Flow {
    ///         conn.unchanged_flow()
    ///     }
    ///
    ///     fn lost(&mut self, _reason: Lost, commands: &mut Commands) {
    ///         if !self.is_open {
    ///             Self::dial(self.client, self.index + 1, commands); // nothing was sent: the next one will do
    ///         }
    ///     }
    /// }
    ///
    /// let mut sim = Sim::new(Options::default());
    /// let listener = sim.listen(|_peer| Client);
    /// sim.answer_connections_to("10.0.0.1:80".parse::<netpoll_core::Address>().unwrap(), netpoll_core::sim::Answer::Refuse);
    /// let client = sim.connect(listener);
    /// sim.send(client, b"question");
    /// sim.finish(client);
    /// sim.settle();
    /// let (upstream, to) = sim.take_dialed().pop().expect("dialed");
    /// assert_eq!(to.to_string(), "10.0.0.2:80");
    /// assert_eq!(sim.take_received(upstream), b"question");
    /// assert!(sim.is_closed(upstream), "its direction has ended");
    /// sim.send(upstream, b"answer");
    /// sim.close(upstream);
    /// sim.settle();
    /// assert_eq!(sim.take_received(client), b"answer");
    /// assert_eq!(sim.open(), 0);
    /// ```
    ///
    /// # What is moved
    /// - First what `from` has received and not consumed, handed over without a copy; then what is read goes from the read block to the
    ///   socket of `to`. One `recv` and one `send` for up to 64 KiB, nothing allocated. Where chunks of 16 KiB and more come in a row
    ///   and leave at once, the kernel moves what follows from socket to socket, without a copy: two `splice` for up to 128 KiB, until
    ///   less comes twice ([`Builder::splice`](crate::Builder::splice)).
    /// - What the socket does not take waits in the queue of `to`, and `from` is not read until that has left (for a driver that sends
    ///   later: between [`ConnLimits::write_high_bytes`](crate::ConnLimits::write_high_bytes) and
    ///   [`write_low_bytes`](crate::ConnLimits::write_low_bytes)). So a direction holds one read at most (where it is spliced
    ///   128 KiB), and a slow reader stops the writer in front of it and nobody else.
    /// - A reader that is too slow is cut as any other: by the least rate,
    ///   [`ConnLimits::write_rate_min`](crate::ConnLimits::write_rate_min), every
    ///   [`write_grace`](crate::ConnLimits::write_grace). It is lost with [`Lost::Stalled`](crate::Lost::Stalled), the other with
    ///   `Reset`. A relay whose readers may stand still for long sets `write_rate_min` to zero and looks at idle time itself.
    ///
    /// # When to call it
    /// - Both are open, or being dialed: `from` waits until `to` is open, and has said what it says in `opened`. A connection whose `from`
    ///   or `to` is not there is reset, as is one on another worker, with a [`Layer`](crate::Layer), or of a task: for those there is
    ///   [`copy_bidirectional`](crate::net::copy_bidirectional).
    /// - A pause of the protocol of `from` ends. A [`Flow::Pause`](crate::Flow::Pause) that it returns later, from `deadline` or `told`,
    ///   stops this direction, until a callback returns [`Flow::Continue`](crate::Flow::Continue); other callbacks return
    ///   [`Conn::unchanged_flow`](crate::Conn::unchanged_flow). [`pause`](Self::pause) and [`resume`](Self::resume) do it from outside.
    /// - A connection is `from` once and `to` once at a time: a second forward takes the place of the first, whose `from` gets its input
    ///   itself again, with what was not forwarded yet and its end. Both may be the same: an echo.
    ///
    /// # While it lasts
    /// - `received` and `eof` of `from` are not called. All other callbacks are, and what else is sent to `to` comes in between.
    /// - A pair is idle when nothing has moved in either direction: give one of the two, or both, a deadline, and look at
    ///   [`Conn::forwarded_at`](crate::Conn::forwarded_at) when it passes. What lies in either socket by then has moved.
    /// - In a drain both go on until its deadline: [`Flow::Retire`](crate::Flow::Retire), and a grace that runs already, wait until a
    ///   connection has nothing forwarded any more, and its grace begins then.
    ///
    /// # How it ends
    /// - When the peer of `from` has ended, `to` is [finished](Self::finish) behind the last byte, and that is the end of this
    ///   direction. Nobody is told, and `eof` of `from` does not come any more: one to which nothing is forwarded stays open until its
    ///   own protocol, or somebody else, ends its output. Give it a deadline.
    /// - When either of the two is gone before, however that came about, the other one is reset, so that nobody takes a part for the
    ///   whole; it is lost with [`Lost::Reset`](crate::Lost::Reset). If `from` has failed, because its peer has reset it or is gone,
    ///   what it had received by then, with its end if there was one, goes to the peer of `to` first, and the reset comes when that is
    ///   acknowledged, after [`linger_time_max`](crate::ConnLimits::linger_time_max) at most. Nobody is reset whose own protocol has
    ///   closed or finished it before: its peer has been told that this was all. A Unix socket knows no reset: to its peer that is an
    ///   end like any other, and what was said has to tell a part from the whole.
    /// - When `to` takes no more, because its own protocol has closed or [finished](Self::finish) it, nothing happens until there are bytes
    ///   for it: then `from` is reset, as a kernel does with who sends to a socket that is closed. If the peer of `from` ends without
    ///   another byte, nobody is reset.
    /// - To end a pair politely, close both: [`close`](Self::close) the other one, and return [`Flow::Linger`](crate::Flow::Linger). Both
    ///   peers see an end, and have the time of a lingering close. To hear what they still say, finish both
    ///   ([`Conn::finish`](crate::Conn::finish), [`finish`](Self::finish)): who ends as well is closed, and who has bytes for the other is
    ///   reset. A deadline on each bounds how long that may take.
    pub fn forward(&mut self, from: ConnId, to: ConnId) {
        self.queue.push(Command::Link { from, to });
    }

    fn order(&mut self, id: ConnId, order: Order) {
        self.queue.push(Command::Order { id, order });
    }

    /// A command of the machinery's own.
    pub(crate) fn push(&mut self, command: Command) {
        self.queue.push(command);
    }

    /// Whether the last command is to forward the chunk that is being delivered, which is done at once. It is taken out.
    pub(crate) fn take_chunk(&mut self) -> bool {
        let is_chunk = matches!(self.queue.last(), Some(Command::Forward(Forward::Chunk)));
        if is_chunk {
            self.queue.pop();
        }
        is_chunk
    }

    /// Connects on this worker, to whatever a [`Target`] is made of. `protocol` sees `opened`, or `lost(ConnectFailed)`: with
    /// `NotConnected` when the worker ends first, or has no slot left for it. One allocation.
    ///
    /// A name is looked up on a thread of its own, of which a runtime has four at most, or known from a moment ago
    /// ([`Builder::name_cache`](crate::Builder::name_cache)), and its addresses are tried one after the other.
    /// [`ConnectOptions::timeout`] bounds all of it.
    ///
    /// The name is that of the connection from now on, [`Conn::id`](crate::Conn::id) in it is the same: [`close`](Self::close) and
    /// [`reset`](Self::reset) end the attempt (`lost(Closed)` or `lost(Reset)`), [`finish`](Self::finish) takes effect behind
    /// `opened`. What is [sent](Self::send) to it before it is open is dropped.
    ///
    /// The connection lives on this worker: `protocol` may share an `Rc` with the one that dials, so a pair can keep what it knows in one
    /// place, without a lock and without a message. In a drain a dial goes on, until its timeout or the drain's deadline.
    pub fn connect<P: Protocol>(
        &mut self,
        to: impl Into<Target>,
        options: ConnectOptions,
        protocol: P,
    ) -> ConnId {
        let name = self.names.next();
        self.queue.push(Command::Connect(Box::new(Dial::new(name, to.into(), options, protocol))));
        ConnId { worker: self.worker, key: name }
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

    /// Gives back what a spike of timers has left.
    pub(crate) fn shrink(&mut self) {
        self.timers.shrink();
    }

    /// Forgets orders and timers.
    pub(crate) fn clear(&mut self) {
        drop(self.take());
        self.timers.clear();
    }

    /// Puts orders of others behind these.
    pub(crate) fn append(&mut self, others: &mut Vec<Command>) {
        self.queue.append(others);
    }

    /// Moves these behind others.
    pub(super) fn move_to(&mut self, others: &mut Vec<Command>) {
        others.append(&mut self.queue);
    }

    pub(crate) fn take(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.queue)
    }

    /// Gives back what was taken, for its memory.
    pub(crate) fn reuse(&mut self, empty: Vec<Command>) {
        if self.queue.capacity() == 0 && empty.capacity() <= KEPT_MAX {
            self.queue = empty;
        }
    }
}
