//! Bodies that did not arrive together with their head.
//!
//! A wanted body is collected behind a copy of its head, and the two become the owned request that the
//! handler gets. The memory grows with what arrived, never with what was announced, and counts in the worker's budget for as
//! long as anybody holds it. One that a sink takes is handed on where it landed. An unwanted one is counted and dropped.
//!
//! Invariant: a handler never sees a part of a body, and a sink is told of its end, good or bad. Whatever ends a body early (an error in its
//! framing, its limit, its deadline, the peer's FIN) ends the connection.

use bytes::Bytes;
use http::StatusCode;
use netpoll_core::{Address, Conn, Flow, Held, Input, Instant};

use super::answer::let_go;
use super::intake::body_error;
use super::request::wire_error;
use super::{Exchange, Http, Outcome, Phase, Service, Step, Worker};
use crate::message::{
    BodyError, Error, Extensions, OpenSink, Owned, Params, Request, Rest, RouteId, guarded_or_told,
};
use crate::wire::{Decoder, Framing, Head, HeadIndex, Trailers, WireError};

/// A body on its way, with its head.
pub(super) struct Upload {
    exchange: Exchange,
    /// Whose handler gets it.
    route: RouteId,
    extensions: Extensions,
    /// The head, then what has arrived of the body.
    collected: Collected,
    head_bytes: usize,
    index: HeadIndex,
    params: Params,
    incoming: Incoming,
    body_bytes_max: usize,
    pub(super) use_of_body: UseOfBody,
    arrived: u64,
    /// Of `arrived`, what had come at the last look at its rate.
    seen: u64,
    started: Instant,
}

/// What becomes of what arrives.
pub(super) enum UseOfBody {
    /// The handler gets it, when it is there.
    Collect,
    /// The handler is to see an empty body: it is counted and dropped.
    Drop,
    /// It is handed on.
    Pour(OpenSink),
}

/// Bytes that count in the worker's budget.
struct Collected {
    bytes: Vec<u8>,
    held: Held,
}

impl Collected {
    /// The most that room is made for beyond what is needed.
    const AHEAD_BYTES_MAX: usize = 256 * 1024;

    /// A copy of a head.
    fn new(conn: &Conn<'_>, head: &[u8]) -> Self {
        let mut held = conn.hold_memory();
        held.grow(head.len());
        Self { bytes: head.to_vec(), held }
    }

    /// Makes room for so many more bytes, and half as many again as there are, but for no more than are expected. False if
    /// there is no memory for them.
    fn make_room(&mut self, conn: &Conn<'_>, bytes: usize, expected: u64) -> bool {
        if bytes <= self.bytes.capacity() - self.bytes.len() {
            return true;
        }
        let ahead = (self.bytes.len() / 2).min(Self::AHEAD_BYTES_MAX);
        let room = bytes.max(usize::try_from(expected).unwrap_or(usize::MAX).min(ahead));
        let before = self.bytes.capacity();
        if conn.is_short_of_memory() || self.bytes.try_reserve_exact(room).is_err() {
            return false;
        }
        self.held.grow(self.bytes.capacity() - before);
        true
    }
}

impl AsRef<[u8]> for Collected {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A body on its way to nowhere.
pub(super) struct Skip {
    incoming: Incoming,
    /// How long the body may be, in all.
    body_bytes_max: u64,
}

impl Skip {
    pub(super) fn new(incoming: Incoming, body_bytes_max: u64) -> Self {
        Self { incoming, body_bytes_max }
    }
}

impl Upload {
    pub(super) fn exchange(&self) -> Exchange {
        self.exchange
    }

    /// Tells its sink, if it has one, that the body is not going to be whole. False if that panicked.
    pub(super) fn fail_sink<S: Service>(&mut self, worker: &Worker<S>, error: BodyError) -> bool {
        match std::mem::replace(&mut self.use_of_body, UseOfBody::Drop) {
            UseOfBody::Pour(sink) => {
                guarded_or_told(|| sink.failed(error), |said| worker.note_panic(said)).is_some()
            }
            other => {
                self.use_of_body = other;
                true
            }
        }
    }

    /// The request without its body, which has not come.
    pub(super) fn into_request(mut self, peer: Address) -> Request<'static> {
        self.collected.bytes.truncate(self.head_bytes);
        self.incoming = Incoming::Length(0);
        self.into_complete_request(peer)
    }

    fn into_complete_request(self, peer: Address) -> Request<'static> {
        Request::from(Owned {
            bytes: Bytes::from_owner(self.collected),
            head_bytes: self.head_bytes,
            index: self.index,
            params: self.params,
            trailers: self.incoming.into_trailers(),
            peer,
            arrived: self.started,
            extensions: self.extensions,
        })
    }
}

/// What is still to come of a body.
pub(super) enum Incoming {
    Length(u64),
    Chunked(Decoder),
}

impl Incoming {
    /// What came behind the body, once that is complete.
    pub(super) fn into_trailers(self) -> Trailers {
        match self {
            Self::Length(_) => Trailers::default(),
            Self::Chunked(decoder) => decoder.into_trailers(),
        }
    }

    /// How many bytes are still to come, as far as that was said.
    pub(super) fn expected(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Chunked(_) => None,
        }
    }

    pub(super) fn new(framing: Framing) -> Self {
        match framing {
            Framing::None => Self::Length(0),
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Decoder::new()),
        }
    }

    /// Takes what belongs to the body off the input, so many bytes at most; true when the body is complete.
    pub(super) fn take(
        &mut self,
        input: &mut Input<'_>,
        bytes_max: usize,
        body_bytes_max: u64,
        mut data: impl FnMut(&[u8]),
    ) -> Result<bool, WireError> {
        let bytes_max = bytes_max.min(input.len());
        match self {
            Self::Length(left) => {
                let taken = bytes_max.min(usize::try_from(*left).unwrap_or(usize::MAX));
                data(&input.bytes()[..taken]);
                input.advance(taken);
                *left -= taken as u64;
                Ok(*left == 0)
            }
            Self::Chunked(decoder) => {
                let decoded = decoder.decode_with(&input.bytes()[..bytes_max], body_bytes_max, data)?;
                input.advance(decoded.consumed);
                Ok(decoded.done)
            }
        }
    }
}

impl<S: Service> Http<S> {
    /// Keeps the head and waits for the body.
    #[expect(clippy::too_many_arguments, reason = "one call, which names them")]
    pub(super) fn begin_upload(
        &mut self,
        conn: &mut Conn<'_>,
        head: &Head<'_>,
        request: &Request<'_>,
        exchange: Exchange,
        route: RouteId,
        body_bytes_max: usize,
        use_of_body: UseOfBody,
    ) {
        conn.set_deadline(self.worker.limits.body_grace);
        self.phase = Phase::Upload(Box::new(Upload {
            exchange,
            route,
            extensions: request.extensions().clone(),
            collected: Collected::new(conn, head.bytes),
            head_bytes: head.bytes.len(),
            index: head.index().clone(),
            params: *request.params(),
            incoming: Incoming::new(head.framing),
            body_bytes_max,
            use_of_body,
            arrived: 0,
            seen: 0,
            started: conn.now(),
        }));
    }

    /// Takes in more of the body, and calls the handler when it is complete.
    pub(super) fn go_on_with_upload(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Step {
        let before = input.len();
        let Phase::Upload(upload) = &mut self.phase else { unreachable!("called in this phase") };
        let Upload { collected, incoming, body_bytes_max, use_of_body, arrived, .. } = &mut **upload;
        let body_bytes_max = *body_bytes_max as u64;
        let taken = match use_of_body {
            UseOfBody::Collect => {
                if !collected.make_room(conn, before, incoming.expected().unwrap_or(u64::MAX)) {
                    return Step::Stop(self.run_short(conn));
                }
                incoming.take(input, before, body_bytes_max, |data| {
                    *arrived += data.len() as u64;
                    collected.bytes.extend_from_slice(data);
                })
            }
            UseOfBody::Drop => {
                incoming.take(input, before, body_bytes_max, |data| *arrived += data.len() as u64)
            }
            UseOfBody::Pour(sink) => {
                let mut said = Ok(());
                let take = || {
                    incoming.take(input, before, body_bytes_max, |data| {
                        *arrived += data.len() as u64;
                        if said.is_ok() {
                            said = sink.chunk(data);
                        }
                    })
                };
                let taken = guarded_or_told(take, |said| self.worker.note_panic(said));
                self.note_received(conn, before - input.len());
                return self.poured(conn, input, taken.map(|taken| (said, taken)));
            }
        };
        self.note_received(conn, before - input.len());
        self.taken(conn, input, taken)
    }

    /// Goes on behind what was taken in of the body.
    fn taken(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>, taken: Result<bool, WireError>) -> Step {
        match taken {
            Err(error) => {
                self.fail_sink(conn, body_error(error));
                Step::Stop(self.give_up(conn, wire_error(error)))
            }
            Ok(false) => Step::Next,
            Ok(true) => match std::mem::replace(&mut self.phase, Phase::Idle) {
                Phase::Upload(mut upload) => {
                    upload.exchange.ends_before(input);
                    self.finish_upload(conn, *upload)
                }
                _ => unreachable!("the phase was looked at above"),
            },
        }
    }

    /// The same of what was handed to a sink, which may have had enough, or have panicked.
    fn poured(
        &mut self,
        conn: &mut Conn<'_>,
        input: &mut Input<'_>,
        poured: Option<(Result<(), Error>, Result<bool, WireError>)>,
    ) -> Step {
        match poured {
            Some((Ok(()), taken)) => self.taken(conn, input, taken),
            Some((Err(error), taken)) => self.refuse_by_sink(conn, input, error, taken.unwrap_or(false)),
            None => {
                conn.count_panic();
                Step::Stop(self.give_up(conn, Error::from(StatusCode::INTERNAL_SERVER_ERROR)))
            }
        }
    }

    /// Answers as the sink wants it, in front of the rest of the body.
    fn refuse_by_sink(
        &mut self,
        conn: &mut Conn<'_>,
        input: &mut Input<'_>,
        error: Error,
        is_whole: bool,
    ) -> Step {
        let Phase::Upload(mut upload) = std::mem::replace(&mut self.phase, Phase::Idle) else {
            unreachable!("called in this phase")
        };
        let mut exchange = upload.exchange;
        let incoming = std::mem::replace(&mut upload.incoming, Incoming::Length(0));
        let (skip_bytes_max, arrived) = (self.worker.limits.skip_bytes_max as u64, upload.arrived);
        if is_whole {
            exchange.ends_before(input);
        } else {
            exchange.keep_alive &= incoming.expected().is_none_or(|left| left <= skip_bytes_max);
        }
        let_go(conn, std::mem::replace(&mut upload.use_of_body, UseOfBody::Drop));
        let request = upload.into_request(self.peer.clone());
        let worker = std::rc::Rc::clone(&self.worker);
        let mut rest = Rest::Nothing;
        let replied = worker.write(conn, &exchange, Some(&request), &mut rest, |reply| reply.fail(error));
        self.note(conn, &exchange, Some(&request), &rest, Outcome::Answered);
        let_go(conn, request);
        if replied.keep_alive && !is_whole {
            conn.set_deadline(worker.limits.head_timeout);
            let skip = Skip::new(incoming, arrived.saturating_add(skip_bytes_max));
            self.phase = Phase::Skip(Box::new(skip));
        }
        self.settle(conn, exchange, replied, rest, false)
    }

    /// Tells a sink that its body is not going to be whole.
    #[cold]
    pub(super) fn fail_sink(&mut self, conn: &mut Conn<'_>, error: BodyError) {
        let Phase::Upload(upload) = &mut self.phase else { return };
        if !upload.fail_sink(&self.worker, error) {
            conn.count_panic();
        }
    }

    /// Whether a body has come on since the last look.
    #[cold]
    pub(super) fn look_at_upload(&mut self, conn: &mut Conn<'_>) -> Flow {
        let Phase::Upload(upload) = &mut self.phase else { unreachable!("called in this phase") };
        let limits = &self.worker.limits;
        if upload.arrived - upload.seen < limits.body_bytes_min(limits.body_grace) {
            self.fail_sink(conn, BodyError::Late);
            return self.time_out(conn);
        }
        upload.seen = upload.arrived;
        conn.set_deadline(limits.body_grace);
        Flow::Continue
    }

    fn finish_upload(&mut self, conn: &mut Conn<'_>, mut upload: Upload) -> Step {
        let (exchange, route) = (upload.exchange, upload.route);
        let use_of_body = std::mem::replace(&mut upload.use_of_body, UseOfBody::Drop);
        let request = upload.into_complete_request(self.peer.clone());
        let worker = std::rc::Rc::clone(&self.worker);
        let mut rest = Rest::Nothing;
        self.note_call(conn);
        let replied = worker.write(conn, &exchange, Some(&request), &mut rest, |reply| match use_of_body {
            UseOfBody::Pour(sink) => sink.end(&request, reply),
            _ => worker.service.call(route, &request, reply),
        });
        self.note(conn, &exchange, Some(&request), &rest, Outcome::Answered);
        worker.limit_time(conn, route, &mut rest);
        let_go(conn, request);
        // A request with a body does not switch protocols.
        self.settle(conn, exchange, replied, rest, false)
    }

    /// Begins to drop a body that was answered without being read.
    pub(super) fn skip_body(&mut self, conn: &mut Conn<'_>, framing: Framing, keep_alive: bool) {
        if keep_alive && framing.has_body() {
            conn.set_deadline(self.worker.limits.head_timeout);
            let skip = Skip::new(Incoming::new(framing), self.worker.limits.skip_bytes_max as u64);
            self.phase = Phase::Skip(Box::new(skip));
        }
    }

    /// Drops more of an unwanted body.
    pub(super) fn go_on_skipping(&mut self, input: &mut Input<'_>) -> Step {
        let Phase::Skip(skip) = &mut self.phase else { unreachable!("called in this phase") };
        match skip.incoming.take(input, usize::MAX, skip.body_bytes_max, |_| ()) {
            // The request was answered, so there is nothing left to say.
            Err(_) => Step::Stop(Flow::Linger),
            Ok(false) => Step::Next,
            Ok(true) => {
                self.phase = Phase::Idle;
                Step::Next
            }
        }
    }
}
