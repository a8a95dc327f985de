//! A stream whose task does not read, below a layer and without one: what comes waits, and is heard in front of every end.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use netpoll_core::net::{Stream, in_task};
use netpoll_core::sim::{Options, PeerId, Sim};
use netpoll_core::task::stopping;
use netpoll_core::time::sleep;
use netpoll_core::{Conn, Flow, Input, Layer, Layered, Upper};

const SECOND: Duration = Duration::from_secs(1);
/// More than a stream takes in that nobody reads, several reads of it.
const MUCH: usize = 300_000;

type Notes = Rc<RefCell<Vec<String>>>;

/// Turns each byte round, so that whatever goes past it is seen.
struct Turns;

fn turned(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| !byte).collect()
}

impl Layer for Turns {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>, upper: &mut Upper<'_>) -> Flow {
        if upper.takes_more(conn) {
            input.bytes_mut().iter_mut().for_each(|byte| *byte = !*byte);
            upper.received(conn, input.bytes_mut());
            input.advance_all();
        }
        Flow::Continue
    }

    fn send(&mut self, conn: &mut Conn<'_>, plain: &[u8]) -> Flow {
        conn.send(&turned(plain));
        Flow::Continue
    }
}

fn noise() -> Vec<u8> {
    (0..MUCH).map(|at| (at % 251) as u8).collect()
}

/// So many layers over a stream, and its peer.
struct World {
    sim: Sim,
    peer: PeerId,
    layers: usize,
    notes: Notes,
}

impl World {
    fn new<F, T>(layers: usize, seed: u64, serve: F) -> Self
    where
        F: Fn(Stream, Notes) -> T + Clone + 'static,
        T: Future<Output = ()> + 'static,
    {
        let notes = Notes::default();
        let mut sim = Sim::new(Options::default().seed(seed));
        let kept = Rc::clone(&notes);
        let serve = move |stream| serve(stream, Rc::clone(&kept));
        let listener = match layers {
            0 => sim.listen(move |_peer| in_task(serve.clone())),
            1 => sim.listen(move |_peer| Layered::new(Turns, in_task(serve.clone()))),
            _ => sim.listen(move |_peer| Layered::new(Turns, Layered::new(Turns, in_task(serve.clone())))),
        };
        let peer = sim.connect(listener);
        sim.settle();
        Self { sim, peer, layers, notes }
    }

    fn says(&mut self, bytes: &[u8]) {
        let wire = if self.layers == 1 { turned(bytes) } else { bytes.to_vec() };
        self.sim.send(self.peer, &wire);
        self.sim.settle();
    }

    fn hears(&mut self) -> Vec<u8> {
        let wire = self.sim.take_received(self.peer);
        if self.layers == 1 { turned(&wire) } else { wire }
    }
}

/// Reads all that comes, up to the end or an error, and notes it.
async fn read_all(stream: &mut Stream, notes: &Notes) {
    let mut all = Vec::new();
    let mut buffer = vec![0; 5000];
    let end = loop {
        match stream.read(&mut buffer).await {
            Ok(0) => break "end".to_owned(),
            Ok(count) => all.extend_from_slice(&buffer[..count]),
            Err(error) => break format!("{:?}", error.kind()),
        }
    };
    let what = if all == noise() { "all".to_owned() } else { format!("{} bytes", all.len()) };
    notes.borrow_mut().push(format!("{what}, {end}"));
}

fn each(test: impl Fn(usize, u64)) {
    for layers in 0..3 {
        for seed in 0..8 {
            test(layers, seed);
        }
    }
}

#[test]
fn an_end_behind_what_nobody_reads_is_heard_behind_it() {
    each(|layers, seed| {
        let mut world = World::new(layers, seed, |mut stream, notes| async move {
            sleep(100 * SECOND).await;
            read_all(&mut stream, &notes).await;
            stream.write_all(b"heard").await.unwrap();
        });
        world.says(&noise());
        world.sim.finish(world.peer);
        world.sim.advance(50 * SECOND);
        assert!(world.notes.borrow().is_empty());
        world.sim.advance(51 * SECOND);
        assert_eq!(*world.notes.borrow(), ["all, end"], "{layers} layers, seed {seed}");
        assert_eq!(world.hears(), b"heard");
        assert_eq!((world.sim.open(), world.sim.blocks_in_use()), (0, 0));
    });
}

#[test]
fn a_failure_behind_what_nobody_reads_is_heard_behind_it() {
    each(|layers, seed| {
        let mut world = World::new(layers, seed, |mut stream, notes| async move {
            sleep(10 * SECOND).await;
            read_all(&mut stream, &notes).await;
        });
        world.says(&noise());
        world.sim.reset(world.peer);
        world.sim.advance(20 * SECOND);
        assert_eq!(*world.notes.borrow(), ["all, ConnectionReset"], "{layers} layers, seed {seed}");
        assert_eq!((world.sim.open(), world.sim.blocks_in_use()), (0, 0));
    });
}

#[test]
fn a_drain_waits_for_who_reads_late_and_it_hears_all() {
    each(|layers, seed| {
        let mut world = World::new(layers, seed, |mut stream, notes| async move {
            stopping().await;
            sleep(10 * SECOND).await;
            read_all(&mut stream, &notes).await;
            stream.write_all(b"heard").await.unwrap();
        });
        world.says(&noise());
        world.sim.begin_drain(60 * SECOND);
        world.sim.advance(5 * SECOND);
        world.sim.finish(world.peer);
        world.sim.advance(10 * SECOND);
        assert_eq!(*world.notes.borrow(), ["all, end"], "{layers} layers, seed {seed}");
        assert_eq!(world.hears(), b"heard");
        assert!(world.sim.is_finished());
    });
}

#[test]
fn a_drain_that_ends_cuts_who_never_reads() {
    each(|layers, seed| {
        let mut world = World::new(layers, seed, |stream, _notes| async move {
            let _stream = stream;
            std::future::pending::<()>().await;
        });
        world.says(&noise());
        world.sim.begin_drain(30 * SECOND);
        world.sim.advance(29 * SECOND);
        assert!(!world.sim.is_finished());
        world.sim.advance(2 * SECOND);
        assert!(world.sim.is_finished());
        assert!(world.sim.is_reset(world.peer), "{layers} layers, seed {seed}");
        assert_eq!(world.sim.blocks_in_use(), 0);
    });
}
