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
        /// Where those go that still come from the process before.
        onward: Option<Sender<Moved>>,
    },
}

struct Kept {
    name: SocketName,
    /// Where it is, as the kernel says it.
    at: Address,
    /// `None` when its runtime drains.
    socket: Option<Arc<OwnedFd>>,
}

/// A socket for another process.
pub struct SharedSocket {
    pub number: usize,
    pub name: SocketName,
    pub socket: Arc<OwnedFd>,
}

struct State {
    kept: Vec<Kept>,
    course: Course,
    /// Connections still come from the process before.
    arrives: bool,
}

/// The sockets of a runtime, and of those that stand beside it.
pub struct Succession(Mutex<State>);

impl Succession {
    pub fn new() -> Self {
        Self(Mutex::new(State { kept: Vec::new(), course: Course::Alone, arrives: false }))
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
        kept.push(Kept { name, at, socket: Some(Arc::new(socket)) });
        Ok(kept.len() - 1)
    }

    /// Each socket for another process. From here on no queue is closed to newcomers, until this is [taken back](Self::take_back). It takes no
    /// descriptor.
    ///
    /// # Errors
    /// There is none left, because the runtime drains.
    pub fn lend(&self) -> io::Result<Vec<SharedSocket>> {
        let mut state = self.state();
        let kept = state.kept.iter().enumerate();
        let lent: Vec<_> = kept
            .filter_map(|(number, Kept { name, socket, .. })| {
                Some(SharedSocket { number, name: name.clone(), socket: Arc::clone(socket.as_ref()?) })
            })
            .collect();
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

    /// The other process serves, at the sockets with these numbers, and takes what each of so many workers sends it.
    pub fn hand_over(&self, claimed: &[u16], way: &Sender<Moved>, workers: usize) {
        let mut state = self.state();
        let mut numbers = vec![false; state.kept.len()];
        for number in claimed {
            if let Some(is_claimed) = numbers.get_mut(usize::from(*number)) {
                *is_claimed = true;
            }
        }
        let onward = state.arrives.then(|| way.clone());
        state.course = Course::Handed { claimed: numbers, ways: vec![Some(way.clone()); workers], onward };
    }

    /// Nobody takes connections any more: those that are left stay here.
    pub fn stop_moving(&self) {
        if let Course::Handed { ways, onward, .. } = &mut self.state().course {
            ways.clear();
            *onward = None;
        }
    }

    /// Connections come from the process before.
    pub fn expect_arrivals(&self) {
        self.state().arrives = true;
    }

    /// No more of them do.
    pub fn end_arrivals(&self) {
        let mut state = self.state();
        state.arrives = false;
        if let Course::Handed { onward, .. } = &mut state.course {
            *onward = None;
        }
    }

    /// Has a connection that has come from the process before given to this one, which is not drained until that is done. Where another
    /// one serves by now: the connection, and the way there.
    pub fn deal(&self, moved: Moved, give: impl FnOnce(Moved)) -> Option<(Moved, Sender<Moved>)> {
        let state = self.state();
        let Course::Handed { onward, .. } = &state.course else {
            give(moved);
            return None;
        };
        let way = onward.clone()?;
        Some((moved, way))
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

    /// Where this worker sends connections that go on elsewhere, if somebody takes them. Once, and it is to be dropped when that is done: the
    /// last one is waited for.
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
            let has_no_ip = listener.ip().is_unspecified() && listener.is_ipv6() == local.is_ipv6();
            listener == local || has_no_ip && listener.port() == local.port()
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
    use std::sync::mpsc;

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
        succession.hand_over(&[0, 2, 77], &mpsc::channel().0, 1);
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

    #[test]
    fn a_connection_is_of_the_listener_with_its_address_or_with_none_of_its_family() {
        let addr = |text: &str| text.parse::<std::net::SocketAddr>().unwrap().into();
        let leads = |listener: &str, local: &str| leads_to(&addr(listener), &addr(local));
        assert!(leads("10.0.0.1:80", "10.0.0.1:80") && leads("0.0.0.0:80", "10.0.0.1:80"));
        assert!(leads("[::]:80", "[::1]:80") && leads("[::]:80", "[::ffff:10.0.0.1]:80"));
        assert!(!leads("10.0.0.2:80", "10.0.0.1:80") && !leads("0.0.0.0:81", "10.0.0.1:80"));
        assert!(!leads("[::]:80", "10.0.0.1:80") && !leads("0.0.0.0:80", "[::1]:80"));
    }
}
