//! Sockets on 127.0.0.1, ports chosen by the kernel.

use std::io::ErrorKind;
use std::net::{IpAddr, TcpStream};

use super::super::testing::{self, LOOPBACK, PLAIN, Pair, until};
use super::*;

fn kind<T: std::fmt::Debug>(result: io::Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
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
    raw.0[FAMILY..2].copy_from_slice(&(libc::AF_INET6 as libc::sa_family_t).to_ne_bytes());
    raw.0[2..4].copy_from_slice(&8080_u16.to_be_bytes());
    raw.0[4..8].copy_from_slice(&7_u32.to_ne_bytes());
    raw.0[8..24].copy_from_slice(&Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9).octets());
    raw.0[24..28].copy_from_slice(&3_u32.to_ne_bytes());

    let expected = SocketAddrV6::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9), 8080, 7, 3);
    assert_eq!(raw.decode(), Some(expected.into()));
}

#[test]
fn both_ends_send_without_delay() {
    let pair = Pair::new();
    assert!(SockRef::from(&pair.client).tcp_nodelay().unwrap());
    assert!(SockRef::from(&pair.server).tcp_nodelay().unwrap(), "inherited from the listener");
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
fn a_refused_connection_has_a_pending_error() {
    let deaf = new_stream(LOOPBACK).unwrap(); // bound, so nobody else gets the port, and not listening
    deaf.bind(&LOOPBACK.into()).unwrap();
    let addr = local_addr(deaf.as_fd()).unwrap();

    let refused = testing::connect(&addr).and_then(|socket| {
        until(socket.as_fd(), libc::POLLOUT);
        let error = take_error(socket.as_fd())?;
        assert!(take_error(socket.as_fd())?.is_none(), "taking it clears it");
        Err::<(), _>(error.expect("a pending error"))
    });

    assert_eq!(kind(refused), ErrorKind::ConnectionRefused);
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
fn bytes_that_were_not_read_are_counted() {
    let pair = Pair::new();
    assert_eq!(unread_bytes(pair.server.as_fd()).unwrap(), 0);
    send(pair.client.as_fd(), b"hello").unwrap();
    until(pair.server.as_fd(), libc::POLLIN);
    assert_eq!(unread_bytes(pair.server.as_fd()).unwrap(), 5);
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
