//! Listening sockets: on loopback, deep backlog, `TCP_NODELAY` for what they accept.
//!
//! Linux gives an accepted socket the listener's `TCP_NODELAY`, so it is set once here, also for the peers that
//! set it again on each connection.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::fd::AsFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

/// Connections that wait to be accepted, at most; the kernel lowers it to `net.core.somaxconn`.
pub const BACKLOG: i32 = 4096;

pub(crate) fn listener(port: u16, share_port: bool) -> io::Result<TcpListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if share_port {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    tune(&socket)?;
    Ok(TcpListener::from(socket))
}

fn tune(socket: impl AsFd) -> io::Result<()> {
    sockopt::set_tcp_nodelay(&socket, true)?;
    Ok(listen(&socket, BACKLOG)?)
}

/// Gives [`BACKLOG`] and `TCP_NODELAY` to the listening sockets of this process that a library has opened
/// without a way to hand it one; how many there are.
///
/// # Errors
/// The kernel's.
pub fn tune_listeners() -> io::Result<usize> {
    let us = pidfd_open(getpid(), PidfdFlags::empty())?;
    let mut tuned = 0;
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A second descriptor of the same socket; it fails for the directory that is being read.
        let Ok(file) = pidfd_getfd(&us, number, PidfdGetfdFlags::empty()) else { continue };
        if sockopt::socket_acceptconn(&file) == Ok(true) {
            tune(&file)?;
            tuned += 1;
        }
    }
    Ok(tuned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn accepted_sockets_do_not_delay() {
        let listener = listener(0, false).expect("a free port");
        listener.set_nonblocking(false).expect("an open socket");
        let _client = TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
        let (accepted, _) = listener.accept().expect("connected");
        assert!(accepted.nodelay().expect("an open socket"));
    }

    #[test]
    fn sockets_of_a_library_are_found() {
        let library = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        assert!(tune_listeners().expect("/proc is mounted") >= 1);
        assert!(sockopt::tcp_nodelay(&library).expect("an open socket"));
    }
}
