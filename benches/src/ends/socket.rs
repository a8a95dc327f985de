//! Sockets of clients that are many: from several addresses, non-blocking, and what became of their connecting.
//!
//! One address has some 28 000 ports towards a server, and each stays taken for a while after its connection, so
//! clients come from 127.0.0.2 and seven more. One to four system calls each.

use benches::sys;
use socket2::{Domain, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

/// Addresses that clients connect from.
const SOURCES: u32 = 8;
const FIRST_SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// What has become of a connection that was begun.
#[derive(Debug)]
pub enum Connecting {
    Pending,
    Established,
    /// Nobody listens there.
    Refused,
    /// The kernel had told us that we are connected, and then that we are not.
    Reset,
    /// Anything else, which is about this machine and not about the server.
    Failed(io::Error),
}

/// A client's socket that is not connected yet; the `nth` client has the `nth` address.
///
/// # Errors
/// The kernel's: no descriptors left.
pub fn open(nth: usize) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    sys::choose_port_late(&socket)?;
    let source = Ipv4Addr::from(u32::from(FIRST_SOURCE) + nth as u32 % SOURCES);
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    Ok(socket)
}

/// Begins to connect without waiting; [`connecting`] tells the rest.
///
/// # Errors
/// The kernel's: no ports left. Refusal is told later.
pub fn connect(socket: Socket, to: SocketAddr) -> io::Result<TcpStream> {
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&to.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(socket.into())
}

/// How far connecting has come.
pub fn connecting(stream: &TcpStream) -> Connecting {
    match stream.take_error() {
        Ok(None) => {}
        Ok(Some(error)) | Err(error) => return sorted(error),
    }
    match stream.peer_addr() {
        Ok(_) => Connecting::Established,
        Err(error) if error.kind() == ErrorKind::NotConnected => Connecting::Pending,
        Err(error) => sorted(error),
    }
}

/// An RST is a refusal to whoever is not connected yet, and a reset to whoever is (`tcp_reset` in the kernel).
fn sorted(error: io::Error) -> Connecting {
    match error.kind() {
        ErrorKind::ConnectionRefused => Connecting::Refused,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Connecting::Reset,
        _ => Connecting::Failed(error),
    }
}
