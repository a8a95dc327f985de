//! A connection that waits for its answers before it asks again.
//!
//! Closed loop: a batch of `--depth` requests, the next when all are answered, perhaps after a pause (the
//! connection's deadline, which comes up to 2 ms late). Open loop: up to `--depth` requests on the way, each
//! when it is due and somebody has room. With churn: one request, then the server closes.
//!
//! A deadline that finds requests on the way is their timeout. One `recv` and one `send` per event, because the
//! runtime sends what a callback has queued in one piece.

use crate::run::{Fault, Phase, Run};
use netpoll_core::{Commands, Conn, Flow, Input, Lost, Protocol};
use std::cell::RefCell;
use std::rc::Rc;

/// The connection in one slot of a run.
pub struct Polite {
    pub run: Rc<RefCell<Run>>,
    pub nth: usize,
    /// `opened` was called.
    pub is_open: bool,
}

impl Protocol for Polite {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.is_open = true;
        self.run.borrow_mut().opened(self.nth, conn)
    }

    #[inline]
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.run.borrow_mut().received(self.nth, conn, input)
    }

    fn eof(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        self.run.borrow_mut().ended(self.nth)
    }

    fn deadline(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.run.borrow_mut().deadline(self.nth, conn)
    }

    fn woken(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.run.borrow_mut().woken(self.nth, conn);
        Flow::Continue
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        self.run.borrow_mut().lost(self.nth, self.is_open, reason);
    }
}

impl Run {
    fn opened(&mut self, nth: usize, conn: &mut Conn<'_>) -> Flow {
        self.touched += 1;
        self.connecting -= 1;
        self.open += 1;
        self.connections_opened += 1;
        self.slots[nth].id = Some(conn.id());
        if self.options.churn {
            if self.slots[nth].outstanding == 0 {
                // It took so long that its window is over.
                return Flow::Reset;
            }
            // Its request was granted with the order to connect.
            conn.send(&self.options.request);
            conn.set_deadline(self.options.timeout);
            if !self.free.is_empty() {
                self.call_metronome();
            }
            return Flow::Continue;
        }
        self.slots[nth].waker = Some(conn.waker());
        if self.is_asking() {
            self.woken(nth, conn);
        }
        if matches!(self.phase, Phase::Opening | Phase::Refilling) || !self.free.is_empty() {
            self.call_metronome();
        }
        Flow::Continue
    }

    #[inline]
    fn received(&mut self, nth: usize, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.touched += 1;
        let slot = &self.slots[nth];
        let expected = if slot.answered_at.is_some() { 0 } else { slot.outstanding };
        let (mut answers, mut fault) = (0, None);
        while !input.is_empty() && fault.is_none() {
            match self.check.answer(input.bytes()) {
                _ if answers == expected => fault = Some(Fault::Surplus),
                Ok(Some(bytes)) => {
                    input.advance(bytes);
                    answers += 1;
                }
                Ok(None) => break,
                Err(wrong) => fault = Some(wrong),
            }
        }
        if answers > 0 {
            let now = self.now();
            if self.options.churn {
                self.slots[nth].answered_at = Some(now);
            } else {
                self.count(nth, now, answers);
                if fault.is_none() {
                    self.go_on(nth, conn, now);
                }
            }
        }
        match fault {
            None => Flow::Continue,
            Some(fault) => {
                let start = &input.bytes()[..input.len().min(200)];
                self.fault(nth, fault, &format!("{:?}", String::from_utf8_lossy(start)));
                Flow::Reset
            }
        }
    }

    /// Something has been answered.
    #[inline]
    fn go_on(&mut self, nth: usize, conn: &mut Conn<'_>, now: u64) {
        if self.options.interval_ns.is_some() {
            self.ask_due(nth, conn, now);
        } else if self.slots[nth].outstanding > 0 {
        } else if self.options.pause.is_zero() {
            self.ask(nth, conn, now);
        } else if self.is_asking() {
            conn.set_deadline(self.options.pause);
        }
        if self.slots[nth].outstanding == 0 && (!self.is_asking() || self.options.interval_ns.is_some()) {
            conn.clear_deadline();
        }
    }

    /// Sends the next batch, if there is to be one.
    #[inline]
    fn ask(&mut self, nth: usize, conn: &mut Conn<'_>, now: u64) {
        let requests = self.grant(self.options.depth);
        if requests > 0 {
            let slot = &mut self.slots[nth];
            slot.outstanding = requests;
            slot.asked_at = now;
            conn.send(&self.options.batch[..requests * self.options.request.len()]);
            conn.set_deadline(self.options.timeout);
        } else {
            conn.clear_deadline();
        }
    }

    /// Sends what is due and fits, and stands in line if there is room for more.
    fn ask_due(&mut self, nth: usize, conn: &mut Conn<'_>, now: u64) {
        while self.slots[nth].outstanding < self.options.depth
            && let Some(intended) = self.take_due(now)
        {
            let slot = &mut self.slots[nth];
            slot.outstanding += 1;
            slot.asked_at = now;
            slot.intended.push_back(intended);
            conn.send(&self.options.request);
            conn.set_deadline(self.options.timeout);
        }
        let slot = &mut self.slots[nth];
        if slot.outstanding < self.options.depth && !slot.is_idle {
            slot.is_idle = true;
            if self.idle.is_empty() {
                self.call_metronome();
            }
            self.idle.push_back(nth);
        }
    }

    /// The metronome called, or nobody did.
    fn woken(&mut self, nth: usize, conn: &mut Conn<'_>) {
        self.touched += 1;
        let now = self.now();
        if self.options.interval_ns.is_some() {
            return self.ask_due(nth, conn, now);
        }
        let slot = &mut self.slots[nth];
        let is_busy = std::mem::replace(&mut slot.begun, true) || slot.outstanding > 0;
        if is_busy || !self.is_asking() {
            return;
        }
        if self.options.pause.is_zero() {
            return self.ask(nth, conn, now);
        }
        // The first requests are spread over one pause, so that connections do not march in step.
        conn.set_deadline(self.options.pause.mul_f64(nth as f64 / self.slots.len() as f64));
    }

    fn deadline(&mut self, nth: usize, conn: &mut Conn<'_>) -> Flow {
        self.touched += 1;
        let now = self.now();
        let owed = self.slots[nth].outstanding;
        if owed == 0 {
            if self.options.interval_ns.is_none() {
                self.ask(nth, conn, now);
            }
            return Flow::Continue;
        }
        self.record_of(nth, now, owed);
        self.fault(nth, Fault::Timeout, "no answer in time");
        Flow::Reset
    }

    /// The server has sent all it will send.
    fn ended(&mut self, nth: usize) -> Flow {
        self.touched += 1;
        let slot = &mut self.slots[nth];
        if let Some(answered_at) = slot.answered_at.take() {
            self.count(nth, answered_at, 1);
        } else if slot.outstanding > 0 || self.phase < Phase::Draining {
            self.fault(nth, Fault::Closed, "the server closed a connection");
            return Flow::Reset;
        }
        Flow::Close
    }

    fn lost(&mut self, nth: usize, was_open: bool, reason: Lost) {
        self.touched += 1;
        match was_open {
            true => self.open -= 1,
            false => self.connecting -= 1,
        }
        let matters = self.slots[nth].outstanding > 0 || self.phase < Phase::Draining;
        match reason {
            Lost::ConnectFailed(error) => {
                self.retry_at = self.now() + crate::metronome::RETRY_NS;
                self.fault(nth, Fault::Connect, &error.to_string());
            }
            Lost::Failed(error) if matters => self.fault(nth, Fault::Reset, &error.to_string()),
            Lost::Stalled => self.fault(nth, Fault::Timeout, "the server does not read"),
            Lost::InputOverflow => self.fault(nth, Fault::Framing, "an answer without end"),
            Lost::Panicked => self.end(Err("a callback of the load client panicked".into())),
            _ => {}
        }
        self.vacate(nth);
    }
}
