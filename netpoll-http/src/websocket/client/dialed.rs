//! The connection of a client: a request, its answer, and then a WebSocket like any other.
//!
//! Invariant: nothing that comes is taken for a frame before the answer was judged, and an answer that is not the one that was asked for opens nothing.

use netpoll_core::{Bytes, Commands, Conn, Flow, Input, Instant, Lost, Protocol};

use super::answer::Answer;
use super::{Client, NotOpened};
use crate::websocket::connection::Connection;
use crate::websocket::{Closed, Handler, masking};
use crate::ws::{Deflate, Key, Role};

/// A connection that was dialed.
pub(super) enum Dialed<H> {
    /// The answer is not there.
    Asking(Box<Question<H>>),
    Open(Connection<H>),
    /// Between the two, in which nothing is called.
    Turning,
}

pub(super) struct Question<H> {
    handler: H,
    key: Key,
    client: Client,
    failure: Option<NotOpened>,
}

impl<H> Question<H> {
    pub(super) fn new(client: Client, handler: H) -> Self {
        Self { handler, key: Key::new(masking::nonce()), client, failure: None }
    }
}

impl<H: Handler> Dialed<H> {
    /// It comes to nothing.
    #[cold]
    fn give_up(&mut self, why: NotOpened) -> Flow {
        if let Self::Asking(question) = self {
            question.failure.get_or_insert(why);
        }
        Flow::Reset
    }

    fn begin(&mut self, protocol: Option<&str>, deflate: Option<Deflate>) {
        if let Self::Asking(question) = self {
            // In its place: if that panics, it still hears that it was not opened.
            question.handler.agreed(protocol);
        }
        let Self::Asking(question) = std::mem::replace(self, Self::Turning) else {
            unreachable!("it was asking")
        };
        let Question { handler, client, .. } = *question;
        *self = Self::Open(Connection::new(Role::Client, handler, &client.settings, deflate));
    }
}

impl<H: Handler> Protocol for Dialed<H> {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        if let Self::Asking(question) = self {
            conn.send(&question.client.request(&question.key));
            conn.set_deadline(question.client.handshake_within);
        }
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        let question = match self {
            Self::Asking(question) => question,
            Self::Open(open) => return open.received(conn, input),
            Self::Turning => return Flow::Reset,
        };
        match question.client.read(question.key, input.bytes()) {
            Answer::Partial => Flow::Continue,
            Answer::Not(why) => self.give_up(why),
            Answer::Open { bytes, protocol, deflate } => {
                input.advance(bytes);
                self.begin(protocol.as_deref(), deflate);
                let Self::Open(open) = self else { unreachable!("it has begun") };
                match open.opened(conn) {
                    // In a callback of its own, as frames are unmasked where they lie.
                    Flow::Continue if !input.is_empty() => Flow::Yield,
                    flow => flow,
                }
            }
        }
    }

    fn eof(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        match self {
            Self::Open(open) => open.eof(conn, input),
            _ => {
                input.advance_all();
                Flow::Close
            }
        }
    }

    fn deadline(&mut self, conn: &mut Conn<'_>) -> Flow {
        match self {
            Self::Open(open) => open.deadline(conn),
            _ => self.give_up(NotOpened::TooLate),
        }
    }

    fn drained(&mut self, conn: &mut Conn<'_>) -> Flow {
        match self {
            Self::Open(open) => open.drained(conn),
            _ => conn.unchanged_flow(),
        }
    }

    fn woken(&mut self, conn: &mut Conn<'_>) -> Flow {
        match self {
            Self::Open(open) => open.woken(conn),
            _ => conn.unchanged_flow(),
        }
    }

    fn told(&mut self, conn: &mut Conn<'_>, message: netpoll_core::Message) -> Flow {
        match self {
            Self::Open(open) => open.told(conn, message),
            _ => conn.unchanged_flow(),
        }
    }

    fn outgoing(&mut self, conn: &mut Conn<'_>, bytes: Bytes) -> Flow {
        match self {
            Self::Open(open) => open.outgoing(conn, bytes),
            _ => conn.unchanged_flow(),
        }
    }

    fn finishing(&mut self, conn: &mut Conn<'_>) -> Flow {
        match self {
            Self::Open(open) => open.finishing(conn),
            _ => Flow::Reset,
        }
    }

    fn stopping(&mut self, conn: &mut Conn<'_>) -> Flow {
        match self {
            Self::Open(open) => open.stopping(conn),
            // Its answer may be on its way, and its deadline is set.
            _ => conn.unchanged_flow(),
        }
    }

    fn closing(&mut self, conn: &mut Conn<'_>) -> Flow {
        match self {
            Self::Open(open) => open.closing(conn),
            _ => Flow::Close,
        }
    }

    fn idle_since(&mut self, conn: &mut Conn<'_>) -> Option<Instant> {
        match self {
            Self::Open(open) => open.idle_since(conn),
            _ => None,
        }
    }

    fn lost(&mut self, reason: Lost, commands: &mut Commands) {
        match self {
            Self::Open(open) => open.lost(reason, commands),
            Self::Asking(question) => {
                let why = question.failure.take().unwrap_or(match reason {
                    Lost::ConnectFailed(error) => NotOpened::Dial(error),
                    lost => NotOpened::Lost(lost),
                });
                question.handler.closed(Closed::NotOpened(why), commands);
            }
            Self::Turning => {}
        }
    }
}
