//! The connection that never waits: it pipelines requests as fast as the socket takes them.
//!
//! Requests are topped up whenever answers arrive, so some are always queued. Only its first answer is checked; the
//! others are counted by their length. It gets one read per turn, as everybody does.

use crate::answer::Check;
use crate::run::Run;
use bytes::Bytes;
use netpoll_core::{Commands, Conn, Flow, Input, Lost, Protocol};
use std::cell::RefCell;
use std::rc::Rc;

const QUEUE_BYTES: usize = 64 * 1024;

/// The flooding connection.
pub struct Flood {
    run: Rc<RefCell<Run>>,
    /// Whole requests, about `QUEUE_BYTES` of them.
    requests: Bytes,
    count: u64,
    check: Check,
    /// Length of an answer, once one has been seen. All answers to the same request have it.
    answer_bytes: Option<usize>,
    /// Bytes of an answer that has not arrived whole.
    partial_bytes: usize,
}

impl Flood {
    pub fn new(run: Rc<RefCell<Run>>, request: &[u8]) -> Self {
        let count = QUEUE_BYTES / request.len();
        Self {
            run,
            requests: request.repeat(count).into(),
            count: count as u64,
            check: Check::http(None),
            answer_bytes: None,
            partial_bytes: 0,
        }
    }

    fn top_up(&self, run: &mut Run, conn: &mut Conn<'_>) {
        if run.is_asking() && conn.queued_bytes() < QUEUE_BYTES {
            conn.send_shared(self.requests.clone());
            run.flood.asked += self.count;
        }
    }
}

impl Protocol for Flood {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        let mut run = self.run.borrow_mut();
        run.flood.waker = Some(conn.waker());
        run.call_metronome();
        Flow::Continue
    }

    fn woken(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.top_up(&mut self.run.borrow_mut(), conn);
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        let run = &mut *self.run.borrow_mut();
        run.touched += 1;
        let answer_bytes = match self.answer_bytes {
            Some(bytes) => bytes,
            None => match self.check.answer(input.bytes()) {
                Ok(Some(bytes)) => *self.answer_bytes.insert(bytes),
                Ok(None) => return Flow::Continue,
                Err(fault) => {
                    run.end(Err(format!("{fault:?} on the flooding connection")));
                    return Flow::Reset;
                }
            },
        };
        self.partial_bytes += input.len();
        input.advance_all();
        run.flood.answered += (self.partial_bytes / answer_bytes) as u64;
        self.partial_bytes %= answer_bytes;
        self.top_up(run, conn);
        Flow::Continue
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        self.run.borrow_mut().end(Err(format!("the flooding connection is gone: {reason:?}")));
    }
}
