//! Where a process that follows finds this one: a Unix socket that listens at the path.
//!
//! The process that follows takes the path over before it serves, so that whoever comes finds one of both. What an end of a handover needs
//! is made before: a process that has used up its descriptors is to be replaced as well.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use super::{Handover, MODE};
use crate::driver::is_exhaustion;
use crate::sys::{self, Doorbell, ReserveFd, SocketFile, UnixAddress, UnixListenOptions};

/// Processes that may wait to follow, while one is attended to.
const BACKLOG: i32 = 4;

/// How often it is tried to come back to the path.
const RETURNS: usize = 100;

/// The socket that it listens on, once it has been taken.
pub struct Place {
    path: PathBuf,
    /// Given to one that follows, where there is no other descriptor.
    reserve: ReserveFd,
    /// Rung when this process ends.
    bell: Arc<Doorbell>,
    /// Never rung.
    silence: Arc<Doorbell>,
}

/// A place where this process is found.
pub struct Taken {
    place: Place,
    socket: OwnedFd,
    file: Option<SocketFile>,
    /// Tries that are left to come back to the path.
    returns_left: usize,
}

impl Place {
    /// What is needed beside the socket.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new(handover: &Handover) -> io::Result<Self> {
        Ok(Self {
            path: handover.path.clone(),
            reserve: ReserveFd::new()?,
            bell: Arc::new(Doorbell::new()?),
            silence: Arc::new(Doorbell::new()?),
        })
    }

    /// Listens at the path, in place of another process if that is to be.
    ///
    /// # Errors
    /// The kernel's, with the path: somebody listens there, or the directory forbids it.
    pub fn take(self, handover: &Handover, takes_over: bool) -> io::Result<Taken> {
        let (socket, file) = self.listen(takes_over).map_err(|error| handover.named(error))?;
        Ok(Taken { place: self, socket, file, returns_left: RETURNS })
    }

    fn listen(&self, takes_over: bool) -> io::Result<(OwnedFd, Option<SocketFile>)> {
        let options = UnixListenOptions { backlog: BACKLOG, mode: Some(MODE), takes_over };
        sys::listen_unix(&UnixAddress::from_path(&self.path)?, &options)
    }
}

impl Taken {
    /// Whoever comes to the path finds this one; or it has given that up.
    pub fn is_there(&self) -> bool {
        self.returns_left == 0 || self.file.as_ref().is_some_and(SocketFile::is_there)
    }

    /// Listens at the path once more, if a process has taken it over, and ended.
    ///
    /// # Errors
    /// Of the last try: the kernel's, such as that somebody listens there.
    pub fn take_again(&mut self) -> io::Result<()> {
        if self.is_there() {
            return Ok(());
        }
        match self.place.listen(false) {
            Ok((socket, file)) => {
                (self.socket, self.file, self.returns_left) = (socket, file, RETURNS);
                Ok(())
            }
            Err(error) => {
                self.returns_left -= 1;
                if self.returns_left > 0 { Ok(()) } else { Err(error) }
            }
        }
    }

    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub fn bell(&self) -> &Arc<Doorbell> {
        &self.place.bell
    }

    pub fn silence(&self) -> &Arc<Doorbell> {
        &self.place.silence
    }

    /// One that wants to follow.
    ///
    /// # Errors
    /// The kernel's: `WouldBlock` if there is none.
    pub fn accept(&mut self) -> io::Result<OwnedFd> {
        // Where there is none, there is none to spare.
        let _ = self.place.reserve.refill();
        let accepted = match sys::accept(self.socket.as_fd()) {
            Err(error) if is_exhaustion(&error) && self.place.reserve.release() => {
                sys::accept(self.socket.as_fd())
            }
            accepted => accepted,
        };
        accepted.map(|(socket, _)| socket)
    }
}
