//! One client of a world: what it asks, how it behaves, and whether it got what it had to get.

use std::fmt;
use std::hash::Hasher;
use std::time::Duration;

use http::StatusCode;

use super::super::{TestClient, TestConnection, TestResponse};
use super::dice::Dice;
use super::question::Question;

/// How a client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manners {
    /// Sends all its requests in pieces, reads all answers, then leaves.
    Polite,
    /// The same, in pieces of a few bytes.
    Trickles,
    /// The same, and stops reading now and then.
    ReadsSlowly,
    /// Sends the next request when the last one is answered.
    TakesTurns,
    /// Ends its direction behind its requests.
    HalfCloses,
    /// Closes somewhere.
    Leaves,
    /// Resets somewhere.
    Resets,
    /// Says nothing more from somewhere on.
    FallsSilent,
    /// The same, and reads nothing more.
    Freezes,
}

impl Manners {
    const ALL: [Self; 9] = [
        Self::Polite,
        Self::Trickles,
        Self::ReadsSlowly,
        Self::TakesTurns,
        Self::HalfCloses,
        Self::Leaves,
        Self::Resets,
        Self::FallsSilent,
        Self::Freezes,
    ];

    pub fn of(dice: &mut Dice) -> Self {
        // Half of them are polite in one way or another.
        if dice.once_in(4) { Self::Polite } else { *dice.pick(&Self::ALL) }
    }

    /// It keeps every rule, so it is owed all its answers.
    fn is_polite(self) -> bool {
        matches!(self, Self::Polite | Self::Trickles | Self::ReadsSlowly | Self::TakesTurns)
    }
}

impl fmt::Display for Manners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Polite => "polite",
            Self::Trickles => "sends bit by bit",
            Self::ReadsSlowly => "reads slowly",
            Self::TakesTurns => "waits for each answer",
            Self::HalfCloses => "ends its direction early",
            Self::Leaves => "leaves early",
            Self::Resets => "resets",
            Self::FallsSilent => "falls silent",
            Self::Freezes => "falls silent and reads nothing more",
        })
    }
}

/// What has gone on in its world that excuses an answer that does not come.
#[derive(Clone, Copy, Debug)]
pub struct Excuses {
    /// The server has been told to end.
    pub drained: bool,
    /// Connections are lost, or are closed to make room, or the process has stood still for longer than clients are waited for.
    pub lossy: bool,
}

/// An answer that is longer has no end, as far as a test can wait.
const ANSWER_BYTES_MAX: usize = 64 << 20;

pub struct Peer {
    manners: Manners,
    connection: TestConnection,
    questions: Vec<Question>,
    /// Requests that are not sent as a whole yet, in order, as bytes; and where each ends among all bytes.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    sent: usize,
    /// Where one that does not send all stops.
    stops_at: usize,
    received: Vec<u8>,
    answered: usize,
    /// Of these the request could not be read, or so it may be.
    refused: usize,
    /// An answer has said that it is the last one.
    is_last: bool,
    is_reading: bool,
    is_done: bool,
    /// In its world any deadline may pass while the process stands still: that of a handler as well.
    jumps: bool,
}

impl Peer {
    pub fn new(client: &TestClient, dice: &mut Dice, questions: Vec<Question>, jumps: bool) -> Self {
        let manners = Manners::of(dice);
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for question in &questions {
            bytes.extend(question.bytes());
            ends.push(bytes.len());
        }
        let stops_at = match manners {
            Manners::Leaves | Manners::Resets | Manners::FallsSilent | Manners::Freezes => {
                dice.below(bytes.len() + 1)
            }
            _ => bytes.len(),
        };
        Self {
            manners,
            connection: client.connect(),
            questions,
            bytes,
            ends,
            sent: 0,
            stops_at,
            received: Vec::new(),
            answered: 0,
            refused: 0,
            is_last: false,
            is_reading: true,
            is_done: false,
            jumps,
        }
    }

    pub fn manners(&self) -> Manners {
        self.manners
    }

    /// It is there no more.
    pub fn has_gone(&self) -> bool {
        matches!(self.manners, Manners::Leaves | Manners::Resets)
    }

    /// It is there and says nothing more.
    pub fn is_silent(&self) -> bool {
        matches!(self.manners, Manners::FallsSilent | Manners::Freezes)
    }

    /// Requests that were sent as a whole.
    pub fn asked(&self) -> usize {
        self.ends.iter().filter(|end| **end <= self.sent).count()
    }

    pub fn answered(&self) -> usize {
        self.answered
    }

    /// Those that the server counts as answers to requests: what cannot be read is none to it.
    pub fn served(&self) -> usize {
        self.answered - self.refused
    }

    /// It has nothing more to do but to wait.
    pub fn is_done(&self) -> bool {
        self.is_done
    }

    /// It has something to say, but waits for an answer first, or it is done.
    pub fn is_waiting(&self) -> bool {
        let takes_turns = self.manners == Manners::TakesTurns;
        self.is_done || takes_turns && self.ends.get(self.answered).is_none_or(|end| self.sent >= *end)
    }

    /// Does one thing.
    pub fn act(&mut self, client: &TestClient, dice: &mut Dice) -> Result<(), String> {
        self.take_in()?;
        if self.manners == Manners::ReadsSlowly {
            if self.is_reading && dice.once_in(2) {
                self.connection.stop_reading();
                self.is_reading = false;
            } else if !self.is_reading {
                self.connection.start_reading();
                self.is_reading = true;
            }
        }
        if self.connection.is_closed() {
            self.is_done = true;
            return Ok(());
        }
        let piece = match self.manners {
            Manners::Trickles => 1 + dice.below(100),
            _ => 1 + dice.below(5000),
        };
        let mut end = self.stops_at.min(self.sent + piece);
        if self.manners == Manners::TakesTurns {
            // As far as its next request goes; it has asked one more than was answered.
            end = end.min(self.ends.get(self.answered).copied().unwrap_or(end)).max(self.sent);
        }
        let part = &self.bytes[self.sent..end];
        if !part.is_empty() {
            // As one segment that is there before anything else happens, or with everything that follows from it.
            if dice.once_in(3) {
                self.connection.send(part)
            } else {
                self.connection.put(part)
            }
            self.sent = end;
        } else if self.manners == Manners::TakesTurns && self.answered < self.questions.len() {
            client.run();
        }
        if self.sent == self.stops_at && (self.manners != Manners::TakesTurns || self.is_answered()) {
            match self.manners {
                Manners::HalfCloses => self.connection.finish(),
                Manners::Leaves => self.connection.close(),
                Manners::Resets => self.connection.reset(),
                Manners::Freezes => self.connection.stop_reading(),
                Manners::ReadsSlowly => self.connection.start_reading(),
                Manners::Polite | Manners::Trickles | Manners::TakesTurns | Manners::FallsSilent => {}
            }
            self.is_done = true;
        }
        Ok(())
    }

    fn is_answered(&self) -> bool {
        self.answered == self.questions.len()
    }

    /// Whether nothing more is to come that it is owed.
    pub fn has_all(&mut self) -> Result<bool, String> {
        self.take_in()?;
        Ok(!self.manners.is_polite() || self.is_answered() || self.connection.is_closed())
    }

    /// A polite one that has all its answers leaves.
    pub fn leave(&mut self) {
        if self.manners.is_polite() && !self.connection.is_closed() {
            self.connection.close();
        }
    }

    /// Reads answers, each of which has to be the right one.
    fn take_in(&mut self) -> Result<(), String> {
        self.connection.drain_received(&mut self.received);
        let mut begin = 0;
        loop {
            let bytes = &self.received[begin..];
            let question = self.questions.get(self.answered);
            let to_head = question.is_some_and(Question::is_head);
            let parsed = TestResponse::parse(bytes, to_head, self.connection.is_closed());
            let Some((response, length)) = parsed.map_err(|why| self.tell(&why))? else { break };
            begin += length;
            self.look_at(&response)?;
        }
        self.received.drain(..begin);
        match self.received.len() {
            0..ANSWER_BYTES_MAX => Ok(()),
            _ => Err(self.tell(&format!("an answer of more than {ANSWER_BYTES_MAX} bytes"))),
        }
    }

    fn look_at(&mut self, response: &TestResponse) -> Result<(), String> {
        let says_close =
            response.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if self.is_last {
            return Err(self.tell(&format!("{} behind an answer that was to be the last", response.status)));
        }
        self.is_last = says_close;
        let end = self.ends.get(self.answered).copied();
        let is_in_the_middle = self.jumps || end.is_none_or(|end| end > self.sent);
        if is_in_the_middle && says_close && response.status == StatusCode::REQUEST_TIMEOUT {
            // It stopped in the middle of a request, or the process did, and was told so.
            return Ok(());
        }
        let Some(question) = self.questions.get(self.answered) else {
            return Err(self.tell(&format!("{} and nothing was asked", response.status)));
        };
        if !(self.jumps && response.status == StatusCode::SERVICE_UNAVAILABLE) {
            question.check(response).map_err(|why| self.tell(&why))?;
        }
        self.answered += 1;
        let is_refusal = response.status.is_client_error() || response.status.is_server_error();
        self.refused += usize::from(says_close && is_refusal);
        Ok(())
    }

    /// Whether it got what it was owed, now that nothing more comes.
    pub fn judge(&mut self, excuses: Excuses) -> Result<(), String> {
        self.take_in()?;
        let is_excused = excuses.lossy || !self.manners.is_polite();
        let may_be_fewer = is_excused || self.is_last || excuses.drained;
        if !self.is_answered() {
            if !may_be_fewer {
                return Err(self.tell("no answer"));
            }
            if self.manners != Manners::Freezes && !self.has_gone() && !self.connection.is_closed() {
                return Err(self.tell("no answer, and the connection has not ended"));
            }
        }
        if !is_excused && !self.received.is_empty() {
            let left = String::from_utf8_lossy(&self.received[..self.received.len().min(200)]);
            return Err(self.tell(&format!("a part of an answer: {left:?}")));
        }
        if !is_excused && !excuses.drained && self.connection.is_reset() {
            return Err(self.tell("the connection was reset"));
        }
        Ok(())
    }

    /// Adds what came to a digest.
    pub fn digest(&self, into: &mut impl Hasher) {
        into.write_usize(self.answered);
        into.write_u8(u8::from(self.connection.is_closed()) + 2 * u8::from(self.connection.is_reset()));
    }

    /// With the request that it is about.
    pub fn tell(&self, what: &str) -> String {
        let nth = self.answered + 1;
        let of = self.questions.len();
        match self.questions.get(self.answered) {
            Some(question) => format!("request {nth} of {of}, {}: {what}", question.name()),
            None => format!("behind all {of} requests: {what}"),
        }
    }
}

/// How long clients let pass between two things that they do.
pub const PAUSE_MAX: Duration = Duration::from_millis(50);
