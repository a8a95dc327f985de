//! How much rooms keep, how much of a turn they take, and what becomes of who is behind.

use std::time::Duration;

/// Limits and times of [`Rooms`](super::Rooms).
///
/// ```
/// use netpoll_http::rooms::{Behind, Settings};
///
/// let ticker = Settings { behind: Behind::Newest, history_messages: 64, ..Settings::default() };
/// assert_eq!(ticker.members_per_turn, 256);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What becomes of a member that is behind by more than a room keeps. Default [`Behind::DropOldest`].
    pub behind: Behind,
    /// Bytes that may wait in a socket before it gets no more messages of rooms; it goes on from the room's history when it has taken some. Default
    /// 64 KiB, a quarter of what holds its input back: what a slow reader costs. One message to an empty queue always fits, and what the program itself
    /// sends to a socket is not held back.
    pub queued_bytes_max: usize,
    /// Members that a worker brings messages to in one turn, all rooms together; the others follow in the next turns. Default 256: a
    /// message of a room takes 2 to 7 µs for each, nearly all of it the kernel's, so everybody else waits for two milliseconds at most.
    pub members_per_turn: usize,
    /// Messages that a room keeps, for members that are behind and for those who come back. Default 256. Zero keeps none.
    pub history_messages: usize,
    /// The same in bytes, with 200 for each message, and its key if that means something. Default 1 MiB.
    pub history_bytes: usize,
    /// How long a message is kept, and how long a room is that nobody is in, behind its last message. Default 5 minutes: who is away for longer asks
    /// for all anew.
    pub history_time: Duration,
    /// Bytes that a room keeps beyond its history as long as members that are not behind have not had them: a burst of many messages, or
    /// one that comes while a large room is being served. Default 4 MiB. Beyond it the oldest are gone for those as well.
    pub burst_bytes_max: usize,
    /// Bytes that all rooms together keep. Default 256 MiB. Beyond it a room that is published to keeps its last message alone, so the rooms that
    /// say most give way first.
    pub bytes_max: usize,
    /// Keys of a room whose newest message is kept beside its history, for [`Behind::Newest`]. Default 1024. Beyond it the oldest goes.
    pub keys_max: usize,
    /// Rooms, those that nobody is in any more included. Default 100 000: a room takes some 500 bytes beside its history. Beyond it those go first that nobody is in and that
    /// have never had a message; if there are none of these, no room is made, and whoever wants to join is [refused](super::Refused).
    pub rooms_max: usize,
    /// Rooms that one socket may be in. Default 64. A peer asks for them, and each costs 100 bytes.
    pub rooms_per_socket_max: usize,
    /// Bytes in the name of a room, of a key, of a person and of a device, 65 534 at most. Default 256: peers choose most of them.
    pub name_bytes_max: usize,
    /// How long a [session](super::Rooms::session) outlives its socket. Default 60 seconds: a page that is loaded again, a change of the network, a mini-program that was in
    /// the background for a moment. Zero ends it with its socket.
    pub linger: Duration,
    /// Sessions that have no socket. Default 100 000, of some 200 bytes each. Beyond it the one that has waited longest ends.
    pub lingering_max: usize,
}

impl Settings {
    /// What [`name_bytes_max`](Self::name_bytes_max) is at most: between processes a name says its length in two bytes, of which one value stands for none.
    pub(super) const NAME_BYTES_LIMIT: usize = u16::MAX as usize - 1;
}

/// What becomes of a member that is behind: more waits in its socket than [`queued_bytes_max`](Settings::queued_bytes_max), and what it has missed is
/// no longer in the history of the room. Whatever it is, the member hears of it, and it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Behind {
    /// It goes on with the oldest message that there is, behind a [`Gap`](super::Gap).
    DropOldest,
    /// It gets of each key the newest message alone ([`Rooms::publish_keyed`](super::Rooms::publish_keyed)), as soon as it is behind at all and whenever it catches
    /// up; messages without a key as with `DropOldest`. Each jump is a [`Gap`](super::Gap).
    Newest,
    /// It is told to come back (1013), and resumes elsewhere: messages that may not be missed.
    Disconnect,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            behind: Behind::DropOldest,
            queued_bytes_max: 64 * 1024,
            members_per_turn: 256,
            history_messages: 256,
            history_bytes: 1024 * 1024,
            history_time: Duration::from_secs(300),
            burst_bytes_max: 4 * 1024 * 1024,
            bytes_max: 256 * 1024 * 1024,
            keys_max: 1024,
            rooms_max: 100_000,
            rooms_per_socket_max: 64,
            name_bytes_max: 256,
            linger: Duration::from_secs(60),
            lingering_max: 100_000,
        }
    }
}
