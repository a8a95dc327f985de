//! What goes to a worker through its mailbox: orders of other threads, and wakes.

use std::io;
use std::time::Duration;

use bytes::Bytes;

use super::{Arrived, ConnId, Local, Message, Order, Packet, Start, Template};
use crate::mem::{Guarded, Key};
use crate::reactor::Sender;
use crate::sys::Address;
use crate::task::Deliver;

/// Code for another worker.
pub type Remote = Guarded<Box<dyn FnOnce(&mut Local<'_>) + Send>>;

/// What other threads may ask of a worker.
pub enum Letter {
    /// A waker of this connection was woken.
    Woken(Key),
    Send {
        to: Key,
        bytes: Guarded<Bytes>,
    },
    /// The same bytes to many connections: the last one first.
    SendMany {
        to: Vec<Key>,
        bytes: Guarded<Bytes>,
    },
    Tell {
        to: Key,
        message: Message,
    },
    /// The same message to many connections: the last one first.
    TellMany {
        to: Vec<Key>,
        template: Box<dyn Template>,
    },
    Order {
        key: Key,
        order: Order,
    },
    Connect(Box<dyn Start + Send>),
    /// The addresses of a name that an outgoing connection has asked for.
    Found {
        key: Key,
        found: io::Result<Vec<Address>>,
    },
    Run(Remote),
    SendDatagram {
        from: Key,
        packet: Box<Packet>,
    },
    /// To itself: commands have led to commands for long enough, the others go on now.
    Obey,
    /// A connection has come from the process before.
    Arrived(Box<Arrived>),
    /// Peers may stand in the queues whom the poller has told somebody else of.
    LookAtListeners,
    /// No worker has anything left: they leave.
    AllDrained,
    /// Drain; cut what is left after this time.
    Stop {
        within: Duration,
    },
}

/// Wakers reach their worker through its mailbox.
pub struct Wakes(pub Sender<Letter>);

impl Deliver for Wakes {
    fn deliver(&self, key: Key) {
        self.0.send(Letter::Woken(key));
    }

    fn carry_home(&self, what: Box<dyn Send>) {
        self.0.send(Letter::Run(Guarded::new(Box::new(move |_local| drop(what)))));
    }
}

/// Connections by their worker, in reverse: a letter of many is read from its end. Names from other runtimes may be of
/// workers that are not here.
pub fn by_worker(ids: impl IntoIterator<Item = ConnId>, workers: usize) -> Vec<Vec<Key>> {
    let mut keys = vec![Vec::new(); workers];
    for id in ids {
        if let Some(keys) = keys.get_mut(id.worker()) {
            keys.push(id.key);
        }
    }
    keys.iter_mut().for_each(|keys| keys.reverse());
    keys
}
