//! Workers on io_uring, on a system that has none.

use std::io;
use std::rc::Rc;

use super::super::seat::{Door, Seat};
use super::super::worker::Drained;
use crate::task::Lane;

/// There is no such driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnUring {}

impl OnUring {
    /// # Errors
    /// Always.
    pub fn find() -> io::Result<Self> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "io_uring cannot be used: it is Linux's, and this system has the backend `mio`",
        ))
    }

    /// Never called.
    pub fn take(self, _seat: Seat, _door: &Door, _begin: impl FnOnce(&Rc<Lane>)) -> io::Result<Drained> {
        match self {}
    }
}
