//! Links that come and go, and ends and pauses that others want, on networks where everything goes wrong that can: every byte
//! arrives somewhere, once and in order, or its connection is reset, and nobody waits for ever. A failure names its seed.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use netpoll_core::sim::{Faults, ListenerId, Options, PeerId, Sim};
use netpoll_core::{Budget, Commands, Conn, ConnId, ConnLimits, Flow, Input, Layered, Lost, Protocol};

use crate::chance::{Chance, seeds};
use crate::cipher::Cipher;
use crate::layers::FarEnd;

/// How many connections a storm has: a byte has room for the number of its source and five bits of a count.
const ENDS: usize = 6;
const COUNTED: usize = 32;

/// What is known of one connection.
#[derive(Default)]
struct Account {
    id: Option<ConnId>,
    /// What its protocol has consumed.
    taken: Vec<u8>,
    /// What was queued on it while that was still possible.
    sent: Vec<u8>,
    eofs: usize,
    lost: Vec<String>,
}

type Accounts = Rc<RefCell<Vec<Account>>>;

/// Takes what it is offered in all ways there are, and keeps account of it.
struct Taker {
    accounts: Accounts,
    me: usize,
    chance: Chance,
    /// It answers what it hears, and may end its direction.
    answers: bool,
    is_paused: bool,
}

impl Taker {
    fn account(&self, what: impl FnOnce(&mut Account)) {
        let accounts = &mut self.accounts.borrow_mut()[self.me];
        assert!(accounts.lost.is_empty(), "a callback behind the last one");
        what(accounts);
    }

    fn answer(&mut self, conn: &mut Conn<'_>) {
        if conn.is_finished() {
            return;
        }
        let bytes =
            if self.chance.below(4) == 0 { self.chance.below(60_000) } else { self.chance.below(100) };
        let answer = vec![b'a' + self.chance.below(26) as u8; bytes];
        self.account(|account| account.sent.extend_from_slice(&answer));
        match self.chance.below(3) {
            0 => conn.send(&answer),
            1 => conn.send_now(&answer),
            _ => conn.send_shared(Bytes::from(answer)),
        }
        if self.chance.below(8) == 0 {
            conn.finish();
        }
    }
}

impl Protocol for Taker {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.account(|account| account.id = Some(conn.id()));
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        assert!(!self.is_paused || !self.answers, "nothing is received in a pause");
        let (bytes, way) = (input.bytes(), self.chance.below(12));
        let taken = if way < 4 { self.chance.below(bytes.len() + 1) } else { bytes.len() };
        self.account(|account| account.taken.extend_from_slice(&bytes[..taken]));
        input.advance(taken);
        if self.answers {
            self.answer(conn);
        }
        match way {
            0..3 => Flow::Yield,
            3 | 4 => {
                self.is_paused = true;
                conn.set_deadline(Duration::from_millis(1 + self.chance.below(20) as u64));
                Flow::Pause
            }
            // It takes the rest when there is more, or the end.
            5 if taken < bytes.len() => Flow::Continue,
            _ => Flow::Continue,
        }
    }

    fn eof(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.account(|account| {
            account.eofs += 1;
            account.taken.extend_from_slice(input.bytes());
        });
        input.advance_all();
        if self.answers && !conn.is_finished() { Flow::Close } else { Flow::Continue }
    }

    fn deadline(&mut self, _conn: &mut Conn<'_>) -> Flow {
        self.is_paused = false;
        Flow::Continue
    }

    fn woken(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.unchanged_flow()
    }

    fn drained(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.unchanged_flow()
    }

    fn outgoing(&mut self, conn: &mut Conn<'_>, bytes: Bytes) -> Flow {
        if !conn.is_finished() {
            self.account(|account| account.sent.extend_from_slice(&bytes));
        }
        conn.send_common(bytes);
        conn.unchanged_flow()
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        self.accounts.borrow_mut()[self.me].lost.push(format!("{reason:?}"));
    }
}

/// Orders that are carried out so many rounds of commands later: around the most that are carried out at once.
fn behind(commands: &mut Commands, rounds: usize, id: ConnId, last: Box<dyn FnOnce(&mut Commands)>) {
    if rounds == 0 {
        return last(commands);
    }
    commands.queued_bytes(id, move |_, commands| behind(commands, rounds - 1, id, last));
}

/// One far end.
struct Far {
    peer: PeerId,
    /// The cipher's ends, from the outer one inwards.
    ciphers: Vec<FarEnd>,
    to_say: Vec<u8>,
    said: usize,
    has_ended: bool,
    received: Vec<u8>,
}

impl Far {
    fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        self.ciphers.iter_mut().rev().fold(plain.to_vec(), |plain, cipher| cipher.seal(&plain))
    }

    fn say(&mut self, sim: &mut Sim, chance: &mut Chance) {
        let part = (1 + chance.below(30_000)).min(self.to_say.len() - self.said);
        let words = self.to_say[self.said..self.said + part].to_vec();
        let wire = self.seal(&words);
        sim.send(self.peer, &wire);
        self.said += part;
    }

    /// Says what is left of it, and ends its direction.
    fn end(&mut self, sim: &mut Sim) {
        let rest = self.to_say.split_off(self.said);
        let mut wire = self.seal(&rest);
        self.to_say.extend(rest);
        self.said = self.to_say.len();
        for inner in (0..self.ciphers.len()).rev() {
            let bye = self.ciphers[inner].bye();
            let outer = &mut self.ciphers[..inner];
            wire.extend(outer.iter_mut().rev().fold(bye, |bye, cipher| cipher.seal(&bye)));
        }
        sim.send(self.peer, &wire);
        sim.finish(self.peer);
        self.has_ended = true;
    }

    fn listen(&mut self, sim: &mut Sim) {
        let mut wire = sim.take_received(self.peer);
        for cipher in &mut self.ciphers {
            wire = cipher.open(&wire);
        }
        self.received.extend(wire);
    }
}

struct Storm {
    sim: Sim,
    accounts: Accounts,
    chance: Chance,
    fars: Vec<Far>,
    links: usize,
}

impl Storm {
    /// As many connections as there are, each behind so many layers.
    fn new(seed: u64, layers: usize) -> Self {
        let mut chance = Chance::new(seed);
        let millis = |millis: usize| Duration::from_millis(millis as u64);
        let mut options = Options::default().seed(seed);
        if chance.below(4) != 0 {
            options = options.faults(Faults::stormy());
        }
        if chance.below(2) == 0 {
            options = options.latency(millis(chance.below(3))..=millis(3 + chance.below(20)));
        }
        if chance.below(2) == 0 {
            options = options.window(300 + chance.below(9000));
        }
        if chance.below(3) == 0 {
            options = options.budget(Budget::fixed(1 + chance.below(4)).read_bytes(100 + chance.below(5000)));
        }
        // Others pause for long here, and whoever is paused is not idle.
        options.limits = ConnLimits::default().write_grace(Duration::from_secs(3600));
        if chance.below(2) == 0 {
            options.limits = options
                .limits
                .write_high_bytes(2000 + chance.below(20_000))
                .write_low_bytes(chance.below(2000));
        }
        let mut sim = Sim::new(options);
        let accounts = Accounts::default();
        let mut make = {
            let (accounts, mut chance) = (Rc::clone(&accounts), chance.fork());
            move || {
                accounts.borrow_mut().push(Account::default());
                let me = accounts.borrow().len() - 1;
                let accounts = Rc::clone(&accounts);
                Taker { accounts, me, chance: chance.fork(), answers: layers > 0, is_paused: false }
            }
        };
        let listener = match layers {
            0 => sim.listen(move |_peer| make()),
            1 => sim.listen(move |_peer| Layered::new(Cipher::new(2), make())),
            _ => sim.listen(move |_peer| Layered::new(Cipher::new(2), Layered::new(Cipher::new(4), make()))),
        };
        let mut this = Self { sim, accounts, chance, fars: Vec::new(), links: 0 };
        for index in 0..ENDS {
            let far = this.far(listener, index, layers);
            this.fars.push(far);
        }
        this
    }

    fn far(&mut self, listener: ListenerId, index: usize, layers: usize) -> Far {
        let peer = self.sim.connect(listener);
        // In the order of their numbers.
        while self.accounts.borrow().len() == index {
            self.sim.advance(Duration::from_millis(1));
        }
        let bytes =
            if self.chance.below(2) == 0 { self.chance.below(300_000) } else { self.chance.below(300) };
        let to_say = (0..bytes).map(|at| (index * COUNTED + at % COUNTED) as u8).collect();
        let mut far =
            Far { peer, ciphers: Vec::new(), to_say, said: 0, has_ended: false, received: Vec::new() };
        for _ in 0..layers {
            let mut cipher = FarEnd::new();
            let greeting = cipher.greeting();
            let wire = far.seal(&greeting);
            self.sim.send(peer, &wire);
            far.ciphers.push(cipher);
        }
        while self.accounts.borrow()[index].id.is_none() {
            self.sim.advance(Duration::from_millis(1));
            far.listen(&mut self.sim);
        }
        far
    }

    fn id(&mut self) -> ConnId {
        let index = self.chance.below(ENDS);
        self.accounts.borrow()[index].id.expect("it was open")
    }

    /// One of these orders, now or some rounds later.
    fn order(&mut self, orders: &[u8]) {
        let (one, other) = (self.id(), self.id());
        let order = orders[self.chance.below(orders.len())];
        self.links += usize::from(order == b'l');
        let order = move |commands: &mut Commands| match order {
            b'l' => commands.forward(one, other),
            b'p' => commands.pause(one),
            b'r' => commands.resume(one),
            b'w' => commands.wake(one),
            b'f' => commands.finish(one),
            b'c' => commands.close(one),
            b'x' => commands.reset(one),
            b's' => commands.send(one, Bytes::from(vec![b'0'; 1000])),
            _ => unreachable!(),
        };
        match self.chance.below(3) {
            0 => {
                let rounds = 50 + self.chance.below(30);
                behind(self.sim.commands(), rounds, one, Box::new(order));
            }
            _ => order(self.sim.commands()),
        }
    }

    fn go_on(&mut self) {
        let some_millis = Duration::from_millis(self.chance.below(20) as u64);
        match self.chance.below(6) {
            0 => self.sim.run(),
            1 => self.sim.advance(some_millis),
            2 => self.sim.stand_still(some_millis),
            _ => _ = self.sim.turn(),
        }
        for far in &mut self.fars {
            far.listen(&mut self.sim);
        }
    }

    /// A while in which peers speak, read or do not, and these orders are given.
    fn blow(&mut self, steps: usize, orders: &[u8], ends: bool) {
        for _ in 0..steps {
            let index = self.chance.below(ENDS);
            let (sim, far, chance) = (&mut self.sim, &mut self.fars[index], &mut self.chance);
            match chance.below(8) {
                0 => sim.stop_reading(far.peer),
                1 => sim.start_reading(far.peer),
                2 if ends && !far.has_ended => far.end(sim),
                2..6 if far.said < far.to_say.len() => far.say(sim, chance),
                _ => self.order(orders),
            }
            self.go_on();
        }
    }

    /// Nobody holds anything back any more, and all has been said.
    fn calm(&mut self, ends: bool) {
        for far in &mut self.fars {
            self.sim.start_reading(far.peer);
            while far.said < far.to_say.len() {
                far.say(&mut self.sim, &mut self.chance);
            }
            if ends && !far.has_ended {
                far.end(&mut self.sim);
            }
        }
        let ids: Vec<_> = self.accounts.borrow().iter().flat_map(|account| account.id).collect();
        for id in ids {
            // Behind those that wait.
            behind(self.sim.commands(), 100, id, Box::new(move |commands| commands.resume(id)));
        }
        for _ in 0..10 {
            self.sim.advance(Duration::from_secs(1));
            for far in &mut self.fars {
                far.listen(&mut self.sim);
            }
        }
    }

    /// What has come of what this one has said: in its own protocol, and at each far end.
    fn arrived(&self, source: usize) -> Vec<Vec<usize>> {
        let of_source = |bytes: &[u8]| -> Vec<usize> {
            let bytes = bytes.iter().map(|byte| usize::from(*byte));
            bytes.filter(|byte| byte / COUNTED == source).map(|byte| byte % COUNTED).collect()
        };
        let accounts = self.accounts.borrow();
        let places =
            std::iter::once(&accounts[source].taken).chain(self.fars.iter().map(|far| &far.received));
        places.map(|bytes| of_source(bytes)).collect()
    }

    fn place(&self, seed: u64) -> String {
        let accounts = self.accounts.borrow();
        let lost: Vec<_> = accounts.iter().map(|account| (&account.lost, account.eofs)).collect();
        format!("seed {seed}: {lost:?}, {} links", self.links)
    }

    /// All are gone, each of them once, and nothing is left of them.
    fn has_ended(&mut self, seed: u64) {
        let place = self.place(seed);
        assert_eq!((self.sim.open(), self.sim.blocks_in_use()), (0, 0), "{place}");
        assert_eq!(self.sim.stats().panics, 0, "{place}");
        for account in self.accounts.borrow().iter() {
            assert!(account.lost.len() == 1 && account.eofs <= 1, "{place}");
        }
    }
}

#[test]
fn while_links_come_and_go_every_byte_arrives_once_and_in_order_wherever_it_goes() {
    for seed in seeds(300) {
        let mut storm = Storm::new(seed, 0);
        storm.blow(200, b"llllpprrw", false);
        storm.calm(false);
        let place = storm.place(seed);
        for source in 0..ENDS {
            let arrived = storm.arrived(source);
            let bytes: usize = arrived.iter().map(Vec::len).sum();
            assert_eq!(bytes, storm.fars[source].to_say.len(), "source {source}, {place}");
            let leaps = arrived.iter().flat_map(|bytes| bytes.windows(2));
            let leaps = leaps.filter(|two| (two[0] + 1) % COUNTED != two[1]).count();
            assert!(leaps <= storm.links, "{leaps} leaps of source {source}, {place}");
        }
        assert_eq!(storm.sim.open(), ENDS, "{place}");
        // Then they end while links come and go.
        storm.blow(60, b"lllpprrw", true);
        storm.calm(true);
        let ids: Vec<_> = storm.accounts.borrow().iter().flat_map(|account| account.id).collect();
        for id in ids {
            storm.sim.commands().close(id);
        }
        storm.sim.advance(Duration::from_secs(60));
        storm.has_ended(seed);
    }
}

#[test]
fn whatever_others_want_of_linked_connections_nobody_waits_for_ever() {
    for seed in seeds(300) {
        let mut storm = Storm::new(seed, 0);
        storm.blow(150, b"lllllllpprrwsfcx", true);
        if seed % 2 == 0 {
            storm.sim.begin_drain(Duration::from_secs(20));
            storm.blow(50, b"lllllpprrwsf", true);
        }
        storm.calm(true);
        let ids: Vec<_> = storm.accounts.borrow().iter().flat_map(|account| account.id).collect();
        for id in ids {
            storm.sim.commands().close(id);
        }
        storm.sim.advance(Duration::from_secs(60));
        storm.has_ended(seed);
        assert!(seed % 2 != 0 || storm.sim.is_finished(), "{}", storm.place(seed));
    }
}

#[test]
fn behind_layers_all_is_heard_and_all_that_was_said_before_an_end_arrives() {
    for seed in seeds(300) {
        let mut storm = Storm::new(seed, 1 + seed as usize % 2);
        storm.blow(150, b"pprrrwsf", seed % 3 == 0);
        storm.calm(true);
        storm.sim.advance(Duration::from_secs(60));
        storm.has_ended(seed);
        let place = storm.place(seed);
        for (far, account) in storm.fars.iter().zip(storm.accounts.borrow().iter()) {
            assert!(!storm.sim.is_reset(far.peer) && account.eofs == 1, "{place}");
            assert!(account.taken == far.to_say, "{} of {}, {place}", account.taken.len(), far.to_say.len());
            assert!(
                far.received == account.sent,
                "{} of {}, {place}",
                far.received.len(),
                account.sent.len()
            );
            assert!(far.ciphers.iter().all(FarEnd::is_over), "{place}");
        }
    }
}

#[test]
fn a_drain_of_layered_connections_ends_whatever_others_want_of_them() {
    for seed in seeds(200) {
        let mut storm = Storm::new(seed, 1 + seed as usize % 2);
        storm.blow(80, b"pprrwsfc", false);
        storm.sim.begin_drain(Duration::from_secs(20));
        storm.blow(40, b"pprrwsfc", true);
        storm.sim.advance(Duration::from_secs(40));
        for far in &mut storm.fars {
            far.listen(&mut storm.sim);
        }
        storm.has_ended(seed);
        let place = storm.place(seed);
        assert!(storm.sim.is_finished(), "{place}");
        for (far, account) in storm.fars.iter().zip(storm.accounts.borrow().iter()) {
            assert!(far.to_say.starts_with(&account.taken), "{place}");
            assert!(account.sent.starts_with(&far.received), "{place}");
        }
    }
}
