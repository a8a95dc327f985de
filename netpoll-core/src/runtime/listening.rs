//! The listening sockets of a runtime: made or taken over before any worker starts, and dealt out to the workers.
//!
//! A TCP address has a socket for each worker (`SO_REUSEPORT`), and the kernel deals connections out to them, where it does. A Unix socket
//! and one that was handed in are one queue, to which each worker has a descriptor of its own; elsewhere one of TCP is as well. What was open
//! before, in the process that goes or by a service manager, is taken instead of binding: each of its sockets has a queue that somebody has to
//! accept from, so a worker may get several, and several workers may share one.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use super::backend::Choice;
use super::builder::Builder;
use super::endpoints::Place;
use super::handover::Inherited;
use crate::conn::{Fate, OwnSuccession, SocketKind, SocketName};
use crate::driver::Queue;
use crate::sys::{self, Address, Sharing, SocketFile, StreamOptions};

/// A socket of one worker.
pub struct Socket {
    pub fd: OwnedFd,
    pub queue: Queue,
    /// What it is for: the place among the `listen` calls, and the `bind_udp` calls behind them.
    pub of: usize,
    /// What the process that follows knows it by.
    pub number: Option<usize>,
}

/// All of them.
pub struct Bound {
    /// The sockets of worker `i`.
    pub sockets: Vec<Vec<Socket>>,
    pub addrs: Vec<Address>,
    /// Removed when nobody listens any more, each with what the process that follows knows its socket by.
    pub files: Vec<(SocketFile, Option<usize>)>,
    /// The files of the process that goes, which are ours when that one drains.
    pub files_before: Vec<(PathBuf, Option<usize>)>,
}

/// The files of Unix sockets, each with what the process that follows knows its socket by. Dropped, they are removed, but those whose
/// sockets another process goes on with.
pub struct OwnFiles {
    files: Vec<(SocketFile, Option<usize>)>,
    before: Vec<(PathBuf, Option<usize>)>,
    succession: Option<OwnSuccession>,
}

impl OwnFiles {
    pub fn new(
        files: Vec<(SocketFile, Option<usize>)>,
        before: Vec<(PathBuf, Option<usize>)>,
        succession: Option<OwnSuccession>,
    ) -> Self {
        Self { files, before, succession }
    }

    /// This process serves: the files of the one before are its own.
    pub fn take_over(&mut self) {
        // One that is not there any more is nobody's.
        let found = self
            .before
            .drain(..)
            .filter_map(|(path, number)| SocketFile::of_another(&path).ok().map(|file| (file, number)));
        self.files.extend(found);
    }
}

impl Drop for OwnFiles {
    fn drop(&mut self) {
        for (file, number) in self.files.drain(..) {
            let fate = match (&self.succession, number) {
                (Some(succession), Some(number)) => succession.shared.fate(number),
                _ => Fate::Ours,
            };
            if fate == Fate::Ours { drop(file) } else { file.leave() }
        }
    }
}

/// With its name, and with what a service manager has opened in its place.
fn cannot_listen(settings: &Builder, addr: &Address, error: io::Error) -> io::Error {
    let what = format!("cannot listen on {addr}");
    match settings.family.handed_in_beside(addr) {
        Some(bound) if error.kind() == io::ErrorKind::AddrInUse => {
            let message = format!(
                "{what}: {error}; a socket at {bound} was handed in, which is listened at by exactly that address"
            );
            io::Error::new(error.kind(), message)
        }
        _ => sys::missing(what, error),
    }
}

impl Bound {
    /// Binds every listener, and hands each worker its sockets.
    ///
    /// # Errors
    /// The kernel's, with the name of the address.
    pub fn bind(settings: &mut Builder, backend: Choice, workers: usize) -> io::Result<Self> {
        let mut bound = Self {
            sockets: (0..workers).map(|_| Vec::new()).collect(),
            addrs: Vec::new(),
            files: Vec::new(),
            files_before: Vec::new(),
        };
        let places: Vec<Place> = settings.listeners.iter_mut().map(|listen| listen.place.take()).collect();
        for (of, place) in places.into_iter().enumerate() {
            let (addr, outcome) = match place {
                Place::At(addr) => {
                    let outcome = bound.take_or_bind(settings, backend, of, &addr);
                    (addr, outcome)
                }
                Place::Handed(socket, addr) => {
                    let (asked, at) = (addr.to_string(), addr.to_string());
                    let name = SocketName { kind: SocketKind::Stream, asked, bound: at, is_foreign: true };
                    let taken = Inherited { name, socket, number: None };
                    let outcome = inherited(settings, &taken.socket, &addr)
                        .and_then(|()| deal(settings, &mut bound.sockets, of, vec![taken]).map(drop));
                    bound.addrs.push(addr.clone());
                    (addr, outcome)
                }
            };
            outcome.map_err(|error| cannot_listen(settings, &addr, error))?;
        }
        Ok(bound)
    }

    fn take_or_bind(
        &mut self,
        settings: &Builder,
        backend: Choice,
        of: usize,
        addr: &Address,
    ) -> io::Result<()> {
        let taken = settings.family.claim(SocketKind::Stream, &addr.to_string());
        let Some(first) = taken.first() else { return self.bind_one(settings, backend, of, addr) };
        let at = sys::check_listener(first.socket.as_fd())?;
        for Inherited { socket, .. } in &taken {
            inherited(settings, socket, addr)?;
        }
        // The kernel's own name of a Unix socket may be an earlier one.
        self.addrs.push(if addr.is_unix() { addr.clone() } else { at });
        let is_whole_group = taken.len() == self.sockets.len();
        let is_foreign = first.name.is_foreign;
        let number = deal(settings, &mut self.sockets, of, taken)?;
        if let Some(path) = addr.as_path().filter(|_| !is_foreign) {
            self.files_before.push((path.to_owned(), number));
        }
        if settings.steer_by_cpu && is_whole_group && !addr.is_unix() {
            self.steer()?;
        }
        Ok(())
    }

    fn bind_one(&mut self, settings: &Builder, backend: Choice, of: usize, addr: &Address) -> io::Result<()> {
        let Address::Unix(name) = addr else {
            let addr = addr.as_socket_addr().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
            return self.bind_tcp(settings, backend, of, addr);
        };
        let options = sys::UnixListenOptions {
            backlog: settings.backlog,
            mode: settings.socket_mode,
            takes_over: settings.share_port,
        };
        let (socket, file) = backend.bind(|| sys::listen_unix(name, &options))?;
        self.addrs.push(addr.clone());
        let (asked, bound) = (addr.to_string(), addr.to_string());
        let name = SocketName { kind: SocketKind::Stream, asked, bound, is_foreign: false };
        let number = deal(settings, &mut self.sockets, of, vec![Inherited { name, socket, number: None }])?;
        self.files.extend(file.map(|file| (file, number)));
        Ok(())
    }

    /// A socket for each worker.
    fn bind_tcp(
        &mut self,
        settings: &Builder,
        backend: Choice,
        of: usize,
        wanted: SocketAddr,
    ) -> io::Result<()> {
        let workers = self.sockets.len();
        let mut options = sys::ListenOptions {
            backlog: settings.backlog,
            sharing: first_sharing(settings, workers, wanted.port()),
            defer_accept: settings.defer_accept,
            fast_open: None,
        };
        // Elsewhere one socket of several would get everything.
        let count = if sys::SPREADS { workers } else { 1 };
        let (mut addr, mut group) = (wanted, Vec::with_capacity(count));
        for _ in 0..count {
            let socket = backend.bind(|| sys::listen(addr, &options))?;
            addr = sys::local_addr(socket.as_fd())?.as_socket_addr().unwrap_or(addr);
            inherited_options(settings).apply(socket.as_fd())?;
            group.push(socket);
            options.sharing = Sharing::Joins;
        }
        let (asked, bound) = (wanted.to_string(), addr.to_string());
        let name = SocketName { kind: SocketKind::Stream, asked, bound, is_foreign: false };
        let group = group.into_iter();
        let group = group.map(|socket| Inherited { name: name.clone(), socket, number: None }).collect();
        deal(settings, &mut self.sockets, of, group)?;
        if settings.steer_by_cpu && workers > 1 {
            self.steer()?;
        }
        self.addrs.push(addr.into());
        Ok(())
    }

    /// Has the CPU choose among the sockets that were dealt out last. Once, after all are bound: the program returns an index into the
    /// group, in bind order.
    fn steer(&self) -> io::Result<()> {
        let Some(Socket { fd, .. }) = self.sockets[0].last() else { return Ok(()) };
        sys::attach_reuseport_cpu_steering(fd.as_fd(), self.sockets.len() as u32)
    }
}

/// Gives every worker a socket of these, and every socket a worker. What the process that follows knows the first one by.
pub fn deal(
    settings: &Builder,
    workers: &mut [Vec<Socket>],
    of: usize,
    sockets: Vec<Inherited>,
) -> io::Result<Option<usize>> {
    let (count, all) = (workers.len(), sockets.len());
    let mut first = None;
    for (nth, Inherited { name, socket, .. }) in sockets.into_iter().enumerate() {
        let number = settings.family.keep(&name, &socket)?;
        first = first.or(number);
        let is_unix = name.kind == SocketKind::Stream && sys::is_unix(socket.as_fd());
        let mine: Vec<usize> = match all >= count {
            true => vec![nth % count],
            false => (nth..count).step_by(all).collect(),
        };
        let workers_of_it = mine.len();
        let queue = match workers_of_it {
            workers if name.is_foreign => Queue::Foreign { workers },
            workers if is_unix => Queue::Workers { workers },
            1 if number.is_none() => Queue::Own,
            workers => Queue::Several { workers },
        };
        let (last, others) = mine.split_last().expect("every socket has a worker");
        for worker in others {
            workers[*worker].push(Socket { fd: socket.try_clone()?, queue, of, number });
        }
        workers[*last].push(Socket { fd: socket, queue, of, number });
    }
    Ok(first)
}

/// How the first socket of a port is bound; those of other workers join it.
pub fn first_sharing(settings: &Builder, workers: usize, port: u16) -> Sharing {
    match settings.share_port {
        // Who shares a port has to name it.
        true if port != 0 => Sharing::Joins,
        shares if shares || workers > 1 && sys::SPREADS => Sharing::Begins,
        _ => Sharing::Alone,
    }
}

/// What the connections that are accepted from a socket inherit, which somebody else has opened.
fn inherited(settings: &Builder, socket: &OwnedFd, addr: &Address) -> io::Result<()> {
    if addr.is_unix() { Ok(()) } else { inherited_options(settings).apply(socket.as_fd()) }
}

/// What accepted connections inherit from their listener, so that none of them costs a system call for it.
pub fn inherited_options(settings: &Builder) -> StreamOptions {
    StreamOptions {
        nodelay: true,
        keepalive: settings.keepalive,
        user_timeout: settings.user_timeout,
        unsent_bytes_max: settings.unsent_bytes_max,
        send_buffer_bytes: settings.send_buffer_bytes,
        receive_buffer_bytes: settings.receive_buffer_bytes,
        from: None,
    }
}
