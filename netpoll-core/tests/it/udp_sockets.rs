//! UDP sockets of tasks: with real sockets and in the simulation.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use netpoll_core::net::UdpSocket;
use netpoll_core::sim::{Faults, Options, Sim};
use netpoll_core::task::{spawn_local, stopping, yield_now};
use netpoll_core::time::{sleep, timeout};
use netpoll_core::{Datagram, DatagramProtocol, DatagramSocket, Handle, Runtime, UdpOptions, Workers};

use crate::chance::{Chance, seeds};

/// Where the kernel chooses a port.
const ANY: &str = "127.0.0.1:0";

/// Runs it on a worker with sockets, and in a simulated world.
fn run<F: Future<Output = ()> + 'static>(make: impl Fn() -> F) {
    Runtime::block_on(make()).unwrap();
    Sim::new(Options::default()).block_on(make());
}

async fn bind() -> UdpSocket {
    UdpSocket::bind(ANY).await.unwrap()
}

/// Polls once, and says whether that was enough.
async fn is_ready<F: Future>(future: Pin<&mut F>) -> bool {
    let mut future = Some(future);
    poll_fn(|cx| Poll::Ready(future.take().expect("polled once").poll(cx).is_ready())).await
}

async fn recv(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 65_536];
    let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
    buffer.truncate(len);
    (buffer, from)
}

/// Answers until it is aborted.
async fn echo(socket: UdpSocket) {
    let mut buffer = [0; 2048];
    loop {
        let (len, path) = socket.recv_path(&mut buffer).await.unwrap();
        socket.send_to(&buffer[..len], path).await.unwrap();
    }
}

/// Turns enough for what was sent to arrive where nothing takes time.
async fn turns() {
    // A slice of polls is 128 of them, and between two there is a turn.
    for _ in 0..4 * 128 {
        yield_now().await;
    }
}

#[test]
fn datagrams_go_from_socket_to_socket_and_back() {
    run(|| async {
        let server = bind().await;
        let to = server.local_addr();
        assert_ne!(to.port(), 0);
        let echo = spawn_local(echo(server));
        let client = bind().await;
        for word in [&b"one"[..], b"", &[7; 1400]] {
            assert_eq!(client.send_to(word, to).await.unwrap(), word.len());
            assert_eq!(recv(&client).await, (word.to_vec(), to));
        }
        echo.abort();
    });
}

#[test]
fn a_socket_with_a_peer_sends_there_and_hears_nobody_else() {
    run(|| async {
        let (one, other, stranger) = (bind().await, bind().await, bind().await);
        assert_eq!(one.send(b"x").await.unwrap_err().kind(), ErrorKind::NotConnected);
        assert_eq!(one.peer_addr(), None);
        one.connect(other.local_addr());
        assert_eq!(one.peer_addr(), Some(other.local_addr()));
        one.send(b"question").await.unwrap();
        assert_eq!(recv(&other).await, (b"question".to_vec(), one.local_addr()));
        stranger.send_to(b"noise", one.local_addr()).await.unwrap();
        turns().await;
        other.send_to(b"answer", one.local_addr()).await.unwrap();
        let mut buffer = [0; 16];
        assert_eq!(one.recv(&mut buffer).await.unwrap(), 6);
        assert_eq!(&buffer[..6], b"answer");
        turns().await;
        assert_eq!(one.try_recv(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
    });
}

#[test]
fn a_datagram_that_is_looked_at_stays_and_one_that_is_too_long_is_cut() {
    run(|| async {
        let socket = bind().await;
        let own = socket.local_addr();
        socket.send_to(b"to myself", own).await.unwrap();
        socket.readable().await.unwrap();
        let mut buffer = [0; 4];
        assert_eq!(socket.peek_from(&mut buffer).await.unwrap(), (4, own));
        assert_eq!(socket.try_recv_from(&mut buffer).unwrap(), (4, own));
        assert_eq!(&buffer, b"to m");
        assert_eq!(socket.try_recv_from(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
    });
}

#[test]
fn an_address_that_is_taken_or_cannot_be_had_is_an_error_that_names_it() {
    run(|| async {
        let first = bind().await;
        let own = first.local_addr();
        let error = UdpSocket::bind(own).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&own.to_string()), "{error}");
        drop(first);
        turns().await;
        UdpSocket::bind(own).await.expect("it is free again");
        let error = UdpSocket::bind("unix:/run/nowhere").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let none = UdpOptions::default().unread_bytes_max(0);
        let error = UdpSocket::bind_with(ANY, none).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (ErrorKind::InvalidInput, "unread_bytes_max is zero")
        );
    });
    let outside = futures::executor::block_on(UdpSocket::bind(ANY));
    assert_eq!(outside.unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn a_bind_that_is_given_up_leaves_no_socket() {
    run(|| async {
        let free = bind().await.local_addr();
        turns().await;
        for polls in 1..4 {
            let mut given_up = Box::pin(UdpSocket::bind(free));
            for _ in 0..polls {
                if is_ready(given_up.as_mut()).await {
                    break;
                }
            }
            drop(given_up);
            turns().await;
            UdpSocket::bind(free).await.expect("nobody has it");
            turns().await;
        }
    });
}

#[test]
fn a_receive_that_is_given_up_loses_nothing() {
    run(|| async {
        let (one, other) = (bind().await, bind().await);
        let to = other.local_addr();
        let mut buffer = [0; 16];
        for round in 0..100_u8 {
            // Before anything has come, and when it was woken and not polled yet.
            let mut waits = Box::pin(other.recv_from(&mut buffer));
            assert!(!is_ready(waits.as_mut()).await);
            let mut looks = Box::pin(other.readable());
            assert!(!is_ready(looks.as_mut()).await);
            if round % 2 == 0 {
                drop(waits);
                one.send_to(&[round], to).await.unwrap();
            } else {
                one.send_to(&[round], to).await.unwrap();
                turns().await;
                drop(waits);
            }
            drop(looks);
            assert_eq!(recv(&other).await, (vec![round], one.local_addr()));
        }
    });
}

#[test]
fn what_was_not_taken_out_of_a_batch_is_there_for_the_next_in_order() {
    run(|| async {
        let (one, other) = (bind().await, bind().await);
        for number in 0..6 {
            one.send_to(&[number; 3], other.local_addr()).await.unwrap();
        }
        turns().await;
        let mut batch = other.recv_batch().await.unwrap();
        assert_eq!(batch.len(), 6);
        assert_eq!(
            batch.next().map(|(path, bytes)| (path.peer(), bytes)),
            Some((one.local_addr(), &[0; 3][..]))
        );
        let joined = batch.next_joined(2).unwrap();
        assert_eq!((joined.bytes, joined.datagrams, joined.segment), (&[1, 1, 1, 2, 2, 2][..], 2, 3));
        // What comes meanwhile is behind it.
        one.send_to(&[6; 3], other.local_addr()).await.unwrap();
        turns().await;
        assert_eq!(batch.len(), 3);
        drop(batch);
        for number in 3..7 {
            assert_eq!(recv(&other).await.0, [number; 3]);
        }
    });
}

#[test]
fn what_goes_back_from_a_batch_wakes_who_waits() {
    run(|| async {
        let (one, other) = (bind().await, Rc::new(bind().await));
        one.send_to(b"1", other.local_addr()).await.unwrap();
        turns().await;
        let batch = other.recv_batch().await.unwrap();
        let reads = Rc::clone(&other);
        let waits = spawn_local(async move { recv(&reads).await.0 });
        turns().await;
        drop(batch);
        let read = timeout(Duration::from_secs(1), waits).await.expect("it is there").unwrap();
        assert_eq!(read, b"1");
    });
}

#[test]
fn what_batches_hold_counts_as_unread() {
    run(|| async {
        let options = UdpOptions::default().unread_bytes_max(20 * 65);
        let other = UdpSocket::bind_with(ANY, options).await.unwrap();
        let one = bind().await;
        let (to, dropped) = (other.local_addr(), || Handle::current().stats().datagrams_dropped);
        let flood = || async {
            for _ in 0..40 {
                one.send_to(b"x", to).await.unwrap();
            }
            turns().await;
        };
        flood().await;
        let before = dropped();
        for _ in 0..10 {
            let mut batch = other.recv_batch().await.unwrap();
            assert_eq!(batch.len(), 20);
            for _ in 0..6 {
                batch.next().unwrap();
            }
            flood().await;
            // The last of these is still lent out.
            assert_eq!(batch.len(), 14);
            drop(batch);
            // Places that were taken: five had been given back by then.
            assert_eq!(other.recv_batch().await.unwrap().len(), 19);
            one.send_to(b"x", to).await.unwrap();
            turns().await;
        }
        assert_eq!(dropped() - before, 10 * 35);
    });
}

#[test]
fn a_peer_is_heard_by_whatever_name_it_was_given_and_others_are_counted() {
    Runtime::block_on(async {
        for (server, client) in [("0.0.0.0:0", ANY), ("0.0.0.0:0", "0.0.0.0:0"), (ANY, "[::]:0")] {
            let server = UdpSocket::bind(server).await.unwrap();
            let addr = server.local_addr();
            let answers = spawn_local(echo(server));
            let client = match UdpSocket::bind(client).await {
                // A host without IPv6.
                Err(_) if client == "[::]:0" => continue,
                client => client.unwrap(),
            };
            client.connect(addr);
            client.send(b"hello").await.unwrap();
            let mut buffer = [0; 16];
            let heard = timeout(Duration::from_secs(1), client.recv(&mut buffer)).await;
            answers.abort();
            assert_eq!(heard.expect("an answer").unwrap(), 5, "of {addr} at {}", client.local_addr());
        }
    })
    .unwrap();
    run(|| async {
        let (one, other, stranger) = (bind().await, bind().await, bind().await);
        one.connect(other.local_addr());
        stranger.send_to(b"noise", one.local_addr()).await.unwrap();
        turns().await;
        assert_eq!(Handle::current().stats().datagrams_dropped, 1);
    });
}

#[test]
fn several_tasks_receive_from_one_socket_and_each_datagram_goes_to_one_of_them() {
    run(|| async {
        let (one, other) = (bind().await, Rc::new(bind().await));
        let came = Rc::new(RefCell::new(Vec::new()));
        let tasks: Vec<_> = (0..5)
            .map(|_| {
                let (other, came) = (Rc::clone(&other), Rc::clone(&came));
                spawn_local(async move {
                    for _ in 0..4 {
                        let (bytes, _) = recv(&other).await;
                        came.borrow_mut().push(bytes[0]);
                    }
                })
            })
            .collect();
        yield_now().await;
        for number in 0..20 {
            one.send_to(&[number], other.local_addr()).await.unwrap();
        }
        for task in tasks {
            task.await.unwrap();
        }
        came.borrow_mut().sort_unstable();
        assert_eq!(*came.borrow(), (0..20).collect::<Vec<u8>>());
    });
}

#[test]
fn what_a_task_sends_in_a_row_leaves_by_one_call() {
    let mut sim = Sim::new(Options::default());
    sim.block_on(async {
        let (one, other) = (bind().await, bind().await);
        for number in 0..50_u8 {
            one.send_to(&[number], other.local_addr()).await.unwrap();
        }
        for number in 0..50_u8 {
            assert_eq!(recv(&other).await.0, [number]);
        }
    });
    let stats = sim.stats();
    assert_eq!((stats.syscalls_sendmmsg, stats.datagrams_sent), (1, 50));
}

#[test]
fn what_nobody_receives_is_bounded_and_the_newest_are_dropped_and_counted() {
    let mut sim = Sim::new(Options::default());
    sim.block_on(async {
        // Room for ten of 36 bytes, as each costs 64 beside them.
        let options = UdpOptions::default().unread_bytes_max(1000);
        let (one, other) = (bind().await, UdpSocket::bind_with(ANY, options).await.unwrap());
        for number in 0..25 {
            one.send_to(&[number; 36], other.local_addr()).await.unwrap();
        }
        turns().await;
        for number in 0..10 {
            assert_eq!(recv(&other).await.0, [number; 36]);
        }
        assert_eq!(other.try_recv(&mut [0; 64]).unwrap_err().kind(), ErrorKind::WouldBlock);
        one.send_to(b"there is room again", other.local_addr()).await.unwrap();
        assert_eq!(recv(&other).await.0, b"there is room again");
    });
    assert_eq!(sim.stats().datagrams_dropped, 15);
}

#[test]
fn sends_wait_for_room_and_nothing_is_lost_or_overtaken() {
    for seed in seeds(20) {
        // Half of the sends are cut short.
        let faults = Faults::default().partial_sends(500);
        let mut sim = Sim::new(Options::default().seed(seed).faults(faults));
        sim.block_on(async {
            let options = UdpOptions::default().queue_bytes_max(400);
            let one = UdpSocket::bind_with(ANY, options).await.unwrap();
            let other = bind().await;
            let to = other.local_addr();
            let long = [0; 400];
            assert_eq!(one.send_to(&long, to).await.unwrap_err().kind(), ErrorKind::InvalidInput);
            let waits = Cell::new(0);
            let sends = async {
                for number in 0..200_u8 {
                    let bytes = [number; 20];
                    let mut send = pin!(one.send_to(&bytes, to));
                    if !is_ready(send.as_mut()).await {
                        waits.set(waits.get() + 1);
                        assert_eq!(one.try_send_to(&bytes, to).unwrap_err().kind(), ErrorKind::WouldBlock);
                        send.await.unwrap();
                    }
                }
                one.writable().await.unwrap();
            };
            let receives = async {
                for number in 0..200_u8 {
                    assert_eq!(recv(&other).await.0, [number; 20]);
                }
            };
            futures::join!(sends, receives);
            assert!(waits.get() > 10, "{}", waits.get());
        });
        assert_eq!(sim.stats().datagrams_dropped, 0);
    }
}

#[test]
fn a_socket_that_is_dropped_sends_what_it_has_queued_first() {
    for seed in seeds(20) {
        let faults = Faults::default().partial_sends(800);
        let mut sim = Sim::new(Options::default().seed(seed).faults(faults));
        sim.block_on(async {
            let other = bind().await;
            let one = bind().await;
            let (to, from) = (other.local_addr(), one.local_addr());
            one.send_to(b"first", to).await.unwrap();
            yield_now().await;
            one.send_to(b"last", to).await.unwrap();
            drop(one);
            assert_eq!(recv(&other).await, (b"first".to_vec(), from));
            assert_eq!(recv(&other).await, (b"last".to_vec(), from));
        });
    }
}

/// What happens in a world of this seed: who has received what, when.
fn transcript(seed: u64) -> Vec<String> {
    let faults = Faults::stormy()
        .failed_registrations(0)
        .datagram_losses(200)
        .datagram_duplicates(100)
        .datagram_reorders(300);
    let latency = Duration::from_millis(1)..=Duration::from_secs(100);
    let mut sim = Sim::new(Options::default().seed(seed).faults(faults).latency(latency));
    let notes = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&notes);
    sim.block_on(async move {
        let server = bind().await;
        let to = server.local_addr();
        let echo = spawn_local(echo(server));
        let client = bind().await;
        for number in 0..40_u8 {
            client.send_to(&[number], to).await.unwrap();
        }
        while let Ok((bytes, from)) = timeout(Duration::from_secs(1000), recv(&client)).await {
            assert_eq!(from, to);
            log.borrow_mut().push(format!("{}", bytes[0]));
        }
        echo.abort();
    });
    notes.borrow_mut().push(format!("{:?}", sim.now()));
    notes.take()
}

#[test]
fn in_a_simulation_datagrams_get_lost_doubled_and_overtaken_and_a_seed_repeats_it() {
    let began = std::time::Instant::now();
    let mut seen = BTreeMap::new();
    for seed in seeds(20) {
        let first = transcript(seed);
        assert_eq!(first, transcript(seed), "seed {seed}");
        let came: Vec<u8> = first[..first.len() - 1].iter().map(|word| word.parse().unwrap()).collect();
        assert!(!came.is_sorted(), "none was overtaken");
        let distinct: std::collections::BTreeSet<u8> = came.iter().copied().collect();
        assert!(distinct.len() < 40, "none was lost");
        seen.insert(first, seed);
    }
    assert!(seen.len() > 1 || seen.len() == seeds(20).count(), "all seeds are alike");
    assert!(began.elapsed() < Duration::from_secs(60), "an hour and more of virtual time takes none");
}

#[test]
fn waits_that_are_given_up_at_random_lose_nothing_and_take_nothing_twice() {
    for seed in seeds(200) {
        let faults = Faults::stormy().failed_registrations(0).datagram_losses(0).datagram_duplicates(0);
        let mut sim = Sim::new(Options::default().seed(seed).faults(faults));
        sim.block_on(async move {
            let mut chance = Chance::new(seed);
            let (one, other) = (bind().await, bind().await);
            let to = other.local_addr();
            let sender = spawn_local(async move {
                let mut chance = Chance::new(seed ^ 7);
                for number in 0..100_u8 {
                    let bytes = [number];
                    loop {
                        let mut send = Box::pin(one.send_to(&bytes, to));
                        if is_ready(send.as_mut()).await {
                            break;
                        }
                        drop(send);
                        yield_now().await;
                    }
                    if chance.below(3) == 0 {
                        sleep(Duration::from_millis(chance.below(5) as u64)).await;
                    }
                }
                one
            });
            let mut came = Vec::new();
            let mut buffer = [0; 8];
            while came.len() < 100 {
                match chance.below(4) {
                    0 => {
                        let mut given_up = Box::pin(other.peek_from(&mut buffer));
                        let _ = is_ready(given_up.as_mut()).await;
                    }
                    1 => {
                        let received =
                            timeout(Duration::from_millis(chance.below(3) as u64), other.recv(&mut buffer));
                        if let Ok(received) = received.await {
                            assert_eq!(received.unwrap(), 1);
                            came.push(buffer[0]);
                        }
                    }
                    2 => {
                        let batch = timeout(Duration::from_millis(1), other.recv_batch()).await;
                        if let Ok(batch) = batch {
                            let mut batch = batch.unwrap();
                            for _ in 0..chance.below(4) {
                                came.extend(batch.next().map(|(_, bytes)| bytes[0]));
                            }
                        }
                    }
                    _ => came.push(recv(&other).await.0[0]),
                }
            }
            sender.await.unwrap();
            came.sort_unstable();
            assert_eq!(came, (0..100).collect::<Vec<u8>>());
            sleep(Duration::from_secs(1)).await;
            assert_eq!(other.try_recv(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
        });
    }
}

/// A server in callbacks.
struct Shout;

impl DatagramProtocol for Shout {
    fn received(&mut self, socket: &mut DatagramSocket<'_>, datagram: Datagram<'_>) {
        let shouted = datagram.bytes().to_ascii_uppercase();
        socket.send(datagram.path(), &shouted);
    }
}

#[test]
fn tasks_talk_to_sockets_of_callbacks_and_to_far_ends_of_the_test() {
    let mut sim = Sim::new(Options::default().workers(3));
    let udp = sim.bind_udp(|_worker| Shout);
    let to = sim.udp_addr(udp);
    let answer = sim.block_on(async move {
        let client = bind().await;
        client.send_to(b"hello", to).await.unwrap();
        recv(&client).await
    });
    assert_eq!(answer, (b"HELLO".to_vec(), to));

    let far: SocketAddr = "192.0.2.1:9".parse().unwrap();
    let own = Rc::new(Cell::new(None));
    let said = Rc::clone(&own);
    sim.block_on(async move {
        let socket = bind().await;
        said.set(Some(socket.local_addr()));
        let _detached = spawn_local(echo(socket));
    });
    let own = own.get().unwrap();
    sim.send_datagram_at(own, far, b"from afar");
    sim.settle();
    assert_eq!(sim.take_datagrams(far), [(own, b"from afar".to_vec())]);
}

#[test]
fn a_drain_waits_for_tasks_and_not_for_their_sockets_and_the_last_answer_leaves() {
    let mut sim = Sim::new(Options::default());
    let far: SocketAddr = "192.0.2.1:9".parse().unwrap();
    let kept = sim.block_on(async move {
        let kept = bind().await;
        let socket = bind().await;
        let _task = spawn_local(async move {
            stopping().await;
            sleep(Duration::from_secs(3)).await;
            socket.send_to(b"goodbye", far).await.unwrap();
        });
        kept
    });
    sim.begin_drain(Duration::from_secs(60));
    sim.advance(Duration::from_secs(2));
    assert!(!sim.is_finished(), "the task goes on");
    sim.advance(Duration::from_secs(2));
    assert!(sim.is_finished(), "a socket that nobody uses holds nothing up");
    assert_eq!(sim.take_datagrams(far).len(), 1);
    drop(kept);
}

#[test]
fn a_socket_that_outlives_its_worker_says_so() {
    let mut sim = Sim::new(Options::default());
    let socket = sim.block_on(bind());
    drop(sim);
    let to = socket.local_addr();
    assert_eq!(socket.try_send_to(b"x", to).unwrap_err().kind(), ErrorKind::NotConnected);
    assert_eq!(socket.try_recv(&mut [0; 4]).unwrap_err().kind(), ErrorKind::NotConnected);
    let waits = futures::executor::block_on(socket.recv(&mut [0; 4]));
    assert_eq!(waits.unwrap_err().kind(), ErrorKind::NotConnected);
}

#[test]
fn segments_are_sent_as_one_and_received_as_one_where_the_kernel_can() {
    Runtime::block_on(async {
        let (one, other) = (bind().await, bind().await);
        let bytes: Vec<u8> = (0..30_000).map(|byte| byte as u8).collect();
        one.send_segments(&bytes, 1200, other.local_addr()).await.unwrap();
        let (mut came, mut datagrams) = (Vec::new(), 0);
        while came.len() < bytes.len() {
            let mut batch = other.recv_batch().await.unwrap();
            while let Some(joined) = batch.next_joined(64) {
                assert!(joined.segment == 1200 || joined.datagrams == 1);
                datagrams += joined.datagrams;
                came.extend_from_slice(joined.bytes);
            }
        }
        assert_eq!((came == bytes, datagrams), (true, 25));
        let error = one.send_segments(b"x", 0, other.local_addr()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    })
    .unwrap();
}

#[test]
fn an_answer_leaves_from_the_address_that_was_asked() {
    Runtime::block_on(async {
        let server = UdpSocket::bind("0.0.0.0:0").await.unwrap();
        let asked = SocketAddr::from(([127, 0, 0, 2], server.local_addr().port()));
        let _task = spawn_local(echo(server));
        let client = bind().await;
        client.send_to(b"who are you?", asked).await.unwrap();
        assert_eq!(recv(&client).await.1, asked);
    })
    .unwrap();
}

#[test]
fn options_reach_the_socket_and_groups_are_joined_and_left() {
    Runtime::block_on(async {
        let group = Ipv4Addr::new(239, 255, 77, 88);
        let socket = UdpSocket::bind("0.0.0.0:0").await.unwrap();
        socket.set_ttl(7).await.unwrap();
        assert_eq!(socket.set_ttl(256).await.unwrap_err().kind(), ErrorKind::InvalidInput);
        socket.set_multicast_ttl(1).await.unwrap();
        socket.set_multicast_loop(true).await.unwrap();
        socket.join_multicast_v4(group, Ipv4Addr::LOCALHOST).await.unwrap();
        let twice = socket.join_multicast_v4(group, Ipv4Addr::LOCALHOST).await.unwrap_err();
        assert_eq!(twice.kind(), ErrorKind::AddrInUse);
        socket.leave_multicast_v4(group, Ipv4Addr::LOCALHOST).await.unwrap();
        let gone = socket.leave_multicast_v4(group, Ipv4Addr::LOCALHOST).await.unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::AddrNotAvailable);
        let not_one = socket.join_multicast_v4(Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST).await.unwrap_err();
        assert_eq!(not_one.kind(), ErrorKind::InvalidInput);
        // Without leave to broadcast the kernel refuses, and counts; with it the datagram leaves.
        socket.set_broadcast(true).await.unwrap();
        let to = SocketAddr::from(([127, 255, 255, 255], socket.local_addr().port()));
        socket.send_to(b"all of you", to).await.unwrap();
        assert_eq!(recv(&socket).await.0, b"all of you");
    })
    .unwrap();
    let mut sim = Sim::new(Options::default());
    let refused = sim.block_on(async { bind().await.set_broadcast(true).await.unwrap_err().kind() });
    assert_eq!(refused, ErrorKind::Unsupported);
}

#[test]
fn sockets_of_ipv6_have_their_own_options() {
    Runtime::block_on(async {
        // A machine may have none.
        let Ok(socket) = UdpSocket::bind("[::1]:0").await else { return };
        let group: Ipv6Addr = "ff02::4d58".parse().unwrap();
        socket.set_ttl(9).await.unwrap();
        socket.set_multicast_ttl(2).await.unwrap();
        socket.set_multicast_loop(false).await.unwrap();
        let joined = socket.join_multicast_v6(group, 1).await;
        if joined.is_ok() {
            socket.leave_multicast_v6(group, 1).await.unwrap();
        }
        let own = socket.local_addr();
        socket.send_to(b"six", own).await.unwrap();
        assert_eq!(recv(&socket).await, (b"six".to_vec(), own));
    })
    .unwrap();
}

#[test]
fn a_name_is_looked_up_where_it_is_bound() {
    let mut sim = Sim::new(Options::default());
    sim.set_name("here", ["127.0.0.1".parse().unwrap()]);
    let addr = sim.block_on(async { UdpSocket::bind("here:777").await.unwrap().local_addr() });
    assert_eq!(addr, "127.0.0.1:777".parse().unwrap());
    let error = sim.block_on(async { UdpSocket::bind("nowhere:1").await.unwrap_err().kind() });
    assert_eq!(error, ErrorKind::NotFound);
}

#[test]
fn workers_have_sockets_of_their_own_and_clean_up() -> io::Result<()> {
    let runtime = Runtime::builder().workers(Workers::Count(2)).start()?;
    let handle = runtime.handle().clone();
    let (first, second) = (
        handle.spawn_on(0, || async {
            let socket = bind().await;
            let addr = socket.local_addr();
            let _task = spawn_local(echo(socket));
            addr
        }),
        handle.spawn_on(1, bind_and_say),
    );
    let to = first.join().unwrap();
    second.join().unwrap();
    let asks = handle.spawn_on(1, move || async move {
        let client = bind().await;
        client.connect(to);
        client.send(b"across").await.unwrap();
        recv(&client).await
    });
    assert_eq!(asks.join().unwrap(), (b"across".to_vec(), to));
    let report = runtime.stop(Duration::ZERO)?;
    assert_eq!(report.stats.datagrams_dropped, 0);
    std::net::UdpSocket::bind(to).map(drop)
}

async fn bind_and_say() -> SocketAddr {
    bind().await.local_addr()
}

#[test]
fn a_loop_over_a_socket_that_is_never_empty_lets_others_have_their_turn() {
    run(async || {
        let (one, other) = (bind().await, bind().await);
        one.send_to(b"always here", other.local_addr()).await.unwrap();
        other.readable().await.unwrap();
        let is_over = Rc::new(Cell::new(false));
        let over = Rc::clone(&is_over);
        let task = spawn_local(async move { over.set(true) });
        let (mut reads, mut buffer) = (0, [0; 100]);
        while !is_over.get() && reads < 10_000 {
            other.peek_from(&mut buffer).await.unwrap();
            reads += 1;
        }
        assert!(reads <= 128, "others came behind {reads} reads");
        task.await.unwrap();
    });
}
