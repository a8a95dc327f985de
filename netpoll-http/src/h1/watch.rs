//! What a connection remembers of its requests where somebody wants to know how they end.
//!
//! A connection that is not watched has none of this, and asks once for each request. One that is watched has a box, and takes the
//! longer way to each handler. A request is shown where it lies if its answer leaves in the turn that made it, which most do;
//! else it is copied until the answer has left.
//!
//! Invariant: each request is shown once. `begun` is there from its first byte until [`Http::note`] has seen its answer, or is with
//! who has called its handler ([`Called`]); `making` is there while a stream makes it or a 101 is to be sent, and it lies in `unsent` until it has left.

use std::time::Duration;

use http::StatusCode;
use memchr::memmem::Finder;
use netpoll_core::{Commands, Conn, Instant, Lost};

use super::completed::{Completed, Outcome, Refusal};
use super::worker::Worker;
use super::{Exchange, Http, Phase, Service};
use crate::message::{Cause, Request, Rest, RouteId, guarded};

/// What is called when a request is over.
pub(crate) type Watcher = Box<dyn Fn(&Completed<'_>)>;

/// Of output up to this size nothing stays behind in the turn, unless the peer does not read.
const LEAVES_AT_ONCE_BYTES: usize = 16 * 1024;

/// Answers of one connection that wait to leave and are remembered. Those behind them count as sent when they are queued: each costs a
/// copy of its request.
const UNSENT_MAX: usize = 64;

/// What a head ends with.
pub(super) const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// What is known of the requests of one connection.
#[derive(Default)]
pub(super) struct Watch {
    begun: Option<Begun>,
    making: Option<Made>,
    unsent: Vec<Made>,
}

/// A request on its way in, or with its handler.
#[derive(Clone, Copy)]
struct Begun {
    at: Instant,
    unix_seconds: u64,
    called: Option<Instant>,
    bytes_in: u64,
}

impl Begun {
    fn now(conn: &Conn<'_>) -> Self {
        Self { at: conn.now(), unix_seconds: conn.unix_seconds(), called: None, bytes_in: 0 }
    }

    #[inline(always)]
    fn end(self, now: Instant, route: Option<RouteId>, written: Written, outcome: Outcome) -> Figures {
        Figures {
            route,
            status: written.status,
            outcome: if written.has_panicked { Outcome::Panicked } else { outcome },
            bytes_in: self.bytes_in,
            bytes_out: written.bytes,
            head_bytes_out: u64::from(written.head_bytes),
            unix_seconds: self.unix_seconds,
            began: self.at,
            called: self.called.unwrap_or(now),
            answered: now,
        }
    }
}

/// A request that is with its handler.
pub(super) struct Called(Begun);

/// What is known of an answer.
#[derive(Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) route: Option<RouteId>,
    pub(crate) status: Option<StatusCode>,
    pub(crate) outcome: Outcome,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) head_bytes_out: u64,
    pub(crate) unix_seconds: u64,
    pub(crate) began: Instant,
    pub(crate) called: Instant,
    pub(crate) answered: Instant,
}

/// An answer that is not sent yet.
struct Made {
    request: Request<'static>,
    figures: Figures,
    cause: Option<Cause>,
}

impl Made {
    /// The same with another end.
    fn ends(&self, outcome: Outcome) -> Figures {
        Figures { outcome, ..self.figures }
    }
}

/// What was written of an answer at once.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Written {
    status: Option<StatusCode>,
    head_bytes: u32,
    bytes: u64,
    has_panicked: bool,
}

impl Written {
    /// Looks at the bytes. The head has so many of them, if that is known.
    #[inline]
    pub(super) fn of(bytes: &[u8], head_bytes: Option<usize>, end_of_head: &Finder<'_>, panics: u32) -> Self {
        // `HTTP/1.1 200 OK`: written by us.
        let status = match bytes.get(9..12) {
            Some(b"200") => Some(StatusCode::OK),
            digits => digits.and_then(|digits| StatusCode::from_bytes(digits).ok()),
        };
        let find = || end_of_head.find(bytes).map_or(bytes.len(), |end| end + END_OF_HEAD.len());
        let head_bytes = head_bytes.unwrap_or_else(find);
        debug_assert_eq!(head_bytes, find());
        Self {
            status,
            head_bytes: u32::try_from(head_bytes).unwrap_or(u32::MAX),
            bytes: bytes.len() as u64,
            has_panicked: panics > 0,
        }
    }
}

impl Watch {
    /// The request at hand began now, unless it has.
    fn begin(&mut self, conn: &Conn<'_>) -> &mut Begun {
        self.begun.get_or_insert_with(|| Begun::now(conn))
    }

    /// What became of the request at hand.
    fn end(&mut self, now: Instant, route: Option<RouteId>, written: Written, outcome: Outcome) -> Figures {
        let begun = self.begun.take();
        let begun = begun.unwrap_or(Begun { at: now, unix_seconds: 0, called: None, bytes_in: 0 });
        begun.end(now, route, written, outcome)
    }

    /// A request is all there, so many bytes, and its handler is called.
    #[inline]
    pub(super) fn call(&mut self, conn: &Conn<'_>, bytes: usize) -> Called {
        let (called, bytes_in) = (Some(conn.now()), bytes as u64);
        if self.begun.is_some() {
            return self.call_begun(called, bytes_in);
        }
        Called(Begun { called, bytes_in, ..Begun::now(conn) })
    }

    /// The same of one that came in pieces.
    #[cold]
    fn call_begun(&mut self, called: Option<Instant>, bytes_in: u64) -> Called {
        let begun =
            self.begun.take().unwrap_or(Begun { at: Instant::ZERO, unix_seconds: 0, called, bytes_in });
        Called(Begun { called, bytes_in, ..begun })
    }

    /// Its handler has returned. What most leave is shown where it lies.
    #[inline(always)]
    pub(super) fn note_return<S: Service>(
        &mut self,
        worker: &Worker<S>,
        conn: &mut Conn<'_>,
        exchange: &Exchange,
        request: &Request<'_>,
        rest: &Rest,
        Called(begun): Called,
    ) {
        let written = worker.written.get();
        let is_usual = matches!(rest, Rest::Nothing) && !written.has_panicked;
        if !is_usual || !self.leaves_at_once(conn, conn.queued_bytes(), false) {
            self.begun = Some(begun);
            return self.note_answer(worker, conn, exchange, request, rest, Outcome::Answered);
        }
        let figures = begun.end(conn.now(), exchange.route, written, Outcome::Answered);
        let cause = worker.cause.take();
        show_at(worker, &figures, request, cause.as_deref(), conn.now());
        count_panics(worker, conn);
    }

    /// A request was answered, with what was just written and what is left of it; or will be, by a future.
    #[inline(never)]
    fn note_answer<S: Service>(
        &mut self,
        worker: &Worker<S>,
        conn: &mut Conn<'_>,
        exchange: &Exchange,
        request: &Request<'_>,
        rest: &Rest,
        outcome: Outcome,
    ) {
        let left = match rest {
            Rest::Future(_) => return,
            Rest::Nothing | Rest::Coded(_) | Rest::Stream(_) | Rest::Upgrade(_) => 0,
            Rest::Static(bytes) => bytes.len() as u64,
            Rest::Shared(bytes) => bytes.len() as u64,
            Rest::File(range) => range.length(),
        };
        let mut figures = self.end(conn.now(), exchange.route, worker.written.get(), outcome);
        figures.bytes_out += left;
        let cause = worker.cause.take();
        if matches!(rest, Rest::Stream(_) | Rest::Upgrade(_)) {
            self.making = Some(Made { request: request.to_owned(), figures, cause });
            return;
        }
        let is_file = matches!(rest, Rest::File(_));
        let queued = conn.queued_bytes().saturating_add(usize::try_from(left).unwrap_or(usize::MAX));
        if self.leaves_at_once(conn, queued, is_file) {
            show(worker, &figures, request, cause.as_deref(), conn.now());
            count_panics(worker, conn);
        } else {
            self.remember(conn, Made { request: request.to_owned(), figures, cause });
        }
    }

    #[inline]
    fn leaves_at_once(&self, conn: &Conn<'_>, queued: usize, is_file: bool) -> bool {
        self.unsent.len() >= UNSENT_MAX || (!is_file && queued <= LEAVES_AT_ONCE_BYTES && !conn.awaits_peer())
    }

    /// Shows it when it has left.
    fn remember(&mut self, conn: &mut Conn<'_>, made: Made) {
        self.unsent.push(made);
        if !conn.awaits_peer() {
            conn.tell_when_flushed();
        }
    }

    /// A stream has made more of the answer.
    pub(super) fn made(&mut self, bytes: usize) {
        if let Some(made) = &mut self.making {
            made.figures.bytes_out += bytes as u64;
        }
    }

    /// The answer that is made is not going to be whole.
    pub(super) fn breaks_off(&mut self, outcome: Outcome, cause: Option<Cause>) {
        if let Some(made) = &mut self.making {
            made.figures.outcome = outcome;
            made.cause = cause;
        }
    }
}

/// Shows a request that is over.
#[inline(always)]
fn show_at<S: Service>(
    worker: &Worker<S>,
    figures: &Figures,
    request: &Request<'_>,
    cause: Option<&str>,
    now: Instant,
) {
    let Figures { route, status, outcome, bytes_in, bytes_out, head_bytes_out, unix_seconds, .. } = *figures;
    let Figures { began, called, answered, .. } = *figures;
    // The service is the program's, and so are those who watch: each panic costs what it has not done.
    let find = || route.and_then(|route| worker.service.pattern(route));
    let pattern = if S::IS_OWN { find() } else { guarded(find).flatten() };
    let took_no_time = began == now && called == now && answered == now;
    // Within a turn, where most of it happens, no time passes.
    let (queue, handler, send) = match took_no_time {
        true => (Duration::ZERO, Duration::ZERO, Duration::ZERO),
        false => times([began, called, answered, now]),
    };
    let completed = Completed {
        request,
        route: pattern,
        route_id: route,
        status,
        outcome,
        error: cause,
        bytes_in,
        bytes_out,
        head_bytes_out,
        unix_seconds,
        queue,
        handler,
        send,
        took_no_time,
    };
    for watcher in &worker.watchers {
        if guarded(|| watcher(&completed)).is_none() {
            worker.note_uncounted_panic();
        }
    }
}

/// The same of what did not take the shortest way.
#[inline(never)]
pub(crate) fn show<S: Service>(
    worker: &Worker<S>,
    figures: &Figures,
    request: &Request<'_>,
    cause: Option<&str>,
    now: Instant,
) {
    show_at(worker, figures, request, cause, now);
}

#[cold]
fn times([began, called, answered, now]: [Instant; 4]) -> (Duration, Duration, Duration) {
    (called.duration_since(began), answered.duration_since(called), now.duration_since(answered))
}

/// What has panicked while it was shown is counted where there is a connection.
#[inline]
pub(crate) fn count_panics<S: Service>(worker: &Worker<S>, conn: &mut Conn<'_>) {
    if worker.uncounted_panics.get() > 0 {
        for _ in 0..worker.uncounted_panics.take() {
            conn.count_panic();
        }
    }
}

impl<S: Service> Http<S> {
    /// So many bytes of its head were received.
    #[inline]
    pub(super) fn note_head(&mut self, conn: &Conn<'_>, bytes: usize) {
        if let Some(watch) = &mut self.watch {
            watch.begin(conn).bytes_in = bytes as u64;
        }
    }

    /// So many bytes of its body were received.
    #[inline]
    pub(super) fn note_received(&mut self, conn: &Conn<'_>, bytes: usize) {
        if let Some(watch) = &mut self.watch {
            watch.begin(conn).bytes_in += bytes as u64;
        }
    }

    /// So many bytes of a body that is read beside its handler, or beside an answer that is made meanwhile.
    #[inline]
    pub(super) fn note_received_beside(&mut self, conn: &Conn<'_>, bytes: usize) {
        let Some(watch) = &mut self.watch else { return };
        match &mut watch.making {
            Some(made) => made.figures.bytes_in += bytes as u64,
            None => watch.begin(conn).bytes_in += bytes as u64,
        }
    }

    /// What was taken for the beginning of a request were empty lines.
    pub(super) fn note_nothing(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch.begun = None;
        }
    }

    /// Its handler is called.
    #[inline]
    pub(super) fn note_call(&mut self, conn: &Conn<'_>) {
        if let Some(watch) = &mut self.watch {
            watch.begin(conn).called = Some(conn.now());
        }
    }

    /// It was answered, with what was just written and what is left of it; or will be, by a future.
    #[inline]
    pub(super) fn note(
        &mut self,
        conn: &mut Conn<'_>,
        exchange: &Exchange,
        request: Option<&Request<'_>>,
        rest: &Rest,
        outcome: Outcome,
    ) {
        if let (Some(watch), Some(request)) = (&mut self.watch, request) {
            watch.note_answer(&self.worker, conn, exchange, request, rest, outcome);
        }
    }

    fn show(&self, conn: &mut Conn<'_>, made: &Made) {
        show(&self.worker, &made.figures, &made.request, made.cause.as_deref(), conn.now());
        count_panics(&self.worker, conn);
    }

    /// A stream is over, and the last of it queued.
    pub(super) fn note_end_of_stream(&mut self, conn: &mut Conn<'_>) {
        let Some(watch) = &mut self.watch else { return };
        let Some(made) = watch.making.take() else { return };
        if watch.leaves_at_once(conn, conn.queued_bytes(), false) {
            self.show(conn, &made);
            self.let_go_of(conn, made);
        } else {
            watch.remember(conn, made);
        }
    }

    /// The 101 is queued.
    pub(super) fn note_upgrade(&mut self, conn: &mut Conn<'_>, head_bytes: usize) {
        let Some(mut made) = self.watch.as_mut().and_then(|watch| watch.making.take()) else { return };
        let head_bytes = head_bytes as u64;
        let status = Some(StatusCode::SWITCHING_PROTOCOLS);
        let figures = &mut made.figures;
        (figures.status, figures.outcome) = (status, Outcome::Upgraded);
        (figures.bytes_out, figures.head_bytes_out) = (head_bytes, head_bytes);
        self.show(conn, &made);
        self.let_go_of(conn, made);
    }

    /// It was answered with an error instead, which was just written.
    pub(super) fn note_declined_upgrade(&mut self, conn: &mut Conn<'_>) {
        let Some(mut made) = self.watch.as_mut().and_then(|watch| watch.making.take()) else { return };
        let written = self.worker.written.get();
        let figures = &mut made.figures;
        (figures.status, figures.outcome) = (written.status, Outcome::Refused(Refusal::UpgradeTooLate));
        (figures.bytes_out, figures.head_bytes_out) = (written.bytes, u64::from(written.head_bytes));
        made.cause = self.worker.cause.take();
        self.show(conn, &made);
        self.let_go_of(conn, made);
    }

    /// All that was queued has left.
    #[inline]
    pub(super) fn note_flushed(&mut self, conn: &mut Conn<'_>) {
        if self.watch.as_ref().is_some_and(|watch| !watch.unsent.is_empty()) && conn.queued_bytes() == 0 {
            self.show_sent(conn);
        }
    }

    fn show_sent(&mut self, conn: &mut Conn<'_>) {
        let Some(watch) = &mut self.watch else { return };
        for made in std::mem::take(&mut watch.unsent) {
            self.show(conn, &made);
            self.let_go_of(conn, made);
        }
    }

    /// The answer at hand is given up.
    #[cold]
    pub(super) fn note_break_off(&mut self, conn: &mut Conn<'_>, phase: &Phase, outcome: Outcome) {
        let Some(watch) = &mut self.watch else { return };
        if let Some(mut made) = watch.making.take() {
            made.figures.outcome = outcome;
            self.show(conn, &made);
            self.let_go_of(conn, made);
        } else if let Phase::Waiting(waiting) = phase
            && let Some(request) = waiting.request()
        {
            let figures = watch.end(conn.now(), waiting.route(), Written::default(), outcome);
            show(&self.worker, &figures, &request, None, conn.now());
            count_panics(&self.worker, conn);
        }
    }

    /// The connection is gone, and what was under way with it.
    #[cold]
    pub(super) fn note_lost(&mut self, reason: &Lost, commands: &Commands) {
        let Some(mut watch) = self.watch.take() else { return };
        let worker = &self.worker;
        let whose = match reason {
            Lost::Cut => Outcome::Cut,
            Lost::Panicked => Outcome::Panicked,
            Lost::FileFailed(_) => Outcome::BrokenOff,
            _ => Outcome::Abandoned,
        };
        for made in std::mem::take(&mut watch.unsent) {
            let now = commands.now().unwrap_or(made.figures.answered);
            // One that goes on in another process has sent all of its answers.
            let is_whole = matches!(reason, Lost::Closed | Lost::HandedOver);
            let outcome = if is_whole { made.figures.outcome } else { whose };
            show(worker, &made.ends(outcome), &made.request, made.cause.as_deref(), now);
            worker.let_go(made);
        }
        // What we have ended ourselves was ended by a command.
        let ended = if matches!(reason, Lost::Closed | Lost::Reset) { Outcome::BrokenOff } else { whose };
        if let Some(made) = watch.making.take() {
            let now = commands.now().unwrap_or(made.figures.answered);
            let is_known = made.figures.outcome != Outcome::Answered;
            let outcome = if is_known { made.figures.outcome } else { ended };
            show(worker, &made.ends(outcome), &made.request, made.cause.as_deref(), now);
            worker.let_go(made);
        }
        let Some(now) = commands.now().or(watch.begun.map(|begun| begun.at)) else { return };
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Waiting(waiting) => {
                if let Some(request) = waiting.request() {
                    let figures = watch.end(now, waiting.route(), Written::default(), ended);
                    show(worker, &figures, &request, None, now);
                }
                // It goes with the connection, as one that nobody watches does: if it panics, that is counted.
                self.phase = Phase::Waiting(waiting);
            }
            Phase::Upload(upload) => {
                // It is the client who owes the rest.
                let outcome = if whose == Outcome::Cut { whose } else { Outcome::Abandoned };
                let figures = watch.end(now, upload.exchange().route, Written::default(), outcome);
                let request = upload.into_request(self.peer.clone());
                show(worker, &figures, &request, None, now);
                worker.let_go(request);
            }
            other => self.phase = other,
        }
    }

    fn let_go_of(&self, conn: &mut Conn<'_>, made: Made) {
        super::answer::let_go(conn, made);
    }
}
