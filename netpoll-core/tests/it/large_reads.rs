//! Large pieces, which a task that waits for them takes out of the socket itself: all of them, once and in order, whatever it reads by, whatever
//! is dropped in between, and up to the end or the failure behind them.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::pin::pin;
use std::rc::Rc;
use std::sync::mpsc;
use std::task::Poll;
use std::time::Duration;

use netpoll_core::net::Stream;
use netpoll_core::sim::{Faults, Options, Sim};
use netpoll_core::task::yield_now;
use netpoll_core::time::sleep;
use netpoll_core::{Runtime, Workers};

use crate::chance::{Chance, Watchdog, seeds};

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

/// The byte at a place of what a peer sends.
fn byte(place: usize) -> u8 {
    (place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0]
}

fn piece(place: usize, bytes: usize) -> Vec<u8> {
    (place..place + bytes).map(byte).collect()
}

/// Reads to the end in all ways there are. How much that was, and what ended it.
async fn read_all(mut stream: Stream, mut chance: Chance) -> (usize, Option<ErrorKind>) {
    let (mut place, mut buffer) = (0, vec![0; 80 << 10]);
    // Some read by what they have, and seldom otherwise.
    let is_steady = chance.below(2) == 0;
    loop {
        let rooms = if is_steady && chance.below(16) > 0 { 3 } else { 6 };
        let room = [80 << 10, 64 << 10, 16 << 10, 4096, 100, 1][chance.below(rooms)];
        if chance.below(8) == 0 {
            stream.set_idle(true);
        }
        let way = if is_steady && chance.below(16) > 0 { 7 } else { chance.below(8) };
        let count = match way {
            0 => {
                // Polled once, and dropped unless it is ready.
                let mut reading = pin!(stream.read(&mut buffer[..room]));
                let polled = poll_fn(|cx| Poll::Ready(reading.as_mut().poll(cx))).await;
                match polled {
                    Poll::Ready(count) => count,
                    Poll::Pending => {
                        yield_now().await;
                        continue;
                    }
                }
            }
            1 => match stream.fill_buf().await {
                Ok(input) => {
                    let count = input.len().min(room);
                    buffer[..count].copy_from_slice(&input[..count]);
                    stream.consume(count);
                    Ok(count)
                }
                Err(error) => Err(error),
            },
            2 => {
                let room = room.min(5000);
                match stream.read_exact(&mut buffer[..room]).await {
                    Ok(()) => Ok(room),
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => continue,
                    Err(error) => Err(error),
                }
            }
            3 => {
                let seen = stream.peek(&mut buffer[..room]).await;
                if let Ok(count) = seen {
                    assert!((place..).zip(&buffer[..count]).all(|(place, seen)| byte(place) == *seen));
                    continue;
                }
                seen
            }
            4 => {
                sleep(Duration::from_micros(chance.below(500) as u64)).await;
                continue;
            }
            _ => stream.read(&mut buffer[..room]).await,
        };
        match count {
            Ok(0) => return (place, None),
            Ok(count) => {
                assert!((place..).zip(&buffer[..count]).all(|(place, read)| byte(place) == *read));
                place += count;
            }
            Err(error) => return (place, Some(error.kind())),
        }
    }
}

#[test]
fn large_pieces_are_read_whole_and_in_order_whatever_they_are_read_by() {
    for seed in seeds(300) {
        let mut chance = Chance::new(seed);
        let mut rare = || chance.below(200) as u16;
        let faults = Faults::default()
            .partial_receives(rare())
            .interrupted_receives(rare())
            .delays(rare())
            .short_waits(rare())
            .late_receives(rare());
        let mut sim = Sim::new(Options::default().seed(seed).faults(faults));
        let (read, readers) = (Rc::new(RefCell::new(None)), Rc::new(RefCell::new(Some(chance.fork()))));
        let outcome = Rc::clone(&read);
        let listener = sim.listen_tasks(move |stream, _peer| {
            let (outcome, chance) = (Rc::clone(&outcome), readers.take().expect("there is one"));
            async move {
                let all = read_all(stream, chance).await;
                outcome.replace(Some(all));
            }
        });
        let peer = sim.connect(listener);
        let mut sent = 0;
        for _ in 0..40 {
            let bytes = [1, 1000, 3000, 20_000, 100_000][chance.below(5)];
            sim.send(peer, &piece(sent, bytes));
            sent += bytes;
            match chance.below(3) {
                0 => sim.settle(),
                1 => sim.advance(Duration::from_micros(300)),
                _ => drop(sim.turn()),
            }
        }
        let resets = chance.below(4) == 0;
        if resets {
            sim.reset(peer);
        } else {
            sim.finish(peer);
        }
        sim.advance(SECOND);
        let (bytes, failure) = read.take().expect("it has ended");
        if resets {
            assert_eq!(failure, Some(ErrorKind::ConnectionReset));
        } else {
            assert_eq!((bytes, failure), (sent, None));
        }
        let _ = sim.turn();
        assert_eq!(sim.blocks_in_use(), 0, "an idle stream owns no block");
    }
}

#[test]
fn large_pieces_are_read_whole_from_real_sockets() {
    let _watchdog = Watchdog::new(Duration::from_secs(120), || "reading".into());
    let (outcomes, outcome) = mpsc::channel();
    let mut chance = Chance::new(7);
    let seeds = (0..8).map(|_| chance.fork()).collect::<Vec<_>>();
    let seeds = std::sync::Arc::new(std::sync::Mutex::new(seeds));
    let running = Runtime::builder()
        .workers(Workers::Count(1))
        .pin(false)
        .listen_tasks("127.0.0.1:0", move |stream, _peer| {
            let (outcomes, chance) = (outcomes.clone(), seeds.lock().unwrap().pop().expect("so many peers"));
            async move { outcomes.send(read_all(stream, chance).await).unwrap() }
        })
        .unwrap()
        .start()
        .unwrap();
    let addr = running.local_addrs()[0].as_socket_addr().unwrap();
    for round in 0..8 {
        let mut peer = TcpStream::connect(addr).unwrap();
        peer.set_nodelay(true).unwrap();
        let mut sent = 0;
        for _ in 0..60 {
            let bytes = [10, 3000, 20_000, 70_000][chance.below(4)];
            peer.write_all(&piece(sent, bytes)).unwrap();
            sent += bytes;
            if chance.below(3) == 0 {
                std::thread::yield_now();
            }
        }
        if round % 2 == 0 {
            peer.shutdown(Shutdown::Write).unwrap();
            assert_eq!(outcome.recv().unwrap(), (sent, None));
        } else {
            socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
            drop(peer);
            let (read, failure) = outcome.recv().unwrap();
            assert!(read <= sent);
            assert_eq!(failure, Some(ErrorKind::ConnectionReset));
        }
    }
    running.stop(SECOND).unwrap();
}

#[test]
fn a_large_piece_that_a_task_takes_itself_ends_idle_time_as_any_other() {
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen_tasks(|mut stream, _peer| async move {
        let mut request = vec![0; 64 << 10];
        loop {
            stream.set_idle(true);
            let Ok(count @ 1..) = stream.read(&mut request).await else { return };
            sleep(10 * SECOND).await;
            if stream.write_all(&request[..count]).await.is_err() {
                return;
            }
        }
    });
    let peer = sim.connect(listener);
    let request = piece(0, 10_000);
    for _ in 0..3 {
        sim.send(peer, &request);
        sim.advance(11 * SECOND);
        assert_eq!(sim.take_received(peer), request);
    }
    sim.begin_drain(HOUR);
    sim.advance(SECOND / 2);
    sim.send(peer, &request);
    sim.advance(9 * SECOND);
    assert!(!sim.is_finished(), "a request is under way");
    sim.advance(2 * SECOND);
    assert_eq!(sim.take_received(peer), request);
    sim.advance(4 * SECOND);
    assert!(sim.is_finished(), "it is idle again");
}
