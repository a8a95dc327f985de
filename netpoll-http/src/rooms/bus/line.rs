//! The line between rooms and their engine: orders one way, what came the other way.

use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use super::super::room::lock;
use super::super::{Rooms, Shared};
use super::envelope::{self, Place};
use super::ours::{Ours, count};
use super::queue::{Item, Next};

/// What an [`Engine`](super::Engine) is given: orders come out of it, and what other processes say goes in. A clone is the same line; any thread may have it.
///
/// It does not keep the rooms: when they are gone, it has nothing more to say.
#[derive(Clone)]
pub struct Line(Weak<Shared>);

/// Where something is published, and who subscribes to it. As text it is `PREFIX:room:NAME`, and `PREFIX:all` is what all processes subscribe to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Channel {
    /// The same for all channels of a [`Bus`](super::Bus).
    pub prefix: Arc<str>,
    /// The name of the room, which may have any characters; `None` for the one of all processes.
    pub room: Option<Arc<str>>,
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.room {
            Some(room) => write!(f, "{}:room:{room}", self.prefix),
            None => write!(f, "{}:all", self.prefix),
        }
    }
}

/// What an engine is to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// What is published there is to be [received](Line::received) from now on.
    Subscribe(Channel),
    /// It is not any more.
    Unsubscribe(Channel),
    /// Everybody who subscribes gets this; whether this process gets it as well is the same.
    Publish {
        /// Where.
        to: Channel,
        /// Bytes that only rooms understand.
        payload: Vec<u8>,
    },
}

impl Line {
    pub(super) fn new(rooms: &Rooms) -> Self {
        Self(Arc::downgrade(&rooms.0))
    }

    pub(super) fn shared(&self) -> Option<Arc<Shared>> {
        self.0.upgrade()
    }

    /// There is a connection that has no subscription yet. What is to be subscribed to is ordered now, and the others are asked what was missed.
    pub fn connected(&self) {
        if let Some(shared) = self.shared() {
            Rooms(shared).bus_connected();
        }
    }

    /// There is none any more, or it could not be made. There are no orders until there is one; what is published waits.
    pub fn disconnected(&self, why: &str) {
        let Some(shared) = self.shared() else { return };
        let Some(bus) = shared.ours() else { return };
        bus.queue.disconnected();
        *lock(&bus.last_failure) = Some(Arc::from(why));
    }

    /// Something is not as it should be, but there is a connection.
    #[cfg(any(feature = "rooms-nats", feature = "rooms-redis"))]
    pub(super) fn failed(&self, why: &str) {
        if let Some(bus) = self.shared().as_ref().and_then(|shared| shared.ours()) {
            *lock(&bus.last_failure) = Some(Arc::from(why));
        }
    }

    /// Something that was published on a channel that is subscribed to has come.
    pub fn received(&self, payload: &[u8]) {
        if let Some(shared) = self.shared() {
            Rooms(shared).hear_from_bus(payload);
        }
    }

    /// What is to be done, when there is something. `None` when the rooms are gone.
    pub async fn next(&self) -> Option<Order> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The same, polled.
    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Order>> {
        let Some(shared) = self.shared() else { return Poll::Ready(None) };
        let (Some(bus), Some(runtime)) = (shared.ours(), shared.runtime.get()) else {
            return Poll::Ready(None);
        };
        let now = runtime.handle.now();
        let next = bus.queue.poll_next(cx.waker(), &bus.settings, now);
        next.map(|next| Some(bus.order(next, now)))
    }

    /// The same, if there is something.
    #[must_use]
    pub fn try_next(&self) -> Option<Order> {
        let shared = self.shared()?;
        let (bus, now) = (shared.ours()?, shared.runtime.get()?.handle.now());
        Some(bus.order(bus.queue.try_next(&bus.settings, now)?, now))
    }

    /// The rooms are gone.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.strong_count() == 0
    }

    /// What a message may have, around its payload included.
    #[cfg(any(feature = "rooms-nats", feature = "rooms-redis"))]
    pub(super) fn message_bytes_max(&self) -> usize {
        self.shared().and_then(|shared| Some(shared.ours()?.settings.message_bytes_max)).unwrap_or(0)
            + envelope::AROUND_BYTES
            + 2 * usize::from(u16::MAX)
    }

    /// A message that was ordered has not left.
    #[cfg(any(feature = "rooms-nats", feature = "rooms-redis"))]
    pub(super) fn dropped(&self) {
        if let Some(bus) = self.shared().as_ref().and_then(|shared| shared.ours()) {
            count(&bus.queue.dropped, 1);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Whoever waits for orders hears that there are none any more.
        if let Some(bus) = self.ours() {
            bus.queue.end();
        }
    }
}

impl Ours {
    fn channel(&self, room: Option<Arc<str>>) -> Channel {
        Channel { prefix: Arc::clone(&self.prefix), room }
    }

    fn order(&self, next: Next, now: netpoll_core::Instant) -> Order {
        match next {
            Next::SubscribeCommon => Order::Subscribe(self.channel(None)),
            Next::Subscribe(room) => Order::Subscribe(self.channel(Some(room))),
            Next::Unsubscribe(room) => Order::Unsubscribe(self.channel(Some(room))),
            Next::Ask => Order::Publish { to: self.channel(None), payload: envelope::question(self.process) },
            Next::Item(Item::Digest(payload)) => Order::Publish { to: self.channel(None), payload },
            Next::Item(Item::Message(message)) => {
                count(&self.totals.sent, 1);
                let age = now.duration_since(message.first_at);
                let at = Place { room: &message.room, life: message.life, number: message.number, age };
                let payload = envelope::message(self.process, &at, message.key.as_deref(), &message.frame);
                Order::Publish { to: self.channel(Some(message.room)), payload }
            }
        }
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("is_over", &self.is_over()).finish_non_exhaustive()
    }
}
