//! Signals, for tasks: Ctrl-C, an order to reload, whatever else the program is told that way.
//!
//! ```no_run
//! use futures::FutureExt;
//! use netpoll_core::{Runtime, signal};
//!
//! # fn main() -> std::io::Result<()> {
//! Runtime::block_on(async {
//!     let mut reloads = signal::hangup()?;
//!     let mut stops = signal::terminate()?;
//!     loop {
//!         futures::select_biased! {
//!             () = stops.recv().fuse() => return Ok(()),
//!             () = reloads.recv().fuse() => println!("reading the settings again"),
//!         }
//!     }
//! })?
//! # }
//! ```
//!
//! # What listening changes
//!
//! A signal is the process's. While there is a [`Signal`] of a kind, its usual action, such as to end the process, does not happen, and
//! a handler that the program has installed rests; both are back when the last `Signal` of that kind is dropped. A signal that the
//! process ignores when the first comes, as nohup(1) has it do with SIGHUP, stays ignored, and nobody hears it.
//!
//! Everybody who listens hears each signal. Those that come in a burst may be heard as one, as the kernel has it with
//! pending ones. None is lost between two calls of [`recv`](Signal::recv): what came meanwhile is there.
//!
//! Signals that stop the runtime ([`Builder::stop_on_signals`](crate::Builder::stop_on_signals), which `run` and `serve` turn on) still
//! do, and the second one still ends the process: whoever listens is told as well. To have SIGHUP reload and not stop, leave it out of
//! [`Builder::stop_signals`](crate::Builder::stop_signals).
//!
//! The first `Signal` of a process starts a thread, `netpoll-signals`, which sleeps until one comes and stays. What a signal costs is a
//! wake of it.
//!
//! # In a simulation
//!
//! Signals of the process are not heard there; [`Sim::signal`](crate::sim::Sim::signal) sends one to the world.

mod hub;

use std::fmt;
use std::io;
use std::task::{Context, Poll};

pub use crate::sys::SignalKind;

pub(crate) use hub::Hub;

use crate::task::try_current;

/// Listens to SIGINT, which a terminal sends for Ctrl-C. See [`on`].
///
/// # Errors
/// As for [`on`].
pub fn ctrl_c() -> io::Result<Signal> {
    on(SignalKind::Interrupt)
}

/// Listens to SIGTERM, with which `kill` and supervisors ask for an end. See [`on`].
///
/// # Errors
/// As for [`on`].
pub fn terminate() -> io::Result<Signal> {
    on(SignalKind::Terminate)
}

/// Listens to SIGHUP: the terminal was closed, or, by convention, an order to reload. See [`on`].
///
/// # Errors
/// As for [`on`].
pub fn hangup() -> io::Result<Signal> {
    on(SignalKind::HangUp)
}

/// Listens to a signal, from now on and as long as what is returned lives. On any thread, and for any executor.
///
/// # Errors
/// No descriptor, or no thread, to be had.
pub fn on(kind: SignalKind) -> io::Result<Signal> {
    let hub = match try_current().and_then(|lane| lane.kept::<Hub>()) {
        Some(world) => Hub::clone(&world),
        None => Hub::of_the_process()?,
    };
    let (listener, seen) = hub.listen(kind)?;
    Ok(Signal { hub, kind, listener, seen })
}

/// Hears the signals of one kind while it lives.
pub struct Signal {
    hub: Hub,
    kind: SignalKind,
    /// Its place among those who listen.
    listener: usize,
    /// How many of the signals that the hub has counted it has heard of.
    seen: u64,
}

impl Signal {
    /// Waits for the next signal: at once if one has come since the last call.
    ///
    /// # Cancel safety
    /// A signal is taken by the poll that returns; nothing is lost.
    pub async fn recv(&mut self) {
        std::future::poll_fn(|cx| self.poll_recv(cx)).await;
    }

    /// [`recv`](Self::recv) for who writes a future. The last waker that it was polled with is woken.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.hub.poll(self.kind, self.listener, &mut self.seen, cx.waker())
    }

    /// What it listens to.
    #[must_use]
    pub fn kind(&self) -> SignalKind {
        self.kind
    }
}

impl Drop for Signal {
    fn drop(&mut self) {
        self.hub.leave(self.kind, self.listener);
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signal").field("kind", &self.kind).finish_non_exhaustive()
    }
}
