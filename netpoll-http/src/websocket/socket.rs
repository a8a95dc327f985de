//! What a handler does with its WebSocket.

use std::any::Any;
use std::fmt;
use std::num::NonZeroU8;
use std::sync::Arc;

use netpoll_core::{Bytes, Commands, Conn, ConnId};

use super::frame::{Frame, kind, with_deflater};
use super::guest::Guest;
use super::settings::Times;
use super::{CloseCode, masking};
use crate::ws::close::ClosePayload;
use crate::ws::frame::{CONTROL_BYTES_MAX, Head, Kind};
use crate::ws::{Deflater, Mask, Role};

/// What [`Conn::send_common`] copies, so that no count is needed.
const COPIED_BYTES_MAX: usize = 4096;

/// How far an end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// Our Close is sent, with this code, and the peer's is waited for.
    Closing(CloseCode),
    /// Nothing is sent or read any more.
    Over,
}

/// What the deadline is for while it is open.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// The peer's next word.
    Word,
    /// Any word of the peer, behind a ping.
    Pong,
    /// The moment in a drain at which this one is told to come back.
    Goodbye,
}

/// What a connection and its handler share.
pub(super) struct State {
    pub times: Arc<Times>,
    pub phase: Phase,
    /// The handler wants no messages now.
    pub is_paused: bool,
    /// Of the window that we may compress with, if that was agreed on.
    pub window_bits: Option<NonZeroU8>,
    pub wait: Wait,
    /// What a floor above keeps with it.
    pub guest: Option<Box<dyn Guest>>,
    /// Which side we are: what a client sends is masked.
    pub role: Role,
}

impl State {
    /// Whether a message of so many bytes may be compressed. No copy reaches further back than its start, so a short one suits any window.
    pub fn may_deflate(&self, bytes: usize) -> bool {
        self.window_bits.is_some_and(|bits| bits.get() >= Deflater::WINDOW_BITS || bytes <= 1 << bits.get())
    }

    /// Sends a Close, if none was, behind which nothing else leaves.
    pub fn close(&mut self, conn: &mut Conn<'_>, code: CloseCode, reason: &str) {
        if self.phase != Phase::Open {
            return;
        }
        self.send(conn, Kind::CLOSE, &ClosePayload::new(code, reason));
        self.phase = Phase::Closing(code);
        // What it has to say in answer is read, whoever has paused.
        self.is_paused = false;
        let within = match conn.is_stopping() {
            true => self.times.close_within().min(conn.drain_grace()),
            false => self.times.close_within(),
        };
        conn.set_deadline(within);
    }

    /// Sends a frame. Header and payload are one piece.
    pub fn send(&self, conn: &mut Conn<'_>, kind: Kind, payload: &[u8]) {
        if self.role == Role::Client {
            return send_masked(conn, kind, payload);
        }
        let head = Head::new(kind, payload.len());
        conn.append(head.len() + payload.len(), |out| {
            out.extend_from_slice(&head);
            out.extend_from_slice(payload);
        });
    }

    /// Sends a message, compressed if that was agreed on and makes it shorter.
    pub fn send_message(&self, conn: &mut Conn<'_>, is_text: bool, payload: &[u8]) {
        let kind = kind(is_text);
        let is_sent = self.may_deflate(payload.len())
            && with_deflater(|deflater| {
                let deflated = deflater.deflate(payload)?;
                self.send(conn, kind.compressed(), deflated);
                Some(())
            })
            .is_some();
        if !is_sent {
            self.send(conn, kind, payload);
        }
    }

    /// Sends a message that is ready; the most that it takes of the queue.
    pub fn send_frame(&self, conn: &mut Conn<'_>, frame: &Frame, send: impl FnOnce(&mut Conn<'_>, &Bytes)) {
        match self.role {
            Role::Server => send(conn, frame.wire(self)),
            Role::Client => self.send_message(conn, frame.is_text(), frame.payload()),
        }
    }
}

/// Sends a client's frame, with a key of its own: nobody else can tell which.
fn send_masked(conn: &mut Conn<'_>, kind: Kind, payload: &[u8]) {
    let key = masking::key();
    let head = Head::masked(kind, payload.len(), key);
    conn.append(head.len() + payload.len(), |out| {
        out.extend_from_slice(&head);
        let start = out.len();
        out.extend_from_slice(payload);
        Mask::new(key).apply(&mut out[start..]);
    });
}

/// A WebSocket, during a callback of its [`Handler`](super::Handler).
///
/// What is sent is queued, and leaves together when the callbacks of its turn have returned. Behind [`close`](Self::close) nothing is queued any more.
pub struct WebSocket<'s, 'c> {
    pub(super) conn: &'s mut Conn<'c>,
    pub(super) state: &'s mut State,
}

impl<'c> WebSocket<'_, 'c> {
    /// Sends a text message. Copies it; what many get is a [`Frame`].
    pub fn text(&mut self, text: &str) {
        self.message(true, text.as_bytes());
    }

    /// Sends a binary message. Copies it.
    pub fn binary(&mut self, bytes: &[u8]) {
        self.message(false, bytes);
    }

    /// Sends a message that is ready, without a copy if it has more than 4 KiB.
    pub fn send(&mut self, frame: &Frame) {
        if self.is_open() {
            self.state.send_frame(self.conn, frame, |conn, wire| conn.send_shared(wire.clone()));
        }
    }

    /// Sends a message that is ready and that somebody else bounds: it is no memory of this connection, but of a client's, which is a copy.
    pub(crate) fn send_common(&mut self, frame: &Frame) {
        if self.is_open() {
            self.state.send_frame(self.conn, frame, |conn, wire| match wire.len() {
                // It would be copied in any case.
                ..=COPIED_BYTES_MAX => conn.send(wire),
                _ => conn.send_common(wire.clone()),
            });
        }
    }

    /// What a floor above keeps with this connection, if it is of this type.
    pub(crate) fn guest<G: Guest>(&mut self) -> Option<&mut G> {
        let guest: &mut dyn Any = self.state.guest.as_deref_mut()?;
        guest.downcast_mut()
    }

    /// Acts on both, if there is one of this type. It is out of its place meanwhile: nobody else finds it.
    pub(crate) fn with_guest<G: Guest, R>(&mut self, act: impl FnOnce(&mut Self, &mut G) -> R) -> Option<R> {
        let mut guest = self.state.guest.take()?;
        let any: &mut dyn Any = &mut *guest;
        let done = any.downcast_mut().map(|guest| act(self, guest));
        self.state.guest = Some(guest);
        done
    }

    /// Puts one there, which hears of the end.
    pub(crate) fn set_guest(&mut self, guest: impl Guest) {
        self.state.guest = Some(Box::new(guest));
    }

    fn message(&mut self, is_text: bool, payload: &[u8]) {
        if self.is_open() {
            self.state.send_message(self.conn, is_text, payload);
        }
    }

    /// Asks the peer whether it is there, with a payload that comes back in [`Handler::pong`](super::Handler::pong). The heartbeat of the
    /// [settings](super::Settings::ping_after) does so by itself, with none.
    ///
    /// # Panics
    /// If the payload is longer than 125 bytes.
    pub fn ping(&mut self, payload: &[u8]) {
        assert!(
            payload.len() <= CONTROL_BYTES_MAX,
            "a ping of {} bytes, which has 125 at most",
            payload.len()
        );
        if self.is_open() {
            self.state.send(self.conn, Kind::PING, payload);
        }
    }

    /// Says goodbye, behind all that was sent. The peer answers, and then the connection is closed; no message comes any more. Of the reason 123 bytes are sent, and
    /// whole characters.
    pub fn close(&mut self, code: CloseCode, reason: &str) {
        self.state.close(self.conn, code, reason);
    }

    /// Neither side has said goodbye.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state.phase == Phase::Open
    }

    /// Takes no more messages until [`resume`](Self::resume), in any callback: what the peer sends waits in the kernel, and the peer feels it. Its pings and its Close wait as
    /// well, so the heartbeat does.
    pub fn pause(&mut self) {
        self.state.is_paused = self.is_open();
    }

    /// Takes messages again.
    pub fn resume(&mut self) {
        self.state.is_paused = false;
    }

    /// Bytes that wait to be sent, see [`Conn::queued_bytes`].
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.conn.queued_bytes()
    }

    /// The connection, by which others send to it.
    #[must_use]
    pub fn id(&self) -> ConnId {
        self.conn.id()
    }

    /// Agreed on compression.
    #[must_use]
    pub fn is_compressed(&self) -> bool {
        self.state.window_bits.is_some()
    }

    /// Orders for other connections, carried out when the callback has returned.
    pub fn commands(&mut self) -> &mut Commands {
        self.conn.commands()
    }

    /// The connection itself: its peer, its waker, the state of its worker. What is sent by it is no message, and its deadline is the heartbeat's.
    pub fn conn(&mut self) -> &mut Conn<'c> {
        self.conn
    }
}

impl fmt::Debug for WebSocket<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket")
            .field("id", &self.id())
            .field("phase", &self.state.phase)
            .field("is_paused", &self.state.is_paused)
            .finish_non_exhaustive()
    }
}
