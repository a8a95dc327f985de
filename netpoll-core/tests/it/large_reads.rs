//! Large pieces, which a task that waits for them takes out of the socket itself: all of them, once and in order, whatever it reads by, whatever
//! is dropped in between, and up to the end or the failure behind them.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::mpsc;
use std::task::{Context, Poll};
use std::time::Duration;

use netpoll_core::net::{OwnedReadHalf, OwnedWriteHalf, Stream};
use netpoll_core::sim::{Faults, Options, Sim};
use netpoll_core::task::{spawn_local, yield_now};
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

/// What a task has of one of its streams: whole or in halves, and how much of it was read.
struct Part {
    ends: Ends,
    place: usize,
}

enum Ends {
    Whole(Stream),
    Halves(OwnedReadHalf, OwnedWriteHalf),
}

impl Part {
    fn new(stream: Stream) -> Self {
        Self { ends: Ends::Whole(stream), place: 0 }
    }

    fn turned(self) -> Self {
        let ends = match self.ends {
            Ends::Whole(stream) => {
                let (reader, writer) = stream.into_split();
                Ends::Halves(reader, writer)
            }
            Ends::Halves(reader, writer) => Ends::Whole(reader.reunite(writer).expect("they are of one")),
        };
        Self { ends, ..self }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        match &mut self.ends {
            Ends::Whole(stream) => stream.poll_read(cx, into),
            Ends::Halves(reader, _) => reader.poll_read(cx, into),
        }
    }

    async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.ends {
            Ends::Whole(stream) => stream.write_all(bytes).await,
            Ends::Halves(_, writer) => writer.write_all(bytes).await,
        }
    }
}

/// Sends back what comes on several streams, in pieces of all sizes, and goes on in other tasks now and then.
fn send_back(mut parts: Vec<Part>, mut chance: Chance) -> Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(async move {
        let mut buffer = vec![0; 80 << 10];
        while !parts.is_empty() {
            if chance.below(3) == 0 {
                parts = parts.into_iter().map(Part::turned).collect();
            }
            let room = [80 << 10, 64 << 10, 16 << 10, 20_000, 4096, 100][chance.below(6)];
            let first = chance.below(parts.len());
            let (which, count) = poll_fn(|cx| {
                for offset in 0..parts.len() {
                    let which = (first + offset) % parts.len();
                    if let Poll::Ready(count) = parts[which].poll_read(cx, &mut buffer[..room]) {
                        return Poll::Ready((which, count));
                    }
                }
                Poll::Pending
            })
            .await;
            let Ok(count @ 1..) = count else {
                parts.swap_remove(which);
                continue;
            };
            let part = &mut parts[which];
            let mut rest = &buffer[..count];
            assert!((part.place..).zip(rest).all(|(place, read)| byte(place) == *read));
            part.place += count;
            while !rest.is_empty() {
                let bytes = [1 + chance.below(100), 5000, 20_000, 100_000][chance.below(4)].min(rest.len());
                part.write_all(&rest[..bytes]).await.expect("the peer reads all");
                rest = &rest[bytes..];
            }
            match chance.below(12) {
                0 => yield_now().await,
                1 => sleep(Duration::from_micros(chance.below(400) as u64)).await,
                // In the middle of a poll that may take input itself.
                2 => spawn_local(send_back(std::mem::take(&mut parts), chance.fork())).detach(),
                3 => {
                    let one = parts.swap_remove(which);
                    spawn_local(send_back(vec![one], chance.fork())).detach();
                }
                _ => {}
            }
        }
    })
}

#[test]
fn large_pieces_go_back_in_order_whoever_reads_several_streams_and_in_whatever_task() {
    for seed in seeds(100) {
        let mut chance = Chance::new(seed);
        let mut rare = || chance.below(2) as u16 * chance.below(200) as u16;
        let faults = Faults::default()
            .partial_receives(rare())
            .partial_sends(rare())
            .interrupted_receives(rare())
            .delays(rare())
            .late_receives(rare());
        let mut sim = Sim::new(Options::default().seed(seed).faults(faults));
        let many = 1 + chance.below(4);
        let (here, seeds) = (Rc::<RefCell<Vec<Part>>>::default(), Rc::new(RefCell::new(chance.fork())));
        let listener = sim.listen_tasks(move |stream, _peer| {
            here.borrow_mut().push(Part::new(stream));
            let parts = if here.borrow().len() == many { here.take() } else { Vec::new() };
            send_back(parts, seeds.borrow_mut().fork())
        });
        let peers: Vec<_> = (0..many).map(|_| sim.connect(listener)).collect();
        sim.settle();
        let (mut sent, mut back) = (vec![0; many], vec![Vec::new(); many]);
        for _ in 0..40 {
            let which = chance.below(many);
            let bytes = [1, 1000, 3000, 20_000, 100_000][chance.below(5)];
            sim.send(peers[which], &piece(sent[which], bytes));
            sent[which] += bytes;
            let held = peers[chance.below(many)];
            if chance.below(4) == 0 {
                sim.stop_reading(held)
            } else {
                sim.start_reading(held)
            }
            match chance.below(4) {
                0 => sim.settle(),
                1 => sim.advance(Duration::from_micros(300)),
                _ => drop(sim.turn()),
            }
        }
        for (peer, back) in peers.iter().zip(&mut back) {
            sim.start_reading(*peer);
            sim.finish(*peer);
            sim.advance(SECOND);
            sim.drain_received(*peer, back);
        }
        for (sent, back) in sent.iter().zip(&back) {
            assert!(*back == piece(0, *sent), "{} of {sent}", back.len());
        }
        let _ = sim.turn();
        assert_eq!((sim.stats().open(), sim.blocks_in_use()), (0, 0));
    }
}

#[test]
fn what_a_poll_for_one_stream_writes_to_another_leaves_in_front_of_what_that_ones_own_poll_writes() {
    let (both, written) = (Rc::<RefCell<Vec<Stream>>>::default(), Rc::<RefCell<Vec<u8>>>::default());
    let mut sim = Sim::new(Options::default());
    let log = Rc::clone(&written);
    let listener = sim.listen_tasks(move |stream, _peer| {
        both.borrow_mut().push(stream);
        let mut both = if both.borrow().len() == 2 { both.take() } else { Vec::new() };
        let log = Rc::clone(&log);
        async move {
            let mut buffer = vec![0; 64 << 10];
            while !both.is_empty() {
                let (which, count) = poll_fn(|cx| {
                    let mut polled = both.iter_mut().map(|stream| stream.poll_read(cx, &mut buffer));
                    match (polled.next().expect("there are two"), polled.next().expect("there are two")) {
                        (Poll::Ready(count), _) => Poll::Ready((0, count.unwrap())),
                        (_, Poll::Ready(count)) => Poll::Ready((1, count.unwrap())),
                        _ => Poll::Pending,
                    }
                })
                .await;
                if count == 0 {
                    return;
                }
                log.borrow_mut().push(which);
                both[1].write_all(&[which]).await.unwrap();
            }
        }
    });
    let peers = [sim.connect(listener), sim.connect(listener)];
    sim.settle();
    for round in 0..50 {
        for peer in peers {
            sim.send(peer, &piece(0, 3000 + round));
        }
        sim.settle();
    }
    assert_eq!(sim.take_received(peers[1]), *written.borrow());
    assert!(written.borrow().len() >= 100);
}
