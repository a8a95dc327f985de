//! A turn that does not end is seen from outside while it lasts.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use netpoll_core::sim::{Options, Sim};
use netpoll_core::{Builder, Conn, Flow, Input, Protocol, Running, Runtime, StuckTurn, Workers};

const PATIENCE: Duration = Duration::from_secs(60);
/// From here on a turn is stuck: more than a busy machine takes a CPU away for, mostly.
const STUCK: Duration = Duration::from_millis(200);

/// Blocks its worker for each byte until the test lets it go, and answers which worker it was.
struct Blocks {
    release: Arc<Mutex<Receiver<()>>>,
}

impl Protocol for Blocks {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        self.release.lock().unwrap().recv().unwrap();
        conn.send(&[conn.worker() as u8]);
        Flow::Continue
    }
}

/// A runtime of those, a client that has blocked one of its workers, what lets it go, and which worker it is.
fn block(change: impl FnOnce(Builder) -> Builder) -> (Running, TcpStream, Sender<()>, usize) {
    let (let_go, release) = mpsc::channel();
    let release = Arc::new(Mutex::new(release));
    let builder = Runtime::builder().workers(Workers::Count(2)).stuck_turn(STUCK);
    let builder = builder
        .listen("127.0.0.1:0", move |_worker| {
            let release = Arc::clone(&release);
            move |_peer| Blocks { release: Arc::clone(&release) }
        })
        .unwrap();
    let running = change(builder).start().unwrap();
    let mut client = TcpStream::connect(running.local_addrs()[0].as_socket_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    // Once for its name.
    client.write_all(b"x").unwrap();
    let_go.send(()).unwrap();
    let mut worker = [0];
    client.read_exact(&mut worker).unwrap();
    client.write_all(b"x").unwrap();
    (running, client, let_go, usize::from(worker[0]))
}

fn until(mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "in vain");
        std::thread::yield_now();
    }
}

#[test]
fn the_age_of_a_turn_that_lasts_is_seen_from_outside_and_names_its_worker() {
    let (running, mut client, let_go, worker) = block(|builder| builder);
    let handle = running.handle().clone();
    assert_eq!(handle.setup().stuck_turn, STUCK);
    until(|| handle.stuck().iter().any(|(stuck, age)| *stuck == worker && *age >= STUCK));
    let turns = handle.worker_stats(worker).turns;
    let age = handle.turn_age(worker).unwrap();
    until(|| handle.turn_age(worker).unwrap() > age);
    assert_eq!(handle.worker_stats(worker).turns, turns, "it is the same turn");
    let_go.send(()).unwrap();
    client.read_exact(&mut [0]).unwrap();
    until(|| (0..2).all(|worker| handle.turn_age(worker).is_none()));
    assert_eq!(handle.stuck(), []);
    running.stop(PATIENCE).unwrap();
    assert_eq!(handle.turn_age(worker), None, "a worker that has ended works no more");
}

/// The next that is told of this worker: another may have lost its CPU for a while.
fn next(told: &Receiver<(StuckTurn, Option<String>)>, worker: usize) -> (StuckTurn, Option<String>) {
    loop {
        let said = told.recv_timeout(PATIENCE).expect("something is said");
        if said.0.worker == worker {
            return said;
        }
    }
}

#[test]
fn a_turn_that_is_stuck_is_told_once_by_a_thread_that_is_not_and_once_more_when_it_is_over() {
    let (tell, told) = mpsc::channel();
    let (running, mut client, let_go, worker) = block(|builder| {
        builder.on_stuck(|_turn| panic!("costs nobody anything")).on_stuck(move |turn| {
            let thread = std::thread::current().name().map(str::to_owned);
            tell.send((*turn, thread)).unwrap();
        })
    });
    let (turn, thread) = next(&told, worker);
    assert!(!turn.is_over && turn.age >= STUCK, "{turn:?}");
    assert_eq!(thread.as_deref(), Some("netpoll-watchdog"));
    assert_eq!(
        turn.to_string(),
        format!("worker {worker} has been in one turn for {:.1?} and serves nobody", turn.age)
    );
    // Eight looks, and no other word.
    let more = told.recv_timeout(STUCK * 2);
    assert!(more.is_err() || more.is_ok_and(|(more, _)| more.worker != worker));
    let_go.send(()).unwrap();
    client.read_exact(&mut [0]).unwrap();
    let (over, _) = next(&told, worker);
    assert!(over.is_over && over.age >= STUCK * 3, "{over:?}");
    let noted = running.handle().last_long_turn(worker).unwrap();
    assert!(noted.took < STUCK * 3 || noted.took == over.age, "{noted:?} {over:?}");
    // It is as good as any other from here on: the next is told as well.
    client.write_all(b"x").unwrap();
    assert!(!next(&told, worker).0.is_over);
    let_go.send(()).unwrap();
    running.stop(PATIENCE).unwrap();
}

#[test]
fn workers_that_wait_are_not_stuck_however_long_they_do() {
    let mut sim = Sim::new(Options::default().workers(2));
    sim.advance(Duration::from_secs(3600));
    assert_eq!((sim.handle().turn_age(0), sim.handle().turn_age(1)), (None, None));
    assert_eq!(sim.handle().stuck(), []);
}

#[test]
fn no_turn_can_be_stuck_from_its_beginning() {
    let error = Runtime::builder().stuck_turn(Duration::ZERO).start().err().unwrap();
    assert!(error.to_string().contains("stuck_turn"), "{error}");
}
