//! What every system's way of moving bytes has to do. On 127.0.0.1, ports chosen by the kernel.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use super::*;
use crate::sys::limits::open_file_count;
use crate::sys::socket::{is_unix, listen, local_addr, reset_on_close, shutdown_write};
use crate::sys::testing::{self, Folder, LOOPBACK, PLAIN, alone, open_flags, until};

fn kind<T: std::fmt::Debug>(result: io::Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

/// Two ends of a connection, of which the calls here have accepted one.
struct Pair {
    client: OwnedFd,
    server: OwnedFd,
}

impl Pair {
    fn new() -> Self {
        let listener = listen(LOOPBACK, &PLAIN).unwrap();
        let client = testing::connect(&local_addr(listener.as_fd()).unwrap()).unwrap();
        until(listener.as_fd(), libc::POLLIN);
        let (server, _) = accept(listener.as_fd()).unwrap();
        until(client.as_fd(), libc::POLLOUT);
        Self { client, server }
    }
}

/// Receives once there is something to receive.
fn received(fd: &OwnedFd) -> io::Result<Vec<u8>> {
    until(fd.as_fd(), libc::POLLIN);
    let mut bytes = vec![0; 4096];
    let count = recv(fd.as_fd(), &mut bytes)?;
    bytes.truncate(count);
    Ok(bytes)
}

#[test]
fn an_accepted_connection_comes_with_its_peer_address() {
    let listener = listen(LOOPBACK, &PLAIN).unwrap();
    let client = TcpStream::connect(local_addr(listener.as_fd()).unwrap()).unwrap();

    until(listener.as_fd(), libc::POLLIN);
    let (server, peer) = accept(listener.as_fd()).unwrap();

    assert_eq!(peer, client.local_addr().unwrap());
    assert_eq!(local_addr(server.as_fd()).unwrap(), client.peer_addr().unwrap());
}

#[test]
fn an_accepted_socket_closes_when_dropped() {
    alone!(an_accepted_socket_closes_when_dropped);
    let before = open_file_count().unwrap();
    let pair = Pair::new();
    assert_eq!(open_file_count().unwrap(), before + 2);
    drop(pair);
    assert_eq!(open_file_count().unwrap(), before);
}

#[test]
fn no_socket_blocks_or_is_inherited() {
    let made = new_socket(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    let pair = Pair::new();
    for fd in [OwnedFd::from(made), pair.client, pair.server] {
        let flags = open_flags(fd.as_fd());
        assert_ne!(flags & libc::O_CLOEXEC, 0);
        assert_ne!(flags & libc::O_NONBLOCK, 0);
    }
}

#[test]
fn nothing_to_accept_or_receive_would_block() {
    let (listener, pair) = (listen(LOOPBACK, &PLAIN).unwrap(), Pair::new());
    assert_eq!(kind(accept(listener.as_fd())), ErrorKind::WouldBlock);
    assert_eq!(kind(recv(pair.server.as_fd(), &mut [0; 8])), ErrorKind::WouldBlock);
}

#[test]
fn what_is_sent_is_received() {
    let pair = Pair::new();
    assert_eq!(send(pair.client.as_fd(), b"hello").unwrap(), 5);
    assert_eq!(received(&pair.server).unwrap(), b"hello");
}

#[test]
fn received_bytes_stay_inside_the_buffer() {
    let (pair, mut buffer) = (Pair::new(), [0xAA; 12]);
    send(pair.client.as_fd(), b"12345678").unwrap();
    until(pair.server.as_fd(), libc::POLLIN);

    assert_eq!(recv(pair.server.as_fd(), &mut buffer[4..8]).unwrap(), 4);

    assert_eq!(&buffer, b"\xAA\xAA\xAA\xAA1234\xAA\xAA\xAA\xAA");
    assert_eq!(received(&pair.server).unwrap(), b"5678", "the rest waits in the kernel");
}

#[test]
fn slices_are_sent_in_order() {
    let pair = Pair::new();
    let slices = [&b"one "[..], b"", b"two ", b"three"].map(IoSlice::new);

    assert_eq!(send_vectored(pair.client.as_fd(), &slices).unwrap(), 13);

    assert_eq!(received(&pair.server).unwrap(), b"one two three");
}

#[test]
fn more_slices_than_the_kernel_takes_are_refused() {
    let (pair, slices) = (Pair::new(), [IoSlice::new(b"x"); 1025]);

    assert_eq!(send_vectored(pair.client.as_fd(), &slices[..1024]).unwrap(), 1024);
    let error = send_vectored(pair.client.as_fd(), &slices).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
}

#[test]
fn a_full_send_buffer_would_block_until_the_peer_reads() {
    let (pair, block) = (Pair::new(), vec![b'x'; 1 << 16]);
    let mut queued = 0;
    let full = loop {
        match send(pair.client.as_fd(), &block) {
            Ok(bytes) => queued += bytes,
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
    assert_eq!(kind(send_vectored(pair.client.as_fd(), &[IoSlice::new(&block)])), ErrorKind::WouldBlock);

    let mut count = 0;
    while count < queued {
        count += received(&pair.server).unwrap().len();
    }

    assert!(until(pair.client.as_fd(), libc::POLLOUT) & libc::POLLOUT != 0);
    assert!(send(pair.client.as_fd(), &block).unwrap() > 0);
}

#[test]
fn sending_after_a_shutdown_is_an_error_and_not_a_signal() {
    let pair = Pair::new();
    shutdown_write(pair.client.as_fd()).unwrap();
    assert_eq!(kind(send(pair.client.as_fd(), b"x")), ErrorKind::BrokenPipe);
    assert_eq!(kind(send_vectored(pair.client.as_fd(), &[IoSlice::new(b"x")])), ErrorKind::BrokenPipe);
}

#[test]
fn a_reset_reaches_the_peer_as_an_error() {
    let pair = Pair::new();
    reset_on_close(pair.client.as_fd()).unwrap();
    drop(pair.client);

    assert_eq!(kind(received(&pair.server)), ErrorKind::ConnectionReset);
    assert_eq!(recv(pair.server.as_fd(), &mut [0]).unwrap(), 0, "reported once");
}

#[test]
fn bytes_that_the_peer_does_not_read_are_unacknowledged_in_the_end() {
    let pair = Pair::new();
    assert_eq!(unacknowledged_bytes(pair.server.as_fd()).unwrap(), 0);
    let block = [7; 64 * 1024];
    while send(pair.server.as_fd(), &block).is_ok() {}
    assert!(unacknowledged_bytes(pair.server.as_fd()).unwrap() > 0);
}

#[test]
fn a_peer_in_the_unix_domain_has_no_name_unless_it_is_bound() {
    let folder = Folder::new();
    let listener = UnixListener::bind(folder.path("s")).unwrap();
    let _client = UnixStream::connect(folder.path("s")).unwrap();

    let (socket, peer) = accept(listener.as_fd()).unwrap();

    assert_eq!(peer, Address::Unix(UnixAddress::UNNAMED));
    assert!(is_unix(socket.as_fd()) && !is_unix(Pair::new().client.as_fd()));

    let bound = UnixDatagram::bind(folder.path("bound")).unwrap();
    assert_eq!(crate::sys::local_addr(bound.as_fd()).unwrap(), Address::unix(folder.path("bound")).unwrap());
}
