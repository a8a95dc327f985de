//! What a connection has queued, on its way out: how far a flush went, and what follows from it.

use super::ConnLimits;
use super::Lost;
use super::stream::{BACKED_UP, ENDED, End, FED, OUTPUT_LEFT, PAUSED, Phase, Stream};
use crate::driver::{Flushed, Io};
use crate::mem::Key;
use crate::reactor::Agenda;

/// Output up to this size leaves together with that of other connections. More is sent at once: it may not
/// fit into the socket, and then its connection has to be held before it brings more.
const FLUSH_LATER_BYTES_MAX: usize = 16 * 1024;

impl Stream {
    /// Bytes that wait to leave.
    pub fn waiting_bytes(&self) -> usize {
        self.out.queued_bytes() + self.in_flight
    }

    /// Output is queued, and so little that nobody minds when it leaves a moment later.
    #[inline]
    pub fn may_flush_later(&self) -> bool {
        (1..=FLUSH_LATER_BYTES_MAX).contains(&self.out.queued_bytes())
    }

    /// All output has left that had to wait for the peer.
    pub fn output_left(&mut self, agenda: &mut Agenda, key: Key) {
        self.mark(OUTPUT_LEFT, true);
        self.push_ready(agenda, key);
    }

    /// True once when the protocol is to be told of that.
    pub fn take_output_left(&mut self) -> bool {
        let tell = self.has(OUTPUT_LEFT);
        self.mark(OUTPUT_LEFT, false);
        tell && self.phase.is_open() && self.waiting_bytes() == 0
    }

    /// Output that had to wait has left the queue, and has not arrived yet: a reset would destroy it.
    pub(super) fn is_under_way(&self, io: &mut dyn Io, key: Key) -> bool {
        self.guard.is_some() && (self.in_flight > 0 || io.unacknowledged(key).is_some_and(|bytes| bytes > 0))
    }

    /// After a callback that took everything and said no more than `Flow::Continue`: true if nothing has to
    /// be done about it but to send the little that it has queued.
    #[inline(always)]
    pub fn goes_on(&mut self, agenda: &mut Agenda, key: Key) -> bool {
        let queued = self.out.queued_bytes();
        if self.has(PAUSED) || queued > FLUSH_LATER_BYTES_MAX || self.guard.is_some() {
            return false;
        }
        if queued > 0 {
            self.push_dirty(agenda, key);
        }
        true
    }

    /// What is queued leaves with the output of others; nothing happens if a flush would find nothing to do.
    #[inline]
    pub fn flush_soon(&mut self, agenda: &mut Agenda, key: Key) {
        if !self.out.is_empty() || self.phase != Phase::Open || self.guard.is_some() {
            self.push_dirty(agenda, key);
        }
    }

    /// Sends what is queued and draws the consequences of how far it went.
    #[inline(always)]
    pub fn flush(
        &mut self,
        agenda: &mut Agenda,
        limits: &ConnLimits,
        io: &mut dyn Io,
        key: Key,
    ) -> Option<End> {
        if !self.out.is_empty() {
            let queued = self.out.queued_bytes();
            // Looked at before the flush: a protocol that saw `is_backed_up` and stopped waits for `drained`. What others
            // forward holds their input back; that of this connection is held by what it goes to, if it is forwarded as well.
            let backs_up = queued + self.in_flight > limits.write_high_bytes
                && self.phase == Phase::Open
                && !self.has(BACKED_UP)
                && !(self.has(FED) && self.forwards());
            match io.flush(key, &mut self.out, &mut agenda.pool) {
                Flushed::Done => {
                    self.progressed(queued);
                    if backs_up {
                        // All of it left at once; `drained` comes when others have had their turn.
                        self.back_up(agenda, io, key);
                        self.push_ready(agenda, key);
                    }
                }
                Flushed::Blocked { in_flight } => {
                    self.in_flight += in_flight;
                    if in_flight == 0 {
                        self.did_not_leave_whole(agenda, io, key);
                    }
                    let left = queued - self.out.queued_bytes() - in_flight;
                    // A file takes no memory, however slowly it is read.
                    if in_flight > 0 || !self.owes_file() {
                        let end = self.is_too_much(agenda);
                        if end.is_some() {
                            return end;
                        }
                    }
                    self.stalled(agenda, limits, io, key, left);
                    if backs_up {
                        agenda.stats.backed_up += 1;
                        self.back_up(agenda, io, key);
                    }
                }
                Flushed::ShareSpent => {
                    let left = queued - self.out.queued_bytes();
                    self.goes_on_later(agenda, io, key, left, backs_up);
                }
                Flushed::Failed(error) => return Some(End::failed(error)),
                Flushed::Broken(error) => return Some(End::reset(Lost::FileFailed(error))),
            }
        }
        if self.phase == Phase::Open && self.guard.is_none() {
            return None;
        }
        self.flushed(agenda, limits, io, key)
    }

    /// The rest of a file leaves when others have had their turn.
    #[cold]
    fn goes_on_later(
        &mut self,
        agenda: &mut Agenda,
        io: &mut dyn Io,
        key: Key,
        sent_bytes: usize,
        backs_up: bool,
    ) {
        self.progressed(sent_bytes);
        self.did_not_leave_whole(agenda, io, key);
        if backs_up {
            agenda.stats.backed_up += 1;
            self.back_up(agenda, io, key);
        }
        self.push_ready(agenda, key);
    }

    /// To be flushed when it leaves the ready list: a file comes next, whose share of an earlier turn may have been used
    /// up; or others have sent more since all of it left and before it has heard of room, which only the ready list or
    /// a send that was cut short brings.
    pub fn owes_flush(&self) -> bool {
        self.has(BACKED_UP) || self.owes_file()
    }

    fn owes_file(&self) -> bool {
        self.out.front_file().is_some()
    }

    /// Bytes of an earlier flush left. True when the protocol is to be told that there is room again.
    pub fn sent(
        &mut self,
        agenda: &mut Agenda,
        limits: &ConnLimits,
        io: &mut dyn Io,
        key: Key,
        bytes: usize,
    ) -> Result<bool, End> {
        self.in_flight -= bytes;
        self.progressed(bytes);
        if self.waiting_bytes() > 0 {
            self.did_not_leave_whole(agenda, io, key);
        }
        if let Some(end) = self.flush(agenda, limits, io, key) {
            return Err(end);
        }
        Ok(self.take_room(limits))
    }

    /// True once when the queue has come down to low water: the protocol is to be told.
    pub fn take_room(&mut self, limits: &ConnLimits) -> bool {
        let room = self.has(BACKED_UP) && self.waiting_bytes() <= limits.write_low_bytes;
        if room {
            self.mark(BACKED_UP, false);
        }
        room && self.phase == Phase::Open
    }

    /// Output waits where a flush does not see it: holds the input back until what it does see has come down to low water, and
    /// tells the protocol then, in a later turn.
    pub fn hold_for_room(&mut self, agenda: &mut Agenda, io: &mut dyn Io, key: Key) {
        self.back_up(agenda, io, key);
        self.push_ready(agenda, key);
    }

    /// Who gives way because it is backed up waits for room also if its queue passed high water as an end of a forward, which
    /// holds no input back, and all of it is in flight, where no flush looks.
    pub fn wait_if_backed_up(&mut self, agenda: &mut Agenda, limits: &ConnLimits, io: &mut dyn Io, key: Key) {
        if self.in_flight > limits.write_high_bytes && self.phase == Phase::Open && !self.has(BACKED_UP) {
            self.back_up(agenda, io, key);
        }
    }

    /// Holds the input back until `drained`.
    fn back_up(&mut self, agenda: &mut Agenda, io: &mut dyn Io, key: Key) {
        self.mark(BACKED_UP, true);
        self.rein(agenda, io, key);
    }

    fn flushed(
        &mut self,
        agenda: &mut Agenda,
        limits: &ConnLimits,
        io: &mut dyn Io,
        key: Key,
    ) -> Option<End> {
        if self.waiting_bytes() > 0 {
            return None;
        }
        if self.phase == Phase::Lingering {
            return None;
        }
        if self.phase.is_half_closed() && self.end_output(io, key) {
            return Some(End::closed());
        }
        if self.phase.is_open() && self.watches_on(io, key) {
            return None;
        }
        if self.phase == Phase::Cutting {
            return self.cut_when_taken(agenda, io, key);
        }
        if self.guard.take().is_some() && self.phase.is_open() {
            self.output_left(agenda, key);
        }
        match self.phase {
            Phase::Closing => Some(End::closed()),
            Phase::Finishing if self.has(ENDED) => Some(End::closed()),
            Phase::Finishing => {
                io.finish(key);
                self.phase = Phase::Lingering;
                self.linger(agenda, limits, key);
                None
            }
            _ => None,
        }
    }

    /// A connection that is about to close lingers if its last output has to wait for the peer: a reset, which answers
    /// whatever the peer may still send, would destroy what of it is under way.
    fn did_not_leave_whole(&mut self, agenda: &mut Agenda, io: &mut dyn Io, key: Key) {
        if self.phase == Phase::Closing && !self.has(ENDED) {
            self.finish(agenda);
            self.rein(agenda, io, key);
        }
    }
}
