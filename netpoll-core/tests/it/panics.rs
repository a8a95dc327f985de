//! A panic anywhere in code of the program costs its connection, and nothing else.

use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use netpoll_core::sim::{ListenerId, Options, Sim};
use netpoll_core::{
    Commands, Conn, ConnId, ConnLimits, ConnectOptions, Flow, Input, Instant, Lost, Protocol,
};

use crate::support::Echo;

/// Panics when it is dropped.
struct Grenade(Vec<u8>);

impl Grenade {
    fn new(bytes: usize) -> Self {
        Self(vec![b'x'; bytes])
    }

    /// Shared bytes whose owner panics when the last of them is dropped.
    fn bytes(bytes: usize) -> Bytes {
        Bytes::from_owner(Self::new(bytes))
    }
}

impl AsRef<[u8]> for Grenade {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Grenade {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "a destructor panicked");
    }
}

/// What a [`Victim`] does with a word.
type Deed = fn(&mut Conn<'_>, &mut Option<Grenade>) -> Flow;

/// Does something wrong when it is spoken to.
struct Victim {
    deed: Deed,
    held: Option<Grenade>,
    lost: Arc<AtomicUsize>,
}

impl Protocol for Victim {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        (self.deed)(conn, &mut self.held)
    }

    fn lost(&mut self, _reason: Lost, _commands: &mut Commands) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }
}

/// A world with a bystander, who has to be served in the end as in the beginning.
struct World {
    sim: Sim,
    echo: ListenerId,
    bystander: netpoll_core::sim::PeerId,
}

impl World {
    fn new() -> Self {
        Self::with(Options::default())
    }

    fn with(options: Options) -> Self {
        let mut sim = Sim::new(options);
        let echo = sim.listen(|_peer| Echo);
        let bystander = sim.connect(echo);
        let mut world = Self { sim, echo, bystander };
        world.serves("before");
        world
    }

    fn serves(&mut self, word: &str) {
        self.sim.send(self.bystander, word.as_bytes());
        self.sim.run();
        assert_eq!(self.sim.take_received(self.bystander), word.as_bytes());
    }

    /// Nobody else noticed, and so many panics were counted.
    fn survived(mut self, panics: u64) {
        self.serves("after");
        let newcomer = self.sim.connect(self.echo);
        self.sim.send(newcomer, b"new");
        self.sim.run();
        assert_eq!(self.sim.take_received(newcomer), b"new");
        assert_eq!(self.sim.stats().panics, panics);
    }

    /// One connection does this to itself; how often its protocol was told that it is lost.
    fn suffers(&mut self, deed: Deed) -> usize {
        let lost = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&lost);
        let listener = self.sim.listen(move |_peer| Victim { deed, held: None, lost: Arc::clone(&count) });
        let peer = self.sim.connect(listener);
        self.sim.send(peer, b"go");
        self.sim.run();
        lost.load(Ordering::Relaxed)
    }
}

#[test]
fn an_owner_of_queued_bytes_may_panic_when_they_have_left() {
    for bytes in [100, 8 << 10, 100 << 10] {
        let mut world = World::new();
        let deed: Deed = match bytes {
            100 => |conn, _| {
                conn.send_shared(Grenade::bytes(100));
                Flow::Continue
            },
            8192 => |conn, _| {
                conn.send_shared(Grenade::bytes(8 << 10));
                Flow::Continue
            },
            _ => |conn, _| {
                conn.send(b"head");
                conn.send_shared(Grenade::bytes(100 << 10));
                conn.send(b"tail");
                Flow::Continue
            },
        };
        world.suffers(deed);
        world.survived(1);
    }
}

#[test]
fn owners_of_queued_bytes_may_panic_when_their_connection_is_cut() {
    let mut world = World::new();
    world.suffers(|conn, _| {
        for _ in 0..3 {
            conn.send_shared(Grenade::bytes(8 << 10));
        }
        Flow::Reset
    });
    world.survived(3);
}

#[test]
fn bytes_for_a_connection_that_is_gone_may_panic_when_they_are_dropped() {
    let mut world = World::new();
    let id = gone(&mut world);
    world.sim.handle().send(id, Grenade::bytes(8 << 10));
    world.sim.handle().send(id, Grenade::bytes(10));
    world.sim.run();
    world.sim.commands().send(id, Grenade::bytes(8 << 10));
    world.sim.run();
    world.survived(3);
}

/// The name of a connection that has ended.
fn gone(world: &mut World) -> ConnId {
    struct Named(std::sync::mpsc::Sender<ConnId>);
    impl Protocol for Named {
        fn received(&mut self, conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
            self.0.send(conn.id()).unwrap();
            Flow::Reset
        }
    }
    let (sender, names) = std::sync::mpsc::channel();
    let listener = world.sim.listen(move |_peer| Named(sender.clone()));
    let peer = world.sim.connect(listener);
    world.sim.send(peer, b"name");
    world.sim.run();
    names.recv().unwrap()
}

#[test]
fn bytes_that_overflow_a_connection_may_panic_when_they_are_dropped() {
    let mut options = Options::default();
    options.limits.output_bytes_max = 1 << 20;
    let mut world = World::with(options);
    let (sender, names) = std::sync::mpsc::channel();
    struct Deaf(std::sync::mpsc::Sender<ConnId>);
    impl Protocol for Deaf {
        fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
            self.0.send(conn.id()).unwrap();
            Flow::Continue
        }
        fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
            Flow::Continue
        }
    }
    let listener = world.sim.listen(move |_peer| Deaf(sender.clone()));
    let peer = world.sim.connect(listener);
    world.sim.stop_reading(peer);
    world.sim.run();
    let id = names.recv().unwrap();
    for _ in 0..2 {
        world.sim.handle().send(id, Grenade::bytes(1 << 20));
        world.sim.run();
    }
    assert_eq!(world.sim.stats().output_overflows, 1);
    world.survived(2);
}

#[test]
fn the_payload_of_a_panic_may_panic_itself() {
    let mut world = World::new();
    let lost = world.suffers(|_, _| panic_any(Grenade::new(1)));
    assert_eq!(lost, 1);
    let listener = world.sim.listen(|_peer| -> Echo { panic_any(Grenade::new(1)) });
    let peer = world.sim.connect(listener);
    world.sim.run();
    assert!(world.sim.is_closed(peer));
    // Two callbacks, and what they threw.
    world.survived(4);
}

/// Panics in `lost` and in its destructor.
struct Wretch(#[expect(dead_code, reason = "it is there to be dropped")] Grenade);

impl Protocol for Wretch {
    fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        panic!("in received")
    }

    fn lost(&mut self, _reason: Lost, _commands: &mut Commands) {
        panic_any(Grenade::new(1))
    }
}

#[test]
fn a_protocol_may_panic_in_each_of_its_last_calls() {
    let mut world = World::new();
    let listener = world.sim.listen(|_peer| Wretch(Grenade::new(1)));
    let peer = world.sim.connect(listener);
    world.sim.send(peer, b"x");
    world.sim.run();
    assert!(world.sim.is_reset(peer));
    // In `received`, in `lost`, its payload, in the destructor.
    world.survived(4);
}

#[test]
fn a_protocol_whose_dial_is_refused_may_panic_in_each_of_its_last_calls() {
    let mut world = World::new();
    world.sim.refuse_connections(true);
    let to = "127.0.0.1:1";
    world.sim.commands().connect(to, ConnectOptions::default(), Wretch(Grenade::new(1)));
    world.sim.run();
    world.survived(3);
}

#[test]
fn the_payload_of_a_panic_may_panic_behind_input_that_is_too_long_as_well() {
    struct Full;
    impl Protocol for Full {
        fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
            panic_any(Grenade::new(1))
        }
    }
    let limits = ConnLimits::default().input_bytes_max(3);
    let mut sim = Sim::new(Options::default().limits(limits));
    let listener = sim.listen(|_peer| Full);
    let (peer, other) = (sim.connect(listener), sim.connect(listener));
    sim.send(peer, b"four");
    sim.run();
    assert!(sim.is_reset(peer) && !sim.is_closed(other));
    // The callback, and what it threw.
    assert_eq!(sim.stats().panics, 2);
}

/// Panics when it is asked whether it is idle.
struct Touchy;

impl Protocol for Touchy {
    fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        Flow::Continue
    }

    fn stopping(&mut self, _conn: &mut Conn<'_>) -> Flow {
        Flow::Continue
    }

    fn idle_since(&mut self, _conn: &mut Conn<'_>) -> Option<Instant> {
        panic_any(Grenade::new(1))
    }
}

#[test]
fn a_protocol_may_panic_when_it_is_asked_whether_it_is_idle() {
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen(|_peer| Touchy);
    let peer = sim.connect(listener);
    sim.run();
    sim.begin_drain(Duration::from_secs(1));
    sim.advance(Duration::from_secs(2));
    assert!(sim.is_reset(peer) && sim.is_finished());
    // The callback, and what it threw.
    assert_eq!(sim.stats().panics, 2);
}

#[test]
fn what_accepts_may_panic_when_it_is_dropped() {
    let mut sim = Sim::new(Options::default());
    let grenade = Grenade::new(1);
    sim.listen(move |_peer| {
        let _held = &grenade;
        Echo
    });
    sim.begin_drain(Duration::from_secs(1));
    sim.advance(Duration::from_secs(1));
    assert!(sim.is_finished());
    assert_eq!(sim.stats().panics, 1);
}

#[test]
fn what_was_never_carried_out_may_panic_when_its_world_ends() {
    let mut sim = Sim::new(Options::default());
    let to = "127.0.0.1:1";
    let grenade = Grenade::new(1);
    let listener = sim.listen(move |_peer| {
        let _held = &grenade;
        Wretch(Grenade::new(1))
    });
    sim.connect(listener);
    sim.run();
    sim.commands().connect(to, ConnectOptions::default(), Wretch(Grenade::new(1)));
    sim.handle().close(gone_id(&sim));
    let handle = sim.handle().clone();
    handle.send(gone_id(&sim), Grenade::bytes(10));
    drop(sim);
}

/// A name that means nobody.
fn gone_id(_sim: &Sim) -> ConnId {
    let mut world = World::new();
    gone(&mut world)
}

#[test]
fn an_append_that_panicked_leaves_a_queue_that_can_be_used() {
    let mut options = Options::default();
    options.faults.partial_sends = 1000;
    let mut world = World::with(options);
    world.suffers(|conn, _| {
        conn.send(&[b'a'; 1024]);
        let caught = catch_unwind(AssertUnwindSafe(|| {
            conn.append(100, |_out| {
                if true {
                    panic!("in append");
                }
            })
        }));
        assert!(caught.is_err());
        conn.send_shared(Bytes::from(vec![b'b'; 8 << 10]));
        conn.send(b"c");
        Flow::Close
    });
    world.survived(0);
}

#[test]
fn a_state_that_panics_at_the_end_of_its_world_is_counted_there_and_not_in_the_next() {
    let ended = |grenades: usize| {
        let some = move || (0..grenades).map(|_| Grenade::new(1)).collect::<Vec<_>>();
        let mut sim = Sim::new(Options::default());
        sim.state(move |_worker| some());
        let handle = sim.handle().clone();
        // A letter that nobody reads any more.
        let letter = some();
        handle.run_on(0, move |_local| drop(letter));
        drop(sim);
        handle.stats().panics
    };
    assert_eq!(ended(1), 2);
    assert_eq!(ended(0), 0);
}
