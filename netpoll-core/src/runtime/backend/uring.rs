//! Workers on io_uring.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use super::super::seat::{Door, Seat};
use super::super::worker::Drained;
use crate::driver::{Uring, UringFeatures, probe_uring};
use crate::reactor::WaitStrategy;
use crate::task::Lane;

/// What the kernel can do of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnUring(UringFeatures);

impl OnUring {
    /// A ring, for workers that are to wait like this.
    ///
    /// # Errors
    /// It cannot wait like that, or it cannot be had on this machine.
    pub fn find(wait: WaitStrategy) -> io::Result<Self> {
        if matches!(wait, WaitStrategy::KernelBusyPoll { .. }) {
            let what = "kernel busy polling needs the backend epoll: a ring has none";
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        }
        Ok(Self(probe_uring()?))
    }

    /// See [`Seat::take_with`].
    pub fn take(self, seat: Seat, door: &Door, begin: impl FnOnce(&Rc<Lane>)) -> io::Result<Drained> {
        let (bell, splices) = (Arc::clone(&seat.bell), seat.settings.splice);
        seat.serve(door, move || Uring::new(self.0, splices, bell), begin)
    }
}
