//! What an engine has to do for the rooms of a process: channels to subscribe to, and messages that are to leave.
//!
//! Whoever publishes puts a message here under the lock of its room, so that numbers leave in order, and never waits: what is too much is dropped, the oldest
//! first, and the others miss its number. Rooms that come and go are said so under the lock of their part of the registry, so in order too. The lock of this is
//! the innermost; the engine is woken when none is held.
//!
//! Invariant: a room stands in `changes` once at most, and stays in `rooms` until the engine has been told that it is gone. Without a connection there is nobody to be
//! told: then `rooms` are those that are there, and `changes` is empty.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use netpoll_core::Instant;

use super::super::room::lock;
use super::Settings;
use crate::websocket::Frame;

/// What a message counts beside the bytes of its frame and of its key, about.
const ITEM_BYTES: usize = 200;

pub struct Message {
    pub room: Arc<str>,
    pub life: u64,
    pub number: u64,
    /// When the first message of that life was published.
    pub first_at: Instant,
    pub key: Option<Arc<str>>,
    pub frame: Frame,
    pub published_at: Instant,
}

impl Message {
    fn bytes(&self) -> usize {
        self.frame.wire_bytes() + self.key.as_ref().map_or(0, |key| key.len()) + ITEM_BYTES
    }
}

pub enum Item {
    Message(Message),
    /// It is whole already.
    Digest(Vec<u8>),
}

/// What is next.
pub enum Next {
    /// The channel of all rooms.
    SubscribeCommon,
    Subscribe(Arc<str>),
    Unsubscribe(Arc<str>),
    /// The others are to say where they are.
    Ask,
    Item(Item),
}

#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    pub dropped: AtomicU64,
}

#[derive(Default)]
struct State {
    is_connected: bool,
    /// What is to be said behind a connect, in front of the rest.
    has_common: bool,
    has_asked: bool,
    rooms: BTreeMap<Arc<str>, Channel>,
    changes: VecDeque<Arc<str>>,
    items: VecDeque<Item>,
    /// How many of them are messages, and their bytes.
    messages: usize,
    bytes: usize,
    digests: usize,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Default)]
struct Channel {
    is_wanted: bool,
    is_told: bool,
    is_in_line: bool,
}

/// Figures of it.
pub struct Figures {
    pub is_connected: bool,
    pub channels: usize,
    pub messages: usize,
    pub bytes: usize,
}

impl State {
    fn change(&mut self, room: &Arc<str>, is_wanted: bool) {
        if !self.is_connected {
            match is_wanted {
                true => self.rooms.insert(Arc::clone(room), Channel { is_wanted, ..Channel::default() }),
                false => self.rooms.remove(room),
            };
            return;
        }
        let channel = self.rooms.entry(Arc::clone(room)).or_default();
        channel.is_wanted = is_wanted;
        if !mem::replace(&mut channel.is_in_line, true) {
            self.changes.push_back(Arc::clone(room));
        }
    }

    fn may_have_orders(&self) -> bool {
        let has_begun = self.has_common && self.has_asked;
        self.is_connected && !(has_begun && self.changes.is_empty() && self.items.is_empty())
    }

    fn next_change(&mut self) -> Option<Next> {
        while let Some(room) = self.changes.pop_front() {
            let Some(channel) = self.rooms.get_mut(&room) else { continue };
            channel.is_in_line = false;
            let was_told = mem::replace(&mut channel.is_told, channel.is_wanted);
            let is_wanted = channel.is_wanted;
            if !is_wanted {
                self.rooms.remove(&room);
            }
            match (was_told, is_wanted) {
                (false, true) => return Some(Next::Subscribe(room)),
                (true, false) => return Some(Next::Unsubscribe(room)),
                _ => {}
            }
        }
        if self.changes.capacity() > 64 {
            self.changes = VecDeque::new();
        }
        None
    }

    fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        match &item {
            Item::Message(message) => self.forget(message),
            Item::Digest(_) => self.digests -= 1,
        }
        if self.items.capacity() > 64.max(4 * self.items.len()) {
            self.items.shrink_to(2 * self.items.len());
        }
        Some(item)
    }

    fn forget(&mut self, message: &Message) {
        self.messages -= 1;
        self.bytes -= message.bytes();
    }

    /// The oldest message goes; digests, which tell the others of it, stay. False if there is none.
    fn drop_oldest(&mut self) -> bool {
        let oldest = self.items.iter().position(|item| matches!(item, Item::Message(_)));
        let Some(Item::Message(message)) = oldest.and_then(|index| self.items.remove(index)) else {
            return false;
        };
        self.forget(&message);
        true
    }

    fn next(&mut self, dropped: &AtomicU64, settings: &Settings, now: Instant) -> Option<Next> {
        if !self.is_connected {
            return None;
        }
        if !mem::replace(&mut self.has_common, true) {
            return Some(Next::SubscribeCommon);
        }
        if let Some(change) = self.next_change() {
            return Some(change);
        }
        if !mem::replace(&mut self.has_asked, true) {
            return Some(Next::Ask);
        }
        while let Some(item) = self.pop() {
            let Item::Message(message) = &item else { return Some(Next::Item(item)) };
            if message.published_at.saturating_add(settings.queue_time) > now {
                return Some(Next::Item(item));
            }
            dropped.fetch_add(1, Ordering::Relaxed);
        }
        None
    }
}

impl Queue {
    pub fn room_is_there(&self, room: &Arc<str>) {
        lock(&self.state).change(room, true);
    }

    pub fn room_is_gone(&self, room: &Arc<str>) {
        lock(&self.state).change(room, false);
    }

    /// A message is to leave, and with it whatever there is no place for is dropped.
    pub fn push(&self, message: Message, settings: &Settings) {
        let (state, bytes) = (&mut *lock(&self.state), message.bytes());
        let is_over = |state: &State| {
            state.messages >= settings.queue_messages || state.bytes + bytes > settings.queue_bytes
        };
        if bytes > settings.queue_bytes {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        while is_over(state) {
            let has_dropped = state.drop_oldest();
            self.dropped.fetch_add(1, Ordering::Relaxed);
            if !has_dropped {
                return;
            }
        }
        state.messages += 1;
        state.bytes += bytes;
        state.items.push_back(Item::Message(message));
    }

    /// Behind all messages that there are. None is to be made as long as there [is one](Self::has_digest), so there are few.
    pub fn push_digest(&self, digest: Vec<u8>) {
        let mut state = lock(&self.state);
        state.digests += 1;
        state.items.push_back(Item::Digest(digest));
    }

    pub fn has_digest(&self) -> bool {
        lock(&self.state).digests > 0
    }

    /// The engine has a connection that knows nothing yet.
    pub fn connected(&self) {
        let state = &mut *lock(&self.state);
        (state.is_connected, state.has_common, state.has_asked) = (true, false, false);
        // All is said again.
        state.items.retain(|item| matches!(item, Item::Message(_)));
        state.digests = 0;
        state.changes.clear();
        state.rooms.retain(|_, channel| channel.is_wanted);
        for (room, channel) in &mut state.rooms {
            *channel = Channel { is_wanted: true, is_told: false, is_in_line: true };
            state.changes.push_back(Arc::clone(room));
        }
    }

    pub fn disconnected(&self) {
        let state = &mut *lock(&self.state);
        state.is_connected = false;
        state.changes = VecDeque::new();
        state.rooms.retain(|_, channel| channel.is_wanted);
    }

    pub fn is_connected(&self) -> bool {
        lock(&self.state).is_connected
    }

    pub fn try_next(&self, settings: &Settings, now: Instant) -> Option<Next> {
        lock(&self.state).next(&self.dropped, settings, now)
    }

    pub fn poll_next(&self, waker: &Waker, settings: &Settings, now: Instant) -> Poll<Next> {
        let waker = waker.clone();
        let mut state = lock(&self.state);
        let next = state.next(&self.dropped, settings, now);
        let old = match &next {
            Some(_) => None,
            None => state.waker.replace(waker),
        };
        drop(state);
        drop(old);
        next.map_or(Poll::Pending, Poll::Ready)
    }

    /// Whoever waits for orders looks whether there are some. No lock is held.
    pub fn wake(&self) {
        let mut state = lock(&self.state);
        let waker = if state.may_have_orders() { state.waker.take() } else { None };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The same at their end.
    pub fn end(&self) {
        let waker = lock(&self.state).waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub fn figures(&self) -> Figures {
        let state = lock(&self.state);
        Figures {
            is_connected: state.is_connected,
            channels: state.rooms.len(),
            messages: state.messages,
            bytes: state.bytes,
        }
    }
}
