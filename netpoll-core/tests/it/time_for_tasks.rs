//! Sleeps, bounds and intervals of tasks.

use std::cell::{Cell, RefCell};
use std::future::{pending, ready};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use netpoll_core::sim::{Options, Sim};
use netpoll_core::task::{spawn_local, yield_now};
use netpoll_core::time::{
    Interval, MissedTicks, Sleep, Timeout, interval, interval_at, now, sleep, sleep_until, timeout,
    timeout_at,
};
use netpoll_core::{Instant, Runtime, Workers};

use crate::chance::Chance;

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn at(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

#[test]
fn a_sleep_of_an_hour_takes_no_time_in_a_simulation() {
    let mut sim = Sim::new(Options::default());
    sim.block_on(async { sleep(Duration::from_secs(3600)).await });
    assert_eq!(sim.now().as_millis(), 3_600_000);
}

#[test]
fn of_ten_thousand_sleeps_none_ends_early_and_none_later_than_a_millisecond() {
    let mut sim = Sim::new(Options::default().workers(2));
    let late = Rc::new(RefCell::new(Vec::new()));
    sim.advance(Duration::from_micros(1_234_567));
    let lates = Rc::clone(&late);
    sim.block_on(async move {
        let mut chance = Chance::new(3);
        let tasks: Vec<_> = (0..10_000)
            .map(|sleeper| {
                let micros =
                    [chance.below(2_000), chance.below(500_000), chance.below(100_000_000)][sleeper % 3];
                let lates = Rc::clone(&lates);
                spawn_local(async move {
                    let due = now().saturating_add(Duration::from_micros(micros as u64));
                    sleep_until(due).await;
                    assert!(now() >= due, "early");
                    lates.borrow_mut().push(now().duration_since(due));
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert_eq!(late.borrow().len(), 10_000);
    assert!(late.borrow().iter().all(|late| *late <= millis(1)), "{:?}", late.borrow().iter().max());
}

#[test]
fn of_ten_thousand_sleeps_on_real_workers_none_ends_early() {
    let running = Runtime::builder().workers(Workers::Count(2)).start().unwrap();
    let tasks: Vec<_> = (0..2)
        .map(|worker| {
            running.handle().spawn_on(worker, move || async move {
                let mut chance = Chance::new(worker as u64);
                let tasks: Vec<_> = (0..5_000)
                    .map(|_| {
                        let delay = Duration::from_micros(chance.below(300_000) as u64);
                        spawn_local(async move {
                            // From the call, whenever the turn began.
                            let called = std::time::Instant::now();
                            sleep(delay).await;
                            assert!(called.elapsed() >= delay, "early");
                        })
                    })
                    .collect();
                for task in tasks {
                    task.await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.join().unwrap();
    }
    running.stop(Duration::ZERO).unwrap();
}

#[test]
fn a_million_bounds_that_are_set_and_cancelled_leave_nothing_in_the_wheel() {
    let mut sim = Sim::new(Options::default());
    let timers = sim.block_on(async {
        for _ in 0..1_000_000 {
            let mut bound = pin!(timeout(Duration::from_secs(30), pending::<()>()));
            let mut cx = Context::from_waker(Waker::noop());
            assert!(bound.as_mut().poll(&mut cx).is_pending());
        }
        now()
    });
    // A single entry that was left would be a deadline.
    let before = sim.now();
    assert_eq!((timers, before), (at(0), at(0)));
    sim.advance(Duration::from_secs(60));
    assert_eq!(sim.stats().timers_fired, 0);
}

#[test]
fn a_timeout_gives_up_in_time_and_lets_who_is_ready_through() {
    let mut sim = Sim::new(Options::default());
    sim.block_on(async {
        assert_eq!(timeout(Duration::ZERO, ready(7)).await, Ok(7), "ready counts, even if time is up");
        let elapsed = timeout(millis(5), pending::<()>()).await.unwrap_err();
        assert_eq!(std::io::Error::from(elapsed).kind(), std::io::ErrorKind::TimedOut);
        assert_eq!(now(), at(5));
        assert!(timeout_at(at(9), sleep(millis(3))).await.is_ok());
        assert!(timeout_at(at(9), sleep(millis(3))).await.is_err());
        assert_eq!(now(), at(9));
    });
}

#[test]
fn a_sleep_can_be_moved() {
    let mut sim = Sim::new(Options::default());
    sim.block_on(async {
        let mut sleeping = sleep(Duration::MAX);
        assert_eq!(sleeping.deadline(), Instant::MAX, "for ever");
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut sleeping).poll(&mut cx).is_pending());
        sleeping.reset(at(20));
        (&mut sleeping).await;
        assert_eq!(now(), at(20));
        (&mut sleeping).await;
        assert_eq!(now(), at(20), "it is over");
        sleeping.reset(at(30));
        sleeping.await;
        assert_eq!(now(), at(30));
    });
}

#[test]
fn a_sleep_wakes_who_polled_it_last() {
    let mut sim = Sim::new(Options::default());
    sim.block_on(async {
        let mut shared = Box::pin(sleep(millis(10)));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(shared.as_mut().poll(&mut cx).is_pending());
        let task = spawn_local(shared);
        task.await.unwrap();
        assert_eq!(now(), at(10));
    });
}

#[test]
fn a_sleep_may_go_to_another_worker() {
    let mut sim = Sim::new(Options::default().workers(2));
    let handle = sim.handle().clone();
    sim.block_on(async move {
        let mut sleeping = sleep(millis(10));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut sleeping).poll(&mut cx).is_pending());
        handle
            .spawn_on(1, move || async move {
                sleeping.await;
                assert_eq!(now(), at(10));
            })
            .await
            .unwrap();
    });
    sim.advance(millis(100));
    assert_eq!(sim.stats().panics, 0);
}

#[test]
fn an_interval_ticks_at_once_and_at_even_distances() {
    let mut sim = Sim::new(Options::default());
    sim.block_on(async {
        let mut ticks = interval(millis(10));
        for tick in 0..5 {
            assert_eq!(ticks.tick().await, at(tick * 10));
            sleep(millis(3)).await;
        }
        let mut later = interval_at(at(100), millis(10));
        assert_eq!((later.tick().await, later.tick().await, now()), (at(100), at(110), at(110)));
        later.reset();
        assert_eq!(later.tick().await, at(120));
    });
}

#[test]
fn ticks_that_were_missed_are_skipped_or_brought_or_move_the_rest() {
    let mut sim = Sim::new(Options::default());
    let times = |missed: MissedTicks| async move {
        let start = now();
        let mut ticks = interval(millis(10)).missed_ticks(missed);
        ticks.tick().await;
        sleep(millis(35)).await;
        let mut times = Vec::new();
        for _ in 0..5 {
            ticks.tick().await;
            times.push(now().duration_since(start).as_millis());
        }
        times
    };
    assert_eq!(sim.block_on(times(MissedTicks::Skip)), [35, 40, 50, 60, 70]);
    assert_eq!(sim.block_on(times(MissedTicks::Burst)), [35, 35, 35, 40, 50]);
    assert_eq!(sim.block_on(times(MissedTicks::Delay)), [35, 45, 55, 65, 75]);
}

#[test]
fn a_tick_that_was_given_up_comes_again() {
    let mut sim = Sim::new(Options::default());
    sim.block_on(async {
        let mut ticks = interval(millis(10));
        ticks.tick().await;
        assert!(timeout(millis(5), ticks.tick()).await.is_err());
        assert_eq!(ticks.tick().await, at(10));
    });
}

#[test]
fn sleeps_are_send_and_sync() {
    fn check<T: Send + Sync + Unpin>() {}
    check::<Sleep>();
    check::<Interval>();
    check::<Timeout<Sleep>>();
}

#[test]
fn ten_thousand_sleepers_of_one_moment_do_not_hold_a_turn_up() {
    let mut sim = Sim::new(Options::default());
    let woken = Rc::new(Cell::new(0));
    let counted = Rc::clone(&woken);
    sim.block_on(async move {
        for _ in 0..10_000 {
            let counted = Rc::clone(&counted);
            drop(spawn_local(async move {
                sleep_until(at(50)).await;
                counted.set(counted.get() + 1);
            }));
        }
        yield_now().await;
    });
    sim.advance(millis(49));
    sim.stand_still(millis(1));
    let mut longest = 0;
    while woken.get() < 10_000 {
        let before = woken.get();
        sim.turn();
        longest = longest.max(woken.get() - before);
    }
    assert!(longest <= 1024, "{longest} in one turn");
}

#[test]
fn a_handle_polled_outside_of_a_worker_panics_with_a_sentence() {
    let panic = std::panic::catch_unwind(|| {
        let mut sleeping = sleep_until(at(1));
        let _: Poll<()> = Pin::new(&mut sleeping).poll(&mut Context::from_waker(Waker::noop()));
    });
    let text = panic.unwrap_err().downcast::<String>().unwrap();
    assert!(text.contains("no worker"), "{text}");
}

#[test]
fn ticks_that_are_late_leave_others_their_turn() {
    for missed in [MissedTicks::Burst, MissedTicks::Skip] {
        let ran = Runtime::block_on(async move {
            let other = spawn_local(async {});
            let mut ticks = interval(Duration::from_nanos(1)).missed_ticks(missed);
            for _ in 0..1_000 {
                ticks.tick().await;
            }
            other.is_finished()
        });
        assert!(ran.unwrap(), "{missed:?}");
    }
    let mut sim = Sim::new(Options::default());
    let ran = sim.block_on(async {
        let other = spawn_local(async {});
        for _ in 0..1_000 {
            sleep(Duration::ZERO).await;
        }
        other.is_finished()
    });
    assert!(ran);
}
