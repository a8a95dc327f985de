//! Timers started, stopped, moved and fired in any order, against an ordered map.
//!
//! Each step is four bytes: what to do, with which timer, and a span of time as a power of two and its
//! leading bits, so that all levels of the wheel are reached. No timer is early, lost or fired twice;
//! none is a tick late after an `expire` without a limit; `next_deadline` is never late.

use std::collections::BTreeMap;
use std::time::Duration;

use netpoll_core::internals::{Instant, TimerKey, Wheel};

const TICK: Duration = Duration::from_millis(1);

/// Plays the steps in `data`.
pub fn run(data: &[u8]) {
    let mut wheel = Wheel::new();
    let mut waiting = BTreeMap::<u32, Instant>::new();
    let mut started = Vec::<(u32, TimerKey)>::new();
    let mut now = Instant::ZERO;

    for (step, bytes) in data.chunks_exact(4).enumerate() {
        let [kind, pick, power, leading] = bytes else { unreachable!("chunks of four") };
        let span = Duration::from_nanos((u64::from(*leading) << (power % 56)) >> 8);
        let at = match kind & 128 {
            0 => now.saturating_add(span),
            _ => Instant::from_nanos(now.as_nanos().saturating_sub(span.as_nanos() as u64)),
        };
        let picked = started.get(*pick as usize % started.len().max(1)).copied();
        let mut unlimited = false;
        match (kind % 8, picked) {
            (0..=2, _) => {
                let value = step as u32;
                started.push((value, wheel.insert(now, at, value)));
                waiting.insert(value, at);
            }
            (3, Some((value, key))) => {
                assert_eq!(wheel.remove(key), waiting.remove(&value).map(|_| value));
            }
            (4, Some((value, key))) => {
                assert_eq!(wheel.reschedule(key, at), waiting.contains_key(&value));
                waiting.entry(value).and_modify(|deadline| *deadline = at);
            }
            (kind, _) => {
                // 6 sleeps until the wheel says so, as a worker does; the others jump.
                let next =
                    if kind == 6 { wheel.next_deadline().unwrap_or(now) } else { now.saturating_add(span) };
                now = now.max(next);
                unlimited = kind != 7;
                let max = if unlimited { usize::MAX } else { *pick as usize % 4 };
                let mut fired = Vec::new();
                assert_eq!(wheel.expire(now, max, |value| fired.push(value)), fired.len());
                assert!(fired.len() <= max, "more than the limit");
                for value in fired {
                    let at = waiting.remove(&value).expect("fired twice or after it was stopped");
                    assert!(at <= now, "fired {:?} early", at.duration_since(now));
                }
            }
        }
        assert_eq!((wheel.len(), wheel.is_empty()), (waiting.len(), waiting.is_empty()));
        let earliest = waiting.values().min().copied();
        assert_eq!(wheel.next_deadline().is_some(), earliest.is_some());
        if let (Some(next), Some(earliest)) = (wheel.next_deadline(), earliest) {
            assert!(next.duration_since(earliest.max(now)) < TICK, "would sleep past {earliest:?}");
            if unlimited {
                assert!(next > now, "left something due");
                assert!(now.duration_since(earliest) < TICK, "{earliest:?} is overdue");
            }
        }
    }
}
