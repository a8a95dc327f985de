//! The connection between the process that goes and the one that follows: whole messages, each within its time, or an error that says
//! which one was waited for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use super::wire::{HEADER_BYTES, Message, VERSION, garbage};
use crate::clockwork::{ClockReader, Instant};
use crate::sys::{self, Doorbell, Heard, Timeout};

/// How long the other process may take for what it only has to say: both are on one machine.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// One end.
pub struct Channel {
    socket: OwnedFd,
    clock: ClockReader,
    /// Rung when nobody is to wait here any more.
    bell: Arc<Doorbell>,
}

impl Channel {
    /// Over a connected Unix socket, to a process of this user.
    ///
    /// # Errors
    /// It is one of somebody else (`PermissionDenied`).
    pub fn new(socket: OwnedFd, clock: ClockReader, bell: Arc<Doorbell>) -> io::Result<Self> {
        sys::set_nonblocking(socket.as_fd())?;
        let user = sys::peer_process(socket.as_fd())?.user;
        if user != sys::own_user() {
            let message = format!("the other process is of user {user}, and this one of {}", sys::own_user());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        Ok(Self { socket, clock, bell })
    }

    /// Is not to be disturbed any more: what is sent from here on is somebody's connection.
    pub fn hears_no_bell(&mut self) -> io::Result<()> {
        self.bell = Arc::new(Doorbell::new()?);
        Ok(())
    }

    /// What ends its waits.
    pub fn bell(&self) -> Arc<Doorbell> {
        Arc::clone(&self.bell)
    }

    /// The number of the other process.
    pub fn peer(&self) -> u32 {
        sys::peer_process(self.socket.as_fd()).map_or(0, |peer| peer.pid)
    }

    fn ends(&self, within: Duration) -> Instant {
        self.clock.now().saturating_add(within)
    }

    /// Sleeps until there is something to do.
    fn wait(&self, to_write: bool, ends: Instant) -> io::Result<()> {
        let left = ends.duration_since(self.clock.now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the other process does not answer"));
        }
        match sys::wait_for_fd(self.socket.as_fd(), to_write, self.bell.as_fd(), Timeout::After(left))? {
            Heard::Bell => Err(io::Error::new(io::ErrorKind::Interrupted, "this process ends")),
            Heard::Ready | Heard::Nothing => Ok(()),
        }
    }

    /// Sends a message, with a descriptor where it has one.
    pub fn send(&self, message: &Message, mut fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let (bytes, ends) = (message.to_bytes(), self.ends(ANSWER_WITHIN));
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            match sys::send_with_fd(self.socket.as_fd(), rest, fd) {
                Ok(sent) => {
                    rest = &rest[sent..];
                    fd = None;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(true, ends).map_err(|error| named("cannot say", message, error))?;
                }
                Err(error) => return Err(named("cannot say", message, error)),
            }
        }
        Ok(())
    }

    /// The next message, with the descriptor that has come with it.
    pub fn receive(&self, within: Duration) -> io::Result<(Message, Option<OwnedFd>)> {
        let ends = self.ends(within);
        let (mut header, mut fd) = ([0; HEADER_BYTES], None);
        self.fill(&mut header, &mut fd, ends)?;
        let mut rest = vec![0; Message::rest_of(header)?];
        self.fill(&mut rest, &mut fd, ends)?;
        Ok((Message::read(header[0], &rest)?, fd))
    }

    fn fill(&self, mut place: &mut [u8], fd: &mut Option<OwnedFd>, ends: Instant) -> io::Result<()> {
        while !place.is_empty() {
            match sys::recv_with_fd(self.socket.as_fd(), place) {
                Ok((0, _)) => {
                    let message = "the other process has gone";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
                }
                Ok((len, new)) => {
                    place = &mut place[len..];
                    if new.is_some() && std::mem::replace(fd, new).is_some() {
                        return Err(garbage());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(false, ends)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The next message, which is this one, or no other than a refusal: that is an error.
    pub fn expect<T>(
        &self,
        what: &str,
        within: Duration,
        read: impl FnOnce(Message, Option<OwnedFd>) -> Option<T>,
    ) -> io::Result<T> {
        let waiting = |error: io::Error| {
            io::Error::new(error.kind(), format!("while this process waited for its {what}: {error}"))
        };
        let (message, fd) = self.receive(within).map_err(waiting)?;
        if let Message::Refused(why) = message {
            return Err(io::Error::new(io::ErrorKind::ConnectionRefused, why));
        }
        let name = message.name();
        read(message, fd).ok_or_else(|| {
            let message = format!("while this process waited for its {what}: it says {name}");
            io::Error::new(io::ErrorKind::InvalidData, message)
        })
    }

    /// What lies unread in front of an end: why the other process wants nothing more of this one.
    pub fn last_word(&self) -> Option<String> {
        match self.receive(Duration::ZERO) {
            Ok((Message::Refused(why), _)) => Some(why),
            _ => None,
        }
    }

    /// That it speaks what is spoken here.
    pub fn expect_hello(&self) -> io::Result<()> {
        let hello = |message, _fd| match message {
            Message::Hello { version } => Some(version),
            _ => None,
        };
        match self.expect("hello", ANSWER_WITHIN, hello)? {
            VERSION => Ok(()),
            other => {
                let message = format!(
                    "the other process speaks version {other} of the handover, and this one version {VERSION}"
                );
                Err(io::Error::new(io::ErrorKind::Unsupported, message))
            }
        }
    }
}

fn named(what: &str, message: &Message, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what} {} to the other process: {error}", message.name()))
}
