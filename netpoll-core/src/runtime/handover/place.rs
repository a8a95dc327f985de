//! Where a process that follows finds this one: a Unix socket that listens at the path, or beside it as long as that is somebody else's.
//!
//! The process that follows puts its file there before it serves, so that whoever comes finds one of both. What an end of a handover needs
//! is made with it: a process that has used up its descriptors is to be replaced as well.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use super::{Handover, MODE};
use crate::driver::is_exhaustion;
use crate::sys::{self, Doorbell, ReserveFd, SocketFile, UnixAddress, UnixListenOptions};

/// Processes that may wait to follow, while one is attended to.
const BACKLOG: i32 = 4;

const OPTIONS: UnixListenOptions =
    UnixListenOptions { backlog: BACKLOG, mode: Some(MODE), takes_over: false };

/// How often it is tried to come back to the path.
const RETURNS: usize = 100;

/// The socket that it listens on.
pub struct Place {
    socket: OwnedFd,
    file: Option<SocketFile>,
    path: PathBuf,
    is_beside: bool,
    /// Tries that are left to come back to the path.
    returns_left: usize,
    /// Given to one that follows, where there is no other descriptor.
    reserve: ReserveFd,
    /// Rung when this process ends.
    bell: Arc<Doorbell>,
    /// Never rung.
    silence: Arc<Doorbell>,
}

impl Place {
    /// Listens at the path; where another process still does, beside it.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn take(handover: &Handover, is_taken: bool) -> io::Result<Self> {
        Self::try_take(handover, is_taken).map_err(|error| handover.named(error))
    }

    fn try_take(handover: &Handover, is_taken: bool) -> io::Result<Self> {
        let path = handover.path.clone();
        let (socket, file) = match is_taken {
            true => sys::listen_beside(&path, &OPTIONS).map(|(socket, file)| (socket, Some(file))),
            false => sys::listen_unix(&UnixAddress::from_path(&path)?, &OPTIONS),
        }?;
        Ok(Self {
            socket,
            file,
            path,
            is_beside: is_taken,
            returns_left: RETURNS,
            reserve: ReserveFd::new()?,
            bell: Arc::new(Doorbell::new()?),
            silence: Arc::new(Doorbell::new()?),
        })
    }

    /// Takes the place of the process that goes.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn put(&mut self, handover: &Handover) -> io::Result<()> {
        if std::mem::take(&mut self.is_beside) {
            let put = self.file.take().map(|file| file.put_at(&self.path)).transpose();
            self.file = put.map_err(|error| handover.named(error))?;
        }
        Ok(())
    }

    /// Whoever comes to the path finds this one; or it has given that up.
    pub fn is_there(&self) -> bool {
        self.returns_left == 0 || self.file.as_ref().is_some_and(SocketFile::is_there)
    }

    /// Listens at the path once more, if a process has put its file there, and ended.
    ///
    /// # Errors
    /// Of the last try: the kernel's, such as that somebody listens there.
    pub fn take_again(&mut self) -> io::Result<()> {
        if self.is_there() {
            return Ok(());
        }
        let listen = || sys::listen_unix(&UnixAddress::from_path(&self.path)?, &OPTIONS);
        match listen() {
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
        &self.bell
    }

    pub fn silence(&self) -> &Arc<Doorbell> {
        &self.silence
    }

    /// One that wants to follow.
    ///
    /// # Errors
    /// The kernel's: `WouldBlock` if there is none.
    pub fn accept(&mut self) -> io::Result<OwnedFd> {
        // Where there is none, there is none to spare.
        let _ = self.reserve.refill();
        let accepted = match sys::accept(self.socket.as_fd()) {
            Err(error) if is_exhaustion(&error) && self.reserve.release() => sys::accept(self.socket.as_fd()),
            accepted => accepted,
        };
        accepted.map(|(socket, _)| socket)
    }
}
