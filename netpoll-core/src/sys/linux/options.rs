//! Options of sockets that only Linux has, or has in this way.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use libc::c_int;
use socket2::{Domain, Protocol, SockRef};

use crate::sys::checked;
use crate::sys::sockopt::set_int;

/// Of several sockets that listen on one address the kernel gives each its share of those who connect.
pub const SPREADS: bool = true;

/// The level and the kind of the message that says that datagrams were joined (`UDP_GRO`).
pub const JOINED: Option<(c_int, c_int)> = Some((libc::SOL_UDP, libc::UDP_GRO));

/// The level and the kind of the message that has one cut (`UDP_SEGMENT`).
pub const CUT: Option<(c_int, c_int)> = Some((libc::SOL_UDP, libc::UDP_SEGMENT));

/// Where `in_pktinfo` says which address of ours a datagram came to: the one to answer from.
pub const LOCAL_V4_AT: usize = 4;

/// The family of a socket.
///
/// # Errors
/// The kernel's: `ENOTSOCK`.
pub fn domain(socket: BorrowedFd<'_>) -> io::Result<Domain> {
    SockRef::from(&socket).domain()
}

/// Whether a stream socket of an IP family is TCP's.
///
/// # Errors
/// The kernel's; none are known.
pub fn is_tcp(socket: BorrowedFd<'_>) -> io::Result<bool> {
    Ok([Some(Protocol::TCP), Some(Protocol::MPTCP)].contains(&SockRef::from(&socket).protocol()?))
}

/// Whether a stream socket listens.
///
/// # Errors
/// The kernel's; none are known.
pub fn is_listener(socket: BorrowedFd<'_>) -> io::Result<bool> {
    SockRef::from(&socket).is_listener()
}

/// Reports a connection only when it has sent something, or after about this time; rounded up to whole seconds
/// (`TCP_DEFER_ACCEPT`).
///
/// # Errors
/// The kernel's; none are known.
pub fn defer_accept(listener: BorrowedFd<'_>, time: Duration) -> io::Result<()> {
    let seconds = c_int::try_from(time.as_nanos().div_ceil(1_000_000_000)).unwrap_or(c_int::MAX);
    set_int(listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, seconds)
}

/// Accepts data in the SYN, with at most so many such connections pending (`TCP_FASTOPEN`).
///
/// # Errors
/// The kernel's; none are known.
pub fn accept_early_data(listener: BorrowedFd<'_>, pending_max: u32) -> io::Result<()> {
    let pending_max = c_int::try_from(pending_max).unwrap_or(c_int::MAX);
    set_int(listener, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, pending_max)
}

/// Leaves the port of a socket that is bound to port 0 open until it connects (`IP_BIND_ADDRESS_NO_PORT`).
///
/// # Errors
/// The kernel's; none are known.
pub fn pick_port_late(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_int(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)
}

/// Ends the connection when what was sent stays without an acknowledgement, or the peer's window closed, for so long
/// (`TCP_USER_TIMEOUT`). Milliseconds; zero leaves it to the kernel.
///
/// # Errors
/// The kernel's; none are known.
pub fn set_user_timeout(socket: BorrowedFd<'_>, time: Duration) -> io::Result<()> {
    SockRef::from(&socket).set_tcp_user_timeout(Some(time))
}

/// How many bytes the socket takes beyond what it can send (`TCP_NOTSENT_LOWAT`).
///
/// # Errors
/// The kernel's; none are known.
pub fn set_unsent_bytes_max(socket: BorrowedFd<'_>, bytes: u32) -> io::Result<()> {
    SockRef::from(&socket).set_tcp_notsent_lowat(bytes)
}

/// Gives each new connection to the listener of the CPU that its packets arrive on.
///
/// Of the `workers` sockets that listen on this address with `SO_REUSEPORT`, in the order in which they
/// called `listen`, number `cpu % workers` gets it. Set it on any one of them, after all listen. It pays
/// only when worker n is pinned to CPU n and the network card spreads its queues alike.
///
/// # Errors
/// The kernel's: `EINVAL` when `workers` is zero, `ENOMEM`.
///
/// Linux 4.5, socket(7) `SO_ATTACH_REUSEPORT_CBPF`.
pub fn attach_reuseport_cpu_steering(listener: BorrowedFd<'_>, workers: u32) -> io::Result<()> {
    attach(listener, libc::SO_ATTACH_REUSEPORT_CBPF, &mut cpu_modulo(workers))
}

/// Has the kernel drop the first packet (SYN without ACK) of every connection that begins at this listener from now on.
///
/// Whoever has begun one is accepted as ever, and accepted connections are not touched: their packets carry an ACK. A client
/// whose SYN is dropped sends it again after a second, and reaches who listens then. One system call.
///
/// # Errors
/// The kernel's: `ENOMEM`; `EPERM` or `ENOSYS` where a sandbox forbids it.
///
/// socket(7) `SO_ATTACH_FILTER`: for TCP the filter sees the packet from its TCP header on.
pub fn refuse_new_connections(listener: BorrowedFd<'_>) -> io::Result<()> {
    attach(listener, libc::SO_ATTACH_FILTER, &mut without_syn())
}

/// Gives the kernel a classic BPF program, by one of the options that take one.
fn attach(socket: BorrowedFd<'_>, option: c_int, program: &mut [libc::sock_filter]) -> io::Result<()> {
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    let length = size_of::<libc::sock_fprog>() as libc::socklen_t;
    // SAFETY: these options read one `sock_fprog` of `length` bytes, and `len` instructions from `filter` on.
    // Both are locals with exactly these sizes that outlive the call; the kernel verifies and copies the
    // program. (test: `steering_picks_the_listener_of_the_cpu`)
    checked(unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const filter).cast(), length)
    })?;
    Ok(())
}

/// Where the flags are in a TCP header, and two of them (RFC 9293, section 3.1).
const TCP_FLAGS: u32 = 13;
const TCP_SYN: u32 = 0x02;
const TCP_ACK: u32 = 0x10;

/// `ldb [13]; and #SYN|ACK; jeq #SYN, drop; ret #all; drop: ret #0` in classic BPF (networking/filter.rst of the kernel).
fn without_syn() -> [libc::sock_filter; 5] {
    let instruction = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let is_syn =
        libc::sock_filter { jt: 1, ..instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, TCP_SYN) };
    [
        instruction(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, TCP_FLAGS),
        instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, TCP_SYN | TCP_ACK),
        is_syn,
        instruction(libc::BPF_RET | libc::BPF_K, u32::MAX),
        instruction(libc::BPF_RET | libc::BPF_K, 0),
    ]
}

/// `ld cpu; mod #workers; ret a` in classic BPF (networking/filter.rst of the kernel).
fn cpu_modulo(workers: u32) -> [libc::sock_filter; 3] {
    let instruction = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let cpu = (libc::SKF_AD_OFF + libc::SKF_AD_CPU) as u32;
    [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, cpu),
        instruction(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, workers),
        instruction(libc::BPF_RET | libc::BPF_A, 0),
    ]
}

/// The CPU that handled the connection's last packet, if one did.
///
/// # Errors
/// The kernel's; none are known for a healthy socket.
#[cfg(test)]
pub fn incoming_cpu(socket: BorrowedFd<'_>) -> io::Result<Option<usize>> {
    // The kernel says -1 for "none yet", which `socket2` passes on as a huge number.
    let cpu = SockRef::from(&socket).cpu_affinity()?;
    Ok((cpu <= c_int::MAX as usize).then_some(cpu))
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};
    use std::thread;

    use super::super::cpu;
    use super::*;
    use crate::sys::socket::{self, ListenOptions, Sharing};
    use crate::sys::sockopt::set_buffers;
    use crate::sys::testing::{LOOPBACK, PLAIN, accept, connect, recv, until};

    fn listeners(count: usize) -> Vec<OwnedFd> {
        let shared = ListenOptions { sharing: Sharing::Joins, ..PLAIN };
        let first = socket::listen(LOOPBACK, &shared).unwrap();
        let addr = socket::local_addr(first.as_fd()).unwrap().as_socket_addr().unwrap();
        let others = (1..count).map(|_| socket::listen(addr, &shared).unwrap());
        std::iter::once(first).chain(others).collect()
    }

    #[test]
    fn steering_picks_the_listener_of_the_cpu() {
        // On loopback a SYN is handled on the CPU that sends it. A thread of its own, because it is pinned.
        let pinned = || {
            for cpu in cpu::allowed_cpus().unwrap() {
                cpu::pin_current_thread(cpu).unwrap();
                let listeners = listeners(3);
                let addr = socket::local_addr(listeners[0].as_fd()).unwrap();
                attach_reuseport_cpu_steering(listeners[0].as_fd(), 3).unwrap();

                let clients: Vec<_> = (0..8).map(|_| connect(&addr).unwrap()).collect();

                for client in &clients {
                    until(client.as_fd(), libc::POLLOUT);
                }
                for _ in &clients {
                    let (server, _) = accept(&listeners[cpu % 3]).unwrap();
                    assert_eq!(incoming_cpu(server.as_fd()).unwrap(), Some(cpu));
                }
            }
        };
        thread::spawn(pinned).join().unwrap();
    }

    #[test]
    fn who_has_connected_is_accepted_and_nobody_else_gets_in_line() {
        let listeners = listeners(1);
        let addr = socket::local_addr(listeners[0].as_fd()).unwrap().as_socket_addr().unwrap();
        let early = std::net::TcpStream::connect(addr).unwrap();
        refuse_new_connections(listeners[0].as_fd()).unwrap();

        let late = std::net::TcpStream::connect_timeout(&addr, Duration::from_millis(200));

        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let (server, peer) = accept(&listeners[0]).unwrap();
        assert_eq!(peer, early.local_addr().unwrap());
        assert_eq!(socket::accept(listeners[0].as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        // What goes on between those who are connected is not filtered.
        socket::send(server.as_fd(), b"hello").unwrap();
        let mut early = early;
        io::Read::read_exact(&mut early, &mut [0; 5]).unwrap();
    }

    #[test]
    fn steering_to_no_worker_is_refused() {
        let error = attach_reuseport_cpu_steering(listeners(1)[0].as_fd(), 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }

    #[test]
    fn a_socket_without_packets_has_no_incoming_cpu() {
        assert_eq!(incoming_cpu(listeners(1)[0].as_fd()).unwrap(), None);
    }

    #[test]
    fn a_connection_inherits_what_its_listener_was_told() {
        let listeners = listeners(1);
        let listener = listeners[0].as_fd();
        set_user_timeout(listener, Duration::from_millis(12_345)).unwrap();
        set_unsent_bytes_max(listener, 54_321).unwrap();
        set_buffers(listener, Some(20_000), Some(30_000)).unwrap();
        let _client = std::net::TcpStream::connect(socket::local_addr(listener).unwrap()).unwrap();
        let (server, _) = accept(&listeners[0]).unwrap();

        let socket = SockRef::from(&server);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_millis(12_345)));
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), 54_321);
        // The kernel doubles them (socket(7)).
        assert_eq!(
            (socket.send_buffer_size().unwrap(), socket.recv_buffer_size().unwrap()),
            (40_000, 60_000)
        );
    }

    #[test]
    fn a_listener_defers_and_fast_opens() {
        let options = ListenOptions {
            defer_accept: Some(Duration::from_millis(30_001)),
            fast_open: Some(u32::MAX),
            ..PLAIN
        };
        let listener = socket::listen(LOOPBACK, &options).unwrap();
        let client = std::net::TcpStream::connect(socket::local_addr(listener.as_fd()).unwrap()).unwrap();
        assert_eq!(
            socket::accept(listener.as_fd()).unwrap_err().kind(),
            io::ErrorKind::WouldBlock,
            "connected, but has said nothing"
        );

        std::io::Write::write_all(&mut (&client), b"hello").unwrap();

        let (server, _) = accept(&listener).unwrap();
        assert_eq!(recv(&server).unwrap(), b"hello");
    }
}
