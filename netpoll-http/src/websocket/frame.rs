//! A message that is made once, and sent to many.

use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::socket::State;
use crate::ws::frame::{self, Kind};
use crate::ws::{Deflater, Event, Inflater, Limits};

/// A message, framed: what leaves is the same memory for everybody. A clone costs a count.
///
/// It goes to other connections, of any worker, by [`Commands::tell`](netpoll_core::Commands::tell) and [`Handle::tell`](netpoll_core::Handle::tell), and leaves
/// there without a callback:
///
/// ```
/// use netpoll_http::websocket::{Frame, Handler, Message, WebSocket};
/// # use netpoll_core::ConnId;
/// struct Member {
///     others: Vec<ConnId>,
/// }
/// impl Handler for Member {
///     fn message(&mut self, socket: &mut WebSocket<'_, '_>, message: Message<'_>) {
///         let Message::Text(text) = message else { return };
///         let frame = Frame::text(text);
///         for other in &self.others {
///             socket.commands().tell(*other, frame.clone());
///         }
///     }
/// }
/// ```
///
/// One that reads too slowly is reset when more is queued for it than
/// [`ConnLimits::output_bytes_max`](netpoll_core::ConnLimits::output_bytes_max). Who is to be spared that, or to get it later, is in a room: [`rooms`](crate::rooms).
#[derive(Clone)]
pub struct Frame(Arc<Framed>);

struct Framed {
    is_text: bool,
    /// With its header.
    plain: Bytes,
    payload_start: usize,
    /// The same compressed, if it becomes shorter; made for the first who may have it so.
    deflated: OnceLock<Option<Bytes>>,
}

impl Frame {
    /// A text message.
    #[must_use]
    pub fn text(text: impl AsRef<str>) -> Self {
        Self::new(true, text.as_ref().as_bytes())
    }

    /// A binary message.
    #[must_use]
    pub fn binary(bytes: impl AsRef<[u8]>) -> Self {
        Self::new(false, bytes.as_ref())
    }

    fn new(is_text: bool, payload: &[u8]) -> Self {
        let plain = frame::shared(kind(is_text), payload);
        let payload_start = plain.len() - payload.len();
        Self(Arc::new(Framed { is_text, plain, payload_start, deflated: OnceLock::new() }))
    }

    /// What is in it.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.0.plain[self.0.payload_start..]
    }

    pub(crate) fn is_text(&self) -> bool {
        self.0.is_text
    }

    /// Bytes on the wire, header included and not compressed.
    pub(crate) fn wire_bytes(&self) -> usize {
        self.0.plain.len()
    }

    /// What goes on the wire of a server, of one that has agreed on compression, or has not.
    pub(super) fn wire(&self, state: &State) -> &Bytes {
        if !state.may_deflate(self.payload().len()) {
            return &self.0.plain;
        }
        let deflated = self.0.deflated.get_or_init(|| {
            with_deflater(|deflater| {
                let payload = deflater.deflate(self.payload())?;
                Some(frame::shared(kind(self.0.is_text).compressed(), payload))
            })
        });
        deflated.as_ref().unwrap_or(&self.0.plain)
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("is_text", &self.0.is_text)
            .field("bytes", &self.payload().len())
            .finish()
    }
}

pub fn kind(is_text: bool) -> Kind {
    if is_text { Kind::TEXT } else { Kind::BINARY }
}

thread_local! {
    // Of all connections of a worker: no message refers to another one.
    static DEFLATER: RefCell<Option<Box<Deflater>>> = const { RefCell::new(None) };
    static INFLATER: RefCell<Option<Box<Inflater>>> = const { RefCell::new(None) };
}

/// With the thread's deflater, which is made at first use.
pub fn with_deflater<R>(run: impl FnOnce(&mut Deflater) -> R) -> R {
    DEFLATER.with_borrow_mut(|deflater| run(deflater.get_or_insert_default()))
}

/// Inflates a message by the thread's inflater, and has a look at it.
pub fn inflated<R>(is_text: bool, payload: &[u8], limits: &Limits, run: impl FnOnce(Event<'_>) -> R) -> R {
    // Out of its place, as `run` is the program's: whatever that inflates has one of its own.
    let mut inflater = INFLATER.take().unwrap_or_default();
    let done = run(inflater.inflate(is_text, payload, limits));
    INFLATER.set(Some(inflater));
    done
}
