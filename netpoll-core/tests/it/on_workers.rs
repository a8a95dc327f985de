//! State, code and messages on workers.

use std::cell::{Cell, RefCell};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use bytes::Bytes;
use netpoll_core::sim::{Faults, Options, PeerId, Sim};
use netpoll_core::{
    Commands, Conn, ConnId, ConnLimits, ConnectOptions, Flow, Handle, Input, Instant, Lost, Message,
    Protocol, Runtime, Workers,
};

use crate::support::{Client, Echo, PanicsWhenDropped, is_on_linux};

const PATIENCE: Duration = Duration::from_secs(60);

/// What a panic says.
fn words(call: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(call)).expect_err("it panics");
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned())).expect("a text")
}

/// Bytes that a worker has seen.
#[derive(Default)]
struct Seen(Cell<usize>);

/// Answers with what its worker has seen.
struct Counting;

impl Protocol for Counting {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        let seen = conn.state::<Seen>();
        seen.0.set(seen.0.get() + input.len());
        input.advance_all();
        conn.send(format!("{}:{}\n", conn.worker(), seen.0.get()).as_bytes());
        Flow::Continue
    }
}

#[test]
fn each_worker_has_a_state_of_its_own_in_a_simulation() {
    let mut sim = Sim::new(Options::default().workers(2));
    sim.state(|worker| Seen(Cell::new(100 * worker.index)));
    let listener = sim.listen_each(|worker| {
        assert_eq!(worker.state::<Seen>().0.get(), 100 * worker.index, "a factory finds it");
        |_peer| Counting
    });
    let peers = [0, 1, 1].map(|worker| sim.connect_to(listener, worker));
    for peer in peers {
        sim.send(peer, b"abc");
        sim.settle();
    }
    let answers = peers.map(|peer| String::from_utf8(sim.take_received(peer)).unwrap());
    assert_eq!(answers, ["0:3\n", "1:103\n", "1:106\n"]);
    sim.handle().run_on(1, |local| assert_eq!(local.state::<Seen>().0.get(), 106));
    sim.run();
    assert_eq!(sim.stats().panics, 0);
}

#[test]
fn each_worker_has_a_state_of_its_own() {
    let running = Runtime::builder()
        .workers(Workers::Count(2))
        .state(|worker| Seen(Cell::new(100 * worker.index)))
        .state(|worker| worker.state::<Seen>().0.get() as u64)
        .listen("127.0.0.1:0", |_worker| |_peer| Counting)
        .unwrap()
        .start()
        .unwrap();
    let addr = running.local_addrs()[0].as_socket_addr().unwrap();
    let mut seen = [0, 100];
    for _ in 0..20 {
        let mut client = Client::connect(addr);
        client.send(b"abc");
        let line = client.line();
        let (worker, count) = line.trim().split_once(':').unwrap();
        let worker: usize = worker.parse().unwrap();
        seen[worker] += 3;
        assert_eq!(count, seen[worker].to_string());
    }
    let (answer, answers) = mpsc::channel();
    for worker in 0..2 {
        let answer = answer.clone();
        running.handle().run_on(worker, move |local| {
            answer.send((local.worker(), local.state::<Seen>().0.get(), *local.state::<u64>())).unwrap();
        });
    }
    let mut found = [answers.recv_timeout(PATIENCE).unwrap(), answers.recv_timeout(PATIENCE).unwrap()];
    found.sort_unstable();
    assert_eq!(found, [(0, seen[0], 0), (1, seen[1], 100)]);
    assert_eq!(running.stop(PATIENCE).unwrap().stats.panics, 0);
}

#[test]
fn a_state_that_nobody_has_made_is_a_panic_that_says_how() {
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen(|_peer| Counting);
    let peer = sim.connect(listener);
    sim.send(peer, b"abc");
    sim.settle();
    assert!(sim.is_reset(peer), "it cost its connection");
    let said = words(|| drop(sim.worker_info().state::<Seen>()));
    assert!(said.contains("Seen") && said.contains("`Builder::state(|worker| ..)`"), "{said}");
    let info = sim.worker_info();
    drop(sim);
    let said = words(|| drop(info.state::<Seen>()));
    assert!(said.contains("the worker has ended"), "{said}");
}

#[test]
fn a_state_that_cannot_be_made_is_an_error_of_start() {
    let failing = |failing: usize| {
        Runtime::builder().workers(Workers::Count(3)).try_state(move |worker| {
            if worker.index == failing {
                Err(io::Error::new(io::ErrorKind::NotFound, "no shard for it"))
            } else {
                Ok(Seen::default())
            }
        })
    };
    for worker in 0..3 {
        let error = failing(worker).start().err().expect("it does not start");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert_eq!(error.to_string(), format!("worker {worker} did not start: no shard for it"));
    }
    let panics = Runtime::builder().workers(Workers::Count(2)).state(|worker| {
        assert!(worker.index == 0, "no shard for it");
        Seen::default()
    });
    let error = panics.start().err().expect("it does not start");
    assert!(
        error.to_string().contains("worker 1") && error.to_string().contains("no shard for it"),
        "{error}"
    );
}

#[test]
fn a_second_state_of_one_type_is_refused() {
    let twice = || drop(Runtime::builder().state(|_| Seen::default()).state(|_| Seen::default()));
    assert!(words(twice).contains("Seen"));
    let mut sim = Sim::new(Options::default());
    sim.state(|_| Seen::default());
    assert!(words(|| sim.state(|_| Seen::default())).contains("Seen"));
}

/// Says when it was dropped, and panics.
struct Falling(&'static str, Arc<Mutex<Vec<&'static str>>>);

impl Drop for Falling {
    fn drop(&mut self) {
        self.1.lock().unwrap_or_else(|poison| poison.into_inner()).push(self.0);
        panic!("a destructor that panics");
    }
}

/// Keeps something as long as it is connected.
struct Keeping(Falling);

impl Protocol for Keeping {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        conn.send(self.0.0.as_bytes());
        input.advance_all();
        Flow::Continue
    }
}

#[test]
fn a_state_is_dropped_when_connections_and_timers_are_gone() {
    let log = Arc::<Mutex<Vec<&'static str>>>::default();
    let falling = |what| Falling(what, Arc::clone(&log));
    let order = ["timer", "connection", "newer state", "state"];

    let mut sim = Sim::new(Options::default());
    let (state, newer) = (Cell::new(Some(falling("state"))), Cell::new(Some(falling("newer state"))));
    sim.state(|_| state.take());
    sim.state(|_| Box::new(newer.take()));
    let mut kept = Some(falling("connection"));
    let listener = sim.listen(move |_peer| Keeping(kept.take().unwrap()));
    sim.connect(listener);
    let timer = falling("timer");
    sim.commands().after(PATIENCE, move |_local| drop(timer));
    sim.run();
    drop(sim);
    assert_eq!(*log.lock().unwrap_or_else(|poison| poison.into_inner()), order);

    let log = Arc::<Mutex<Vec<&'static str>>>::default();
    let falling = |what| {
        let log = Arc::clone(&log);
        move || Falling(what, Arc::clone(&log))
    };
    let (state, newer) = (falling("state"), falling("newer state"));
    let (connection, timer) = (falling("connection"), falling("timer"));
    let running = Runtime::builder()
        .workers(Workers::Count(1))
        .state(move |_| state())
        .state(move |_| Box::new(newer()))
        .on_start(move |_, commands| {
            let timer = timer();
            commands.after(PATIENCE, move |_local| drop(timer));
        })
        .listen("127.0.0.1:0", move |_| {
            let connection = connection.clone();
            move |_peer| Keeping(connection())
        })
        .unwrap()
        .start()
        .unwrap();
    let mut client = Client::connect(running.local_addrs()[0].as_socket_addr().unwrap());
    client.send(b"?");
    client.reads(b"connection");
    let stats = running.stop(Duration::ZERO).unwrap().stats;
    assert_eq!(stats.panics, 4);
    let mut log = log.lock().unwrap_or_else(|poison| poison.into_inner()).clone();
    log.retain(|what| *what != "timer");
    assert_eq!(log, order[1..], "the drain may have cut the connection before the timer went");
}

#[test]
fn code_runs_on_its_worker_in_the_order_in_which_it_was_handed_over() {
    let running = Runtime::builder().workers(Workers::Count(2)).start().unwrap();
    let (said, heard) = mpsc::channel();
    for number in 0..1_000 {
        let said = said.clone();
        running.handle().run_on(1, move |local| {
            said.send((local.worker(), number)).unwrap();
            // From there to another worker, and back.
            local.commands().run_on(0, move |local| assert_eq!(local.worker(), 0));
        });
    }
    for number in 0..1_000 {
        assert_eq!(heard.recv_timeout(PATIENCE), Ok((1, number)));
    }
    let stats = running.stop(PATIENCE).unwrap().stats;
    assert_eq!(stats.panics, 0);
}

#[test]
fn a_burst_of_code_and_messages_is_one_doorbell_write() {
    let (mut sim, members) = room(Options::default().workers(2), &[1]);
    sim.run();
    let before = sim.handle().worker_stats(1);
    for _ in 0..100 {
        sim.handle().run_on(1, |_local| ());
        sim.handle().tell(members.ids()[0], Word("x"));
        sim.handle().send_many(members.ids(), Bytes::from_static(b"y"));
    }
    sim.run();
    assert_eq!(sim.take_received(members.peers[0]).len(), 200);
    let after = sim.handle().worker_stats(1).since(&before);
    assert_eq!((after.wakeups_sent, after.wakeups_suppressed, after.mailbox_messages), (1, 299, 300));

    // From a callback on the other worker as well.
    let before = sim.handle().worker_stats(1);
    let ids = members.ids();
    sim.handle().run_on(0, move |local| {
        for _ in 0..100 {
            local.commands().run_on(1, |_local| ());
            local.commands().tell(ids[0], Word("x"));
        }
    });
    sim.run();
    let after = sim.handle().worker_stats(1).since(&before);
    assert_eq!((after.wakeups_sent, after.wakeups_suppressed), (1, 199));
}

#[test]
fn a_burst_to_a_real_worker_is_one_doorbell_write_while_it_is_awake_or_told() {
    let running = Runtime::builder().workers(Workers::Count(1)).start().unwrap();
    let (awake, is_awake) = mpsc::channel();
    let (open, gate) = mpsc::channel::<()>();
    running.handle().run_on(0, move |_local| {
        awake.send(()).unwrap();
        gate.recv_timeout(PATIENCE).unwrap();
    });
    is_awake.recv_timeout(PATIENCE).unwrap();
    let (done, is_done) = mpsc::channel();
    for _ in 0..1_000 {
        running.handle().run_on(0, |_local| ());
    }
    running.handle().run_on(0, move |_local| done.send(()).unwrap());
    open.send(()).unwrap();
    is_done.recv_timeout(PATIENCE).unwrap();
    let stats = running.stop(PATIENCE).unwrap().stats;
    // One for the burst, with the one that held the worker up; one for the stop; and one if the worker slept at the start.
    assert!(stats.wakeups_sent <= 3, "{} rings", stats.wakeups_sent);
    assert_eq!(stats.mailbox_messages, 1_003);
}

#[test]
fn code_that_panics_is_counted_and_nothing_else_notices() {
    let mut sim = Sim::new(Options::default().workers(2));
    let listener = sim.listen(|_peer| Echo);
    let peer = sim.connect_to(listener, 1);
    sim.settle();
    sim.handle().run_on(1, |_local| panic!("asked to"));
    sim.commands_of(1).run_on(1, |_local| panic!("asked to"));
    let owned = PanicsWhenDropped;
    sim.handle().run_on(1, move |_local| drop(owned));
    sim.send(peer, b"hello");
    sim.run();
    assert_eq!(sim.take_received(peer), b"hello");
    assert_eq!(sim.stats().panics, 3);
    assert!(words(|| sim.commands().run_on(2, |_local| ())).contains("no worker 2"));
    assert!(catch_unwind(AssertUnwindSafe(|| sim.handle().run_on(2, |_local| ()))).is_err());
}

#[test]
fn code_for_a_worker_that_has_ended_is_dropped_and_does_not_run() {
    let count = Arc::<AtomicUsize>::default();
    let running = Runtime::builder().workers(Workers::Count(1)).start().unwrap();
    let handle = running.handle().clone();
    running.stop(PATIENCE).unwrap();
    struct Owned(Arc<AtomicUsize>);
    impl Drop for Owned {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
            panic!("a destructor that panics");
        }
    }
    let owned = || Owned(Arc::clone(&count));
    let code = owned();
    handle.run_on(0, move |_local| {
        let _code = &code;
        unreachable!("it does not run");
    });
    assert_eq!(count.load(Ordering::Relaxed), 1);

    // A world that ends drops what it has not run, and messages that nobody opened.
    let (sim, members) = room(Options::default(), &[0]);
    let code = owned();
    sim.handle().run_on(0, move |_local| {
        let _code = &code;
        unreachable!("it does not run");
    });
    sim.handle().tell(members.ids()[0], owned());
    drop(sim);
    assert_eq!(count.load(Ordering::Relaxed), 3);
}

/// What members of a room say to each other.
#[derive(Clone)]
struct Word(&'static str);

/// Writes what it is told to its peer; hands on what that says to all members. `pause` pauses.
struct Member(Rc<RefCell<Vec<ConnId>>>);

impl Protocol for Member {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.0.borrow_mut().push(conn.id());
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        let bytes = Bytes::copy_from_slice(input.bytes());
        input.advance_all();
        if bytes == "pause" {
            return Flow::Pause;
        }
        conn.commands().send_many(self.0.borrow().iter().copied(), bytes);
        Flow::Continue
    }

    fn told(&mut self, conn: &mut Conn<'_>, message: Message) -> Flow {
        match message.downcast::<Word>() {
            Ok(Word("panic")) => panic!("asked to"),
            Ok(Word("close")) => return Flow::Close,
            Ok(Word(word)) => conn.send(word.as_bytes()),
            Err(other) if other.is::<u64>() => {
                conn.send(format!("{}", other.downcast_ref::<u64>().unwrap()).as_bytes());
            }
            Err(other) => conn.send(format!("{other:?}").as_bytes()),
        }
        Flow::Continue
    }
}

struct Members {
    peers: Vec<PeerId>,
    ids: Rc<RefCell<Vec<ConnId>>>,
}

impl Members {
    fn ids(&self) -> Vec<ConnId> {
        self.ids.borrow().clone()
    }
}

/// One member on each of these workers.
fn room(options: Options, workers: &[usize]) -> (Sim, Members) {
    let (mut sim, ids) = (Sim::new(options), Rc::<RefCell<Vec<ConnId>>>::default());
    let listener = sim.listen({
        let ids = Rc::clone(&ids);
        move |_peer| Member(Rc::clone(&ids))
    });
    let peers = workers.iter().map(|worker| {
        let peer = sim.connect_to(listener, *worker);
        sim.settle();
        peer
    });
    let peers = peers.collect();
    (sim, Members { peers, ids })
}

#[test]
fn a_message_reaches_the_protocol_of_its_connection_in_order() {
    let (mut sim, members) = room(Options::default().workers(2), &[0, 1]);
    let ids = members.ids();
    for (id, peer) in ids.iter().zip(&members.peers) {
        sim.handle().tell(*id, Word("one,"));
        sim.handle().send(*id, Bytes::from_static(b"two,"));
        sim.handle().tell(*id, 3_u64);
        sim.handle().tell(*id, ());
        sim.run();
        assert_eq!(sim.take_received(*peer), b"one,two,3Message { .. }");
        sim.commands().tell(*id, Word("one,"));
        sim.commands().send(*id, Bytes::from_static(b"two,"));
        sim.commands().tell(*id, Word("three"));
        sim.run();
        assert_eq!(sim.take_received(*peer), b"one,two,three");
    }
    sim.handle().tell(ids[0], Word("close"));
    sim.handle().tell(ids[0], Word("nobody hears it"));
    sim.handle().tell(ids[1], Word("panic"));
    sim.settle();
    assert!(sim.is_closed(members.peers[0]) && sim.is_reset(members.peers[1]));
    assert_eq!((sim.open(), sim.stats().panics), (0, 1));
}

#[test]
fn a_message_that_a_protocol_does_not_know_of_changes_nothing() {
    struct Pausing(Rc<Cell<Option<ConnId>>>);
    impl Protocol for Pausing {
        fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
            self.0.set(Some(conn.id()));
            conn.send(input.bytes());
            input.advance_all();
            Flow::Pause
        }
    }
    let (mut sim, id) = (Sim::new(Options::default()), Rc::<Cell<Option<ConnId>>>::default());
    let listener = sim.listen({
        let id = Rc::clone(&id);
        move |_peer| Pausing(Rc::clone(&id))
    });
    let peer = sim.connect(listener);
    sim.send(peer, b"a");
    sim.settle();
    sim.handle().tell(id.get().unwrap(), PanicsWhenDropped);
    sim.send(peer, b"b");
    sim.settle();
    assert_eq!(sim.take_received(peer), b"a", "it goes on pausing");
    assert_eq!(sim.stats().panics, 1);
    assert_eq!(sim.open(), 1);
}

#[test]
fn messages_go_between_real_workers() {
    /// Tells all others what its peer says, and its peer what the others tell.
    struct Chat(Arc<Mutex<Vec<ConnId>>>);
    impl Protocol for Chat {
        fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
            let text = String::from_utf8(input.bytes().to_vec()).unwrap();
            input.advance_all();
            let mut members = self.0.lock().unwrap();
            if text == "join" {
                members.push(conn.id());
                conn.send(b"ok");
                return Flow::Continue;
            }
            for member in members.iter() {
                conn.commands().tell(*member, text.clone());
            }
            Flow::Continue
        }

        fn told(&mut self, conn: &mut Conn<'_>, message: Message) -> Flow {
            conn.send(message.downcast::<String>().unwrap().as_bytes());
            Flow::Continue
        }
    }
    let members = Arc::<Mutex<Vec<ConnId>>>::default();
    let shared = Arc::clone(&members);
    let running = Runtime::builder()
        .workers(Workers::Count(2))
        .listen("127.0.0.1:0", move |_worker| {
            let members = Arc::clone(&shared);
            move |_peer| Chat(Arc::clone(&members))
        })
        .unwrap()
        .start()
        .unwrap();
    let mut clients: Vec<Client> =
        (0..20).map(|_| Client::connect(running.local_addrs()[0].as_socket_addr().unwrap())).collect();
    for client in &mut clients {
        client.send(b"join");
        client.reads(b"ok");
    }
    let workers: std::collections::HashSet<usize> =
        members.lock().unwrap().iter().map(|id| id.worker()).collect();
    assert!(workers.len() == 2 || !is_on_linux("connections are not spread"), "both workers have some");
    for (round, text) in ["one", "two", "three"].into_iter().enumerate() {
        clients[round].send(text.as_bytes());
        clients.iter_mut().for_each(|client| client.reads(text.as_bytes()));
    }
    running.handle().send_many(members.lock().unwrap().iter().copied(), Bytes::from_static(b"bye"));
    clients.iter_mut().for_each(|client| client.reads(b"bye"));
    let stats = running.stop(Duration::ZERO).unwrap().stats;
    assert_eq!(stats.panics, 0);
}

#[test]
fn bytes_for_many_are_one_message_for_each_worker() {
    let workers: Vec<usize> = (0..30).map(|member| member % 3).collect();
    for faults in [Faults::none(), Faults::stormy()] {
        let (mut sim, members) = room(Options::default().workers(3).faults(faults), &workers);
        let before = [0, 1, 2].map(|worker| sim.handle().worker_stats(worker));
        sim.handle().send_many(members.ids(), Bytes::from_static(b"all"));
        sim.settle();
        for (worker, before) in before.iter().enumerate() {
            assert_eq!(sim.handle().worker_stats(worker).since(before).mailbox_messages, 1);
        }
        assert!(members.peers.iter().all(|peer| sim.take_received(*peer) == b"all"));

        // From a callback: those of its own worker take none.
        let before = [0, 1, 2].map(|worker| sim.handle().worker_stats(worker));
        let large = vec![b'x'; 10_000];
        sim.send(members.peers[0], &large);
        sim.settle();
        assert!(members.peers.iter().all(|peer| sim.take_received(*peer) == large));
        let letters =
            |worker: usize| sim.handle().worker_stats(worker).since(&before[worker]).mailbox_messages;
        assert_eq!(letters(0), 0);
        assert!(letters(1) >= 1 && letters(1) == letters(2), "one for each time that input came");
    }
}

#[test]
fn a_message_for_many_takes_several_turns_and_none_overtakes_it() {
    let (mut sim, members) = room(Options::default(), &[0; 1_000]);
    let ids = members.ids();
    sim.handle().send_many(ids.iter().copied(), Bytes::from_static(b"1"));
    sim.handle().send(ids[999], Bytes::from_static(b"2"));
    let served = |sim: &mut Sim| {
        sim.turn();
        members.peers.iter().filter(|peer| !sim.take_received(**peer).is_empty()).count()
    };
    assert_eq!([0; 4].map(|_| served(&mut sim)), [256, 256, 256, 232]);
    assert_eq!(served(&mut sim), 0);
    let last = sim.stats().mailbox_messages;
    assert_eq!(last, 2);

    sim.handle().send_many(ids.iter().copied(), Bytes::from_static(b"1"));
    sim.handle().send(ids[999], Bytes::from_static(b"2"));
    sim.run();
    assert_eq!(sim.take_received(members.peers[0]), b"1");
    assert_eq!(sim.take_received(members.peers[999]), b"12", "in the order in which they were asked for");
}

#[test]
fn many_are_told_copies_by_one_message_for_each_worker() {
    let workers: Vec<usize> = (0..30).map(|member| member % 3).collect();
    let (mut sim, members) = room(Options::default().workers(3), &workers);
    let before = [0, 1, 2].map(|worker| sim.handle().worker_stats(worker));
    let letters =
        |sim: &Sim, worker: usize| sim.handle().worker_stats(worker).since(&before[worker]).mailbox_messages;
    sim.handle().tell_many(members.ids(), 7_u64);
    sim.settle();
    assert_eq!([0, 1, 2].map(|worker| letters(&sim, worker)), [1, 1, 1]);
    assert!(members.peers.iter().all(|peer| sim.take_received(*peer) == b"7"));

    // From a callback: those of its own worker take none.
    let ids = members.ids();
    sim.handle().run_on(0, move |local| local.commands().tell_many(ids, 8_u64));
    sim.settle();
    assert_eq!([0, 1, 2].map(|worker| letters(&sim, worker)), [2, 2, 2], "the code is one");
    assert!(members.peers.iter().all(|peer| sim.take_received(*peer) == b"8"));
}

#[test]
fn many_who_are_told_take_several_turns_and_nothing_overtakes_them() {
    let (mut sim, members) = room(Options::default(), &[0; 600]);
    let ids = members.ids();
    sim.handle().tell_many(ids.iter().copied(), Word("1"));
    sim.handle().tell(ids[599], Word("2"));
    let mut served = || {
        sim.turn();
        members.peers.iter().filter(|peer| !sim.take_received(**peer).is_empty()).count()
    };
    assert_eq!([0; 3].map(|_| served()), [256, 256, 88]);

    sim.handle().tell_many([ids[599], ids[0], ids[599]], Word("3"));
    sim.handle().tell(ids[599], Word("4"));
    sim.run();
    assert_eq!(sim.take_received(members.peers[0]), b"3");
    assert_eq!(sim.take_received(members.peers[599]), b"334", "in the order in which they were asked for");
}

#[test]
fn a_copy_that_panics_is_counted_and_the_others_are_told() {
    /// Its second copy panics.
    struct Fragile(Arc<AtomicUsize>);
    impl Clone for Fragile {
        fn clone(&self) -> Self {
            assert!(self.0.fetch_add(1, Ordering::Relaxed) != 1, "asked to");
            Self(Arc::clone(&self.0))
        }
    }
    let (mut sim, members) = room(Options::default(), &[0; 3]);
    let (ids, copies) = (members.ids(), Arc::new(AtomicUsize::new(0)));
    let fragile = Fragile(Arc::clone(&copies));
    sim.commands().tell_many(ids.iter().copied(), fragile);
    sim.settle();
    let told = members.peers.iter().map(|peer| sim.take_received(*peer).len()).collect::<Vec<_>>();
    assert_eq!((told, copies.load(Ordering::Relaxed)), (vec![14, 0, 14], 3));
    assert_eq!((sim.open(), sim.stats().panics), (3, 1));
    assert_eq!(Arc::strong_count(&copies), 1, "none is left");
}

#[test]
fn two_that_answer_each_other_for_ever_starve_nobody() {
    struct Ball(ConnId, ConnId);
    struct Player;
    impl Protocol for Player {
        fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
            conn.send(input.bytes());
            input.advance_all();
            Flow::Continue
        }

        fn told(&mut self, conn: &mut Conn<'_>, message: Message) -> Flow {
            let Ok(Ball(from, to)) = message.downcast() else { return Flow::Continue };
            conn.commands().tell(from, Ball(to, from));
            Flow::Continue
        }
    }
    let mut sim = Sim::new(Options::default());
    let ids = Rc::<RefCell<Vec<ConnId>>>::default();
    let listener = sim.listen(|_peer| Player);
    let peer = sim.connect(listener);
    let members = sim.listen({
        let ids = Rc::clone(&ids);
        move |_peer| Member(Rc::clone(&ids))
    });
    let _ = (sim.connect(members), sim.connect(members));
    sim.settle();
    // A closure that hands itself on is the same.
    fn again(local: &mut netpoll_core::Local<'_>) {
        let worker = local.worker();
        local.commands().run_on(worker, again);
    }
    sim.handle().run_on(0, again);
    sim.send(peer, b"hello");
    for _ in 0..10 {
        sim.turn();
    }
    assert_eq!(sim.take_received(peer), b"hello");
    drop(sim);

    let mut sim = Sim::new(Options::default());
    let players = Rc::<RefCell<Vec<ConnId>>>::default();
    let listener = sim.listen({
        let players = Rc::clone(&players);
        move |_peer| Named(Player, Rc::clone(&players))
    });
    let peers = [0; 3].map(|_| sim.connect(listener));
    sim.settle();
    let ids = players.borrow().clone();
    sim.handle().tell(ids[0], Ball(ids[1], ids[0]));
    sim.send(peers[2], b"hello");
    for _ in 0..10 {
        sim.turn();
    }
    assert_eq!(sim.take_received(peers[2]), b"hello");

    struct Named(Player, Rc<RefCell<Vec<ConnId>>>);
    impl Protocol for Named {
        fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
            self.1.borrow_mut().push(conn.id());
            Flow::Continue
        }

        fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
            self.0.received(conn, input)
        }

        fn told(&mut self, conn: &mut Conn<'_>, message: Message) -> Flow {
            self.0.told(conn, message)
        }
    }
}

/// Asks the other worker for its number at each byte, and says it.
struct Asking;

impl Protocol for Asking {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        let (id, other) = (conn.id(), 1 - conn.worker());
        conn.commands().run_on(other, move |local| {
            let seen = local.state::<Seen>().0.get();
            local.commands().tell(id, seen as u64);
        });
        Flow::Continue
    }

    fn told(&mut self, conn: &mut Conn<'_>, message: Message) -> Flow {
        conn.send(message.downcast::<u64>().unwrap().to_string().as_bytes());
        Flow::Continue
    }
}

#[test]
fn in_a_drain_a_worker_stays_for_others_that_need_it() {
    let mut sim = Sim::new(Options::default().workers(2));
    sim.state(|worker| Seen(Cell::new(100 + worker.index)));
    let listener = sim.listen(|_peer| Asking);
    let peer = sim.connect_to(listener, 0);
    sim.run();
    sim.begin_drain(PATIENCE);
    // Worker 1 has nothing left.
    sim.advance(Duration::from_millis(500));
    sim.send(peer, b"?");
    sim.settle();
    assert_eq!(sim.take_received(peer), b"101");
    assert!(!sim.is_finished());
    sim.reset(peer);
    sim.run();
    assert!(sim.is_finished(), "and no longer");

    let running = Runtime::builder()
        .workers(Workers::Count(2))
        .limits(ConnLimits::default().drain_grace(PATIENCE))
        .state(|worker| Seen(Cell::new(100 + worker.index)))
        .listen("127.0.0.1:0", |_worker| |_peer| Asking)
        .unwrap()
        .start()
        .unwrap();
    let mut client = Client::connect(running.local_addrs()[0].as_socket_addr().unwrap());
    client.send(b"?");
    let number = client.reads_some();
    running.handle().drain(PATIENCE);
    while !running.handle().is_draining() {
        std::thread::yield_now();
    }
    // Longer than a listener stays for handshakes that had begun: behind that the other worker has nothing left.
    let begin = running.handle().now();
    while running.handle().now().duration_since(begin) < Duration::from_millis(200) {
        client.send(b"?");
        assert_eq!(client.reads_some(), number);
    }
    drop(client);
    assert_eq!(running.stop(PATIENCE).unwrap().cut, 0);
}

#[test]
fn every_thread_can_read_the_clock_of_the_workers() {
    let mut sim = Sim::new(Options::default());
    sim.advance(Duration::from_micros(1_500));
    assert_eq!(sim.handle().now(), sim.now());
    assert_eq!(sim.now().as_nanos(), 1_500_000);

    let running = Runtime::builder().workers(Workers::Count(1)).start().unwrap();
    let (said, heard) = mpsc::channel();
    let before = running.handle().now();
    running.handle().run_on(0, move |local| said.send((local.now(), local.handle().now())).unwrap());
    let (turn, inside) = heard.recv_timeout(PATIENCE).unwrap();
    let after = running.handle().now();
    assert!(turn <= inside && before <= inside && inside <= after);
    running.stop(PATIENCE).unwrap();
}

/// Has the other worker count, and is gone.
struct Parting(Arc<AtomicUsize>);

impl Protocol for Parting {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        let (other, heard) = (1 - conn.worker(), Arc::clone(&self.0));
        conn.commands().run_on(other, move |_local| {
            heard.fetch_add(1, Ordering::Relaxed);
        });
        Flow::Reset
    }
}

#[test]
fn what_the_last_connection_of_a_drain_asks_of_another_worker_is_done() {
    let heard = Arc::new(AtomicUsize::new(0));
    let mut sim = Sim::new(Options::default().workers(2));
    let counter = Arc::clone(&heard);
    let listener = sim.listen(move |_peer| Parting(Arc::clone(&counter)));
    let peer = sim.connect_to(listener, 0);
    sim.run();
    sim.begin_drain(PATIENCE);
    sim.advance(Duration::from_millis(500));
    sim.send(peer, b"!");
    sim.settle();
    assert!(sim.is_finished());
    assert_eq!(heard.load(Ordering::Relaxed), 1);
}

/// Keeps the worker and the time of its loss in the worker's state.
struct Mourned;

#[derive(Default)]
struct Losses(RefCell<Vec<(usize, Instant)>>);

impl Protocol for Mourned {
    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        Flow::Continue
    }

    fn lost(&mut self, _reason: Lost, commands: &mut Commands) {
        if let (Some(worker), Some(now)) = (commands.worker(), commands.now()) {
            let losses = commands.state::<Losses>().expect("there is a worker");
            losses.0.borrow_mut().push((worker, now));
        }
    }
}

#[test]
fn lost_reaches_the_state_of_its_worker_and_a_test_looks_at_it() {
    let mut sim = Sim::new(Options::default().workers(2));
    sim.state(|_worker| Losses::default());
    let listener = sim.listen(|_peer| Mourned);
    let peer = sim.connect_to(listener, 1);
    sim.advance(Duration::from_secs(3));
    sim.reset(peer);
    sim.settle();
    assert!(sim.state_of::<Losses>(0).0.borrow().is_empty());
    let (worker, at) = sim.state_of::<Losses>(1).0.borrow()[0];
    assert_eq!((worker, at), (1, sim.now()));
}

#[test]
fn lost_finds_no_worker_where_its_connection_was_never_tried() {
    struct Told(mpsc::Sender<(Option<usize>, Option<Instant>, bool)>);
    impl Protocol for Told {
        fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
            Flow::Close
        }
        fn lost(&mut self, _reason: Lost, commands: &mut Commands) {
            let has_state = commands.state::<Losses>().is_some();
            self.0.send((commands.worker(), commands.now(), has_state)).unwrap();
        }
    }
    let running = Runtime::builder().workers(Workers::Count(1)).pin(false).start().unwrap();
    let handle = running.handle().clone();
    running.stop(Duration::ZERO).unwrap();
    let (said, says) = mpsc::channel();
    handle.connect(0, "127.0.0.1:1", ConnectOptions::default(), Told(said));
    assert_eq!(says.recv().unwrap(), (None, None, false));
}

/// Tells a connection what was said, or that nothing was, when it is dropped.
struct Owed {
    handle: Handle,
    to: ConnId,
    said: Option<&'static str>,
}

impl Owed {
    fn say(mut self, said: &'static str) {
        self.said = Some(said);
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        self.handle.tell(self.to, self.said);
    }
}

/// Asks the worker of the other runtime, or its own; a byte says what the code does there.
struct AskingThere(Handle);

impl Protocol for AskingThere {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        let panics = input.bytes() == b"p";
        input.advance_all();
        let owed = Owed { handle: conn.local().handle().clone(), to: conn.id(), said: None };
        self.0.run_on(0, move |_local| {
            assert!(!panics, "as the test wants");
            owed.say("said");
        });
        Flow::Pause
    }

    fn told(&mut self, conn: &mut Conn<'_>, message: Message) -> Flow {
        let said = message.downcast::<Option<&'static str>>().unwrap();
        conn.send(said.unwrap_or("none").as_bytes());
        Flow::Continue
    }
}

#[test]
fn who_is_answered_by_a_destructor_hears_of_code_that_panics_and_of_a_worker_that_has_ended() {
    let build = || Runtime::builder().workers(Workers::Count(1)).pin(false);
    let asked = build().start().unwrap();
    let there = asked.handle().clone();
    let listen = move |_worker: &_| {
        let there = there.clone();
        move |_peer| AskingThere(there.clone())
    };
    let running = build().listen("127.0.0.1:0", listen).unwrap().start().unwrap();
    let mut client = Client::connect(running.local_addrs()[0].as_socket_addr().unwrap());
    client.send(b"x");
    client.reads(b"said");
    client.send(b"p");
    client.reads(b"none");
    asked.stop(Duration::ZERO).unwrap();
    client.send(b"x");
    client.reads(b"none");
}

/// Answers each byte with what its worker has counted.
struct Tally;

impl Protocol for Tally {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        let stats = conn.worker_stats();
        let counts =
            [stats.received_bytes, stats.sent_bytes, stats.accepted, u64::from(stats.syscalls_recv > 0)];
        conn.send(format!("{counts:?}").as_bytes());
        Flow::Continue
    }
}

#[test]
fn a_callback_sees_what_its_worker_and_its_driver_have_counted() {
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen(|_peer| Tally);
    let peer = sim.connect(listener);
    sim.send(peer, b"12345");
    sim.settle();
    assert_eq!(sim.take_received(peer), b"[0, 0, 1, 0]", "the first turn is not over");
    sim.send(peer, b"6");
    sim.settle();
    assert_eq!(sim.take_received(peer), b"[5, 12, 1, 1]");
}

#[test]
fn code_for_the_next_turn_lets_every_socket_that_has_something_have_its_turn_before() {
    fn goes_on(local: &mut netpoll_core::Local<'_>, runs: Rc<Cell<usize>>) {
        runs.set(runs.get() + 1);
        if runs.get() < 100 {
            local.commands().next_turn(move |local| goes_on(local, runs));
        }
    }
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen(|_peer| Echo);
    let peer = sim.connect(listener);
    sim.settle();
    let runs = Rc::new(Cell::new(0));
    let counted = Rc::clone(&runs);
    sim.commands().next_turn(move |local| goes_on(local, counted));
    for turn in 1..=50 {
        sim.send(peer, b"?");
        sim.turn();
        assert_eq!((runs.get(), sim.take_received(peer)), (turn, b"?".to_vec()), "once in each turn");
    }
    // It does not sleep before the rest, and then it does.
    sim.run();
    assert_eq!((runs.get(), sim.stats().panics), (100, 0));
}

#[test]
fn code_for_the_next_turn_may_panic_and_is_dropped_when_its_worker_ends() {
    let mut sim = Sim::new(Options::default());
    let (runs, held) = (Rc::new(Cell::new(0)), Rc::new(()));
    let counted = Rc::clone(&runs);
    sim.commands().next_turn(|_local| panic!("as told"));
    sim.commands().next_turn(move |_local| counted.set(1));
    sim.run();
    assert_eq!((runs.get(), sim.stats().panics), (1, 1));

    // One that never ends holds no drain up, and owns nothing in the end.
    fn for_ever(local: &mut netpoll_core::Local<'_>, held: Rc<()>) {
        let keeps = Rc::clone(&held);
        local.commands().next_turn(move |local| for_ever(local, keeps));
    }
    let owned = Rc::clone(&held);
    sim.commands().next_turn(move |local| for_ever(local, owned));
    sim.turn();
    sim.begin_drain(Duration::from_secs(1));
    sim.run();
    assert!(sim.is_finished());
    drop(sim);
    assert_eq!(Rc::strong_count(&held), 1);
}
