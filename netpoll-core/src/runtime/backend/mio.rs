//! Workers on mio, in a build that has it.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use super::super::seat::{Door, Seat};
use super::super::worker::Drained;
use crate::driver::{Mio, MioOptions};
use crate::reactor::WaitStrategy;
use crate::task::Lane;

/// That there is such a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnMio(());

impl OnMio {
    /// # Errors
    /// It cannot wait like that.
    pub fn find(wait: WaitStrategy) -> io::Result<Self> {
        match wait {
            WaitStrategy::KernelBusyPoll { .. } => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the backend `mio` has no kernel busy polling: take `epoll`, or another wait strategy",
            )),
            _ => Ok(Self(())),
        }
    }

    /// See [`Seat::take_with`].
    pub fn take(self, seat: Seat, door: &Door, begin: impl FnOnce(&Rc<Lane>)) -> io::Result<Drained> {
        let (bell, splices) = (Arc::clone(&seat.bell), seat.settings.splice);
        seat.serve(door, move || Mio::new(MioOptions { splices }, bell), begin)
    }
}
