//! A thread-per-core reactor for network servers and clients on Linux.
//!
//! One worker per CPU, each with its own edge-triggered epoll, connections, timers and buffers. A connection
//! lives and dies on one worker, so its callbacks take no lock and its state need not be `Send`.
//!
//! # Where to start
//!
//! With the protocol below, then [`Protocol`] for what else it may be told, [`Flow`] for what it may want, and [`Conn`] for what it may
//! do. After that, by what a program is about:
//!
//! | a program that | reads on at |
//! |---|---|
//! | has clients that are slow, silent or hostile | [`ConnLimits`]; [`Conn::set_deadline`], [`Conn::is_backed_up`], [`Protocol::outgoing`] |
//! | has connections that talk to each other | [One worker, and the others](#one-worker-and-the-others), [`Commands`], [`ConnId`] |
//! | connects to others | [`net::Stream::connect`] in `async` code; [A client](#a-client) with callbacks; [`ConnectOptions`], [`Target`] |
//! | relays | [`Commands::forward`] |
//! | stands behind a proxy, and wants to know its clients | [`Proxied`] |
//! | encrypts | `tls`, by the feature `tls` |
//! | compresses or frames, or encrypts otherwise | [`Layer`], [`Layered`]; [`Either`] where it is a setting |
//! | is told as a story: reads, waits, writes, in `async` code | [`net`], [`task`], [`time`], [`sync`]; `docs/ASYNC.md` for who knows tokio |
//! | brings hyper, axum, tonic, rustls or others along | [`bridge`] |
//! | has work that blocks | [`blocking`] |
//! | hears signals | [`signal`] |
//! | speaks UDP | [`net::UdpSocket`] in `async` code; [`Builder::bind_udp`], [`DatagramProtocol`] |
//! | sends files | [`Directory`], [`Conn::send_file`] |
//! | restarts without a gap | [`Builder::handover`]; [`Builder::share_port`], [`Builder::listen_on`], [`Protocol::stopping`] |
//! | is to be tested | [`sim`] |
//! | is to be understood at three in the morning | [`Stats`], [`Handle::setup`], [`Lost`] |
//!
//! `examples/` has programs; `docs/TUNING.md` every setting, `docs/ARCHITECTURE.md` how it works inside.
//!
//! # A protocol
//!
//! A [`Protocol`] is one value per connection and is called back when something happens to it. What it sends
//! is queued and leaves in one system call soon after the callback has returned; what it does not consume is
//! kept, and offered again in front of the bytes that follow.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use netpoll_core::{Conn, Flow, Input, Protocol, Runtime};
//!
//! /// Answers each line with its length.
//! struct Lengths;
//!
//! impl Protocol for Lengths {
//!     fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
//!         conn.set_deadline(Duration::from_secs(60)); // then `deadline` is called, which closes
//!         Flow::Continue
//!     }
//!
//!     fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
//!         while let Some(end) = input.bytes().iter().position(|byte| *byte == b'\n') {
//!             if conn.is_backed_up() {
//!                 return Flow::Yield; // the peer does not read: the rest is offered when it has
//!             }
//!             input.advance(end + 1);
//!             conn.send(format!("{end}\n").as_bytes());
//!         }
//!         conn.set_deadline(Duration::from_secs(60));
//!         Flow::Continue
//!     }
//! }
//!
//! fn main() -> std::io::Result<()> {
//!     // Until SIGINT, SIGTERM or SIGHUP; then connections get ten seconds to end.
//!     let report = Runtime::builder().listen("127.0.0.1:7000", |_worker| |_peer| Lengths)?.run()?;
//!     println!("{report}\n{}", report.stats);
//!     Ok(())
//! }
//! ```
//!
//! [`Builder`] has every setting with its default; [`ConnLimits`] bounds what one connection may hold and how long
//! it may take. [`Builder::start`] returns at once, with a [`Running`] to stop it by and a [`Handle`] for other
//! threads: counters ([`Stats`]), bytes to a connection by its [`ConnId`], outgoing connections. Inside a callback
//! [`Conn::commands`] does the same for other connections, and [`Conn::waker`] brings this one back when
//! something elsewhere is ready.
//!
//! # A client
//!
//! [`Commands::connect`], from any callback, timer or function of a builder, or [`Handle::connect`] from elsewhere, dials and gives the
//! connection a protocol like any other. `opened` comes when it is made, `lost` when it is not, or not any more; what dials again does it
//! there, a little later each time:
//!
//! ```
//! use std::net::SocketAddr;
//! use std::time::Duration;
//!
//! use netpoll_core::sim::{Options, Sim};
//! use netpoll_core::{Commands, Conn, ConnectOptions, Flow, Input, Lost, Protocol};
//!
//! /// Reports to a server for as long as it takes.
//! struct Reporter {
//!     to: SocketAddr,
//!     failures: u32,
//! }
//!
//! impl Reporter {
//!     fn dial(self, commands: &mut Commands) {
//!         let options = ConnectOptions::default().timeout(Duration::from_secs(5));
//!         commands.connect(self.to, options, self);
//!     }
//! }
//!
//! impl Protocol for Reporter {
//!     fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
//!         self.failures = 0;
//!         conn.send(b"hello");
//!         Flow::Continue
//!     }
//!
//!     fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
//!         input.advance_all();
//!         Flow::Continue
//!     }
//!
//!     fn lost(&mut self, _reason: Lost, commands: &mut Commands) {
//!         // A second, two, four, a minute at most. Where many do this, a random part of it keeps them from coming all at once.
//!         let delay = Duration::from_secs(2_u64.saturating_pow(self.failures).min(60));
//!         let again = Self { to: self.to, failures: self.failures + 1 };
//!         commands.after(delay, move |local| {
//!             if !local.is_stopping() {
//!                 again.dial(local.commands());
//!             }
//!         });
//!     }
//! }
//!
//! // With sockets: Runtime::builder().on_start(|worker, commands| ..), on one worker or on each.
//! let mut sim = Sim::new(Options::default());
//! sim.refuse_connections(true);
//! let to = SocketAddr::from(([192, 0, 2, 1], 7000));
//! Reporter { to, failures: 0 }.dial(sim.commands());
//! sim.advance(Duration::from_secs(2)); // refused at once, and again a second later
//! sim.refuse_connections(false);
//! sim.advance(Duration::from_secs(2));
//! let (server, _) = sim.take_dialed().pop().expect("the third attempt");
//! assert_eq!(sim.take_received(server), b"hello");
//! ```
//!
//! # One worker, and the others
//!
//! What connections of a worker share is a value of the worker: [`Builder::state`] makes it, and callbacks reach it as an `Rc`,
//! without a lock. Other workers have others of their own; what has to happen there is sent there:
//!
//! | to do | call |
//! |---|---|
//! | keep something on each worker | [`Builder::state`]; [`Conn::state`], [`Local::state`], [`WorkerInfo::state`] |
//! | do something every second, or in a second | [`Builder::every`], [`Commands::every`]; [`Commands::after`] |
//! | run code on another worker, or from another thread | [`Commands::run_on`], [`Handle::run_on`] |
//! | give a connection's protocol a value | [`Commands::tell`], [`Handle::tell`]; it comes in [`Protocol::told`] |
//! | send the same bytes to many connections | [`Commands::send_many`], [`Handle::send_many`] |
//! | tell many connections the same | [`Commands::tell_many`], [`Handle::tell_many`] |
//! | know the time | [`Conn::now`], [`Local::now`], [`Handle::now`] |
//!
//! Here each worker counts its own words, and a connection that asks for the sum asks every worker, which tells it. The answer is told
//! when it is dropped: that happens even if the code panics, or if its worker has ended and the code is dropped without running. Told by
//! the code itself, it would not come then, and who waits for it would wait for ever.
//!
//! ```
//! use std::cell::Cell;
//! use std::time::Duration;
//!
//! use netpoll_core::sim::{Options, Sim};
//! use netpoll_core::{Conn, ConnId, Flow, Handle, Input, Message, Protocol};
//!
//! /// Words that came to this worker.
//! #[derive(Default)]
//! struct Words(Cell<usize>);
//!
//! /// What one worker has to say, if it has come to that.
//! struct Count(Option<usize>);
//!
//! /// Tells it, whatever happens.
//! struct Answer {
//!     handle: Handle,
//!     to: ConnId,
//!     count: Option<usize>,
//! }
//!
//! impl Answer {
//!     fn is(mut self, count: usize) {
//!         self.count = Some(count);
//!     }
//! }
//!
//! impl Drop for Answer {
//!     fn drop(&mut self) {
//!         self.handle.tell(self.to, Count(self.count));
//!     }
//! }
//!
//! #[derive(Default)]
//! struct Counter {
//!     sum: usize,
//!     missing: usize,
//! }
//!
//! impl Protocol for Counter {
//!     fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
//!         let words = input.bytes().split(|byte| *byte == b' ').count();
//!         input.advance_all();
//!         let here = conn.state::<Words>();
//!         here.0.set(here.0.get() + words);
//!         let (to, handle) = (conn.id(), conn.local().handle().clone());
//!         (self.sum, self.missing) = (0, handle.workers());
//!         for worker in 0..handle.workers() {
//!             let answer = Answer { handle: handle.clone(), to, count: None };
//!             conn.commands().run_on(worker, move |local| answer.is(local.state::<Words>().0.get()));
//!         }
//!         Flow::Pause // one question after the other
//!     }
//!
//!     fn told(&mut self, conn: &mut Conn<'_>, message: Message) -> Flow {
//!         if let Ok(Count(count)) = message.downcast() {
//!             // A worker that has no answer counts as none; a store would answer with an error.
//!             (self.sum, self.missing) = (self.sum + count.unwrap_or(0), self.missing - 1);
//!         }
//!         if self.missing > 0 {
//!             return Flow::Pause;
//!         }
//!         conn.send(self.sum.to_string().as_bytes());
//!         Flow::Continue
//!     }
//! }
//!
//! let mut sim = Sim::new(Options::default().workers(2)); // with sockets: Runtime::builder()
//! sim.state(|_worker| Words::default());
//! sim.every(Duration::from_secs(60), |worker| {
//!     let words = worker.state::<Words>();
//!     move |_local| words.0.set(0)
//! });
//! let listener = sim.listen(|_peer| Counter::default());
//! let (one, other) = (sim.connect_to(listener, 0), sim.connect_to(listener, 1));
//! sim.send(one, b"hot and sweet");
//! sim.settle();
//! sim.send(other, b"tea");
//! sim.settle();
//! assert_eq!(sim.take_received(other), b"4");
//! sim.advance(Duration::from_secs(60));
//! sim.send(one, b"coffee");
//! sim.settle();
//! assert_eq!(sim.take_received(one), b"31", "three words at first, one since the minute began");
//! ```
//!
//! A burst of all that is one system call, or none if the other worker is awake. What is sent to a worker that has ended is
//! dropped. `examples/src/key_value_store` is a store that is split among workers in this way.
//!
//! A crate that does its I/O on tokio works in what a worker polls, and tokio itself is no dependency of this one: see
//! [`Builder::on_thread_start`], and `docs/ASYNC.md`.
//!
//! ## Bounds on work between workers
//!
//! A mailbox has no limit, so whoever sends has to have one. What is asked of others is bounded where it begins, at the connection, because
//! its peer is the one who can be made to wait:
//!
//! - *Batches*: collect what a callback finds for each other worker, and send one message for each when the input is used up or the turn's
//!   budget is ([`Conn::turn_budget`]); the reply is one message too.
//! - *In flight*: return [`Flow::Pause`] while an answer is missing, and `Continue` from [`Protocol::told`] when the last has come. Then a
//!   connection has one batch on the way to each worker at most, and its peer is held back by its socket. For more in flight, count them in
//!   the protocol, and pause at the limit.
//! - *Bytes*: count the bytes of what is under way, requests and the answers that are expected, in a `Cell` of the worker's state, one for
//!   each other worker (a lane). At the limit leave the input where it is and pause; who gives bytes back calls [`Commands::wake`] for
//!   those who wait. A batch is cut when it is full, so that one request of a megabyte does not make a thousand small ones wait.
//! - *Memory*: what is kept for a connection outside of its queues, such as answers that came out of order, counts by
//!   [`Conn::hold_memory`]. Look at [`Conn::is_short_of_memory`] before you keep more.
//! - *Output*: check [`Conn::is_backed_up`] between two messages, and return `Flow::Yield`. What others send to a peer that does not
//!   read is bounded by [`ConnLimits::output_bytes_max`].
//! - *Ends*: give back in [`Protocol::lost`], or in the destructor of what the message owns, what an answer would have given back. A
//!   message that is dropped is an answer as well: see the example above.
//!
//! # Failures
//!
//! A callback must not block: everything else on its worker waits for it. If it panics, its connection
//! is reset and counted, and no other notices.
//!
//! # The same protocol without a network
//!
//! [`sim`] runs workers on a simulated network, in one thread, with a clock that the test moves. Everything from the
//! driver contract up is the real code. With [`sim::Faults`] reads and writes arrive in pieces, late or
//! not yet, waits are cut short and descriptors run out; a failure repeats with its seed.
//!
//! ```
//! use netpoll_core::sim::{Faults, Options, Sim};
//! # use netpoll_core::{Conn, Flow, Input, Protocol};
//! # struct Echo;
//! # impl Protocol for Echo {
//! #     fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
//! #         conn.send(input.bytes());
//! #         input.advance_all();
//! #         Flow::Continue
//! #     }
//! # }
//!
//! let mut sim = Sim::new(Options::default().seed(7).faults(Faults::stormy()));
//! let listener = sim.listen(|_peer| Echo);
//! let peer = sim.connect(listener);
//! sim.send(peer, b"hello");
//! sim.finish(peer);
//! sim.settle();
//! assert_eq!(sim.take_received(peer), b"hello", "whatever the pieces were");
//! assert!(sim.is_closed(peer));
//! ```
//!
//! # Floors
//!
//! Knowledge points down this list only; `tests/floors.rs` reads the sources and says so.
//!
//! | floor | rooms | what they know |
//! |---|---|---|
//! | 7 | `bridge` | traits of other runtimes |
//! | 6 | `runtime` | threads, CPUs, signals, start and end |
//! | 5 | `blocking`, `net`, `tls` | threads for what blocks; connections and descriptors as tasks see them; layers of rustls |
//! | 4 | `conn`, `signal`, `sync`, `time` | callbacks, limits, deadlines, every way to end; channels and time for tasks |
//! | 3 | `reactor`, `task` | the order of a turn, how much of it, how to wait; tasks and wakers |
//! | 2 | `driver` | when bytes come and go: epoll, mio, io_uring, or a seed |
//! | 1 | `mem`, `clockwork` | keys, pooled blocks, queues; the clock and the wheel |
//! | 0 | `sys` | the system, and all unsafe code but that of io_uring |
//!
//! # Features
//!
//! - `tracing`: long turns and stuck ones, pauses in accepting, panics and failed pinning as events of the `tracing` crate.
//!   Without it the same facts are in the counters, except for failed pinning.
//! - `mio`: a second driver, on the poller of the crate `mio`; see [`Backend`]. On macOS it is there without the feature, and the only one.
//! - `uring`: a third, on io_uring, which is not finished.
//! - `hyper`, `tokio-io`, `futures-io`: traits of these crates on sockets of this one; see [`bridge`].
//! - `tls`: TLS between a connection and its protocol, by rustls with the cryptography of ring; see `tls`. With `tls-aws-lc-rs` that of aws-lc-rs.
//! - `internals`: opens inner rooms to fuzz targets and benchmarks. Not part of the public API.
//!
//! All are off by default.

#![cfg_attr(not(loom), warn(missing_docs))]
// Where pages of other crates that are built without those of this one lead to.
#![doc(html_root_url = "https://docs.rs/netpoll-core/0.1.0")]

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
compile_error!(
    "netpoll-core runs on Linux, and on macOS for those who develop there; docs/TUNING.md says what is different, and why there is no other"
);

/// Bytes that many may hold without a copy: [`Bytes` of the crate `bytes`](https://docs.rs/bytes/1), version 1, as
/// [`Commands::send`], [`Handle::send`], [`Conn::send_shared`] and [`Protocol::outgoing`] take them. Programs that use them otherwise
/// depend on `bytes = "1"` themselves, and have the same type.
pub use bytes::Bytes;

/// Setters of settings, for chains: one for each field, of its name.
macro_rules! setters {
    ($settings:ident { $($name:ident: $type:ty,)* }) => {
        impl $settings {$(
            #[doc = concat!("Sets [`", stringify!($name), "`](field@Self::", stringify!($name), ").")]
            #[must_use]
            pub fn $name(mut self, $name: $type) -> Self {
                self.$name = $name.into();
                self
            }
        )*}
    };
}

pub mod blocking;
pub mod bridge;
#[cfg_attr(
    not(feature = "internals"),
    allow(dead_code, unused_imports, reason = "whole data structures: the fuzz models use all of them")
)]
mod clockwork;
mod conn;
mod driver;
#[cfg(not(feature = "tracing"))]
mod log;
#[cfg(feature = "tracing")]
#[path = "log_tracing.rs"]
mod log;
#[cfg_attr(
    not(feature = "internals"),
    allow(dead_code, unused_imports, reason = "whole data structures: the fuzz models use all of them")
)]
mod mem;
pub mod net;
mod reactor;
mod runtime;
pub mod signal;
pub mod sync;
#[expect(unsafe_code, reason = "the system calls; see docs/UNSAFE.md")]
mod sys;
pub mod task;
pub mod time;
#[cfg(feature = "tls")]
pub mod tls;

pub use clockwork::Instant;
pub use conn::{
    Callee, Commands, Conn, ConnId, ConnLimits, ConnectOptions, CutPeer, DatagramId, DatagramProtocol,
    DatagramSocket, Either, Flow, Handle, Input, Layer, Layered, Local, LongCall, LongTurn, Lost, Message,
    Peer, Protocol, Proxied, Readiness, Setup, Stage, Target, TimerId, UdpOptions, Upper,
};
pub use driver::{Datagram, Datagrams};
pub use mem::{DatagramPath, FileRange, Held};
pub use reactor::{Budget, ParseSettingError, SPIN_MAX, Stats, WaitStrategy};
pub use runtime::{
    Backend, Builder, Handover, NameCache, Report, Running, Runtime, ServiceManager, Started, StuckTurn,
    WorkerInfo, Workers,
};
pub use sys::{
    Address, Affinity, Directory, Keepalive, ListenFd, ParseAddressError, StopSignal, UnixAddress,
    listen_fds, open_files, raise_open_files,
};

/// Workers on a simulated network: test a protocol without sockets, and repeat every failure by its seed.
pub mod sim {
    pub use crate::driver::{Answer, Faults};
    pub use crate::runtime::{ListenerId, Options, PeerId, Sim, UdpId};
}

/// The inner rooms, for the fuzz targets and the benches. Not part of the public API.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::clockwork::*;
    pub use crate::conn::{Parsed, parse as parse_proxy_header};
    pub use crate::mem::*;
    pub use crate::reactor::{Bell, Mailbox, Sender};
    pub use crate::task::inner::*;
}

/// The code on the crate's front page compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
