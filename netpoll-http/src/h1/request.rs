//! From a head to its route, its body and its handler.
//!
//! Invariant: a request's head is consumed before its handler runs, and its body either was consumed
//! with it, or is being received, read or skipped, or the connection closes. Body bytes are never parsed as
//! a head.

use std::rc::Rc;

use http::StatusCode;
use netpoll_core::{Conn, Flow, Held, Input};

use super::answer::let_go;
use super::plan::{Plan, ask_hooks, may_skip, plan};
use super::upload::UseOfBody;
use super::{Exchange, Http, Outcome, Phase, Refusal, Route, Service, Step, Worker};
use crate::message::{
    Behind, Body, Delivery, Error, Extensions, Origin, Params, Pending, Replied, Reply, Request, Response,
    Rest, RouteId, Unread, guarded_or_told,
};
use crate::wire::{Framing, Head, Method, Progress, Refused, WireError, response as encode};

impl<S: Service> Http<S> {
    /// Reads a head, and answers it if its body is there as well.
    #[inline]
    pub(super) fn next_request(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Step {
        let worker = Rc::clone(&self.worker);
        let mut reader = worker.heads.borrow_mut();
        let bytes = input.bytes();
        let limits = &worker.wire_limits;
        let head = match reader.parse_whole(bytes, &self.scan, limits) {
            Some(head_len) => Head::new(&bytes[..head_len], reader.index()),
            None => match reader.parse_slowly(bytes, &mut self.scan, limits) {
                Ok(Progress::Done(head)) => head,
                Ok(Progress::Partial { skip }) => {
                    input.advance(skip);
                    return Step::Stop(self.wait_for_head(conn, input.len()));
                }
                Err(_) if self.is_second(conn, bytes) => return self.go_on_in_second(conn),
                Err(Refused { error, head: Some(place) }) => {
                    let head = Head::new(&bytes[place], reader.index());
                    return Step::Stop(self.refuse_read(conn, wire_error(error), &head));
                }
                Err(Refused { error, head: None }) => {
                    let to_head = bytes.trim_ascii_start().starts_with(b"HEAD ");
                    return Step::Stop(self.refuse_unread(conn, error, to_head, bytes.len()));
                }
            },
        };
        input.advance(head.consumed());
        if !matches!(self.phase, Phase::Idle) {
            self.phase = Phase::Idle;
        }
        conn.count_requests(1);

        let mut params = Params::new();
        let mut look_up = || {
            let found = worker.service.find(head.method_name(), head.path_bytes(), &mut params);
            (found, at_hand::<S, false>(&worker, found, &head, input))
        };
        let looked_up = if S::IS_OWN {
            Some(look_up())
        } else {
            guarded_or_told(look_up, |said| worker.note_panic(said))
        };
        let Some((found, at_hand)) = looked_up else {
            conn.count_panic();
            let apology = Error::from(StatusCode::INTERNAL_SERVER_ERROR);
            return Step::Stop(self.refuse_read(conn, apology, &head));
        };
        let Some((route, body_bytes)) = at_hand else {
            return self.serve_otherwise(conn, input, &worker, found, &head, &params);
        };
        if self.watch.is_some() {
            return self.serve_watched::<false>(conn, input, &worker, &head, &params, (route, body_bytes));
        }
        let mut exchange = Exchange::new(&head, Some(route));
        exchange.says_keep_alive |= self.is_first_to_ask(&head);
        let body = &input.bytes()[..body_bytes];
        input.advance(body_bytes);
        exchange.ends_before(input);
        let mut extensions = known(conn);
        let origin = Origin { peer: &self.peer, arrived: conn.now(), extensions: &extensions };
        let request = Request::borrowed(&head, &params, body, origin);
        let mut rest = Rest::Nothing;
        let call = |reply: Reply<'_>| worker.service.call(route, &request, reply);
        let replied = worker.write_unwatched(conn, &exchange, &request, &mut rest, call);
        drop(request);
        if extensions.is_untouched() {
            // Nothing to drop, which the compiler does not see: it began with nothing.
            std::mem::forget(extensions);
        } else if !extensions.let_go() {
            conn.count_panic();
        }
        self.settle(conn, exchange, replied, rest, head.upgrade)
    }

    /// Serves a request as [`next_request`](Self::next_request) does, and remembers what there is to tell of it, if somebody wants to hear;
    /// and finds out its name and its trace, if that is all that hooks want.
    #[inline(never)]
    fn serve_watched<const MAY_BE_NAMED: bool>(
        &mut self,
        conn: &mut Conn<'_>,
        input: &mut Input<'_>,
        worker: &Worker<S>,
        head: &Head<'_>,
        params: &Params,
        (route, body_bytes): (RouteId, usize),
    ) -> Step {
        let mut exchange = Exchange::new(head, Some(route));
        exchange.says_keep_alive |= self.is_first_to_ask(head);
        let body = &input.bytes()[..body_bytes];
        input.advance(body_bytes);
        exchange.ends_before(input);
        let called = self.watch.as_mut().map(|watch| watch.call(conn, head.consumed() + body_bytes));
        let mut extensions = known(conn);
        if MAY_BE_NAMED {
            extensions.find_out(worker.service.names(), head);
        }
        let origin = Origin { peer: &self.peer, arrived: conn.now(), extensions: &extensions };
        let request = Request::borrowed(head, params, body, origin);
        let mut rest = Rest::Nothing;
        let call = |reply: Reply<'_>| worker.service.call(route, &request, reply);
        let replied = worker.write(conn, &exchange, Some(&request), &mut rest, call);
        if let (Some(watch), Some(called)) = (&mut self.watch, called) {
            watch.note_return(worker, conn, &exchange, &request, &rest, called);
        }
        drop(request);
        if extensions.is_flat() {
            // Nothing to drop, as above.
            std::mem::forget(extensions);
        } else if !extensions.let_go() {
            conn.count_panic();
        }
        self.settle(conn, exchange, replied, rest, head.upgrade)
    }

    /// Serves a request that cannot be served at once. Many need nothing but a name.
    #[inline(never)]
    fn serve_otherwise(
        &mut self,
        conn: &mut Conn<'_>,
        input: &mut Input<'_>,
        worker: &Worker<S>,
        found: Route<'_>,
        head: &Head<'_>,
        params: &Params,
    ) -> Step {
        match at_hand::<S, true>(worker, found, head, input) {
            Some(at_hand) => self.serve_watched::<true>(conn, input, worker, head, params, at_hand),
            None => self.serve_unusual(conn, input, worker, found, head, params),
        }
    }

    /// Serves a request that hooks have to see first, that has no handler, or whose body is on its way.
    #[inline(never)]
    fn serve_unusual(
        &mut self,
        conn: &mut Conn<'_>,
        input: &mut Input<'_>,
        worker: &Worker<S>,
        found: Route<'_>,
        head: &Head<'_>,
        params: &Params,
    ) -> Step {
        self.note_head(conn, head.consumed());
        let (peer, mut extensions) = (self.peer.clone(), known(conn));
        extensions.find_out(worker.service.names(), head);
        let origin = Origin { peer: &peer, arrived: conn.now(), extensions: &extensions };
        let route = if let Route::To(route) = found { Some(route) } else { None };
        let mut exchange = Exchange::new(head, route);
        exchange.says_keep_alive |= self.is_first_to_ask(head);
        let request = Request::borrowed(head, params, &[], origin);
        let behind = Behind {
            framing: head.framing,
            may_skip: may_skip(worker, head, input),
            expects_continue: head.expect_continue && input.is_empty(),
        };
        let look = || match ask_hooks(worker, route, &request) {
            None => plan(worker, found, head, &request, input.len()),
            Some(plan) => plan,
        };
        let plan = guarded_or_told(look, |said| worker.note_panic(said));
        let step = match plan.unwrap_or(Plan::Apologise) {
            Plan::Ask => {
                if !head.framing.has_body() {
                    exchange.ends_before(input);
                }
                self.ask(conn, worker, exchange, &request, behind)
            }
            Plan::Call(route, body_bytes) => {
                let body = &input.bytes()[..body_bytes];
                input.advance(body_bytes);
                exchange.ends_before(input);
                self.note_received(conn, body_bytes);
                self.note_call(conn);
                let request = Request::borrowed(head, params, body, origin);
                let mut rest = Rest::Nothing;
                let call = |reply: Reply<'_>| worker.service.call(route, &request, reply);
                let replied = worker.write(conn, &exchange, Some(&request), &mut rest, call);
                self.note(conn, &exchange, Some(&request), &rest, Outcome::Answered);
                worker.limit_time(conn, route, &mut rest);
                self.settle(conn, exchange, replied, rest, head.upgrade)
            }
            plan => self.carry_out(conn, worker, plan, exchange, head, &request, behind),
        };
        if !extensions.let_go() {
            conn.count_panic();
        }
        step
    }

    /// Lets hooks decide that may have to wait.
    fn ask(
        &mut self,
        conn: &mut Conn<'_>,
        worker: &Worker<S>,
        exchange: Exchange,
        request: &Request<'_>,
        behind: Behind,
    ) -> Step {
        let copied_bytes = request.borrowed_bytes();
        let request = request.to_owned();
        let may_upgrade = request.may_switch();
        let ask = || worker.service.before_async(exchange.route, request.clone());
        let asked = guarded_or_told(ask, |said| worker.note_panic(said));
        let Some(ask) = asked else {
            let head = request.head();
            return self.carry_out(conn, worker, Plan::Apologise, exchange, &head, &request, behind);
        };
        let rest = Rest::Future(Pending::ask(ask, request, behind, copied_bytes));
        let unanswered = Replied { keep_alive: exchange.keep_alive };
        self.settle(conn, exchange, unanswered, rest, may_upgrade)
    }

    /// Goes on with a request whose hooks have waited: its body was not looked at.
    pub(super) fn go_on_behind_hooks(
        &mut self,
        conn: &mut Conn<'_>,
        exchange: Exchange,
        request: &Request<'static>,
        behind: Behind,
        decided: Option<Result<Response, Error>>,
        mut held: Option<Held>,
    ) -> Step {
        let worker = Rc::clone(&self.worker);
        let head = request.head();
        let plan = decided.map_or_else(
            || {
                let mut params = Params::new();
                let look = || {
                    let found = worker.service.find(head.method_name(), head.path_bytes(), &mut params);
                    plan(&worker, found, &head, request, 0)
                };
                guarded_or_told(look, |said| worker.note_panic(said))
            },
            |answer| Some(Plan::Answer(answer)),
        );
        match plan.unwrap_or(Plan::Apologise) {
            Plan::Call(route, _) => {
                let mut rest = Rest::Nothing;
                self.note_call(conn);
                let call = |reply: Reply<'_>| worker.service.call(route, request, reply);
                let replied = worker.write(conn, &exchange, Some(request), &mut rest, call);
                self.note(conn, &exchange, Some(request), &rest, Outcome::Answered);
                if let Rest::Future(pending) = &mut rest {
                    pending.held = held.take();
                }
                worker.limit_time(conn, route, &mut rest);
                self.settle(conn, exchange, replied, rest, head.upgrade)
            }
            plan => self.carry_out(conn, &worker, plan, exchange, &head, request, behind),
        }
    }

    /// Answers without a handler, or receives the body first.
    #[expect(clippy::too_many_arguments, reason = "two callers, which have them in places of their own")]
    fn carry_out(
        &mut self,
        conn: &mut Conn<'_>,
        worker: &Worker<S>,
        plan: Plan,
        mut exchange: Exchange,
        head: &Head<'_>,
        request: &Request<'_>,
        behind: Behind,
    ) -> Step {
        let mut rest = Rest::Nothing;
        let (plan, use_of_body) = self.use_of_body(worker, plan, request);
        let outcome = match &plan {
            Plan::Refuse(error) => Outcome::Refused(Refusal::of(error.status())),
            Plan::Apologise => Outcome::Panicked,
            _ => Outcome::Answered,
        };
        let replied = match plan {
            Plan::Receive(route, body_bytes_max, Delivery::Reader) => {
                let to = (route, body_bytes_max);
                return self.begin_intake(conn, worker, head, request, exchange, to, behind);
            }
            Plan::Receive(route, body_bytes_max, _) | Plan::Drop(route, body_bytes_max) => {
                if behind.expects_continue {
                    conn.send_static(encode::CONTINUE);
                }
                self.begin_upload(conn, head, request, exchange, route, body_bytes_max, use_of_body);
                return Step::Next;
            }
            Plan::Answer(answer) => {
                let is_stream = matches!(&answer, Ok(Response { body: Body::Stream { .. }, .. }));
                exchange.keep_alive &= !behind.framing.has_body() || (behind.may_skip && !is_stream);
                worker.write(conn, &exchange, Some(request), &mut rest, |reply| match answer {
                    Ok(response) => reply.send(response),
                    Err(error) => reply.fail(error),
                })
            }
            Plan::Refuse(error) => {
                exchange.keep_alive &= error.status() != StatusCode::PAYLOAD_TOO_LARGE && behind.may_skip;
                worker.write(conn, &exchange, Some(request), &mut rest, |reply| reply.fail(error))
            }
            Plan::Ask | Plan::Call(..) => unreachable!("its callers see to it"),
            Plan::Apologise => {
                conn.count_panic();
                exchange.keep_alive = false;
                let apology = Error::from(StatusCode::INTERNAL_SERVER_ERROR);
                worker.write(conn, &exchange, Some(request), &mut rest, |reply| reply.fail(apology))
            }
        };
        self.note(conn, &exchange, Some(request), &rest, outcome);
        self.skip_body(conn, behind.framing, replied.keep_alive);
        self.settle(conn, exchange, replied, rest, head.upgrade)
    }

    /// What is done with a body that has to be received; a sink may refuse it.
    fn use_of_body(&self, worker: &Worker<S>, plan: Plan, request: &Request<'_>) -> (Plan, UseOfBody) {
        match plan {
            Plan::Receive(route, _, Delivery::Sink) => {
                let open = || worker.service.open_sink(route, request);
                match guarded_or_told(open, |said| worker.note_panic(said)) {
                    Some(Ok(sink)) => (plan, UseOfBody::Pour(sink)),
                    Some(Err(error)) => (Plan::Answer(Err(error)), UseOfBody::Drop),
                    None => (Plan::Apologise, UseOfBody::Drop),
                }
            }
            Plan::Receive(..) => (plan, UseOfBody::Collect),
            plan => (plan, UseOfBody::Drop),
        }
    }

    /// Whether this is the first request of its connection and says `keep-alive`: its answer says how long that is.
    ///
    /// Only the first: clients that keep many connections remember it, and every answer would be longer by 48 bytes.
    #[inline]
    fn is_first_to_ask(&mut self, head: &Head<'_>) -> bool {
        !std::mem::replace(&mut self.has_answered, true) && head.asks_to_stay()
    }

    fn wait_for_head(&mut self, conn: &mut Conn<'_>, bytes: usize) -> Flow {
        if bytes == 0 {
            self.note_nothing();
            return self.rest(conn);
        }
        self.note_head(conn, bytes);
        if !matches!(self.phase, Phase::Head) {
            // From the first byte on, and not extended by later ones.
            conn.set_deadline(self.worker.limits.head_timeout);
            self.phase = Phase::Head;
        }
        Flow::Continue
    }

    /// Answers a request that could be read and is not served, without a route.
    #[cold]
    fn refuse_read(&mut self, conn: &mut Conn<'_>, error: Error, head: &Head<'_>) -> Flow {
        self.phase = Phase::Idle;
        self.note_head(conn, head.bytes.len());
        let exchange = Exchange { head_only: head.method == Method::Head, ..Exchange::LAST };
        let (params, peer, extensions) = (Params::new(), self.peer.clone(), known(conn));
        let origin = Origin { peer: &peer, arrived: conn.now(), extensions: &extensions };
        let request = Request::borrowed(head, &params, &[], origin);
        let flow = self.refuse(conn, exchange, &request, error);
        let_go(conn, extensions);
        flow
    }

    /// Answers a framing error in a head.
    #[cold]
    fn refuse_unread(
        &mut self,
        conn: &mut Conn<'_>,
        error: WireError,
        to_head: bool,
        seen_bytes: usize,
    ) -> Flow {
        if error.is_silent() {
            return Flow::Close;
        }
        self.phase = Phase::Idle;
        self.note_head(conn, seen_bytes);
        let exchange = Exchange { head_only: to_head, ..Exchange::LAST };
        let unread = Unread::new(&self.peer, conn.now());
        let flow = unread.show(|request| self.refuse(conn, exchange, request, wire_error(error)));
        let_go(conn, unread);
        flow
    }

    /// Answers a request that goes wrong, without a body to HEAD; nothing that follows is looked at.
    #[cold]
    pub(super) fn refuse(
        &mut self,
        conn: &mut Conn<'_>,
        exchange: Exchange,
        request: &Request<'_>,
        error: Error,
    ) -> Flow {
        let exchange = Exchange { keep_alive: false, is_last_word: false, ..exchange };
        let mut rest = Rest::Nothing;
        let worker = Rc::clone(&self.worker);
        let outcome = match error.status() {
            StatusCode::INTERNAL_SERVER_ERROR => Outcome::Panicked,
            status => Outcome::Refused(Refusal::of(status)),
        };
        let replied = worker.write(conn, &exchange, Some(request), &mut rest, |reply| reply.fail(error));
        self.note(conn, &exchange, Some(request), &rest, outcome);
        match self.settle(conn, exchange, replied, rest, false) {
            Step::Stop(flow) => flow,
            Step::Next | Step::Coded(_) => Flow::Linger,
        }
    }

    /// Answers 408 to a head or a body that took too long.
    #[cold]
    pub(super) fn time_out(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.give_up(conn, Error::new(StatusCode::REQUEST_TIMEOUT, "the request took too long to arrive"))
    }

    /// Answers 503 to a body that there is no memory for.
    #[cold]
    pub(super) fn run_short(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.count_memory_overflow();
        self.give_up(conn, short_of_memory())
    }

    /// Answers a request that is not there as a whole, and never will be. What is there of it is let go.
    pub(super) fn give_up(&mut self, conn: &mut Conn<'_>, error: Error) -> Flow {
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Upload(mut upload) => {
                let exchange = upload.exchange();
                // What takes the body is the program's.
                let_go(conn, std::mem::replace(&mut upload.use_of_body, UseOfBody::Drop));
                let request = upload.into_request(self.peer.clone());
                let flow = self.refuse(conn, exchange, &request, error);
                let_go(conn, request);
                flow
            }
            _ => {
                let unread = Unread::new(&self.peer, conn.now());
                let flow = unread.show(|request| self.refuse(conn, Exchange::LAST, request, error));
                let_go(conn, unread);
                flow
            }
        }
    }
}

/// The route of the usual request, and the bytes of its body, which have arrived: nothing else is to be
/// looked at before its handler is called. With `MAY_BE_NAMED` nothing but its name and its trace.
#[inline(always)]
fn at_hand<S: Service, const MAY_BE_NAMED: bool>(
    worker: &Worker<S>,
    found: Route<'_>,
    head: &Head<'_>,
    input: &Input<'_>,
) -> Option<(RouteId, usize)> {
    let Route::To(route) = found else { return None };
    if worker.service.has_before(Some(route)) && !(MAY_BE_NAMED && worker.service.has_only_names(route)) {
        return None;
    }
    match head.framing {
        Framing::None => Some((route, 0)),
        Framing::Length(length) => {
            let body_bytes_max = worker.body_bytes_max(route, head.method).unwrap_or(0);
            let is_at_hand = length <= body_bytes_max as u64 && length <= input.len() as u64;
            is_at_hand.then_some((route, length as usize))
        }
        Framing::Chunked => None,
    }
}

/// What goes with a request before anybody has seen it: what the connection knows of TLS.
#[inline]
fn known(conn: &Conn<'_>) -> Extensions {
    let extensions = Extensions::new();
    #[cfg(feature = "tls")]
    if let Some(facts) = conn.layer_facts::<netpoll_core::tls::TlsFacts>() {
        extensions.insert(facts);
    }
    #[cfg(not(feature = "tls"))]
    let _ = conn;
    extensions
}

pub(crate) fn short_of_memory() -> Error {
    Error::new(StatusCode::SERVICE_UNAVAILABLE, "the server is short of memory")
}

/// What the wire says about a request that it does not read.
pub(crate) fn wire_error(error: WireError) -> Error {
    Error::new(StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST), error.reason())
}
