//! Where in the messages of a room somebody is, and what that means when it comes back.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A place in the messages of a room: behind the message with this number.
///
/// A room counts its messages from one. When it goes away and is made again, by another process for one, it counts anew, and its epoch is another one: so a number alone
/// does not say which message it is. As text it is `EPOCH.SEQUENCE`, the epoch in sixteen hexadecimal digits; that is what a client keeps, and says when it comes back
/// ([`Rooms::resume`](super::Rooms::resume)).
///
/// ```
/// use netpoll_http::rooms::Position;
///
/// let at: Position = "00c0ffee00c0ffee.42".parse().unwrap();
/// assert_eq!(at.sequence, 42);
/// assert_eq!(at.to_string(), "00c0ffee00c0ffee.42");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// Which life of the room.
    pub epoch: u64,
    /// Its last message up to here; zero in front of the first.
    pub sequence: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The epoch has always as many digits: what is sent has a length that a simulation repeats.
        write!(f, "{:016x}.{}", self.epoch, self.sequence)
    }
}

/// Text that is no [`Position`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParsePositionError;

impl fmt::Display for ParsePositionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a position is sixteen hexadecimal digits, a dot and a number")
    }
}

impl std::error::Error for ParsePositionError {}

impl FromStr for Position {
    type Err = ParsePositionError;

    fn from_str(text: &str) -> Result<Self, ParsePositionError> {
        let (epoch, sequence) = text.split_once('.').ok_or(ParsePositionError)?;
        let is_plain = epoch.len() == 16
            && epoch.bytes().all(|digit| digit.is_ascii_hexdigit())
            && sequence.bytes().all(|digit| digit.is_ascii_digit());
        if !is_plain {
            return Err(ParsePositionError);
        }
        let epoch = u64::from_str_radix(epoch, 16).map_err(|_| ParsePositionError)?;
        Ok(Self { epoch, sequence: sequence.parse().map_err(|_| ParsePositionError)? })
    }
}

/// Messages that a member does not get: it was behind, and they have left the room's history, or newer ones of the same key have come
/// ([`Behind::Newest`](super::Behind::Newest)).
///
/// The handler hears of it in [`Handler::told`](crate::websocket::Handler::told), behind the last message that was sent before it and in front of the
/// next: what it sends there stands in the place of what is missing.
///
/// ```
/// use netpoll_core::Message as Told;
/// use netpoll_http::rooms::Gap;
/// use netpoll_http::websocket::{Handler, Message, WebSocket};
///
/// struct Member;
/// impl Handler for Member {
///     fn message(&mut self, _socket: &mut WebSocket<'_, '_>, _message: Message<'_>) {}
///
///     fn told(&mut self, socket: &mut WebSocket<'_, '_>, value: Told) {
///         if let Ok(gap) = value.downcast::<Gap>() {
///             socket.text(&format!("{} messages of {} are missing here", gap.messages(), gap.room));
///         }
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The name of the room.
    pub room: Arc<str>,
    /// What the member has had.
    pub after: Position,
    /// The last one that is missing.
    pub until: Position,
}

impl Gap {
    /// How many are missing.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.until.sequence - self.after.sequence
    }
}

/// What came of coming back to a room ([`Rooms::resume`](super::Rooms::resume)). It is a member in any case.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resumed {
    /// Nothing was missed for good: so many messages are on their way, in order and in front of new ones. What was queued for it
    /// before its socket broke may come twice, if it does not say where it is.
    All {
        /// Messages that follow.
        messages: u64,
    },
    /// The room does not remember all of it. What it has follows, behind this.
    Gap(Gap),
    /// The room is not the one that it was, so nothing is known of what was missed: whatever the client has of it is to be
    /// fetched anew. Messages follow from here on.
    Anew(Position),
}
