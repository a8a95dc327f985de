//! The wheel against a sorted list, and the rules one by one.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const fn millis(millis: u64) -> Instant {
    Instant::from_nanos(millis * NANOS_PER_TICK)
}

fn fired<T: Copy>(wheel: &mut Wheel<T>, now: Instant) -> Vec<T> {
    let mut values = Vec::new();
    let count = wheel.expire(now, usize::MAX, |value| values.push(value));
    assert_eq!(count, values.len());
    values
}

#[test]
fn a_timer_fires_at_its_deadline_and_not_before() {
    let mut wheel = Wheel::new();
    for (value, at) in [1, 63, 64, 65, 4095, 4096, 1 << 18, 1 << 40].into_iter().enumerate() {
        wheel.insert(Instant::ZERO, millis(at), value);
    }
    for (value, at) in [1, 63, 64, 65, 4095, 4096, 1 << 18, 1 << 40].into_iter().enumerate() {
        assert_eq!(fired(&mut wheel, Instant::from_nanos(millis(at).as_nanos() - 1)), []);
        assert_eq!(fired(&mut wheel, millis(at)), [value]);
    }
    assert!(wheel.is_empty() && wheel.next_deadline().is_none());
}

#[test]
fn a_deadline_within_a_tick_fires_at_its_end() {
    let mut wheel = Wheel::new();
    wheel.insert(Instant::ZERO, Instant::from_nanos(2_300_000), ());
    assert_eq!(wheel.next_deadline(), Some(millis(3)));
    assert_eq!(fired(&mut wheel, Instant::from_nanos(2_999_999)).len(), 0);
    assert_eq!(fired(&mut wheel, millis(3)).len(), 1);
}

#[test]
fn a_deadline_that_has_passed_fires_on_the_next_expire() {
    let mut wheel = Wheel::new();
    let now = Instant::from_nanos(5_700_000);
    wheel.insert(now, Instant::from_nanos(5_600_000), 'a');
    wheel.insert(now, now, 'b');
    wheel.insert(now, Instant::ZERO, 'c');
    assert!(wheel.next_deadline().unwrap() <= now);
    assert_eq!(fired(&mut wheel, now), ['a', 'b', 'c']);
}

#[test]
fn a_removed_timer_does_not_fire() {
    let mut wheel = Wheel::new();
    let key = wheel.insert(Instant::ZERO, millis(10), 'a');
    assert_eq!((wheel.remove(key), wheel.remove(key)), (Some('a'), None));
    assert_eq!(wheel.next_deadline(), None);
    wheel.insert(Instant::ZERO, millis(10), 'b');
    assert_eq!(wheel.remove(key), None, "the key is stale although its index is in use");
    assert!(!wheel.reschedule(key, millis(1)));
    assert_eq!(fired(&mut wheel, millis(10)), ['b']);
}

#[test]
fn a_rescheduled_timer_fires_at_the_new_deadline_only() {
    let mut wheel = Wheel::new();
    let (later, sooner) =
        (wheel.insert(Instant::ZERO, millis(10), 'a'), wheel.insert(Instant::ZERO, millis(9000), 'b'));
    assert!(wheel.reschedule(later, millis(5000)) && wheel.reschedule(sooner, millis(20)));
    assert_eq!(fired(&mut wheel, millis(4999)), ['b']);
    assert_eq!(fired(&mut wheel, millis(5000)), ['a']);
    assert!(!wheel.reschedule(later, millis(6000)), "it has fired");
}

#[test]
fn a_burst_is_limited_and_the_rest_stays_due() {
    let mut wheel = Wheel::new();
    for value in 0..5 {
        wheel.insert(Instant::ZERO, millis(3), value);
    }
    let mut values = Vec::new();
    assert_eq!(wheel.expire(millis(100), 2, |value| values.push(value)), 2);
    assert!(wheel.next_deadline().unwrap() <= millis(100));
    wheel.insert(millis(100), millis(50), 5);
    wheel.insert(millis(100), millis(101), 6);
    wheel.expire(millis(100), usize::MAX, |value| values.push(value));
    assert_eq!(values, [0, 1, 2, 3, 4, 5]);
}

#[test]
fn moving_timers_down_is_limited_too() {
    let mut wheel = Wheel::new();
    let keys: Vec<_> =
        (0..1000).map(|value| wheel.insert(Instant::ZERO, millis(4096 + value % 7), value)).collect();
    assert_eq!(wheel.expire(millis(5000), 10, |_| unreachable!("they are still moving")), 0);
    assert!(wheel.next_deadline().unwrap() <= millis(5000));

    wheel.remove(keys[999]);
    wheel.insert(millis(5000), millis(4098), 1000);
    let mut left: Vec<_> = fired(&mut wheel, millis(5000));

    left.sort();
    assert_eq!(left, (0..999).chain([1000]).collect::<Vec<_>>());
    assert_eq!(wheel.next_deadline(), None);
}

#[test]
fn a_list_emptied_while_it_moves_down_is_forgotten() {
    let mut wheel = Wheel::new();
    let keys: Vec<_> = (0..10).map(|value| wheel.insert(Instant::ZERO, millis(8192), value)).collect();
    assert_eq!(wheel.expire(millis(8192), 1, |_| ()), 0);
    for key in keys {
        wheel.remove(key);
    }
    assert_eq!((wheel.len(), wheel.next_deadline()), (0, None));
    wheel.insert(millis(8200), millis(8210), 11);
    assert_eq!(wheel.next_deadline(), Some(millis(8210)));
}

#[test]
fn a_timer_that_is_due_alone_waits_for_none_that_is_due_much_later() {
    // Behind each of these ticks all lists are new that a mask of digits would tell apart.
    for far in [8192, 1 << 18, 1 << 24, 1 << 36] {
        for begins in [0, far - 9, far - 200] {
            let (mut wheel, mut values, now) = (Wheel::new(), Vec::new(), millis(begins));
            wheel.insert(now, millis(begins), 0);
            assert_eq!(fired(&mut wheel, now), [0]);
            // A 64th of the time that they are set for, and more.
            let apart = 100.max((far - begins) / 50);
            for value in 0..10_000 {
                wheel.insert(now, millis(far + apart + value), value);
            }
            wheel.insert(now, millis(far), 10_000);
            wheel.expire(millis(far), 10, |value| values.push(value));
            assert_eq!(values, [10_000], "set at {begins}");
        }
    }
}

#[test]
fn never_is_a_deadline_too() {
    let mut wheel = Wheel::new();
    wheel.insert(Instant::ZERO, Instant::MAX, ());
    assert_eq!(fired(&mut wheel, millis(1 << 43)).len(), 0);
    assert_eq!(wheel.len(), 1);
}

proptest! {
    #[test]
    fn it_fires_like_an_ordered_map(
        start in prop_oneof![Just(0), any::<u64>().prop_map(|nanos| nanos >> 2)],
        steps in prop::collection::vec((0..10u8, any::<u64>(), 0..58u32), 1..200),
    ) {
        let mut wheel = Wheel::new();
        let mut model = BTreeMap::<u32, (u64, TimerKey)>::new();
        let mut keys = Vec::new();
        let (mut now, mut newest) = (start, 0);
        for (kind, number, bits) in steps {
            let nanos = number % (1 << bits);
            let at = Instant::from_nanos(if number % 5 == 0 { now.saturating_sub(nanos) } else { now + nanos });
            let picked = keys.get(number as usize % keys.len().max(1)).copied();
            match (kind, picked) {
                (0..=3, _) => {
                    newest += 1;
                    let key = wheel.insert(Instant::from_nanos(now), at, newest);
                    model.insert(newest, (at.as_nanos(), key));
                    keys.push((newest, key));
                }
                (4, Some((value, key))) => {
                    prop_assert_eq!(wheel.remove(key), model.remove(&value).map(|_| value));
                }
                (5..=6, Some((value, key))) => {
                    let waiting = model.get_mut(&value);
                    prop_assert_eq!(wheel.reschedule(key, at), waiting.is_some());
                    waiting.into_iter().for_each(|entry| entry.0 = at.as_nanos());
                }
                _ => {
                    // Half of the steps go straight to the next deadline, as a worker does.
                    let target = if kind == 7 { now + nanos } else { wheel.next_deadline().map_or(now, Instant::as_nanos) };
                    now = now.max(target.min(u64::MAX >> 1));
                    let max = if kind == 9 { 1 + number as usize % 4 } else { usize::MAX };
                    let mut values = Vec::new();
                    let count = wheel.expire(Instant::from_nanos(now), max, |value| values.push(value));
                    prop_assert_eq!(count, values.len());
                    prop_assert!(count <= max);
                    for value in values {
                        let (at, _) = model.remove(&value).expect("fires once");
                        prop_assert!(at <= now, "never early");
                    }
                }
            }
            prop_assert_eq!(wheel.len(), model.len());
            let earliest = model.values().map(|&(at, _)| at).min();
            let next = wheel.next_deadline();
            prop_assert_eq!(next.is_some(), earliest.is_some());
            if let (Some(next), Some(earliest)) = (next, earliest) {
                let tick = earliest.max(now).div_ceil(NANOS_PER_TICK) * NANOS_PER_TICK;
                prop_assert!(next.as_nanos() <= tick, "never late");
                // `expire` without a limit leaves nothing that is a tick over.
                if kind > 6 && kind != 9 {
                    prop_assert!(next.as_nanos() > now && earliest + NANOS_PER_TICK > now);
                }
            }
        }
    }

    /// What moves down in front of a timer that is due is due within a 64th of the time that it was set for; each moves
    /// once per level at most, and four move for each that may fire.
    #[test]
    fn who_is_due_waits_for_those_that_are_due_at_nearly_the_same_time_and_no_others(
        start in prop_oneof![Just(0_u64), any::<u64>().prop_map(|tick| tick >> 24)],
        timers in prop::collection::vec((any::<u64>(), 0..30_u32), 1..400),
        step in (any::<u64>(), 0..30_u32),
        max in 1..4_usize,
    ) {
        let part = |(number, bits): (u64, u32)| number % (1 << bits);
        let mut wheel = Wheel::new();
        wheel.insert(millis(start), millis(start), (start, 0));
        fired(&mut wheel, millis(start));
        for (number, bits) in timers.clone() {
            let away = part((number, bits));
            wheel.insert(millis(start), millis(start + away), (start + away, away));
        }
        let end = start + part(step);
        let set = timers.iter().map(|timer| part(*timer));
        let due = set.clone().filter(|away| start + away <= end).count();
        let near = set.filter(|away| start + away - away / 63 <= end + 1).count();
        let (mut left, mut calls) = (due, 0);
        while left > 0 {
            calls += 1;
            left -= wheel.expire(millis(end), max, |(tick, _)| assert!(tick <= end));
        }
        let calls_max = due / max + LEVELS * near / (MOVES_PER_FIRED * max) + 1;
        prop_assert!(calls <= calls_max, "{calls} calls for {due} due of {near} near");
        prop_assert!(wheel.next_deadline().is_none_or(|next| next > millis(end) || near > due));
    }
}
