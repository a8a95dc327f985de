//! Stream sockets: listen, accept, connect, and moving bytes.
//!
//! Every socket is non-blocking and close-on-exec from birth. The hot calls ([`accept`], [`recv`],
//! [`send`], [`send_vectored`]) are one system call each, inlined, without a retry: on a non-blocking
//! socket `EINTR` does not happen and `EAGAIN` is an answer. `SIGPIPE` is kept away. They are each system's own (`transfer.rs`).
//!
//! Cost of the set-up calls: [`listen`] 5 to 8 system calls, [`connect`] 3 to 5, the others one.

use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use libc::c_int;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::address::Address;
use super::stream_options::StreamOptions;
use super::{checked, system, unix};

/// Whether other sockets of the same user may have an address as well (`SO_REUSEPORT`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// None.
    Alone,
    /// Those that are bound later with `Joins`. None has it yet, which the kernel has seen to: of a port that it chooses itself it
    /// otherwise gives UDP sockets one that somebody shares (`udp_lib_lport_inuse`, net/ipv4/udp.c), and where the port is given
    /// nothing else says that a stranger is there.
    Begins,
    /// Those that have it and those that come.
    Joins,
}

impl Sharing {
    /// Binds a socket. It may be one that others join only once it is bound: the kernel looks at the option when it compares two.
    pub(super) fn bind(self, socket: &Socket, addr: SocketAddr) -> io::Result<()> {
        if self == Self::Joins {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&addr.into())?;
        if self == Self::Begins {
            socket.set_reuse_port(true)?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub use super::system::{accept, recv, send};

/// How to listen.
#[derive(Clone, Copy, Debug)]
pub struct ListenOptions {
    /// Connections that may wait for `accept`; the kernel caps it at `net.core.somaxconn`.
    pub backlog: i32,
    /// Whether several listeners share the address, over whom the kernel spreads connections.
    pub sharing: Sharing,
    /// Report a connection only when it has sent something, or after about this time; rounded up to
    /// whole seconds.
    pub defer_accept: Option<Duration>,
    /// Accept data in the SYN, with at most this many such connections pending. Takes effect only when
    /// `net.ipv4.tcp_fastopen` has bit 2 set.
    pub fast_open: Option<u32>,
}

/// A TCP socket that listens on `addr`; port 0 takes a free one, see [`local_addr`].
///
/// `SO_REUSEADDR` is set, so a restart does not wait for old connections. `TCP_NODELAY` is set here
/// because accepted sockets inherit it: nothing is left to set on the accept path. Whether an IPv6
/// wildcard also takes IPv4 is left to `net.ipv6.bindv6only`.
///
/// # Errors
/// The kernel's: `EADDRINUSE`, `EADDRNOTAVAIL`, `EACCES` for a port below 1024, `EAFNOSUPPORT`, `EMFILE`.
pub fn listen(addr: SocketAddr, options: &ListenOptions) -> io::Result<OwnedFd> {
    let socket = new_stream(addr)?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    options.sharing.bind(&socket, addr)?;
    let socket = OwnedFd::from(socket);
    let fd = socket.as_fd();
    if let Some(time) = options.defer_accept {
        system::defer_accept(fd, time)?;
    }
    if let Some(pending_max) = options.fast_open {
        system::accept_early_data(fd, pending_max)?;
    }
    SockRef::from(&socket).listen(options.backlog)?;
    Ok(socket)
}

/// The address that the socket is bound to.
///
/// # Errors
/// The kernel's; none are known for a healthy socket.
pub fn local_addr(socket: BorrowedFd<'_>) -> io::Result<Address> {
    SockRef::from(&socket).local_addr().map(|addr| Address::from_kernel(&addr))
}

/// The address that the socket is connected to.
///
/// # Errors
/// The kernel's: `ENOTCONN` while it connects, or when the connection is gone.
pub fn peer_addr(socket: BorrowedFd<'_>) -> io::Result<Address> {
    SockRef::from(&socket).peer_addr().map(|addr| Address::from_kernel(&addr))
}

/// Whether a socket belongs to the Unix domain.
pub fn is_unix(socket: BorrowedFd<'_>) -> bool {
    system::domain(socket).is_ok_and(|domain| domain == Domain::UNIX)
}

/// Begins a connection.
///
/// It is established when the socket becomes writable and [`take_error`] has nothing. With port 0 in
/// `from` the port is picked while connecting (`IP_BIND_ADDRESS_NO_PORT`), so that one source address
/// serves 28 thousand connections *per destination*, not in all.
///
/// # Errors
/// The kernel's, except `EINPROGRESS`: `EADDRNOTAVAIL`, `ENETUNREACH`, `EMFILE`. A quick refusal may come
/// as `ECONNREFUSED` here instead of as the pending error. In the Unix domain: `ENOENT`, `EACCES`, and `EAGAIN` while the
/// listener's queue is full, which nothing reports the end of. `InvalidInput` for a `from` of another family.
pub fn connect(addr: &Address, options: &StreamOptions) -> io::Result<OwnedFd> {
    let wanted = addr.to_kernel()?;
    let Some(inet) = addr.as_socket_addr() else {
        let socket = unix::new_stream()?;
        options.apply_buffers(socket.as_fd())?;
        socket.connect(&wanted)?;
        return Ok(socket.into());
    };
    if let Some(source) = options.from.filter(|source| source.is_ipv4() != inet.is_ipv4()) {
        let text = format!("from {source} leads to no {inet}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let socket = new_stream(inet)?;
    options.apply(socket.as_fd())?;
    if let Some(source) = options.from {
        if source.port() == 0 {
            system::pick_port_late(socket.as_fd())?;
        }
        socket.bind(&source.into())?;
    }
    match socket.connect(&wanted) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}

/// Whether a connect has come to its end, either way; [`take_error`] says which. One `poll(2)`.
pub fn has_connected_or_failed(socket: BorrowedFd<'_>) -> bool {
    let mut fds = [libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLOUT, revents: 0 }];
    // A poll that fails knows nothing, and the connect goes on.
    super::signal::poll(&mut fds, 0).is_ok_and(|ready| ready > 0)
}

/// The socket's pending error, which is thereby cleared.
///
/// # Errors
/// The kernel's, when it cannot be asked.
pub fn take_error(socket: BorrowedFd<'_>) -> io::Result<Option<io::Error>> {
    SockRef::from(&socket).take_error()
}

/// Whether a connected socket is its own peer: nobody listened, and the kernel picked the port that was called as the
/// source, which TCP takes for two sides that open at once. One system call, and one more if the ports are the same.
pub fn is_connected_to_itself(socket: BorrowedFd<'_>, port: u16) -> bool {
    let socket = SockRef::from(&socket);
    let local = socket.local_addr().ok().and_then(|local| local.as_socket());
    let Some(local) = local.filter(|local| local.port() == port) else { return false };
    socket.peer_addr().is_ok_and(|peer| peer.as_socket() == Some(local))
}

/// Sends a FIN behind everything that was sent; receiving goes on.
///
/// # Errors
/// The kernel's: `ENOTCONN` when the connection is gone already.
pub fn shutdown_write(socket: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&socket).shutdown(Shutdown::Write)
}

/// Bytes that were received and not read (`SIOCINQ`).
///
/// # Errors
/// The kernel's; none are known for a connected socket.
pub fn unread_bytes(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: c_int = 0;
    // SAFETY: tcp(7): SIOCINQ (the same number as FIONREAD) writes one int, and `bytes` is one that outlives
    // the call. (test: `bytes_that_were_not_read_are_counted`)
    checked(unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &raw mut bytes) })?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Makes the coming close a reset: unsent bytes are dropped and the peer gets a RST (`SO_LINGER` 0).
///
/// # Errors
/// The kernel's; none are known for a healthy socket.
pub fn reset_on_close(socket: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&socket).set_linger(Some(Duration::ZERO))
}

fn new_stream(addr: SocketAddr) -> io::Result<Socket> {
    system::new_socket(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))
}

/// Where the family is: at the start, or behind a byte that says how long the address is (BSD and its kin).
const FAMILY: usize = mem::offset_of!(libc::sockaddr_in, sin_family);

/// A `sockaddr_in` or `sockaddr_in6` as the bytes that the kernel writes and reads.
#[repr(C, align(8))]
pub(super) struct RawAddress([u8; RawAddress::BYTES]);

// Where `decode` and `encode` find the fields.
const _: () = {
    use std::mem::offset_of;
    assert!(offset_of!(libc::sockaddr_in, sin_port) == 2);
    assert!(offset_of!(libc::sockaddr_in, sin_addr) == 4);
    assert!(offset_of!(libc::sockaddr_in6, sin6_port) == 2);
    assert!(offset_of!(libc::sockaddr_in6, sin6_flowinfo) == 4);
    assert!(offset_of!(libc::sockaddr_in6, sin6_addr) == 8);
    assert!(offset_of!(libc::sockaddr_in6, sin6_scope_id) == 24);
    assert!(offset_of!(libc::sockaddr_in6, sin6_family) == FAMILY);
    assert!(FAMILY + size_of::<libc::sa_family_t>() == 2);
    assert!(align_of::<RawAddress>() >= align_of::<libc::sockaddr_in6>());
    assert!(RawAddress::BYTES >= size_of::<libc::sockaddr_in>());
};

impl RawAddress {
    pub(super) const BYTES: usize = size_of::<libc::sockaddr_in6>();

    pub(super) const fn new() -> Self {
        Self([0; Self::BYTES])
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.0.as_mut_ptr()
    }

    /// Writes an address; how many of the bytes it takes.
    pub(super) fn encode(&mut self, addr: SocketAddr) -> usize {
        let (family, len) = match addr {
            SocketAddr::V4(addr) => {
                self.0[4..8].copy_from_slice(&addr.ip().octets());
                (libc::AF_INET, size_of::<libc::sockaddr_in>())
            }
            SocketAddr::V6(addr) => {
                self.0[4..8].copy_from_slice(&addr.flowinfo().to_ne_bytes());
                self.0[8..24].copy_from_slice(&addr.ip().octets());
                self.0[24..28].copy_from_slice(&addr.scope_id().to_ne_bytes());
                (libc::AF_INET6, size_of::<libc::sockaddr_in6>())
            }
        };
        if FAMILY == 1 {
            self.0[0] = len as u8;
        }
        self.0[FAMILY..2].copy_from_slice(&(family as libc::sa_family_t).to_ne_bytes());
        self.0[2..4].copy_from_slice(&addr.port().to_be_bytes());
        len
    }

    #[inline]
    fn at<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut field = [0; N];
        field.copy_from_slice(&self.0[offset..offset + N]);
        field
    }

    #[inline]
    pub(super) fn family(&self) -> c_int {
        c_int::from(libc::sa_family_t::from_ne_bytes(self.at(FAMILY)))
    }

    /// Whether it may be a name in the Unix domain of no bytes.
    #[cfg(any(test, not(target_os = "linux"), netpoll_portable))]
    pub(super) fn starts_empty(&self) -> bool {
        self.0[2] == 0
    }

    #[inline]
    pub(super) fn decode(&self) -> Option<SocketAddr> {
        let port = u16::from_be_bytes(self.at(2));
        match self.family() {
            libc::AF_INET => {
                let ip = Ipv4Addr::from(self.at::<4>(4));
                Some(SocketAddrV4::new(ip, port).into())
            }
            libc::AF_INET6 => {
                let ip = Ipv6Addr::from(self.at::<16>(8));
                let flow = u32::from_ne_bytes(self.at(4));
                let scope = u32::from_ne_bytes(self.at(24));
                Some(SocketAddrV6::new(ip, port, flow, scope).into())
            }
            _ => None,
        }
    }
}

/// Lets calls on a socket return `EAGAIN` instead of waiting: for one that was made elsewhere.
pub fn set_nonblocking(socket: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&socket).set_nonblocking(true)
}

#[cfg(test)]
mod tests;
