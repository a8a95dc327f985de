//! Listeners of tasks: one that a task accepts from, and one whose every peer gets a task.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll};

use super::connect::{lane, later, order};
use super::link::Link;
use super::shared::Shared;
use super::stream::Stream;
use super::wait::Wait;
use crate::conn::{Command, Context as WorkerContext, Door, Listeners, Peer, Target};
use crate::driver::{Io, Queue as SocketQueue};
use crate::mem::Key;
use crate::sys::{self, Address, SocketFile};
use crate::task::{self, Lane};

/// Peers that were accepted and nobody has taken yet, beyond which no more are accepted; as many stand in the kernel's queue.
const WAITING_MAX: usize = 128;
/// The kernel's queue, as [`Builder::backlog`](crate::Builder::backlog) has it.
const BACKLOG: i32 = 4096;

/// Accepts connections in a task, on its worker alone. Where all workers are to accept it is
/// [`Builder::listen_tasks`](crate::Builder::listen_tasks), and a task for each peer.
///
/// ```no_run
/// use netpoll_core::{net::Listener, task};
///
/// # async fn example() -> std::io::Result<()> {
/// let mut listener = Listener::bind("127.0.0.1:7000").await?; // or "unix:/run/x.sock"
/// while let Ok((mut stream, peer)) = listener.accept().await {
///     let serves = async move {
///         let _ = stream.write_all(format!("hello {}\n", peer.addr).as_bytes()).await;
///     };
///     task::spawn_local(serves).detach();
/// }
/// # Ok(())
/// # }
/// ```
///
/// Who is accepted and not taken yet waits here, 128 at most; behind them no more are accepted. Dropping it closes it: who
/// still waits is turned away. A drain closes it behind those who stand in its queue.
pub struct Listener {
    queue: Rc<Queue>,
    addr: Address,
}

/// Those who wait to be taken.
struct Queue {
    lane: Rc<Lane>,
    key: Cell<Option<Key>>,
    addr: RefCell<Address>,
    /// Removed when it closes.
    file: RefCell<Option<SocketFile>>,
    streams: RefCell<VecDeque<(Stream, Peer)>>,
    door: Rc<Cell<Door>>,
    /// Nobody comes any more.
    is_closed: Cell<bool>,
    /// Why it does not listen.
    failure: RefCell<Option<io::Error>>,
    acceptor: Wait,
}

impl Queue {
    fn move_door(&self, door: Door) {
        if self.door.replace(door) != door
            && let Some(key) = self.key.get()
        {
            self.lane.stir(key);
        }
    }

    fn listen(&self, io: &mut dyn Io, key: Key) -> io::Result<()> {
        let address = self.addr.borrow().clone();
        if !io.has_sockets() {
            *self.addr.borrow_mut() = io.listen_at(key, &address)?;
            return Ok(());
        }
        let Bound { socket, file, queue } = bind(&address)?;
        *self.addr.borrow_mut() = sys::local_addr(socket.as_fd())?;
        io.listen(key, socket, queue)?;
        *self.file.borrow_mut() = file;
        Ok(())
    }

    fn admit(&self, peer: Peer) -> Link {
        let shared = Shared::new(Rc::clone(&self.lane));
        let link = Link(Rc::clone(&shared));
        let mut streams = self.streams.borrow_mut();
        if self.door.get() == Door::Shut {
            shared.reset();
            return link;
        }
        streams.push_back((Stream::of(shared), peer));
        let is_full = streams.len() >= WAITING_MAX;
        drop(streams);
        if is_full {
            self.move_door(Door::Full);
        }
        self.acceptor.wake(&self.lane);
        link
    }
}

/// What the worker's listener has of the queue: when it goes nobody comes any more.
struct Entrance(Rc<Queue>);

impl Drop for Entrance {
    fn drop(&mut self) {
        self.0.is_closed.set(true);
        self.0.key.set(None);
        self.0.file.take();
        self.0.acceptor.wake(&self.0.lane);
    }
}

impl Entrance {
    /// Has the worker listen: at a socket, or at an address of a simulated network.
    fn open(self, listeners: &mut Listeners, cx: &mut WorkerContext, io: &mut dyn Io) {
        let queue = Rc::clone(&self.0);
        if queue.door.get() == Door::Shut {
            // It was given up.
            return;
        }
        if cx.stopping {
            // It would be behind those that close.
            return *queue.failure.borrow_mut() = Some(io::ErrorKind::ConnectionAborted.into());
        }
        let key = listeners.add(move |peer| self.0.admit(peer));
        listeners.set_door(key, Rc::clone(&queue.door));
        match queue.listen(io, key) {
            Ok(()) => queue.key.set(Some(key)),
            Err(error) => {
                *queue.failure.borrow_mut() = Some(error);
                listeners.forget(key);
            }
        }
    }
}

impl Listener {
    /// Listens on an address: of several, or of a name, the first that can be bound. The file of a Unix socket is removed when the
    /// listener is dropped; one that nobody listens on any more is replaced. In a simulation it listens on the simulated network, where
    /// tasks of any worker connect to it.
    ///
    /// # Errors
    /// The kernel's, with the address; those of [`lookup`](super::lookup); `Unsupported` outside of tasks and handlers of a worker;
    /// `ConnectionAborted` in a drain.
    pub async fn bind(to: impl Into<Target>) -> io::Result<Self> {
        let to = to.into();
        let addresses = super::lookup(to).await?;
        let mut outcome = Err(io::ErrorKind::InvalidInput.into());
        for address in addresses {
            outcome = Self::bind_one(&address).await.map_err(|error| {
                io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
            });
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    async fn bind_one(address: &Address) -> io::Result<Self> {
        let lane = lane()?;
        let queue = Rc::new(Queue {
            lane: Rc::clone(&lane),
            key: Cell::new(None),
            addr: RefCell::new(address.clone()),
            file: RefCell::default(),
            streams: RefCell::default(),
            door: Rc::new(Cell::new(Door::Open)),
            is_closed: Cell::new(false),
            failure: RefCell::default(),
            acceptor: Wait::default(),
        });
        let entrance = Entrance(Rc::clone(&queue));
        order(&lane, |cx| {
            // Right behind this poll, and behind the end of a listener that was dropped before.
            cx.commands
                .push(Command::Install(Box::new(|listeners, cx, io| entrance.open(listeners, cx, io))));
        })?;
        let mut listener = Self { addr: address.clone(), queue };
        poll_fn(|cx| listener.poll_ready(cx)).await?;
        listener.addr = listener.queue.addr.borrow().clone();
        Ok(listener)
    }

    /// Waits until it listens.
    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let failure = self.queue.failure.borrow_mut().take();
        if let Some(error) = failure {
            return Poll::Ready(Err(error));
        }
        if self.queue.key.get().is_some() || self.queue.is_closed.get() {
            return Poll::Ready(Ok(()));
        }
        // Carried out right behind this poll.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Takes in the next peer. Cancel-safe: nobody is lost.
    ///
    /// # Errors
    /// `ConnectionAborted`, when a drain has closed it and everybody was taken in. What goes wrong with one peer does not show here.
    pub async fn accept(&mut self) -> io::Result<(Stream, Peer)> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// [`accept`](Self::accept), for futures that are written by hand.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, Peer)>> {
        let queue = &self.queue;
        let mut streams = queue.streams.borrow_mut();
        if let Some(next) = streams.pop_front() {
            let has_room = streams.len() <= WAITING_MAX / 2;
            drop(streams);
            if has_room && queue.door.get() == Door::Full {
                queue.move_door(Door::Open);
            }
            return Poll::Ready(Ok(next));
        }
        drop(streams);
        if queue.is_closed.get() {
            let text = "the listener was closed by a drain";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, text)));
        }
        queue.acceptor.wait(&queue.lane, cx.waker());
        Poll::Pending
    }

    /// Where it listens, with the port that the kernel chose.
    #[must_use]
    pub fn local_addr(&self) -> &Address {
        &self.addr
    }
}

/// A socket that listens.
struct Bound {
    socket: OwnedFd,
    file: Option<SocketFile>,
    queue: SocketQueue,
}

fn bind(address: &Address) -> io::Result<Bound> {
    if let Address::Unix(name) = address {
        let options = sys::UnixListenOptions { backlog: BACKLOG, mode: None, takes_over: false };
        let (socket, file) = sys::listen_unix(name, &options)?;
        return Ok(Bound { socket, file, queue: SocketQueue::Workers { workers: 1 } });
    }
    let addr = address.as_socket_addr().ok_or(io::ErrorKind::InvalidInput)?;
    let options = sys::ListenOptions {
        backlog: BACKLOG,
        sharing: sys::Sharing::Alone,
        defer_accept: None,
        fast_open: None,
    };
    let socket = sys::listen(addr, &options)?;
    sys::StreamOptions::DEFAULT.apply(socket.as_fd())?;
    Ok(Bound { socket, file: None, queue: SocketQueue::Own })
}

impl Drop for Listener {
    fn drop(&mut self) {
        let queue = &self.queue;
        queue.door.set(Door::Shut);
        if let Some(key) = queue.key.get() {
            // At once if it can be, so that the address is free for the next.
            later(&queue.lane, move |cx| {
                cx.commands.push(Command::Install(Box::new(move |listeners, cx, io| {
                    listeners.stirred(cx, io, key);
                })));
            });
        }
        let waiting = std::mem::take(&mut *self.queue.streams.borrow_mut());
        for (stream, _) in waiting {
            stream.reset();
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("local_addr", &self.addr).finish_non_exhaustive()
    }
}

/// An accept function that starts a task for each peer.
pub fn accept_in_tasks<F, T>(mut serve: F) -> impl FnMut(Peer) -> Link
where
    F: FnMut(Stream, Peer) -> T + 'static,
    T: Future<Output = ()> + 'static,
{
    move |peer| in_task(|stream| serve(stream, peer))
}

/// Starts a task for a connection that begins elsewhere, and returns the protocol that the connection is to be given: an accepted
/// one in the accept function of a listener, one above a [`Layer`](crate::Layer), such as TLS, or one that HTTP hands on behind an upgrade. `serve`
/// makes the future of the stream; what it writes before the connection is open leaves when it is.
///
/// ```
/// use netpoll_core::net::in_task;
/// use netpoll_core::sim::{Options, Sim};
///
/// let mut sim = Sim::new(Options::default());
/// let listener = sim.listen(|_peer| {
///     in_task(|mut stream| async move {
///         // Nobody is told of an error: the peer is gone.
///         let _ = stream.write_all(b"hello").await;
///     })
/// });
/// let peer = sim.connect(listener);
/// sim.settle();
/// assert_eq!(sim.take_received(peer), b"hello");
/// ```
///
/// # Panics
/// On a thread that is no worker.
#[track_caller]
pub fn in_task<T>(serve: impl FnOnce(Stream) -> T) -> Link
where
    T: Future<Output = ()> + 'static,
{
    let shared = Shared::new(task::current("`in_task`"));
    let link = Link(Rc::clone(&shared));
    task::spawn_local(serve(Stream::of(shared))).detach();
    link
}
