//! Sockets on 127.0.0.1, ports chosen by the kernel.

use std::io::ErrorKind;
use std::net::{IpAddr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};

use super::super::limits::open_file_count;
use super::super::testing::{self, LOOPBACK, PLAIN, Pair, alone, open_flags, until};
use super::*;

fn kind<T: std::fmt::Debug>(result: io::Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[test]
fn an_accepted_connection_comes_with_its_peer_address() {
    let listener = listen(LOOPBACK, &PLAIN).unwrap();
    let client = TcpStream::connect(local_addr(listener.as_fd()).unwrap()).unwrap();

    let (server, peer) = testing::accept(&listener).unwrap();

    assert_eq!(peer, client.local_addr().unwrap());
    assert_eq!(local_addr(server.as_fd()).unwrap(), client.peer_addr().unwrap());
}

#[test]
fn an_ipv6_peer_has_an_ipv6_address() {
    let Ok(listener) = listen(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 0), &PLAIN) else {
        return; // a machine without IPv6
    };
    let client = TcpStream::connect(local_addr(listener.as_fd()).unwrap()).unwrap();

    let (_, peer) = testing::accept(&listener).unwrap();

    assert_eq!(peer, client.local_addr().unwrap());
}

#[test]
fn every_field_of_an_ipv6_address_is_decoded() {
    let mut raw = RawAddress([0; RawAddress::BYTES]);
    raw.0[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
    raw.0[2..4].copy_from_slice(&8080_u16.to_be_bytes());
    raw.0[4..8].copy_from_slice(&7_u32.to_ne_bytes());
    raw.0[8..24].copy_from_slice(&Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9).octets());
    raw.0[24..28].copy_from_slice(&3_u32.to_ne_bytes());

    let expected = SocketAddrV6::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9), 8080, 7, 3);
    assert_eq!(raw.decode(), Some(expected.into()));
}

#[test]
fn a_peer_in_the_unix_domain_has_no_name_unless_it_is_bound() {
    let name = UnixAddr::from_abstract_name(format!("netpoll-test-{}", std::process::id())).unwrap();
    let listener = UnixListener::bind_addr(&name).unwrap();
    let _client = UnixStream::connect_addr(&name).unwrap();

    let (socket, peer) = accept(listener.as_fd()).unwrap();

    assert_eq!(peer, Address::Unix(UnixAddress::UNNAMED));
    assert!(is_unix(socket.as_fd()) && !is_unix(Pair::new().client.as_fd()));
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
    let (listener, pair) = (listen(LOOPBACK, &PLAIN).unwrap(), Pair::new());
    for fd in [listener, pair.client, pair.server] {
        let flags = open_flags(fd.as_fd());
        assert_ne!(flags & libc::O_CLOEXEC, 0);
        assert_ne!(flags & libc::O_NONBLOCK, 0);
    }
}

#[test]
fn both_ends_send_without_delay() {
    let pair = Pair::new();
    assert!(SockRef::from(&pair.client).tcp_nodelay().unwrap());
    assert!(SockRef::from(&pair.server).tcp_nodelay().unwrap(), "inherited from the listener");
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
    assert_eq!(testing::recv(&pair.server).unwrap(), b"hello");
}

#[test]
fn received_bytes_stay_inside_the_buffer() {
    let (pair, mut buffer) = (Pair::new(), [0xAA; 12]);
    send(pair.client.as_fd(), b"12345678").unwrap();
    until(pair.server.as_fd(), libc::EPOLLIN);

    assert_eq!(recv(pair.server.as_fd(), &mut buffer[4..8]).unwrap(), 4);

    assert_eq!(&buffer, b"\xAA\xAA\xAA\xAA1234\xAA\xAA\xAA\xAA");
    assert_eq!(testing::recv(&pair.server).unwrap(), b"5678", "the rest waits in the kernel");
}

#[test]
fn bytes_with_more_behind_wait_for_it() {
    // For 200 ms at most: an attempt that the scheduler interrupted for longer says nothing.
    let waited = (0..5).any(|_| {
        let pair = Pair::new();
        let head = [IoSlice::new(b"he"), IoSlice::new(b"ad")];
        assert_eq!(send_vectored_with_more_behind(pair.client.as_fd(), &head).unwrap(), 4);
        let waits =
            recv(pair.server.as_fd(), &mut [0; 16]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        send(pair.client.as_fd(), b", body").unwrap();
        waits && testing::recv(&pair.server).unwrap() == b"head, body"
    });
    assert!(waited);
}

#[test]
fn slices_are_sent_in_order() {
    let pair = Pair::new();
    let slices = [&b"one "[..], b"", b"two ", b"three"].map(IoSlice::new);

    assert_eq!(send_vectored(pair.client.as_fd(), &slices).unwrap(), 13);

    assert_eq!(testing::recv(&pair.server).unwrap(), b"one two three");
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

    let mut received = 0;
    while received < queued {
        received += testing::recv(&pair.server).unwrap().len();
    }

    assert!(until(pair.client.as_fd(), libc::EPOLLOUT).is_writable());
    assert!(send(pair.client.as_fd(), &block).unwrap() > 0);
}

#[test]
fn a_half_closed_connection_still_receives() {
    let pair = Pair::new();
    send(pair.client.as_fd(), b"question").unwrap();
    shutdown_write(pair.client.as_fd()).unwrap();
    assert_eq!(testing::recv(&pair.server).unwrap(), b"question");
    assert_eq!(testing::recv(&pair.server).unwrap(), b"", "the FIN");

    send(pair.server.as_fd(), b"answer").unwrap();

    assert_eq!(testing::recv(&pair.client).unwrap(), b"answer");
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

    assert_eq!(kind(testing::recv(&pair.server)), ErrorKind::ConnectionReset);
    assert_eq!(recv(pair.server.as_fd(), &mut [0]).unwrap(), 0, "reported once");
}

#[test]
fn a_refused_connection_has_a_pending_error() {
    let deaf = new_stream(LOOPBACK).unwrap(); // bound, so nobody else gets the port, and not listening
    deaf.bind(&LOOPBACK.into()).unwrap();
    let addr = local_addr(deaf.as_fd()).unwrap();

    let refused = testing::connect(&addr).and_then(|socket| {
        until(socket.as_fd(), libc::EPOLLOUT);
        let error = take_error(socket.as_fd())?;
        assert!(take_error(socket.as_fd())?.is_none(), "taking it clears it");
        Err::<(), _>(error.expect("a pending error"))
    });

    assert_eq!(kind(refused), ErrorKind::ConnectionRefused);
}

#[test]
fn a_connection_comes_from_the_address_it_was_bound_to() {
    let listener = listen(LOOPBACK, &PLAIN).unwrap();
    let source = SocketAddr::new(IpAddr::from([127, 0, 0, 2]), 0);
    let options = StreamOptions { from: Some(source), ..StreamOptions::DEFAULT };

    let client = connect(&local_addr(listener.as_fd()).unwrap(), &options).unwrap();

    let (_, peer) = testing::accept(&listener).unwrap();
    assert_eq!(peer.ip(), Some(source.ip()));
    assert_eq!(peer, local_addr(client.as_fd()).unwrap());
    assert!(take_error(client.as_fd()).unwrap().is_none());
}

#[test]
fn an_address_is_shared_only_when_all_agree() {
    let shared = ListenOptions { sharing: Sharing::Joins, ..PLAIN };
    let first = listen(LOOPBACK, &shared).unwrap();
    let addr = local_addr(first.as_fd()).unwrap().as_socket_addr().unwrap();

    assert_eq!(kind(listen(addr, &PLAIN)), ErrorKind::AddrInUse);
    assert_eq!(local_addr(listen(addr, &shared).unwrap().as_fd()).unwrap(), addr);
}

#[test]
fn a_listener_defers_and_fast_opens() {
    let options = ListenOptions {
        defer_accept: Some(Duration::from_millis(30_001)),
        fast_open: Some(u32::MAX),
        ..PLAIN
    };
    let listener = listen(LOOPBACK, &options).unwrap();
    let client = TcpStream::connect(local_addr(listener.as_fd()).unwrap()).unwrap();
    assert_eq!(kind(accept(listener.as_fd())), ErrorKind::WouldBlock, "connected, but has said nothing");

    std::io::Write::write_all(&mut (&client), b"hello").unwrap();

    let (server, _) = testing::accept(&listener).unwrap();
    assert_eq!(testing::recv(&server).unwrap(), b"hello");
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
fn bytes_that_were_not_read_are_counted() {
    let pair = Pair::new();
    assert_eq!(unread_bytes(pair.server.as_fd()).unwrap(), 0);
    send(pair.client.as_fd(), b"hello").unwrap();
    until(pair.server.as_fd(), libc::EPOLLIN);
    assert_eq!(unread_bytes(pair.server.as_fd()).unwrap(), 5);
}
