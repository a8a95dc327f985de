//! WebSocket on the connections of this server, and to others: callbacks for each message, or a task for each connection.
//!
//! A handler of HTTP judges the [`Opening`] and accepts it; from then on the connection is a [`Handler`]'s, or a task's that has a [`Socket`]. A [`Client`] opens one elsewhere, for
//! either. What is on the wire is checked by a machine without
//! I/O (`ws/`): a peer that breaks a rule of RFC 6455 gets a Close that names it, and nothing that it sends behind that is looked at.
//!
//! Invariant: between two messages a connection owns no buffer, however large the last one was. Behind a Close of ours no other frame leaves.

mod client;
mod connection;
mod frame;
mod guest;
mod masking;
mod opening;
mod settings;
mod socket;
mod task;

pub use crate::ws::{CloseCode, Violation};
pub use client::{Client, Connecting, NotOpened};
pub use frame::Frame;
pub(crate) use guest::{Guest, Visit, Visitor};
pub use opening::Opening;
pub use settings::Settings;
pub use socket::WebSocket;
pub use task::{Outgoing, OwnedMessage, Sender, Socket};

use netpoll_core::{Commands, Lost};

/// A message of the peer, whole and checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'m> {
    /// A text.
    Text(&'m str),
    /// Bytes.
    Binary(&'m [u8]),
}

impl<'m> Message<'m> {
    /// The bytes of either.
    #[must_use]
    pub fn bytes(self) -> &'m [u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }
}

/// Why a WebSocket has ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum Closed {
    /// The peer has said goodbye first. A browser's page that is left says 1001.
    ByPeer {
        /// Its code, if it has said one.
        code: Option<CloseCode>,
        /// Its reason, often empty.
        reason: String,
    },
    /// We have: the program ([`WebSocket::close`]), a drain, or the server for want of room.
    ByUs {
        /// The code that we have said.
        code: CloseCode,
        /// The peer has answered, so that it has had all that was sent before.
        is_answered: bool,
    },
    /// The peer has broken a rule, and was told so.
    Failed(Violation),
    /// The peer has said nothing for too long, see [`Settings::ping_after`] and [`Settings::pong_within`].
    Silent,
    /// The connection has ended without a Close: the peer has left, or was cut. What a browser calls 1006.
    Lost(Lost),
    /// Of a [`Client`]: there was none, and `opened` was not called.
    NotOpened(NotOpened),
}

/// Callbacks of one WebSocket, on the worker that its connection is on.
///
/// None may block, and a panic costs its connection and no other, as with [`Protocol`](netpoll_core::Protocol). Pings are answered, and the peer's Close as
/// well, without a callback.
///
/// ```
/// use netpoll_http::websocket::{Handler, Message, WebSocket};
/// use netpoll_http::{App, Router};
///
/// struct Echo;
/// impl Handler for Echo {
///     fn message(&mut self, socket: &mut WebSocket<'_, '_>, message: Message<'_>) {
///         match message {
///             Message::Text(text) => socket.text(text),
///             Message::Binary(bytes) => socket.binary(bytes),
///         }
///     }
/// }
///
/// let app = App::new(|_worker| Router::new().websocket("/echo", |_req| Echo));
///
/// let mut connection = app.test().connect();
/// connection.send(
///     b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
///       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
/// );
/// let answer = connection.response().expect("a 101");
/// assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
/// connection.send(b"\x81\x82\0\0\0\0hi"); // a text, masked with zeros
/// assert_eq!(connection.received(), b"\x81\x02hi");
/// ```
pub trait Handler: 'static {
    /// Of a [`Client`]: the subprotocol that the server has chosen of those that were named, if it has. Called once, in front of [`opened`](Self::opened). The default
    /// does nothing.
    fn agreed(&mut self, protocol: Option<&str>) {
        let _ = protocol;
    }

    /// The handshake is done. Called once, first. The default does nothing.
    fn opened(&mut self, socket: &mut WebSocket<'_, '_>) {
        let _ = socket;
    }

    /// A message has come. It lies where it was received, and is gone when this returns. None comes behind [`WebSocket::close`].
    fn message(&mut self, socket: &mut WebSocket<'_, '_>, message: Message<'_>);

    /// The peer has answered a ping, of [ours](WebSocket::ping) or of the [heartbeat](Settings::ping_after), or says that it is there. The default does nothing.
    fn pong(&mut self, socket: &mut WebSocket<'_, '_>, payload: &[u8]) {
        let _ = (socket, payload);
    }

    /// Another connection, a timer or a thread has sent it a value ([`Commands::tell`], [`Handle::tell`](netpoll_core::Handle::tell)), and it is no
    /// [`Frame`]: those are sent to the peer without a callback. A member of a [room](crate::rooms) is told of each [`Gap`](crate::rooms::Gap) so. The default
    /// drops it.
    fn told(&mut self, socket: &mut WebSocket<'_, '_>, value: netpoll_core::Message) {
        let _ = socket;
        drop(value);
    }

    /// A waker of the connection was woken ([`Conn::waker`](netpoll_core::Conn::waker)). The default does nothing.
    fn woken(&mut self, socket: &mut WebSocket<'_, '_>) {
        let _ = socket;
    }

    /// More was queued than high water ([`ConnLimits::write_high_bytes`](netpoll_core::ConnLimits::write_high_bytes)), and there is room again. The default does
    /// nothing.
    fn drained(&mut self, socket: &mut WebSocket<'_, '_>) {
        let _ = socket;
    }

    /// Either side has said goodbye, and not by [`WebSocket::close`]: what is sent from here on goes nowhere. It may come twice.
    #[doc(hidden)]
    fn goodbye(&mut self) {}

    /// The last call: it is over. `commands` are carried out when this has returned. The default does nothing.
    fn closed(&mut self, how: Closed, commands: &mut Commands) {
        let _ = (how, commands);
    }
}
