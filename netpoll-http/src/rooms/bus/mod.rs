//! A bus joins the rooms of several processes: what is published in one reaches the members in all of them.
//!
//! ```no_run
//! use netpoll_http::rooms::bus::{Bus, Hub};
//! use netpoll_http::rooms::{Rooms, Settings};
//!
//! // Several servers of one process. Over Redis it is Bus::redis("redis://127.0.0.1")?, by the feature `rooms-redis`, and over
//! // NATS Bus::nats("nats://127.0.0.1")?, by `rooms-nats`.
//! let hub = Hub::default();
//! let rooms = Rooms::new(Settings::default()).bus(Bus::new(hub.clone()));
//! let others = Rooms::new(Settings::default()).bus(Bus::new(hub));
//! ```
//!
//! # What it promises
//!
//! - Members of the process that a message is published in get it as if there were no bus: nobody waits for an engine.
//! - In the others it gets the next number of their room. So a [`Position`](super::Position) is one of its process, and a client that comes back to another process
//!   hears so ([`Resumed::Anew`](super::Resumed::Anew)). Messages of one process are in order everywhere; of those of two processes each process has an order of its own.
//! - A message comes once or not at all, and what does not come is missed: each process numbers what it publishes in a room. When a number is skipped, those that are
//!   missing get numbers as well, and members hear of a [`Gap`](super::Gap) in their place. If nothing follows, a process says where it is
//!   [a moment later](Settings::digest_after), and whoever has lost its connection asks all others when it is back.
//! - What is published while there is no connection waits for it, within [limits](Settings). What had left when a connection broke is not sent again.
//!
//! A room is subscribed to as long as it is there: as long as somebody is in it, or it remembers something that was published here. What is published elsewhere does
//! not keep a room that nobody is in. Who is [present](super::Rooms::present) is known of this process alone.
//!
//! What a process publishes right before it ends may be lost without a gap: there is nobody who says so. The same is so of what is lost in the first moments of a room, of
//! a process that has had it for longer.
//!
//! # Engines
//!
//! [`Hub`] joins rooms of one process. Redis and NATS are clients of a few commands, one connection each, on the first worker; TLS is not among what they can. Whatever else
//! carries bytes to all others is an [`Engine`]. Whoever may publish there may publish in all rooms: the channels are to be as private as the members are.

#[cfg(any(feature = "rooms-nats", feature = "rooms-redis"))]
mod client;
mod envelope;
mod hub;
mod line;
#[cfg(feature = "rooms-nats")]
mod nats;
mod ours;
pub(super) mod peers;
mod queue;
#[cfg(feature = "rooms-redis")]
mod redis;
mod settings;
#[cfg(any(feature = "rooms-nats", feature = "rooms-redis"))]
mod url;

pub use hub::Hub;
pub use line::{Channel, Line, Order};
pub use settings::Settings;
#[cfg(any(feature = "rooms-nats", feature = "rooms-redis"))]
pub use url::BadUrl;

use std::fmt;
use std::sync::Arc;

use netpoll_core::Local;

use super::Rooms;
pub(super) use ours::Ours;

/// What joins [`Rooms`] of several processes: an engine, and a prefix that all of them share. [`Rooms::bus`] takes it.
pub struct Bus {
    engine: Box<dyn Engine>,
    prefix: Arc<str>,
    settings: Settings,
}

/// What carries messages to other processes.
///
/// It is given a [`Line`], which has [orders](Order) for it and takes what comes. It says when it has a connection and when it has none
/// any more; what is to be subscribed to is ordered again behind each connect. What it cannot carry it lets go: that is missed by its number. One that carries each message
/// once at most, and those of one process in order, loses least.
///
/// ```
/// use netpoll_core::Local;
/// use netpoll_core::task::spawn_daemon;
/// use netpoll_http::rooms::bus::{Engine, Line, Order};
///
/// /// Says what it would do.
/// struct Dry;
///
/// impl Engine for Dry {
///     fn start(&self, line: Line, _local: &mut Local<'_>) {
///         let carry = async move {
///             line.connected();
///             while let Some(order) = line.next().await {
///                 match order {
///                     Order::Subscribe(channel) => println!("to {channel}"),
///                     Order::Unsubscribe(channel) => println!("no more to {channel}"),
///                     Order::Publish { to, payload } => println!("{} bytes for {to}", payload.len()),
///                     _ => {}
///                 }
///             }
///         };
///         spawn_daemon(carry).detach();
///     }
/// }
/// ```
pub trait Engine: Send + Sync + 'static {
    /// Begins, once, on the first worker of the server: a callback, so it does not block.
    fn start(&self, line: Line, local: &mut Local<'_>);
}

/// What a bus has done; see [`Rooms::bus_stats`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// There is a connection to the engine.
    pub is_connected: bool,
    /// Connections that followed an earlier one.
    pub reconnects: u64,
    /// Channels that are subscribed to, or about to be, without that of all rooms.
    pub channels: usize,
    /// Messages that wait to leave.
    pub queued: usize,
    /// Their bytes, as [`Settings::queue_bytes`] counts them.
    pub queued_bytes: usize,
    /// Messages that were given to the engine.
    pub sent: u64,
    /// Messages of other processes that came, each counted once.
    pub received: u64,
    /// Messages of ours that have not left: too many, too old, or too large. The others miss them.
    pub dropped: u64,
    /// Messages of other processes that came again.
    pub duplicates: u64,
    /// Holes in what other processes have published, each counted once for each room.
    pub gaps: u64,
    /// Messages in these holes.
    pub missing: u64,
    /// What came and was nothing that a process says.
    pub malformed: u64,
    /// Why there was no connection the last time that there was none; or what NATS has refused for one room since, which others miss then.
    pub last_failure: Option<Arc<str>>,
}

impl Bus {
    /// By this engine, with the prefix `netpoll`.
    #[must_use]
    pub fn new(engine: impl Engine) -> Self {
        Self { engine: Box::new(engine), prefix: Arc::from("netpoll"), settings: Settings::default() }
    }

    /// By a Redis, or whatever else speaks RESP3 (Redis since 6.0, Valkey): `redis://USER:PASSWORD@HOST:PORT`, or `redis://:PASSWORD@HOST`. What is not
    /// there is left out, the port is 6379 by itself; what is no letter, digit, `-`, `.`, `_` or `~` in the credentials is percent-encoded. It needs the commands `HELLO`, `PING`, `PUBLISH`,
    /// `SUBSCRIBE` and `UNSUBSCRIBE`, and the channels `PREFIX:*`.
    ///
    /// By the feature `rooms-redis`.
    ///
    /// ```
    /// use netpoll_http::rooms::bus::Bus;
    /// use netpoll_http::rooms::{Rooms, Settings};
    ///
    /// # fn rooms() -> Result<Rooms, netpoll_http::rooms::bus::BadUrl> {
    /// Ok(Rooms::new(Settings::default()).bus(Bus::redis("redis://:secret@127.0.0.1:6379")?.prefix("shop")))
    /// # }
    /// # assert_eq!(rooms().unwrap().bus_stats().unwrap().is_connected, false);
    /// ```
    ///
    /// # Errors
    /// When it is no such URL. Nothing is connected to before the server starts, and what fails then is tried again and said by [`Rooms::bus_stats`].
    #[cfg(feature = "rooms-redis")]
    pub fn redis(url: &str) -> Result<Self, BadUrl> {
        Ok(Self::new(client::Client::<redis::Redis>::new(url::Url::parse(url, "redis", 6379)?)))
    }

    /// By a NATS server: `nats://USER:PASSWORD@HOST:PORT`, or `nats://TOKEN@HOST`. What is not there is left out, the port is 4222 by itself; what is no letter,
    /// digit, `-`, `.`, `_` or `~` in the credentials is percent-encoded. It needs the subjects `PREFIX.>`. Names of rooms are in a subject as one token: what is no ASCII letter or digit is `=` and two
    /// hexadecimal digits for each byte.
    ///
    /// By the feature `rooms-nats`.
    ///
    /// # Errors
    /// When it is no such URL. Nothing is connected to before the server starts, and what fails then is tried again and said by [`Rooms::bus_stats`].
    #[cfg(feature = "rooms-nats")]
    pub fn nats(url: &str) -> Result<Self, BadUrl> {
        Ok(Self::new(client::Client::<nats::Nats>::new(url::Url::parse(url, "nats", 4222)?)))
    }

    /// What the names of all channels begin with: the same in processes that share rooms, and another one where another program uses the same engine. ASCII letters, digits, `-` and `_` are
    /// good anywhere.
    #[must_use]
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.prefix = Arc::from(prefix);
        self
    }

    /// How much waits, and how soon what is lost is noticed.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus")
            .field("prefix", &self.prefix)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Rooms {
    /// What is published here reaches other processes, and what is published there members here.
    ///
    /// # Panics
    /// If there are clones already.
    #[must_use]
    pub fn bus(mut self, bus: Bus) -> Self {
        let Some(shared) = Arc::get_mut(&mut self.0) else {
            panic!("what joins rooms is said before there are clones");
        };
        shared.bus = Some(Ours::new(bus));
        self
    }

    /// What the bus has done. `None` if there is none.
    #[must_use]
    pub fn bus_stats(&self) -> Option<Stats> {
        Some(self.0.bus.as_ref()?.stats())
    }
}
