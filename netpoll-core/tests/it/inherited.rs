//! Listening sockets that somebody else has opened.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use netpoll_core::{Running, Runtime, Workers};

use crate::support::Echo;
use crate::unix::Folder;

const PATIENCE: Duration = Duration::from_secs(20);

fn serve(socket: impl Into<OwnedFd>, workers: usize) -> Running {
    let builder = Runtime::builder().workers(Workers::Count(workers)).pin(false);
    builder.listen_on(socket, |_worker| |_peer| Echo).unwrap().start().unwrap()
}

fn ask(stream: &mut (impl Read + Write)) {
    stream.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
}

#[test]
fn a_server_accepts_from_a_socket_that_it_is_given_and_its_owner_goes_on_with_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    // Who waits already is served as well.
    let mut early = TcpStream::connect(addr).unwrap();
    let server = serve(listener.try_clone().unwrap(), 2);
    assert_eq!(server.local_addrs(), [netpoll_core::Address::from(addr)]);
    ask(&mut early);
    for _ in 0..8 {
        ask(&mut TcpStream::connect(addr).unwrap());
    }
    drop(early);
    server.stop(PATIENCE).unwrap();

    let mut late = TcpStream::connect(addr).unwrap();
    let next = serve(listener, 1);
    ask(&mut late);
    drop(late);
    next.stop(PATIENCE).unwrap();
    assert_eq!(TcpStream::connect(addr).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_unix_socket_that_was_given_is_accepted_from_and_its_file_stays() {
    let folder = Folder::new();
    let path = folder.path("a.sock");
    let listener = UnixListener::bind(&path).unwrap();
    for workers in [1, 2] {
        let server = serve(listener.try_clone().unwrap(), workers);
        ask(&mut UnixStream::connect(&path).unwrap());
        server.stop(PATIENCE).unwrap();
    }
    assert!(path.exists());
    let _queued = UnixStream::connect(&path).unwrap();
    listener.set_nonblocking(false).unwrap();
    listener.accept().unwrap();
}

#[test]
fn two_servers_accept_from_one_socket_and_one_that_ends_takes_nobody_along() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let older = serve(listener.try_clone().unwrap(), 2);
    let newer = serve(listener, 2);
    let mut clients = Vec::new();
    while older.handle().stats().accepted == 0 || newer.handle().stats().accepted == 0 {
        let mut client = TcpStream::connect(addr).unwrap();
        ask(&mut client);
        clients.push(client);
        assert!(clients.len() < 500, "one of them gets nobody");
    }
    drop(clients);
    older.stop(PATIENCE).unwrap();
    for _ in 0..20 {
        ask(&mut TcpStream::connect(addr).unwrap());
    }
}

#[test]
fn a_worker_that_has_closed_its_end_of_a_socket_hears_no_more_of_its_queue() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let server = serve(listener.try_clone().unwrap(), 1);
    let mut busy = TcpStream::connect(addr).unwrap();
    ask(&mut busy);
    server.handle().drain(PATIENCE);
    // It goes on for the grace of the drain, while somebody stands in the queue, at the latest when it has closed its end.
    let queued: Vec<_> = (0..4).map(|_| TcpStream::connect(addr).unwrap()).collect();
    busy.read_to_end(&mut Vec::new()).unwrap();
    let later = TcpStream::connect(addr).unwrap();
    drop(busy);
    let stats = server.wait().unwrap().stats;
    assert!(stats.syscalls_wait < 1000, "{stats:?}");
    drop((queued, later));
}

#[test]
fn what_does_not_listen_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let refused = |socket: OwnedFd| {
        let outcome = Runtime::builder().listen_on(socket, |_worker| |_peer| Echo);
        outcome.err().expect("it does not listen").kind()
    };
    assert_eq!(refused(stream.into()), ErrorKind::InvalidInput);
    assert_eq!(refused(udp.into()), ErrorKind::InvalidInput);
    refused(std::fs::File::open("/dev/null").unwrap().into());
}

#[test]
#[cfg(target_os = "linux")]
fn a_socket_of_mptcp_is_served_though_it_lacks_options() {
    use socket2::{Domain, Protocol, Socket, Type};
    let Ok(socket) = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)) else {
        eprintln!("skipped: this kernel has no MPTCP");
        return;
    };
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(16).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    let server = serve(socket, 1);
    let mut client = TcpStream::connect(addr).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    ask(&mut client);
    drop(client);
    server.stop(PATIENCE).unwrap();
}
