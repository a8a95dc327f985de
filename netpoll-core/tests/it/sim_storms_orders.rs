//! Storms of commands: whatever others order about a connection, and whoever is forwarded to whom, every byte arrives once, and
//! every connection ends. A failure names its seed.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use netpoll_core::sim::{Answer, Faults, Options, PeerId, Sim};
use netpoll_core::{
    Budget, Commands, Conn, ConnId, ConnLimits, ConnectOptions, Flow, Input, Lost, Message, Protocol,
};

use crate::chance::{Chance, seeds};

const SOMEWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7);

/// What a node of the storm consists of: the bytes of stream `index` say whose they are and, modulo 31, where they stand in it.
fn byte_of(stream: usize, place: usize) -> u8 {
    (stream as u8) << 5 | (place % 31) as u8
}

struct Shared {
    chance: Chance,
    ids: Vec<Option<ConnId>>,
    /// What each node's protocol has consumed.
    consumed: Vec<Vec<u8>>,
    opened: Vec<bool>,
    eofs: Vec<usize>,
    lost: Vec<Option<String>>,
    /// By source: where its input goes. What the commands say that were given so far.
    to: Vec<Option<usize>>,
    paused: Vec<bool>,
    told: usize,
    told_expected: usize,
    answers: usize,
    questions: usize,
    /// No more links from here on.
    is_ending: bool,
    links: usize,
    links_in_callbacks: bool,
    log: Vec<String>,
}

type World = Rc<RefCell<Shared>>;

fn link(world: &World, commands: &mut Commands, from: usize, to: usize) {
    let mut shared = world.borrow_mut();
    let (Some(source), Some(target)) = (shared.ids[from], shared.ids[to]) else { return };
    shared.to.iter_mut().filter(|other| **other == Some(to)).for_each(|other| *other = None);
    shared.to[from] = Some(to);
    shared.links += 1;
    shared.log.push(format!("forward {from} {to}"));
    commands.forward(source, target);
}

/// Something by chance.
fn meddle(world: &World, commands: &mut Commands, in_callback: bool) {
    let (what, one, other) = {
        let mut shared = world.borrow_mut();
        let nodes = shared.ids.len();
        let (what, one) = (shared.chance.below(10), shared.chance.below(nodes));
        (what, one, shared.chance.below(nodes))
    };
    let Some(id) = world.borrow().ids[one] else { return };
    world.borrow_mut().log.push(format!("{what} on {one}"));
    match what {
        0 | 1 => {
            world.borrow_mut().paused[one] = true;
            commands.pause(id);
        }
        2..=4 => {
            world.borrow_mut().paused[one] = false;
            commands.resume(id);
        }
        5 => commands.wake(id),
        6 => {
            world.borrow_mut().questions += 1;
            let world = Rc::clone(world);
            commands.queued_bytes(id, move |queued, _| {
                assert!(queued.is_some() || world.borrow().lost[one].is_some());
                world.borrow_mut().answers += 1;
            });
        }
        7 => {
            let lives = {
                let shared = world.borrow();
                shared.opened[one] && !shared.is_ending
            };
            if lives {
                world.borrow_mut().told_expected += 1;
                commands.tell(id, one);
            }
        }
        _ => {
            let may = {
                let shared = world.borrow();
                !shared.is_ending && (!in_callback || shared.links_in_callbacks)
            };
            if may {
                link(world, commands, one, other);
            }
        }
    }
}

struct Node {
    index: usize,
    world: World,
}

impl Node {
    fn meddle(&self, conn: &mut Conn<'_>) {
        let meddles = self.world.borrow_mut().chance.below(4) == 0;
        if meddles {
            meddle(&self.world, conn.commands(), true);
        }
    }

    fn flow(&self, conn: &mut Conn<'_>) -> Flow {
        let mut shared = self.world.borrow_mut();
        match shared.chance.below(8) {
            0 => {
                conn.set_deadline(Duration::from_millis(1 + shared.chance.below(5) as u64));
                Flow::Pause
            }
            1 => Flow::Yield,
            _ => Flow::Continue,
        }
    }
}

impl Protocol for Node {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        {
            let mut shared = self.world.borrow_mut();
            assert!(!std::mem::replace(&mut shared.opened[self.index], true));
            shared.ids[self.index] = Some(conn.id());
        }
        self.meddle(conn);
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        {
            let mut shared = self.world.borrow_mut();
            let most = input.len();
            let count = match shared.chance.below(3) {
                0 => shared.chance.below(most + 1),
                _ => most,
            };
            let bytes = &input.bytes()[..count];
            shared.consumed[self.index].extend(bytes);
            input.advance(count);
        }
        self.meddle(conn);
        let flow = self.flow(conn);
        // Who leaves something and goes on waits for more; the end brings it.
        flow
    }

    fn eof(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        let mut shared = self.world.borrow_mut();
        shared.consumed[self.index].extend(input.bytes());
        input.advance_all();
        shared.eofs[self.index] += 1;
        assert!(shared.eofs[self.index] == 1, "the end comes once");
        let is_fed = shared.to.contains(&Some(self.index));
        shared.log.push(format!("eof of {}, fed {is_fed}", self.index));
        drop(shared);
        if !is_fed {
            conn.finish();
        }
        Flow::Continue
    }

    fn peer_ended(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.unchanged_flow()
    }

    fn deadline(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.meddle(conn);
        Flow::Continue
    }

    fn woken(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.meddle(conn);
        conn.unchanged_flow()
    }

    fn drained(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.meddle(conn);
        conn.unchanged_flow()
    }

    fn told(&mut self, conn: &mut Conn<'_>, message: Message) -> Flow {
        assert_eq!(message.downcast::<usize>().ok(), Some(self.index), "told what was another's");
        self.world.borrow_mut().told += 1;
        conn.unchanged_flow()
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        let mut shared = self.world.borrow_mut();
        shared.log.push(format!("lost {} {reason:?}", self.index));
        assert!(shared.lost[self.index].replace(format!("{reason:?}")).is_none(), "lost once");
    }
}

struct Talker {
    peer: PeerId,
    sent: usize,
    to_send: usize,
    received: Vec<u8>,
    finished: bool,
}

fn storm(seed: u64, with_links_in_callbacks: bool) {
    let mut chance = Chance::new(seed);
    let nodes = 2 + chance.below(5);
    let millis = |millis: usize| Duration::from_millis(millis as u64);
    let mut options = Options::default().seed(seed);
    if chance.below(4) > 0 {
        options = options.faults(Faults::stormy());
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
    if chance.below(2) == 0 {
        options = options.limits(
            ConnLimits::default()
                .write_high_bytes(500 + chance.below(20_000))
                .write_low_bytes(chance.below(500))
                .write_rate_min(0),
        );
    } else {
        options = options.limits(ConnLimits::default().write_rate_min(0));
    }
    let world = Rc::new(RefCell::new(Shared {
        chance: chance.fork(),
        ids: vec![None; nodes],
        consumed: vec![Vec::new(); nodes],
        opened: vec![false; nodes],
        eofs: vec![0; nodes],
        lost: vec![None; nodes],
        to: vec![None; nodes],
        paused: vec![false; nodes],
        told: 0,
        told_expected: 0,
        answers: 0,
        questions: 0,
        is_ending: false,
        links: 0,
        links_in_callbacks: with_links_in_callbacks,
        log: Vec::new(),
    }));
    let mut sim = Sim::new(options);
    let listener = sim.listen({
        let (world, next) = (Rc::clone(&world), Cell::new(0));
        move |_peer| Node { index: next.replace(next.get() + 1), world: Rc::clone(&world) }
    });
    let accepted = 1 + chance.below(nodes);
    let mut peers = Vec::new();
    for index in 0..nodes {
        let peer = if index < accepted {
            let peer = sim.connect(listener);
            sim.settle();
            sim.advance(millis(50));
            while world.borrow().ids[index].is_none() {
                sim.advance(millis(1000));
            }
            peer
        } else {
            if chance.below(2) == 0 {
                sim.answer_connections(Answer::AcceptAfter(millis(chance.below(20))));
            }
            let node = Node { index, world: Rc::clone(&world) };
            let id = sim.commands().connect(SOMEWHERE, ConnectOptions::default(), node);
            world.borrow_mut().ids[index] = Some(id);
            sim.turn();
            sim.take_dialed()[0].0
        };
        let to_send = if chance.below(3) == 0 { chance.below(200_000) } else { chance.below(5000) };
        peers.push(Talker { peer, sent: 0, to_send, received: Vec::new(), finished: false });
    }
    for _ in 0..30 + chance.below(300) {
        for _ in 0..chance.below(3) {
            meddle(&world, sim.commands(), false);
        }
        let index = chance.below(nodes);
        let talker = &mut peers[index];
        match chance.below(8) {
            0 => sim.stop_reading(talker.peer),
            1 | 2 => sim.start_reading(talker.peer),
            _ => {
                let part = (1 + chance.below(20_000)).min(talker.to_send - talker.sent);
                let bytes: Vec<u8> = (0..part).map(|place| byte_of(index, talker.sent + place)).collect();
                talker.sent += part;
                sim.send(talker.peer, &bytes);
            }
        }
        match chance.below(6) {
            0 => sim.run(),
            1 => sim.advance(millis(chance.below(10))),
            2 => sim.settle(),
            _ => _ = sim.turn(),
        }
    }
    let place = |what: &str| {
        let shared = world.borrow();
        format!("seed {seed}: {what}\nlinks {:?}\n{:?}", shared.to, shared.log)
    };
    // From here on the map of links is what it is.
    world.borrow_mut().is_ending = true;
    sim.advance(millis(100));
    for (index, talker) in peers.iter_mut().enumerate() {
        let rest: Vec<u8> = (talker.sent..talker.to_send).map(|place| byte_of(index, place)).collect();
        sim.send(talker.peer, &rest);
        talker.sent = talker.to_send;
    }
    // The order of the ends is left to chance, and so is who is still paused.
    for _ in 0..nodes * 3 {
        let index = chance.below(nodes);
        let talker = &mut peers[index];
        if !std::mem::replace(&mut talker.finished, true) {
            sim.finish(talker.peer);
        }
        meddle(&world, sim.commands(), false);
        sim.advance(millis(chance.below(10)));
    }
    for talker in &mut peers {
        if !std::mem::replace(&mut talker.finished, true) {
            sim.finish(talker.peer);
        }
        sim.start_reading(talker.peer);
    }
    // Meddling in callbacks may pause again; each round lets everybody go.
    for round in 0..3000 {
        for index in 0..nodes {
            let id = world.borrow().ids[index].unwrap();
            sim.commands().resume(id);
        }
        sim.advance(millis(20));
        if round > 100 {
            // The source of a link in one direction stays until somebody ends its own.
            for index in 0..nodes {
                let is_fed = world.borrow().to.contains(&Some(index));
                if !is_fed && world.borrow().to[index].is_some() {
                    let id = world.borrow().ids[index].unwrap();
                    sim.commands().finish(id);
                }
            }
        }
        if sim.open() == 0 {
            break;
        }
    }
    sim.advance(millis(50));
    for talker in &mut peers {
        sim.drain_received(talker.peer, &mut talker.received);
    }
    let shared = world.borrow();
    // Every byte of every stream has arrived once: at its own protocol, or at somebody's peer.
    for stream in 0..nodes {
        let mut counts = [0_usize; 32];
        let mut jumps = 0;
        let sinks = peers.iter().map(|talker| &talker.received).chain([&shared.consumed[stream]]);
        for sink in sinks {
            let mut last = None;
            for byte in sink.iter().filter(|byte| usize::from(**byte >> 5) == stream) {
                let residue = byte & 31;
                counts[usize::from(residue)] += 1;
                jumps += usize::from(last.is_some_and(|last: u8| (last + 1) % 31 != residue));
                last = Some(residue);
            }
        }
        let sent = peers[stream].to_send;
        for (residue, count) in counts[..31].iter().enumerate() {
            let expected = sent / 31 + usize::from(residue < sent % 31);
            assert_eq!(*count, expected, "stream {stream}, residue {residue}: {}", place("bytes"));
        }
        assert!(jumps <= shared.links, "stream {stream} jumps {jumps} times: {}", place("order"));
    }
    assert_eq!(
        (shared.told, shared.answers),
        (shared.told_expected, shared.questions),
        "{}",
        place("messages")
    );
    for (index, Talker { peer, .. }) in peers.iter().enumerate() {
        assert_eq!(shared.lost[index].as_deref(), Some("Closed"), "node {index}: {}", place("ends"));
        assert!(sim.is_closed(*peer) && !sim.is_reset(*peer), "{}", place("ends"));
    }
    assert_eq!((sim.open(), sim.blocks_in_use(), sim.stats().panics), (0, 0, 0), "{}", place("rest"));
}

#[test]
fn whatever_others_order_every_byte_arrives_once_and_every_connection_ends() {
    seeds(40).for_each(|seed| storm(seed, false));
}

#[test]
fn whatever_others_order_from_within_callbacks_every_byte_arrives_once_and_every_connection_ends() {
    seeds(40).for_each(|seed| storm(seed, true));
}
