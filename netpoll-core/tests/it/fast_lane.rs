//! The fast lane on real sockets.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use netpoll_core::{Running, Runtime, Workers};

use crate::support::Echo;

fn echo_server(workers: usize) -> Running {
    Runtime::builder()
        .workers(Workers::Count(workers))
        .listen("127.0.0.1:0", |_worker| |_peer| Echo)
        .unwrap()
        .start()
        .unwrap()
}

fn connect(server: &Running) -> TcpStream {
    let stream = TcpStream::connect(server.local_addrs()[0].as_socket_addr().unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

#[test]
fn an_echo_comes_back_over_a_real_socket() {
    let server = echo_server(1);
    let mut stream = connect(&server);
    stream.write_all(b"ping").unwrap();
    let mut back = [0; 4];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"ping");
    let report = server.stop(Duration::from_secs(5)).unwrap();
    assert_eq!(report.cut, 0);
}

#[test]
fn a_megabyte_survives_partial_reads_and_writes() {
    let server = echo_server(2);
    let sent: Vec<u8> =
        (0..1 << 20).map(|index: u32| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut stream = connect(&server);
    let mut writer = stream.try_clone().unwrap();
    let bytes = sent.clone();
    let thread = std::thread::spawn(move || writer.write_all(&bytes).unwrap());
    let mut back = vec![0; sent.len()];
    stream.read_exact(&mut back).unwrap();
    thread.join().unwrap();
    assert!(back == sent);
}

#[test]
fn a_half_closed_peer_gets_its_echo_and_then_the_end() {
    let server = echo_server(1);
    let mut stream = connect(&server);
    stream.write_all(b"last words").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    assert_eq!(back, b"last words");
}

#[test]
fn many_connections_that_speak_at_once_each_get_their_own_bytes() {
    let server = echo_server(1);
    let mut clients: Vec<TcpStream> = (0..50).map(|_| connect(&server)).collect();
    for round in 0..20 {
        // From a byte to more than what a batch receives ahead.
        let words: Vec<Vec<u8>> = (0..clients.len())
            .map(|nth| format!("{round}:{nth};").into_bytes().repeat(1 + nth * round * 8))
            .collect();
        for (client, word) in clients.iter_mut().zip(&words) {
            client.write_all(word).unwrap();
        }
        for (client, word) in clients.iter_mut().zip(&words) {
            let mut echo = vec![0; word.len()];
            client.read_exact(&mut echo).unwrap();
            assert_eq!(&echo, word);
        }
    }
}
