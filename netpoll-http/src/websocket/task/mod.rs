//! A WebSocket as a task sees it.
//!
//! The connection is that of callbacks; its handler shares a cell with the handle that the task has.
//!
//! Invariant: every future here may be dropped at any time. A message was taken or it waits, and one was sent or it was not.

mod serving;
mod shared;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::Poll;

use netpoll_core::Bytes;

use self::shared::Order;
pub(super) use self::shared::{Attached, Shared};
use super::{CloseCode, Closed, Frame, Message};
use crate::ws::frame::CONTROL_BYTES_MAX;

/// A message of the peer, kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnedMessage {
    /// A text.
    Text(String),
    /// Bytes.
    Binary(Vec<u8>),
}

impl OwnedMessage {
    /// The bytes of either.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// The text, if it is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Binary(_) => None,
        }
    }
}

impl From<Message<'_>> for OwnedMessage {
    fn from(message: Message<'_>) -> Self {
        match message {
            Message::Text(text) => Self::Text(text.to_owned()),
            Message::Binary(bytes) => Self::Binary(bytes.to_vec()),
        }
    }
}

/// What may be sent by a [`Socket`]: text, bytes, a message that has come, or a [`Frame`] that many get.
pub struct Outgoing(Order);

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outgoing")
    }
}

impl From<OwnedMessage> for Outgoing {
    fn from(message: OwnedMessage) -> Self {
        match message {
            OwnedMessage::Text(text) => text.into(),
            OwnedMessage::Binary(bytes) => bytes.into(),
        }
    }
}

impl From<String> for Outgoing {
    fn from(text: String) -> Self {
        Self(Order::Text(text))
    }
}

impl From<&str> for Outgoing {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<Vec<u8>> for Outgoing {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<&[u8]> for Outgoing {
    fn from(bytes: &[u8]) -> Self {
        bytes.to_vec().into()
    }
}

impl From<Bytes> for Outgoing {
    fn from(bytes: Bytes) -> Self {
        Self(Order::Binary(bytes))
    }
}

impl From<&Frame> for Outgoing {
    fn from(frame: &Frame) -> Self {
        Self(Order::Frame(frame.clone()))
    }
}

/// A WebSocket in a task of its worker, of a server ([`Router::websocket_task`](crate::Router::websocket_task)) or of a client ([`Client::connect`](super::Client::connect)).
///
/// Every future of it may be dropped at any time, by a [`timeout`](netpoll_core::time::timeout) or a `select!`, and nothing is lost: a
/// [`recv`](Self::recv) that was given up has taken no message, and a [`send`](Self::send) that was given up has sent none.
///
/// # Back-pressure
///
/// The connection is read while fewer than 16 messages, or 64 KiB of them, wait for the task; behind that the peer waits, and the heartbeat as well. They count in the memory of
/// the worker ([`ConnLimits::memory_bytes_max`](netpoll_core::ConnLimits::memory_bytes_max)); where none is left, the peer is told so (1013). `send` waits while more is
/// queued for the peer than [`ConnLimits::write_high_bytes`](netpoll_core::ConnLimits::write_high_bytes).
///
/// # Its end
///
/// Pings are answered, the heartbeat goes on and the peer's Close is answered whatever the task does. In a drain the peer is told to come back, as with callbacks, and
/// `recv` returns `None` then; [`task::stopping`](netpoll_core::task::stopping) tells earlier. The end is when the connection is over: when the peer has closed it too, two seconds behind both goodbyes at most. Dropping it says goodbye (1000), behind what was sent, and does not wait for the answer.
pub struct Socket {
    shared: Rc<Shared>,
}

impl Socket {
    pub(super) fn of(shared: Rc<Shared>) -> Self {
        Self { shared }
    }

    /// The next message. `None` when the WebSocket is over, in whatever way was meant: the peer has said goodbye, or we have. Messages that had come before are
    /// returned first. See [`closed`](Self::closed).
    ///
    /// # Errors
    /// It has ended in another way: `UnexpectedEof` if the peer has left without a goodbye, `InvalidData` if it has broken a rule, `TimedOut` if it was silent for too long, that
    /// of the connection otherwise.
    pub async fn recv(&mut self) -> io::Result<Option<OwnedMessage>> {
        let shared = &self.shared;
        match poll_fn(|cx| shared.poll_recv(cx.waker())).await {
            Some(message) => Ok(Some(message)),
            None => self.end().map(|()| None),
        }
    }

    /// Sends a message, when there is room for it: what is queued for the peer is below high water. It leaves when the task waits next.
    ///
    /// # Errors
    /// `BrokenPipe` if the WebSocket is over, or either side has said goodbye: the message is not sent.
    pub async fn send(&mut self, message: impl Into<Outgoing>) -> io::Result<()> {
        send(&self.shared, message.into()).await
    }

    /// Asks the peer whether it is there. The heartbeat does so by itself; this is for what keeps count of something in between. Its answer is not told of.
    ///
    /// # Panics
    /// If the payload is longer than 125 bytes.
    pub fn ping(&mut self, payload: &[u8]) {
        assert!(
            payload.len() <= CONTROL_BYTES_MAX,
            "a ping of {} bytes, which has 125 at most",
            payload.len()
        );
        if self.shared.may_send() {
            self.shared.give(Order::Ping(payload.to_vec()));
        }
    }

    /// Says goodbye, behind all that was sent. No message comes any more but those that wait; [`recv`](Self::recv) returns `None` when the peer has answered, or has
    /// not in time. Of the reason 123 bytes are sent, and whole characters.
    pub fn close(&mut self, code: CloseCode, reason: &str) {
        self.shared.close(code, reason);
    }

    /// Waits for the end, and says how it came. Messages that wait are left to [`recv`](Self::recv), and hold up the end if they are many.
    pub async fn ended(&mut self) -> Rc<Closed> {
        let shared = &self.shared;
        poll_fn(|cx| match shared.closed() {
            Some(closed) => Poll::Ready(closed),
            None => {
                shared.await_end(cx.waker());
                Poll::Pending
            }
        })
        .await
    }

    /// How it has ended, if it has.
    #[must_use]
    pub fn closed(&self) -> Option<Rc<Closed>> {
        self.shared.closed()
    }

    /// Nobody has said goodbye yet, as far as is known.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.shared.may_send()
    }

    /// The subprotocol that the server has agreed to, of a client; of a server it is what its [`Opening`](super::Opening) has chosen.
    #[must_use]
    pub fn protocol(&self) -> Option<String> {
        self.shared.protocol()
    }

    /// A handle that sends, for other tasks of this worker.
    #[must_use]
    pub fn sender(&self) -> Sender {
        Sender { shared: Rc::clone(&self.shared) }
    }

    fn end(&self) -> io::Result<()> {
        let Some(closed) = self.closed() else { return Ok(()) };
        let error = |kind, why: &dyn fmt::Display| Err(io::Error::new(kind, why.to_string()));
        match &*closed {
            Closed::ByPeer { .. } | Closed::ByUs { .. } => Ok(()),
            Closed::Failed(violation) => error(io::ErrorKind::InvalidData, violation),
            Closed::Silent => error(io::ErrorKind::TimedOut, &"the peer has said nothing for too long"),
            Closed::NotOpened(why) => error(io::ErrorKind::NotConnected, why),
            Closed::Lost(netpoll_core::Lost::Closed) => {
                error(io::ErrorKind::UnexpectedEof, &"the peer has left without a goodbye")
            }
            Closed::Lost(netpoll_core::Lost::Failed(why)) => error(why.kind(), why),
            Closed::Lost(lost) => error(io::ErrorKind::ConnectionAborted, lost),
        }
    }
}

async fn send(shared: &Shared, message: Outgoing) -> io::Result<()> {
    let Outgoing(order) = message;
    while shared.may_send() {
        if shared.has_room_to_send() {
            shared.give(order);
            return Ok(());
        }
        shared.room().await;
    }
    Err(io::ErrorKind::BrokenPipe.into())
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.shared.leave();
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("is_open", &self.is_open()).finish_non_exhaustive()
    }
}

/// Sends by the [`Socket`] that it is of; made by [`Socket::sender`]. It does not keep it open.
#[derive(Clone)]
pub struct Sender {
    shared: Rc<Shared>,
}

impl Sender {
    /// As [`Socket::send`].
    ///
    /// # Errors
    /// The same.
    pub async fn send(&self, message: impl Into<Outgoing>) -> io::Result<()> {
        send(&self.shared, message.into()).await
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}
