//! Sockets for tasks: streams and listeners, of TCP and of the Unix domain, and datagrams; and descriptors of other crates.
//!
//! A stream is a connection of its worker like any other: it is read and written by the worker's driver, in its batches, under its
//! [limits](crate::ConnLimits), in a [simulation](crate::sim) too. What a task sees of it is a [`Stream`], which is not [`Send`]: it stays
//! on the worker that accepted or connected it.
//!
//! ```
//! use netpoll_core::net::Stream;
//! use netpoll_core::sim::{Options, Sim};
//!
//! async fn echo(mut stream: Stream) -> std::io::Result<()> {
//!     loop {
//!         let input = stream.fill_buf().await?; // where it lies: nothing is copied
//!         if input.is_empty() {
//!             return Ok(()); // the peer has ended
//!         }
//!         let length = input.len();
//!         let output = input.to_vec();
//!         stream.consume(length);
//!         stream.write_all(&output).await?;
//!     }
//! }
//!
//! let mut sim = Sim::new(Options::default()); // with sockets: Runtime::builder().listen_tasks(address, ...)
//! let listener = sim.listen_tasks(|stream, _peer| async move {
//!     // Nobody is told of an error: the peer is gone.
//!     let _ = echo(stream).await;
//! });
//! let peer = sim.connect(listener);
//! sim.send(peer, b"ping");
//! sim.settle();
//! assert_eq!(sim.take_received(peer), b"ping");
//! ```
//!
//! Datagrams come and go by a [`UdpSocket`], in a simulation as well, and by a [`UnixDatagram`]. What brings a descriptor of its own, an eventfd, a timerfd, a socket of another crate, is watched by an [`AsyncFd`].
//!
//! # Cancel safety
//!
//! Every future here may be dropped at any time, by a [`timeout`](crate::time::timeout), `select!`, or the end of its task, and nothing is lost:
//! a read that was given up has read nothing, and a write that was given up has written nothing. [`write_all`](Stream::write_all)
//! is all or nothing as well, and so is [`read_exact`](Stream::read_exact).
//!
//! # What is written, and when it leaves
//!
//! What is written waits, and leaves when the task waits next: several writes in a row are one system call. Pieces of 4 KiB and more are
//! sent at once from where they lie. While more than [`ConnLimits::write_high_bytes`](crate::ConnLimits::write_high_bytes) wait for the
//! peer, writes wait. A peer that takes too little is cut ([`ConnLimits::write_rate_min`](crate::ConnLimits::write_rate_min)).
//!
//! # How a stream ends
//!
//! A drain waits for it, unless whoever has it has said that nothing is under way on it ([`set_idle`](Stream::set_idle)).
//!
//! Dropping one that was accepted sends what was written, ends our direction, and hears its peer out ([`Flow::Linger`](crate::Flow::Linger): two seconds of
//! silence by default, [`ConnLimits::linger_silence_max`](crate::ConnLimits::linger_silence_max)), so that the
//! peer reads it all. One that was connected closes as soon as what was written has left, unless its peer has sent what was not read
//! ([`Flow::Close`](crate::Flow::Close)): a client that gives up waits for nobody. [`reset`](Stream::reset) does not wait, and neither does a task that panics: its peer is not to take the
//! half of an answer for the whole. When the peer resets it, what had arrived before is read first, and then the error: all that lies in the
//! socket, but no more than [`ConnLimits::output_bytes_max`](crate::ConnLimits::output_bytes_max).

mod batch;
mod connect;
mod copy;
mod fd;
mod link;
mod listener;
mod shared;
mod stream;
mod udp;
mod unix_datagram;
mod until;
mod wait;
mod watched;

pub use batch::{DatagramBatch, JoinedDatagrams};
pub use connect::{connect, connect_with, lookup};
pub use copy::copy_bidirectional;
pub use fd::{AsyncFd, NothingThere, ReadyGuard};
pub use link::Link;
pub use listener::{Listener, in_task};
pub use stream::{IdleMark, OwnedReadHalf, OwnedSocket, OwnedWriteHalf, ReadHalf, Stream, WriteHalf};
pub use udp::UdpSocket;
pub use unix_datagram::UnixDatagram;

pub use crate::driver::{Interest, Ready};

pub(crate) use listener::accept_in_tasks;
pub(crate) use watched::Watched;

/// The name that people look for: a [`Stream`] of TCP is one of the Unix domain as well.
pub type TcpStream = Stream;
/// See [`TcpStream`].
pub type UnixStream = Stream;
/// The name that people look for: a [`Listener`] listens on addresses of TCP and of the Unix domain.
pub type TcpListener = Listener;
/// See [`TcpListener`].
pub type UnixListener = Listener;
