//! The process that follows: takes the sockets when it starts, says when it is ready, and when it serves.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::Handover;
use super::channel::{ANSWER_WITHIN, Channel, is_gone};
use super::family::{Family, Inherited};
use super::wire::{ManagerName, Message, VERSION};
use crate::clockwork::Clock;
use crate::conn::SocketKind;
use crate::sys::{self, Address, Doorbell, StreamOptions};

/// How often it is asked for who serves, when who did has gone: another one has followed, and is at the path.
const TRIES: usize = 8;

/// The way to the process that goes.
pub struct Heir {
    channel: Channel,
    /// Who is told how the service is, if that process tells somebody.
    pub manager: Option<ManagerName>,
}

impl Heir {
    /// Asks whoever serves for its sockets, and adds them to those of the family. `None` if nobody does.
    ///
    /// # Errors
    /// Somebody is there who does not hand them over: of another user, of another version, busy, or no such process at all.
    pub fn find(handover: &Handover, family: &Family) -> io::Result<Option<Self>> {
        Self::try_find(handover, family).map_err(|error| handover.named(error))
    }

    fn try_find(handover: &Handover, family: &Family) -> io::Result<Option<Self>> {
        let mut tries = 1..;
        let channel = loop {
            let Some(socket) = connect(handover)? else { return Ok(None) };
            match greeted(socket) {
                Ok(channel) => break channel,
                // It was there when this one got in line, and has handed over to somebody else since, or ended.
                Err(error) if is_gone(&error) && tries.next() < Some(TRIES) => {}
                Err(error) => return Err(error),
            }
        };
        let (count, manager) = channel.expect("offer", ANSWER_WITHIN, |message, _fd| match message {
            Message::Offer { sockets, manager } => Some((sockets, manager)),
            _ => None,
        })?;
        for _ in 0..count {
            let inherited = channel.expect("sockets", ANSWER_WITHIN, |message, fd| match message {
                Message::Socket { number, name } => {
                    Some(Inherited { name, socket: fd?, number: Some(number) })
                }
                _ => None,
            })?;
            match inherited.name.kind {
                SocketKind::Stream => drop(sys::check_listener(inherited.socket.as_fd())?),
                SocketKind::Datagrams => drop(sys::check_datagrams(inherited.socket.as_fd())?),
            }
            family.add(inherited);
        }
        Ok(Some(Self { channel, manager }))
    }

    /// Says that all is made that can fail. Returns when this process is to serve, which it is as well if the other one has ended
    /// meanwhile: nobody else has the sockets then.
    ///
    /// # Errors
    /// The other process has given up on this one, and serves on.
    pub fn ready(&self, handover: &Handover) -> io::Result<()> {
        let answer = self.channel.send(&Message::Ready, None).and_then(|()| {
            self.channel.expect("leave to serve", ANSWER_WITHIN, |message, _fd| {
                (message == Message::GoAhead).then_some(())
            })
        });
        match answer {
            Err(error) if is_gone(&error) => match self.channel.last_word() {
                Some(why) => Err(handover.named(io::Error::new(io::ErrorKind::ConnectionRefused, why))),
                None => Ok(()),
            },
            answer => answer.map_err(|error| handover.named(error)),
        }
    }

    /// Says that this process serves, at these sockets of the other one, which drains from now on: the way by which its connections
    /// come. `None` if it has ended, which changes nothing else.
    pub fn serves(self, claimed: Vec<u16>) -> Option<Channel> {
        self.channel.send(&Message::Serving { claimed }, None).ok().map(|()| self.channel)
    }
}

/// The way to whoever listens at the path; `None` if nobody does.
fn connect(handover: &Handover) -> io::Result<Option<OwnedFd>> {
    match sys::connect(&Address::unix(&handover.path)?, &StreamOptions::DEFAULT) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
            io::ErrorKind::WouldBlock => {
                let message = "others wait to take over as well";
                Err(io::Error::new(io::ErrorKind::ResourceBusy, message))
            }
            _ => Err(error),
        },
    }
}

/// Whoever is there attends to this one.
fn greeted(socket: OwnedFd) -> io::Result<Channel> {
    let channel = Channel::new(socket, Clock::monotonic().reader(), Arc::new(Doorbell::new()?))?;
    channel.send(&Message::Hello { version: VERSION }, None)?;
    channel.expect_hello(ANSWER_WITHIN)?;
    Ok(channel)
}
