//! What every system's way of sending and receiving datagrams has to do.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};

use socket2::SockRef;

use super::super::CUT;
use super::*;
use crate::sys::control::Facts;
use crate::sys::datagrams::{DATAGRAM_BYTES_MAX, bind_datagrams, tell_local_ip};
use crate::sys::socket::{Sharing, local_addr};
use crate::sys::testing::{LOOPBACK, open_flags, until};

fn bound(addr: SocketAddr) -> (OwnedFd, SocketAddr) {
    let socket = bind_datagrams(addr, Sharing::Alone).unwrap();
    let addr = local_addr(socket.as_fd()).unwrap().as_socket_addr().unwrap();
    (socket, addr)
}

/// Receives until so many messages are there.
fn receive(incoming: &mut Incoming, socket: &OwnedFd, most: usize) -> Vec<(Message, Vec<u8>)> {
    until(socket.as_fd(), libc::POLLIN);
    let count = incoming.receive(socket.as_fd(), most).unwrap();
    let messages: Vec<Message> = (0..count).map(|index| incoming.message(index)).collect();
    let bytes = |message: &Message| incoming.block[message.start..message.start + message.len].to_vec();
    messages.iter().map(|message| (*message, bytes(message))).collect()
}

fn parcel(to: SocketAddr, bytes: &[u8]) -> Parcel<'_> {
    Parcel { to, from: None, bytes, segment: None }
}

fn send(socket: &OwnedFd, parcels: &[Parcel<'_>]) -> io::Result<usize> {
    Outgoing::new().send(socket.as_fd(), parcels.iter().copied())
}

#[test]
fn a_socket_does_not_block_and_is_closed_on_exec() {
    let (socket, _) = bound(LOOPBACK);
    assert_eq!(
        open_flags(socket.as_fd()) & (libc::O_NONBLOCK | libc::O_CLOEXEC),
        libc::O_NONBLOCK | libc::O_CLOEXEC
    );
    let error = Incoming::new(4, 100).receive(socket.as_fd(), 4).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn received_datagrams_stay_in_their_places() {
    let (socket, addr) = bound(LOOPBACK);
    let peer = UdpSocket::bind(LOOPBACK).unwrap();
    let lens = [1, 64, 100, 101, 5000, 0, 100];
    for (index, len) in lens.into_iter().enumerate() {
        peer.send_to(&vec![b'a' + index as u8; len], addr).unwrap();
    }
    let mut incoming = Incoming::new(4, 100);
    let mut all = receive(&mut incoming, &socket, 2);
    assert_eq!(all.len(), 2, "no more than was asked for");
    all.extend(receive(&mut incoming, &socket, usize::MAX));
    assert_eq!(all.len(), 6, "no more than there are places");
    all.extend(receive(&mut incoming, &socket, 4));
    assert_eq!(all.len(), lens.len());
    for (index, (message, bytes)) in all.into_iter().enumerate() {
        assert_eq!(bytes, vec![b'a' + index as u8; lens[index].min(100)]);
        assert_eq!(message.is_truncated, lens[index] > 100);
        assert_eq!(message.peer, Some(peer.local_addr().unwrap()));
        assert_eq!(message.facts, Facts::default());
    }
    let written =
        incoming.block.chunks(incoming.stride).all(|place| place[100..].iter().all(|byte| *byte == 0));
    assert!(written, "nothing was written beyond a place");
}

#[test]
fn parcels_arrive_whole_and_in_order() {
    let (socket, addr) = bound(LOOPBACK);
    let peers = [UdpSocket::bind(LOOPBACK).unwrap(), UdpSocket::bind(LOOPBACK).unwrap()];
    let bytes: Vec<Vec<u8>> = (0..100).map(|index| vec![index as u8; index * 7]).collect();
    let to = |index: usize| peers[index % 2].local_addr().unwrap();
    let parcels: Vec<_> = bytes.iter().enumerate().map(|(index, bytes)| parcel(to(index), bytes)).collect();
    assert_eq!(send(&socket, &parcels).unwrap(), Outgoing::PARCELS_MAX);
    assert_eq!(send(&socket, &parcels[Outgoing::PARCELS_MAX..]).unwrap(), 100 - Outgoing::PARCELS_MAX);
    for (index, bytes) in bytes.iter().enumerate() {
        let mut got = [0; 1000];
        let (len, from) = peers[index % 2].recv_from(&mut got).unwrap();
        assert_eq!((&got[..len], from), (&bytes[..], addr));
    }
}

#[test]
fn an_error_is_that_of_the_first_parcel_and_the_ones_before_it_have_left() {
    let (socket, _) = bound(LOOPBACK);
    let peer = UdpSocket::bind(LOOPBACK).unwrap();
    let to = peer.local_addr().unwrap();
    let long = vec![0; 70_000];
    let parcels = [parcel(to, b"one"), parcel(to, &long), parcel(to, b"two")];
    assert_eq!(send(&socket, &parcels).unwrap(), 1);
    assert_eq!(send(&socket, &parcels[1..]).unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
    assert_eq!(send(&socket, &parcels[2..]).unwrap(), 1);
}

#[test]
fn a_wildcard_socket_is_told_its_address_and_answers_from_it() {
    let any: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let (socket, addr) = bound(any);
    tell_local_ip(socket.as_fd(), false).unwrap();
    let peer = UdpSocket::bind("127.0.0.9:0").unwrap();
    // The whole of 127/8 is ours.
    let called: SocketAddr = ([127, 3, 2, 1], addr.port()).into();
    peer.send_to(b"ping", called).unwrap();
    let (message, _) = receive(&mut Incoming::new(1, 100), &socket, 1).remove(0);
    let local = message.facts.local.unwrap();
    assert_eq!(local.ip, called.ip());
    let answer = Parcel { from: Some(local), ..parcel(message.peer.unwrap(), b"pong") };
    assert_eq!(send(&socket, &[answer]).unwrap(), 1);
    let (_, from) = peer.recv_from(&mut [0; 10]).unwrap();
    assert_eq!(from, called, "without it the kernel would have chosen another one");
}

#[test]
fn a_socket_of_both_families_answers_both_from_the_address_that_was_called() {
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    // Where there is no IPv6 there is nothing to answer.
    let Ok(socket) = bind_datagrams(any, Sharing::Alone) else { return };
    SockRef::from(&socket).set_only_v6(false).ok();
    let port = local_addr(socket.as_fd()).unwrap().as_socket_addr().unwrap().port();
    tell_local_ip(socket.as_fd(), true).unwrap();
    for (own, called) in
        [("[::1]:0", IpAddr::from(Ipv6Addr::LOCALHOST)), ("127.0.0.1:0", [127, 0, 0, 7].into())]
    {
        let Ok(peer) = UdpSocket::bind(own) else { continue };
        if peer.send_to(b"ping", (called, port)).is_err() {
            continue;
        }
        let (message, _) = receive(&mut Incoming::new(1, 100), &socket, 1).remove(0);
        let local = message.facts.local.unwrap();
        assert_eq!(local.ip.to_canonical(), called);
        let answer = Parcel { from: Some(local), ..parcel(message.peer.unwrap(), b"pong") };
        assert_eq!(send(&socket, &[answer]).unwrap(), 1);
        let (_, from) = peer.recv_from(&mut [0; 10]).unwrap();
        assert_eq!(from, SocketAddr::from((called, port)));
    }
}

#[test]
fn segments_are_cut_by_the_kernel_and_joined_again_for_who_can_take_them() {
    let (socket, _) = bound(LOOPBACK);
    let (plain, plain_addr) = bound(LOOPBACK);
    let (joining, joining_addr) = bound(LOOPBACK);
    let can = cuts_datagrams(socket.as_fd()) && join_datagrams(joining.as_fd());
    assert_eq!(can, CUT.is_some(), "Linux 5.0 has both");
    if !can {
        return;
    }
    let bytes: Vec<u8> = (0..1050).map(|index| (index / 100) as u8).collect();
    for to in [plain_addr, joining_addr] {
        let parcel = Parcel { segment: Some(100), ..parcel(to, &bytes) };
        assert_eq!(send(&socket, &[parcel]).unwrap(), 1);
    }
    let mut incoming = Incoming::new(16, DATAGRAM_BYTES_MAX);
    let cut = receive(&mut incoming, &plain, 16);
    assert_eq!(
        cut.iter().map(|(message, _)| message.len).collect::<Vec<_>>(),
        [vec![100; 10], vec![50]].concat()
    );
    let joined = receive(&mut incoming, &joining, 16);
    assert_eq!((joined[0].0.facts.segment, &joined[0].1), (Some(100), &bytes));
}
