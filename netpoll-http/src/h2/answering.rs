//! From the fields of a request to its answer: the same decisions as in HTTP/1.1, in the same order, by the same service.
//!
//! What can be said from the head alone is decided where the frame is read, in the callback of the connection. The rest, whatever waits for
//! a body, a hook or a handler, is the future of this request, in a task of its own.
//!
//! Invariant: hooks are asked first, a handler is called once at most, and there is one answer; or the stream is reset, so that its client
//! does not take what there is for the whole.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::StatusCode;
use hyper::body::{Body, Incoming};
use netpoll_core::Held;
use netpoll_core::time::{self, Sleep};

use super::head::{self, Read};
use super::intake::{Ends, Intake, Reads};
use super::line::Line;
use super::outgoing::{BrokenOff, Outgoing, Source};
use super::tale::{Tale, Written};
use crate::h1::shared::{Plan, ask_hooks, plan, short_of_memory, wire_error};
use crate::h1::{BeforeFuture, Outcome, Refusal, Route, Service};
use crate::message::{
    BodyError, BodyReader, Delivery, Error, Futures, OpenSink, Origin, Owned, Params, Pending, Request,
    Response, ResponseError, Rest, RouteId, Unread, dropped, guarded_or_told, too_late_to_switch,
};
use crate::wire::{Framing, Head, HeadIndex, Trailers};

/// Requests up to this size are as small as what they cost anyway.
const UNCOUNTED_BYTES_MAX: usize = 4096;

/// The most that room is made for beyond what is needed.
const AHEAD_BYTES_MAX: usize = 256 * 1024;

/// The answer to a request.
pub(super) type Answer<S> = Result<hyper::Response<Outgoing<S>>, BrokenOff>;

/// The future of one.
pub(super) type Answering<S> = Pin<Box<dyn Future<Output = Answer<S>>>>;

/// Bytes that count in the worker's budget.
struct Collected {
    bytes: Vec<u8>,
    held: Option<Held>,
}

impl AsRef<[u8]> for Collected {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Collected {
    /// Bytes that are there.
    fn new<S: Service>(line: &Line<S>, bytes: Vec<u8>) -> Self {
        let mut collected = Self { bytes, held: None };
        collected.count(line, 0);
        collected
    }

    /// Counts what there is room for, beside what was counted before.
    fn count<S: Service>(&mut self, line: &Line<S>, before: usize) {
        let capacity = self.bytes.capacity();
        match &mut self.held {
            Some(held) => held.grow(capacity - before),
            None if capacity > UNCOUNTED_BYTES_MAX => {
                self.held.insert(line.hold_memory()).grow(capacity);
            }
            None => {}
        }
    }

    /// Appends more. False if there is no memory for it.
    fn append<S: Service>(&mut self, line: &Line<S>, more: &[u8], expected: u64) -> bool {
        if more.len() > self.bytes.capacity() - self.bytes.len() {
            let ahead = (self.bytes.len() / 2).min(AHEAD_BYTES_MAX);
            let room = more.len().max(usize::try_from(expected).unwrap_or(usize::MAX).min(ahead));
            let before = self.bytes.capacity();
            if line.is_short() || self.bytes.try_reserve_exact(room).is_err() {
                return false;
            }
            self.count(line, before);
        }
        self.bytes.extend_from_slice(more);
        true
    }

    fn into_bytes(self) -> Bytes {
        if self.held.is_some() { Bytes::from_owner(self) } else { Bytes::from(self.bytes) }
    }
}

/// Something of the program, whose destructor may panic.
struct Careful<S: Service, T> {
    value: Option<T>,
    line: Rc<Line<S>>,
}

impl<S: Service, T> Careful<S, T> {
    fn new(line: &Rc<Line<S>>, value: T) -> Self {
        Self { value: Some(value), line: Rc::clone(line) }
    }
}

impl<S: Service, T> Drop for Careful<S, T> {
    fn drop(&mut self) {
        if !dropped(self.value.take()) {
            self.line.note_panic();
        }
    }
}

/// Begins with a request: what is done is decided, and nothing of its body was looked at.
pub(super) fn begin<S: Service>(
    line: &Rc<Line<S>>,
    request: hyper::Request<Incoming>,
) -> (Rc<Tale<S>>, Answering<S>) {
    let (parts, incoming) = request.into_parts();
    let has_body = !incoming.is_end_stream();
    let Read { bytes, index, refused } = head::read(&parts, &line.worker.wire_limits, has_body);
    let now = time::now();
    if let Some((error, is_seen)) = refused {
        let request = if is_seen {
            let head = Head::new(&bytes, &index);
            let (params, extensions) = (Params::new(), line.known());
            let origin = Origin { peer: &line.peer, arrived: now, extensions: &extensions };
            Request::borrowed(&head, &params, &[], origin).to_owned()
        } else {
            Unread::new(&line.peer, now).show(|request| request.to_owned())
        };
        let tale = Tale::new(line, request, None, false);
        let refusal = Outcome::Refused(Refusal::of(wire_error(error).status()));
        let answered = Rc::clone(&tale);
        let ends = Ends(Intake::new(&tale, incoming, 0));
        let answering = async move {
            let _ends = ends;
            refuse(&answered, refusal, wire_error(error))
        };
        return (tale, Box::pin(answering));
    }
    let worker = &line.worker;
    let head = Head::new(&bytes, &index);
    let (mut params, mut extensions) = (Params::new(), line.known());
    extensions.find_out(worker.service.names(), &head);
    let found = guarded_or_told(
        || worker.service.find(head.method_name(), head.path_bytes(), &mut params),
        |said| worker.note_panic(said),
    );
    let route = if let Some(Route::To(route)) = found { Some(route) } else { None };
    let head_bytes = bytes.len();
    let request = Request::from(Owned {
        bytes: Collected::new(line, bytes).into_bytes(),
        head_bytes,
        index,
        params,
        trailers: Trailers::default(),
        peer: line.peer.clone(),
        arrived: now,
        extensions,
    });
    let tale = Tale::new(line, request.clone(), route, true);
    let look = || {
        let found = found?;
        Some(
            ask_hooks(worker, route, &request)
                .unwrap_or_else(|| plan(worker, found, &request.head(), &request, 0)),
        )
    };
    let plan = guarded_or_told(look, |said| worker.note_panic(said)).flatten();
    let answering = answer(Rc::clone(&tale), plan.unwrap_or(Plan::Apologise), incoming);
    (tale, Box::pin(answering))
}

/// Answers with an error of ours.
fn refuse<S: Service>(tale: &Rc<Tale<S>>, outcome: Outcome, error: Error) -> Answer<S> {
    let written = tale.write(outcome, |reply| reply.fail(error));
    finish(tale, written, None)
}

fn apology() -> Error {
    Error::from(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Does what was decided.
async fn answer<S: Service>(tale: Rc<Tale<S>>, mut plan: Plan, incoming: Incoming) -> Answer<S> {
    let line = Rc::clone(&tale.line);
    if let Plan::Ask = plan {
        let Some(asked) = ask(&tale).await else {
            return refuse(&tale, Outcome::Refused(Refusal::HandlerLate), late());
        };
        plan = asked;
    }
    let bytes_max = match plan {
        Plan::Receive(_, usize::MAX, _) => u64::MAX,
        Plan::Receive(_, bytes_max, _) | Plan::Drop(_, bytes_max) => bytes_max as u64,
        _ => 0,
    };
    let intake = Intake::new(&tale, incoming, bytes_max);
    let ends = Ends(Rc::clone(&intake));
    match plan {
        Plan::Answer(answer) => {
            let written = tale.write(Outcome::Answered, |reply| match answer {
                Ok(response) => reply.send(response),
                Err(error) => reply.fail(error),
            });
            settle(&tale, written, None).await
        }
        Plan::Refuse(error) => refuse(&tale, Outcome::Refused(Refusal::of(error.status())), error),
        // Hooks are asked once.
        Plan::Apologise | Plan::Ask => {
            line.note_panic();
            refuse(&tale, Outcome::Panicked, apology())
        }
        Plan::Call(route, _) => call(&tale, route).await,
        Plan::Drop(route, _) => match swallow(&intake).await {
            Ok(()) => call(&tale, route).await,
            Err(error) => refuse_body(&tale, error),
        },
        Plan::Receive(route, _, Delivery::Whole) => match collect(&tale, &intake).await {
            Ok(()) => call(&tale, route).await,
            Err(error) => refuse_body(&tale, error),
        },
        Plan::Receive(route, _, Delivery::Reader) => read(&tale, route, &intake, ends).await,
        Plan::Receive(route, _, Delivery::Sink) => pour(&tale, route, &intake).await,
    }
}

/// What hooks that may wait have come to.
enum Asked {
    Decided(Option<Result<Response, Error>>),
    Panicked,
    Late,
}

/// Lets hooks decide that may have to wait, and then decides what they leave open. `None` if they are late.
async fn ask<S: Service>(tale: &Rc<Tale<S>>) -> Option<Plan> {
    let (line, request) = (&tale.line, tale.request());
    let worker = &line.worker;
    let route = tale.route();
    let before = || worker.service.before_async(route, request.clone());
    let Some(before) = guarded_or_told(before, |said| worker.note_panic(said)) else {
        return Some(Plan::Apologise);
    };
    let mut before: Careful<S, BeforeFuture> = Careful::new(line, before);
    let mut timer = time::sleep(worker.handler_timeout_apart(route));
    let decided = poll_fn(|context| {
        let Some(future) = &mut before.value else { unreachable!("it is there until it is dropped") };
        let poll = || future.as_mut().poll(context);
        match guarded_or_told(poll, |said| worker.note_panic(said)) {
            None => return Poll::Ready(Asked::Panicked),
            Some(Poll::Ready(decided)) => return Poll::Ready(Asked::Decided(decided)),
            Some(Poll::Pending) => {}
        }
        Pin::new(&mut timer).poll(context).map(|()| Asked::Late)
    });
    match decided.await {
        Asked::Panicked => Some(Plan::Apologise),
        Asked::Late => None,
        Asked::Decided(Some(answer)) => Some(Plan::Answer(answer)),
        Asked::Decided(None) => {
            let head = request.head();
            let look = || {
                let found = worker.service.find(head.method_name(), head.path_bytes(), &mut Params::new());
                plan(worker, found, &head, &request, 0)
            };
            Some(guarded_or_told(look, |said| worker.note_panic(said)).unwrap_or(Plan::Apologise))
        }
    }
}

fn late() -> Error {
    Error::new(StatusCode::SERVICE_UNAVAILABLE, "the answer took too long to make")
        .with_source("the handler was dropped at its deadline")
}

/// Calls a handler, whose request has all of its body.
async fn call<S: Service>(tale: &Rc<Tale<S>>, route: RouteId) -> Answer<S> {
    let request = tale.request();
    tale.set_route(Some(route));
    tale.call();
    let written =
        tale.write(Outcome::Answered, |reply| tale.line.worker.service.call(route, &request, reply));
    drop(request);
    settle(tale, written, None).await
}

/// Calls a handler that reads the body while it arrives.
async fn read<S: Service>(
    tale: &Rc<Tale<S>>,
    route: RouteId,
    intake: &Rc<Intake<S>>,
    ends: Ends<S>,
) -> Answer<S> {
    let request = tale.request();
    let length = match request.head().framing {
        Framing::Length(length) => Some(length),
        _ => None,
    };
    let body = BodyReader::fetched(Box::new(Reads(Rc::clone(intake))), length);
    tale.set_route(Some(route));
    tale.call();
    let worker = &tale.line.worker;
    let written =
        tale.write(Outcome::Answered, |reply| worker.service.call_reading(route, &request, body, reply));
    drop(request);
    settle(tale, written, Some(ends)).await
}

/// A copy of a head.
fn head_of(request: &Request<'_>) -> (Vec<u8>, HeadIndex) {
    let head = request.head();
    (head.bytes.to_vec(), head.index().clone())
}

/// Takes all of a body, for its handler.
async fn collect<S: Service>(tale: &Rc<Tale<S>>, intake: &Rc<Intake<S>>) -> Result<(), BodyError> {
    let line = &tale.line;
    let request = tale.request();
    let (head, index) = head_of(&request);
    let head_bytes = head.len();
    let length = match request.head().framing {
        Framing::Length(length) => length,
        _ => 0,
    };
    let mut collected = Collected::new(line, head);
    while let Some(piece) = poll_fn(|context| intake.poll_piece(context)).await? {
        let arrived = (collected.bytes.len() - head_bytes + piece.len()) as u64;
        if !collected.append(line, &piece, length.saturating_sub(arrived)) {
            line.note_overflow();
            return Err(BodyError::ShortOfMemory);
        }
    }
    let whole = Request::from(Owned {
        bytes: collected.into_bytes(),
        head_bytes,
        index,
        params: *request.params(),
        trailers: intake.take_trailers(),
        peer: line.peer.clone(),
        arrived: request.arrived(),
        extensions: request.extensions().clone(),
    });
    drop(request);
    tale.set_request(&whole);
    Ok(())
}

/// Takes all of a body that nobody wants.
async fn swallow<S: Service>(intake: &Rc<Intake<S>>) -> Result<(), BodyError> {
    while poll_fn(|context| intake.poll_piece(context)).await?.is_some() {}
    Ok(())
}

/// The answer to a body that is not going to be whole.
fn refuse_body<S: Service>(tale: &Rc<Tale<S>>, error: BodyError) -> Answer<S> {
    let refused = match error {
        BodyError::Left => {
            // Nobody is there.
            return Err(BrokenOff);
        }
        BodyError::ShortOfMemory => short_of_memory(),
        error => Error::new(error.status(), error.to_string()),
    };
    refuse(tale, Outcome::Refused(Refusal::of(error.status())), refused)
}

/// A sink that is told of the end, whatever that is.
struct Sink<S: Service>(Option<OpenSink>, Rc<Line<S>>);

impl<S: Service> Sink<S> {
    fn fail(&mut self, error: BodyError) {
        if let Some(sink) = self.0.take()
            && guarded_or_told(|| sink.failed(error), |said| self.1.worker.note_panic(said)).is_none()
        {
            self.1.note_panic();
        }
    }
}

impl<S: Service> Drop for Sink<S> {
    fn drop(&mut self) {
        self.fail(BodyError::Left);
    }
}

/// Hands a body on while it arrives.
async fn pour<S: Service>(tale: &Rc<Tale<S>>, route: RouteId, intake: &Rc<Intake<S>>) -> Answer<S> {
    let line = &tale.line;
    let worker = &line.worker;
    let request = tale.request();
    tale.set_route(Some(route));
    let open = || worker.service.open_sink(route, &request);
    let mut sink = match guarded_or_told(open, |said| worker.note_panic(said)) {
        Some(Ok(sink)) => Sink(Some(sink), Rc::clone(line)),
        Some(Err(error)) => {
            let written = tale.write(Outcome::Answered, |reply| reply.fail(error));
            return settle(tale, written, None).await;
        }
        None => {
            line.note_panic();
            return refuse(tale, Outcome::Panicked, apology());
        }
    };
    loop {
        match poll_fn(|context| intake.poll_piece(context)).await {
            Ok(Some(piece)) => {
                let Some(open) = &mut sink.0 else { unreachable!("it is there until the end") };
                match guarded_or_told(|| open.chunk(&piece), |said| worker.note_panic(said)) {
                    Some(Ok(())) => {}
                    Some(Err(error)) => {
                        // Nothing else of it is called.
                        if !dropped(sink.0.take()) {
                            line.note_panic();
                        }
                        let written = tale.write(Outcome::Answered, |reply| reply.fail(error));
                        return settle(tale, written, None).await;
                    }
                    None => {
                        line.note_panic();
                        if !dropped(sink.0.take()) {
                            line.note_panic();
                        }
                        return refuse(tale, Outcome::Panicked, apology());
                    }
                }
            }
            Ok(None) => break,
            Err(error) => {
                sink.fail(error);
                return refuse_body(tale, error);
            }
        }
    }
    let whole = with_trailers(&request, intake.take_trailers());
    drop(request);
    tale.set_request(&whole);
    tale.call();
    let Some(open) = sink.0.take() else { unreachable!("it is there until the end") };
    let written = tale.write(Outcome::Answered, |reply| open.end(&whole, reply));
    drop(whole);
    settle(tale, written, None).await
}

/// The same request with what came behind its body.
fn with_trailers(request: &Request<'static>, trailers: Trailers) -> Request<'static> {
    let (head, index) = head_of(request);
    Request::from(Owned {
        head_bytes: head.len(),
        bytes: Bytes::from(head),
        index,
        params: *request.params(),
        trailers,
        peer: request.peer().clone(),
        arrived: request.arrived(),
        extensions: request.extensions().clone(),
    })
}

/// Does what is left of an answer.
async fn settle<S: Service>(tale: &Rc<Tale<S>>, mut written: Written, ends: Option<Ends<S>>) -> Answer<S> {
    if let Rest::Future(pending) = written.rest {
        let intake = ends.as_ref().map(|ends| Rc::clone(&ends.0));
        written = wait(tale, pending, intake.as_deref()).await?;
    }
    finish(tale, written, ends)
}

/// Waits for a handler.
async fn wait<S: Service>(
    tale: &Rc<Tale<S>>,
    pending: Pending,
    intake: Option<&Intake<S>>,
) -> Result<Written, BrokenOff> {
    let line = &tale.line;
    let worker = &line.worker;
    let timeout = worker.handler_timeout_apart(tale.route());
    let mut timer = time::sleep(timeout);
    let mut looks = 0;
    let mut pending = Careful::new(line, pending);
    let done = poll_fn(|context| {
        let Some(future) = &mut pending.value else { unreachable!("it is there until it is dropped") };
        match guarded_or_told(|| future.poll(context), |said| worker.note_panic(said)) {
            None => return Poll::Ready(Some(None)),
            Some(Poll::Ready(done)) => return Poll::Ready(Some(Some(done))),
            Some(Poll::Pending) => {}
        }
        poll_time(context, &mut timer, timeout, intake, &mut looks).map(|()| None)
    });
    let (outcome, answer) = match done.await {
        // A handler is no hook.
        Some(Some(Futures::Asked(_))) | Some(None) => {
            line.note_panic();
            (Outcome::Panicked, Err(apology()))
        }
        Some(Some(Futures::Answered(answer))) => match intake.and_then(Intake::failure) {
            Some(BodyError::Left) => {
                // The request was never there, and nobody waits for an answer.
                drop(Careful::new(line, answer));
                return Err(BrokenOff);
            }
            None | Some(BodyError::Answered) => (Outcome::Answered, Ok(answer)),
            Some(error) => (Outcome::Refused(Refusal::of(error.status())), Ok(answer)),
        },
        None => (Outcome::Refused(Refusal::HandlerLate), Err(late())),
    };
    let asked = match &answer {
        Ok(_) => pending.value.as_mut().and_then(Pending::take_asked),
        Err(_) => None,
    };
    let written = tale.write(outcome, |reply| match answer {
        Ok(answer) => answer.respond(reply.with_asked(asked)),
        Err(error) => reply.fail(error),
    });
    drop(pending);
    Ok(written)
}

/// Ready when a handler has had its time: that from its call, or, if it reads, anew whenever it looks for more, and not while it waits for
/// the client.
fn poll_time<S: Service>(
    context: &mut Context<'_>,
    timer: &mut Sleep,
    timeout: std::time::Duration,
    intake: Option<&Intake<S>>,
    looks: &mut u32,
) -> Poll<()> {
    if let Some(intake) = intake
        && (intake.is_waited_for() || std::mem::replace(looks, intake.looks()) != intake.looks())
    {
        timer.reset(time::now().saturating_add(timeout));
        if intake.is_waited_for() {
            return Poll::Pending;
        }
    }
    Pin::new(timer).poll(context)
}

/// Turns what was written into fields and what follows them.
fn finish<S: Service>(tale: &Rc<Tale<S>>, mut written: Written, ends: Option<Ends<S>>) -> Answer<S> {
    if let Rest::Upgrade(_) = written.rest {
        // Nobody could ask for it, so a handler has kept that of another request.
        drop(Careful::new(&tale.line, std::mem::replace(&mut written.rest, Rest::Nothing)));
        let refusal = Outcome::Refused(Refusal::UpgradeTooLate);
        written = tale.write(refusal, |reply| reply.fail(too_late_to_switch()));
    }
    let Written { mut bytes, head_bytes, rest } = written;
    let body = bytes.split_off(head_bytes);
    let (status, fields) = head::fields(&bytes);
    tale.head(status, head_bytes);
    let (source, ends) = match rest {
        Rest::Nothing | Rest::Coded(_) | Rest::Upgrade(_) | Rest::Future(_) => {
            (Source::Bytes(Bytes::from(body)), None)
        }
        Rest::Static(bytes) => (Source::Static(Bytes::from_static(bytes)), None),
        Rest::Shared(bytes) => (Source::Bytes(bytes), None),
        Rest::File(range) => (Source::File(range, 0), None),
        Rest::Stream(outflow) => (Source::Stream(outflow), ends),
    };
    let mut response = hyper::Response::new(Outgoing::new(Rc::clone(tale), source, ends));
    *response.status_mut() = status;
    *response.headers_mut() = fields;
    Ok(response)
}
