//! The HTTP/1.1 connection: bytes in, requests to the service, answers into the write queue.
//!
//! A state machine with one phase at a time. Requests are parsed where they landed, answered in order,
//! and all answers to what arrived together leave together, because the core flushes behind the callback.
//! What a request needs beyond one callback (a body that is still coming, a handler that waits, a stream)
//! is boxed while it lasts; between requests a connection owns nothing but this struct.
//!
//! Invariant: at most one request is in progress, and input is looked at only when none is. So
//! answers cannot be reordered, and bytes behind an error, a close or a refusal are never taken for a
//! request.

mod answer;
mod completed;
mod intake;
mod limits;
mod plan;
mod request;
mod second;
mod server_header;
mod service;
mod upgrade;
mod upload;
mod watch;
mod worker;

use std::fmt;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use netpoll_core::{Address, Commands, Conn, Flow, Input, Instant, Lost, Message, Peer, Protocol};

use self::answer::{Streaming, Waiting};
use self::upgrade::Next;
use self::upload::{Skip, Upload};
use self::watch::Watch;
use crate::message::{Error, Renderer, Request, Response, RouteId};
use crate::wire::{Head, Method, Scan};

pub use completed::{Completed, Outcome, Refusal};
pub use limits::{Limits, RouteLimits};
pub(crate) use second::Second;
pub use server_header::ServerHeader;
pub use service::{BeforeFuture, Route, Service};
pub(crate) use watch::Watcher;
use worker::FOREVER;
pub(crate) use worker::Worker;

/// What serves requests that have come otherwise.
#[cfg(feature = "http2")]
pub(crate) mod shared {
    pub(crate) use super::limits::setters;
    pub(crate) use super::plan::{Plan, ask_hooks, plan};
    pub(crate) use super::request::{short_of_memory, wire_error};
    pub(crate) use super::upgrade::Next;
    pub(crate) use super::watch::{Figures, count_panics, show};
    pub(crate) use super::worker::FOREVER;
}

/// One HTTP connection, as a [`Protocol`]: for a runtime of one's own, or behind a [`Layer`](netpoll_core::Layer), such as
/// encryption. A [`Server`](crate::Server) has its own.
///
/// ```
/// use netpoll_core::sim::{Options, Sim};
/// use netpoll_core::{Conn, Flow, Input, Layer, Layered, Upper};
/// use netpoll_http::{Http, Limits, Request, Router};
///
/// /// Turns every bit around. No security whatsoever.
/// struct Flip;
///
/// impl Layer for Flip {
///     fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>, upper: &mut Upper<'_>) -> Flow {
///         let bytes = input.bytes_mut();
///         bytes.iter_mut().for_each(|byte| *byte = !*byte);
///         upper.received(conn, bytes);
///         input.advance_all();
///         Flow::Continue
///     }
///
///     fn send(&mut self, conn: &mut Conn<'_>, plain: &[u8]) -> Flow {
///         conn.append(plain.len(), |out| out.extend(plain.iter().map(|byte| !byte)));
///         Flow::Continue
///     }
/// }
///
/// # fn main() -> std::io::Result<()> {
/// let router = Router::new().get("/", |_: &Request| "Hello, World!");
/// let mut http = Http::acceptor(router, Limits::default())?;
/// // On sockets: `Runtime::builder().try_listen(addr, |_worker| Ok(.. the same closure ..))?.run()`.
/// let mut sim = Sim::new(Options::default());
/// let listener = sim.listen(move |peer| Layered::new(Flip, http(peer)));
/// let peer = sim.connect(listener);
/// sim.send(peer, &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".map(|byte| !byte));
/// sim.settle();
/// let answer: Vec<u8> = sim.take_received(peer).iter().map(|byte| !byte).collect();
/// assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n") && answer.ends_with(b"Hello, World!"));
/// # Ok(())
/// # }
/// ```
pub struct Http<S: Service> {
    worker: Rc<Worker<S>>,
    peer: Address,
    scan: Scan,
    phase: Phase,
    /// The peer has finished sending; it still gets its answers.
    half_closed: bool,
    /// The peer has ended its direction behind bytes that are not read yet, while a stream had more for it.
    may_have_left: bool,
    /// Input was left for a later callback.
    is_behind: bool,
    /// A request was answered already.
    has_answered: bool,
    /// Bytes of an answer that the peer's side had not acknowledged when its idle time was over; zero before.
    untaken_bytes: u32,
    /// What is known of its requests, if somebody wants to hear of their ends.
    watch: Option<Box<Watch>>,
}

/// How long one may be silent in a drain.
#[cold]
fn grace(conn: &Conn<'_>) -> Duration {
    conn.drain_grace().min(FOREVER)
}

/// What the connection is doing.
enum Phase {
    /// Between requests.
    Idle,
    /// A head began to arrive; its deadline is running.
    Head,
    /// A body is arriving.
    Upload(Box<Upload>),
    /// A body is arriving that nobody wants.
    Skip(Box<Skip>),
    /// The handler, or a hook before it, has not finished.
    Waiting(Box<Waiting>),
    /// The answer is made while it is sent.
    Streaming(Box<Streaming>),
    /// Another protocol has it.
    Upgraded(Box<Next>),
}

/// What is to be remembered of a request until it is answered.
#[derive(Clone, Copy, Debug)]
struct Exchange {
    route: Option<RouteId>,
    head_only: bool,
    is_http10: bool,
    /// The answer says that the connection stays, if it does, and for how long.
    says_keep_alive: bool,
    /// The connection may stay open behind this request.
    keep_alive: bool,
    /// The client has sent all of this request, has said that none follows, and none has: nothing is lost if the
    /// connection closes behind the answer without waiting for the client's end. See `docs/decisions/0008`.
    is_last_word: bool,
}

impl Exchange {
    /// Nothing is known of the request but that none follows it.
    const LAST: Self = Self {
        route: None,
        head_only: false,
        is_http10: false,
        says_keep_alive: false,
        keep_alive: false,
        is_last_word: false,
    };

    #[inline]
    fn new(head: &Head<'_>, route: Option<RouteId>) -> Self {
        Self {
            route,
            head_only: head.method == Method::Head,
            is_http10: head.minor_version == 0,
            says_keep_alive: head.minor_version == 0,
            keep_alive: head.keep_alive,
            is_last_word: false,
        }
    }

    /// The request is complete, and this is what came behind it.
    #[inline]
    fn ends_before(&mut self, input: &Input<'_>) {
        self.is_last_word = !self.keep_alive && input.is_empty();
    }

    /// How the connection ends behind the answer.
    #[inline]
    fn farewell(&self) -> Flow {
        if self.is_last_word { Flow::Close } else { Flow::Linger }
    }
}

/// What a server has that another has not: how its errors look, what it calls itself, who hears of its requests.
#[derive(Default)]
pub(crate) struct Personal {
    pub(crate) errors: Option<Renderer>,
    pub(crate) server: ServerHeader,
    pub(crate) watchers: Vec<Watcher>,
}

/// What of an answer that was coded counts as one more request in the share of a turn: 64 KiB take gzip two milliseconds.
const CODED_BYTES_PER_REQUEST: usize = 1024;

/// How serving goes on.
enum Step {
    /// With what is left of the input.
    Next,
    /// The same, behind an answer of which so many bytes were coded.
    Coded(usize),
    /// Not now.
    Stop(Flow),
}

impl<S: Service> Http<S> {
    /// What makes the connections of one worker, all with this service and these limits: to be called for each that is accepted.
    ///
    /// # Errors
    /// `InvalidInput` when one of the limits lets nothing through; the error names it.
    pub fn acceptor(service: S, limits: Limits) -> io::Result<impl FnMut(Peer) -> Self + 'static> {
        Self::acceptor_of(service, limits, Personal::default(), None)
    }

    /// The same, with errors as this function writes them: see [`Server::errors`](crate::Server::errors).
    ///
    /// # Errors
    /// Those of [`acceptor`](Self::acceptor).
    pub fn acceptor_with_errors(
        service: S,
        limits: Limits,
        render: impl Fn(&Error, &Request<'_>) -> Response + Send + Sync + 'static,
    ) -> io::Result<impl FnMut(Peer) -> Self + 'static> {
        let personal = Personal { errors: Some(Arc::new(render)), ..Personal::default() };
        Self::acceptor_of(service, limits, personal, None)
    }

    pub(crate) fn acceptor_of(
        service: S,
        limits: Limits,
        personal: Personal,
        second: Option<Second<S>>,
    ) -> io::Result<impl FnMut(Peer) -> Self + 'static> {
        let invalid = |sentence: String| io::Error::new(io::ErrorKind::InvalidInput, sentence);
        limits.check().map_err(|sentence| invalid(sentence.to_string()))?;
        personal.server.check().map_err(invalid)?;
        let worker = Rc::new(Worker::new(service, limits, personal, second));
        Ok(move |peer: Peer| Self::new(Rc::clone(&worker), peer.addr))
    }

    fn new(worker: Rc<Worker<S>>, peer: Address) -> Self {
        let watch = worker.is_watched().then(Box::default);
        Self {
            worker,
            peer,
            scan: Scan::default(),
            phase: Phase::Idle,
            half_closed: false,
            may_have_left: false,
            is_behind: false,
            has_answered: false,
            untaken_bytes: 0,
            watch,
        }
    }

    /// Serves what is in the input until it is used up or something has to be waited for.
    fn serve(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        let mut requests_left = self.worker.limits.requests_per_turn.unwrap_or_else(|| conn.turn_budget());
        loop {
            let step = match &self.phase {
                Phase::Idle | Phase::Head => {
                    if input.is_empty() {
                        return self.rest(conn);
                    }
                    // With a full queue the core holds the input until there is room, and offers it then.
                    if requests_left == 0 || conn.is_backed_up() {
                        return Flow::Yield;
                    }
                    requests_left -= 1;
                    self.next_request(conn, input)
                }
                Phase::Upload(_) | Phase::Skip(_) if input.is_empty() => return Flow::Continue,
                Phase::Upload(_) => self.go_on_with_upload(conn, input),
                Phase::Skip(_) => self.go_on_skipping(input),
                Phase::Waiting(_) | Phase::Streaming(_) => self.take_in(conn, input),
                Phase::Upgraded(_) => return Self::hand_on(input),
            };
            match step {
                Step::Next => {}
                Step::Coded(bytes) => {
                    requests_left = requests_left.saturating_sub(bytes / CODED_BYTES_PER_REQUEST);
                }
                Step::Stop(flow) => return flow,
            }
        }
    }

    /// Between requests, with nothing left to serve.
    #[inline]
    fn rest(&mut self, conn: &mut Conn<'_>) -> Flow {
        if self.half_closed {
            return Flow::Close;
        }
        if !matches!(self.phase, Phase::Idle) {
            self.phase = Phase::Idle;
        }
        self.untaken_bytes = 0;
        self.wait_for_request(conn);
        Flow::Continue
    }

    /// Idle time is over. Whoever is still taking its answer is not idle; who has stopped does not get it, and no kernel
    /// keeps it.
    #[cold]
    fn end_idle(&mut self, conn: &mut Conn<'_>) -> Flow {
        // A reset could only destroy what is under way, and nobody is going to be waited for.
        if conn.is_stopping() {
            return Flow::Linger;
        }
        let untaken = conn.unacknowledged_bytes().map_or(0, |bytes| u32::try_from(bytes).unwrap_or(u32::MAX));
        let before = std::mem::replace(&mut self.untaken_bytes, untaken);
        // As the core looks at output that waits in its own queue.
        let grace = conn.limits().write_grace;
        let least = conn.limits().least_taken_bytes(grace);
        match untaken {
            0 => Flow::Close,
            _ if before > 0 && u64::from(before.saturating_sub(untaken)) < least => Flow::Reset,
            _ => {
                conn.set_deadline(grace);
                Flow::Continue
            }
        }
    }

    /// Sets the deadline of a connection between two requests.
    #[inline]
    fn wait_for_request(&self, conn: &mut Conn<'_>) {
        conn.set_deadline(self.patience(conn));
    }

    /// How long a connection may be silent between two requests.
    #[inline]
    fn patience(&self, conn: &Conn<'_>) -> Duration {
        // An answer that promised to stay may have been under way when the drain began: what comes is served.
        if conn.is_stopping() { grace(conn) } else { self.worker.limits.idle_timeout }
    }

    /// Serves, and notes whether input stays behind that is to be offered again.
    #[inline]
    fn serve_and_note(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        let flow = self.serve(conn, input);
        self.worker.note_batch(conn.queued_bytes());
        self.is_behind = matches!(flow, Flow::Pause | Flow::Yield) && !input.is_empty();
        match flow {
            // A head or a body that is never going to be complete.
            Flow::Continue if self.half_closed => Flow::Close,
            flow => flow,
        }
    }

    /// The flow of a callback that had nothing to do: the one that holds already.
    fn unchanged(&mut self, conn: &Conn<'_>) -> Flow {
        match self.phase {
            // Who reads a body beside its handler goes on or has paused.
            Phase::Waiting(_) | Phase::Streaming(_) => conn.unchanged_flow(),
            _ if self.is_behind => Flow::Yield,
            _ => Flow::Continue,
        }
    }

    /// The flow after a callback finished the request in progress.
    fn resume(&mut self, conn: &mut Conn<'_>, step: Step) -> Flow {
        match step {
            Step::Stop(flow) => flow,
            Step::Coded(_) => self.resume(conn, Step::Next),
            // What is left of the input is offered again, because a pause ends.
            Step::Next if self.is_behind || matches!(self.phase, Phase::Upgraded(_)) => Flow::Continue,
            // Hooks have waited, and the body comes now, or never.
            Step::Next if matches!(self.phase, Phase::Upload(_) | Phase::Skip(_)) => {
                if self.half_closed {
                    Flow::Close
                } else {
                    Flow::Continue
                }
            }
            // A body is read beside what waits.
            Step::Next if self.phase.intake().is_some() => self.go_on_reading(conn),
            Step::Next => self.rest(conn),
        }
    }

    /// The peer has sent all that it will send, and what it is sent may be for nobody.
    fn peer_has_left(&mut self, conn: &mut Conn<'_>) -> Flow {
        match &mut self.phase {
            _ if self.worker.limits.half_close => self.unchanged(conn),
            // It is not the stream that is waited for but the peer, and whether that reads is the core's to watch; or others have
            // their turn.
            Phase::Streaming(streaming) if streaming.waits_for_room || streaming.empty_pulls > 0 => {
                self.may_have_left = true;
                self.unchanged(conn)
            }
            Phase::Waiting(_) | Phase::Streaming(_) => self.abandon(conn),
            _ => self.unchanged(conn),
        }
    }
}

impl<S: Service> Protocol for Http<S> {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.set_deadline(self.worker.limits.idle_timeout);
        if self.peer == Address::Unknown {
            self.peer = conn.peer_addr().unwrap_or(Address::Unknown);
        }
        if self.worker.second.is_some() {
            return self.begin_as_agreed(conn);
        }
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        match &mut self.phase {
            Phase::Upgraded(next) => next.received(conn, input),
            _ => self.serve_and_note(conn, input),
        }
    }

    fn eof(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.half_closed = true;
        if let Phase::Upgraded(next) = &mut self.phase {
            return next.eof(conn, input);
        }
        let flow = self.serve_and_note(conn, input);
        self.end_intake(conn, flow)
    }

    fn peer_ended(&mut self, conn: &mut Conn<'_>) -> Flow {
        match &mut self.phase {
            Phase::Upgraded(next) => next.peer_ended(conn),
            phase => match phase.intake() {
                // Its last bytes are not read yet, and may be the rest of the body.
                Some(intake) if intake.is_read() => self.unchanged(conn),
                _ => self.peer_has_left(conn),
            },
        }
    }

    fn flushed(&mut self, conn: &mut Conn<'_>) {
        self.note_flushed(conn);
        match &mut self.phase {
            Phase::Upgraded(next) => next.flushed(conn),
            // Idle time begins when the answer has left.
            Phase::Idle => self.wait_for_request(conn),
            _ => {}
        }
    }

    fn drained(&mut self, conn: &mut Conn<'_>) -> Flow {
        match &mut self.phase {
            Phase::Upgraded(next) => next.drained(conn),
            Phase::Streaming(_) => {
                let step = self.go_on_streaming(conn);
                self.resume(conn, step)
            }
            Phase::Waiting(_) => self.tend(conn),
            _ => Flow::Continue,
        }
    }

    fn woken(&mut self, conn: &mut Conn<'_>) -> Flow {
        let step = match &mut self.phase {
            Phase::Upgraded(next) => return next.woken(conn),
            Phase::Waiting(_) => self.go_on_waiting(conn),
            Phase::Streaming(_) => self.go_on_streaming(conn),
            _ => return self.unchanged(conn),
        };
        self.resume(conn, step)
    }

    fn deadline(&mut self, conn: &mut Conn<'_>) -> Flow {
        if self.phase.intake().is_some() {
            return self.look_at_intake(conn);
        }
        match &mut self.phase {
            Phase::Upgraded(next) => next.deadline(conn),
            Phase::Waiting(_) => self.give_up_waiting(conn),
            Phase::Streaming(_) => Flow::Pause,
            Phase::Upload(_) => self.look_at_upload(conn),
            Phase::Head => self.time_out(conn),
            // Not idle but slow: how long a peer may take to read is the core's to say.
            Phase::Idle if conn.queued_bytes() > 0 || self.is_behind => {
                self.wait_for_request(conn);
                self.unchanged(conn)
            }
            Phase::Idle => self.end_idle(conn),
            Phase::Skip(_) => Flow::Linger,
        }
    }

    fn takes_last_input(&mut self) -> bool {
        match &mut self.phase {
            Phase::Upgraded(next) => next.takes_last_input(),
            _ => false,
        }
    }

    /// Between two requests all there is to know is who asks, and whether he has asked before.
    fn hand_over(&mut self, _conn: &mut Conn<'_>) -> Option<Vec<u8>> {
        if !matches!(self.phase, Phase::Idle) || self.is_behind || self.half_closed {
            return None;
        }
        let peer = match &self.peer {
            Address::Unknown => String::new(),
            peer => peer.to_string(),
        };
        Some([&[u8::from(self.has_answered)], peer.as_bytes()].concat())
    }

    fn taken_over(&mut self, conn: &mut Conn<'_>, state: &[u8]) -> Flow {
        let [has_answered, peer @ ..] = state else { return Flow::Close };
        self.has_answered = *has_answered != 0;
        // A client in the Unix domain has no name to be told apart by; this process knows as much of it as the other one did.
        if let Some(peer) = std::str::from_utf8(peer).ok().and_then(|peer| peer.parse().ok()) {
            self.peer = peer;
        }
        conn.unchanged_flow()
    }

    fn idle_since(&mut self, conn: &mut Conn<'_>) -> Option<Instant> {
        match &mut self.phase {
            Phase::Upgraded(next) => next.idle_since(conn),
            Phase::Idle if !self.is_behind && !self.half_closed => {
                // The deadline was set when it became so, or when the drain began.
                let deadline = conn.deadline()?.duration_since(Instant::ZERO);
                Some(Instant::ZERO.saturating_add(deadline.saturating_sub(self.patience(conn))))
            }
            _ => None,
        }
    }

    fn stopping(&mut self, conn: &mut Conn<'_>) -> Flow {
        match &mut self.phase {
            Phase::Upgraded(next) => return next.stopping(conn),
            Phase::Idle if !self.is_behind => self.wait_for_request(conn),
            // It has its answer, and nothing that it loses when the drain ends.
            Phase::Skip(_) => conn.set_deadline(conn.drain_grace()),
            // They may have been waiting for this.
            Phase::Waiting(_) | Phase::Streaming(_) => return self.woken(conn),
            _ => {}
        }
        self.unchanged(conn)
    }

    fn closing(&mut self, conn: &mut Conn<'_>) -> Flow {
        match &mut self.phase {
            Phase::Upgraded(next) => next.closing(conn),
            _ => Flow::Linger,
        }
    }

    fn outgoing(&mut self, conn: &mut Conn<'_>, bytes: Bytes) -> Flow {
        match &mut self.phase {
            Phase::Upgraded(next) => next.outgoing(conn, bytes),
            _ => {
                conn.send_common(bytes);
                conn.unchanged_flow()
            }
        }
    }

    fn told(&mut self, conn: &mut Conn<'_>, message: Message) -> Flow {
        match &mut self.phase {
            Phase::Upgraded(next) => next.told(conn, message),
            _ => conn.unchanged_flow(),
        }
    }

    fn finishing(&mut self, conn: &mut Conn<'_>) -> Flow {
        match &mut self.phase {
            Phase::Upgraded(next) => next.finishing(conn),
            // Nobody would hear the rest.
            Phase::Waiting(_) | Phase::Streaming(_) => self.break_off(conn, Outcome::BrokenOff),
            // Nor what a request is answered: nothing more is taken for one.
            _ => Flow::Linger,
        }
    }

    fn lost(&mut self, reason: Lost, commands: &mut Commands) {
        self.lose_body();
        self.note_lost(&reason, commands);
        if let Phase::Upgraded(next) = &mut self.phase {
            next.lost(reason, commands);
        }
    }
}

impl<S: Service> fmt::Debug for Http<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("peer", &self.peer).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Params, Replied, Reply};

    struct Nothing;
    impl Service for Nothing {
        fn find(&self, _method: &str, _path: &[u8], _params: &mut Params) -> Route<'_> {
            Route::NotFound
        }
        fn methods(&self) -> &str {
            ""
        }
        fn call(&self, _route: RouteId, _request: &Request<'_>, reply: Reply<'_>) -> Replied {
            reply.empty(http::StatusCode::OK)
        }
    }

    #[test]
    fn a_connection_between_requests_is_at_most_96_bytes() {
        assert!(size_of::<Http<Nothing>>() <= 96, "{}", size_of::<Http<Nothing>>());
    }
}
