//! From an answer to the next request: what could not be written at once.
//!
//! A handler that waits is polled once where it was called; only if it is not ready it is kept, and
//! polled again when its waker was woken. A stream is pulled while the write queue has room.
//!
//! Invariant: between two answers the phase is [`Phase::Idle`] or [`Phase::Skip`], and it leaves
//! [`Phase::Waiting`] and [`Phase::Streaming`] only when the answer is complete or the connection ends.

use std::rc::Rc;
use std::task::{Context, Poll};

use http::StatusCode;
use netpoll_core::{Conn, Flow};

use super::intake::Intake;
use super::request::short_of_memory;
use super::{Exchange, Http, Outcome, Phase, Refusal, Service, Step, Worker};
use crate::message::{
    BodyBuf, BodyError, Error, Futures, OutFraming, Outflow, Pending, Pull, Replied, Request, Response, Rest,
    RouteId, dropped, guarded_or_told,
};
use crate::wire::response as encode;

/// What to reserve for one pull of a stream.
const PULL_BYTES: usize = 4096;

/// Pulls in a row that may bring nothing, in a turn each, before a stream whose client may have left is given up: a list of pieces may
/// have empty ones, and a stream that waits in this way would go round for ever.
const EMPTY_PULLS_MAX: u32 = 64;

/// A request that was copied for a handler that waits counts in the worker's budget if it is longer: what is as small as
/// what a connection costs anyway is bounded by their number.
const UNCOUNTED_BYTES_MAX: usize = 4096;

/// A handler that is not ready, or hooks before one.
pub(super) struct Waiting {
    pub(super) exchange: Exchange,
    pending: Pending,
    may_upgrade: bool,
    /// The body, if it is read while it arrives.
    pub(super) intake: Option<Box<Intake>>,
}

impl Waiting {
    /// The request, if somebody needs it.
    pub(super) fn request(&self) -> Option<Request<'static>> {
        self.pending.request()
    }

    pub(super) fn route(&self) -> Option<RouteId> {
        self.exchange.route
    }
}

/// An answer that is made while it is sent.
pub(super) struct Streaming {
    outflow: Outflow,
    /// It has more, and goes on when there is room for it.
    pub(super) waits_for_room: bool,
    /// Pulls in a row that brought nothing, although there is more.
    pub(super) empty_pulls: u32,
    /// The turn of the last one of these: it is not asked again in the same one, whoever wakes it.
    gave_way_in: Option<u64>,
    keep_alive: bool,
    /// How the connection ends behind it otherwise.
    farewell: Flow,
    /// The request's body, if that is not whole.
    pub(super) intake: Option<Box<Intake>>,
}

impl Streaming {
    pub(super) fn new(
        outflow: Outflow,
        keep_alive: bool,
        farewell: Flow,
        intake: Option<Box<Intake>>,
    ) -> Self {
        Self {
            outflow,
            waits_for_room: false,
            empty_pulls: 0,
            gave_way_in: None,
            keep_alive,
            farewell,
            intake,
        }
    }
}

impl<S: Service> Http<S> {
    /// Does what is left of an answer, as far as it can be done now.
    #[inline]
    pub(super) fn settle(
        &mut self,
        conn: &mut Conn<'_>,
        exchange: Exchange,
        replied: Replied,
        rest: Rest,
        may_upgrade: bool,
    ) -> Step {
        if !matches!(rest, Rest::Nothing) {
            return self.settle_rest(conn, exchange, replied, rest, may_upgrade);
        }
        // Nothing to drop, which the compiler does not see.
        std::mem::forget(rest);
        if replied.keep_alive { Step::Next } else { Step::Stop(exchange.farewell()) }
    }

    #[inline(never)]
    fn settle_rest(
        &mut self,
        conn: &mut Conn<'_>,
        exchange: Exchange,
        replied: Replied,
        rest: Rest,
        may_upgrade: bool,
    ) -> Step {
        match rest {
            Rest::Nothing => {}
            Rest::Coded(bytes) if replied.keep_alive => return Step::Coded(bytes),
            Rest::Coded(_) => {}
            Rest::Static(bytes) => conn.send_static(bytes),
            Rest::Shared(bytes) => conn.send_shared(bytes),
            Rest::Upgrade(switching) if may_upgrade && replied.keep_alive && !self.half_closed => {
                return self.hand_over(conn, *switching);
            }
            Rest::Upgrade(switching) => return self.decline_upgrade(conn, exchange, *switching),
            Rest::File(range) => conn.send_file(range),
            Rest::Stream(outflow) => {
                // A stream may run for long; its peer's patience is the core's to watch.
                conn.clear_deadline();
                let farewell = exchange.farewell();
                let keep_alive = replied.keep_alive;
                let streaming = Streaming::new(outflow, keep_alive, farewell, None);
                self.phase = Phase::Streaming(Box::new(streaming));
                return self.go_on_streaming(conn);
            }
            Rest::Future(pending) => return self.begin_waiting(conn, exchange, pending, may_upgrade, None),
        }
        if replied.keep_alive { Step::Next } else { Step::Stop(exchange.farewell()) }
    }

    /// Polls a handler for the first time, if there is memory for what was copied for it.
    pub(super) fn begin_waiting(
        &mut self,
        conn: &mut Conn<'_>,
        exchange: Exchange,
        mut pending: Pending,
        may_upgrade: bool,
        intake: Option<Box<Intake>>,
    ) -> Step {
        if pending.copied_bytes > UNCOUNTED_BYTES_MAX {
            if conn.is_short_of_memory() {
                conn.count_memory_overflow();
                // The handler has not begun: it is polled below for the first time.
                let refusal = Refusal::ShortOfMemory;
                let flow = self.answer_instead(conn, exchange, pending, short_of_memory(), refusal);
                return Step::Stop(flow);
            }
            let mut held = conn.hold_memory();
            held.grow(pending.copied_bytes);
            pending.held = Some(held);
        }
        // From the call on, and not extended by polls.
        let timeout = match pending.timeout() {
            Some(timeout) => timeout,
            None => self.worker.handler_timeout(conn, exchange.route),
        };
        conn.set_deadline(timeout);
        self.poll(conn, exchange, pending, may_upgrade, intake)
    }

    /// Polls a handler for the first time, and answers if it is ready; else it is kept.
    fn poll(
        &mut self,
        conn: &mut Conn<'_>,
        exchange: Exchange,
        pending: Pending,
        may_upgrade: bool,
        intake: Option<Box<Intake>>,
    ) -> Step {
        let mut waiting = Waiting { exchange, pending, may_upgrade, intake };
        match poll_once(conn, &self.worker, &mut waiting) {
            Some(Poll::Pending) => {
                self.phase = Phase::Waiting(Box::new(waiting));
                self.wait_on(conn)
            }
            Some(Poll::Ready(done)) => self.polled(conn, waiting, Some(done)),
            None => self.polled(conn, waiting, None),
        }
    }

    /// Polls the handler again, where it is.
    pub(super) fn go_on_waiting(&mut self, conn: &mut Conn<'_>) -> Step {
        let Phase::Waiting(waiting) = &mut self.phase else { unreachable!("called in this phase") };
        let done = match poll_once(conn, &self.worker, waiting) {
            Some(Poll::Pending) => return self.wait_on(conn),
            Some(Poll::Ready(done)) => Some(done),
            None => None,
        };
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Waiting(waiting) => self.polled(conn, *waiting, done),
            _ => unreachable!("the phase was looked at above"),
        }
    }

    /// The handler is not ready.
    fn wait_on(&mut self, conn: &mut Conn<'_>) -> Step {
        let reads = self.phase.intake().is_some();
        Step::Stop(if reads { self.tend(conn) } else { self.pause(conn) })
    }

    /// The handler, or hooks before one, have come to something; nothing is there if they have panicked.
    fn polled(&mut self, conn: &mut Conn<'_>, waiting: Waiting, done: Option<Futures>) -> Step {
        let Waiting { mut exchange, mut pending, may_upgrade, mut intake } = waiting;
        let answer = match done {
            Some(Futures::Asked(decided)) => return self.hooks_are_done(conn, exchange, pending, decided),
            Some(Futures::Answered(answer)) => {
                if intake.as_ref().is_some_and(|intake| intake.failure() == Some(BodyError::Left)) {
                    // The request was never there, and nobody waits for an answer.
                    let waiting = Waiting { exchange, pending, may_upgrade, intake };
                    self.phase = Phase::Waiting(Box::new(waiting));
                    let_go(conn, answer);
                    return Step::Stop(self.abandon(conn));
                }
                Some(answer)
            }
            None => {
                conn.count_panic();
                exchange.keep_alive = false;
                None
            }
        };
        let worker = Rc::clone(&self.worker);
        let mut rest = Rest::Nothing;
        if let Some(intake) = &mut intake {
            self.before_answer(conn, &mut exchange, intake);
        }
        let outcome = match answer {
            Some(_) => Self::outcome_beside(intake.as_deref()),
            None => Outcome::Panicked,
        };
        let (asked, request) = (pending.take_asked(), pending.request());
        let replied = worker.write(conn, &exchange, request.as_ref(), &mut rest, |reply| match answer {
            Some(answer) => answer.respond(reply.with_asked(asked)),
            None => reply.fail(Error::from(StatusCode::INTERNAL_SERVER_ERROR)),
        });
        self.note(conn, &exchange, request.as_ref(), &rest, outcome);
        // Before what holds it as well, and is dropped with care.
        drop(request);
        let_go(conn, pending);
        match intake {
            None => self.settle(conn, exchange, replied, rest, may_upgrade),
            Some(intake) => self.settle_beside(conn, exchange, replied, rest, intake),
        }
    }

    /// Goes on with a request that hooks have looked at.
    fn hooks_are_done(
        &mut self,
        conn: &mut Conn<'_>,
        exchange: Exchange,
        mut pending: Pending,
        decided: Option<Result<Response, Error>>,
    ) -> Step {
        let (Some(request), Some(behind)) = (pending.request(), pending.behind()) else {
            unreachable!("hooks were asked about a request")
        };
        let held = pending.held.take();
        let_go(conn, pending);
        let step = self.go_on_behind_hooks(conn, exchange, &request, behind, decided, held);
        let_go(conn, request);
        step
    }

    /// Gives up on a handler: dropping its future is what cancels it.
    #[cold]
    pub(super) fn give_up_waiting(&mut self, conn: &mut Conn<'_>) -> Flow {
        let Phase::Waiting(waiting) = std::mem::replace(&mut self.phase, Phase::Idle) else {
            unreachable!("called in this phase")
        };
        let late = Error::new(StatusCode::SERVICE_UNAVAILABLE, "the answer took too long to make")
            .with_source("the handler was dropped at its deadline");
        self.answer_instead(conn, waiting.exchange, waiting.pending, late, Refusal::HandlerLate)
    }

    /// Answers with an error in place of a handler that has not, and drops its future.
    #[cold]
    fn answer_instead(
        &mut self,
        conn: &mut Conn<'_>,
        exchange: Exchange,
        pending: Pending,
        error: Error,
        refusal: Refusal,
    ) -> Flow {
        let exchange = Exchange { keep_alive: false, is_last_word: false, ..exchange };
        let worker = Rc::clone(&self.worker);
        let mut rest = Rest::Nothing;
        let request = pending.request();
        let replied = worker.write(conn, &exchange, request.as_ref(), &mut rest, |reply| reply.fail(error));
        self.note(conn, &exchange, request.as_ref(), &rest, Outcome::Refused(refusal));
        drop(request);
        let_go(conn, pending);
        match self.settle(conn, exchange, replied, rest, false) {
            Step::Stop(flow) => flow,
            Step::Next | Step::Coded(_) => Flow::Linger,
        }
    }

    /// Waits for the program, unless the client has left meanwhile.
    fn pause(&mut self, conn: &mut Conn<'_>) -> Flow {
        if self.may_have_left { self.abandon(conn) } else { Flow::Pause }
    }

    /// Gives up an answer whose client has left. Dropping its future or its stream is what cancels it.
    #[cold]
    pub(super) fn abandon(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.count_abandoned();
        self.break_off(conn, Outcome::Abandoned)
    }

    /// Drops the answer in progress, and lets the peer see that it is not complete.
    #[cold]
    pub(super) fn break_off(&mut self, conn: &mut Conn<'_>, outcome: Outcome) -> Flow {
        let phase = std::mem::replace(&mut self.phase, Phase::Idle);
        self.note_break_off(conn, &phase, outcome);
        let flow = match &phase {
            Phase::Streaming(streaming) => abort(streaming.outflow.framing),
            _ => Flow::Close,
        };
        let_go(conn, phase);
        flow
    }

    /// Pulls the stream until it is done, or waits, or the write queue is full; and looks at the body beside it, if there is one.
    pub(super) fn go_on_streaming(&mut self, conn: &mut Conn<'_>) -> Step {
        let Some(intake) = self.phase.intake() else { return self.pull_stream(conn) };
        intake.set_inside(true);
        let step = self.pull_stream(conn);
        let Some(intake) = self.phase.intake() else { return step };
        intake.set_inside(false);
        match step {
            Step::Stop(Flow::Pause) => Step::Stop(self.tend(conn)),
            step => step,
        }
    }

    fn pull_stream(&mut self, conn: &mut Conn<'_>) -> Step {
        let Phase::Streaming(streaming) = &mut self.phase else { unreachable!("called in this phase") };
        if conn.is_finished() {
            // Others have ended our direction: there is always room for what is dropped, and a stream may go on for ever.
            return Step::Stop(self.break_off(conn, Outcome::BrokenOff));
        }
        let framing = streaming.outflow.framing;
        let worker = &self.worker;
        let waker = conn.waker();
        if let Some(turn) = streaming.gave_way_in.take()
            && turn == conn.worker_stats().turns
        {
            // Wakes of one's own are answered many times in a turn.
            streaming.gave_way_in = Some(turn);
            waker.wake_by_ref();
            return Step::Stop(Flow::Pause);
        }
        let mut context = Context::from_waker(&waker);
        loop {
            streaming.waits_for_room = conn.is_backed_up();
            if streaming.waits_for_room {
                // `drained` goes on, when there is room and others have had their turn. Input is not looked at meanwhile.
                streaming.farewell = Flow::Linger;
                return Step::Stop(Flow::Pause);
            }
            let outflow = &mut streaming.outflow;
            let (pulled, bytes) = conn.append(PULL_BYTES, |out| {
                let start = out.len();
                (outflow.pull(&mut context, out, |said| worker.note_panic(said)), out.len() - start)
            });
            if let Some(watch) = &mut self.watch {
                watch.made(bytes);
            }
            match pulled {
                Ok(Pull::More) => {
                    if bytes == 0 {
                        // Others get their turn before it is asked again.
                        waker.wake_by_ref();
                        streaming.gave_way_in = Some(conn.worker_stats().turns);
                        streaming.empty_pulls = streaming.empty_pulls.saturating_add(1);
                        let has_nothing = streaming.empty_pulls > EMPTY_PULLS_MAX;
                        return Step::Stop(if has_nothing { self.pause(conn) } else { Flow::Pause });
                    }
                    streaming.empty_pulls = 0;
                }
                Ok(Pull::Wait) => {
                    streaming.empty_pulls = 0;
                    streaming.farewell = Flow::Linger;
                    return Step::Stop(self.pause(conn));
                }
                Ok(Pull::Done) => break,
                Ok(Pull::Failed) => {
                    if let Some(watch) = &mut self.watch {
                        watch.breaks_off(Outcome::BrokenOff, None);
                    }
                    return Step::Stop(abort(framing));
                }
                Err(Panicked) => {
                    conn.count_panic();
                    if let Some(watch) = &mut self.watch {
                        watch.breaks_off(Outcome::Panicked, worker.cause.take());
                    }
                    return Step::Stop(abort(framing));
                }
            }
        }
        if framing == OutFraming::Chunked {
            conn.append(encode::LAST_CHUNK.len(), encode::last_chunk);
            if let Some(watch) = &mut self.watch {
                watch.made(encode::LAST_CHUNK.len());
            }
        }
        let (mut keep_alive, farewell) = (streaming.keep_alive, streaming.farewell);
        let intake = streaming.intake.take();
        let_go(conn, std::mem::replace(&mut self.phase, Phase::Idle));
        self.note_end_of_stream(conn);
        if let Some(intake) = intake {
            keep_alive = self.skip_intake(conn, intake, keep_alive);
        }
        if keep_alive { Step::Next } else { Step::Stop(farewell) }
    }
}

/// Polls a handler, or hooks before one. `None` if that panicked.
fn poll_once<S: Service>(
    conn: &mut Conn<'_>,
    worker: &Worker<S>,
    waiting: &mut Waiting,
) -> Option<Poll<Futures>> {
    let waker = conn.waker();
    let mut context = Context::from_waker(&waker);
    if let Some(intake) = &waiting.intake {
        intake.set_inside(true);
    }
    let poll = || waiting.pending.poll(&mut context);
    let polled = conn.lend(|| guarded_or_told(poll, |said| worker.note_panic(said)));
    if let Some(intake) = &waiting.intake {
        intake.set_inside(false);
    }
    polled
}

/// Drops something of the program, whose destructor runs here.
pub(super) fn let_go<T>(conn: &mut Conn<'_>, value: T) {
    if !dropped(value) {
        conn.count_panic();
    }
}

/// How to make the peer notice that the answer is incomplete: where the framing shows it, the bytes that
/// were sent may arrive; where only the end of the connection does, it must not look like a good one.
fn abort(framing: OutFraming) -> Flow {
    match framing {
        OutFraming::Chunked | OutFraming::Remaining(_) => Flow::Close,
        OutFraming::UntilClose => Flow::Reset,
    }
}

struct Panicked;

impl Outflow {
    /// Appends the next piece with its framing.
    fn pull(
        &mut self,
        context: &mut Context<'_>,
        out: &mut Vec<u8>,
        tell: impl Fn(&str),
    ) -> Result<Pull, Panicked> {
        let stream = &mut self.stream;
        let mut pull = |out: &mut Vec<u8>| {
            let pull = || stream.pull(context, &mut BodyBuf::new(out));
            guarded_or_told(pull, &tell).ok_or(Panicked)
        };
        match &mut self.framing {
            OutFraming::Chunked => encode::chunk_with(out, pull),
            OutFraming::UntilClose => pull(out),
            OutFraming::Remaining(0) => Ok(Pull::Done),
            OutFraming::Remaining(left) => {
                let start = out.len();
                let pulled = pull(out)?;
                let owed = usize::try_from(*left).unwrap_or(usize::MAX);
                out.truncate(start.saturating_add(owed));
                *left -= (out.len() - start) as u64;
                Ok(match pulled {
                    _ if *left == 0 => Pull::Done,
                    Pull::Done => Pull::Failed,
                    pulled => pulled,
                })
            }
        }
    }
}
