//! What became of each request and each connection of a crowd, in numbers that add up.
//!
//! Invariant: every request that was sent, and every one that was to be and could not be, is in exactly one of the fields between
//! `answered` and `timeouts`; what happens between requests is in the others.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::time::Duration;

/// A connection that took longer than this had its SYN sent again, which the kernel does after a second.
pub const SLOW_CONNECT: Duration = Duration::from_millis(500);

/// Of one crowd, or of several added up.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Answered with 200 and the right body.
    pub answered: u64,
    /// Answered with another status.
    pub statuses: BTreeMap<u16, u64>,
    /// Answered with 200 and another body, or with what is no HTTP.
    pub wrong: u64,
    /// Nobody listened.
    pub refused: u64,
    /// The first request of a connection, sent or still to be sent: EOF and no byte of an answer.
    pub lost: u64,
    /// The same: RST and no byte of an answer.
    pub reset: u64,
    /// A later request: EOF, which had crossed it or not. A client may send such a request again.
    pub crossed_eof: u64,
    /// A later request: RST.
    pub crossed_reset: u64,
    /// The connection ended within an answer.
    pub cut: u64,
    /// Nothing for ten seconds.
    pub timeouts: u64,

    /// RST behind a whole answer that was the last one.
    pub reset_behind: u64,
    /// RST while nothing was asked.
    pub reset_between: u64,
    /// EOF while nothing was asked, as the protocol allows.
    pub closed_between: u64,
    /// Told `Connection: close` by an answer, though it had not been asked for.
    pub told_to_close: u64,
    /// Left open for five seconds behind the last answer.
    pub left_open: u64,
    /// The kernel has said that we are connected.
    pub established: u64,
    /// Connected after more than half a second.
    pub slow_connects: u64,
}

impl Counts {
    /// Requests that were answered with another status than 200.
    pub fn refusals(&self) -> u64 {
        self.statuses.values().sum()
    }

    /// Everything that is not an answer with 200, refused connections included.
    pub fn not_answered(&self) -> u64 {
        self.refusals()
            + self.wrong
            + self.refused
            + self.lost
            + self.reset
            + self.crossed()
            + self.cut
            + self.timeouts
    }

    /// Later requests on a connection without an answer.
    pub fn crossed(&self) -> u64 {
        self.crossed_eof + self.crossed_reset
    }

    /// What is not zero, for people.
    pub fn in_words(&self) -> String {
        let fields = [
            ("answered", self.answered),
            ("wrong", self.wrong),
            ("refused", self.refused),
            ("EOF", self.lost),
            ("RST", self.reset),
            ("EOF on a later request", self.crossed_eof),
            ("RST on a later request", self.crossed_reset),
            ("cut", self.cut),
            ("no answer in 10 s", self.timeouts),
            ("RST behind the answer", self.reset_behind),
            ("RST between requests", self.reset_between),
        ];
        let statuses = self.statuses.iter().map(|(status, count)| format!("{count} x {status}"));
        let named =
            fields.iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{count} {name}"));
        named.chain(statuses).collect::<Vec<_>>().join(", ")
    }
}

impl AddAssign<&Counts> for Counts {
    fn add_assign(&mut self, other: &Counts) {
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        self.answered += other.answered;
        self.wrong += other.wrong;
        self.refused += other.refused;
        self.lost += other.lost;
        self.reset += other.reset;
        self.crossed_eof += other.crossed_eof;
        self.crossed_reset += other.crossed_reset;
        self.cut += other.cut;
        self.timeouts += other.timeouts;
        self.reset_behind += other.reset_behind;
        self.reset_between += other.reset_between;
        self.closed_between += other.closed_between;
        self.told_to_close += other.told_to_close;
        self.left_open += other.left_open;
        self.established += other.established;
        self.slow_connects += other.slow_connects;
    }
}
