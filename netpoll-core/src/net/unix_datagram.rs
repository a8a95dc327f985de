//! Datagrams in the Unix domain, for tasks.

use std::fmt;
use std::io;
use std::os::unix::net as std_net;
use std::time::Duration;

use super::fd::AsyncFd;
use crate::conn::{Place, Target, malformed};
use crate::driver::Interest;
use crate::sys::{self, Address, ParseAddressError, SocketFile, UnixAddress};
use crate::time::sleep;

/// How long to leave a receiver alone that had no room, at first and at most.
const AGAIN: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(16)];

/// A socket for datagrams of the Unix domain: whole, in order, never lost between two processes of this host, and held back where the
/// receiver does not keep up.
///
/// Each call goes to the kernel, one system call for a datagram, as its descriptor is [watched](AsyncFd). So there is none in a simulation
/// (`Unsupported`). It belongs to the worker that has made it, several tasks may use it by `&self`, and a drain does not wait for it.
///
/// Every future here is cancel-safe: given up, a receive has received nothing and a send has sent nothing.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use netpoll_core::Runtime;
/// use netpoll_core::net::UnixDatagram;
///
/// Runtime::block_on(async {
///     let server = UnixDatagram::bind("unix:@netpoll-doc-example")?;
///     let client = UnixDatagram::unbound()?;
///     client.send_to(b"hello", "unix:@netpoll-doc-example").await?;
///     let mut buffer = [0; 16];
///     let (len, from) = server.recv_from(&mut buffer).await?;
///     assert_eq!((&buffer[..len], from.is_unnamed()), (&b"hello"[..], true));
///     std::io::Result::Ok(())
/// })?
/// # }
/// ```
pub struct UnixDatagram {
    socket: AsyncFd<std_net::UnixDatagram>,
    /// Goes with the socket.
    _file: Option<SocketFile>,
}

impl UnixDatagram {
    /// A socket with a name: `"unix:/run/x.sock"`, `"unix:@name"`, a [`Path`](std::path::Path). The file of a path is removed when the
    /// socket is dropped; one that nobody has any more is replaced.
    ///
    /// A few system calls. Whoever binds in the same directory at this moment is waited for, half a second at most.
    ///
    /// # Errors
    /// `AddrInUse` where somebody has it; `InvalidInput` of what is no name in the Unix domain; the kernel's of the directory;
    /// `Unsupported` in a simulation.
    ///
    /// # Panics
    /// On a thread that is no worker.
    #[track_caller]
    pub fn bind(to: impl Into<Target>) -> io::Result<Self> {
        let (socket, file) = sys::bind_unix_datagrams(&name(to.into())?)?;
        Ok(Self { socket: AsyncFd::new(socket.into())?, _file: file })
    }

    /// A socket without a name: nobody can answer what it sends.
    ///
    /// # Errors
    /// No descriptor left; `Unsupported` in a simulation.
    ///
    /// # Panics
    /// On a thread that is no worker.
    #[track_caller]
    pub fn unbound() -> io::Result<Self> {
        Self::from_std(std_net::UnixDatagram::unbound()?)
    }

    /// Two sockets without names, connected to each other.
    ///
    /// # Errors
    /// As [`unbound`](Self::unbound).
    ///
    /// # Panics
    /// On a thread that is no worker.
    #[track_caller]
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = std_net::UnixDatagram::pair()?;
        Ok((Self::from_std(one)?, Self::from_std(other)?))
    }

    /// Takes a socket over, and makes it non-blocking. Its file, if it has one, stays where it is.
    ///
    /// # Errors
    /// Those of [`AsyncFd::new`].
    ///
    /// # Panics
    /// On a thread that is no worker.
    #[track_caller]
    pub fn from_std(socket: std_net::UnixDatagram) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket: AsyncFd::new(socket)?, _file: None })
    }

    /// Gives [`send`](Self::send) somebody to send to, and what others send is refused from now on.
    ///
    /// # Errors
    /// `NotFound` or `ConnectionRefused` where nobody is; `PermissionDenied`; `InvalidInput` of what is no name in the Unix domain.
    pub fn connect(&self, to: impl Into<Target>) -> io::Result<()> {
        self.inner().connect_addr(&to_std(&name(to.into())?)?)
    }

    /// Sends a datagram to whom it is connected to, as soon as there is room for it there. Its length.
    ///
    /// # Errors
    /// `NotConnected`; `ConnectionRefused` or `ConnectionReset` of a receiver that is gone; one that is too long (`EMSGSIZE`).
    pub async fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.async_io(Interest::WRITABLE, |socket| socket.send(bytes)).await
    }

    /// Sends a datagram to a name. Its length.
    ///
    /// If the receiver has no room (its queue is 10 datagrams by default: `net.unix.max_dgram_qlen`), it is tried again in 1 ms, and
    /// at last every 16 ms: the kernel tells only those who are [connected](Self::connect) when there is some.
    ///
    /// # Errors
    /// `NotFound` or `ConnectionRefused` where nobody is; `PermissionDenied`; `InvalidInput` of what is no name in the Unix
    /// domain; one that is too long (`EMSGSIZE`).
    pub async fn send_to(&self, bytes: &[u8], to: impl Into<Target>) -> io::Result<usize> {
        let to = to_std(&name(to.into())?)?;
        let [mut again, longest] = AGAIN;
        loop {
            match self.inner().send_to_addr(bytes, &to) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(again).await,
                sent => return sent,
            }
            again = (again * 2).min(longest);
        }
    }

    /// [`send`](Self::send), if there is room now.
    ///
    /// # Errors
    /// `WouldBlock` if there is none; as [`send`](Self::send).
    pub fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.inner().send(bytes)
    }

    /// [`send_to`](Self::send_to), if there is room now.
    ///
    /// # Errors
    /// `WouldBlock` if there is none; as [`send_to`](Self::send_to).
    pub fn try_send_to(&self, bytes: &[u8], to: impl Into<Target>) -> io::Result<usize> {
        self.inner().send_to_addr(bytes, &to_std(&name(to.into())?)?)
    }

    /// Receives a datagram: its length. What does not fit into `into` is lost.
    ///
    /// # Errors
    /// The kernel's; none are known of a healthy socket.
    pub async fn recv(&self, into: &mut [u8]) -> io::Result<usize> {
        self.socket.async_io(Interest::READABLE, |socket| socket.recv(into)).await
    }

    /// The same with the name of its sender, if that has one.
    ///
    /// # Errors
    /// The kernel's; none are known of a healthy socket.
    pub async fn recv_from(&self, into: &mut [u8]) -> io::Result<(usize, UnixAddress)> {
        let receive = |socket: &std_net::UnixDatagram| socket.recv_from(into);
        let (len, from) = self.socket.async_io(Interest::READABLE, receive).await?;
        Ok((len, from_std(&from)))
    }

    /// [`recv`](Self::recv), if something is there.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is.
    pub fn try_recv(&self, into: &mut [u8]) -> io::Result<usize> {
        self.inner().recv(into)
    }

    /// [`recv_from`](Self::recv_from), if something is there.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is.
    pub fn try_recv_from(&self, into: &mut [u8]) -> io::Result<(usize, UnixAddress)> {
        let (len, from) = self.inner().recv_from(into)?;
        Ok((len, from_std(&from)))
    }

    /// Its name.
    ///
    /// # Errors
    /// The kernel's; none are known.
    pub fn local_addr(&self) -> io::Result<UnixAddress> {
        Ok(from_std(&self.inner().local_addr()?))
    }

    /// The name of whom it is connected to.
    ///
    /// # Errors
    /// `NotConnected`.
    pub fn peer_addr(&self) -> io::Result<UnixAddress> {
        Ok(from_std(&self.inner().peer_addr()?))
    }

    /// The descriptor and its readiness, for what is not here.
    #[must_use]
    pub fn as_async_fd(&self) -> &AsyncFd<std_net::UnixDatagram> {
        &self.socket
    }

    fn inner(&self) -> &std_net::UnixDatagram {
        self.socket.get_ref()
    }
}

impl fmt::Debug for UnixDatagram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner().fmt(f)
    }
}

/// The name in the Unix domain that a target is.
fn name(target: Target) -> io::Result<UnixAddress> {
    let text = target.to_string();
    match target.into_place() {
        Place::Known(Address::Unix(name), others) if others.is_empty() => Ok(name),
        Place::Nothing(text, why) => Err(malformed(&text, why)),
        _ => Err(malformed(&text, "not the name of a Unix socket: unix:/run/x.sock or unix:@name")),
    }
}

fn to_std(name: &UnixAddress) -> io::Result<std_net::SocketAddr> {
    match (name.as_path(), name.as_abstract_name()) {
        (Some(path), _) => std_net::SocketAddr::from_pathname(path),
        (_, Some(name)) => sys::abstract_address(name),
        (None, None) => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "a socket without a name cannot be reached"))
        }
    }
}

fn from_std(addr: &std_net::SocketAddr) -> UnixAddress {
    let path = addr.as_pathname().map(UnixAddress::from_path);
    let name: Option<Result<_, ParseAddressError>> =
        path.or_else(|| sys::abstract_name(addr).map(UnixAddress::from_abstract_name));
    name.and_then(Result::ok).unwrap_or(UnixAddress::UNNAMED)
}
