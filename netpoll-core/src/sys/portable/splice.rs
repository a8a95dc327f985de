//! There is no way from one socket to another but through us.

use std::io;
use std::os::fd::BorrowedFd;

use super::unsupported;

/// There is none.
pub enum Pipe {}

impl Pipe {
    /// # Errors
    /// `Unsupported`.
    pub fn new(_bytes: usize) -> io::Result<Self> {
        Err(unsupported("nothing is spliced here"))
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn fill(&self, _socket: BorrowedFd<'_>, _bytes_max: usize) -> io::Result<usize> {
        match *self {}
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn drain(&self, _socket: BorrowedFd<'_>, _bytes: usize) -> io::Result<usize> {
        match *self {}
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn read(&self, _into: &mut [u8]) -> io::Result<usize> {
        match *self {}
    }
}
