//! Datagrams in the Unix domain, for tasks.

use std::io::ErrorKind;
use std::path::PathBuf;

use netpoll_core::Runtime;
use netpoll_core::net::UnixDatagram;
use netpoll_core::sim::{Options, Sim};
use netpoll_core::task::{spawn_local, yield_now};
use netpoll_core::time::timeout;

use crate::unix::Folder;

fn run<F: Future<Output = ()> + 'static>(future: F) {
    Runtime::block_on(future).unwrap();
}

async fn recv(socket: &UnixDatagram) -> Vec<u8> {
    let mut buffer = vec![0; 4096];
    let len = socket.recv(&mut buffer).await.unwrap();
    buffer.truncate(len);
    buffer
}

/// A slice of polls is 128 of them, and between two there is a turn.
async fn turns() {
    for _ in 0..4 * 128 {
        yield_now().await;
    }
}

#[test]
fn a_pair_exchanges_whole_datagrams_in_order() {
    run(async {
        let (one, other) = UnixDatagram::pair().unwrap();
        let sender = spawn_local(async move {
            for number in 0..200_u8 {
                one.send(&[number; 100]).await.unwrap();
            }
            one
        });
        for number in 0..200_u8 {
            assert_eq!(recv(&other).await, [number; 100]);
        }
        let one = sender.await.unwrap();
        one.send(b"").await.unwrap();
        assert_eq!(recv(&other).await, b"");
        assert!(one.local_addr().unwrap().is_unnamed() && one.peer_addr().unwrap().is_unnamed());
    });
}

#[test]
fn a_receiver_hears_who_has_sent_and_answers_by_the_name() {
    run(async {
        let folder = Folder::new();
        let (path, own) = (folder.path("server"), folder.path("client"));
        let server = UnixDatagram::bind(&*path).unwrap();
        let client = UnixDatagram::bind(&*own).unwrap();
        assert_eq!(server.local_addr().unwrap().as_path(), Some(&*path));
        client.send_to(b"question", &*path).await.unwrap();
        let mut buffer = [0; 16];
        let (len, from) = server.recv_from(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..len], from.as_path()), (&b"question"[..], Some(&*own)));
        server.send_to(b"answer", netpoll_core::Address::from(from)).await.unwrap();
        assert_eq!(recv(&client).await, b"answer");
        let nobody: PathBuf = folder.path("nobody");
        assert_eq!(client.send_to(b"x", &*nobody).await.unwrap_err().kind(), ErrorKind::NotFound);
    });
}

#[test]
fn the_file_of_a_name_goes_with_its_socket_and_a_stale_one_is_replaced_but_no_live_one() {
    run(async {
        let folder = Folder::new();
        let path = folder.path("a.sock");
        drop(std::os::unix::net::UnixDatagram::bind(&path).unwrap());
        assert!(path.exists(), "the kernel leaves it");
        let first = UnixDatagram::bind(&*path).expect("nobody has it");
        assert_eq!(UnixDatagram::bind(&*path).unwrap_err().kind(), ErrorKind::AddrInUse);
        // One of the other kind is somebody as well.
        let other = folder.path("b.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&other).unwrap();
        assert_eq!(UnixDatagram::bind(&*other).unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(first);
        assert!(!path.exists());
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(UnixDatagram::bind(&*path).unwrap_err().kind(), ErrorKind::AddrInUse);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    });
}

#[test]
fn what_is_no_name_in_the_unix_domain_is_refused() {
    run(async {
        for wrong in ["127.0.0.1:80", "localhost:80", "unix:", "nonsense"] {
            assert_eq!(UnixDatagram::bind(wrong).unwrap_err().kind(), ErrorKind::InvalidInput, "{wrong}");
        }
    });
    let mut sim = Sim::new(Options::default());
    let error = sim.block_on(async { UnixDatagram::unbound().unwrap_err() });
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn sends_wait_for_a_receiver_that_is_full_connected_or_not() {
    for connects in [true, false] {
        run(async move {
            let folder = Folder::new();
            let path = folder.path("a.sock");
            let server = UnixDatagram::bind(&*path).unwrap();
            let client = UnixDatagram::unbound().unwrap();
            if connects {
                client.connect(&*path).unwrap();
            }
            let mut sent = 0_u32;
            loop {
                let bytes = sent.to_ne_bytes();
                let tried = match connects {
                    true => client.try_send(&bytes),
                    false => client.try_send_to(&bytes, &*path),
                };
                match tried {
                    Ok(len) => assert_eq!(len, 4),
                    Err(error) => break assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
                sent += 1;
            }
            let task = spawn_local(async move {
                for number in sent..sent + 50 {
                    let bytes = number.to_ne_bytes();
                    match connects {
                        true => client.send(&bytes).await.unwrap(),
                        false => client.send_to(&bytes, &*path).await.unwrap(),
                    };
                }
            });
            turns().await;
            assert!(!task.is_finished());
            for number in 0..sent + 50 {
                let wanted = std::time::Duration::from_secs(20);
                let came = timeout(wanted, recv(&server)).await.expect("it is told when there is room");
                assert_eq!(came, number.to_ne_bytes());
            }
            task.await.unwrap();
        });
    }
}

#[test]
fn a_receive_that_is_given_up_loses_nothing() {
    run(async {
        let (one, other) = UnixDatagram::pair().unwrap();
        for number in 0..50_u8 {
            let zero = std::time::Duration::ZERO;
            assert!(timeout(zero, recv(&other)).await.is_err());
            one.send(&[number]).await.unwrap();
            assert_eq!(recv(&other).await, [number]);
        }
    });
}

#[test]
fn a_receiver_that_is_gone_is_told_to_who_sends() {
    run(async {
        let (one, other) = UnixDatagram::pair().unwrap();
        let waits = spawn_local(async move { one.send(b"x").await.map_err(|error| error.kind()) });
        drop(other);
        assert_eq!(waits.await.unwrap(), Err(ErrorKind::ConnectionRefused));
    });
}
