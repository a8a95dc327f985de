//! Workers on io_uring.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use super::super::seat::{Door, Seat};
use super::super::worker::Drained;
use crate::driver::{Uring, UringFeatures, UringOptions, probe_uring};
use crate::reactor::WaitStrategy;
use crate::task::Lane;

/// What the kernel can do of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnUring(UringFeatures);

impl OnUring {
    /// # Errors
    /// It cannot be had on this machine.
    pub fn find() -> io::Result<Self> {
        Ok(Self(probe_uring()?))
    }

    /// See [`Seat::take_with`].
    pub fn take(self, seat: Seat, door: &Door, begin: impl FnOnce(&Rc<Lane>)) -> io::Result<Drained> {
        let (bell, splices) = (Arc::clone(&seat.bell), seat.settings.splice);
        let busy_poll = match seat.wait {
            WaitStrategy::KernelBusyPoll { usecs, prefer, .. } => Some((usecs, prefer)),
            _ => None,
        };
        let options = UringOptions { features: self.0, busy_poll, splices };
        seat.serve(door, move || Uring::new(options, bell), begin)
    }
}
