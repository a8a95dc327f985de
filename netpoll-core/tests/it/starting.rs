//! A runtime starts whole or not at all.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use netpoll_core::Conn;
use netpoll_core::{
    Builder, Commands, ConnectOptions, Flow, Input, Lost, Protocol, Running, Runtime, WorkerInfo, Workers,
};

use crate::support::Echo;

const PATIENCE: Duration = Duration::from_secs(20);

/// Starts it on a thread of its own, so that a start that never returns fails the test instead of holding it up.
fn start(builder: Builder) -> io::Result<Running> {
    let (done, outcome) = mpsc::channel();
    std::thread::spawn(move || {
        // Nobody listens when it took too long, and the test has failed then.
        let _ = done.send(builder.start());
    });
    outcome.recv_timeout(PATIENCE).expect("start returns")
}

fn refused(builder: Builder) -> io::Error {
    start(builder).err().expect("it does not start")
}

fn three() -> Builder {
    Runtime::builder().workers(Workers::Count(3))
}

/// A port that was free a moment ago.
fn unused_addr() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn assert_names(error: &io::Error, worker: usize, cause: &str) {
    let text = error.to_string();
    assert!(text.contains(&format!("worker {worker}")) && text.contains(cause), "{text}");
}

#[test]
fn a_factory_that_panics_on_one_worker_is_an_error_of_start_whichever_it_is() {
    for failing in 0..3 {
        let factory = move |worker: &WorkerInfo| {
            assert!(worker.index != failing, "no database for it");
            |_peer| Echo
        };
        let error = refused(three().listen("127.0.0.1:0", factory).unwrap());
        assert_names(&error, failing, "no database for it");
    }
}

#[test]
fn an_on_start_that_panics_on_one_worker_is_an_error_of_start_whichever_it_is() {
    for failing in 0..3 {
        let error = refused(three().on_start(move |worker, _commands| {
            assert!(worker.index != failing, "no database for it");
        }));
        assert_names(&error, failing, "no database for it");
    }
}

#[test]
fn a_start_that_failed_leaves_the_port_free_and_nobody_running() {
    let addr = unused_addr();
    let alive = Arc::new(());
    let held = Arc::clone(&alive);
    let factory = move |worker: &WorkerInfo| {
        assert!(worker.index != 2, "not this one");
        let held = Arc::clone(&held);
        move |_peer| {
            let _held = &held;
            Echo
        }
    };
    refused(three().listen(addr, factory).unwrap());
    TcpListener::bind(addr).expect("the port is free");
    // A worker that had not reported a second later is left alone, and ends by itself.
    let patience = Instant::now() + PATIENCE;
    while Arc::strong_count(&alive) > 1 {
        assert!(Instant::now() < patience, "workers are gone, with what they were made of");
        std::thread::yield_now();
    }
}

/// Reports how its dial ended.
struct Dialed(mpsc::Sender<String>);

impl Protocol for Dialed {
    fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        Flow::Close
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        let _ = self.0.send(format!("{reason:?}"));
    }
}

#[test]
fn a_worker_of_a_start_that_fails_dials_nobody_and_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let (sender, reports) = mpsc::channel();
    let sender = Mutex::new(sender);
    refused(three().on_start(move |worker, commands| {
        assert!(worker.index != 1, "not this one");
        let sender = sender.lock().unwrap().clone();
        commands.connect(to, ConnectOptions::default(), Dialed(sender));
    }));
    for _ in [0, 2] {
        let end = reports.recv_timeout(PATIENCE).unwrap();
        assert!(end.contains("ConnectFailed") && end.contains("NotConnected"), "{end}");
    }
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().err().map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
}

#[test]
fn a_start_that_failed_does_not_wait_for_a_factory_that_is_still_running() {
    let addr = unused_addr();
    let (release, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let factory = move |worker: &WorkerInfo| {
        match worker.index {
            0 => drop(gate.lock().unwrap().recv()),
            1 => panic!("no database for it"),
            _ => {}
        }
        |_peer| Echo
    };
    let error = refused(three().listen(addr, factory).unwrap());
    assert_names(&error, 1, "no database for it");
    TcpListener::bind(addr).expect("the port is free");
    drop(release);
}

#[test]
fn the_first_turn_does_not_count_starting_as_work() {
    let slow = Duration::from_millis(500);
    let builder = Runtime::builder().workers(Workers::Count(1)).long_turn(slow);
    let running = start(builder.on_start(move |_worker, _commands| std::thread::sleep(slow))).unwrap();
    let stats = running.stop(Duration::ZERO).unwrap().stats;
    assert_eq!(stats.long_turns, 0);
    assert!(stats.busy_nanos < slow.as_nanos() as u64, "{} ns", stats.busy_nanos);
}

thread_local! {
    /// What code of the program has run on this thread.
    static RAN: std::cell::RefCell<Vec<&'static str>> = const { std::cell::RefCell::new(Vec::new()) };
}

#[test]
fn what_runs_on_a_threads_start_runs_before_everything_else_and_on_the_same_thread() {
    struct Done;
    let ran = |what| RAN.with_borrow_mut(|all| all.push(what));
    let (sender, order) = mpsc::channel();
    let sender = Mutex::new(sender);
    // Asked for in the order in which it does not run.
    let builder = three()
        .on_start(move |worker, _commands| {
            ran("start");
            sender.lock().unwrap().send((worker.index, RAN.take())).unwrap();
        })
        .listen("127.0.0.1:0", move |_worker| {
            ran("factory");
            |_peer| Echo
        })
        .unwrap()
        .state(move |_worker| {
            ran("state");
            Done
        })
        .on_thread_start(move |_worker| ran("thread"))
        .on_thread_start(move |_worker| {
            ran("thread again");
            Ok(())
        });
    let running = start(builder).unwrap();
    let mut all: Vec<_> = order.iter().take(3).collect();
    all.sort();
    for (index, (worker, ran)) in all.into_iter().enumerate() {
        assert_eq!((worker, ran), (index, vec!["thread", "thread again", "state", "factory", "start"]));
    }
    running.stop(Duration::ZERO).unwrap();
}

#[test]
fn what_runs_on_a_threads_start_and_fails_is_an_error_of_start() {
    let error = refused(three().on_thread_start(|worker| match worker.index {
        1 => Err(io::Error::new(io::ErrorKind::NotFound, "no context")),
        _ => Ok(()),
    }));
    assert_names(&error, 1, "no context");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    let error = refused(three().on_thread_start(|worker| assert!(worker.index != 2, "no context either")));
    assert_names(&error, 2, "no context either");
}

/// Panics when it is dropped.
struct Grenade;

impl Drop for Grenade {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "a destructor panicked");
    }
}

#[test]
fn what_makes_protocols_may_panic_when_it_is_dropped() {
    let (first, second) = (Grenade, Grenade);
    let factory = move |_worker: &WorkerInfo| {
        let _held = &first;
        |_peer| Echo
    };
    let builder = three().listen("127.0.0.1:0", factory).unwrap().on_start(move |_worker, _commands| {
        let _held = &second;
    });
    start(builder).unwrap().stop(Duration::ZERO).unwrap();
}

#[test]
fn what_a_factory_and_an_on_start_return_is_an_error_of_start_with_its_kind() {
    let denied = |what: &str| io::Error::new(io::ErrorKind::PermissionDenied, what.to_owned());
    let listening = three().try_listen("127.0.0.1:0", move |worker| match worker.index {
        1 => Err(denied("no certificate")),
        _ => Ok(|_peer| Echo),
    });
    let error = refused(listening.unwrap());
    assert_names(&error, 1, "no certificate");
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);

    let error = refused(three().on_start(move |worker, _commands| match worker.index {
        2 => Err(denied("no database")),
        _ => Ok(()),
    }));
    assert_names(&error, 2, "no database");
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
}
