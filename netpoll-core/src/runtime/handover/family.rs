//! The sockets that a runtime, and those that stand beside it, have from others and keep for others.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::conn::{Fate, Handle, Letter, SocketKind, SocketName, Succession};
use crate::sys::{self, Address, ListenFd};

/// A socket that was open before this runtime.
pub struct Inherited {
    pub name: SocketName,
    pub socket: OwnedFd,
    /// What the process that goes knows it by.
    pub number: Option<u16>,
}

#[derive(Default)]
struct Estate {
    unclaimed: Vec<Inherited>,
    claimed: Vec<u16>,
    /// Those that stand beside.
    companions: Vec<Handle>,
}

/// What they share.
#[derive(Default)]
pub struct Family {
    estate: Mutex<Estate>,
    /// Where there is to be a process that follows.
    pub succession: Option<Arc<Succession>>,
}

impl Family {
    pub fn new(hands_over: bool) -> Self {
        let succession = hands_over.then(|| Arc::new(Succession::new()));
        Self { estate: Mutex::default(), succession }
    }

    fn estate(&self) -> MutexGuard<'_, Estate> {
        self.estate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody may want it.
    pub fn add(&self, inherited: Inherited) {
        self.estate().unclaimed.push(inherited);
    }

    /// The same for one that a service manager has opened.
    ///
    /// # Errors
    /// Nobody could listen on it or receive from it (`InvalidInput`).
    pub fn add_of_manager(&self, fd: ListenFd) -> io::Result<()> {
        let ListenFd { name, socket } = fd;
        let is_stream = sys::check_listener(socket.as_fd());
        let (kind, bound) = match is_stream {
            Ok(addr) => (SocketKind::Stream, addr.to_string()),
            Err(error) => match sys::check_datagrams(socket.as_fd()) {
                Ok(addr) => (SocketKind::Datagrams, addr.to_string()),
                Err(_) => return Err(io::Error::new(error.kind(), format!("socket `{name}`: {error}"))),
            },
        };
        let name = SocketName { kind, asked: bound.clone(), bound, is_foreign: true };
        self.add(Inherited { name, socket, number: None });
        Ok(())
    }

    /// The sockets of one address, of all workers that there were: one that was asked for in these words, or one that is there.
    pub fn claim(&self, kind: SocketKind, wanted: &str) -> Vec<Inherited> {
        let mut estate = self.estate();
        let of = |found: fn(&SocketName) -> &str| {
            let mut all = estate.unclaimed.iter().map(|inherited| &inherited.name);
            all.find(|name| name.kind == kind && found(name) == wanted).cloned()
        };
        let Some(name) = of(|name| &name.asked).or_else(|| of(|name| &name.bound)) else { return Vec::new() };
        let (claimed, left) = estate.unclaimed.drain(..).partition(|inherited| inherited.name == name);
        estate.unclaimed = left;
        let claimed: Vec<Inherited> = claimed;
        estate.claimed.extend(claimed.iter().filter_map(|inherited| inherited.number));
        claimed
    }

    /// A listening socket of a service manager that nobody has claimed and that has the port of this address, though not its name, as
    /// `[::]:80` and `0.0.0.0:80`.
    pub fn handed_in_beside(&self, addr: &Address) -> Option<String> {
        let port = addr.as_socket_addr()?.port();
        let estate = self.estate();
        let of_managers = estate.unclaimed.iter().filter(|it| it.number.is_none());
        let mut names = of_managers.map(|it| &it.name).filter(|name| name.kind == SocketKind::Stream);
        let has_port =
            |bound: &str| bound.parse::<SocketAddr>().is_ok_and(|bound| port > 0 && bound.port() == port);
        names.find(|name| has_port(&name.bound)).map(|name| name.bound.clone())
    }

    /// What was claimed of the process that goes. Nobody can claim more: the rest is closed.
    pub fn claimed(&self) -> Vec<u16> {
        let mut estate = self.estate();
        estate.unclaimed.clear();
        estate.claimed.clone()
    }

    /// Whether somebody listens wherever a service manager expects it.
    ///
    /// # Errors
    /// Nobody does somewhere (`InvalidInput`).
    pub fn check_claimed(&self) -> io::Result<()> {
        let estate = self.estate();
        match estate.unclaimed.iter().find(|inherited| inherited.number.is_none()) {
            None => Ok(()),
            Some(Inherited { name, .. }) => {
                let message = match name.kind {
                    SocketKind::Stream => {
                        format!("a socket at {} was handed in, and nobody listens there", name.bound)
                    }
                    SocketKind::Datagrams => {
                        format!("a UDP socket at {} was handed in, and nobody receives there", name.bound)
                    }
                };
                Err(io::Error::new(io::ErrorKind::InvalidInput, message))
            }
        }
    }

    /// Keeps a descriptor for the process that follows, if there is to be one.
    ///
    /// # Errors
    /// Too many; no descriptor to be had.
    pub fn keep(&self, name: &SocketName, socket: &OwnedFd) -> io::Result<Option<usize>> {
        let Some(succession) = &self.succession else { return Ok(None) };
        succession.keep(name.clone(), socket.try_clone()?).map(Some)
    }

    /// One stands beside.
    pub fn add_companion(&self, handle: Handle) {
        self.estate().companions.push(handle);
    }

    fn companions(&self) -> Vec<Handle> {
        self.estate().companions.clone()
    }

    /// Another process serves where these did: whoever comes there is to hear that one. Those whose sockets it has not taken go on.
    pub fn drain_companions(&self, within: Duration) {
        for handle in self.companions() {
            let handed = handle
                .succession
                .as_ref()
                .is_some_and(|own| own.numbers.clone().any(|number| own.shared.fate(number) == Fate::Handed));
            if handed {
                handle.drain(within);
            }
        }
    }

    /// Has all workers look who stands in their queues.
    pub fn look_at_listeners(&self, main: &Handle) {
        for handle in self.companions().iter().chain([main]) {
            handle.workers.iter().for_each(|worker| worker.send(Letter::LookAtListeners));
        }
    }
}
