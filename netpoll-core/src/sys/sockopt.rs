//! Socket options that tune, rather than decide whether things work. One system call each, except
//! [`set_keepalive`] with four.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use libc::c_int;
use socket2::{SockRef, TcpKeepalive};

use super::checked;

/// Asks the peer for a sign of life after `idle` of silence, then every `interval`, and gives the
/// connection up (`ETIMEDOUT`) after `count` probes without answer. Whole seconds, 1 to 32767.
///
/// # Errors
/// The kernel's: `EINVAL` out of range.
pub fn set_keepalive(
    socket: BorrowedFd<'_>,
    idle: Duration,
    interval: Duration,
    count: u32,
) -> io::Result<()> {
    let params = TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(count);
    SockRef::from(&socket).set_tcp_keepalive(&params)
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

/// Sizes of the kernel's buffers, if they are not to grow by themselves (`SO_SNDBUF`, `SO_RCVBUF`). Of a listener, before anybody
/// connects: the window scale is said once, in the handshake.
///
/// # Errors
/// The kernel's; none are known.
pub fn set_buffers(socket: BorrowedFd<'_>, send: Option<usize>, receive: Option<usize>) -> io::Result<()> {
    let socket = SockRef::from(&socket);
    send.map_or(Ok(()), |bytes| socket.set_send_buffer_size(bytes))?;
    receive.map_or(Ok(()), |bytes| socket.set_recv_buffer_size(bytes))
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

/// Sets an option whose value is an `int`.
pub(super) fn set_int(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let (place, length) = ((&raw const value).cast(), size_of::<c_int>() as libc::socklen_t);
    // SAFETY: setsockopt(2) reads `length` bytes at `place`: the parameter `value`, an initialised c_int that
    // outlives the call. An option that wants more answers EINVAL. (test: `a_listener_defers_and_fast_opens`)
    checked(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, place, length) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};
    use std::thread;

    use super::super::linux::cpu;
    use super::super::socket::{self, ListenOptions, Sharing};
    use super::super::testing::{LOOPBACK, PLAIN, Pair, accept, connect, until};
    use super::*;

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
                    until(client.as_fd(), libc::EPOLLOUT);
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
    fn keepalive_is_set_as_asked() {
        let pair = Pair::new();
        set_keepalive(pair.server.as_fd(), Duration::from_secs(61), Duration::from_secs(7), 3).unwrap();

        let socket = SockRef::from(&pair.server);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(61));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(7));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
    }
}
