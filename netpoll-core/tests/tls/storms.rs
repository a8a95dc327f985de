//! Storms: others pause, resume, wake, tell, send to and finish an echo behind TLS, also in the middle of its handshake, records come
//! in pieces of any length, keys change, and the echo is whole. A failure names its seed.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::ops::DerefMut;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use netpoll_core::sim::{Faults, Options, PeerId, Sim};
use netpoll_core::tls::TlsClient;
use netpoll_core::tls::rustls::{ClientConnection, ConnectionCommon, ServerConnection, SideData};
use netpoll_core::{
    Budget, Bytes, Commands, Conn, ConnId, ConnLimits, ConnectOptions, Flow, Input, Layered, Lost, Message,
    Protocol,
};

use crate::chance::{Chance, seeds};
use crate::support::{Far, client_config, roots, server, server_config};

const TOLD: u8 = 251;
const SENT: u8 = 252;

#[derive(Default)]
struct Seen {
    id: Option<ConnId>,
    consumed: Vec<u8>,
    eofs: usize,
    lost: Vec<String>,
    log: Vec<String>,
}

struct Echoing {
    seen: Rc<RefCell<Seen>>,
    chance: Chance,
}

impl Echoing {
    fn flow(&mut self, conn: &mut Conn<'_>) -> Flow {
        match self.chance.below(8) {
            0 => {
                conn.set_deadline(Duration::from_millis(1 + self.chance.below(5) as u64));
                Flow::Pause
            }
            1 => Flow::Yield,
            _ => Flow::Continue,
        }
    }
}

impl Protocol for Echoing {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.seen.borrow_mut().id = Some(conn.id());
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        let count = match self.chance.below(3) {
            0 => self.chance.below(input.len() + 1),
            _ => input.len(),
        };
        let bytes = &input.bytes()[..count];
        self.seen.borrow_mut().consumed.extend(bytes);
        match self.chance.below(3) {
            0 => conn.send(bytes),
            1 => conn.send_now(bytes),
            _ => conn.send_shared(Bytes::copy_from_slice(bytes)),
        }
        input.advance(count);
        self.flow(conn)
    }

    fn eof(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        let mut seen = self.seen.borrow_mut();
        seen.consumed.extend(input.bytes());
        conn.send(input.bytes());
        input.advance_all();
        seen.eofs += 1;
        if self.chance.below(2) == 0 {
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

    fn drained(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.unchanged_flow()
    }

    fn told(&mut self, conn: &mut Conn<'_>, _message: Message) -> Flow {
        conn.send(&[TOLD]);
        conn.unchanged_flow()
    }

    fn stopping(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.unchanged_flow()
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        self.seen.borrow_mut().lost.push(format!("{reason:?}"));
    }
}

fn options(seed: u64, chance: &mut Chance) -> Options {
    let millis = |millis: usize| Duration::from_millis(millis as u64);
    let mut options = Options::default().seed(seed).workers(1 + chance.below(2));
    if chance.below(4) > 0 {
        options = options.faults(Faults::stormy().failed_registrations(0));
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
        let high = 500 + chance.below(20_000);
        options.limits = options.limits.write_high_bytes(high).write_low_bytes(chance.below(500));
    }
    options
}

/// The far end, which has something to say.
struct Speaker<C> {
    peer: PeerId,
    far: Far<C>,
    /// What is on its way into the wire.
    wire: Vec<u8>,
    said: usize,
    has_ended: bool,
    has_been_addressed: bool,
}

impl<C, D> Speaker<C>
where
    C: DerefMut<Target = ConnectionCommon<D>>,
    D: SideData,
{
    fn hear(&mut self, sim: &mut Sim) {
        let came = sim.take_received(self.peer);
        self.has_been_addressed |= !came.is_empty();
        self.far.hear(&came);
        self.wire.extend(self.far.wire());
    }

    /// Puts so much of what it has to say on the wire.
    fn put(&mut self, sim: &mut Sim, bytes: usize) {
        let bytes = bytes.min(self.wire.len());
        sim.send(self.peer, &self.wire[..bytes]);
        self.wire.drain(..bytes);
    }

    fn say(&mut self, bytes: usize) {
        let text: Vec<u8> = (self.said..self.said + bytes).map(value).collect();
        self.said += bytes;
        self.far.say(&text);
        self.wire.extend(self.far.wire());
    }

    fn end(&mut self) {
        if !std::mem::replace(&mut self.has_ended, true) {
            self.far.end();
            self.wire.extend(self.far.wire());
        }
    }
}

fn value(place: usize) -> u8 {
    (place % 250) as u8
}

fn storm<C, D>(
    seed: u64,
    mut chance: Chance,
    mut sim: Sim,
    mut speaker: Speaker<C>,
    id: Option<ConnId>,
    seen: &Rc<RefCell<Seen>>,
) where
    C: DerefMut<Target = ConnectionCommon<D>>,
    D: SideData,
{
    let millis = |millis: usize| Duration::from_millis(millis as u64);
    let to_say = if chance.below(3) == 0 { chance.below(100_000) } else { chance.below(5000) };
    let (mut told, mut sent, mut updates, mut ended_by_others) = (0, 0, 0, false);
    for _ in 0..30 + chance.below(200) {
        let id = id.or(seen.borrow().id);
        // Who is not connected is told and sent nothing.
        if let Some(id) = id.filter(|_| speaker.has_been_addressed && seen.borrow().lost.is_empty()) {
            let what = chance.below(16);
            seen.borrow_mut().log.push(what.to_string());
            match what {
                0 | 1 => sim.commands().pause(id),
                2..=4 => sim.commands().resume(id),
                5 => sim.commands().wake(id),
                6 if !ended_by_others => {
                    told += 1;
                    sim.handle().tell(id, 7_usize);
                }
                7 if !ended_by_others => {
                    sent += 1;
                    sim.handle().send(id, Bytes::from_static(&[SENT]));
                }
                8 if !ended_by_others => {
                    sent += 2;
                    sim.commands().send_many([id, id], Bytes::from_static(&[SENT]));
                }
                9 if chance.below(20) == 0 => {
                    ended_by_others = true;
                    sim.commands().finish(id);
                }
                _ => {}
            }
        }
        match chance.below(10) {
            0 => sim.stop_reading(speaker.peer),
            1 | 2 => sim.start_reading(speaker.peer),
            3 if !speaker.far.tls.is_handshaking() && !speaker.has_ended && updates < 30 => {
                updates += 1;
                // Not of every version.
                let _ = speaker.far.tls.refresh_traffic_keys();
                speaker.wire.extend(speaker.far.wire());
            }
            4..=6 => speaker.say((1 + chance.below(20_000)).min(to_say - speaker.said)),
            _ => {}
        }
        let bytes = [1, 5, 1 + chance.below(100), usize::MAX][chance.below(4)];
        speaker.put(&mut sim, bytes);
        match chance.below(6) {
            0 => sim.run(),
            1 => sim.advance(millis(chance.below(10))),
            2 => sim.settle(),
            _ => _ = sim.turn(),
        }
        speaker.hear(&mut sim);
    }
    if seed.is_multiple_of(3) {
        sim.begin_drain(Duration::from_secs(1000));
    }
    sim.start_reading(speaker.peer);
    speaker.say(to_say - speaker.said);
    let mut has_finished = false;
    for _ in 0..5000 {
        if !speaker.far.tls.is_handshaking() {
            speaker.end();
        }
        speaker.put(&mut sim, usize::MAX);
        if speaker.has_ended && speaker.wire.is_empty() && !has_finished && chance.below(3) == 0 {
            has_finished = true;
            sim.finish(speaker.peer);
        }
        if let Some(id) = id.or(seen.borrow().id) {
            sim.commands().resume(id);
        }
        sim.advance(millis(5));
        speaker.hear(&mut sim);
        if sim.open() == 0 {
            break;
        }
    }
    sim.advance(millis(50));
    speaker.hear(&mut sim);
    let seen = seen.borrow();
    let place = format!(
        "seed {seed}: {:?} {:?} {:?} finished {has_finished} {ended_by_others}",
        seen.lost, seen.log, speaker.far.error
    );
    let whole: Vec<u8> = (0..to_say).map(value).collect();
    assert_eq!(seen.lost, ["Closed"], "{place}");
    assert!(seen.consumed == whole, "{} of {} consumed: {place}", seen.consumed.len(), whole.len());
    assert_eq!(seen.eofs, 1, "{place}");
    let heard = &speaker.far.heard;
    let echo: Vec<u8> = heard.iter().copied().filter(|byte| *byte < 250).collect();
    let count = |wanted: u8| heard.iter().filter(|byte| **byte == wanted).count();
    assert!(whole.starts_with(&echo), "{place}");
    assert_eq!(speaker.far.error, None, "{place}");
    assert!(speaker.far.has_ended, "{place}");
    if !ended_by_others {
        assert_eq!(echo.len(), whole.len(), "{place}");
        assert_eq!((count(TOLD), count(SENT)), (told, sent), "{place}");
    }
    assert!(sim.is_closed(speaker.peer) && !sim.is_reset(speaker.peer), "{place}");
    let stats = sim.stats();
    assert_eq!(
        (sim.open(), sim.blocks_in_use(), stats.panics, stats.layer_failures),
        (0, 0, 0, 0),
        "{place}"
    );
}

#[test]
fn whatever_others_order_an_echo_behind_tls_is_whole_and_ends() {
    let tls = server("server").handshake_time(Duration::from_secs(1000)).build().unwrap();
    let config = Arc::new(client_config());
    seeds(60).for_each(|seed| {
        let mut chance = Chance::new(seed);
        let mut sim = Sim::new(options(seed, &mut chance));
        let seen = Rc::<RefCell<Seen>>::default();
        let listener = sim.listen({
            let (seen, tls, mut chance) = (Rc::clone(&seen), tls.clone(), chance.fork());
            move |_peer| {
                let echo = Echoing { seen: Rc::clone(&seen), chance: chance.fork() };
                Layered::new(tls.layer(), echo)
            }
        });
        let name = "localhost".try_into().unwrap();
        let far = Far::new(ClientConnection::new(Arc::clone(&config), name).unwrap());
        let peer = sim.connect(listener);
        let mut speaker =
            Speaker { peer, far, wire: Vec::new(), said: 0, has_ended: false, has_been_addressed: false };
        speaker.wire.extend(speaker.far.wire());
        storm(seed, chance, sim, speaker, None, &seen);
    });
}

#[test]
fn whatever_others_order_of_a_dialed_one_from_its_first_moment_on_its_echo_is_whole_and_ends() {
    let tls = TlsClient::builder(roots()).handshake_time(Duration::from_secs(1000)).build().unwrap();
    seeds(60).for_each(|seed| {
        let mut chance = Chance::new(seed);
        let mut sim = Sim::new(options(seed, &mut chance));
        let mut config = server_config();
        if chance.below(2) == 0 {
            config.max_fragment_size = Some(33 + chance.below(500));
        }
        let seen = Rc::<RefCell<Seen>>::default();
        let echo = Echoing { seen: Rc::clone(&seen), chance: chance.fork() };
        let layered = Layered::new(tls.layer("localhost").unwrap(), echo);
        let to = SocketAddr::from(([192, 0, 2, 1], 443));
        let id = sim.commands().connect(to, ConnectOptions::default(), layered);
        let dialed = loop {
            sim.turn();
            if let Some((peer, _)) = sim.take_dialed().pop() {
                break peer;
            }
            sim.advance(Duration::from_millis(5));
        };
        let far = Far::new(ServerConnection::new(Arc::new(config)).unwrap());
        let speaker = Speaker {
            peer: dialed,
            far,
            wire: Vec::new(),
            said: 0,
            has_ended: false,
            has_been_addressed: false,
        };
        storm(seed, chance, sim, speaker, Some(id), &seen);
    });
}
