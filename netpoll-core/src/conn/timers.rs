//! Timers of a worker that belong to no connection.
//!
//! The slots are part of [`Commands`], all of one worker the same, so that who asks for a timer gets its name at once; the wheel gets
//! its entry when the order is carried out. A timer that is cancelled leaves both at once.
//!
//! Invariant: a slot has an entry in the wheel exactly while its order has been carried out and its callback is not being
//! called. The callback of a repeated timer is out of its slot while it runs, and goes back only if the slot is still there.
//! Nothing is borrowed while a callback is called or dropped. Touched by its worker only; all is O(1).

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::{Commands, Context, Local, Tables};
use crate::clockwork::{Instant, TimerKey};
use crate::mem::{Guarded, Key, KeySlab};

type Once = Guarded<Box<dyn FnOnce(&mut Local<'_>)>>;
type Repeated = Guarded<Box<dyn FnMut(&mut Local<'_>)>>;

/// Names a timer of a worker: once it has fired or was cancelled the name finds nothing, until its place has been used by 2^28 others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimerId {
    pub(super) worker: u16,
    pub(super) key: Key,
}

impl TimerId {
    /// The worker that it fires on, and that [`Commands::cancel`] has to be called on.
    #[must_use]
    pub fn worker(self) -> usize {
        usize::from(self.worker)
    }
}

struct Timer {
    due: Instant,
    entry: Option<TimerKey>,
    call: Call,
}

enum Call {
    Once(Once),
    Repeated {
        period: Duration,
        /// `None` while it runs.
        call: Option<Repeated>,
    },
}

/// The timers of one worker. Clones show the same.
#[derive(Clone)]
pub struct Timers(Rc<RefCell<KeySlab<Timer>>>);

impl Timers {
    pub fn new() -> Self {
        Self(Rc::new(RefCell::new(KeySlab::new(Tables::TIMERS))))
    }

    /// A timer that calls once; it is not in the wheel yet.
    pub fn once(&self, call: impl FnOnce(&mut Local<'_>) + 'static) -> Key {
        self.add(Call::Once(Guarded::new(Box::new(call))))
    }

    /// A timer that calls again and again; it is not in the wheel yet.
    pub fn repeated(&self, period: Duration, call: impl FnMut(&mut Local<'_>) + 'static) -> Key {
        self.add(Call::Repeated { period, call: Some(Guarded::new(Box::new(call))) })
    }

    fn add(&self, call: Call) -> Key {
        let timer = |_| Timer { due: Instant::ZERO, entry: None, call };
        self.0.borrow_mut().insert_with(timer).expect("a worker has at most 16 million timers")
    }

    /// Forgets a timer. `None` if it is gone already; else its entry in the wheel, if it has one.
    pub fn remove(&self, key: Key) -> Option<Option<TimerKey>> {
        let timer = self.0.borrow_mut().take(key);
        timer.map(|timer| timer.entry)
    }

    /// Drops all, one by one.
    pub fn clear(&self) {
        let keys: Vec<Key> = self.0.borrow().keys().collect();
        for key in keys {
            self.remove(key);
        }
    }

    pub fn shrink(&self) {
        self.0.borrow_mut().shrink();
    }
}

impl Context {
    /// Puts a timer into the wheel, so long after now. Nothing happens if it was cancelled meanwhile.
    pub fn arm_timer(&mut self, key: Key, after: Duration) {
        let at = self.agenda.clock.now().saturating_add(after);
        self.arm_timer_at(key, at);
    }

    fn arm_timer_at(&mut self, key: Key, at: Instant) {
        let now = self.agenda.clock.now();
        if let Some(timer) = self.commands.timers.0.borrow_mut().get_mut(key) {
            timer.due = at;
            timer.entry = Some(self.agenda.timers.insert(now, at, key));
        }
    }

    /// A timer's entry came up: calls it, unless it was cancelled.
    pub fn timer_came_up(&mut self, key: Key) {
        let mut slots = self.commands.timers.0.borrow_mut();
        let Some(timer) = slots.get_mut(key) else { return };
        timer.entry = None;
        let due = timer.due;
        let repeated = match &mut timer.call {
            Call::Repeated { period, call } => Some((*period, call.take())),
            Call::Once(_) => None,
        };
        let once = if repeated.is_none() { slots.take(key) } else { None };
        drop(slots);
        self.agenda.stats.timers_fired += 1;
        if let Some((period, call)) = repeated {
            self.call_repeated(key, due, period, call);
        } else if let Some(Timer { call: Call::Once(call), .. }) = once {
            self.run(|local| call.into_inner()(local));
        }
    }

    fn call_repeated(&mut self, key: Key, due: Instant, period: Duration, call: Option<Repeated>) {
        let mut call = call.expect("a timer in the wheel is not running");
        if !self.run(|local| call(local)) {
            self.commands.timers.remove(key);
            return;
        }
        if let Some(Timer { call: Call::Repeated { call: place, .. }, .. }) =
            self.commands.timers.0.borrow_mut().get_mut(key)
        {
            *place = Some(call);
        } else {
            return;
        }
        let next = due.next_tick(period, self.agenda.clock.now());
        self.arm_timer_at(key, next);
    }
}

/// Timers of a worker.
impl Commands {
    /// Calls `call` on this worker, once, so long after now, and returns a name to [cancel](Self::cancel) it by.
    ///
    /// `now` is that of the turn, as for all deadlines ([`Local::now`]). It never comes early; it comes late by the turn that is
    /// under way and a millisecond at most. A timer does not hold up a drain: what has not fired when the worker ends is
    /// dropped. If `call` panics, that is counted and nothing else notices.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # fn example(handle: &netpoll_core::Handle, id: netpoll_core::ConnId) {
    /// // From another thread: close a connection in five seconds.
    /// handle.run_on(id.worker(), move |local| {
    ///     local.commands().after(Duration::from_secs(5), move |local| local.commands().close(id));
    /// });
    /// # }
    /// ```
    ///
    /// A delay of zero is one of a millisecond at most. Code of this worker that is only to be put off to its next turn is for
    /// [`next_turn`](Self::next_turn).
    ///
    /// Two allocations at most. A thousand timers fire in a turn; others that are due come in the next. So may this one if thousands are
    /// due at nearly the same time: within a 64th of the time that they were set for.
    ///
    /// # Panics
    /// With 16 million timers on one worker.
    pub fn after(&mut self, delay: Duration, call: impl FnOnce(&mut Local<'_>) + 'static) -> TimerId {
        let key = self.timers.once(call);
        self.arm(key, delay)
    }

    /// Calls `call` on this worker again and again: first one period from now, then at the multiples of the period behind
    /// that. The first time and every other as late as [`after`](Self::after) may be, never early.
    ///
    /// Ticks that were missed, because the worker was busy or the process stood still, are left out: one call comes for all of
    /// them, and the next at the next multiple. If `call` panics, its timer ends. Periods below a millisecond come
    /// every millisecond.
    ///
    /// # Panics
    /// If the period is zero; with 16 million timers on one worker.
    #[track_caller]
    pub fn every(&mut self, period: Duration, call: impl FnMut(&mut Local<'_>) + 'static) -> TimerId {
        assert!(!period.is_zero(), "the period of a timer is above zero");
        let key = self.timers.repeated(period, call);
        self.arm(key, period)
    }

    /// Ends a timer of this worker; its callback is dropped now, or when it returns if this is called inside it. True if it
    /// would have been called again. Timers of other workers are not found: send the order there,
    /// `commands.run_on(id.worker(), move |local| { local.commands().cancel(id); })`.
    pub fn cancel(&mut self, id: TimerId) -> bool {
        if id.worker != self.worker {
            return false;
        }
        let Some(entry) = self.timers.remove(id.key) else { return false };
        if let Some(entry) = entry {
            self.disarm(entry);
        }
        true
    }
}
