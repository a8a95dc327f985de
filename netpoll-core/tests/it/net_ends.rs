//! Streams and listeners of tasks at their ends: beside what others order, behind panics, in drains, and where a wait was given up.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use netpoll_core::net::{Listener, Stream, connect, copy_bidirectional, in_task};
use netpoll_core::sim::{Answer, Options, PeerId, Sim};
use netpoll_core::sync::oneshot;
use netpoll_core::task::{JoinHandle, spawn_local, yield_now};
use netpoll_core::time::{sleep, timeout};
use netpoll_core::{Bytes, Commands, ConnLimits, Runtime};

use crate::chance::{Chance, seeds};

const SECOND: Duration = Duration::from_secs(1);

/// What a task has noted.
type Notes = Rc<RefCell<Vec<String>>>;

fn note(notes: &Notes, what: impl std::fmt::Display) {
    notes.borrow_mut().push(what.to_string());
}

fn noise(length: usize) -> Vec<u8> {
    let mut chance = Chance::new(length as u64);
    (0..length).map(|_| chance.below(256) as u8).collect()
}

fn ip(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
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

/// Polls a future once and drops it. The value if it was ready.
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
fn a_block_that_was_read_in_part_is_relayed_once_behind_what_waits() {
    for seed in seeds(20) {
        // A simulated flush takes the rest in flight or leaves it queued, as chance will have it.
        let (mut sim, peer) = with_stream(Options::default().seed(seed), |mut client| async move {
            let mut backend = Stream::connect((ip(1), 80)).await.unwrap();
            client.read_exact(&mut [0; 4]).await.unwrap();
            backend.write_all(&noise(100_000)).await.unwrap();
            sleep(SECOND).await;
            let _ = copy_bidirectional(&mut client, &mut backend).await;
        });
        let (backend, _) = sim.take_dialed().pop().unwrap();
        sim.stop_reading(backend);
        sim.send(peer, b"headbody");
        sim.advance(2 * SECOND);
        sim.start_reading(backend);
        sim.settle();
        let heard = sim.take_received(backend);
        assert_eq!(sim.stats().panics, 0, "seed {seed}");
        assert!(heard.len() == 100_004 && heard.ends_with(b"body"), "seed {seed}: {} bytes", heard.len());
    }
}

#[test]
fn who_takes_at_once_all_that_is_sent_is_not_too_slow() {
    let latency = Duration::from_millis(100);
    let failed = Rc::new(Cell::new(false));
    let place = Rc::clone(&failed);
    let (mut sim, peer) = with_stream(Options::default().latency(latency..=latency), move |mut stream| {
        let place = Rc::clone(&place);
        async move {
            stream.read(&mut [0; 1]).await.unwrap();
            // Has to wait, once.
            stream.write_all(&noise(150_000)).await.unwrap();
            sleep(3 * SECOND).await;
            stream.write_all(b"x").await.unwrap();
            loop {
                sleep(Duration::from_millis(25)).await;
                if stream.write_all(&[7; 4096]).await.is_err() {
                    return place.set(true);
                }
            }
        }
    });
    sim.advance(SECOND);
    sim.stop_reading(peer);
    sim.send(peer, b"?");
    sim.advance(SECOND);
    sim.start_reading(peer);
    sim.advance(60 * SECOND);
    assert_eq!((failed.get(), sim.stats().stalled), (false, 0), "it reads all of it, 160 KB/s");
}

#[test]
fn a_listener_that_was_full_when_a_drain_began_closes_behind_those_who_wait() {
    let mut sim = Sim::new(Options::default());
    let (served, ended) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(None)));
    let (count, end) = (Rc::clone(&served), Rc::clone(&ended));
    sim.block_on(async move {
        let mut listener = Listener::bind("10.0.0.1:80").await.unwrap();
        let accepts = async move {
            // Busy with something else.
            sleep(SECOND).await;
            loop {
                match listener.accept().await {
                    Ok(_) => count.set(count.get() + 1),
                    Err(error) => return end.set(Some(error.kind())),
                }
            }
        };
        spawn_local(accepts).detach();
        for _ in 0..200 {
            let client = async {
                let mut stream = Stream::connect("10.0.0.1:80").await.unwrap();
                let _ = stream.read(&mut [0; 1]).await;
            };
            spawn_local(client).detach();
        }
    });
    sim.run();
    sim.begin_drain(60 * SECOND);
    sim.advance(20 * SECOND);
    assert_eq!((served.get(), ended.get()), (200, Some(ErrorKind::ConnectionAborted)));
    assert!(sim.is_finished());
}

#[test]
fn a_bind_that_was_given_up_leaves_no_listener() {
    let mut sim = Sim::new(Options::default());
    sim.block_on(async {
        assert!(try_once(Listener::bind("10.0.0.1:80")).await.is_none());
        yield_now().await;
        yield_now().await;
        let listener = Listener::bind("10.0.0.1:80").await;
        assert!(listener.is_ok(), "{}", listener.unwrap_err());
    });
}

#[test]
fn what_was_written_leaves_in_front_of_what_is_ordered_behind_it() {
    for finishes in [false, true] {
        let (mut sim, peer) = with_stream(Options::default(), move |mut stream| async move {
            sleep(SECOND).await;
            // 64 KiB of it leave at once.
            stream.write_all(&[b'a'; 100_000]).await.unwrap();
            let id = stream.id().unwrap();
            Commands::with(|commands| {
                if finishes { commands.finish(id) } else { commands.send(id, Bytes::from_static(b"x")) }
            });
            sleep(SECOND).await;
        });
        sim.stop_reading(peer);
        sim.advance(3 * SECOND / 2);
        sim.start_reading(peer);
        sim.settle();
        let heard = sim.take_received(peer);
        let whole = if finishes { 100_000 } else { 100_001 };
        assert!(
            heard.len() == whole && heard[..100_000].iter().all(|byte| *byte == b'a'),
            "{finishes}: {}",
            heard.len()
        );
    }
}

#[test]
fn a_writer_hears_that_others_have_ended_its_direction() {
    let notes = Notes::default();
    let (log, id) = (Rc::clone(&notes), Rc::new(Cell::new(None)));
    let place = Rc::clone(&id);
    let (mut sim, peer) = with_stream(Options::default(), move |mut stream| {
        let (log, place) = (Rc::clone(&log), Rc::clone(&place));
        async move {
            place.set(stream.id());
            stream.read(&mut [0; 1]).await.unwrap();
            stream.write_all(&noise(500_000)).await.unwrap();
            for _ in 0..2 {
                // The first waits.
                let wrote = stream.write_all(b"more").await;
                note(&log, format!("{:?}", wrote.map_err(|error| error.kind())));
            }
            sleep(10 * SECOND).await;
        }
    });
    sim.settle();
    sim.stop_reading(peer);
    sim.send(peer, b"?");
    sim.settle();
    sim.handle().finish(id.get().unwrap());
    sim.settle();
    sim.start_reading(peer);
    sim.advance(SECOND);
    assert_eq!(notes.borrow()[..], ["Err(BrokenPipe)", "Err(BrokenPipe)"]);
    assert!(sim.take_received(peer) == noise(500_000) && sim.is_closed(peer));
}

#[test]
fn a_stream_whose_connection_never_was_says_so() {
    let mut sim = Sim::new(Options::default());
    let said = sim.block_on(async {
        let (tell, told) = oneshot::channel();
        drop(in_task(|mut stream| async move {
            let read = stream.read(&mut [0; 1]).await;
            let _ = tell.send(read.map_err(|error| error.kind()));
        }));
        timeout(SECOND, told).await
    });
    assert_eq!(said.expect("at once").unwrap(), Err(ErrorKind::NotConnected));
}

#[test]
fn a_future_that_panics_does_not_end_its_stream_politely_whatever_it_is() {
    let (mut sim, peer) = with_stream(Options::default(), |mut stream| {
        poll_fn(move |cx| -> Poll<()> {
            if stream.poll_read(cx, &mut [0; 1]).is_pending() {
                return Poll::Pending;
            }
            let _ = stream.poll_write(cx, b"half an ans");
            panic!("in the middle of it");
        })
    });
    sim.send(peer, b"?");
    sim.settle();
    assert!(sim.is_reset(peer));
}

#[test]
fn who_reads_no_more_keeps_no_input() {
    let (mut sim, peer) = with_stream(Options::default(), |stream| async move {
        let (reader, _writer) = stream.into_split();
        sleep(SECOND).await;
        drop(reader);
        sleep(100 * SECOND).await;
    });
    sim.send(peer, &noise(60_000));
    sim.advance(2 * SECOND);
    assert_eq!(sim.blocks_in_use(), 0);
}

#[test]
fn a_task_that_writes_for_ever_gives_its_worker_back() {
    let ticks = Rc::new(Cell::new(0));
    let count = Rc::clone(&ticks);
    let (mut sim, peer) = with_stream(Options::default(), move |mut stream| {
        let count = Rc::clone(&count);
        async move {
            let ticking = spawn_local(async move {
                loop {
                    count.set(count.get() + 1);
                    yield_now().await;
                }
            });
            for _ in 0..10_000 {
                stream.write_all(&[7; 8192]).await.unwrap();
            }
            ticking.abort();
        }
    });
    sim.settle();
    assert_eq!(sim.take_received(peer).len(), 81_920_000);
    assert!(ticks.get() >= 70, "{} turns of another in 80 MB", ticks.get());
}

#[test]
fn a_stream_is_no_end_of_a_forward_and_is_reset_by_one() {
    let notes = Notes::default();
    let log = Rc::clone(&notes);
    let (mut sim, peer) = with_stream(Options::default(), move |mut stream| {
        let log = Rc::clone(&log);
        async move {
            yield_now().await;
            let other = Stream::connect((ip(1), 80)).await.unwrap();
            let (one, two) = (stream.id().unwrap(), other.id().unwrap());
            Commands::with(|commands| commands.forward(one, two));
            let read = stream.read(&mut [0; 5]).await;
            note(&log, format!("{:?}", read.map_err(|error| error.kind())));
        }
    });
    sim.settle();
    assert_eq!(notes.borrow()[..], ["Err(ConnectionAborted)"]);
    assert!(sim.is_reset(peer));
    sim.advance(10 * SECOND);
    assert_eq!((sim.open(), sim.stats().panics), (0, 0));
}

#[test]
fn a_socket_that_was_just_taken_over_can_be_asked() {
    Runtime::block_on(async {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let stream = Stream::from_std(one).unwrap();
        assert!(stream.peer_addr().unwrap().is_unix() && stream.local_addr().unwrap().is_unix());
        assert!(stream.nodelay().is_err(), "it is none of TCP");
        drop(stream);
        // Dropped before its worker has it.
        drop(Stream::pair().unwrap());
        yield_now().await;
    })
    .unwrap();
}

#[test]
fn a_world_does_not_count_what_another_has_held() {
    for _ in 0..2 {
        let (mut sim, peer) = with_stream(Options::default().workers(2), |mut stream| async move {
            stream.fill_buf().await.unwrap();
            sleep(SECOND).await;
        });
        sim.send(peer, b"held");
        sim.run();
        assert_eq!(sim.blocks_in_use(), 1);
        // With a block in the hands of a task.
    }
}

#[test]
fn a_connection_that_others_close_does_not_end_like_its_peer() {
    let notes = Notes::default();
    let (log, id) = (Rc::clone(&notes), Rc::new(Cell::new(None)));
    let place = Rc::clone(&id);
    let (mut sim, peer) = with_stream(Options::default(), move |mut stream| {
        let (log, place) = (Rc::clone(&log), Rc::clone(&place));
        async move {
            yield_now().await;
            place.set(stream.id());
            let mut all = Vec::new();
            let read = stream.read_to_end(&mut all, 100).await.map_err(|error| error.kind());
            note(&log, format!("{all:?} {read:?}"));
            stream.reset();
        }
    });
    sim.send(peer, b"12");
    sim.settle();
    sim.handle().close(id.get().unwrap());
    sim.settle();
    assert_eq!(notes.borrow()[..], ["[49, 50] Err(ConnectionAborted)"]);
    assert!(sim.is_reset(peer), "a reset behind a close by others is one");
    assert_eq!(sim.open(), 0);
}

#[test]
fn memory_that_others_hold_does_not_cut_who_reads() {
    let limits = ConnLimits::default().memory_bytes_max(Some(200_000));
    let mut sim = Sim::new(Options::default().limits(limits));
    let hoards = sim.listen_tasks(|stream, _| async move {
        let _stream = stream;
        std::future::pending::<()>().await;
    });
    let serves = sim.listen_tasks(|mut stream, _| async move {
        let (mut buffer, mut count) = ([0; 1000], 0);
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            count += read;
        }
        stream.write_all(count.to_string().as_bytes()).await.unwrap();
    });
    for _ in 0..4 {
        let hoarder = sim.connect(hoards);
        sim.send(hoarder, &noise(60_000));
    }
    sim.run();
    let reader = sim.connect(serves);
    for _ in 0..100 {
        sim.send(reader, &noise(5000));
        sim.run();
    }
    sim.finish(reader);
    sim.settle();
    assert_eq!(sim.take_received(reader), b"500000");
}

#[test]
fn a_copy_that_was_given_up_behind_an_end_goes_on() {
    let notes = Notes::default();
    let log = Rc::clone(&notes);
    let (mut sim, peer) = with_stream(Options::default(), move |mut client| {
        let log = Rc::clone(&log);
        async move {
            let mut backend = Stream::connect((ip(1), 80)).await.unwrap();
            loop {
                let copied = timeout(SECOND, copy_bidirectional(&mut client, &mut backend)).await;
                if let Ok(copied) = copied {
                    return note(&log, format!("{copied:?}"));
                }
            }
        }
    });
    let (backend, _) = sim.take_dialed().pop().unwrap();
    sim.send(peer, b"question");
    sim.finish(peer);
    sim.advance(5 * SECOND);
    assert_eq!(sim.take_received(backend), b"question");
    sim.send(backend, b"late answer");
    sim.finish(backend);
    sim.advance(2 * SECOND);
    assert_eq!(sim.take_received(peer), b"late answer");
    assert_eq!(notes.borrow()[..], ["Ok((0, 11))"], "of the last call");
}

#[test]
fn who_looks_how_a_stream_begins_sees_all_that_has_come() {
    let notes = Notes::default();
    let log = Rc::clone(&notes);
    let (mut sim, peer) = with_stream(Options::default(), move |mut stream| {
        let log = Rc::clone(&log);
        async move {
            let mut head = [0; 8];
            let count = stream.peek(&mut head).await.unwrap();
            note(&log, String::from_utf8_lossy(&head[..count]));
            stream.peek_exact(&mut head).await.unwrap();
            note(&log, String::from_utf8_lossy(&head));
            let count = stream.peek(&mut head).await.unwrap();
            note(&log, String::from_utf8_lossy(&head[..count]));
            stream.read_exact(&mut head).await.unwrap();
            note(&log, String::from_utf8_lossy(&head));
            let short = stream.peek_exact(&mut head).await;
            note(&log, format!("{:?}", short.map_err(|error| error.kind())));
        }
    });
    sim.send(peer, b"PR");
    sim.run();
    sim.send(peer, b"I * HTTP");
    sim.run();
    sim.finish(peer);
    sim.settle();
    assert_eq!(notes.borrow()[..], ["PR", "PRI * HT", "PRI * HT", "PRI * HT", "Err(UnexpectedEof)"]);
}

#[test]
fn the_ninth_of_many_silent_addresses_is_tried() {
    let mut sim = Sim::new(Options::default());
    sim.set_name("many", (1..=12).map(ip));
    for last in 1..=11 {
        sim.answer_connections_to((ip(last), 80), Answer::Ignore);
    }
    let began = sim.now();
    let addr = sim.block_on(async { connect(("many", 80)).await.unwrap().peer_addr().unwrap() });
    assert_eq!((addr.ip(), sim.now().duration_since(began).as_millis()), (Some(ip(12)), 2750));
}

#[test]
fn a_dial_whose_task_is_aborted_by_a_callback_is_given_up() {
    let mut sim = Sim::new(Options::default());
    sim.answer_connections_to((ip(1), 80), Answer::Ignore);
    let place: Rc<RefCell<Option<JoinHandle<()>>>> = Rc::default();
    let kept = Rc::clone(&place);
    sim.block_on(async move {
        let dials = async { drop(connect((ip(1), 80)).await) };
        *kept.borrow_mut() = Some(spawn_local(dials));
        yield_now().await;
        yield_now().await;
    });
    assert_eq!(sim.open(), 1);
    sim.commands().after(Duration::ZERO, move |_local| place.borrow().as_ref().unwrap().abort());
    sim.advance(Duration::from_millis(10));
    assert_eq!(sim.open(), 0);
}

#[test]
fn a_loop_that_looks_at_a_part_again_and_again_sees_what_comes_and_holds_up_nobody() {
    let notes = Notes::default();
    let log = Rc::clone(&notes);
    let (mut sim, peer) = with_stream(Options::default(), move |mut stream| {
        let log = Rc::clone(&log);
        async move {
            loop {
                let input = stream.fill_buf().await.unwrap();
                let Some(end) = input.iter().position(|byte| *byte == b'\n') else { continue };
                note(&log, String::from_utf8_lossy(&input[..end]));
                return stream.consume(end + 1);
            }
        }
    });
    sim.send(peer, b"half");
    for _ in 0..10 {
        sim.turn();
    }
    sim.send(peer, b" a line\n");
    sim.run();
    assert_eq!(notes.borrow()[..], ["half a line"]);
}

#[test]
fn lines_are_read_whole_and_a_wait_for_one_loses_nothing() {
    let notes = Notes::default();
    let log = Rc::clone(&notes);
    let (mut sim, peer) = with_stream(Options::default(), move |mut stream| {
        let log = Rc::clone(&log);
        async move {
            let mut line = Vec::new();
            for most in [100, 100, 3, 100, 100, 100] {
                let read = loop {
                    let wait =
                        timeout(Duration::from_millis(1), stream.read_until(b'\n', &mut line, most)).await;
                    if let Ok(read) = wait {
                        break read.map_err(|error| error.kind());
                    }
                };
                note(&log, format!("{read:?} {}", String::from_utf8_lossy(&line)));
                line.clear();
            }
        }
    });
    for piece in ["on", "e\ntwo\nth", "ree\nrest"] {
        sim.send(peer, piece.as_bytes());
        sim.advance(Duration::from_millis(10));
    }
    sim.finish(peer);
    sim.settle();
    let lines = ["Ok(4) one\n", "Ok(4) two\n", "Err(FileTooLarge) ", "Ok(6) three\n", "Ok(4) rest", "Ok(0) "];
    assert_eq!(notes.borrow()[..], lines);
}

#[test]
fn a_client_that_gives_up_waits_for_nobody() {
    let mut sim = Sim::new(Options::default());
    sim.block_on(async {
        let asked = timeout(SECOND, async {
            let mut stream = connect((ip(1), 80)).await.unwrap();
            stream.write_all(b"question").await.unwrap();
            stream.read(&mut [0; 1]).await.unwrap()
        });
        assert!(asked.await.is_err());
    });
    sim.run();
    assert_eq!(sim.open(), 0);
    let (server, _) = sim.take_dialed().pop().unwrap();
    assert_eq!((sim.take_received(server), sim.is_closed(server)), (b"question".to_vec(), true));
}
