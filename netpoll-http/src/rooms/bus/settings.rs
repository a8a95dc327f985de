//! How much a bus holds back, and how soon a loss is noticed.

use std::time::Duration;

/// Limits and times of a [`Bus`](super::Bus).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Messages that wait to leave, because there is no connection or it is slow. Default 4096. Beyond it the oldest is dropped, and missed by the others.
    pub queue_messages: usize,
    /// The same in bytes, with 200 for each message, and its key. Default 16 MiB. They share the memory of the frames that members get.
    pub queue_bytes: usize,
    /// How long a message may wait. Default 30 seconds: what is older was too late, and is dropped.
    pub queue_time: Duration,
    /// Bytes in the payload of a message that leaves. Default 1 000 000: with its envelope it is below what NATS takes as it comes, 1 MiB. A larger one stays here, and is missed by the others. To be the
    /// same in all processes: a connection that brings a larger one is given up.
    pub message_bytes_max: usize,
    /// How long behind a message a process says where it is in that room, and behind a question where it is in all rooms. Default 2 seconds. So long it may take until a loss is noticed when
    /// nothing follows. It costs each process some 50 bytes for each room that was published to in that time.
    pub digest_after: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            queue_messages: 4096,
            queue_bytes: 16 * 1024 * 1024,
            queue_time: Duration::from_secs(30),
            message_bytes_max: 1_000_000,
            digest_after: Duration::from_secs(2),
        }
    }
}
