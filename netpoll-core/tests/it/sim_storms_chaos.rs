//! Everything at once, and everything may end at any time: nobody is forgotten, and nothing is kept. A failure names its seed.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use netpoll_core::sim::{Answer, Faults, Options, PeerId, Sim};
use netpoll_core::{
    Budget, Commands, Conn, ConnId, ConnLimits, ConnectOptions, Flow, Input, Instant, Layered, Lost, Message,
    Protocol, TimerId,
};

use crate::chance::{Chance, seeds};
use crate::cipher::Cipher;
use crate::layers::FarEnd;

const SOMEWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7);

struct Chaos {
    chance: Chance,
    ids: Vec<ConnId>,
    timers: Vec<TimerId>,
    made: usize,
    lost: usize,
    panics: u64,
    /// Held by everything that the world is given.
    token: Arc<()>,
    log: Vec<String>,
    calm: bool,
}

type ChaosWorld = Rc<RefCell<Chaos>>;

thread_local! {
    static CHAOS: RefCell<Option<ChaosWorld>> = const { RefCell::new(None) };
}

fn chaos() -> ChaosWorld {
    CHAOS.with(|chaos| Rc::clone(chaos.borrow().as_ref().unwrap()))
}

fn below(bound: usize) -> usize {
    chaos().borrow_mut().chance.below(bound)
}

fn token() -> Arc<()> {
    Arc::clone(&chaos().borrow().token)
}

struct Told(ConnId, #[allow(dead_code)] Arc<()>);

fn any_id() -> Option<ConnId> {
    let world = chaos();
    let mut world = world.borrow_mut();
    let count = world.ids.len();
    let index = world.chance.below(count);
    // Young ones more often than old ones.
    let index = if count > 12 && world.chance.below(3) > 0 { count - 1 - index % 12 } else { index };
    world.ids.get(index).copied()
}

fn act(commands: &mut Commands, workers: usize) {
    if chaos().borrow().calm {
        return;
    }
    let (Some(one), Some(other)) = (any_id(), any_id()) else { return };
    let what = below(24);
    chaos().borrow_mut().log.push(format!("{what}"));
    match what {
        0 => commands.pause(one),
        1 | 2 => commands.resume(one),
        3 => commands.wake(one),
        4..=8 => {
            commands.forward(one, other);
            if below(2) == 0 {
                commands.forward(other, one);
            }
        }
        9 => commands.close(one),
        10 => commands.reset(one),
        11 => commands.finish(one),
        12 => {
            let token = token();
            commands.queued_bytes(one, move |_, commands| {
                let _token = &token;
                act(commands, workers);
            });
        }
        13 => commands.tell(one, Told(one, token())),
        14 => commands.send(one, Bytes::from(vec![b's'; below(20_000)])),
        15 => commands.send_many([one, other, one], Bytes::from(vec![b'm'; below(6000)])),
        16 => {
            let token = token();
            let id = commands.after(Duration::from_millis(below(40) as u64), move |local| {
                let _token = &token;
                let workers = local.handle().workers();
                act(local.commands(), workers);
            });
            chaos().borrow_mut().timers.push(id);
        }
        17 => {
            let (token, mut left) = (token(), 1 + below(4));
            let me = Rc::new(Cell::new(None));
            let id = commands.every(Duration::from_millis(1 + below(9) as u64), {
                let me = Rc::clone(&me);
                move |local| {
                    let _token = &token;
                    let workers = local.handle().workers();
                    act(local.commands(), workers);
                    left -= 1;
                    if left == 0 {
                        assert!(local.commands().cancel(me.get().unwrap()));
                    }
                }
            });
            me.set(Some(id));
        }
        18 => {
            let id = {
                let world = chaos();
                let mut world = world.borrow_mut();
                let count = world.timers.len();
                let index = world.chance.below(count);
                world.timers.get(index).copied()
            };
            if let Some(id) = id {
                commands.cancel(id);
            }
        }
        19 => {
            let token = token();
            commands.run_on(below(workers), move |local| {
                let _token = &token;
                let workers = local.handle().workers();
                act(local.commands(), workers);
            });
        }
        20 | 21 => {
            let options = ConnectOptions::default().timeout(Duration::from_millis(1 + below(300) as u64));
            let id = match below(4) {
                0 => commands.connect("two.example:80", options, Chaotic::new()),
                1 => commands.connect("none.example:80", options, Chaotic::new()),
                2 => commands.connect(SOMEWHERE, options, Other(Chaotic::new())),
                _ => commands.connect(SOMEWHERE, options, Layered::new(Cipher::new(2), Chaotic::new())),
            };
            chaos().borrow_mut().ids.push(id);
        }
        _ => {}
    }
}

struct Chaotic {
    _token: Arc<()>,
    id: Option<ConnId>,
    is_lost: bool,
}

impl Chaotic {
    fn new() -> Self {
        chaos().borrow_mut().made += 1;
        Self { _token: token(), id: None, is_lost: false }
    }

    fn flow(&mut self, conn: &mut Conn<'_>) -> Flow {
        assert!(!self.is_lost && self.id == Some(conn.id()));
        if chaos().borrow().calm {
            return Flow::Continue;
        }
        for _ in 0..below(3) {
            let workers = conn.local().handle().workers();
            act(conn.commands(), workers);
        }
        match below(40) {
            0 => Flow::Close,
            1 => Flow::Linger,
            2 => Flow::Reset,
            3..=6 => Flow::Pause,
            7..=10 => Flow::Yield,
            11 => Flow::Retire,
            12 => {
                conn.finish();
                Flow::Continue
            }
            13 if below(3) == 0 => {
                chaos().borrow_mut().panics += 1;
                std::panic::resume_unwind(Box::new(token()));
            }
            14 => {
                conn.set_deadline(Duration::from_millis(below(30) as u64));
                conn.unchanged_flow()
            }
            15 => {
                conn.waker().wake();
                Flow::Pause
            }
            _ => Flow::Continue,
        }
    }
}

impl Protocol for Chaotic {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        assert!(self.id.is_none() && !self.is_lost);
        self.id = Some(conn.id());
        chaos().borrow_mut().ids.push(conn.id());
        self.flow(conn)
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        let count = if below(3) == 0 { below(input.len() + 1) } else { input.len() };
        let bytes = &input.bytes()[..count];
        match below(4) {
            0 => conn.send(bytes),
            1 => conn.send_now(bytes),
            2 => conn.send_shared(Bytes::copy_from_slice(bytes)),
            _ => {}
        }
        input.advance(count);
        self.flow(conn)
    }

    fn eof(&mut self, conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        match self.flow(conn) {
            Flow::Continue => Flow::Close,
            flow => flow,
        }
    }

    fn peer_ended(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.flow(conn)
    }

    fn flushed(&mut self, conn: &mut Conn<'_>) {
        assert!(!self.is_lost);
        let workers = conn.local().handle().workers();
        act(conn.commands(), workers);
    }

    fn drained(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.flow(conn)
    }

    fn deadline(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.flow(conn)
    }

    fn woken(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.flow(conn)
    }

    fn told(&mut self, conn: &mut Conn<'_>, message: Message) -> Flow {
        let Told(to, _) = message.downcast().ok().unwrap();
        assert!(to == conn.id(), "told what was another's");
        self.flow(conn)
    }

    fn stopping(&mut self, conn: &mut Conn<'_>) -> Flow {
        match self.flow(conn) {
            Flow::Continue => Flow::Retire,
            flow => flow,
        }
    }

    fn closing(&mut self, conn: &mut Conn<'_>) -> Flow {
        match self.flow(conn) {
            Flow::Continue => Flow::Linger,
            flow => flow,
        }
    }

    fn finishing(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.finish();
        self.flow(conn)
    }

    fn outgoing(&mut self, conn: &mut Conn<'_>, bytes: Bytes) -> Flow {
        conn.send_common(bytes);
        self.flow(conn)
    }

    fn idle_since(&mut self, conn: &mut Conn<'_>) -> Option<Instant> {
        (below(2) == 0).then(|| conn.now())
    }

    fn lost(&mut self, _reason: Lost, commands: &mut Commands) {
        assert!(!std::mem::replace(&mut self.is_lost, true), "lost once");
        chaos().borrow_mut().lost += 1;
        act(commands, 1);
    }
}

impl Drop for Chaotic {
    fn drop(&mut self) {
        assert!(self.is_lost || std::thread::panicking() || chaos().borrow().calm, "dropped without a word");
    }
}

/// Of another table.
struct Other(Chaotic);

impl Protocol for Other {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.0.opened(conn)
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.0.received(conn, input)
    }

    fn told(&mut self, conn: &mut Conn<'_>, message: Message) -> Flow {
        self.0.told(conn, message)
    }

    // Without it one that has paused would do so for ever.
    fn woken(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.0.woken(conn)
    }

    fn lost(&mut self, reason: Lost, commands: &mut Commands) {
        self.0.lost(reason, commands);
    }
}

/// Asks a worker whether it thinks that its connections hold exactly nothing.
struct Probe {
    limit: usize,
    log: Rc<RefCell<Vec<(bool, bool)>>>,
}

impl Protocol for Probe {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        let mut held = conn.hold_memory();
        held.grow(self.limit);
        let full = conn.is_short_of_memory();
        held.grow(1);
        self.log.borrow_mut().push((full, conn.is_short_of_memory()));
        Flow::Close
    }

    fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        Flow::Close
    }
}

fn chaos_storm(seed: u64) {
    let mut chance = Chance::new(seed);
    let workers = 1 + chance.below(3);
    let millis = |millis: usize| Duration::from_millis(millis as u64);
    let mut options = Options::default().seed(seed).workers(workers);
    if chance.below(4) > 0 {
        options = options.faults(Faults::stormy().failed_registrations(20));
    }
    if chance.below(2) == 0 {
        options = options.latency(millis(chance.below(3))..=millis(3 + chance.below(5)));
    }
    if chance.below(2) == 0 {
        options = options.window(100 + chance.below(9000));
    }
    if chance.below(3) == 0 {
        options = options.budget(Budget::fixed(1 + chance.below(4)).read_bytes(1 + chance.below(500)));
    }
    options.limits = ConnLimits::default();
    if chance.below(2) == 0 {
        options.limits =
            options.limits.write_high_bytes(500 + chance.below(20_000)).write_low_bytes(chance.below(500));
    }
    if chance.below(4) == 0 {
        options.limits =
            options.limits.memory_bytes_max(20_000 + chance.below(200_000)).input_bytes_max(3000);
    }
    if chance.below(4) == 0 {
        options.limits = options.limits.connections_max(2 + chance.below(5));
    }
    let kept = Arc::new(());
    let world = Rc::new(RefCell::new(Chaos {
        chance: chance.fork(),
        ids: Vec::new(),
        timers: Vec::new(),
        made: 0,
        lost: 0,
        panics: 0,
        token: Arc::clone(&kept),
        log: Vec::new(),
        calm: false,
    }));
    CHAOS.with(|chaos| *chaos.borrow_mut() = Some(Rc::clone(&world)));
    let mut sim = Sim::new(options.clone());
    sim.set_name("two.example", [SOMEWHERE.ip(), "10.0.0.1".parse().unwrap()]);
    let listeners = [
        sim.listen(|_peer| Chaotic::new()),
        sim.listen(|_peer| Other(Chaotic::new())),
        sim.listen(|_peer| Layered::new(Cipher::new(2), Chaotic::new())),
    ];
    let probed = Rc::new(RefCell::new(Vec::new()));
    let probe = sim.listen({
        let (log, limit) = (Rc::clone(&probed), options.limits.memory_bytes_max.unwrap_or(256 << 20));
        move |_peer| Probe { limit, log: Rc::clone(&log) }
    });
    let mut peers: Vec<(PeerId, Option<FarEnd>)> = Vec::new();
    for _ in 0..50 + chance.below(300) {
        match chance.below(20) {
            0..=3 => {
                let which = chance.below(3);
                let peer = sim.connect(listeners[which]);
                let far = (which == 2).then(|| {
                    let mut far = FarEnd::new();
                    sim.send(peer, &far.greeting());
                    far
                });
                peers.push((peer, far));
            }
            4 => {
                let answers = [
                    Answer::Accept,
                    Answer::Refuse,
                    Answer::Ignore,
                    Answer::AcceptAfter(millis(chance.below(100))),
                ];
                let answer = answers[chance.below(4)];
                sim.answer_connections(answer);
            }
            5..=12 if !peers.is_empty() => {
                let index = chance.below(peers.len());
                let (peer, far) = &mut peers[index];
                let bytes = vec![b'p'; chance.below(5000)];
                match far {
                    Some(far) if chance.below(30) > 0 => sim.send(*peer, &far.seal(&bytes)),
                    _ => sim.send(*peer, &bytes),
                }
            }
            13 if !peers.is_empty() => {
                let (peer, _) = peers[chance.below(peers.len())];
                match chance.below(5) {
                    0 => sim.close(peer),
                    1 => sim.reset(peer),
                    2 => sim.finish(peer),
                    3 => sim.stop_reading(peer),
                    _ => sim.start_reading(peer),
                }
            }
            14 => act(sim.commands(), workers),
            15 => {
                if let Some(id) = any_id() {
                    match chance.below(5) {
                        0 => sim.handle().close(id),
                        1 => sim.handle().finish(id),
                        2 => sim.handle().send(id, Bytes::from_static(b"from a handle")),
                        3 => sim.handle().tell(id, Told(id, token())),
                        _ => sim.handle().reset(id),
                    }
                }
            }
            _ => {}
        }
        peers.extend(sim.take_dialed().into_iter().map(|(peer, _)| (peer, None)));
        match chance.below(6) {
            0 => sim.run(),
            1 => sim.advance(millis(chance.below(30))),
            2 => sim.stand_still(millis(chance.below(30))),
            _ => _ = sim.turn(),
        }
    }
    let place = || {
        let world = world.borrow();
        format!("seed {seed}: {:?}", world.log)
    };
    let drains = chance.below(2) == 0;
    if drains {
        sim.begin_drain(Duration::from_secs(chance.below(5) as u64));
        sim.advance(Duration::from_secs(6));
        assert!(sim.is_finished(), "{}", place());
    }
    world.borrow_mut().calm = true;
    sim.advance(Duration::from_secs(1));
    peers.extend(sim.take_dialed().into_iter().map(|(peer, _)| (peer, None)));
    for id in world.borrow().ids.clone() {
        for worker in 0..workers {
            sim.commands_of(worker).resume(id);
            sim.commands_of(worker).wake(id);
        }
    }
    sim.run();
    for (peer, _) in &peers {
        sim.close(*peer);
    }
    sim.advance(Duration::from_secs(1));
    // Nobody tells the source of a link in one direction that its input has ended.
    for id in world.borrow().ids.clone() {
        sim.commands().finish(id);
    }
    sim.advance(Duration::from_secs(30));
    assert_eq!((sim.open(), sim.blocks_in_use()), (0, 0), "{}", place());
    if !drains {
        for worker in 0..workers {
            for _ in 0..50 {
                let peer = sim.connect_to(probe, worker);
                sim.advance(Duration::from_secs(20));
                sim.close(peer);
                if probed.borrow().len() > worker {
                    break;
                }
            }
        }
        sim.advance(Duration::from_secs(20));
        assert_eq!(*probed.borrow(), vec![(false, true); workers], "memory is not what is held: {}", place());
    }
    {
        let world = world.borrow();
        assert_eq!(world.made, world.lost, "{}", place());
        assert_eq!(sim.stats().panics, world.panics, "{}", place());
    }
    drop(sim);
    let world = CHAOS.with(|chaos| chaos.borrow_mut().take().unwrap());
    world.borrow_mut().timers.clear();
    assert_eq!(Arc::strong_count(&kept), 2, "something is kept: seed {seed}");
}

#[test]
fn in_chaos_nobody_is_forgotten_and_nothing_is_kept() {
    seeds(40).for_each(chaos_storm);
}
