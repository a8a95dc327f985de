//! A body that is read while it arrives: what its connection and its reader share, and the reader.
//!
//! The connection puts in what has come, up to a limit, and the reader takes all that waits as one piece. Each tells the other by a waker, but
//! not the reader that is polled by the connection itself, which looks behind the poll.
//!
//! Invariant: nothing is borrowed while code of the program runs, its wakers included. What waits lies in front of the end, and nothing is put in
//! behind that. What waits counts in the worker's budget from 4 KiB on, and a piece that was taken for as long as anybody holds it.

use std::cell::RefCell;
use std::fmt;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use netpoll_core::Held;

use super::{Body, BodyBuf, BodyError, BodyStream, Pull, guarded};
use crate::wire::Trailers;

/// What is as small as what a connection costs anyway is bounded by their number.
const UNCOUNTED_BYTES_MAX: usize = 4096;

/// What the connection and the reader share.
pub(crate) struct Inflow {
    state: RefCell<State>,
}

struct State {
    /// What has arrived and nobody has taken.
    waiting: Vec<u8>,
    /// The same in the worker's budget, if it is much.
    held: Option<Held>,
    /// What is behind it, if that is known.
    end: Option<Result<Trailers, BodyError>>,
    /// Who waits for more.
    reader: Option<Waker>,
    connection: Waker,
    /// The connection polls the handler, and looks at the rest behind that.
    is_inside: bool,
    /// The reader is gone.
    is_dropped: bool,
    /// How often the reader has looked.
    looks: u32,
}

impl State {
    /// Tells the connection that something has changed.
    fn tell_connection(&self) {
        if !self.is_inside {
            self.connection.wake_by_ref();
        }
    }

    /// Takes what waits, all of it.
    fn take(&mut self) -> Bytes {
        let bytes = mem::take(&mut self.waiting);
        match self.held.take() {
            Some(held) => Bytes::from_owner(Piece { bytes, _held: held }),
            None => Bytes::from(bytes),
        }
    }

    /// Waits for more. What was waited with before is returned, to be dropped when nothing is borrowed.
    fn wait(&mut self, waker: &Waker) -> Option<Waker> {
        if self.reader.as_ref().is_some_and(|known| known.will_wake(waker)) {
            return None;
        }
        self.reader.replace(waker.clone())
    }
}

/// Bytes that count in the worker's budget.
struct Piece {
    bytes: Vec<u8>,
    _held: Held,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Inflow {
    /// One that has nothing yet, of the connection with this waker.
    pub(crate) fn new(connection: Waker) -> Rc<Self> {
        Rc::new(Self {
            state: RefCell::new(State {
                waiting: Vec::new(),
                held: None,
                end: None,
                reader: None,
                connection,
                is_inside: false,
                is_dropped: false,
                looks: 0,
            }),
        })
    }

    /// Its one reader, of a body that is so long, if that is known.
    pub(crate) fn reader(self: &Rc<Self>, length: Option<u64>) -> BodyReader {
        BodyReader { source: Source::Arriving(Rc::clone(self)), left: length, trailers: None }
    }

    /// Makes room for so many bytes more. False if there is no memory for them.
    pub(crate) fn make_room(&self, bytes: usize, is_short: bool, hold: impl FnOnce() -> Held) -> bool {
        let state = &mut *self.state.borrow_mut();
        let State { waiting, held, .. } = state;
        let before = waiting.capacity();
        if bytes <= before - waiting.len() {
            return true;
        }
        let room = bytes.max(waiting.len() / 2);
        let is_counted = waiting.len() + room > UNCOUNTED_BYTES_MAX;
        if (is_counted && is_short) || waiting.try_reserve_exact(room).is_err() {
            return false;
        }
        match held {
            Some(held) => held.grow(waiting.capacity() - before),
            None if is_counted => held.insert(hold()).grow(waiting.capacity()),
            None => {}
        }
        true
    }

    /// Puts in what has come. There is room for it.
    pub(crate) fn put(&self, bytes: &[u8]) {
        let mut state = self.state.borrow_mut();
        debug_assert!(state.end.is_none(), "nothing comes behind the end");
        state.waiting.extend_from_slice(bytes);
    }

    /// It is whole.
    pub(crate) fn finish(&self, trailers: Trailers) {
        self.state.borrow_mut().end = Some(Ok(trailers));
    }

    /// It is not going to be whole. What has come in front of that is read first.
    pub(crate) fn fail(&self, error: BodyError) {
        let mut state = self.state.borrow_mut();
        debug_assert!(!matches!(state.end, Some(Ok(_))), "a whole body does not fail");
        state.end = Some(Err(error));
    }

    /// How much waits to be taken.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.state.borrow().waiting.len()
    }

    /// Somebody waits for more, and nothing is there.
    pub(crate) fn is_wanted(&self) -> bool {
        let state = self.state.borrow();
        state.reader.is_some() && state.waiting.is_empty() && state.end.is_none()
    }

    /// Nobody is going to read on.
    pub(crate) fn is_dropped(&self) -> bool {
        self.state.borrow().is_dropped
    }

    /// How often the reader has looked; it may go round.
    pub(crate) fn looks(&self) -> u32 {
        self.state.borrow().looks
    }

    /// Who is to be woken now, if something is there for whoever waits.
    pub(crate) fn take_waiter(&self) -> Option<Waker> {
        let mut state = self.state.borrow_mut();
        let has_news = !state.waiting.is_empty() || state.end.is_some();
        if has_news { state.reader.take() } else { None }
    }

    /// The connection polls the handler, and looks behind that; or it does not.
    pub(crate) fn set_inside(&self, is_inside: bool) {
        self.state.borrow_mut().is_inside = is_inside;
    }
}

/// Wakes somebody, whose waker may be the program's.
pub(crate) fn wake(waker: Waker) -> bool {
    guarded(move || waker.wake()).is_some()
}

/// Reads the body of a request while it arrives: what a handler of two arguments gets.
///
/// ```
/// use netpoll_http::{App, BodyReader, Error, Handler, Request, RouteLimits, Router};
///
/// async fn count(_: Request<'static>, mut body: BodyReader) -> Result<String, Error> {
///     let mut bytes = 0;
///     while let Some(chunk) = body.chunk().await? {
///         bytes += chunk.len();
///     }
///     Ok(format!("{bytes} bytes"))
/// }
///
/// let router = |_: &_| Router::new().put("/", count.limits(RouteLimits::default().unlimited_body()));
/// assert_eq!(App::new(router).test().put("/", vec![0; 10 << 20]).text(), "10485760 bytes");
/// ```
///
/// Pieces are what has come since the last one: they have nothing to do with chunks of HTTP. While nobody takes them,
/// [`Limits::body_buffer_bytes`](crate::Limits::body_buffer_bytes) of them wait, and then the connection is not read, which holds the
/// client back. A body that has come together with its head is one piece.
///
/// # How it ends
///
/// With `None` when it is whole, or with an error that says [whose fault](BodyError) it is that it is not. What had come by then is read first. Behind an
/// error of the body the connection is not used again, whatever the handler answers; if the client [has left](BodyError::Left), the answer is
/// dropped, as the request has never been there as a whole. A client that is gone altogether, by a reset, drops the handler's
/// future, as ever.
///
/// A handler may answer before it has read all: a short rest is skipped ([`Limits::skip_bytes_max`](crate::Limits::skip_bytes_max)), behind a longer
/// one the connection ends. The body ends with its answer, so a reader that was handed to a [task](netpoll_core::task::spawn_local)
/// finds [`BodyError::Answered`] then. An answer that is a stream has not ended: it may read on, and an echo is
/// `Response::bytes(body)`.
///
/// # How long it takes
///
/// While the handler waits for more, and nothing is there, the client has to be quick enough ([`Limits::body_grace`](crate::Limits::body_grace)). While it does
/// something else, or has not taken what is there, the time is its own: [`Limits::handler_timeout`](crate::Limits::handler_timeout), anew each
/// time that it looks for more. So a body may take as long as it likes, if both go on.
///
/// A client that waits for a `100 Continue` is told to go on when the body is first waited for.
pub struct BodyReader {
    source: Source,
    /// What the client has said is still to come, and was not taken.
    left: Option<u64>,
    /// What came behind it, once that was seen.
    trailers: Option<Trailers>,
}

enum Source {
    /// All of it was there.
    Whole(Bytes, Option<Trailers>),
    Arriving(Rc<Inflow>),
    /// It waits elsewhere, and is asked for.
    Fetched(Box<dyn Fetch>),
}

/// Implemented above: a body that is held back by who has it, until it is asked for.
#[cfg_attr(not(feature = "http2"), allow(dead_code))]
pub(crate) trait Fetch {
    /// The next piece, which is not empty. Behind an error the same one again.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyError>>;

    /// Nobody waits for more.
    fn stop_waiting(&mut self);

    /// What came behind it, once that was seen.
    fn take_trailers(&mut self) -> Trailers;
}

impl BodyReader {
    /// One of a body that is there.
    pub(crate) fn whole(bytes: Bytes, trailers: Trailers) -> Self {
        let left = Some(bytes.len() as u64);
        Self { source: Source::Whole(bytes, Some(trailers)), left, trailers: None }
    }

    /// One of a body that is so long, if that is known, and is asked for.
    #[cfg_attr(not(feature = "http2"), allow(dead_code))]
    pub(crate) fn fetched(fetch: Box<dyn Fetch>, length: Option<u64>) -> Self {
        Self { source: Source::Fetched(fetch), left: length, trailers: None }
    }

    /// Waits for the next piece. `None` when there is none, because the body is whole.
    ///
    /// # Errors
    /// The body is not going to be whole, and the error says why; the same one again from then on.
    ///
    /// # Cancel safety
    /// A wait that is given up loses nothing.
    pub fn chunk(&mut self) -> Chunk<'_> {
        Chunk { reader: self }
    }

    /// The same as a poll. `futures::stream::poll_fn(move |cx| body.poll_chunk(cx).map(Result::transpose))` is a stream of it.
    ///
    /// # Errors
    /// Those of [`chunk`](Self::chunk).
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyError>> {
        self.poll_with(cx, State::take, |bytes| bytes)
    }

    /// Takes what waits, from where it lies or as it is.
    fn poll_with<R>(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&mut State) -> R,
        whole: impl FnOnce(Bytes) -> R,
    ) -> Poll<Result<Option<R>, BodyError>> {
        let inflow = match &mut self.source {
            Source::Whole(bytes, trailers) => {
                let bytes = mem::take(bytes);
                if bytes.is_empty() {
                    self.trailers = self.trailers.take().or(trailers.take());
                    return Poll::Ready(Ok(None));
                }
                self.left = Some(0);
                return Poll::Ready(Ok(Some(whole(bytes))));
            }
            Source::Arriving(inflow) => inflow,
            Source::Fetched(fetch) => {
                return match fetch.poll_piece(cx)? {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(Some(bytes)) => {
                        self.left = self.left.map(|left| left.saturating_sub(bytes.len() as u64));
                        Poll::Ready(Ok(Some(whole(bytes))))
                    }
                    Poll::Ready(None) => {
                        self.trailers.get_or_insert_with(|| fetch.take_trailers());
                        Poll::Ready(Ok(None))
                    }
                };
            }
        };
        let mut state = inflow.state.borrow_mut();
        state.looks = state.looks.wrapping_add(1);
        state.tell_connection();
        if !state.waiting.is_empty() {
            self.left = self.left.map(|left| left - state.waiting.len() as u64);
            return Poll::Ready(Ok(Some(take(&mut state))));
        }
        match &mut state.end {
            Some(Ok(trailers)) => {
                self.trailers.get_or_insert_with(|| mem::take(trailers));
                Poll::Ready(Ok(None))
            }
            Some(Err(error)) => Poll::Ready(Err(*error)),
            None => {
                let before = state.wait(cx.waker());
                drop(state);
                drop(before);
                Poll::Pending
            }
        }
    }

    /// How many bytes are still to be read, if the client has said how long the body is.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.left
    }

    /// The trailer fields, as [`Request::trailers`](crate::Request::trailers) has them, behind the last piece of a chunked body; before that, none.
    pub fn trailers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.trailers.iter().flat_map(Trailers::iter)
    }

    /// Nobody waits for more.
    fn stop_waiting(&mut self) {
        let inflow = match &mut self.source {
            Source::Whole(..) => return,
            Source::Arriving(inflow) => inflow,
            Source::Fetched(fetch) => return fetch.stop_waiting(),
        };
        let mut state = inflow.state.borrow_mut();
        let waker = state.reader.take();
        if waker.is_some() {
            state.tell_connection();
        }
        drop(state);
        drop(waker);
    }
}

impl Drop for BodyReader {
    fn drop(&mut self) {
        let Source::Arriving(inflow) = &self.source else { return };
        let mut state = inflow.state.borrow_mut();
        state.is_dropped = true;
        state.tell_connection();
        let left = (mem::take(&mut state.waiting), state.held.take(), state.reader.take());
        drop(state);
        drop(left);
    }
}

impl fmt::Debug for BodyReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyReader").field("length", &self.left).finish_non_exhaustive()
    }
}

/// What is left of a body, sent back as it arrives, and no faster than it is taken. If it is not going to be whole the connection ends, so
/// that the client notices.
///
/// The client has to read while it sends: one that does not is cut, when neither side goes on
/// ([`ConnLimits::write_grace`](netpoll_core::ConnLimits::write_grace)).
impl BodyStream for BodyReader {
    fn pull(&mut self, context: &mut Context<'_>, out: &mut BodyBuf<'_>) -> Pull {
        let out = RefCell::new(out);
        let take = |state: &mut State| {
            out.borrow_mut().extend(&state.waiting);
            // Its memory is used again.
            state.waiting.clear();
        };
        match self.poll_with(context, take, |bytes| out.borrow_mut().extend(&bytes)) {
            Poll::Pending => Pull::Wait,
            Poll::Ready(Ok(Some(()))) => Pull::More,
            Poll::Ready(Ok(None)) => Pull::Done,
            Poll::Ready(Err(_)) => Pull::Failed,
        }
    }
}

/// A stream, of what is left to be read; as long as that is, if it is known.
impl From<BodyReader> for Body {
    fn from(reader: BodyReader) -> Self {
        let length = reader.length();
        Self::Stream { stream: Box::new(reader), length }
    }
}

/// The future of [`BodyReader::chunk`].
#[derive(Debug)]
#[must_use = "futures do nothing unless they are awaited"]
pub struct Chunk<'r> {
    reader: &'r mut BodyReader,
}

impl Future for Chunk<'_> {
    type Output = Result<Option<Bytes>, BodyError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.reader.poll_chunk(cx)
    }
}

impl Drop for Chunk<'_> {
    fn drop(&mut self) {
        self.reader.stop_waiting();
    }
}
