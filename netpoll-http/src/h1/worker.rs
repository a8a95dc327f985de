//! What all connections of one worker share: the service, the limits, and three small caches.
//!
//! Invariant: nothing in here is borrowed across a callback. A handler runs while `index` and `starts`
//! are borrowed, and cannot reach them: it only holds the request and the reply.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use memchr::memmem::Finder;
use netpoll_core::Conn;

use super::second::Second;
use super::watch::{END_OF_HEAD, Watcher, Written};
use super::{Exchange, Limits, Personal, Service};
use crate::message::{
    Above, Cause, Context, Error, Facts, Parts, Renderer, Replied, Reply, Request, Response, Rest, RouteId,
    Stamp, State, cause, dropped, finish, guarded, guarded_or_told, write_headers,
};
use crate::wire::{
    self, Connection, ContentType, HeadReader, HeadStarts, Length, Method, ResponseHead, response as encode,
};

/// The least to reserve for an answer: a head and a short body.
const RESERVE_MIN: usize = encode::HEAD_BYTES_USUAL;
/// The most to reserve ahead; larger answers grow their block.
const RESERVE_MAX: usize = 16 * 1024;

/// What a client is told less of the idle time than there is.
const ROUND_TRIP: Duration = Duration::from_secs(1);

/// As good as no limit, and a time that can be added to the clock's and taken off again: `Duration::MAX` cannot.
pub(crate) const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// What a task may code for each poll of one: the 128 that a worker makes in a row are worth 64 KiB, two milliseconds of gzip.
const CODED_BYTES_PER_POLL: usize = 512;

/// One worker's service and what its connections share.
pub(crate) struct Worker<S> {
    pub(crate) service: S,
    pub(crate) limits: Limits,
    pub(crate) wire_limits: wire::Limits,
    /// What a connection goes on as that speaks HTTP/2, if it may.
    pub(super) second: Option<Second<S>>,
    /// What writes errors, if the program does.
    errors: Option<Renderer>,
    /// Who hears of the end of each request.
    pub(super) watchers: Vec<Watcher>,
    /// How often they, and what they were shown, have panicked where it could not be counted.
    pub(super) uncounted_panics: Cell<u32>,
    /// What was written last, where somebody watches.
    pub(super) written: Cell<Written>,
    /// What went wrong with the request at hand, where somebody watches.
    pub(super) cause: Cell<Option<Cause>>,
    end_of_head: Finder<'static>,
    /// Reads heads, and has the one of the request at hand.
    pub(super) heads: RefCell<HeadReader>,
    starts: RefCell<HeadStarts>,
    /// Bytes that recent answers had, so that an answer fits the block that it starts in and a warm worker
    /// allocates nothing.
    answer_bytes: Usual,
    /// Bytes that were queued together lately, so that they share a block and leave in a plain `send`.
    batch_bytes: Usual,
    /// What a client that asks is told of a connection that stays.
    stays: Connection,
    /// Bytes that answers have coded or decoded since somebody asked.
    coded_bytes: Cell<usize>,
    /// How often tasks give way for what they have coded.
    owed_polls: Cell<usize>,
}

impl<S: Service> Worker<S> {
    pub(crate) fn new(service: S, mut limits: Limits, personal: Personal, second: Option<Second<S>>) -> Self {
        let Personal { errors, server, watchers } = personal;
        limits.idle_timeout = limits.idle_timeout.min(FOREVER);
        let wire_limits = wire::Limits {
            head_bytes_max: limits.head_bytes_max,
            headers_max: limits.headers_max,
            target_bytes_max: limits.target_bytes_max,
        };
        // An answer is on its way, and so is the next request: who is told all of it would find the connection closed.
        let idle_seconds = limits.idle_timeout.saturating_sub(ROUND_TRIP).as_secs();
        Self {
            service,
            stays: Connection::KeepAlive(u32::try_from(idle_seconds).unwrap_or(u32::MAX)),
            limits,
            wire_limits,
            second,
            errors,
            watchers,
            uncounted_panics: Cell::new(0),
            written: Cell::new(Written::default()),
            cause: Cell::new(None),
            end_of_head: Finder::new(END_OF_HEAD),
            heads: RefCell::new(HeadReader::new()),
            starts: RefCell::new(HeadStarts::of_server(&server.line())),
            answer_bytes: Usual::new(),
            batch_bytes: Usual::new(),
            coded_bytes: Cell::new(0),
            owed_polls: Cell::new(0),
        }
    }

    /// Bytes that were coded since this was asked before.
    #[cfg_attr(not(feature = "http2"), allow(dead_code))]
    pub(crate) fn take_coded_bytes(&self) -> usize {
        self.coded_bytes.take()
    }

    /// A task has coded so much: it and others give way to whoever else has work before they go on.
    #[cfg_attr(not(feature = "http2"), allow(dead_code))]
    pub(crate) fn owe(&self, bytes: usize) {
        self.owed_polls.set(self.owed_polls.get().saturating_add(bytes / CODED_BYTES_PER_POLL));
    }

    /// Whether the task that is polled is to give way, which is counted.
    #[cfg_attr(not(feature = "http2"), allow(dead_code))]
    pub(crate) fn gives_way(&self) -> bool {
        let owed = self.owed_polls.get();
        self.owed_polls.set(owed.saturating_sub(1));
        owed > 0
    }

    /// Somebody wants to hear of the end of each request.
    pub(crate) fn is_watched(&self) -> bool {
        !self.watchers.is_empty()
    }

    /// Something of the program has panicked, and there is no connection to count it at: that is done at the next one.
    pub(crate) fn note_uncounted_panic(&self) {
        self.uncounted_panics.set(self.uncounted_panics.get() + 1);
    }

    /// Drops something of the program where there is no connection any more.
    pub(crate) fn let_go<T>(&self, value: T) {
        if !dropped(value) {
            self.note_uncounted_panic();
        }
    }

    /// The program has panicked over the request at hand, and said this.
    #[cold]
    pub(crate) fn note_panic(&self, said: &str) {
        if self.is_watched() {
            self.cause.set(cause::of_panic(said));
        }
    }

    /// The largest body that a route takes with this method; `None` if it takes none.
    #[inline]
    pub(crate) fn body_bytes_max(&self, route: RouteId, method: Method) -> Option<usize> {
        let own = self.service.body_bytes_max(route);
        let has_meaning = !matches!(method, Method::Get | Method::Head | Method::Options | Method::Delete);
        own.or(has_meaning.then_some(self.limits.body_bytes_max))
    }

    /// How long an asynchronous handler of this route may take.
    pub(super) fn handler_timeout(&self, conn: &mut Conn<'_>, route: Option<RouteId>) -> Duration {
        let own = guarded(|| route.and_then(|route| self.service.handler_timeout(route)));
        if own.is_none() {
            conn.count_panic();
        }
        own.flatten().unwrap_or(self.limits.handler_timeout)
    }

    /// The same, where it is not the route that was found.
    pub(super) fn limit_time(&self, conn: &mut Conn<'_>, route: RouteId, rest: &mut Rest) {
        if let Rest::Future(pending) = rest {
            pending.set_timeout(self.handler_timeout(conn, Some(route)));
        }
    }

    /// Lets `answer` write into the write queue, with everything that it has to fit.
    ///
    /// A panic takes back what was written, answers 500 and closes the connection. The `after` hooks of the service
    /// see what leaves, once, and are shown `request`, which is there if there are any. So is what writes errors.
    #[inline]
    pub(super) fn write(
        &self,
        conn: &mut Conn<'_>,
        exchange: &Exchange,
        request: Option<&Request<'_>>,
        rest: &mut Rest,
        answer: impl FnOnce(Reply<'_>) -> Replied,
    ) -> Replied {
        self.write_and_look::<true>(conn, exchange, request, rest, answer)
    }

    /// The same for a connection that nobody watches.
    #[inline]
    pub(super) fn write_unwatched(
        &self,
        conn: &mut Conn<'_>,
        exchange: &Exchange,
        request: &Request<'_>,
        rest: &mut Rest,
        answer: impl FnOnce(Reply<'_>) -> Replied,
    ) -> Replied {
        self.write_and_look::<false>(conn, exchange, Some(request), rest, answer)
    }

    #[inline(always)]
    fn write_and_look<const MAY_BE_WATCHED: bool>(
        &self,
        conn: &mut Conn<'_>,
        exchange: &Exchange,
        request: Option<&Request<'_>>,
        rest: &mut Rest,
        answer: impl FnOnce(Reply<'_>) -> Replied,
    ) -> Replied {
        let mut starts = self.starts.borrow_mut();
        let has_after = request.is_some() && self.has_after(conn, exchange.route);
        let stamp = match request {
            // The shortest way is of routes without hooks.
            Some(request) if MAY_BE_WATCHED && !has_after => self.stamp(conn, exchange.route, request),
            _ => None,
        };
        let stamp = stamp.as_ref();
        let context = Context { above: self, route: exchange.route, request, has_after, stamp };
        let may_switch = has_after && request.is_some_and(Request::may_switch) && !conn.is_finished_by_peer();
        let keep_alive = exchange.keep_alive && !conn.is_stopping();
        let stays = if exchange.says_keep_alive { self.stays } else { Connection::Unsaid };
        let starts = starts.at(conn.unix_seconds());
        let facts = Facts::new(exchange.head_only, exchange.is_http10, keep_alive, stays, starts, context);
        let usual = if conn.queued_bytes() == 0 { &self.batch_bytes } else { &self.answer_bytes };
        let (replied, bytes, panics) = conn.append(usual.get(), |out| {
            let start = out.len();
            let (replied, panics) = self.compose(out, rest, &facts, may_switch, answer);
            let bytes = out.len() - start;
            if MAY_BE_WATCHED && self.is_watched() {
                // Of what hooks or a panic have changed it has to be looked for.
                let is_known = panics == 0 && !facts.has_after();
                let head_bytes = facts.head_end().checked_sub(start).filter(|_| is_known);
                self.written.set(Written::of(&out[start..], head_bytes, &self.end_of_head, panics));
            }
            (replied, bytes, panics)
        });
        self.answer_bytes.note(bytes);
        for _ in 0..panics {
            conn.count_panic();
        }
        replied
    }

    /// Lets `answer` append itself, and sees to hooks and panics: how many there were.
    #[inline(always)]
    fn compose(
        &self,
        out: &mut Vec<u8>,
        rest: &mut Rest,
        facts: &Facts<'_>,
        may_switch: bool,
        answer: impl FnOnce(Reply<'_>) -> Replied,
    ) -> (Replied, u32) {
        let start = out.len();
        let mut extra = None;
        let call = || {
            let mut state = State::new(&mut *out, &mut *rest, &mut extra, facts);
            answer(Reply::new(&mut state))
        };
        match guarded_or_told(call, |said| self.note_panic(said)) {
            // A handler can only have answered with its own reply; anything else is a mistake of it.
            Some(replied) if (out.len() > start || rest.is_unwritten()) && !facts.has_after() => (replied, 0),
            replied => finish(out, start, rest, extra.take(), replied, facts, may_switch),
        }
    }

    /// The same where there is no connection but one that others answer on as well: the answer is appended to `out`, and written to nobody.
    /// Where its head ends, and how often the program has panicked.
    #[cfg_attr(not(feature = "http2"), allow(dead_code))]
    pub(crate) fn write_apart(
        &self,
        unix_seconds: u64,
        (route, head_only): (Option<RouteId>, bool),
        request: &Request<'_>,
        rest: &mut Rest,
        out: &mut Vec<u8>,
        answer: impl FnOnce(Reply<'_>) -> Replied,
    ) -> (usize, u32) {
        let mut starts = self.starts.borrow_mut();
        let mut panics = 0;
        let has_after = guarded(|| self.service.must_see(route)).unwrap_or_else(|| {
            panics += 1;
            false
        });
        let stamp = match has_after {
            true => None,
            false => guarded(|| self.service.stamp(route, request)).unwrap_or_else(|| {
                panics += 1;
                None
            }),
        };
        let stamp = stamp.filter(|(name, value)| encode::may_be_added(name, value));
        let context =
            Context { above: self, route, request: Some(request), has_after, stamp: stamp.as_ref() };
        let starts = starts.at(unix_seconds);
        let facts = Facts::new(head_only, false, true, Connection::Unsaid, starts, context);
        let start = out.len();
        let (_, more) = self.compose(out, rest, &facts, false, answer);
        let head_end = match out.len() > start {
            true => {
                self.end_of_head.find(&out[start..]).map_or(out.len(), |at| start + at + END_OF_HEAD.len())
            }
            false => start,
        };
        (head_end, panics + more)
    }

    /// How long an asynchronous handler of this route may take, asked where there is no connection.
    #[cfg_attr(not(feature = "http2"), allow(dead_code))]
    pub(crate) fn handler_timeout_apart(&self, route: Option<RouteId>) -> Duration {
        let own = guarded(|| route.and_then(|route| self.service.handler_timeout(route)));
        if own.is_none() {
            self.note_uncounted_panic();
        }
        own.flatten().unwrap_or(self.limits.handler_timeout)
    }

    /// What went wrong with the answer that was written last.
    #[cfg_attr(not(feature = "http2"), allow(dead_code))]
    pub(crate) fn take_cause(&self) -> Option<Cause> {
        self.cause.take()
    }

    #[inline]
    fn has_after(&self, conn: &mut Conn<'_>, route: Option<RouteId>) -> bool {
        if S::IS_OWN {
            return self.service.must_see(route);
        }
        guarded(|| self.service.must_see(route)).unwrap_or_else(|| {
            conn.count_panic();
            false
        })
    }

    #[inline]
    fn stamp<'r>(
        &self,
        conn: &mut Conn<'_>,
        route: Option<RouteId>,
        request: &'r Request<'_>,
    ) -> Option<Stamp<'r>> {
        if S::IS_OWN {
            return self.service.stamp(route, request);
        }
        let stamp = guarded(|| self.service.stamp(route, request)).unwrap_or_else(|| {
            conn.count_panic();
            None
        });
        stamp.filter(|(name, value)| encode::may_be_added(name, value))
    }

    /// Writes a 101. How long it has become.
    #[cold]
    pub(super) fn switch_protocols(&self, conn: &mut Conn<'_>, headers: &HeaderMap) -> usize {
        let mut starts = self.starts.borrow_mut();
        let head = ResponseHead {
            status: StatusCode::SWITCHING_PROTOCOLS,
            content_type: ContentType::None,
            starts: starts.at(conn.unix_seconds()),
            connection: Connection::Upgrade,
            length: Length::Unsaid,
        };
        conn.append(RESERVE_MIN, |out| {
            let start = out.len();
            encode::open_head(out, &head);
            write_headers(out, headers);
            encode::close_head(out);
            out.len() - start
        })
    }

    /// Notes how much a callback has queued.
    #[inline]
    pub(super) fn note_batch(&self, queued_bytes: usize) {
        self.batch_bytes.note(queued_bytes);
    }
}

/// What to reserve for something of which many were seen: follows their size up at once and down slowly.
struct Usual(Cell<usize>);

impl Usual {
    fn new() -> Self {
        Self(Cell::new(RESERVE_MIN))
    }

    #[inline]
    fn get(&self) -> usize {
        self.0.get()
    }

    #[inline]
    fn note(&self, bytes: usize) {
        let usual = self.0.get();
        if bytes > usual {
            // Some slack, because the next one is rarely the same to the byte.
            self.0.set((bytes + bytes / 8).min(RESERVE_MAX));
        } else {
            self.0.set((usual - usual / 256).max(RESERVE_MIN));
        }
    }
}

impl<S: Service> Above for Worker<S> {
    fn after(&self, route: Option<RouteId>, request: &Request<'_>, parts: &mut Parts) {
        self.service.after(route, request, parts);
    }

    fn needs_requests(&self) -> bool {
        self.errors.is_some() || self.is_watched()
    }

    fn coded(&self, bytes: usize) {
        self.coded_bytes.set(self.coded_bytes.get().saturating_add(bytes));
    }

    #[cold]
    fn fails(&self, error: &Error) {
        if !self.is_watched() {
            return;
        }
        // The answer is the same whether somebody watches or not, also where an error panics about its text.
        let cause = guarded(|| cause::of_error(error)).unwrap_or_else(|| {
            self.note_uncounted_panic();
            None
        });
        // An apology for a panic says nothing that the panic has not said.
        if cause.is_some() {
            self.cause.set(cause);
        }
    }

    fn render(&self, error: &Error, request: &Request<'_>) -> Option<Response> {
        self.errors.as_ref().map(|render| render(error, request))
    }
}
