//! Workers on mio, in a build that has none.

use std::io;
use std::rc::Rc;

use super::super::seat::{Door, Seat};
use super::super::worker::Drained;
use crate::reactor::WaitStrategy;
use crate::task::Lane;

/// There is no such driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnMio {}

impl OnMio {
    /// # Errors
    /// Always.
    pub fn find(_wait: WaitStrategy) -> io::Result<Self> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this build has no backend `mio`: it comes with the feature `mio` of netpoll-core",
        ))
    }

    /// Never called.
    pub fn take(self, _seat: Seat, _door: &Door, _begin: impl FnOnce(&Rc<Lane>)) -> io::Result<Drained> {
        match self {}
    }
}
