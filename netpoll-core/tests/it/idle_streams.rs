//! Streams of which a task says that they are idle: drains do not wait for them, newcomers may have their place, and what comes is answered.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use netpoll_core::net::{IdleMark, Link, Stream, in_task};
use netpoll_core::sim::{Answer, ListenerId, Options, PeerId, Sim};
use netpoll_core::task::{spawn_daemon, spawn_local, stopping};
use netpoll_core::time::sleep;
use netpoll_core::{
    Address, Conn, ConnLimits, ConnectOptions, Flow, Input, Layer, Layered, Runtime, Upper, Workers,
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
/// A moment within the grace of a drain, which is a second.
const MOMENT: Duration = Duration::from_millis(500);

type Notes = Rc<RefCell<Vec<String>>>;

/// Answers four bytes by four bytes, which takes so long, and is idle in between if that is so.
async fn serve(mut stream: Stream, answering: Duration, is_idle: bool, notes: Notes) {
    let mut request = [0; 4];
    let failure = loop {
        stream.set_idle(is_idle);
        if let Err(error) = stream.read_exact(&mut request).await {
            break error;
        }
        if !answering.is_zero() {
            sleep(answering).await;
        }
        request.make_ascii_uppercase();
        if let Err(error) = stream.write_all(&request).await {
            break error;
        }
    };
    notes.borrow_mut().push(format!("{:?}", failure.kind()));
}

fn world(options: Options, answering: Duration, is_idle: bool) -> (Sim, ListenerId, Notes) {
    let notes = Notes::default();
    let mut sim = Sim::new(options);
    let kept = Rc::clone(&notes);
    let listener = sim.listen_tasks(move |stream, _peer| serve(stream, answering, is_idle, Rc::clone(&kept)));
    (sim, listener, notes)
}

/// One whose peer has had an answer.
fn served(answering: Duration, is_idle: bool) -> (Sim, PeerId, Notes) {
    let (mut sim, listener, notes) = world(Options::default(), answering, is_idle);
    let peer = sim.connect(listener);
    sim.send(peer, b"ping");
    sim.advance(answering);
    assert_eq!(sim.take_received(peer), b"PING");
    (sim, peer, notes)
}

#[test]
fn a_drain_does_not_wait_for_a_stream_that_is_idle() {
    for (is_idle, after) in [(true, 4 * SECOND), (false, 60 * SECOND)] {
        let (mut sim, peer, notes) = served(Duration::ZERO, is_idle);
        sim.begin_drain(60 * SECOND);
        sim.advance(MOMENT);
        assert!(notes.borrow().is_empty(), "it has its grace");
        sim.advance(after - 2 * MOMENT);
        assert_eq!(sim.is_finished(), is_idle);
        sim.advance(MOMENT);
        assert!(sim.is_finished());
        assert_eq!(sim.is_reset(peer), !is_idle);
        let heard: &[&str] = if is_idle { &["ConnectionAborted"] } else { &[] };
        assert_eq!(*notes.borrow(), heard, "a task that is cut hears nothing");
    }
}

#[test]
fn a_request_that_comes_in_the_grace_of_a_drain_is_answered_however_long_that_takes() {
    for answering in [0, 5, 50] {
        let answering = answering * SECOND;
        let (mut sim, peer, notes) = served(answering, true);
        sim.begin_drain(HOUR);
        sim.advance(MOMENT);
        sim.send(peer, b"more");
        sim.advance(answering);
        sim.settle();
        assert_eq!(sim.take_received(peer), b"MORE", "behind {answering:?}");
        assert!(notes.borrow().is_empty());
        sim.advance(4 * SECOND);
        assert_eq!(*notes.borrow(), ["ConnectionAborted"], "idle again");
        assert!(sim.is_finished());
    }
}

#[test]
fn what_lies_in_the_socket_when_the_grace_is_over_is_answered() {
    for answering in [Duration::ZERO, 5 * SECOND] {
        let (mut sim, peer, _) = served(answering, true);
        sim.begin_drain(HOUR);
        sim.advance(MOMENT);
        sim.send(peer, b"more");
        // The process does not run meanwhile: it finds the bytes and the end of the grace at once.
        sim.stand_still(SECOND);
        sim.advance(answering);
        sim.settle();
        assert_eq!(sim.take_received(peer), b"MORE");
        sim.advance(4 * SECOND);
        assert!(sim.is_finished());
    }
}

#[test]
fn half_a_request_is_no_idle_stream() {
    let (mut sim, peer, notes) = served(Duration::ZERO, true);
    sim.send(peer, b"mo");
    sim.settle();
    sim.begin_drain(HOUR);
    sim.advance(60 * SECOND);
    assert!(!sim.is_finished());
    sim.send(peer, b"re");
    sim.settle();
    assert_eq!(sim.take_received(peer), b"MORE");
    sim.advance(4 * SECOND);
    assert_eq!((sim.is_finished(), &**notes.borrow()), (true, &["ConnectionAborted".to_owned()][..]));
}

#[test]
fn a_request_that_was_lent_and_not_consumed_is_under_way() {
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen_tasks(|mut stream, _peer| async move {
        assert_eq!(stream.fill_buf().await.unwrap(), b"ping");
        stream.set_idle(true);
        sleep(10 * SECOND).await;
        stream.write_all(b"pong").await.unwrap();
    });
    let peer = sim.connect(listener);
    sim.send(peer, b"ping");
    sim.settle();
    sim.begin_drain(60 * SECOND);
    sim.advance(11 * SECOND);
    assert_eq!(sim.take_received(peer), b"pong");
}

/// Streams that are connected, and kept by the worker's state.
fn pool(count: usize) -> (Sim, Vec<PeerId>, Rc<RefCell<Vec<Stream>>>) {
    let mut sim = Sim::new(Options::default());
    let kept = Rc::<RefCell<Vec<Stream>>>::default();
    let pool = Rc::clone(&kept);
    sim.block_on(async move {
        for _ in 0..count {
            let mut stream = Stream::connect("10.0.0.1:80").await.unwrap();
            stream.set_idle(true);
            pool.borrow_mut().push(stream);
        }
    });
    let peers = sim.take_dialed().into_iter().map(|(peer, _)| peer).collect();
    (sim, peers, kept)
}

#[test]
fn a_pool_that_nobody_reads_does_not_hold_up_a_drain() {
    let (mut sim, peers, kept) = pool(3);
    sim.begin_drain(HOUR);
    sim.advance(SECOND + MOMENT);
    assert!(sim.is_finished(), "clients hear nobody out");
    assert!(peers.iter().all(|peer| sim.is_closed(*peer) && !sim.is_reset(*peer)));
    let stream = kept.borrow_mut().pop().unwrap();
    sim.block_on(async move {
        let mut stream = stream;
        let error = stream.write_all(b"more").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn who_takes_a_stream_out_of_a_pool_in_a_drain_has_its_answer() {
    // It says so, or it writes.
    for by_mark in [true, false] {
        let mut sim = Sim::new(Options::default());
        let notes = Notes::default();
        let heard = Rc::clone(&notes);
        let pool = Rc::<RefCell<Vec<Stream>>>::default();
        let back = Rc::clone(&pool);
        sim.block_on(async move {
            let mut stream = Stream::connect("10.0.0.1:80").await.unwrap();
            stream.set_idle(true);
            spawn_local(async move {
                sleep(MOMENT).await;
                if by_mark {
                    stream.set_idle(false);
                    sleep(SECOND).await;
                }
                stream.write_all(b"ask").await.unwrap();
                let mut answer = [0; 6];
                stream.read_exact(&mut answer).await.unwrap();
                heard.borrow_mut().push(String::from_utf8_lossy(&answer).into_owned());
                stream.set_idle(true);
                back.borrow_mut().push(stream);
            })
            .detach();
        });
        let (peer, _) = sim.take_dialed().pop().unwrap();
        sim.begin_drain(HOUR);
        sim.advance(2 * SECOND);
        assert_eq!(sim.take_received(peer), b"ask", "{by_mark}");
        sim.advance(10 * SECOND);
        sim.send(peer, b"answer");
        sim.settle();
        assert_eq!(*notes.borrow(), ["answer"], "{by_mark}");
        assert!(sim.is_finished() && pool.borrow().len() == 1);
    }
}

/// A connection to a server whose end is a daemon's, as crates for databases have it: the daemon reads it, and says what came.
fn client(sim: &mut Sim, said: &Notes) -> PeerId {
    let said = Rc::clone(said);
    sim.block_on(async move {
        let mut stream = Stream::connect("10.0.0.1:5432").await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        spawn_daemon(async move {
            let mut bytes = [0; 16];
            loop {
                match stream.read(&mut bytes).await {
                    Ok(count @ 1..) => {
                        said.borrow_mut().push(String::from_utf8_lossy(&bytes[..count]).into_owned())
                    }
                    Ok(_) => return said.borrow_mut().push("end".to_owned()),
                    Err(error) => return said.borrow_mut().push(format!("{:?}", error.kind())),
                }
            }
        })
        .detach();
    });
    let (peer, _) = sim.take_dialed().pop().unwrap();
    assert_eq!(sim.take_received(peer), b"hello");
    peer
}

#[test]
fn a_drain_does_not_wait_for_a_server_that_only_a_daemon_is_connected_to() {
    let (mut sim, said) = (Sim::new(Options::default()), Notes::default());
    let peer = client(&mut sim, &said);
    sim.begin_drain(HOUR);
    sim.settle();
    assert!(sim.is_finished());
    assert_eq!((sim.is_closed(peer), sim.is_reset(peer), sim.stats().open()), (true, false, 0));
    assert_eq!(sim.stats().open(), 0);
}

#[test]
fn a_task_that_waits_for_what_a_daemon_hears_from_a_server_is_waited_for() {
    let (mut sim, said) = (Sim::new(Options::default()), Notes::default());
    let peer = client(&mut sim, &said);
    let heard = Rc::clone(&said);
    sim.block_on(async move {
        let task = spawn_local(async move {
            while heard.borrow().is_empty() {
                sleep(MOMENT).await;
            }
        });
        task.detach();
    });
    sim.begin_drain(HOUR);
    sim.advance(60 * SECOND);
    assert!(!sim.is_finished());
    sim.send(peer, b"answer");
    sim.advance(2 * MOMENT);
    assert!(sim.is_finished());
    assert_eq!(said.borrow()[0], "answer");
}

#[test]
fn what_a_daemon_has_written_to_a_server_leaves_before_a_drain_is_over() {
    let mut sim = Sim::new(Options::default());
    sim.block_on(async {
        let mut stream = Stream::connect("10.0.0.1:5432").await.unwrap();
        spawn_daemon(async move {
            stopping().await;
            stream.write_all(&[b'x'; 300_000]).await.unwrap();
            pending::<()>().await;
        })
        .detach();
    });
    let (peer, _) = sim.take_dialed().pop().unwrap();
    sim.stop_reading(peer);
    sim.begin_drain(HOUR);
    sim.advance(5 * SECOND);
    assert!(!sim.is_finished(), "a peer that reads has time to");
    sim.start_reading(peer);
    sim.settle();
    assert!(sim.is_finished());
    assert_eq!(sim.take_received(peer).len(), 300_000);
    assert!(!sim.is_reset(peer));
}

#[test]
fn a_drain_does_not_wait_for_a_server_that_only_a_daemon_connects_to() {
    for answer in [Answer::Ignore, Answer::AcceptAfter(30 * SECOND)] {
        let mut sim = Sim::new(Options::default());
        sim.answer_connections(answer);
        let ended = Rc::<Cell<bool>>::default();
        let waits = Rc::clone(&ended);
        sim.block_on(async move {
            spawn_daemon(async {
                loop {
                    let _ = Stream::connect("10.0.0.1:5432").await;
                }
            })
            .detach();
            // Whoever waits for it is waited for.
            spawn_local(async move {
                sleep(2 * SECOND).await;
                waits.set(true);
            })
            .detach();
        });
        sim.begin_drain(HOUR);
        sim.advance(SECOND);
        assert!(!sim.is_finished());
        sim.advance(2 * SECOND);
        assert!(sim.is_finished() && ended.get());
        assert_eq!(sim.stats().open(), 0);
    }
}

#[test]
fn newcomers_have_the_place_of_who_has_been_idle_for_longest() {
    let options = Options::default().limits(ConnLimits::default().connections_max(3));
    let (mut sim, listener, notes) = world(options, Duration::ZERO, true);
    let peers: Vec<_> = (0..3)
        .map(|_| {
            let peer = sim.connect(listener);
            sim.advance(SECOND);
            peer
        })
        .collect();
    // The second has been idle for longest when the first has been served again.
    sim.send(peers[0], b"ping");
    sim.advance(SECOND);
    let newcomer = sim.connect(listener);
    sim.send(newcomer, b"ping");
    sim.settle();
    assert_eq!(sim.take_received(newcomer), b"PING");
    let closed: Vec<_> = peers.iter().map(|peer| sim.is_closed(*peer)).collect();
    assert_eq!(closed, [false, true, false]);
    assert_eq!(*notes.borrow(), ["ConnectionAborted"]);
    assert_eq!((sim.stats().evicted, sim.stats().shed), (1, 0));
}

#[test]
fn who_does_not_say_that_it_is_idle_keeps_its_place() {
    let options = Options::default().limits(ConnLimits::default().connections_max(1));
    let (mut sim, listener, _) = world(options, Duration::ZERO, false);
    let peer = sim.connect(listener);
    sim.advance(60 * SECOND);
    let newcomer = sim.connect(listener);
    sim.settle();
    assert_eq!((sim.is_closed(peer), sim.is_closed(newcomer)), (false, true));
    assert_eq!((sim.stats().evicted, sim.stats().shed), (0, 1));
}

#[test]
fn nobody_makes_room_who_has_been_idle_for_less_than_a_quarter_of_a_second() {
    for millis in 1000..1100 {
        let options = Options::default().limits(ConnLimits::default().connections_max(1));
        let (mut sim, listener, _) = world(options, Duration::ZERO, true);
        sim.advance(Duration::from_millis(millis));
        let peer = sim.connect(listener);
        sim.send(peer, b"ping");
        sim.settle();
        assert_eq!(sim.take_received(peer), b"PING");
        sim.advance(Duration::from_millis(200));
        let newcomer = sim.connect(listener);
        sim.settle();
        assert_eq!((sim.is_closed(peer), sim.is_closed(newcomer)), (false, true), "idle at {millis} ms");
    }
}

#[test]
fn a_half_that_writes_in_a_drain_goes_on_though_the_other_one_was_idle_and_left() {
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen_tasks(|stream, _peer| async move {
        let (mut reader, mut writer) = stream.into_split();
        reader.set_idle(true);
        drop(reader);
        for _ in 0..20 {
            sleep(MOMENT).await;
            writer.write_all(b"news").await.unwrap();
        }
    });
    let peer = sim.connect(listener);
    sim.settle();
    sim.begin_drain(HOUR);
    sim.advance(20 * SECOND);
    assert_eq!(sim.take_received(peer).len(), 80);
    assert!(sim.is_finished());
}

#[test]
fn a_stream_that_others_read_is_idle_by_its_mark() {
    let marks = Rc::<RefCell<Vec<IdleMark>>>::default();
    let mut sim = Sim::new(Options::default());
    let kept = Rc::clone(&marks);
    let listener = sim.listen_tasks(move |stream, _peer| {
        kept.borrow_mut().push(stream.idle_mark());
        async move {
            spawn_daemon(async move {
                let _stream = stream;
                pending::<()>().await;
            })
            .detach();
        }
    });
    let peers = [sim.connect(listener), sim.connect(listener)];
    sim.settle();
    marks.borrow()[0].set(true);
    marks.borrow()[1].set(true);
    marks.borrow()[1].set(false);
    sim.begin_drain(HOUR);
    sim.advance(4 * SECOND);
    assert_eq!(peers.map(|peer| sim.is_closed(peer)), [true, false]);
    // In the drain, and from outside of it.
    marks.borrow()[1].set(true);
    sim.advance(4 * SECOND);
    assert!(sim.is_finished());
    marks.borrow()[1].set(true);
}

/// A layer that changes nothing.
struct Same;

impl Layer for Same {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>, upper: &mut Upper<'_>) -> Flow {
        if upper.takes_more(conn) {
            upper.received(conn, input.bytes_mut());
            input.advance_all();
        }
        Flow::Continue
    }

    fn send(&mut self, conn: &mut Conn<'_>, plain: &[u8]) -> Flow {
        conn.send(plain);
        Flow::Continue
    }
}

#[test]
fn a_stream_that_is_idle_under_a_layer_is_retired_like_any_other() {
    let notes = Notes::default();
    let mut sim = Sim::new(Options::default());
    let kept = Rc::clone(&notes);
    let listener = sim.listen(move |_peer| {
        let notes = Rc::clone(&kept);
        let link: Link = in_task(move |stream| serve(stream, 5 * SECOND, true, notes));
        Layered::new(Same, link)
    });
    let peer = sim.connect(listener);
    sim.send(peer, b"ping");
    sim.advance(6 * SECOND);
    assert_eq!(sim.take_received(peer), b"PING");
    sim.begin_drain(HOUR);
    sim.advance(MOMENT);
    sim.send(peer, b"more");
    sim.advance(6 * SECOND);
    assert_eq!(sim.take_received(peer), b"MORE");
    sim.advance(4 * SECOND);
    assert_eq!(*notes.borrow(), ["ConnectionAborted"]);
    assert!(sim.is_finished());
}

/// The same with a last word.
struct Polite;

impl Layer for Polite {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>, upper: &mut Upper<'_>) -> Flow {
        Same.received(conn, input, upper)
    }

    fn send(&mut self, conn: &mut Conn<'_>, plain: &[u8]) -> Flow {
        Same.send(conn, plain)
    }

    fn finish(&mut self, conn: &mut Conn<'_>) {
        conn.send(b"bye");
    }
}

#[test]
fn a_layer_has_its_last_word_to_a_server_that_no_drain_waits_for() {
    for is_dropped in [true, false] {
        let mut sim = Sim::new(Options::default());
        sim.handle().run_on(0, move |local| {
            let link = in_task(move |mut stream| async move {
                stream.write_all(b"hello ").await.unwrap();
                spawn_daemon(async move {
                    if !is_dropped {
                        pending::<()>().await;
                    }
                    drop(stream);
                })
                .detach();
            });
            let to: Address = "10.0.0.1:5432".parse().unwrap();
            local.commands().connect(to, ConnectOptions::default(), Layered::new(Polite, link));
        });
        sim.settle();
        let (peer, _) = sim.take_dialed().pop().unwrap();
        sim.begin_drain(HOUR);
        sim.advance(5 * SECOND);
        assert!(sim.is_finished());
        assert_eq!(sim.take_received(peer), b"hello bye", "{is_dropped}");
        assert!(sim.is_closed(peer) && !sim.is_reset(peer));
    }
}

#[test]
fn on_real_sockets_a_drain_closes_idle_streams_behind_their_answers() {
    let (ended, ends) = mpsc::channel();
    let runtime = Runtime::builder()
        .workers(Workers::Count(1))
        .listen_tasks("127.0.0.1:0", move |stream, _peer| {
            let ended = ended.clone();
            async move {
                serve(stream, Duration::ZERO, true, Notes::default()).await;
                // The test may be over.
                let _ = ended.send(());
            }
        })
        .unwrap()
        .start()
        .unwrap();
    let mut client = TcpStream::connect(runtime.local_addrs()[0].as_socket_addr().unwrap()).unwrap();
    let mut answer = [0; 4];
    client.write_all(b"ping").unwrap();
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"PING");
    let stops = std::thread::spawn(move || runtime.stop(30 * SECOND).unwrap());
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
    drop(client);
    ends.recv().unwrap();
    assert_eq!(stops.join().unwrap().tasks_cut, 0);
}
