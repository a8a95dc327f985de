//! What a runtime keeps for the process that follows it, and whose its listening sockets are meanwhile.
//!
//! A second descriptor of each socket that it was told to listen on or to receive at, under a number, and how far the handover has come.
//! Invariant: these are gone as soon as the runtime drains, or its sockets would stay open behind its listeners, with peers in
//! their queues whom nobody accepts.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Moved;
use crate::sys::{self, Address};

/// Sockets that are handed over at most, of all workers and addresses together: workers of a large machine times a dozen addresses.
pub const SOCKETS_MAX: usize = 4096;

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketKind {
    /// It listens, for streams.
    Stream,
    /// It receives datagrams.
    Datagrams,
}

/// What is known of a socket that goes from process to process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketName {
    pub kind: SocketKind,
    /// Where it was asked for: what `listen` was told.
    pub asked: String,
    /// Where it is.
    pub bound: String,
    /// A service manager has it as well.
    pub is_foreign: bool,
}

/// Whose the queue of a listener is when it closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Ours alone: whoever stands in it is to be taken in.
    Ours,
    /// Another process has it as well, and may go on with it.
    Lent,
    /// Another process goes on with it.
    Handed,
}

enum Course {
    Alone,
    /// Somebody has the sockets, and has not said that it serves.
    Lent,
    /// Somebody serves.
    Handed {
        /// At these, by number.
        claimed: Vec<bool>,
        /// Where each worker sends connections that go on there.
        ways: Vec<Option<Sender<Moved>>>,
    },
}

struct Kept {
    name: SocketName,
    /// Where it is, as the kernel says it.
    at: Address,
    /// `None` when its runtime drains.
    socket: Option<OwnedFd>,
}

struct State {
    kept: Vec<Kept>,
    course: Course,
}

/// The sockets of a runtime, and of those that stand beside it.
pub struct Succession(Mutex<State>);

impl Succession {
    pub fn new() -> Self {
        Self(Mutex::new(State { kept: Vec::new(), course: Course::Alone }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many sockets it has numbers for.
    pub fn len(&self) -> usize {
        self.state().kept.len()
    }

    /// Keeps a descriptor of a socket; its number.
    ///
    /// # Errors
    /// There are [`SOCKETS_MAX`] of them.
    pub fn keep(&self, name: SocketName, socket: OwnedFd) -> io::Result<usize> {
        let at = sys::local_addr(socket.as_fd())?;
        let kept = &mut self.state().kept;
        if kept.len() == SOCKETS_MAX {
            return Err(io::Error::other(format!("more than {SOCKETS_MAX} sockets to hand over")));
        }
        kept.push(Kept { name, at, socket: Some(socket) });
        Ok(kept.len() - 1)
    }

    /// A descriptor of each socket for another process, with their numbers. From here on no queue is closed to newcomers, until this is
    /// [taken back](Self::take_back).
    ///
    /// # Errors
    /// There is none left, because the runtime drains; no descriptor to be had.
    pub fn lend(&self) -> io::Result<Vec<(usize, SocketName, OwnedFd)>> {
        let mut state = self.state();
        let lent: io::Result<Vec<_>> = (state.kept.iter().enumerate())
            .filter_map(|(number, kept)| Some((number, &kept.name, kept.socket.as_ref()?)))
            .map(|(number, name, socket)| Ok((number, name.clone(), socket.try_clone()?)))
            .collect();
        let lent = lent?;
        if lent.is_empty() {
            return Err(io::Error::other("this process drains, and has no sockets to hand over"));
        }
        state.course = Course::Lent;
        Ok(lent)
    }

    /// The other process has gone without having served.
    pub fn take_back(&self) {
        self.state().course = Course::Alone;
    }

    /// The other process serves, at the sockets with these numbers, and takes what each worker sends it.
    pub fn hand_over(&self, claimed: &[u16], ways: Vec<Sender<Moved>>) {
        let mut state = self.state();
        let mut numbers = vec![false; state.kept.len()];
        for number in claimed {
            if let Some(is_claimed) = numbers.get_mut(usize::from(*number)) {
                *is_claimed = true;
            }
        }
        let ways = ways.into_iter().map(Some).collect();
        state.course = Course::Handed { claimed: numbers, ways };
    }

    /// Another process serves in place of this one.
    pub fn is_handed_over(&self) -> bool {
        matches!(self.state().course, Course::Handed { .. })
    }

    /// Whose the queue of the socket with this number is.
    pub fn fate(&self, number: usize) -> Fate {
        match &self.state().course {
            Course::Alone => Fate::Ours,
            Course::Lent => Fate::Lent,
            Course::Handed { claimed, .. } if claimed.get(number) == Some(&true) => Fate::Handed,
            Course::Handed { .. } => Fate::Ours,
        }
    }

    /// Where this worker sends connections that go on elsewhere. Once, and it is to be dropped when that is done: the last one is waited for.
    pub fn take_way(&self, worker: usize) -> Option<Sender<Moved>> {
        match &mut self.state().course {
            Course::Handed { ways, .. } => ways.get_mut(worker)?.take(),
            _ => None,
        }
    }

    /// Whether the other process listens where a connection of this address of ours was accepted.
    pub fn goes_on_at(&self, local: &Address) -> bool {
        let state = self.state();
        let Course::Handed { claimed, .. } = &state.course else { return false };
        let mut listeners = state.kept.iter().zip(claimed);
        listeners.any(|(kept, claimed)| {
            *claimed && kept.name.kind == SocketKind::Stream && leads_to(&kept.at, local)
        })
    }

    /// Closes what was kept of these.
    pub fn let_go(&self, numbers: Range<usize>) {
        let sockets: Vec<_> = {
            let kept = &mut self.state().kept;
            let end = numbers.end.min(kept.len());
            kept[numbers.start.min(end)..end].iter_mut().filter_map(|kept| kept.socket.take()).collect()
        };
        drop(sockets);
    }
}

/// Whether a connection of this address of ours may have been accepted at that listener.
pub fn leads_to(listener: &Address, local: &Address) -> bool {
    match (listener.as_socket_addr(), local.as_socket_addr()) {
        (Some(listener), Some(local)) => {
            listener == local || listener.ip().is_unspecified() && listener.port() == local.port()
        }
        _ => listener == local,
    }
}

/// The part of one runtime in it.
#[derive(Clone)]
pub struct OwnSuccession {
    pub shared: Arc<Succession>,
    /// The numbers of its sockets.
    pub numbers: Range<usize>,
    /// Its connections may go on in the process that follows: it does not stand beside another.
    pub moves: bool,
}

impl OwnSuccession {
    /// It drains.
    pub fn let_go(&self) {
        self.shared.let_go(self.numbers.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn kept(count: usize) -> Succession {
        let succession = Succession::new();
        for number in 0..count {
            let name = SocketName {
                kind: SocketKind::Stream,
                asked: "127.0.0.1:0".to_owned(),
                bound: "127.0.0.1:1".to_owned(),
                is_foreign: false,
            };
            let socket = TcpListener::bind("127.0.0.1:0").unwrap().into();
            assert_eq!(succession.keep(name, socket).unwrap(), number);
        }
        succession
    }

    #[test]
    fn what_nobody_has_claimed_stays_ours() {
        let succession = kept(3);
        assert_eq!(succession.fate(0), Fate::Ours);
        assert_eq!(succession.lend().unwrap().len(), 3);
        assert_eq!(succession.fate(0), Fate::Lent);
        succession.take_back();
        assert_eq!(succession.fate(0), Fate::Ours);
        succession.lend().unwrap();
        // A number that was never given is nobody's.
        succession.hand_over(&[0, 2, 77], Vec::new());
        let fates = [0, 1, 2, 3].map(|number| succession.fate(number));
        assert_eq!(fates, [Fate::Handed, Fate::Ours, Fate::Handed, Fate::Ours]);
    }

    #[test]
    fn one_that_drains_lends_nothing_any_more() {
        let succession = kept(3);
        succession.let_go(1..3);
        assert_eq!(succession.lend().unwrap().len(), 1);
        succession.let_go(0..9);
        assert!(succession.lend().is_err());
    }
}
