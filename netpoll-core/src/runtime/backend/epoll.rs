//! Workers on epoll.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use super::super::seat::{Door, Seat};
use super::super::worker::Drained;
use crate::driver::{Epoll, EpollOptions};
use crate::reactor::{EVENTS_MAX, WaitStrategy};
use crate::task::Lane;

/// That there is such a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnEpoll(());

impl OnEpoll {
    /// # Errors
    /// None.
    pub fn find() -> io::Result<Self> {
        Ok(Self(()))
    }

    /// See [`Seat::take_with`].
    pub fn take(self, seat: Seat, door: &Door, begin: impl FnOnce(&Rc<Lane>)) -> io::Result<Drained> {
        let (bell, splices) = (Arc::clone(&seat.bell), seat.settings.splice);
        let busy_poll = match seat.wait {
            WaitStrategy::KernelBusyPoll { usecs, budget, prefer } => Some((usecs, budget, prefer)),
            _ => None,
        };
        let options = EpollOptions { events_max: EVENTS_MAX, busy_poll, splices };
        seat.serve(door, move || Epoll::new(options, bell), begin)
    }
}
