//! What a task's handle and its connection share.
//!
//! The connection's callbacks put messages in, and carry out what the task has asked for when its waker calls them. Neither waits for the other.
//!
//! Invariant: nothing in here is borrowed while a program's code runs. What waits for the task is bounded: behind the bounds the connection is not read. What
//! waits for the connection is empty again before anything else happens to it, because its waker is behind every entry.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Poll, Waker};

use netpoll_core::sync::{Notified, Notify};
use netpoll_core::{Commands, Held};

use super::super::{CloseCode, Closed, Frame, Handler, Message, NotOpened, WebSocket};
use super::OwnedMessage;

/// Messages that may wait for a task, and their bytes; one that is larger waits alone.
const UNREAD_MESSAGES_MAX: usize = 16;
const UNREAD_BYTES_MAX: usize = 64 * 1024;

/// What may be asked for before the connection has seen to it, in bytes; one that is larger is asked for alone.
const UNSENT_BYTES_MAX: usize = 64 * 1024;

/// What a task asks of its connection.
pub enum Order {
    Text(String),
    Binary(netpoll_core::Bytes),
    Frame(Frame),
    Ping(Vec<u8>),
}

impl Order {
    fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
            Self::Frame(frame) => frame.payload().len(),
            Self::Ping(payload) => payload.len(),
        }
    }
}

#[derive(Default)]
pub struct Shared {
    /// With what each takes of the worker's memory.
    unread: RefCell<VecDeque<(OwnedMessage, Held)>>,
    unread_bytes: Cell<usize>,
    unsent: RefCell<VecDeque<Order>>,
    unsent_bytes: Cell<usize>,
    /// More is queued in the connection than its high water.
    is_backed_up: Cell<bool>,
    /// Messages are held back.
    is_paused: Cell<bool>,
    is_open: Cell<bool>,
    has_opened: Cell<bool>,
    /// The goodbye that was asked for; it comes behind what is unsent.
    goodbye: RefCell<Option<(CloseCode, String)>>,
    /// No handle is left: what comes is for nobody.
    is_alone: Cell<bool>,
    /// And nobody had said goodbye.
    has_left_open: Cell<bool>,
    closed: RefCell<Option<Rc<Closed>>>,
    protocol: RefCell<Option<String>>,
    connection: RefCell<Option<Waker>>,
    receiver: Cell<Option<Waker>>,
    /// Rings when there is room to send, for one that waits for it, who tells the next. There once somebody has waited.
    room: OnceCell<Notify>,
}

impl Shared {
    /// The next message; `None` behind the last one.
    pub fn poll_recv(&self, waker: &Waker) -> Poll<Option<OwnedMessage>> {
        let message = self.unread.borrow_mut().pop_front();
        if let Some((message, _held)) = message {
            self.unread_bytes.set(self.unread_bytes.get() - message.bytes().len());
            if self.is_paused.get() && self.has_room() {
                self.wake_connection();
            }
            return Poll::Ready(Some(message));
        }
        if self.closed.borrow().is_some() {
            return Poll::Ready(None);
        }
        self.receiver.set(Some(waker.clone()));
        Poll::Pending
    }

    /// Below half of the bounds, so that a connection is not stopped and started for each message.
    fn has_room(&self) -> bool {
        self.unread.borrow().len() <= UNREAD_MESSAGES_MAX / 2
            && self.unread_bytes.get() <= UNREAD_BYTES_MAX / 2
    }

    fn is_full(&self) -> bool {
        self.unread.borrow().len() >= UNREAD_MESSAGES_MAX || self.unread_bytes.get() >= UNREAD_BYTES_MAX
    }

    /// Whether there is room for one more to be sent.
    pub fn has_room_to_send(&self) -> bool {
        !self.is_backed_up.get() && self.unsent_bytes.get() < UNSENT_BYTES_MAX
    }

    /// Waits for it, in line, or for the end of all sending.
    pub fn room(&self) -> Notified {
        self.room.get_or_init(Notify::new).notified()
    }

    /// Whether what is asked for is going to be sent.
    pub fn may_send(&self) -> bool {
        self.is_open.get() && self.goodbye.borrow().is_none()
    }

    pub fn give(&self, order: Order) {
        self.unsent_bytes.set(self.unsent_bytes.get() + order.bytes());
        self.unsent.borrow_mut().push_back(order);
        self.wake_connection();
        if self.has_room_to_send() {
            self.wake_sender();
        }
    }

    /// Says goodbye behind what was sent, unless that was done.
    pub fn close(&self, code: CloseCode, reason: &str) {
        if self.may_send() {
            self.goodbye.replace(Some((code, reason.to_owned())));
            self.wake_connection();
            self.wake_senders();
        }
    }

    /// The handle is gone without a goodbye because of a failure: that is what is said.
    pub fn left_by_failure(&self) {
        if self.has_left_open.get() {
            self.goodbye.replace(Some((CloseCode::INTERNAL, String::new())));
        }
    }

    /// The handle is gone.
    pub fn leave(&self) {
        self.is_alone.set(true);
        self.has_left_open.set(self.may_send());
        self.close(CloseCode::NORMAL, "");
        let unread = self.unread.take();
        self.unread_bytes.set(0);
        drop(unread);
        self.wake_connection();
    }

    pub fn closed(&self) -> Option<Rc<Closed>> {
        self.closed.borrow().clone()
    }

    /// It has been open.
    pub fn has_opened(&self) -> bool {
        self.has_opened.get()
    }

    /// Why it was not opened, if it was not.
    pub fn take_failure(&self) -> Option<NotOpened> {
        let mut closed = self.closed.borrow_mut();
        match closed.take().map(Rc::try_unwrap) {
            Some(Ok(Closed::NotOpened(why))) => Some(why),
            Some(Ok(closed_else)) => {
                *closed = Some(Rc::new(closed_else));
                None
            }
            Some(Err(shared)) => {
                *closed = Some(shared);
                None
            }
            None => None,
        }
    }

    pub fn protocol(&self) -> Option<String> {
        self.protocol.borrow().clone()
    }

    /// Who waits for the end, or for messages.
    pub fn await_end(&self, waker: &Waker) {
        self.receiver.set(Some(waker.clone()));
    }

    fn wake_connection(&self) {
        if let Some(waker) = &*self.connection.borrow() {
            waker.wake_by_ref();
        }
    }

    fn wake_receiver(&self) {
        if let Some(waker) = self.receiver.take() {
            waker.wake();
        }
    }

    fn wake_sender(&self) {
        if let Some(room) = self.room.get() {
            room.notify_one();
        }
    }

    fn wake_senders(&self) {
        if let Some(room) = self.room.get() {
            room.notify_all();
        }
    }

    /// Carries out what the task has asked for.
    fn see_to(&self, socket: &mut WebSocket<'_, '_>) {
        loop {
            let order = self.unsent.borrow_mut().pop_front();
            match order {
                Some(Order::Text(text)) => socket.text(&text),
                Some(Order::Binary(bytes)) => socket.binary(&bytes),
                Some(Order::Frame(frame)) => socket.send(&frame),
                Some(Order::Ping(payload)) => socket.ping(&payload),
                None => break,
            }
        }
        self.unsent_bytes.set(0);
        let goodbye = self.goodbye.borrow().clone();
        if let Some((code, reason)) = goodbye {
            socket.close(code, &reason);
        }
        if self.is_paused.get() && self.has_room() {
            self.is_paused.set(false);
            socket.resume();
        }
        self.is_backed_up.set(socket.conn().is_backed_up());
        if !self.is_backed_up.get() {
            self.wake_sender();
        }
    }
}

/// The connection's side.
pub struct Attached(pub Rc<Shared>);

impl Handler for Attached {
    fn agreed(&mut self, protocol: Option<&str>) {
        self.0.protocol.replace(protocol.map(str::to_owned));
    }

    fn opened(&mut self, socket: &mut WebSocket<'_, '_>) {
        let shared = &self.0;
        shared.connection.replace(Some(socket.conn().waker()));
        shared.is_open.set(true);
        shared.has_opened.set(true);
        if shared.is_alone.get() {
            // Whoever has dialed has given up meanwhile.
            shared.close(CloseCode::GOING_AWAY, "");
        }
        shared.wake_receiver();
    }

    fn message(&mut self, socket: &mut WebSocket<'_, '_>, message: Message<'_>) {
        let shared = &self.0;
        if shared.is_alone.get() {
            return;
        }
        let bytes = message.bytes().len();
        let mut held = socket.conn().hold_memory();
        held.grow(bytes);
        if socket.conn().is_short_of_memory() {
            socket.conn().count_memory_overflow();
            socket.close(CloseCode::TRY_AGAIN, "no memory is left");
            return self.goodbye();
        }
        shared.unread_bytes.set(shared.unread_bytes.get() + bytes);
        shared.unread.borrow_mut().push_back((message.into(), held));
        if shared.is_full() {
            shared.is_paused.set(true);
            socket.pause();
        }
        shared.wake_receiver();
    }

    fn woken(&mut self, socket: &mut WebSocket<'_, '_>) {
        self.0.see_to(socket);
    }

    fn drained(&mut self, socket: &mut WebSocket<'_, '_>) {
        self.0.see_to(socket);
    }

    fn goodbye(&mut self) {
        let shared = &self.0;
        shared.is_open.set(false);
        let unsent = shared.unsent.take();
        drop(unsent);
        shared.wake_senders();
    }

    fn closed(&mut self, how: Closed, _commands: &mut Commands) {
        self.goodbye();
        let shared = &self.0;
        shared.closed.replace(Some(Rc::new(how)));
        shared.connection.replace(None);
        shared.wake_receiver();
    }
}
