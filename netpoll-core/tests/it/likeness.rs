//! "The protocol itself is the same as without": one protocol that does what its peer says, letter by letter, plain and behind layers
//! that change nothing. What it sees and what its peer sees must be the same, whatever the script.
//!
//! Two things may differ, as `Layered` says: how often it gives way for room, since what waits above a layer leaves as the wire has
//! room; and whether it lingers behind its last word, which follows from how much had to wait.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use netpoll_core::sim::{Faults, Options, PeerId, Sim};
use netpoll_core::{
    Commands, Conn, ConnLimits, Either, Flow, Input, Layer, Layered, Lost, Message, Protocol, Upper,
};

use crate::chance::{Chance, seeds};

const MS: Duration = Duration::from_millis(1);

type Log = Rc<RefCell<Vec<String>>>;

/// A layer that changes nothing. It may have a deadline of its own all the time, which nobody is to notice.
struct Same {
    is_busy: bool,
}

impl Layer for Same {
    fn opened(&mut self, conn: &mut Conn<'_>, upper: &mut Upper<'_>) -> Flow {
        if self.is_busy {
            conn.set_deadline(7 * MS);
        }
        upper.open(conn);
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>, upper: &mut Upper<'_>) -> Flow {
        if upper.takes_more(conn) {
            upper.received(conn, input.bytes_mut());
            input.advance_all();
        }
        Flow::Continue
    }

    fn send(&mut self, conn: &mut Conn<'_>, plain: &[u8]) -> Flow {
        conn.send(plain);
        Flow::Continue
    }

    fn deadline(&mut self, conn: &mut Conn<'_>, _upper: &mut Upper<'_>) -> Flow {
        conn.set_deadline(7 * MS);
        conn.unchanged_flow()
    }
}

/// Does what its peer says, and writes down when.
struct Obedient {
    log: Log,
    is_paused: bool,
    letters: usize,
}

impl Obedient {
    fn note(&self, conn: &Conn<'_>, what: impl AsRef<str>) {
        self.log.borrow_mut().push(format!("{} {}", conn.now().as_millis(), what.as_ref()));
    }

    /// What a letter says. A flow, if that is all for now.
    fn obey(&mut self, conn: &mut Conn<'_>, letter: u8) -> Option<Flow> {
        let id = conn.id();
        match letter {
            b's' => conn.send(b"small."),
            b'n' => conn.send_now(b"now."),
            b'S' => conn.send(&[b'L'; 300_000]),
            b'b' => conn.send_shared(Bytes::from(vec![b'B'; 100_000])),
            b'a' => conn.append(8, |out| out.extend(b"append.")),
            b'y' => return Some(Flow::Yield),
            b'p' => {
                conn.commands().after(10 * MS, move |local| local.commands().tell(id, true));
                self.is_paused = true;
                return Some(Flow::Pause);
            }
            b'w' => {
                let waker = conn.waker();
                conn.commands().after(7 * MS, move |_local| waker.wake());
            }
            b'd' => conn.set_deadline(50 * MS),
            b'D' => conn.set_deadline(5 * MS),
            b'c' => conn.clear_deadline(),
            b'x' => conn.commands().send(id, Bytes::from_static(b"self.")),
            b't' => conn.commands().tell(id, false),
            b'k' => {
                conn.commands().pause(id);
                conn.commands().after(20 * MS, move |local| local.commands().resume(id));
            }
            b'f' => conn.finish(),
            b'F' => conn.commands().finish(id),
            b'K' => conn.commands().close(id),
            b'C' => return Some(Flow::Close),
            b'L' => return Some(Flow::Linger),
            b'T' => return Some(Flow::Retire),
            b'R' => return Some(Flow::Reset),
            b'P' => std::panic::resume_unwind(Box::new(())),
            _ => {}
        }
        None
    }
}

/// Letters that most of a script is made of, and those that end something. What was sent at once a reset does not take back, and behind
/// a layer nothing is sent at once: a script has the one or the other.
const COMMON: [&[u8]; 2] = [b"sssnbaSywddDcxxtkp", b"ssssbaSywddDcxxtkp"];
const RARE: [&[u8]; 2] = [b"fFKCLTCT", b"fFKCLTRP"];

impl Protocol for Obedient {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.note(conn, "opened");
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        while let Some(letter) = input.bytes().first().copied() {
            if conn.is_backed_up() {
                self.note(conn, GAVE_WAY);
                return Flow::Yield;
            }
            input.advance(1);
            self.letters += 1;
            self.note(conn, format!("letter {}", char::from(letter)));
            if let Some(flow) = self.obey(conn, letter) {
                return flow;
            }
        }
        Flow::Continue
    }

    fn eof(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.note(conn, format!("eof {}", input.len()));
        conn.send(b"eof.");
        if !self.letters.is_multiple_of(3) {
            return Flow::Close;
        }
        conn.set_deadline(100 * MS);
        Flow::Continue
    }

    fn peer_ended(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.note(conn, "peer ended");
        conn.unchanged_flow()
    }

    fn drained(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.note(conn, DRAINED);
        if self.is_paused { Flow::Pause } else { Flow::Continue }
    }

    fn deadline(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.note(conn, "deadline");
        conn.send(b"deadline.");
        if self.letters.is_multiple_of(2) { conn.unchanged_flow() } else { Flow::Close }
    }

    fn woken(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.note(conn, "woken");
        conn.unchanged_flow()
    }

    fn told(&mut self, conn: &mut Conn<'_>, message: Message) -> Flow {
        let goes_on: bool = message.downcast().unwrap();
        self.note(conn, format!("told {goes_on}"));
        if goes_on {
            self.is_paused = false;
            return Flow::Continue;
        }
        conn.unchanged_flow()
    }

    fn stopping(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.note(conn, "stopping");
        conn.send(b"stopping.");
        if self.letters.is_multiple_of(2) { Flow::Retire } else { Flow::Close }
    }

    fn finishing(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.note(conn, "finishing");
        conn.send(b"finishing.");
        conn.finish();
        conn.unchanged_flow()
    }

    fn closing(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.note(conn, "closing");
        conn.send(b"closing.");
        Flow::Close
    }

    fn outgoing(&mut self, conn: &mut Conn<'_>, bytes: Bytes) -> Flow {
        self.note(conn, "outgoing");
        conn.send_common(bytes);
        conn.unchanged_flow()
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        self.log.borrow_mut().push(format!("lost {reason:?}"));
    }
}

const GAVE_WAY: &str = "gave way";
const DRAINED: &str = "drained";

#[derive(Clone, Debug)]
enum Step {
    Send(String),
    StopReading,
    StartReading,
    Finish,
    Advance(u32),
    Settle,
    Drain,
}

fn script(chance: &mut Chance) -> Vec<Step> {
    let steps = 2 + chance.below(8);
    let set = chance.below(2);
    let one_of = |chance: &mut Chance, letters: &[u8]| char::from(letters[chance.below(letters.len())]);
    let letters = |chance: &mut Chance| {
        let letter = |chance: &mut Chance| match chance.below(14) {
            0 => one_of(chance, RARE[set]),
            _ => one_of(chance, COMMON[set]),
        };
        (0..=chance.below(8)).map(|_| letter(chance)).collect::<String>()
    };
    let mut step = || match chance.below(14) {
        0..=5 => Step::Send(letters(chance)),
        6 => Step::StopReading,
        7 => Step::StartReading,
        8 if chance.below(2) == 0 => Step::Finish,
        9 if chance.below(3) == 0 => Step::Drain,
        10 => Step::Settle,
        _ => Step::Advance(1 + chance.below(60) as u32),
    };
    (0..steps).map(|_| step()).collect()
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Plain,
    Chosen,
    Layered,
    Busy,
    Twice,
}

const OTHERS: [Kind; 4] = [Kind::Chosen, Kind::Layered, Kind::Busy, Kind::Twice];

/// What both sides have seen of one script.
struct Seen {
    log: Vec<String>,
    received: Vec<u8>,
    is_closed: bool,
}

fn play(steps: &[Step], kind: Kind, seed: u64, faults: Faults) -> Seen {
    let log = Log::default();
    let made = Rc::clone(&log);
    let make = move || Obedient { log: Rc::clone(&made), is_paused: false, letters: 0 };
    let limits = ConnLimits::default().write_grace(2_000 * MS);
    let mut sim = Sim::new(Options::default().seed(seed).faults(faults).limits(limits));
    let listener = match kind {
        Kind::Plain => sim.listen(move |_peer| make()),
        Kind::Chosen => sim.listen(move |_peer| Either::<_, Obedient>::Left(make())),
        Kind::Layered | Kind::Busy => {
            let is_busy = matches!(kind, Kind::Busy);
            sim.listen(move |_peer| Either::<Obedient, _>::Right(Layered::new(Same { is_busy }, make())))
        }
        Kind::Twice => sim.listen(move |_peer| {
            let inner = Layered::new(Same { is_busy: false }, make());
            Layered::new(Same { is_busy: true }, inner)
        }),
    };
    let peer = sim.connect(listener);
    sim.settle();
    let received = play_steps(&mut sim, peer, steps);
    assert!(sim.is_finished(), "seed {seed} {kind:?} {steps:?}");
    assert_eq!(sim.blocks_in_use(), 0, "seed {seed} {kind:?} {steps:?}");
    let log = log.borrow().clone();
    Seen { log, received, is_closed: sim.is_closed(peer) }
}

fn play_steps(sim: &mut Sim, peer: PeerId, steps: &[Step]) -> Vec<u8> {
    let mut received = Vec::new();
    for step in steps {
        match step {
            Step::Send(letters) => sim.send(peer, letters.as_bytes()),
            Step::StopReading => sim.stop_reading(peer),
            Step::StartReading => sim.start_reading(peer),
            Step::Finish => sim.finish(peer),
            Step::Advance(time) => sim.advance(MS * *time),
            Step::Settle => sim.settle(),
            Step::Drain => sim.begin_drain(5_000 * MS),
        }
        sim.drain_received(peer, &mut received);
    }
    // The peer reads after all, then ends, and then so does the world.
    sim.advance(1_000 * MS);
    sim.start_reading(peer);
    sim.advance(1_000 * MS);
    sim.drain_received(peer, &mut received);
    sim.finish(peer);
    sim.advance(30_000 * MS);
    sim.drain_received(peer, &mut received);
    sim.begin_drain(5_000 * MS);
    sim.advance(6_000 * MS);
    sim.drain_received(peer, &mut received);
    received
}

/// What must be the same. Runs of a letter are counted, for a message that can be read.
fn essence(seen: &Seen) -> (Vec<&String>, Vec<(char, usize)>) {
    let log = seen.log.iter().filter(|line| !line.ends_with(GAVE_WAY) && !line.ends_with(DRAINED)).collect();
    let runs = seen.received.chunk_by(|one, next| one == next);
    (log, runs.map(|run| (run[0].into(), run.len())).collect())
}

/// The kind that differs, if one does.
fn differs(steps: &[Step], seed: u64) -> Option<Kind> {
    let plain = play(steps, Kind::Plain, seed, Faults::none());
    OTHERS.into_iter().find(|kind| essence(&play(steps, *kind, seed, Faults::none())) != essence(&plain))
}

/// A script that differs as well and is as short as can be.
fn shortest(mut steps: Vec<Step>, seed: u64) -> Vec<Step> {
    let shorter = |steps: &[Step]| {
        let without = |at: usize| {
            let mut less = steps.to_vec();
            less.remove(at);
            less
        };
        let without_letter = |at: usize, letter: usize| {
            let mut less = steps.to_vec();
            if let Step::Send(letters) = &mut less[at] {
                letters.remove(letter);
            }
            less
        };
        let letters = |at: usize| match &steps[at] {
            Step::Send(letters) => letters.len(),
            _ => 0,
        };
        let of_steps = (0..steps.len()).map(without);
        let of_letters = (0..steps.len()).flat_map(|at| (0..letters(at)).map(move |letter| (at, letter)));
        of_steps
            .chain(of_letters.map(|(at, letter)| without_letter(at, letter)))
            .find(|less| differs(less, seed).is_some())
    };
    while let Some(less) = shorter(&steps) {
        steps = less;
    }
    steps
}

#[test]
fn a_protocol_and_its_peer_see_the_same_with_and_without_layers() {
    for seed in seeds(150) {
        let steps = script(&mut Chance::new(seed));
        if differs(&steps, seed).is_none() {
            continue;
        }
        let steps = shortest(steps, seed);
        let kind = differs(&steps, seed).unwrap();
        let (plain, other) =
            (play(&steps, Kind::Plain, seed, Faults::none()), play(&steps, kind, seed, Faults::none()));
        panic!(
            "seed {seed}, {steps:?}\nplain: {:?}\n{:?}\n{kind:?}: {:?}\n{:?}",
            plain.log,
            essence(&plain).1,
            other.log,
            essence(&other).1
        );
    }
}

#[test]
fn who_closes_in_the_grace_of_a_drain_destroys_no_answer_that_its_peer_has_not_read() {
    let steps = [
        Step::StopReading,
        Step::Drain,
        Step::Send("cdDssp".into()),
        Step::Send("C".into()),
        Step::Advance(11),
        Step::Send("w".into()),
    ];
    for seed in 0..20 {
        for kind in [Kind::Plain].into_iter().chain(OTHERS) {
            let seen = play(&steps, kind, seed, Faults::none());
            let received = String::from_utf8_lossy(&seen.received).into_owned();
            assert_eq!(received, "small.small.stopping.deadline.", "seed {seed} {kind:?}");
        }
    }
}

#[test]
fn whatever_the_faults_a_script_comes_to_its_end_with_and_without_layers() {
    for seed in seeds(60) {
        let steps = script(&mut Chance::new(seed));
        for kind in [Kind::Plain].into_iter().chain(OTHERS) {
            let seen = play(&steps, kind, seed, Faults::stormy());
            assert!(seen.is_closed, "seed {seed} {kind:?} {steps:?}");
            let last = seen.log.last();
            assert!(last.is_none_or(|last| last.starts_with("lost")), "seed {seed} {kind:?} {:?}", seen.log);
        }
    }
}

/// Hands on what comes, and takes a zero for the end.
struct Framed;

impl Layer for Framed {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>, upper: &mut Upper<'_>) -> Flow {
        while upper.takes_more(conn) && !input.is_empty() {
            let bytes = input.bytes_mut();
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            upper.received(conn, &mut bytes[..end]);
            if end < bytes.len() {
                upper.eof(conn);
            }
            let taken = (end + 1).min(bytes.len());
            input.advance(taken);
        }
        Flow::Continue
    }

    fn send(&mut self, conn: &mut Conn<'_>, plain: &[u8]) -> Flow {
        conn.send(plain);
        Flow::Continue
    }
}

/// Sends back what it gets by command, and leaves the last byte.
struct ToItself(Log);

impl Protocol for ToItself {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.0.borrow_mut().push(format!("received {}", input.len()));
        let taken = input.len().saturating_sub(1);
        let (id, bytes) = (conn.id(), Bytes::copy_from_slice(&input.bytes()[..taken]));
        input.advance(taken);
        if taken > 0 {
            conn.commands().send(id, bytes);
            conn.commands().tell(id, ());
        }
        Flow::Continue
    }

    fn told(&mut self, conn: &mut Conn<'_>, _message: Message) -> Flow {
        self.0.borrow_mut().push("told".into());
        conn.unchanged_flow()
    }

    fn eof(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.0.borrow_mut().push(format!("eof {}", input.len()));
        conn.send(b"!");
        Flow::Close
    }

    fn woken(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.0.borrow_mut().push("woken".into());
        conn.unchanged_flow()
    }

    fn deadline(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.0.borrow_mut().push("deadline".into());
        conn.unchanged_flow()
    }

    fn stopping(&mut self, _conn: &mut Conn<'_>) -> Flow {
        self.0.borrow_mut().push("stopping".into());
        Flow::Retire
    }
}

/// A world with one of these behind so many layers that change nothing, or behind one with ends of its own.
fn to_itself(layers: usize, framed: bool) -> (Sim, PeerId, Log) {
    let log = Log::default();
    let made = Rc::clone(&log);
    let make = move || ToItself(Rc::clone(&made));
    let same = || Same { is_busy: true };
    let mut sim = Sim::new(Options::default());
    let listener = match layers {
        0 => sim.listen(move |_peer| make()),
        1 if framed => sim.listen(move |_peer| Layered::new(Framed, make())),
        1 => sim.listen(move |_peer| Layered::new(same(), make())),
        _ if framed => sim.listen(move |_peer| Layered::new(same(), Layered::new(Framed, make()))),
        _ => sim.listen(move |_peer| Layered::new(same(), Layered::new(same(), make()))),
    };
    let peer = sim.connect(listener);
    sim.settle();
    (sim, peer, log)
}

#[test]
fn what_a_protocol_commands_is_done_before_it_is_told_the_end_that_came_with_the_input() {
    for (layers, framed) in [(0, false), (1, false), (1, true), (2, false), (2, true)] {
        let (mut sim, peer, log) = to_itself(layers, framed);
        sim.send(peer, if framed { b"abc\0" } else { b"abc" });
        sim.finish(peer);
        sim.settle();
        assert_eq!(*log.borrow(), ["received 3", "told", "eof 1"], "{layers} layers, framed {framed}");
        assert_eq!(sim.take_received(peer), b"ab!", "{layers} layers, framed {framed}");
        assert!(sim.is_closed(peer));
    }
}

#[test]
fn what_was_left_is_not_offered_again_because_a_drain_begins() {
    for layers in 0..3 {
        let (mut sim, peer, log) = to_itself(layers, false);
        sim.send(peer, b"a");
        sim.settle();
        sim.begin_drain(5_000 * MS);
        sim.settle();
        assert_eq!(*log.borrow(), ["received 1", "stopping"], "{layers} layers");
    }
}

/// Sets its deadline to the moment in which it is woken.
struct WokenInTime(ToItself);

impl Protocol for WokenInTime {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        let (id, waker) = (conn.id(), conn.waker());
        conn.commands().after(7 * MS, move |_local| waker.wake());
        // Behind the timer, so that the deadline comes up when the wake is under way.
        conn.commands().tell(id, ());
        Flow::Continue
    }

    fn told(&mut self, conn: &mut Conn<'_>, _message: Message) -> Flow {
        conn.set_deadline(7 * MS);
        Flow::Continue
    }

    fn woken(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.0.woken(conn)
    }

    fn deadline(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.0.deadline(conn)
    }
}

#[test]
fn one_wake_is_told_once_whatever_deadline_passes_with_it() {
    for layers in 0..3 {
        let log = Log::default();
        let made = Rc::clone(&log);
        let make = move || WokenInTime(ToItself(Rc::clone(&made)));
        let busy = || Same { is_busy: true };
        let mut sim = Sim::new(Options::default());
        let listener = match layers {
            0 => sim.listen(move |_peer| make()),
            1 => sim.listen(move |_peer| Layered::new(busy(), make())),
            _ => sim.listen(move |_peer| Layered::new(busy(), Layered::new(busy(), make()))),
        };
        let peer = sim.connect(listener);
        sim.send(peer, b"x");
        sim.advance(100 * MS);
        let mut seen = log.borrow().clone();
        seen.sort();
        assert_eq!(seen, ["deadline", "woken"], "{layers} layers");
    }
}
