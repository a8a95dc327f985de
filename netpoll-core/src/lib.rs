//! A thread-per-core reactor for network servers and clients on Linux.
//!
//! One worker per CPU, each with its own edge-triggered epoll, connections, timers and buffers. A connection
//! lives and dies on one worker, so its callbacks take no lock and its state need not be `Send`.
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
//! | know the time | [`Conn::now`], [`Local::now`], [`Handle::now`] |
//!
//! Here each worker counts its own words, and a connection that asks for the sum asks every worker, which tells it:
//!
//! ```
//! use std::cell::Cell;
//! use std::time::Duration;
//!
//! use netpoll_core::sim::{Options, Sim};
//! use netpoll_core::{Conn, Flow, Input, Message, Protocol};
//!
//! /// Words that came to this worker.
//! #[derive(Default)]
//! struct Words(Cell<usize>);
//!
//! /// What one worker has to say.
//! struct Count(usize);
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
//!         let (id, workers) = (conn.id(), conn.local().handle().workers());
//!         (self.sum, self.missing) = (0, workers);
//!         for worker in 0..workers {
//!             conn.commands().run_on(worker, move |local| {
//!                 let count = Count(local.state::<Words>().0.get());
//!                 local.commands().tell(id, count);
//!             });
//!         }
//!         Flow::Pause // one question after the other
//!     }
//!
//!     fn told(&mut self, conn: &mut Conn<'_>, message: Message) -> Flow {
//!         if let Ok(Count(count)) = message.downcast() {
//!             (self.sum, self.missing) = (self.sum + count, self.missing - 1);
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
//! | 5 | `runtime` | threads, CPUs, signals, start and end |
//! | 4 | `conn`, `timer` | callbacks, limits, deadlines, every way to end; time for tasks |
//! | 3 | `reactor`, `task` | the order of a turn, how much of it, how to wait; tasks and wakers |
//! | 2 | `driver` | when bytes come and go: epoll, or a seed |
//! | 1 | `mem`, `time` | keys, pooled blocks, queues; the clock and the wheel |
//! | 0 | `sys` | Linux, and all unsafe code |
//!
//! # Features
//!
//! - `tracing`: long turns, pauses in accepting, panics and failed pinning as events of the `tracing` crate.
//!   Without it the same facts are in the counters, except for failed pinning.
//! - `internals`: opens inner rooms to fuzz targets and benchmarks. Not part of the public API.
//!
//! Both are off by default.

#![cfg_attr(not(loom), warn(missing_docs))]

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
mod reactor;
mod runtime;
#[expect(unsafe_code, reason = "the system calls; see docs/UNSAFE.md")]
mod sys;
pub mod task;
#[cfg_attr(
    not(feature = "internals"),
    allow(dead_code, unused_imports, reason = "whole data structures: the fuzz models use all of them")
)]
mod time;
pub mod timer;

pub use conn::{
    Commands, Conn, ConnId, ConnLimits, ConnectOptions, DatagramId, DatagramProtocol, DatagramSocket, Flow,
    Handle, Input, Layer, Layered, Local, Lost, Message, Peer, Protocol, Setup, Target, TimerId, UdpOptions,
    Upper,
};
pub use driver::{Datagram, Datagrams};
pub use mem::{DatagramPath, FileRange, Held};
pub use reactor::{Budget, ParseSettingError, SPIN_MAX, Stats, WaitStrategy};
pub use runtime::{Builder, Report, Running, Runtime, Started, WorkerInfo, Workers};
pub use sys::{
    Address, Affinity, Directory, Keepalive, ListenFd, ParseAddressError, StopSignal, UnixAddress,
    listen_fds, open_files, raise_open_files,
};
pub use time::Instant;

/// Workers on a simulated network: test a protocol without sockets, and repeat every failure by its seed.
pub mod sim {
    pub use crate::driver::{Answer, Faults};
    pub use crate::runtime::{ListenerId, Options, PeerId, Sim, UdpId};
}

/// The inner rooms, for the fuzz targets and the benches. Not part of the public API.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::mem::*;
    pub use crate::reactor::{Bell, Mailbox, Sender};
    pub use crate::task::inner::*;
    pub use crate::time::*;
}
