//! One request, from its head to the end of its answer: what is known of it, and what is told of it in the end.
//!
//! The future that answers, the body of the answer and the task that has both share it.
//!
//! Invariant: dropped once, with the last of them, and told then. It has been sent if all of its answer was handed on; if not, whoever
//! broke it off has said so, or its client has left.

use std::cell::{Cell, OnceCell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::StatusCode;
use netpoll_core::Instant;
use netpoll_core::time::{self, Sleep};

use super::line::Line;
use crate::h1::shared::{Figures, show};
use crate::h1::{Outcome, Service};
use crate::message::{Cause, Replied, Reply, Request, Rest, RouteId, dropped};
use crate::wire::Method;

/// What was handed on of the body of one answer: its pieces outlive the task that has made them, where frames are written.
#[derive(Default)]
pub(super) struct Leaving {
    /// Bytes that have not been written.
    left_bytes: Cell<u64>,
    written_bytes: Cell<u64>,
    /// Some of them never will be.
    is_lost: Cell<bool>,
}

impl Leaving {
    pub(super) fn left_bytes(&self) -> u64 {
        self.left_bytes.get()
    }

    fn hand(&self, bytes: u64) {
        self.left_bytes.set(self.left_bytes.get() + bytes);
    }

    pub(super) fn wrote(&self, bytes: usize) {
        self.left_bytes.set(self.left_bytes.get() - bytes as u64);
        self.written_bytes.set(self.written_bytes.get() + bytes as u64);
    }

    pub(super) fn lost(&self, bytes: usize) {
        if bytes > 0 {
            self.left_bytes.set(self.left_bytes.get() - bytes as u64);
            self.is_lost.set(true);
        }
    }
}

pub(super) struct Tale<S: Service> {
    pub(super) line: Rc<Line<S>>,
    /// The latest form of the request, with its body if that was received first.
    request: RefCell<Option<Request<'static>>>,
    figures: Cell<Figures>,
    cause: RefCell<Option<Cause>>,
    head_only: bool,
    /// All of its answer was handed on.
    is_sent: Cell<bool>,
    /// What it comes to otherwise, if somebody of ours has broken it off.
    failure: Cell<Option<Outcome>>,
    /// Its task has come to an end, and was not dropped.
    has_ended: Cell<bool>,
    /// When all was handed on, or it was broken off.
    ended: Cell<Instant>,
    /// What of its answer was handed on.
    leaving: OnceCell<Rc<Leaving>>,
    /// Some of it was handed on, and it is for the client to take it.
    waits_for_client: Cell<bool>,
}

/// An answer as it was written, and what is not.
pub(super) struct Written {
    pub(super) bytes: Vec<u8>,
    pub(super) head_bytes: usize,
    pub(super) rest: Rest,
}

impl<S: Service> Tale<S> {
    pub(super) fn new(
        line: &Rc<Line<S>>,
        request: Request<'static>,
        route: Option<RouteId>,
        counts: bool,
    ) -> Rc<Self> {
        line.begin(counts);
        let now = time::now();
        let figures = Figures {
            route,
            status: None,
            outcome: Outcome::Answered,
            bytes_in: request.head().bytes.len() as u64,
            bytes_out: 0,
            head_bytes_out: 0,
            unix_seconds: line.unix_seconds(),
            began: now,
            called: now,
            answered: now,
        };
        let head_only = request.head().method == Method::Head;
        Rc::new(Self {
            line: Rc::clone(line),
            request: RefCell::new(Some(request)),
            figures: Cell::new(figures),
            cause: RefCell::new(None),
            head_only,
            is_sent: Cell::new(false),
            failure: Cell::new(None),
            has_ended: Cell::new(false),
            ended: Cell::new(now),
            leaving: OnceCell::new(),
            waits_for_client: Cell::new(false),
        })
    }

    fn change(&self, change: impl FnOnce(&mut Figures)) {
        let mut figures = self.figures.get();
        change(&mut figures);
        self.figures.set(figures);
    }

    /// The request as it is known now.
    pub(super) fn request(&self) -> Request<'static> {
        self.request.borrow().clone().expect("it is there until the end")
    }

    /// The same with its body.
    pub(super) fn set_request(&self, request: &Request<'static>) {
        let before = self.request.replace(Some(request.clone()));
        if !dropped(before) {
            self.line.note_panic();
        }
    }

    pub(super) fn route(&self) -> Option<RouteId> {
        self.figures.get().route
    }

    pub(super) fn set_route(&self, route: Option<RouteId>) {
        self.change(|figures| figures.route = route);
    }

    /// So much of its body has come.
    pub(super) fn came(&self, bytes: usize) {
        self.change(|figures| figures.bytes_in += bytes as u64);
    }

    /// Its handler is called.
    pub(super) fn call(&self) {
        let now = time::now();
        self.change(|figures| figures.called = now);
    }

    /// Lets `answer` write what is to leave. What it comes to if that does.
    pub(super) fn write(&self, outcome: Outcome, answer: impl FnOnce(Reply<'_>) -> Replied) -> Written {
        let Line { worker, .. } = &*self.line;
        let (mut bytes, mut rest) = (Vec::new(), Rest::Nothing);
        let request = self.request();
        let asks = (self.figures.get().route, self.head_only);
        let seconds = self.line.unix_seconds();
        // Others on this worker count their own.
        worker.take_coded_bytes();
        let (head_bytes, panics) = worker.write_apart(seconds, asks, &request, &mut rest, &mut bytes, answer);
        worker.owe(worker.take_coded_bytes());
        if !dropped(request) {
            self.line.note_panic();
        }
        self.line.note_panics(panics);
        if let Some(cause) = worker.take_cause() {
            self.cause.replace(Some(cause));
        }
        let outcome = if panics > 0 { Outcome::Panicked } else { outcome };
        let now = time::now();
        self.change(|figures| (figures.outcome, figures.answered) = (outcome, now));
        Written { bytes, head_bytes, rest }
    }

    /// The head of its answer is about to leave.
    pub(super) fn head(&self, status: StatusCode, bytes: usize) {
        self.change(|figures| {
            figures.status = Some(status);
            (figures.bytes_out, figures.head_bytes_out) = (bytes as u64, bytes as u64);
        });
    }

    /// So much more of its body is handed on. Where it says what becomes of it.
    pub(super) fn hand(&self, bytes: usize) -> Rc<Leaving> {
        self.change(|figures| figures.bytes_out += bytes as u64);
        self.waits_for_client.set(true);
        let leaving = self.leaving.get_or_init(Rc::default);
        leaving.hand(bytes as u64);
        Rc::clone(leaving)
    }

    /// Its answer waits for the program, or there is no more of it.
    pub(super) fn waits_for_program(&self) {
        self.waits_for_client.set(false);
    }

    /// All of it was handed on.
    pub(super) fn is_whole(&self) {
        self.is_sent.set(true);
        self.ended.set(time::now());
    }

    /// Its answer is not going to be whole, or there is none.
    pub(super) fn breaks_off(&self, outcome: Outcome) {
        self.failure.set(Some(outcome));
        if let Some(cause) = self.line.worker.take_cause() {
            self.cause.replace(Some(cause));
        }
    }

    /// Its task has come to an end.
    pub(super) fn end(&self) {
        self.has_ended.set(true);
        if !self.is_sent.get() {
            self.ended.set(time::now());
        }
        if let Some(leaving) = self.leaving.get()
            && leaving.left_bytes() > 0
        {
            self.line.leaves_behind(leaving);
        }
    }

    /// Ready when its client's windows have not let enough of the answer leave for too long: at the rate that goes for connections.
    pub(super) fn poll_stalled(
        &self,
        context: &mut Context<'_>,
        timer: &mut Option<Sleep>,
        seen_bytes: &mut u64,
    ) -> Poll<()> {
        if !self.waits_for_client.get() {
            *timer = None;
            return Poll::Pending;
        }
        let written_bytes = self.leaving.get().map_or(0, |leaving| leaving.written_bytes.get());
        let Line { write_grace, least_taken_bytes, .. } = *self.line;
        let sleep = timer.get_or_insert_with(|| {
            *seen_bytes = written_bytes;
            time::sleep(write_grace)
        });
        while Pin::new(&mut *sleep).poll(context).is_ready() {
            if written_bytes - *seen_bytes < least_taken_bytes && !self.line.is_backed_up() {
                self.is_sent.set(false);
                return Poll::Ready(());
            }
            *seen_bytes = written_bytes;
            sleep.reset(time::now().saturating_add(write_grace));
        }
        Poll::Pending
    }
}

impl<S: Service> Drop for Tale<S> {
    fn drop(&mut self) {
        let line = &self.line;
        let is_lost = self.leaving.get().is_some_and(|leaving| leaving.is_lost.get());
        let outcome = match (self.is_sent.get() && !is_lost, self.failure.get()) {
            (true, _) => self.figures.get().outcome,
            (false, Some(failure)) => failure,
            (false, None) if line.is_stopping() && !self.has_ended.get() => Outcome::Cut,
            (false, None) => {
                line.note_abandoned();
                Outcome::Abandoned
            }
        };
        let Some(request) = self.request.take() else { return };
        if line.worker.is_watched() {
            let figures = Figures { outcome, ..self.figures.get() };
            // Where a worker drops its tasks there may be no clock any more.
            let now = figures.answered.max(self.ended.get());
            let cause = self.cause.take();
            show(&line.worker, &figures, &request, cause.as_deref(), now);
        }
        if !dropped(request) {
            line.note_panic();
        }
        line.end();
    }
}
