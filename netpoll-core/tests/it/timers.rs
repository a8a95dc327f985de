//! Timers of a worker that belong to no connection.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use netpoll_core::sim::{Faults, Options, Sim};
use netpoll_core::{Instant, Local, Runtime, TimerId, Workers};

use crate::chance::{Chance, seeds};
use crate::support::{Echo, PanicsWhenDropped};

const PATIENCE: Duration = Duration::from_secs(60);

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// When something was called.
type Times = Rc<RefCell<Vec<u64>>>;

/// Writes the time down.
fn note(times: &Times) -> impl FnMut(&mut Local<'_>) + 'static {
    let times = Rc::clone(times);
    move |local| times.borrow_mut().push(local.now().as_millis())
}

#[test]
fn a_timer_calls_once_when_its_time_has_passed() {
    let (mut sim, times) = (Sim::new(Options::default()), Times::default());
    let mut call = note(&times);
    sim.commands().after(millis(50), move |local| call(local));
    sim.advance(millis(49));
    assert!(times.borrow().is_empty());
    sim.advance(millis(1));
    assert_eq!(*times.borrow(), [50]);
    sim.advance(PATIENCE);
    assert_eq!((times.borrow().len(), sim.stats().timers_fired), (1, 1));
}

#[test]
fn of_ten_thousand_timers_none_fires_early_and_none_later_than_a_millisecond() {
    for (seed, faults) in [(1, Faults::none()), (2, Faults::stormy())] {
        let mut sim = Sim::new(Options::default().seed(seed).faults(faults).workers(2));
        let mut chance = Chance::new(seed);
        // Asked for from a callback at an odd time, so that no tick of the wheel is near.
        sim.advance(Duration::from_micros(1_234_567));
        let late = Rc::new(RefCell::new(Vec::new()));
        for timer in 0..10_000 {
            let micros = [chance.below(2_000), chance.below(500_000), chance.below(100_000_000)][timer % 3];
            let delay = Duration::from_micros(micros as u64);
            let (due, late) = (sim.now().saturating_add(delay), Rc::clone(&late));
            sim.commands_of(timer % 2).after(delay, move |local| {
                assert!(local.now() >= due, "early");
                late.borrow_mut().push(local.now().duration_since(due));
            });
        }
        sim.advance(Duration::from_secs(101));
        assert_eq!((late.borrow().len(), sim.stats().panics), (10_000, 0));
        assert!(late.borrow().iter().all(|late| *late <= millis(1)), "{:?}", late.borrow().iter().max());
    }
}

#[test]
fn of_ten_thousand_timers_on_real_workers_each_fires_once_and_none_early() {
    let running = Runtime::builder().workers(Workers::Count(2)).start().unwrap();
    let (fired, all) = mpsc::channel();
    for worker in 0..2 {
        let fired = fired.clone();
        running.handle().run_on(worker, move |local| {
            let mut chance = Chance::new(worker as u64);
            for timer in 0..5_000 {
                let delay = Duration::from_micros(chance.below(300_000) as u64);
                let (asked, fired) = (local.now(), fired.clone());
                local.commands().after(delay, move |local| {
                    fired
                        .send((worker, timer, local.now().duration_since(asked).checked_sub(delay)))
                        .unwrap();
                });
            }
        });
    }
    let mut seen = HashSet::new();
    for _ in 0..10_000 {
        let (worker, timer, late) = all.recv_timeout(PATIENCE).expect("all of them");
        assert!(late.is_some() && seen.insert((worker, timer)));
    }
    let stats = running.stop(PATIENCE).unwrap().stats;
    assert_eq!((stats.timers_fired, stats.panics), (10_000, 0));
}

#[test]
fn a_repeated_timer_keeps_its_rhythm_and_leaves_out_what_it_missed() {
    let (mut sim, times) = (Sim::new(Options::default()), Times::default());
    sim.advance(millis(3));
    sim.every(millis(10), |worker| {
        assert_eq!((worker.index, worker.workers), (0, 1));
        note(&times)
    });
    sim.advance(millis(35));
    assert_eq!(*times.borrow(), [13, 23, 33]);
    sim.stand_still(millis(1_000));
    sim.advance(millis(20));
    assert_eq!(times.borrow()[3..], [1038, 1043, 1053], "one for all that were missed, then as before");
}

#[test]
fn a_timer_may_be_slower_than_its_period() {
    let running = Runtime::builder().workers(Workers::Count(1));
    let (ticks, all) = mpsc::sync_channel(0);
    let running = running
        .every(millis(1), move |_worker| {
            let ticks = ticks.clone();
            // The other side takes one now and then: the worker stands still meanwhile.
            move |local| {
                // The other side ends first.
                let _ = ticks.send(local.now());
            }
        })
        .start()
        .unwrap();
    let mut last = Instant::ZERO;
    for _ in 0..5 {
        let from = running.handle().now();
        while running.handle().now().duration_since(from) < millis(5) {
            std::thread::yield_now();
        }
        let now = all.recv_timeout(PATIENCE).unwrap();
        assert!(now > last, "never two in one turn");
        last = now;
    }
    drop(all);
    running.stop(PATIENCE).unwrap();
}

#[test]
fn a_cancelled_timer_is_not_called_and_its_callback_is_dropped_at_once() {
    let (mut sim, times) = (Sim::new(Options::default().workers(2)), Times::default());
    let mut call = note(&times);
    let once = sim.commands().after(millis(10), move |local| call(local));
    let again = sim.commands().every(millis(10), note(&times));
    let unheard = sim.commands().after(millis(10), |_local| ());
    assert!(sim.commands().cancel(unheard), "before it was carried out");
    sim.advance(millis(5));
    assert_eq!(Rc::strong_count(&times), 3);
    assert!(!sim.commands_of(1).cancel(once), "it is of another worker");
    assert!(sim.commands().cancel(once) && sim.commands().cancel(again));
    assert_eq!(Rc::strong_count(&times), 1);
    assert!(!sim.commands().cancel(once) && !sim.commands().cancel(again), "they are gone");
    sim.run();
    let turns = sim.stats().turns;
    sim.advance(PATIENCE);
    assert_eq!((times.borrow().len(), sim.stats().timers_fired), (0, 0));
    assert_eq!(sim.stats().turns, turns, "nothing wakes the worker for them");
}

#[test]
fn a_timer_may_cancel_itself_and_others_that_are_due() {
    let mut sim = Sim::new(Options::default());
    let names = Rc::new(RefCell::new(Vec::<TimerId>::new()));
    let calls = Rc::new(Cell::new(0));
    for _ in 0..3 {
        let (all, calls) = (Rc::clone(&names), Rc::clone(&calls));
        let name = sim.commands().every(millis(10), move |local| {
            calls.set(calls.get() + 1);
            for name in all.borrow().iter() {
                assert!(local.commands().cancel(*name));
            }
        });
        names.borrow_mut().push(name);
    }
    sim.advance(PATIENCE);
    assert_eq!((calls.get(), sim.stats().panics), (1, 0));
    assert_eq!(Rc::strong_count(&names), 1, "all were dropped");
}

#[test]
fn a_timer_that_asks_for_the_next_one_starves_nobody() {
    fn again(local: &mut Local<'_>) {
        local.commands().after(Duration::ZERO, again);
    }
    let mut sim = Sim::new(Options::default());
    sim.commands().after(Duration::ZERO, again);
    let listener = sim.listen(|_peer| Echo);
    let peer = sim.connect(listener);
    sim.send(peer, b"hello");
    for _ in 0..10 {
        sim.turn();
    }
    assert_eq!(sim.take_received(peer), b"hello");
    assert!((1..=10).contains(&sim.stats().timers_fired), "{}", sim.stats().timers_fired);
}

#[test]
fn a_timer_that_panics_ends_and_nothing_else_does() {
    let (mut sim, times) = (Sim::new(Options::default()), Times::default());
    sim.commands().every(millis(10), |_local| panic!("asked to"));
    sim.commands().after(millis(10), |_local| panic!("asked to"));
    let owned = PanicsWhenDropped;
    sim.commands().every(millis(10), move |_local| {
        let _owned = &owned;
        panic!("asked to, and again when dropped");
    });
    sim.commands().every(millis(10), note(&times));
    sim.advance(millis(30));
    assert_eq!(*times.borrow(), [10, 20, 30]);
    assert_eq!(sim.stats().panics, 4);
}

#[test]
fn timers_go_on_in_a_drain_and_hold_none_up() {
    let (mut sim, times) = (Sim::new(Options::default()), Times::default());
    let listener = sim.listen(|_peer| Echo);
    sim.connect(listener);
    sim.commands().every(millis(100), note(&times));
    sim.commands().after(PATIENCE, |_local| ());
    sim.run();
    sim.begin_drain(PATIENCE);
    sim.advance(Duration::from_secs(5));
    assert!(sim.is_finished(), "its connection has ended, and nothing else counts");
    // The grace for a connection that is between two requests, and its lingering.
    assert!((10..=35).contains(&times.borrow().len()), "{:?}", times.borrow());
}

#[test]
fn what_has_not_fired_at_the_end_of_a_worker_is_dropped_there() {
    struct Dropped(Arc<AtomicUsize>, std::thread::ThreadId);
    impl Drop for Dropped {
        fn drop(&mut self) {
            assert_eq!(std::thread::current().id(), self.1);
            self.0.fetch_add(1, Ordering::Relaxed);
            panic!("a destructor that panics");
        }
    }
    let count = Arc::<AtomicUsize>::default();
    let running = Runtime::builder().workers(Workers::Count(2));
    let on_each = Arc::clone(&count);
    let running = running
        .on_start(move |_worker, commands| {
            for _ in 0..3 {
                let owned = Dropped(Arc::clone(&on_each), std::thread::current().id());
                commands.after(PATIENCE, move |_local| drop(owned));
            }
            let owned = Dropped(Arc::clone(&on_each), std::thread::current().id());
            commands.every(PATIENCE, move |_local| {
                let _owned = &owned;
            });
        })
        .start()
        .unwrap();
    let stats = running.stop(PATIENCE).unwrap().stats;
    assert_eq!((count.load(Ordering::Relaxed), stats.panics, stats.timers_fired), (8, 8, 0));

    let count = Arc::<AtomicUsize>::default();
    let mut sim = Sim::new(Options::default());
    let owned = Dropped(Arc::clone(&count), std::thread::current().id());
    sim.commands().after(PATIENCE, move |_local| drop(owned));
    sim.run();
    drop(sim);
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

/// A timer as it should be.
struct Wanted {
    name: TimerId,
    due: Instant,
    period: Option<Duration>,
}

#[test]
fn whatever_is_asked_of_timers_they_fire_when_a_model_says() {
    for seed in seeds(50) {
        let mut chance = Chance::new(seed);
        let mut sim = Sim::new(Options::default().seed(seed));
        let fired = Rc::<RefCell<Vec<(usize, Instant)>>>::default();
        let mut wanted: BTreeMap<usize, Wanted> = BTreeMap::new();
        for number in 0..300 {
            let delay = Duration::from_micros([10, 3_000, 70_000, 5_000_000][chance.below(4)]);
            let delay = delay.mul_f64((1 + chance.below(999)) as f64 / 1000.0);
            let due = sim.now().saturating_add(delay);
            let fired_here = Rc::clone(&fired);
            match chance.below(10) {
                0..4 => {
                    let call =
                        move |local: &mut Local<'_>| fired_here.borrow_mut().push((number, local.now()));
                    let name = sim.commands().after(delay, call);
                    wanted.insert(number, Wanted { name, due, period: None });
                }
                4 => {
                    let call =
                        move |local: &mut Local<'_>| fired_here.borrow_mut().push((number, local.now()));
                    let name = sim.commands().every(delay, call);
                    wanted.insert(number, Wanted { name, due, period: Some(delay) });
                }
                5 => {
                    let nth = chance.below(wanted.len());
                    if let Some(number) = wanted.keys().nth(nth).copied() {
                        let Wanted { name, .. } = wanted.remove(&number).unwrap();
                        assert!(sim.commands().cancel(name), "seed {seed}: {number} had not fired");
                    }
                }
                6 => sim.stand_still(Duration::from_micros(chance.below(100_000) as u64)),
                _ => sim.run(),
            }
            // Asked for, and carried out, at this time.
            sim.run();
            let (from, time) = (sim.now(), Duration::from_micros(chance.below(20_000) as u64));
            sim.advance(time);
            for (number, at) in fired.borrow_mut().drain(..) {
                let timer =
                    wanted.get_mut(&number).unwrap_or_else(|| panic!("seed {seed}: {number} is gone"));
                // What was due before may have come first of all, when the process had stood still.
                let latest = timer.due.max(from).saturating_add(millis(1));
                assert!(
                    timer.due <= at && at <= latest,
                    "seed {seed}: {number} at {at:?}, due {:?}",
                    timer.due
                );
                match timer.period {
                    None => drop(wanted.remove(&number)),
                    Some(period) => {
                        while timer.due <= at {
                            timer.due = timer.due.saturating_add(period);
                        }
                    }
                }
            }
            let tick = |at: Instant| at.as_nanos().div_ceil(1_000_000);
            let late = wanted.values().find(|timer| tick(timer.due) <= sim.now().as_millis());
            assert!(late.is_none(), "seed {seed}: one that was due has not fired");
        }
        assert_eq!(sim.stats().panics, 0);
    }
}

#[test]
fn a_period_of_zero_is_refused() {
    let refused = |call: &mut dyn FnMut()| catch_unwind(AssertUnwindSafe(call)).is_err();
    assert!(refused(&mut || drop(Runtime::builder().every(Duration::ZERO, |_worker| |_local| ()))));
    let mut sim = Sim::new(Options::default());
    assert!(refused(&mut || {
        sim.commands().every(Duration::ZERO, |_local| ());
    }));
}

/// As the deadlines of connections do, which most of them never meet.
#[test]
fn a_timer_that_is_due_alone_comes_in_the_next_turn_however_many_are_due_later() {
    let mut sim = Sim::new(Options::default());
    sim.run();
    let begins = sim.now();
    let after = |at: u64| Instant::ZERO.saturating_add(millis(at)).duration_since(begins);
    for index in 0..50_000 {
        sim.commands().after(after(9000 + index % 3000), |_| {});
    }
    let fired = Rc::new(Cell::new(false));
    let mark = Rc::clone(&fired);
    sim.commands().after(after(8195), move |_| mark.set(true));
    sim.turn();
    sim.stand_still(after(8200));
    sim.turn();
    assert!(fired.get());
}
