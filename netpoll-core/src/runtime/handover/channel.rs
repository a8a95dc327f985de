//! The connection between the process that goes and the one that follows: whole messages, each within its time, or an error that says
//! which one was waited for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use super::wire::{HEADER_BYTES, Message, VERSION};
use crate::clockwork::{ClockReader, Instant};
use crate::sys::{self, Doorbell, Heard, Passed, Timeout};

/// How long the other process may take for what it only has to say: both are on one machine.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How long who has connected may take for its first word, which it has ready: others that wait behind it are to be attended to within
/// [`ANSWER_WITHIN`].
pub const HELLO_WITHIN: Duration = Duration::from_secs(2);

/// For what is waited for as long as the other process, and this one, lives.
pub const LONG: Duration = Duration::from_secs(24 * 60 * 60 * 365);

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

    /// Its waits are ended by this one from here on.
    pub fn hears(&mut self, bell: &Arc<Doorbell>) {
        self.bell = Arc::clone(bell);
    }

    /// The number of the other process.
    pub fn peer(&self) -> u32 {
        sys::peer_process(self.socket.as_fd()).map_or(0, |peer| peer.pid)
    }

    fn ends(&self, within: Duration) -> Instant {
        self.clock.now().saturating_add(within)
    }

    /// Sleeps until there is a message, or the end.
    pub fn wait_for_more(&self, within: Duration) -> io::Result<()> {
        self.wait(false, self.ends(within))
    }

    /// Sleeps until the other process, which has nothing more to say, has gone, or this bell is rung.
    pub fn wait_for_end(&self, bell: &Doorbell) {
        while let Ok(Heard::Nothing) =
            sys::wait_for_fd(self.socket.as_fd(), false, bell.as_fd(), Timeout::Never)
        {}
    }

    /// Sleeps for some time.
    pub fn rest(&self, time: Duration) -> io::Result<()> {
        if self.bell.wait_for(Timeout::After(time))? { Err(own_end()) } else { Ok(()) }
    }

    /// Sleeps until there is something to do.
    fn wait(&self, to_write: bool, ends: Instant) -> io::Result<()> {
        let left = ends.duration_since(self.clock.now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the other process does not answer"));
        }
        match sys::wait_for_fd(self.socket.as_fd(), to_write, self.bell.as_fd(), Timeout::After(left))? {
            Heard::Bell => Err(own_end()),
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
    ///
    /// # Errors
    /// `EMFILE`: there is no room for its descriptor, and nothing was read. [`is_no_room`], where the system cannot tell in time: the message
    /// was read, and its descriptor is lost.
    pub fn receive(&self, within: Duration) -> io::Result<(Message, Option<OwnedFd>)> {
        let ends = self.ends(within);
        let (mut header, mut passed) = ([0; HEADER_BYTES], Passed::Nothing);
        let mut len = 0;
        self.fill(&mut header, ends, |socket, place| match len {
            0 => {
                (len, passed) = sys::recv_with_fd(socket, place)?;
                Ok(len)
            }
            _ => sys::recv(socket, place),
        })?;
        let mut rest = vec![0; Message::rest_of(header)?];
        self.fill(&mut rest, ends, sys::recv)?;
        let message = Message::read(header[0], &rest)?;
        match passed {
            Passed::Nothing => Ok((message, None)),
            Passed::Descriptor(fd) => Ok((message, Some(fd))),
            Passed::Lost => {
                let message = "this process has no descriptor left for what the other one sends";
                Err(io::Error::new(io::ErrorKind::QuotaExceeded, message))
            }
        }
    }

    fn fill(
        &self,
        mut place: &mut [u8],
        ends: Instant,
        mut recv: impl FnMut(BorrowedFd<'_>, &mut [u8]) -> io::Result<usize>,
    ) -> io::Result<()> {
        while !place.is_empty() {
            match recv(self.socket.as_fd(), place) {
                Ok(0) => {
                    let message = "the other process has gone";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
                }
                Ok(len) => place = &mut place[len..],
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
    pub fn expect_hello(&self, within: Duration) -> io::Result<()> {
        let hello = |message, _fd| match message {
            Message::Hello { version } => Some(version),
            _ => None,
        };
        match self.expect("hello", within, hello)? {
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

fn own_end() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, "this process ends")
}

fn named(what: &str, message: &Message, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what} {} to the other process: {error}", message.name()))
}

/// The other process has ended, and said nothing.
pub fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

/// This process had no room for a descriptor.
pub fn is_no_room(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::QuotaExceeded
}
