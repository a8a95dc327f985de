//! The listening sockets of a runtime: made or taken over before any worker starts, and dealt out to the workers.
//!
//! A TCP address has a socket for each worker (`SO_REUSEPORT`), and the kernel deals connections out to them, where it does. A Unix socket
//! and one that was handed over are one queue, to which each worker has a descriptor of its own; elsewhere one of TCP is as well.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use super::builder::Builder;
use super::endpoints::Place;
use crate::driver::Queue;
use crate::sys::{self, Address, Sharing, SocketFile, StreamOptions};

/// A listening socket of one worker.
pub type Socket = (OwnedFd, Queue);

/// All of them.
pub struct Bound {
    /// The sockets of worker `i`, in the order of `listen` calls.
    pub sockets: Vec<Vec<Socket>>,
    pub addrs: Vec<Address>,
    /// Removed when nobody listens any more.
    pub files: Vec<SocketFile>,
}

impl Bound {
    /// Binds every listener, and hands each worker its sockets.
    ///
    /// # Errors
    /// The kernel's, with the name of the address.
    pub fn bind(settings: &mut Builder, workers: usize) -> io::Result<Self> {
        let mut bound = Self {
            sockets: (0..workers).map(|_| Vec::new()).collect(),
            addrs: Vec::new(),
            files: Vec::new(),
        };
        let places: Vec<Place> = settings.listeners.iter_mut().map(|listen| listen.place.take()).collect();
        for place in places {
            let (addr, outcome) = match place {
                Place::At(addr) => {
                    let outcome = bound.bind_one(settings, &addr);
                    (addr, outcome)
                }
                Place::Handed(socket, addr) => {
                    let outcome = inherited(settings, &socket, &addr)
                        .and_then(|()| bound.share(socket, Queue::Foreign { workers }));
                    bound.addrs.push(addr.clone());
                    (addr, outcome)
                }
            };
            outcome
                .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {addr}: {error}")))?;
        }
        Ok(bound)
    }

    fn bind_one(&mut self, settings: &Builder, addr: &Address) -> io::Result<()> {
        let Address::Unix(name) = addr else {
            let addr = addr.as_socket_addr().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
            return self.bind_tcp(settings, addr);
        };
        let options = sys::UnixListenOptions {
            backlog: settings.backlog,
            mode: settings.socket_mode,
            takes_over: settings.share_port,
        };
        let (socket, file) = sys::listen_unix(name, &options)?;
        self.files.extend(file);
        self.addrs.push(addr.clone());
        let workers = self.sockets.len();
        self.share(socket, Queue::Workers { workers })
    }

    /// A socket for each worker.
    fn bind_tcp(&mut self, settings: &Builder, wanted: SocketAddr) -> io::Result<()> {
        let workers = self.sockets.len();
        let mut options = sys::ListenOptions {
            backlog: settings.backlog,
            sharing: first_sharing(settings, workers, wanted.port()),
            defer_accept: settings.defer_accept,
            fast_open: None,
        };
        let mut addr = wanted;
        if !sys::SPREADS && workers > 1 {
            let socket = sys::listen(addr, &options)?;
            addr = sys::local_addr(socket.as_fd())?.as_socket_addr().unwrap_or(addr);
            inherited_options(settings).apply(socket.as_fd())?;
            self.addrs.push(addr.into());
            // Nobody else has it, but nothing keeps newcomers away from it either.
            return self.share(socket, Queue::Foreign { workers });
        }
        for worker in &mut self.sockets {
            let socket = sys::listen(addr, &options)?;
            addr = sys::local_addr(socket.as_fd())?.as_socket_addr().unwrap_or(addr);
            inherited_options(settings).apply(socket.as_fd())?;
            worker.push((socket, Queue::Own));
            options.sharing = Sharing::Joins;
        }
        if settings.steer_by_cpu
            && workers > 1
            && let Some((first, _)) = self.sockets[0].last()
        {
            // Once, after all are bound: the program returns an index into the group, in bind order.
            sys::attach_reuseport_cpu_steering(first.as_fd(), workers as u32)?;
        }
        self.addrs.push(addr.into());
        Ok(())
    }

    /// A descriptor of one socket for each worker.
    fn share(&mut self, socket: OwnedFd, queue: Queue) -> io::Result<()> {
        let (first, others) = self.sockets.split_first_mut().expect("a runtime has a worker");
        for worker in others {
            worker.push((socket.try_clone()?, queue));
        }
        first.push((socket, queue));
        Ok(())
    }
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
