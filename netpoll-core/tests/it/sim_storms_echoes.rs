//! The storm over one connection at a time: others pause, resume, wake, tell, send to and finish an echo, with a layer and without
//! one, and the echo is whole. A failure names its seed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use netpoll_core::sim::{Faults, Options, PeerId, Sim};
use netpoll_core::{
    Budget, Commands, Conn, ConnId, ConnLimits, Flow, Input, Layered, Lost, Message, Protocol,
};

use crate::chance::{Chance, seeds};
use crate::cipher::Cipher;
use crate::layers::FarEnd;

const TOLD: u8 = 251;
const SENT: u8 = 252;

struct Echoes {
    ids: Vec<Option<ConnId>>,
    consumed: Vec<Vec<u8>>,
    eofs: Vec<usize>,
    lost: Vec<Option<String>>,
    told: Vec<usize>,
    chance: Chance,
    log: Vec<String>,
}

struct Echoing {
    index: usize,
    world: Rc<RefCell<Echoes>>,
}

impl Echoing {
    fn flow(&self, conn: &mut Conn<'_>) -> Flow {
        let mut world = self.world.borrow_mut();
        match world.chance.below(8) {
            0 => {
                conn.set_deadline(Duration::from_millis(1 + world.chance.below(5) as u64));
                Flow::Pause
            }
            1 => Flow::Yield,
            _ => Flow::Continue,
        }
    }
}

impl Protocol for Echoing {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.world.borrow_mut().ids[self.index] = Some(conn.id());
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        let count = {
            let mut world = self.world.borrow_mut();
            let count = match world.chance.below(3) {
                0 => world.chance.below(input.len() + 1),
                _ => input.len(),
            };
            world.consumed[self.index].extend(&input.bytes()[..count]);
            count
        };
        let bytes = &input.bytes()[..count];
        let how = self.world.borrow_mut().chance.below(3);
        match how {
            0 => conn.send(bytes),
            1 => conn.send_now(bytes),
            _ => conn.send_shared(Bytes::copy_from_slice(bytes)),
        }
        input.advance(count);
        self.flow(conn)
    }

    fn eof(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        let mut world = self.world.borrow_mut();
        world.consumed[self.index].extend(input.bytes());
        conn.send(input.bytes());
        input.advance_all();
        world.eofs[self.index] += 1;
        if world.chance.below(2) == 0 {
            conn.finish();
            return Flow::Continue;
        }
        Flow::Close
    }

    fn peer_ended(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.unchanged_flow()
    }

    fn deadline(&mut self, _conn: &mut Conn<'_>) -> Flow {
        Flow::Continue
    }

    fn woken(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.unchanged_flow()
    }

    fn drained(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.unchanged_flow()
    }

    fn told(&mut self, conn: &mut Conn<'_>, message: Message) -> Flow {
        assert_eq!(message.downcast::<usize>().ok(), Some(self.index), "told what was another's");
        self.world.borrow_mut().told[self.index] += 1;
        conn.send(&[TOLD]);
        conn.unchanged_flow()
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        let mut world = self.world.borrow_mut();
        assert!(world.lost[self.index].replace(format!("{reason:?}")).is_none(), "lost once");
    }
}

fn echo_storm(seed: u64, layered: bool, drains: bool) {
    let mut chance = Chance::new(seed);
    let nodes = 1 + chance.below(4);
    let workers = 1 + chance.below(3);
    let millis = |millis: usize| Duration::from_millis(millis as u64);
    let mut options = Options::default().seed(seed).workers(workers);
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
    options.limits = ConnLimits::default().write_rate_min(0);
    if chance.below(2) == 0 {
        options.limits =
            options.limits.write_high_bytes(500 + chance.below(20_000)).write_low_bytes(chance.below(500));
    }
    let world = Rc::new(RefCell::new(Echoes {
        ids: vec![None; nodes],
        consumed: vec![Vec::new(); nodes],
        eofs: vec![0; nodes],
        lost: vec![None; nodes],
        told: vec![0; nodes],
        chance: chance.fork(),
        log: Vec::new(),
    }));
    let mut sim = Sim::new(options);
    let next = Rc::new(Cell::new(0));
    let make = {
        let (world, next) = (Rc::clone(&world), Rc::clone(&next));
        move || Echoing { index: next.replace(next.get() + 1), world: Rc::clone(&world) }
    };
    let listener = match layered {
        true => sim.listen(move |_peer| Layered::new(Cipher::new(2), make())),
        false => sim.listen(move |_peer| make()),
    };
    struct Peer {
        peer: PeerId,
        far: Option<FarEnd>,
        sent: usize,
        to_send: usize,
        received: Vec<u8>,
        finished: bool,
        told: usize,
        others: usize,
        ended_by_others: bool,
    }
    let mut peers = Vec::new();
    for index in 0..nodes {
        let peer = sim.connect(listener);
        let far = layered.then(|| {
            let mut far = FarEnd::new();
            sim.send(peer, &far.greeting());
            far
        });
        while world.borrow().ids[index].is_none() {
            sim.advance(millis(100));
        }
        let to_send = if chance.below(3) == 0 { chance.below(100_000) } else { chance.below(5000) };
        peers.push(Peer {
            peer,
            far,
            sent: 0,
            to_send,
            received: Vec::new(),
            finished: false,
            told: 0,
            others: 0,
            ended_by_others: false,
        });
    }
    let value = |place: usize| (place % 250) as u8;
    let speak = |sim: &mut Sim, peer: &mut Peer, part: usize| {
        let part = part.min(peer.to_send - peer.sent);
        let bytes: Vec<u8> = (peer.sent..peer.sent + part).map(value).collect();
        peer.sent += part;
        match &mut peer.far {
            Some(far) => sim.send(peer.peer, &far.seal(&bytes)),
            None => sim.send(peer.peer, &bytes),
        }
    };
    let finish = |sim: &mut Sim, peer: &mut Peer| {
        if !std::mem::replace(&mut peer.finished, true) {
            if let Some(far) = &mut peer.far {
                sim.send(peer.peer, &far.bye());
            }
            sim.finish(peer.peer);
        }
    };
    for _ in 0..30 + chance.below(200) {
        for _ in 0..chance.below(3) {
            let index = chance.below(nodes);
            let id = world.borrow().ids[index].unwrap();
            let what = chance.below(12);
            world.borrow_mut().log.push(format!("{what} on {index}"));
            let peer = &mut peers[index];
            let by = chance.below(workers);
            match what {
                0 | 1 => sim.commands_of(by).pause(id),
                2..=4 => sim.commands_of(by).resume(id),
                5 => sim.commands_of(by).wake(id),
                6 => {
                    peer.told += 1;
                    if chance.below(2) == 0 {
                        sim.commands_of(by).tell(id, index)
                    } else {
                        sim.handle().tell(id, index)
                    }
                }
                7 if !peer.ended_by_others => {
                    peer.others += 1;
                    sim.handle().send(id, Bytes::from_static(&[SENT]));
                }
                8 if !peer.ended_by_others => {
                    peer.others += 2;
                    sim.commands_of(by).send_many([id, id], Bytes::from_static(&[SENT]));
                }
                9 if chance.below(20) == 0 => {
                    peer.ended_by_others = true;
                    sim.commands_of(by).finish(id);
                }
                _ => {}
            }
        }
        let index = chance.below(nodes);
        let peer = &mut peers[index];
        match chance.below(8) {
            0 => sim.stop_reading(peer.peer),
            1 | 2 => sim.start_reading(peer.peer),
            _ => speak(&mut sim, peer, 1 + chance.below(20_000)),
        }
        match chance.below(6) {
            0 => sim.run(),
            1 => sim.advance(millis(chance.below(10))),
            2 => sim.settle(),
            _ => _ = sim.turn(),
        }
    }
    for peer in &mut peers {
        let left = peer.to_send;
        speak(&mut sim, peer, left);
        if chance.below(2) == 0 {
            finish(&mut sim, peer);
        }
    }
    sim.advance(millis(chance.below(10)));
    for peer in &mut peers {
        finish(&mut sim, peer);
        sim.start_reading(peer.peer);
    }
    if drains {
        sim.begin_drain(Duration::from_secs(1000));
    }
    for _ in 0..5000 {
        for index in 0..nodes {
            let id = world.borrow().ids[index].unwrap();
            sim.commands_of(0).resume(id);
        }
        sim.advance(millis(20));
        if sim.open() == 0 {
            break;
        }
    }
    sim.advance(millis(50));
    let world = world.borrow();
    for (index, peer) in peers.iter_mut().enumerate() {
        let place = format!("seed {seed}, node {index}: {:?} {:?}", world.lost, world.log);
        let wire = sim.take_received(peer.peer);
        peer.received = match &mut peer.far {
            Some(far) => far.open(&wire),
            None => wire,
        };
        let whole: Vec<u8> = (0..peer.to_send).map(value).collect();
        assert!(
            world.consumed[index] == whole,
            "{} of {} consumed: {place}",
            world.consumed[index].len(),
            whole.len()
        );
        assert_eq!(world.eofs[index], 1, "{place}");
        let echo: Vec<u8> = peer.received.iter().copied().filter(|byte| *byte < 250).collect();
        let count = |wanted: u8| peer.received.iter().filter(|byte| **byte == wanted).count();
        assert!(whole.starts_with(&echo), "{place}");
        if !peer.ended_by_others {
            assert_eq!(echo.len(), whole.len(), "{place}");
            assert_eq!((count(TOLD), count(SENT)), (peer.told, peer.others), "{place}");
        }
        assert_eq!(world.lost[index].as_deref(), Some("Closed"), "{place}");
        assert!(sim.is_closed(peer.peer) && !sim.is_reset(peer.peer), "{place}");
        if let Some(far) = &peer.far {
            assert!(far.is_over(), "{place}");
        }
    }
    assert_eq!((sim.open(), sim.blocks_in_use(), sim.stats().panics), (0, 0, 0), "seed {seed}");
    assert_eq!(sim.is_finished(), drains);
}

#[test]
fn whatever_others_order_an_echo_is_whole_and_ends() {
    seeds(40).for_each(|seed| echo_storm(seed, false, seed % 3 == 0));
}

#[test]
fn whatever_others_order_an_echo_through_a_layer_is_whole_and_ends() {
    seeds(40).for_each(|seed| echo_storm(seed, true, seed % 3 == 0));
}
