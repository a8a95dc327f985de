//! Streams and listeners of tasks.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, TcpListener as StdListener, TcpStream as StdStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use netpoll_core::net::{Listener, Stream, connect_with, copy_bidirectional, lookup};
use netpoll_core::sim::{Answer, Faults, Options, PeerId, Sim};
use netpoll_core::sync::shared;
use netpoll_core::task::{spawn_local, stopping, yield_now};
use netpoll_core::time::{sleep, timeout};
use netpoll_core::{
    Bytes, Conn, ConnLimits, ConnectOptions, Flow, Input, Protocol, Runtime, Target, Workers,
};

use crate::chance::{Chance, seeds};

const SECOND: Duration = Duration::from_secs(1);

/// What happens to a connection, but for its end.
fn faults() -> Faults {
    Faults::default()
        .partial_receives(300)
        .partial_sends(300)
        .interrupted_receives(200)
        .delays(200)
        .short_waits(200)
        .spurious_sent(200)
        .late_receives(300)
}

/// A world with one peer whose stream a task has.
fn with_stream<F, T>(options: Options, serve: F) -> (Sim, PeerId)
where
    F: Fn(Stream) -> T + Clone + 'static,
    T: Future<Output = ()> + 'static,
{
    let mut sim = Sim::new(options);
    let listener = sim.listen_tasks(move |stream, _peer| serve(stream));
    let peer = sim.connect(listener);
    sim.run();
    (sim, peer)
}

/// What a task has noted.
type Notes = Rc<RefCell<Vec<String>>>;

fn note(notes: &Notes, what: impl std::fmt::Display) {
    notes.borrow_mut().push(what.to_string());
}

fn noise(length: usize) -> Vec<u8> {
    let mut chance = Chance::new(length as u64);
    (0..length).map(|_| chance.below(256) as u8).collect()
}

async fn echo(mut stream: Stream) {
    let mut buffer = [0; 1000];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

async fn echo_in_place(mut stream: Stream) {
    let (mut reader, mut writer) = stream.split();
    while let Ok(input @ [_, ..]) = reader.fill_buf().await {
        let count = input.len();
        if writer.write_all(input).await.is_err() {
            return;
        }
        reader.consume(count);
    }
}

#[test]
fn what_arrives_is_read_and_what_is_written_leaves_in_order_whatever_the_network_does() {
    for seed in seeds(100) {
        let mut chance = Chance::new(seed);
        let faults = if chance.below(2) == 0 { faults() } else { Faults::default() };
        let mut sim = Sim::new(Options::default().seed(seed).faults(faults).workers(1 + chance.below(3)));
        let listeners = [
            sim.listen_tasks(|stream, _peer| echo(stream)),
            sim.listen_tasks(|stream, _peer| echo_in_place(stream)),
        ];
        let peers: Vec<_> = (0..8).map(|index| sim.connect(listeners[index % 2])).collect();
        let said = noise(1 + chance.below(300_000));
        let mut left = vec![&said[..]; peers.len()];
        while left.iter().any(|left| !left.is_empty()) {
            let who = chance.below(peers.len());
            let (now, later) = left[who].split_at(left[who].len().min(1 + chance.below(40_000)));
            sim.send(peers[who], now);
            left[who] = later;
            if chance.below(3) == 0 {
                sim.run();
            }
        }
        peers.iter().for_each(|peer| sim.finish(*peer));
        sim.settle();
        for peer in peers {
            assert!(sim.take_received(peer) == said && sim.is_closed(peer), "seed {seed}");
        }
        sim.advance(5 * SECOND);
        assert_eq!((sim.open(), sim.blocks_in_use(), sim.stats().panics), (0, 0, 0), "seed {seed}");
    }
}

#[test]
fn a_stream_that_waits_owns_no_buffer() {
    for in_place in [true, false] {
        let (mut sim, peer) = with_stream(Options::default(), move |stream| async move {
            if in_place { echo_in_place(stream).await } else { echo(stream).await }
        });
        assert_eq!(sim.blocks_in_use(), 0);
        sim.send(peer, &noise(100_000));
        sim.settle();
        assert_eq!((sim.take_received(peer).len(), sim.blocks_in_use()), (100_000, 0));
    }
}

#[test]
fn small_writes_in_a_row_are_one_system_call() {
    let (mut sim, peer) = with_stream(Options::default(), |mut stream| async move {
        while let Ok(1..) = stream.read(&mut [0; 10]).await {
            for piece in ["a", "b", "c"] {
                stream.write_all(piece.as_bytes()).await.unwrap();
            }
        }
    });
    sim.send(peer, b"go");
    sim.settle();
    assert_eq!(sim.take_received(peer), b"abc");
    assert_eq!(sim.stats().syscalls_send, 1);
}

/// Polls a future once and drops it. True if it was ready.
async fn try_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        Poll::Ready(match future.as_mut().poll(cx) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        })
    })
    .await
}

#[test]
fn a_read_that_was_given_up_at_any_await_has_read_nothing() {
    for seed in seeds(200) {
        let heard = Rc::new(RefCell::new(Vec::new()));
        let notes = Rc::clone(&heard);
        let (mut sim, peer) = with_stream(Options::default().seed(seed), move |mut stream| {
            let notes = Rc::clone(&notes);
            async move {
                let mut chance = Chance::new(seed);
                loop {
                    let mut buffer = vec![0; 1 + chance.below(3000)];
                    let read: usize = match chance.below(4) {
                        0 => {
                            let read =
                                timeout(Duration::from_millis(1), stream.read_exact(&mut buffer)).await;
                            match read {
                                Ok(Ok(())) => buffer.len(),
                                Ok(Err(error)) => {
                                    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
                                    let left = stream.read(&mut buffer).await.unwrap();
                                    if left == 0 {
                                        return;
                                    }
                                    left
                                }
                                Err(_elapsed) => 0,
                            }
                        }
                        1 => match try_once(stream.read(&mut buffer)).await {
                            Some(Ok(0)) => return,
                            Some(count) => count.unwrap(),
                            None => 0,
                        },
                        2 => match try_once(stream.peek(&mut buffer)).await {
                            Some(Ok(0)) => return,
                            _ => 0,
                        },
                        _ => {
                            let wanted = chance.below(5000);
                            match timeout(Duration::from_millis(1), stream.fill_buf()).await {
                                Ok(Ok([])) => return,
                                Ok(input) => {
                                    let input = input.unwrap();
                                    let count = input.len().min(wanted);
                                    buffer = input[..count].to_vec();
                                    stream.consume(count);
                                    count
                                }
                                Err(_elapsed) => 0,
                            }
                        }
                    };
                    notes.borrow_mut().extend_from_slice(&buffer[..read]);
                    if read == 0 {
                        yield_now().await;
                    }
                }
            }
        });
        let (mut chance, said) = (Chance::new(seed + 1000), noise(40_000));
        let mut left = &said[..];
        while !left.is_empty() {
            let (now, later) = left.split_at(left.len().min(1 + chance.below(4000)));
            sim.send(peer, now);
            left = later;
            sim.advance(Duration::from_micros(chance.below(3000) as u64));
        }
        sim.finish(peer);
        sim.advance(SECOND);
        assert!(*heard.borrow() == said, "seed {seed}: {} of {}", heard.borrow().len(), said.len());
        assert!(sim.is_closed(peer), "seed {seed}");
    }
}

#[test]
fn a_write_that_was_given_up_at_any_await_has_written_nothing() {
    for seed in seeds(100) {
        let said = Rc::new(RefCell::new(Vec::new()));
        let notes = Rc::clone(&said);
        let limits = ConnLimits::default().write_high_bytes(10_000).write_low_bytes(5000);
        let options = Options::default().seed(seed).limits(limits).window(3000);
        let (mut sim, peer) = with_stream(options, move |mut stream| {
            let notes = Rc::clone(&notes);
            async move {
                let mut chance = Chance::new(seed);
                for _ in 0..100 {
                    let bytes = noise(1 + chance.below(30_000));
                    let wait = Duration::from_millis(1);
                    let written = match chance.below(5) {
                        0 => timeout(wait, stream.write_all(&bytes))
                            .await
                            .map(|done| done.map(|()| bytes.len())),
                        1 => {
                            let shared = Bytes::from(bytes.clone());
                            timeout(wait, stream.send(shared)).await.map(|done| done.map(|()| bytes.len()))
                        }
                        2 => timeout(wait, stream.write(&bytes)).await,
                        3 => {
                            let (one, other) = bytes.split_at(bytes.len() / 2);
                            let slices = [std::io::IoSlice::new(one), std::io::IoSlice::new(other)];
                            timeout(wait, stream.write_vectored(&slices)).await
                        }
                        _ => Ok(try_once(stream.write_all(&bytes))
                            .await
                            .map_or(Ok(0), |done| done.map(|()| bytes.len()))),
                    };
                    let count = written.map_or(0, |written| written.unwrap());
                    notes.borrow_mut().extend_from_slice(&bytes[..count]);
                }
            }
        });
        let (mut chance, mut heard) = (Chance::new(seed + 1000), Vec::new());
        for _ in 0..2000 {
            match chance.below(3) {
                0 => sim.stop_reading(peer),
                1 => sim.start_reading(peer),
                _ => sim.advance(Duration::from_micros(chance.below(3000) as u64)),
            }
            sim.drain_received(peer, &mut heard);
            if sim.is_closed(peer) {
                break;
            }
        }
        sim.start_reading(peer);
        sim.advance(5 * SECOND);
        sim.drain_received(peer, &mut heard);
        assert!(*said.borrow() == heard, "seed {seed}: {} of {}", heard.len(), said.borrow().len());
        assert!(sim.is_closed(peer) && !sim.is_reset(peer), "seed {seed}");
    }
}

/// Writes of every kind and of lengths around the limits between them, in the poll that has read what asks for them.
#[test]
fn pieces_written_in_one_poll_leave_in_the_order_in_which_they_were_written() {
    for seed in seeds(200) {
        let (mut sim, peer) =
            with_stream(Options::default().seed(seed).faults(faults()), move |mut stream| async move {
                let mut chance = Chance::new(seed);
                while stream.read(&mut [0]).await.unwrap() > 0 {
                    let said = noise(seed as usize + 30_000);
                    let mut left = &said[..];
                    while !left.is_empty() {
                        let most = [3, 100, 2500, 5000, 18_000][chance.below(5)];
                        let piece = &left[..(1 + chance.below(most)).min(left.len())];
                        let (one, other) = piece.split_at(chance.below(piece.len()));
                        let slices = [one, other, b""].map(std::io::IoSlice::new);
                        match chance.below(3) {
                            0 => stream.write_all(piece).await.unwrap(),
                            1 => assert_eq!(stream.write_vectored(&slices).await.unwrap(), piece.len()),
                            _ => stream.send(Bytes::copy_from_slice(piece)).await.unwrap(),
                        }
                        left = &left[piece.len()..];
                    }
                }
            });
        for _ in 0..5 {
            sim.send(peer, b"?");
            sim.settle();
            assert!(sim.take_received(peer) == noise(seed as usize + 30_000), "seed {seed}");
        }
    }
}

#[test]
fn a_read_of_just_so_much_waits_for_all_of_it_even_above_what_a_stream_holds_else() {
    let notes = Notes::default();
    let log = Rc::clone(&notes);
    let (mut sim, peer) = with_stream(Options::default(), move |mut stream| {
        let log = Rc::clone(&log);
        async move {
            let mut wanted = vec![0; 300_000];
            stream.read_exact(&mut wanted[..10]).await.unwrap();
            stream.read_exact(&mut wanted).await.unwrap();
            note(&log, wanted == noise(300_000));
            let error = stream.read_exact(&mut wanted).await.unwrap_err();
            let mut rest = Vec::new();
            let count = stream.read_to_end(&mut rest, 10).await.unwrap();
            note(&log, format!("{:?}, {count}: {rest:?}", error.kind()));
        }
    });
    sim.send(peer, &[7; 10]);
    for piece in noise(300_000).chunks(7000) {
        sim.send(peer, piece);
        sim.run();
    }
    sim.send(peer, b"abc");
    sim.finish(peer);
    sim.settle();
    assert_eq!(notes.borrow()[..], ["true", "UnexpectedEof, 3: [97, 98, 99]"]);
    assert_eq!(sim.blocks_in_use(), 0);
}

#[test]
fn who_does_not_read_holds_its_peer_back() {
    let gate = Rc::new(Cell::new(false));
    let open = Rc::clone(&gate);
    let (mut sim, peer) = with_stream(Options::default(), move |stream| {
        let open = Rc::clone(&open);
        async move {
            while !open.get() {
                sleep(SECOND).await;
            }
            echo_in_place(stream).await;
        }
    });
    let said = noise(2 << 20);
    for piece in said.chunks(10_000) {
        sim.send(peer, piece);
        sim.run();
    }
    assert!(sim.stats().received_bytes < 200_000, "{} bytes", sim.stats().received_bytes);
    gate.set(true);
    sim.advance(2 * SECOND);
    assert!(sim.take_received(peer) == said);
}

#[test]
fn two_that_say_megabytes_before_they_read_hear_each_other() {
    let mut sim = Sim::new(Options::default());
    let heard = Rc::new(RefCell::new(Vec::new()));
    let count = Rc::clone(&heard);
    let listener = sim.listen_tasks(move |stream, _peer| {
        let count = Rc::clone(&count);
        async move {
            let (mut reader, mut writer) = stream.into_split();
            let says = spawn_local(async move {
                let block = noise(100_000);
                for _ in 0..40 {
                    writer.write_all(&block).await.unwrap();
                }
            });
            let mut all = Vec::new();
            reader.read_to_end(&mut all, usize::MAX).await.unwrap();
            count.borrow_mut().push(all.len());
            says.await.unwrap();
        }
    });
    let peer = sim.connect(listener);
    sim.stop_reading(peer);
    for _ in 0..40 {
        sim.send(peer, &noise(100_000));
        sim.run();
    }
    sim.finish(peer);
    sim.advance(SECOND);
    assert_eq!(heard.borrow()[..], [4_000_000], "it is read while it is not read from");
    sim.start_reading(peer);
    sim.settle();
    assert_eq!(sim.take_received(peer).len(), 4_000_000);
}

#[test]
fn a_stream_that_is_dropped_sends_what_was_written_and_then_ends() {
    let (mut sim, peer) = with_stream(Options::default().window(1000), |mut stream| async move {
        stream.write_all(&noise(200_000)).await.unwrap();
    });
    // What it sends meanwhile is not answered with a reset.
    sim.send(peer, b"are you there?");
    sim.settle();
    assert!(sim.take_received(peer) == noise(200_000));
    assert_eq!((sim.is_closed(peer), sim.is_reset(peer)), (true, false));
    sim.advance(10 * SECOND);
    assert_eq!((sim.open(), sim.blocks_in_use()), (0, 0));
}

#[test]
fn a_task_that_panics_or_resets_does_not_end_its_stream_politely() {
    let (mut sim, peer) = with_stream(Options::default(), |mut stream| async move {
        stream.read(&mut [0; 1]).await.unwrap();
        stream.write_all(b"half an ans").await.unwrap();
        panic!("in the middle of it");
    });
    sim.send(peer, b"?");
    sim.settle();
    assert!(sim.is_reset(peer));
    assert_eq!((sim.stats().panics, sim.open()), (1, 0));

    let (mut sim, peer) = with_stream(Options::default(), |stream| async move { stream.reset() });
    sim.settle();
    assert!(sim.is_reset(peer) && sim.open() == 0);
}

#[test]
fn each_direction_ends_alone() {
    let notes = Notes::default();
    let log = Rc::clone(&notes);
    let (mut sim, peer) = with_stream(Options::default(), move |mut stream| {
        let log = Rc::clone(&log);
        async move {
            stream.write_all(b"said").await.unwrap();
            stream.shutdown();
            stream.shutdown();
            let error = stream.write_all(b"more").await.unwrap_err();
            note(&log, format!("{:?}", error.kind()));
            let mut all = Vec::new();
            stream.read_to_end(&mut all, 100).await.unwrap();
            note(&log, String::from_utf8(all).unwrap());
        }
    });
    sim.settle();
    assert_eq!((sim.take_received(peer), sim.is_closed(peer)), (b"said".to_vec(), true));
    sim.send(peer, b"heard");
    sim.settle();
    sim.finish(peer);
    sim.settle();
    assert_eq!(notes.borrow()[..], ["BrokenPipe", "heard"]);
    assert_eq!(sim.open(), 0);
}

#[test]
fn the_peers_end_is_no_end_of_ours() {
    let (mut sim, peer) = with_stream(Options::default(), |mut stream| async move {
        let mut all = Vec::new();
        stream.read_to_end(&mut all, 100).await.unwrap();
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0, "again");
        sleep(SECOND).await;
        stream.write_all(&all).await.unwrap();
    });
    sim.send(peer, b"late answer");
    sim.finish(peer);
    sim.settle();
    assert_eq!(sim.take_received(peer), b"");
    sim.advance(SECOND);
    assert_eq!(sim.take_received(peer), b"late answer");
    assert!(sim.is_closed(peer) && !sim.is_reset(peer));
}

#[test]
fn halves_that_are_owned_end_their_direction_when_they_are_dropped() {
    let notes = Notes::default();
    let log = Rc::clone(&notes);
    let (mut sim, peer) = with_stream(Options::default(), move |stream| {
        let log = Rc::clone(&log);
        async move {
            let (mut reader, mut writer) = stream.into_split();
            writer.write_all(b"bye").await.unwrap();
            drop(writer);
            let mut buffer = [0; 10];
            let count = reader.read(&mut buffer).await.unwrap();
            note(&log, String::from_utf8_lossy(&buffer[..count]));
        }
    });
    sim.settle();
    assert_eq!((sim.take_received(peer), sim.is_closed(peer), sim.open()), (b"bye".to_vec(), true, 1));
    sim.send(peer, b"still");
    sim.settle();
    assert_eq!(notes.borrow()[..], ["still"]);
    sim.finish(peer);
    sim.settle();
    assert_eq!(sim.open(), 0);

    // The reading one: the peer is held back, and hears on.
    let (mut sim, peer) = with_stream(Options::default(), |stream| async move {
        let (reader, mut writer) = stream.into_split();
        drop(reader);
        for _ in 0..10 {
            sleep(SECOND).await;
            writer.write_all(b"tick").await.unwrap();
        }
    });
    for _ in 0..20 {
        sim.send(peer, &noise(50_000));
        sim.run();
    }
    sim.advance(9 * SECOND);
    assert!(sim.stats().received_bytes < 200_000, "{} bytes", sim.stats().received_bytes);
    assert_eq!(sim.take_received(peer), b"tick".repeat(9));

    // Together again.
    let (mut sim, peer) = with_stream(Options::default(), |stream| async move {
        let (reader, writer) = stream.into_split();
        let (_one, other) = Stream::pair().map_or((None, None), |(one, other)| (Some(one), Some(other)));
        assert!(other.is_none(), "there are no sockets in a simulation");
        echo(reader.reunite(writer).unwrap()).await;
    });
    sim.send(peer, b"one");
    sim.settle();
    assert_eq!(sim.take_received(peer), b"one");
}

#[test]
fn what_arrived_before_a_reset_is_read_before_its_error() {
    let notes = Notes::default();
    let log = Rc::clone(&notes);
    let (mut sim, peer) = with_stream(Options::default(), move |mut stream| {
        let log = Rc::clone(&log);
        async move {
            sleep(SECOND).await;
            let mut buffer = [0; 10];
            for _ in 0..3 {
                let read = stream.read(&mut buffer).await;
                note(&log, format!("{:?}", read.map_err(|error| error.kind())));
            }
            let written = stream.write_all(b"?").await;
            note(&log, format!("{:?}", written.map_err(|error| error.kind())));
        }
    });
    sim.send(peer, b"last words");
    sim.run();
    sim.reset(peer);
    sim.advance(2 * SECOND);
    let reset = "Err(ConnectionReset)";
    assert_eq!(notes.borrow()[..], ["Ok(10)", reset, reset, reset]);
}

#[test]
fn a_stream_works_where_no_worker_is_lent() {
    // Another protocol that has a stream and uses it in its callbacks; and a task of another worker.
    struct Uses(Rc<RefCell<Option<Stream>>>);
    impl Protocol for Uses {
        fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
            if let Some(stream) = &mut *self.0.borrow_mut() {
                let mut cx = Context::from_waker(Waker::noop());
                let mut buffer = [0; 100];
                while let Poll::Ready(Ok(count @ 1..)) = stream.poll_read(&mut cx, &mut buffer) {
                    assert!(stream.poll_write(&mut cx, &buffer[..count]).is_ready());
                }
                assert!(stream.poll_write(&mut cx, input.bytes()).is_ready());
                assert_eq!(stream.peer_addr().unwrap_err().kind(), ErrorKind::Unsupported);
            }
            input.advance_all();
            Flow::Continue
        }
    }
    let place = Rc::new(RefCell::new(None));
    let mut sim = Sim::new(Options::default().workers(2));
    let put = Rc::clone(&place);
    let streams = sim.listen_tasks(move |stream, _peer| {
        put.borrow_mut().replace(stream);
        async {}
    });
    let uses = Rc::clone(&place);
    let users = sim.listen(move |_peer| Uses(Rc::clone(&uses)));
    let (stream, user) = (sim.connect_to(streams, 0), sim.connect_to(users, 1));
    sim.settle();
    sim.send(stream, b"first,");
    sim.settle();
    sim.send(user, b"second,");
    sim.settle();
    assert_eq!(sim.take_received(stream), b"first,second,");
    let taken = place.borrow_mut().take();
    let task = sim.handle().spawn_on(1, || async {});
    drop(task);
    let holder = Rc::new(RefCell::new(taken));
    let moved = Rc::clone(&holder);
    // A destructor outside of every turn.
    drop(moved.borrow_mut().take());
    sim.settle();
    assert!(sim.is_closed(stream));
    sim.finish(stream);
    sim.finish(user);
    sim.settle();
    assert_eq!((sim.open(), sim.blocks_in_use(), sim.stats().panics), (0, 0, 0));
}

#[test]
fn others_send_to_a_stream_behind_what_it_has_written() {
    let mut sim = Sim::new(Options::default());
    let id = Rc::new(Cell::new(None));
    let (says, said) = shared::mpsc::channel(8);
    let receiver = Rc::new(RefCell::new(Some(said)));
    let place = Rc::clone(&id);
    let listener = sim.listen_tasks(move |mut stream, _peer| {
        let (place, mut said) = (Rc::clone(&place), receiver.borrow_mut().take().unwrap());
        async move {
            place.set(stream.id());
            while let Some(count) = said.recv().await {
                stream.write_all(&vec![b'3'; count]).await.unwrap();
            }
            sleep(SECOND).await;
        }
    });
    let peer = sim.connect(listener);
    says.try_send(1).unwrap();
    sim.settle();
    let name = id.get().unwrap();
    // Both in the mail of one turn: what is written is so much that it would leave at once.
    sim.handle().send(name, Bytes::from_static(b"2"));
    says.try_send(5000).unwrap();
    sim.settle();
    let heard = sim.take_received(peer);
    assert!(heard.starts_with(b"323") && heard.len() == 5002, "{:?}", &heard[..3]);
    sim.handle().close(name);
    sim.settle();
    assert!(sim.is_closed(peer) && !sim.is_reset(peer));
}

#[test]
fn a_drain_is_heard_by_tasks_and_cuts_their_streams_at_its_end() {
    for polite in [true, false] {
        let (mut sim, peer) = with_stream(Options::default(), move |mut stream| async move {
            if polite {
                stopping().await;
                stream.write_all(b"bye").await.unwrap();
            } else {
                let _ = stream.read(&mut [0; 1]).await;
            }
        });
        sim.begin_drain(10 * SECOND);
        sim.settle();
        assert_eq!(sim.is_closed(peer), polite);
        assert_eq!(sim.take_received(peer), if polite { b"bye".to_vec() } else { Vec::new() });
        sim.finish(peer);
        sim.advance(11 * SECOND);
        assert!(sim.is_finished(), "polite: {polite}");
    }
}

/// Connects in a task of a world, and tells when and how it went.
fn dials(sim: &mut Sim, to: impl Into<Target> + 'static, options: ConnectOptions) -> String {
    let began = sim.now();
    let outcome = sim.block_on(async move {
        let mut stream = connect_with(to, &options).await?;
        stream.write_all(b"hello").await?;
        stream.peer_addr()
    });
    let took = sim.now().duration_since(began).as_millis();
    match outcome {
        Ok(addr) => format!("{addr} after {took} ms"),
        Err(error) => format!("{:?} after {took} ms", error.kind()),
    }
}

fn ip(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
}

#[test]
fn of_several_addresses_the_first_that_answers_is_taken_and_none_waits_long_for_another() {
    let mut sim = Sim::new(Options::default());
    sim.set_name("all", [ip(1), ip(2), ip(3)]);
    sim.set_name("dead", [ip(1), ip(1)]);
    sim.set_name("refused", [ip(4), ip(4)]);
    sim.answer_connections_to((ip(1), 80), Answer::Ignore);
    sim.answer_connections_to((ip(4), 80), Answer::Refuse);
    let options = ConnectOptions::default();
    assert_eq!(dials(&mut sim, ("all", 80), options), "10.0.0.2:80 after 250 ms");
    assert_eq!(dials(&mut sim, ("dead", 80), options), "TimedOut after 10000 ms");
    assert_eq!(dials(&mut sim, ("refused", 80), options), "ConnectionRefused after 0 ms");
    assert_eq!(dials(&mut sim, ("unknown", 80), options), "NotFound after 0 ms");
    assert_eq!(dials(&mut sim, (ip(4), 80), options), "ConnectionRefused after 0 ms");
    let short = options.timeout(Duration::from_millis(100));
    assert_eq!(dials(&mut sim, ("all", 80), short), "TimedOut after 100 ms");
    assert_eq!(dials(&mut sim, (ip(1), 80), short), "TimedOut after 100 ms");
    assert_eq!(dials(&mut sim, "no port", short), "InvalidInput after 0 ms");
    assert_eq!(dials(&mut sim, (ip(1), 80), options.timeout(Duration::ZERO)), "InvalidInput after 0 ms");
    let v6: IpAddr = "fe80::1".parse().unwrap();
    sim.set_name("both", [ip(1), ip(1), ip(1), v6]);
    assert_eq!(dials(&mut sim, ("both", 80), options), "[fe80::1]:80 after 250 ms", "families take turns");
    sim.settle();
    sim.advance(20 * SECOND);
    let heard: Vec<_> = sim.take_dialed().into_iter().map(|(peer, _)| sim.take_received(peer)).collect();
    assert_eq!(heard.iter().filter(|heard| *heard == b"hello").count(), 2, "nobody else was spoken to");
    assert_eq!((sim.open(), sim.blocks_in_use()), (0, 0));
}

#[test]
fn a_connect_that_was_given_up_leaves_nothing_behind() {
    let mut sim = Sim::new(Options::default());
    sim.set_name("slow", [ip(1), ip(2)]);
    sim.answer_connections_to((ip(1), 80), Answer::Ignore);
    sim.answer_connections_to((ip(2), 80), Answer::Ignore);
    sim.block_on(async {
        for millis in [0, 1, 300] {
            let dialed = timeout(Duration::from_millis(millis), Stream::connect(("slow", 80))).await;
            assert!(dialed.is_err());
            assert!(try_once(Stream::connect((ip(1), 80))).await.is_none());
            assert!(try_once(lookup(("slow", 80))).await.is_none());
        }
        assert_eq!(lookup(("slow", 80)).await.unwrap().len(), 2);
    });
    sim.run();
    assert_eq!(sim.open(), 0);
}

/// Runs a future on a worker of its own, with real sockets.
fn run<T: 'static>(future: impl Future<Output = T> + 'static) -> T {
    Runtime::block_on(future).unwrap()
}

#[test]
fn a_listener_and_a_client_talk_over_tcp_and_the_unix_domain() {
    let path = std::env::temp_dir().join(format!("core-net-{}.sock", std::process::id()));
    for target in [Target::from("127.0.0.1:0"), Target::from(&path)] {
        run(async move {
            let mut listener = Listener::bind(target).await.unwrap();
            let addr = listener.local_addr().clone();
            let server = spawn_local(async move {
                let (stream, peer) = listener.accept().await.unwrap();
                assert!(peer.addr == stream.peer_addr().unwrap() || peer.addr.is_unix());
                echo_in_place(stream).await;
            });
            let mut client = Stream::connect(addr.clone()).await.unwrap();
            assert_eq!(client.peer_addr().unwrap(), addr);
            assert_eq!(client.nodelay().is_ok_and(|on| on), !addr.is_unix());
            let said = noise(500_000);
            let (mut reader, mut writer) = client.split();
            let (mut heard, says) = (vec![0; said.len()], async {
                for piece in said.chunks(9000) {
                    writer.write_all(piece).await.unwrap();
                }
            });
            let hears = async {
                for piece in heard.chunks_mut(10_000) {
                    reader.read_exact(piece).await.unwrap();
                }
            };
            futures::join!(says, hears);
            assert!(heard == said);
            client.shutdown();
            assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
            server.await.unwrap();
        });
    }
    assert!(!path.exists(), "the file goes with its listener");
}

#[test]
fn a_listener_accepts_as_many_as_may_wait_and_more_when_they_were_taken() {
    run(async {
        let mut listener = Listener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().as_socket_addr().unwrap();
        let clients: Vec<_> = (0..300).map(|_| StdStream::connect(addr).unwrap()).collect();
        sleep(Duration::from_millis(50)).await;
        let mut taken = Vec::new();
        while taken.len() < clients.len() {
            taken.push(timeout(10 * SECOND, listener.accept()).await.expect("all come").unwrap());
        }
        assert!(try_once(listener.accept()).await.is_none());
        drop(clients);
        for (mut stream, _) in taken {
            assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
        }
    });
}

#[test]
fn who_waits_at_a_listener_that_is_dropped_is_turned_away() {
    run(async {
        let listener = Listener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().as_socket_addr().unwrap();
        let mut waiting = StdStream::connect(addr).unwrap();
        waiting.set_read_timeout(Some(10 * SECOND)).unwrap();
        yield_now().await;
        sleep(Duration::from_millis(10)).await;
        drop(listener);
        sleep(Duration::from_millis(10)).await;
        let error = waiting.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert_eq!(StdStream::connect(addr).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        drop(Listener::bind(addr).await.unwrap());
        let again = Listener::bind(addr).await.unwrap();
        let error = Listener::bind(addr).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}");
        assert!(error.to_string().contains(&addr.to_string()), "{error}");
        drop(again);
    });
}

#[test]
fn a_drain_closes_a_listener_behind_those_who_wait() {
    let (tell, told) = std::sync::mpsc::channel();
    let server = Runtime::builder().workers(Workers::Count(1)).start().unwrap();
    let task = server.handle().spawn_on(0, move || async move {
        let mut listener = Listener::bind("127.0.0.1:0").await.unwrap();
        let _ = tell.send(listener.local_addr().as_socket_addr().unwrap());
        let mut served = 0;
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.write_all(b"hi").await.unwrap();
            served += 1;
        }
        let late = Listener::bind("127.0.0.1:0").await.map(drop);
        (served, late.unwrap_err().kind())
    });
    let addr = told.recv().unwrap();
    let mut clients: Vec<_> = (0..20).map(|_| StdStream::connect(addr).unwrap()).collect();
    server.handle().drain(10 * SECOND);
    for client in &mut clients {
        let mut heard = String::new();
        client.set_read_timeout(Some(10 * SECOND)).unwrap();
        client.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "hi");
    }
    drop(clients);
    assert_eq!(task.join().unwrap(), (20, ErrorKind::ConnectionAborted));
    assert_eq!(server.wait().unwrap().cut, 0);
}

#[test]
fn every_worker_serves_its_peers_in_tasks_of_its_own() {
    let server = Runtime::builder()
        .workers(Workers::Count(2))
        .listen_tasks("127.0.0.1:0", |stream, _peer| echo(stream))
        .unwrap()
        .start()
        .unwrap();
    let addr = server.local_addrs()[0].as_socket_addr().unwrap();
    for _ in 0..20 {
        let mut client = StdStream::connect(addr).unwrap();
        client.write_all(b"ping").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut heard = String::new();
        client.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "ping");
    }
    server.stop(10 * SECOND).unwrap();
}

#[test]
fn a_socket_from_elsewhere_is_taken_over() {
    run(async {
        let (mut one, mut other) = Stream::pair().unwrap();
        one.write_all(b"through the pair").await.unwrap();
        drop(one);
        let mut heard = Vec::new();
        other.read_to_end(&mut heard, 100).await.unwrap();
        assert_eq!(heard, b"through the pair");

        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let client = StdStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        let mut stream = Stream::from_std(client).unwrap();
        stream.write_all(b"taken over").await.unwrap();
        let far = std::thread::spawn(move || {
            let mut heard = [0; 10];
            far.read_exact(&mut heard).unwrap();
            far.write_all(&heard).unwrap();
        });
        let mut heard = [0; 10];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"taken over");
        far.join().unwrap();
        stream.set_nodelay(false).unwrap();
        assert!(!stream.nodelay().unwrap());
        let ttl = stream.with_socket(|socket| socket2::SockRef::from(&socket).ttl_v4()).unwrap().unwrap();
        assert!(ttl > 0);
    });
}

#[test]
fn a_file_is_sent_by_the_kernel() {
    run(async {
        let path = std::env::temp_dir().join(format!("core-net-{}", std::process::id()));
        std::fs::write(&path, noise(200_000)).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let range = netpoll_core::FileRange::new(file, 100_000, 100_000);
        let (mut one, mut other) = Stream::pair().unwrap();
        one.write_all(b"head").await.unwrap();
        one.send_file(range).await.unwrap();
        one.shutdown();
        let mut heard = Vec::new();
        other.read_to_end(&mut heard, 1 << 20).await.unwrap();
        assert!(heard.starts_with(b"head") && heard[4..] == noise(200_000)[100_000..]);
    });
}

#[test]
fn outside_of_a_worker_nothing_is_connected_and_the_error_says_so() {
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Err(error)) = pin!(Stream::connect("127.0.0.1:1")).poll(&mut cx) else {
        panic!("there is no worker here");
    };
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}

/// A world in which a relay stands between clients and a backend, all of them tasks of its workers.
fn relayed(options: Options, said: Vec<u8>, clients: usize) -> (Sim, Rc<Cell<usize>>) {
    let mut sim = Sim::new(options.workers(3));
    let served = Rc::new(Cell::new(0));
    let at = |worker: usize, sim: &Sim| {
        sim.handle().spawn_on(worker, || async move {
            let mut listener = Listener::bind("10.0.0.1:80").await.unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                spawn_local(echo_in_place(stream)).detach();
            }
        })
    };
    drop(at(0, &sim));
    drop(sim.handle().spawn_on(1, || async move {
        let mut listener = Listener::bind("10.0.0.2:80").await.unwrap();
        while let Ok((mut client, peer)) = listener.accept().await {
            assert!(peer.addr.port().is_some());
            let relayed = async move {
                let mut backend = Stream::connect("10.0.0.1:80").await.unwrap();
                copy_bidirectional(&mut client, &mut backend).await
            };
            spawn_local(relayed).detach();
        }
    }));
    sim.run();
    for _ in 0..clients {
        let (said, served) = (said.clone(), Rc::clone(&served));
        let client = async move {
            let mut stream = Stream::connect("10.0.0.2:80").await.unwrap();
            let (mut reader, mut writer) = stream.split();
            let says = async {
                for piece in said.chunks(7000) {
                    writer.write_all(piece).await.unwrap();
                    yield_now().await;
                }
                writer.shutdown();
            };
            let mut heard = Vec::new();
            let (_, read) = futures::join!(says, reader.read_to_end(&mut heard, usize::MAX));
            read.unwrap();
            assert!(heard == said, "{} of {}", heard.len(), said.len());
            served.set(served.get() + 1);
        };
        sim.block_on(async move { spawn_local(client).detach() });
    }
    (sim, served)
}

#[test]
fn tasks_of_one_world_connect_to_each_other_over_its_network() {
    for seed in seeds(30) {
        let mut chance = Chance::new(seed);
        let faults = if chance.below(2) == 0 { faults() } else { Faults::default() };
        let latency = Duration::ZERO..=Duration::from_millis(chance.below(2) as u64 * 30);
        let options = Options::default().seed(seed).faults(faults).latency(latency);
        let (mut sim, served) = relayed(options, noise(1 + chance.below(400_000)), 5);
        sim.advance(600 * SECOND);
        assert_eq!((served.get(), sim.open(), sim.stats().panics), (5, 0, 0), "seed {seed}");
        assert_eq!(sim.blocks_in_use(), 0, "seed {seed}");
    }
}

#[test]
fn a_relay_passes_on_however_many_pieces_one_by_one() {
    let (mut sim, _) = relayed(Options::default(), Vec::new(), 0);
    sim.block_on(async {
        let mut stream = Stream::connect("10.0.0.2:80").await.unwrap();
        for nth in 0..600_u16 {
            stream.write_all(&nth.to_be_bytes()).await.unwrap();
            let mut heard = [0; 2];
            stream.read_exact(&mut heard).await.unwrap();
            assert_eq!(u16::from_be_bytes(heard), nth);
        }
    });
    assert_eq!(sim.stats().panics, 0);
}

#[test]
fn an_address_of_a_world_is_listened_at_once_and_free_again_behind_it() {
    let mut sim = Sim::new(Options::default());
    sim.block_on(async {
        let refused = |error: std::io::Error| error.kind();
        let first = Listener::bind("10.0.0.1:0").await.unwrap();
        let addr = first.local_addr().clone();
        assert_eq!(Listener::bind(addr.clone()).await.map(drop).map_err(refused), Err(ErrorKind::AddrInUse));
        drop(first);
        let mut any = Listener::bind(("0.0.0.0", addr.port().unwrap())).await.unwrap();
        let mut client = Stream::connect(addr).await.unwrap();
        let (mut server, _) = any.accept().await.unwrap();
        client.write_all(b"to any").await.unwrap();
        let mut heard = [0; 6];
        server.read_exact(&mut heard).await.unwrap();
        server.reset();
        assert_eq!(client.read(&mut heard).await.map_err(refused), Err(ErrorKind::ConnectionReset));
    });
}

#[test]
fn a_stream_that_outlives_its_runtime_says_that_it_is_gone() {
    // The drain at its end waits for them.
    let runtime = Runtime::builder().drain_within(Duration::from_millis(20));
    let stream = runtime.block_on(async { Stream::pair().unwrap() }).unwrap();
    let mut cx = Context::from_waker(Waker::noop());
    let (mut one, _other) = stream;
    let mut buffer = [0; 1];
    let Poll::Ready(Err(error)) = one.poll_read(&mut cx, &mut buffer) else { panic!("its worker has ended") };
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
    assert!(matches!(one.poll_write(&mut cx, b"x"), Poll::Ready(Err(_))));
}

/// A waker that does nothing, until it is dropped.
struct Inert {
    panics: bool,
}

impl Wake for Inert {
    fn wake(self: Arc<Self>) {}

    fn wake_by_ref(self: &Arc<Self>) {}
}

impl Drop for Inert {
    fn drop(&mut self) {
        assert!(!self.panics, "the waker of an earlier reader");
    }
}

#[test]
fn a_waker_is_dropped_when_a_task_waits_in_its_place() {
    let mut sim = Sim::new(Options::default());
    sim.block_on(async {
        let earlier = Arc::new(Inert { panics: false });
        let waker = Waker::from(Arc::clone(&earlier));
        let mut cx = Context::from_waker(&waker);
        let mut listener = Listener::bind("10.0.0.1:80").await.unwrap();
        assert!(pin!(listener.accept()).poll(&mut cx).is_pending());
        let says = spawn_local(async {
            let mut stream = Stream::connect("10.0.0.1:80").await.unwrap();
            for _ in 0..2 {
                sleep(SECOND).await;
                stream.write_all(b"said").await.unwrap();
            }
            stream
        });
        let (mut stream, _) = listener.accept().await.unwrap();
        assert_eq!(Arc::strong_count(&earlier), 2, "the listener has none");

        let mut heard = [0; 4];
        assert!(stream.poll_read(&mut cx, &mut heard).is_pending());
        stream.read(&mut heard).await.unwrap();
        assert_eq!(Arc::strong_count(&earlier), 2, "nor has who reads something");
        assert!(stream.poll_read(&mut cx, &mut heard).is_pending());
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(Arc::strong_count(&earlier), 2, "nor who reads so much");
        drop(says.await);
    });
}

#[test]
fn a_stream_whose_waker_panics_in_its_destructor_gives_its_blocks_back() {
    let (streams, mut sim) = (Rc::new(RefCell::new(Vec::new())), Sim::new(Options::default()));
    let own = Rc::clone(&streams);
    let listener = sim.listen_tasks(move |mut stream, _peer| {
        let waker = Waker::from(Arc::new(Inert { panics: true }));
        assert!(stream.poll_read(&mut Context::from_waker(&waker), &mut [0; 4]).is_pending());
        own.borrow_mut().push(stream);
        async {}
    });
    let peer = sim.connect(listener);
    sim.run();
    sim.send(peer, b"said");
    sim.run();
    sim.reset(peer);
    sim.run();
    assert_eq!((sim.open(), sim.blocks_in_use()), (0, 1), "what was not read is still there");

    let stream = streams.borrow_mut().pop();
    assert!(catch_unwind(AssertUnwindSafe(|| drop(stream))).is_err());
    sim.turn();
    assert_eq!(sim.blocks_in_use(), 0);
}
