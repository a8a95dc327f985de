//! The end of our direction alone: FIN behind what is queued, while input goes on being received.
//!
//! Invariants: once it was asked for, nothing more is queued; `Io::finish` is called once, when the queue is empty and
//! nothing is in flight. A connection whose peer has ended as well is over as soon as its input is no longer held: until then
//! its protocol, or the machinery, still has some of it.

use super::stream::{BACKED_UP, ENDED, FORWARDS, HELD, Phase, Stream};
use crate::driver::Io;
use crate::mem::Key;
use crate::reactor::Agenda;

impl Stream {
    /// Ends our direction behind what is queued.
    pub fn finish_output(&mut self, agenda: &mut Agenda, io: &mut dyn Io, key: Key) {
        match self.phase {
            Phase::Connecting => self.phase = Phase::ConnectingToFinish,
            Phase::Open => {
                self.phase = Phase::HalfClosing;
                // Input was held back because it would have brought more output. It brings none any more.
                self.mark(BACKED_UP, false);
                self.rein(agenda, io, key);
                self.push_dirty(agenda, key);
            }
            _ => {}
        }
    }

    /// What is sent is dropped, until the phase is set again: a protocol above a layer is called that has finished its direction.
    pub fn drop_output(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::HalfClosing;
        }
    }

    /// Nothing waits to leave a connection whose output ends. True if it is over: closing it ends our direction too.
    pub(super) fn end_output(&mut self, io: &mut dyn Io, key: Key) -> bool {
        if self.ends_with_input() {
            return true;
        }
        if self.phase == Phase::HalfClosing {
            self.phase = Phase::HalfClosed;
            io.finish(key);
        }
        false
    }

    /// Its output ends, its peer has ended, and its protocol has been offered all that there is, or another connection has
    /// been given it, with its end.
    pub(super) fn ends_with_input(&self) -> bool {
        self.phase.is_half_closed() && self.bits & (ENDED | HELD | FORWARDS) == ENDED
    }
}
