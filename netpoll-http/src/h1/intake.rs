//! A body that its handler reads while it arrives, beside the handler and beside an answer that is a stream.
//!
//! What has come waits in an [`Inflow`], up to a limit; then the connection is not read until some of it is taken. The reader's waker is usually
//! the connection's own: then the handler is polled where the bytes came.
//!
//! Invariant: one clock runs at a time. While the reader waits and nothing is there it is the client's, and what it has been given adds up over all
//! such times; else it is the handler's, or none's while a stream is sent. Nothing is read of a body that is whole, has failed, or that nobody
//! reads on; and what follows it is not looked at before the request is answered.

use std::rc::Rc;
use std::time::Duration;

use netpoll_core::{Conn, Flow, Input, Instant};

use super::answer::{Streaming, let_go};
use super::upload::{Incoming, Skip};
use super::{Exchange, Http, Outcome, Phase, Refusal, Service, Step, Worker};
use crate::message::{
    Behind, BodyError, BodyReader, Inflow, Replied, Reply, Request, ResponseError, Rest, RouteId, wake,
};
use crate::wire::{Framing, Head, WireError, response as encode};

/// A body on its way to its reader.
pub(super) struct Intake {
    inflow: Rc<Inflow>,
    incoming: Incoming,
    body_bytes_max: u64,
    end: End,
    arrived: u64,
    /// Of `arrived`, what had come at the last look at its rate.
    seen: u64,
    /// Since when the reader waits, if it does.
    wanted_since: Option<Instant>,
    /// How long it has waited since the last look, before that.
    wanted_for: Duration,
    /// How often the reader had looked when the handler's time began.
    looks: u32,
    handler_timeout: Duration,
    /// The client waits for a 100 before it sends anything.
    owes_continue: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    NotYet,
    Whole,
    Failed(BodyError),
}

impl Intake {
    fn is_open(&self) -> bool {
        self.end == End::NotYet
    }

    pub(super) fn is_whole(&self) -> bool {
        self.end == End::Whole
    }

    /// Somebody reads it, and has not read all.
    pub(super) fn is_read(&self) -> bool {
        self.is_open() && !self.inflow.is_dropped()
    }

    pub(super) fn failure(&self) -> Option<BodyError> {
        match self.end {
            End::Failed(error) => Some(error),
            _ => None,
        }
    }

    /// How much more of it may wait.
    fn room(&self, buffer_bytes_max: usize) -> usize {
        if self.is_read() { buffer_bytes_max.saturating_sub(self.inflow.waiting_bytes()) } else { 0 }
    }

    /// Takes in what there is room for. True if something has come.
    fn take(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>, room: usize) {
        let room = room.min(input.len());
        self.owes_continue &= room == 0;
        if !self.inflow.make_room(room, conn.is_short_of_memory(), || conn.hold_memory()) {
            conn.count_memory_overflow();
            return self.fail(BodyError::ShortOfMemory);
        }
        let Self { inflow, incoming, arrived, body_bytes_max, .. } = self;
        let taken = incoming.take(input, room, *body_bytes_max, |data| {
            *arrived += data.len() as u64;
            inflow.put(data);
        });
        match taken {
            Ok(false) => {}
            Ok(true) => {
                let incoming = std::mem::replace(&mut self.incoming, Incoming::new(Framing::None));
                self.end = End::Whole;
                self.inflow.finish(incoming.into_trailers());
            }
            Err(error) => self.fail(body_error(error)),
        }
    }

    /// It is not going to be whole.
    pub(super) fn fail(&mut self, error: BodyError) {
        if self.is_open() {
            self.end = End::Failed(error);
            self.inflow.fail(error);
        }
    }

    /// Whether what is left of it may be dropped to keep the connection.
    fn may_skip(&self, skip_bytes_max: usize) -> bool {
        let is_short = self.incoming.expected().is_none_or(|left| left <= skip_bytes_max as u64);
        self.is_open() && is_short && !self.owes_continue
    }

    /// The connection polls whoever has the reader, and looks behind that; or it does not.
    pub(super) fn set_inside(&self, is_inside: bool) {
        self.inflow.set_inside(is_inside);
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        self.fail(BodyError::Answered);
        // Who waits in a task of its own. If the waker panics it is the program's, and nobody is there to be told.
        if let Some(waker) = self.inflow.take_waiter() {
            wake(waker);
        }
    }
}

/// What the wire says about a body that it does not read.
pub(super) fn body_error(error: WireError) -> BodyError {
    match error.status() {
        413 => BodyError::TooLarge,
        431 => BodyError::TrailersTooLarge,
        _ => BodyError::Malformed(error.reason()),
    }
}

impl Phase {
    /// The body that is read beside the request in progress.
    pub(super) fn intake(&mut self) -> Option<&mut Intake> {
        match self {
            Self::Waiting(waiting) => waiting.intake.as_deref_mut(),
            Self::Streaming(streaming) => streaming.intake.as_deref_mut(),
            _ => None,
        }
    }
}

impl<S: Service> Http<S> {
    /// Calls a handler that reads the body behind this head.
    #[expect(clippy::too_many_arguments, reason = "one call, which names them")]
    pub(super) fn begin_intake(
        &mut self,
        conn: &mut Conn<'_>,
        worker: &Worker<S>,
        head: &Head<'_>,
        request: &Request<'_>,
        exchange: Exchange,
        (route, body_bytes_max): (RouteId, usize),
        behind: Behind,
    ) -> Step {
        let inflow = Inflow::new(conn.waker());
        let length = match head.framing {
            Framing::Length(length) => Some(length),
            _ => None,
        };
        let reader: BodyReader = inflow.reader(length);
        let intake = Box::new(Intake {
            inflow,
            incoming: Incoming::new(head.framing),
            body_bytes_max: u64::try_from(body_bytes_max)
                .ok()
                .filter(|_| body_bytes_max != usize::MAX)
                .unwrap_or(u64::MAX),
            end: End::NotYet,
            arrived: 0,
            seen: 0,
            wanted_since: None,
            wanted_for: Duration::ZERO,
            looks: 0,
            handler_timeout: worker.handler_timeout(conn, Some(route)),
            owes_continue: behind.expects_continue,
        });
        self.note_call(conn);
        let mut rest = Rest::Nothing;
        let call = |reply: Reply<'_>| worker.service.call_reading(route, request, reader, reply);
        let replied = worker.write(conn, &exchange, Some(request), &mut rest, call);
        self.note(conn, &exchange, Some(request), &rest, Outcome::Answered);
        let step = match rest {
            Rest::Future(mut pending) => {
                pending.set_timeout(intake.handler_timeout);
                self.begin_waiting(conn, exchange, pending, false, Some(intake))
            }
            rest => self.settle_beside(conn, exchange, replied, rest, intake),
        };
        // What has come of the body comes next.
        if self.phase.intake().is_some() { Step::Next } else { step }
    }

    /// Takes in more of a body that is read, and lets whoever waits for it go on.
    pub(super) fn take_in(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Step {
        let (half_closed, buffer_bytes_max) = (self.half_closed, self.worker.limits.body_buffer_bytes);
        loop {
            let Some(intake) = self.phase.intake() else { return Step::Stop(Flow::Pause) };
            let (before, room) = (input.len(), intake.room(buffer_bytes_max));
            if room > 0 && before > 0 {
                intake.take(conn, input, room);
            }
            if half_closed && input.is_empty() {
                intake.fail(BodyError::Left);
            }
            let (is_whole, has_room) = (intake.is_whole(), intake.room(buffer_bytes_max) > 0);
            self.note_received_beside(conn, before - input.len());
            if let (true, Phase::Waiting(waiting)) = (is_whole, &mut self.phase) {
                waiting.exchange.ends_before(input);
            }
            match self.let_reader_go_on(conn) {
                None if has_room && !input.is_empty() => {}
                None => return Step::Stop(self.tend(conn)),
                Some(Step::Stop(Flow::Continue)) if !input.is_empty() && self.phase.intake().is_some() => {}
                Some(step) => return step,
            }
        }
    }

    /// Wakes whoever waits for more of the body, if there is something to be told. One that is polled by this connection is polled here.
    fn let_reader_go_on(&mut self, conn: &mut Conn<'_>) -> Option<Step> {
        let waker = self.phase.intake()?.inflow.take_waiter()?;
        if waker.will_wake(&conn.waker()) {
            return Some(match self.phase {
                Phase::Waiting(_) => self.go_on_waiting(conn),
                _ => self.go_on_streaming(conn),
            });
        }
        if !wake(waker) {
            conn.count_panic();
        }
        None
    }

    /// Whose time it is, and whether the connection is read: behind everything that may have changed it.
    pub(super) fn tend(&mut self, conn: &mut Conn<'_>) -> Flow {
        let limits = &self.worker.limits;
        let is_waiting = matches!(self.phase, Phase::Waiting(_));
        let Some(intake) = self.phase.intake() else { return Flow::Pause };
        let is_wanted = intake.inflow.is_wanted();
        // Not in the middle of an answer.
        if is_wanted && is_waiting && std::mem::take(&mut intake.owes_continue) {
            conn.send_static(encode::CONTINUE);
        }
        let looks = intake.inflow.looks();
        match (intake.wanted_since, is_wanted) {
            (None, true) => {
                intake.wanted_since = Some(conn.now());
                conn.set_deadline(limits.body_grace.saturating_sub(intake.wanted_for));
            }
            (Some(_), true) => {}
            (None, false) if looks == intake.looks => {}
            (wanted_since, false) => {
                if let Some(since) = wanted_since {
                    intake.wanted_for += conn.now().duration_since(since);
                    intake.wanted_since = None;
                }
                match is_waiting {
                    true => conn.set_deadline(intake.handler_timeout),
                    false => conn.clear_deadline(),
                }
            }
        }
        intake.looks = looks;
        if intake.room(limits.body_buffer_bytes) > 0 { Flow::Continue } else { Flow::Pause }
    }

    /// Time is over: of a handler, or of a client whose body is waited for.
    #[cold]
    pub(super) fn look_at_intake(&mut self, conn: &mut Conn<'_>) -> Flow {
        let is_waiting = matches!(self.phase, Phase::Waiting(_));
        let limits = &self.worker.limits;
        let Some(intake) = self.phase.intake() else { unreachable!("called beside one") };
        if intake.wanted_since.is_none() {
            return match intake.failure() {
                // Nobody waits for an answer.
                Some(BodyError::Left) if is_waiting => self.abandon(conn),
                _ if is_waiting => self.give_up_waiting(conn),
                _ => self.tend(conn),
            };
        }
        let least = limits.body_bytes_min(limits.body_grace);
        // Who does not take what is sent to it is not read, and is the core's to watch.
        if !conn.is_backed_up() && intake.arrived - intake.seen < least {
            intake.fail(BodyError::Late);
        } else {
            intake.seen = intake.arrived;
            (intake.wanted_since, intake.wanted_for) = (None, Duration::ZERO);
        }
        match self.let_reader_go_on(conn) {
            None => self.tend(conn),
            Some(step) => self.resume(conn, step),
        }
    }

    /// The client has ended its direction, and all that it sent was offered.
    pub(super) fn end_intake(&mut self, conn: &mut Conn<'_>, flow: Flow) -> Flow {
        match self.phase.intake() {
            // Whoever reads it has been told, and is let go on.
            Some(intake) if !intake.inflow.is_dropped() && !intake.is_whole() => flow,
            Some(_) => self.peer_has_left(conn),
            None => flow,
        }
    }

    /// The handler is about to answer: whether the connection stays depends on what is left of the body.
    pub(super) fn before_answer(&self, conn: &mut Conn<'_>, exchange: &mut Exchange, intake: &mut Intake) {
        match intake.end {
            End::Whole => {}
            End::Failed(_) => (exchange.keep_alive, exchange.is_last_word) = (false, false),
            End::NotYet if intake.inflow.is_dropped() => {
                exchange.keep_alive &= intake.may_skip(self.worker.limits.skip_bytes_max);
            }
            // The answer reads on, and nothing can be said in the middle of it.
            End::NotYet if std::mem::take(&mut intake.owes_continue) => conn.send_static(encode::CONTINUE),
            End::NotYet => {}
        }
    }

    /// What a request comes to whose handler has answered.
    pub(super) fn outcome_beside(intake: Option<&Intake>) -> Outcome {
        match intake.and_then(Intake::failure) {
            None | Some(BodyError::Left | BodyError::Answered) => Outcome::Answered,
            Some(error) => Outcome::Refused(Refusal::of(error.status())),
        }
    }

    /// Does what is left of an answer that was given beside a body.
    pub(super) fn settle_beside(
        &mut self,
        conn: &mut Conn<'_>,
        exchange: Exchange,
        mut replied: Replied,
        rest: Rest,
        intake: Box<Intake>,
    ) -> Step {
        match rest {
            Rest::Stream(outflow) => {
                conn.clear_deadline();
                let (keep_alive, farewell) = (replied.keep_alive, exchange.farewell());
                let intake = intake.is_open().then_some(intake);
                let streaming = Streaming::new(outflow, keep_alive, farewell, intake);
                self.phase = Phase::Streaming(Box::new(streaming));
                self.go_on_streaming(conn)
            }
            rest => {
                replied.keep_alive = self.skip_intake(conn, intake, replied.keep_alive);
                self.settle(conn, exchange, replied, rest, false)
            }
        }
    }

    /// Drops what is left of a body whose request is answered. False if the connection cannot be kept.
    pub(super) fn skip_intake(
        &mut self,
        conn: &mut Conn<'_>,
        mut intake: Box<Intake>,
        keep_alive: bool,
    ) -> bool {
        let skip_bytes_max = self.worker.limits.skip_bytes_max;
        let skips = keep_alive && intake.may_skip(skip_bytes_max);
        if skips {
            conn.set_deadline(self.worker.limits.head_timeout);
            let incoming = std::mem::replace(&mut intake.incoming, Incoming::new(Framing::None));
            let most = intake.arrived.saturating_add(skip_bytes_max as u64);
            self.phase = Phase::Skip(Box::new(Skip::new(incoming, most)));
        }
        let keeps = skips || (keep_alive && intake.is_whole());
        let_go(conn, intake);
        keeps
    }

    /// Begins to read a body whose handler was called behind hooks that have waited.
    pub(super) fn go_on_reading(&mut self, conn: &mut Conn<'_>) -> Flow {
        let has_ended = self.half_closed;
        let Some(intake) = self.phase.intake() else { unreachable!("called beside one") };
        if has_ended {
            intake.fail(BodyError::Left);
        }
        match self.let_reader_go_on(conn) {
            Some(step) => self.resume(conn, step),
            None => self.tend(conn),
        }
    }

    /// The connection is gone, and with it what was to come of a body.
    pub(super) fn lose_body(&mut self) {
        if let Some(intake) = self.phase.intake() {
            intake.fail(BodyError::Left);
        } else if let Phase::Upload(upload) = &mut self.phase
            && !upload.fail_sink(&self.worker, BodyError::Left)
        {
            self.worker.note_uncounted_panic();
        }
    }
}
