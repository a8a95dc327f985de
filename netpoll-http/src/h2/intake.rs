//! A body that is asked for: what the client has sent ahead waits where the frames are read, up to the window, and the window opens as it is taken.
//!
//! While somebody waits for more, and nothing is there, the client's time runs; what it has been given adds up over all such times.
//!
//! Invariant: nothing is borrowed while somebody's waker is woken, cloned or dropped. The end comes once, and stays what it is.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use netpoll_core::Instant;
use netpoll_core::time::{self, Sleep};

use super::line::Line;
use super::tale::Tale;
use crate::h1::Service;
use crate::message::{BodyError, Fetch, wake};
use crate::wire::Trailers;

/// Bytes of the fields behind a body: as of HTTP/1.1.
const TRAILER_BYTES_MAX: usize = 4096;

pub(super) struct Intake<S: Service> {
    line: Rc<Line<S>>,
    /// Whose body it is: a reader may outlive it.
    tale: Weak<Tale<S>>,
    incoming: RefCell<Option<Incoming>>,
    /// It is there, and counts among the open bodies of the connection.
    is_open: Cell<bool>,
    trailers: RefCell<Trailers>,
    end: Cell<Option<Result<(), BodyError>>>,
    bytes_max: u64,
    arrived_bytes: Cell<u64>,
    /// Of these, what had come at the last look at its rate.
    seen_bytes: Cell<u64>,
    /// Since when somebody waits, if so.
    wanted_since: Cell<Option<Instant>>,
    /// How long somebody has waited since the last look, before that.
    wanted_for: Cell<Duration>,
    /// How long it was waited for while others might have been the reason.
    pardoned_for: Cell<Duration>,
    timer: RefCell<Option<Sleep>>,
    /// How often somebody has looked for more.
    looks: Cell<u32>,
    waiter: RefCell<Option<Waker>>,
}

impl<S: Service> Intake<S> {
    pub(super) fn new(tale: &Rc<Tale<S>>, incoming: Incoming, bytes_max: u64) -> Rc<Self> {
        let is_open = !incoming.is_end_stream();
        if is_open {
            tale.line.opens_body();
        }
        Rc::new(Self {
            is_open: Cell::new(is_open),
            line: Rc::clone(&tale.line),
            tale: Rc::downgrade(tale),
            incoming: RefCell::new(Some(incoming)),
            trailers: RefCell::default(),
            end: Cell::new(None),
            bytes_max,
            arrived_bytes: Cell::new(0),
            seen_bytes: Cell::new(0),
            wanted_since: Cell::new(None),
            wanted_for: Cell::new(Duration::ZERO),
            pardoned_for: Cell::new(Duration::ZERO),
            timer: RefCell::new(None),
            looks: Cell::new(0),
            waiter: RefCell::new(None),
        })
    }

    /// How often somebody has looked for more; it may go round.
    pub(super) fn looks(&self) -> u32 {
        self.looks.get()
    }

    /// Somebody waits for the client.
    pub(super) fn is_waited_for(&self) -> bool {
        self.wanted_since.get().is_some()
    }

    /// Why it is not going to be whole.
    pub(super) fn failure(&self) -> Option<BodyError> {
        self.end.get()?.err()
    }

    pub(super) fn take_trailers(&self) -> Trailers {
        self.trailers.take()
    }

    /// It has come to an end, and nothing more of it is taken.
    fn finish(&self, end: Result<(), BodyError>) {
        if self.end.get().is_none() {
            self.end.set(Some(end));
        }
        self.stop_waiting();
        self.discard();
    }

    /// What waits for somebody to take it, and is not going to be taken, is counted as if it were.
    fn discard(&self) {
        let Some(mut incoming) = self.incoming.take() else { return };
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut incoming).poll_frame(&mut context) {
            self.line.took(frame.data_ref().map_or(0, Bytes::len));
        }
        drop(incoming);
        if self.is_open.replace(false) {
            self.line.closes_body();
        }
    }

    /// Nobody waits any more.
    fn stop_waiting(&self) {
        if let Some(since) = self.wanted_since.take() {
            let waited = time::now().duration_since(since);
            self.wanted_for.set(self.wanted_for.get() + waited);
        }
        self.timer.take();
    }

    /// The next piece, which is not empty.
    pub(super) fn poll_piece(&self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyError>> {
        self.looks.set(self.looks.get().wrapping_add(1));
        loop {
            if let Some(end) = self.end.get() {
                return Poll::Ready(end.map(|()| None));
            }
            let Some(mut incoming) = self.incoming.take() else { unreachable!("it is there until the end") };
            let polled = Pin::new(&mut incoming).poll_frame(context);
            self.incoming.replace(Some(incoming));
            let frame = match polled {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(None) => {
                    self.finish(Ok(()));
                    continue;
                }
                // It was taken back, or is not as long as it was said to be.
                Poll::Ready(Some(Err(_))) => {
                    self.finish(Err(BodyError::Left));
                    continue;
                }
                Poll::Pending if self.is_late(context) => {
                    self.finish(Err(BodyError::Late));
                    continue;
                }
                Poll::Pending => {
                    self.wait(context.waker());
                    return Poll::Pending;
                }
            };
            self.stop_waiting();
            match frame.into_data() {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => {
                    self.line.took(bytes.len());
                    if let Some(tale) = self.tale.upgrade() {
                        tale.came(bytes.len());
                    }
                    self.arrived_bytes.set(self.arrived_bytes.get() + bytes.len() as u64);
                    if self.arrived_bytes.get() > self.bytes_max {
                        self.finish(Err(BodyError::TooLarge));
                        continue;
                    }
                    return Poll::Ready(Ok(Some(bytes)));
                }
                Err(frame) => {
                    let Ok(fields) = frame.into_trailers() else { continue };
                    let fields = fields.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
                    match Trailers::of_fields(fields, TRAILER_BYTES_MAX) {
                        Some(trailers) => drop(self.trailers.replace(trailers)),
                        None => self.finish(Err(BodyError::TrailersTooLarge)),
                    }
                }
            }
        }
    }

    /// Whether the client has been too slow, now that somebody waits for it.
    fn is_late(&self, context: &mut Context<'_>) -> bool {
        let limits = &self.line.worker.limits;
        if self.wanted_since.get().is_none() {
            self.wanted_since.set(Some(time::now()));
        }
        let mut timer = self
            .timer
            .take()
            .unwrap_or_else(|| time::sleep(limits.body_grace.saturating_sub(self.wanted_for.get())));
        while Pin::new(&mut timer).poll(context).is_ready() {
            let arrived = self.arrived_bytes.get();
            let is_slow =
                arrived - self.seen_bytes.replace(arrived) < limits.body_bytes_min(limits.body_grace);
            if is_slow && !self.is_pardoned() {
                return true;
            }
            self.wanted_since.set(Some(time::now()));
            self.wanted_for.set(Duration::ZERO);
            timer = time::sleep(limits.body_grace);
        }
        self.timer.replace(Some(timer));
        false
    }

    /// Whether it is not for the client to say why nothing comes. Other handlers may have let its window be used up, which they do for as
    /// long as they may take.
    fn is_pardoned(&self) -> bool {
        let limits = &self.line.worker.limits;
        let pardoned_for = self.pardoned_for.get();
        let is_pardoned = self.line.may_be_shut() && pardoned_for < limits.handler_timeout;
        if is_pardoned {
            self.pardoned_for.set(pardoned_for.saturating_add(limits.body_grace));
        }
        is_pardoned
    }

    /// Remembers who waits.
    fn wait(&self, waker: &Waker) {
        let known = self.waiter.take().filter(|known| known.will_wake(waker));
        let before = self.waiter.replace(Some(known.unwrap_or_else(|| waker.clone())));
        drop(before);
    }
}

/// Ends a body with its answer, when this is dropped.
pub(super) struct Ends<S: Service>(pub(super) Rc<Intake<S>>);

impl<S: Service> Drop for Ends<S> {
    fn drop(&mut self) {
        self.0.finish_dropped();
    }
}

impl<S: Service> Intake<S> {
    /// The same where there may be no clock any more.
    fn finish_dropped(&self) {
        if self.end.get().is_none() {
            self.end.set(Some(Err(BodyError::Answered)));
        }
        self.wanted_since.set(None);
        self.timer.take();
        self.discard();
        // Who waits in a task of its own. If the waker panics it is the program's, and nobody is there to be told.
        if let Some(waker) = self.waiter.take() {
            wake(waker);
        }
    }
}

/// What the reader of a body asks.
pub(super) struct Reads<S: Service>(pub(super) Rc<Intake<S>>);

impl<S: Service> Fetch for Reads<S> {
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyError>> {
        self.0.poll_piece(context)
    }

    fn stop_waiting(&mut self) {
        self.0.stop_waiting();
    }

    fn take_trailers(&mut self) -> Trailers {
        self.0.take_trailers()
    }
}

/// Nobody reads on.
impl<S: Service> Drop for Reads<S> {
    fn drop(&mut self) {
        self.0.wanted_since.set(None);
        self.0.timer.take();
        self.0.discard();
        drop(self.0.waiter.take());
    }
}
