//! Deadlines of one connection, lazily.
//!
//! A connection has at most one entry in the wheel. Activity only stores a later time; the entry is moved
//! when it comes up early. Setting a time before the entry moves it at once. Keep-alive traffic
//! with a constant timeout therefore touches the wheel once per timeout, not once per request.

use crate::clockwork::{Instant, TimerKey, Wheel};
use crate::mem::Key;

const NEVER: Instant = Instant::MAX;

/// The protocol's deadline, and the timer that it shares with the machinery's own, which is kept elsewhere
/// because few connections have one.
pub struct Deadlines {
    protocol: Instant,
    /// When the wheel's entry comes up; `NEVER` without one.
    armed: Instant,
    timer: Option<TimerKey>,
}

/// Which deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    Neither,
    Protocol,
    Guard,
}

impl Deadlines {
    pub const fn new() -> Self {
        Self { protocol: NEVER, armed: NEVER, timer: None }
    }

    #[inline]
    pub fn set_protocol(&mut self, wheel: &mut Wheel<Key>, now: Instant, key: Key, at: Instant) {
        self.protocol = at;
        self.arm(wheel, now, key, at);
    }

    /// Puts another time in place of the protocol's deadline, and leaves the timer: for as long as the deadline that it stands for
    /// is put back by [`set_protocol`](Self::set_protocol).
    #[inline]
    pub fn exchange_protocol(&mut self, at: Instant) -> Instant {
        std::mem::replace(&mut self.protocol, at)
    }

    pub fn clear_protocol(&mut self) {
        self.protocol = NEVER;
    }

    /// The machinery's own deadline is now at `at`; the caller keeps it.
    pub fn set_guard(&mut self, wheel: &mut Wheel<Key>, now: Instant, key: Key, at: Instant) {
        self.arm(wheel, now, key, at);
    }

    /// The entry, which came up, comes up again in the next turn.
    pub fn put_off(&mut self, wheel: &mut Wheel<Key>, now: Instant, key: Key) {
        self.arm(wheel, now, key, now);
    }

    /// The protocol's deadline, if it has one.
    pub fn protocol(&self) -> Option<Instant> {
        (self.protocol != NEVER).then_some(self.protocol)
    }

    /// The wheel's entry came up and is no more.
    pub fn left_wheel(&mut self) {
        self.timer = None;
        self.armed = NEVER;
    }

    /// Which deadline has passed.
    pub fn passed(&self, now: Instant, guard: Option<Instant>) -> Passed {
        match guard {
            Some(guard) if guard <= now => Passed::Guard,
            _ if self.protocol <= now => Passed::Protocol,
            _ => Passed::Neither,
        }
    }

    /// Which deadline has passed; it is cleared if it is the protocol's, and the entry goes back for the next one.
    pub fn take_passed(
        &mut self,
        wheel: &mut Wheel<Key>,
        now: Instant,
        key: Key,
        guard: Option<Instant>,
    ) -> Passed {
        let passed = self.passed(now, guard);
        let guard = guard.filter(|_| passed != Passed::Guard).unwrap_or(NEVER);
        if passed == Passed::Protocol {
            self.protocol = NEVER;
        }
        let next = guard.min(self.protocol);
        if next != NEVER {
            self.arm(wheel, now, key, next);
        }
        passed
    }

    /// Takes the entry out of the wheel, for good.
    pub fn disarm(&mut self, wheel: &mut Wheel<Key>) {
        if let Some(timer) = self.timer.take() {
            wheel.remove(timer);
        }
    }

    #[inline]
    fn arm(&mut self, wheel: &mut Wheel<Key>, now: Instant, key: Key, at: Instant) {
        if at >= self.armed {
            return;
        }
        self.armed = at;
        match self.timer {
            Some(timer) => {
                // One that is not there any more has come up, and whoever is about to be told looks at all deadlines.
                wheel.reschedule(timer, at);
            }
            None => self.timer = Some(wheel.insert(now, at, key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::ZERO.saturating_add(Duration::from_millis(millis))
    }

    fn come_up(
        deadlines: &mut Deadlines,
        wheel: &mut Wheel<Key>,
        now: Instant,
        guard: Option<Instant>,
    ) -> Vec<Passed> {
        let mut due = Vec::new();
        wheel.expire(now, 10, |key| due.push(key));
        let mut take = |key| {
            deadlines.left_wheel();
            deadlines.take_passed(wheel, now, key, guard)
        };
        due.into_iter().map(&mut take).collect()
    }

    #[test]
    fn activity_does_not_touch_the_wheel() {
        let (mut wheel, mut deadlines, key) = (Wheel::new(), Deadlines::new(), Key::from_bits(1));
        for millis in 0..1000 {
            deadlines.set_protocol(&mut wheel, at(millis), key, at(millis + 5000));
        }
        assert_eq!(wheel.len(), 1);
        assert_eq!(come_up(&mut deadlines, &mut wheel, at(5001), None), [Passed::Neither], "came up early");
        assert_eq!(come_up(&mut deadlines, &mut wheel, at(5990), None), []);
        assert_eq!(come_up(&mut deadlines, &mut wheel, at(6001), None), [Passed::Protocol]);
        assert!(wheel.is_empty());
    }

    #[test]
    fn an_earlier_deadline_moves_the_entry() {
        let (mut wheel, mut deadlines, key) = (Wheel::new(), Deadlines::new(), Key::from_bits(1));
        deadlines.set_protocol(&mut wheel, at(0), key, at(60_000));
        deadlines.set_guard(&mut wheel, at(0), key, at(10));
        assert_eq!(wheel.len(), 1);
        assert_eq!(come_up(&mut deadlines, &mut wheel, at(12), Some(at(10))), [Passed::Guard]);
        assert_eq!(come_up(&mut deadlines, &mut wheel, at(60_002), None), [Passed::Protocol]);
    }

    #[test]
    fn a_cleared_deadline_passes_unnoticed() {
        let (mut wheel, mut deadlines, key) = (Wheel::new(), Deadlines::new(), Key::from_bits(1));
        deadlines.set_protocol(&mut wheel, at(0), key, at(10));
        deadlines.clear_protocol();
        assert_eq!(come_up(&mut deadlines, &mut wheel, at(20), None), [Passed::Neither]);
        assert!(wheel.is_empty());
    }
}
