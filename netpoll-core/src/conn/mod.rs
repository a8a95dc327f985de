//! Connections: callbacks, deadlines, back-pressure and every way to end.
//!
//! A [`Protocol`] sees bytes and queues bytes; nothing here knows a socket, only keys and the driver's
//! order-taking half. All of it belongs to one worker thread.

mod addresses;
mod any_table;
mod attempts;
mod commands;
mod connect;
mod course;
mod datagram;
mod deadline;
pub mod desk;
mod dial;
mod dialed;
mod either;
mod ending;
mod forward;
mod guard;
mod half_close;
mod handle;
mod layer;
mod life;
mod limits;
mod listener;
mod local;
mod long_turn;
mod lookups;
mod mail;
mod message;
mod moving;
mod output;
mod protocol;
mod proxied;
mod reach;
mod remote;
mod reply;
mod slot;
mod splicing;
mod stream;
mod succession;
mod table;
mod tables;
mod target;
mod timers;

use std::any::Any;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::clockwork::Instant;
use crate::mem::Key;
use crate::reactor::{Agenda, Stats};
use crate::task::{Deliver, OwnLane};
pub(crate) use crate::task::{OwnStates, States, two_states};

pub use addresses::Addresses;
pub use attempts::{Attempts, Resolve};
pub use commands::{Answer, Command, Commands, Later, Packet};
pub use connect::{ConnectOptions, Order, Start};
pub use datagram::{DatagramId, DatagramProtocol, DatagramSocket, Sockets, Spares, UdpOptions};
pub use dial::Dial;
pub use dialed::{DialNames, Dialed};
pub use either::Either;
pub use ending::{CUT_PEERS_MAX, CutPeer};
pub use forward::Forwards;
pub use handle::{Conn, ConnId};
pub use layer::{Layer, Layered, Upper};
pub use life::{Life, Readiness, Stage};
pub use limits::ConnLimits;
pub use listener::{Door, Listeners};
pub use local::Local;
pub use long_turn::{Callee, LastLongTurn, LongCall, LongTurn, Watch};
pub use lookups::{LookUp, Lookups};
pub use mail::{Letter, Wakes};
pub use message::{Message, Template};
pub use moving::{Arrived, Moved};
pub use protocol::{Flow, Input, Lost, Peer, Protocol};
pub use proxied::Proxied;
#[cfg(feature = "internals")]
pub use proxied::{Parsed, parse};
pub use reach::Reach;
pub use remote::{Handle, Setup};
pub use succession::{Fate, OwnSuccession, SharedSocket, SocketKind, SocketName, Succession, leads_to};
pub use tables::Tables;
pub use target::Target;
pub(crate) use target::{Place, look_up, malformed, no_address};
pub use timers::TimerId;

/// What the connections of one worker share.
pub struct Context {
    pub agenda: Agenda,
    pub commands: Commands,
    pub limits: ConnLimits,
    pub addresses: Addresses,
    pub dialed: Dialed,
    pub forwards: Forwards,
    /// Bytes of output that wait above layers, of each connection that has some.
    pub above: HashMap<Key, usize>,
    /// What the layers below the callback that is under way have told of themselves, the innermost last.
    pub facts: Vec<Arc<dyn Any + Send + Sync>>,
    pub worker: u16,
    /// A graceful drain is under way.
    pub stopping: bool,
    /// When it ends.
    pub drain_ends: Instant,
    /// The same for everybody who asks the handle.
    pub draining: Arc<AtomicBool>,
    pub wakes: Arc<dyn Deliver>,
    /// What its tasks know of it.
    pub lane: OwnLane,
    /// What these reach of it.
    pub reach: Rc<Reach>,
    pub handle: Handle,
    /// What the program keeps on this worker.
    pub states: OwnStates,
    /// Why the connection of a callback that is under way resets itself, where it is not just that it wants to.
    pub cause: Option<(Key, Lost)>,
    /// Outgoing connections with more than one way to go.
    pub attempts: Attempts,
    pub resolver: Rc<dyn Resolve>,
    /// Names that tasks wait for.
    pub lookups: Lookups,
}

impl Context {
    /// The counters of this worker, as of its last turn for what the driver counts.
    pub fn stats(&self) -> Stats {
        let published = self.handle.published[usize::from(self.worker)].load();
        self.agenda.stats.with_io_of(&published)
    }

    /// How long a connection that is in the middle of nothing goes on in a drain: half of what is left of it at most, so that there is
    /// time for the end.
    pub fn drain_grace(&self) -> Duration {
        let grace = self.limits.drain_grace;
        let left = || self.drain_ends.duration_since(self.agenda.clock.now());
        if self.stopping { grace.min(left() / 2) } else { grace }
    }

    /// The end that a callback has asked for, with its cause.
    #[cold]
    pub fn because(&mut self, key: Key, end: stream::End) -> stream::End {
        // That of another connection waits for its own end: a callback of this one may come in between.
        match self.cause.take_if(|(of, _)| *of == key) {
            Some((_, reason)) if matches!(end.reason, Lost::Reset) => stream::End::reset(reason),
            _ => end,
        }
    }
}
