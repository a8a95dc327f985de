//! A connection as its callbacks see it.

use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;

use super::commands::Commands;
use super::reply::Reply;
use super::stream::{Phase, Stream};
use super::{ConnLimits, Context, Flow, Local, Lost};
use crate::clockwork::Instant;
use crate::driver::Io;
use crate::mem::{self, FileRange, Held, Key, Pool, WriteQueue};
use crate::sys::{self, Address};
use crate::task::WakeTarget;

/// Names a connection, on any thread: once it is gone the name finds nothing, until 268 million connections of its kind later.
///
/// Names have an order, of worker and place, which says nothing about age. Who goes through many connections in a test keeps them
/// in it (`BTreeMap`, a sorted `Vec`): the order of a [`HashMap`](std::collections::HashMap) with its default hasher differs from one
/// run to the next, and a seed would not repeat what happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    pub(crate) worker: u16,
    pub(crate) key: Key,
}

impl ConnId {
    /// The worker that owns the connection.
    #[must_use]
    pub fn worker(self) -> usize {
        usize::from(self.worker)
    }
}

/// The connection that a callback is about.
///
/// Output goes into a queue and leaves in one system call soon after the callback has returned, together with
/// that of other connections; above 16 KiB at once. [`send_now`](Self::send_now) does not wait so long.
pub struct Conn<'a> {
    pub(super) stream: &'a mut Stream,
    pub(super) cx: &'a mut Context,
    pub(super) io: &'a mut dyn Io,
    pub(super) key: Key,
    pub(super) reply: Reply,
}

impl Conn<'_> {
    /// A name for this connection that other connections and threads can use.
    #[must_use]
    pub fn id(&self) -> ConnId {
        let key = if self.stream.is_dialed() { self.cx.dialed.name_of(self.key) } else { self.key };
        ConnId { worker: self.cx.worker, key }
    }

    /// The worker that this connection lives on, counted from zero.
    #[must_use]
    pub fn worker(&self) -> usize {
        usize::from(self.cx.worker)
    }

    /// The time at which this turn's work began. Free: the clock is read once a turn.
    #[inline]
    #[must_use]
    pub fn now(&self) -> Instant {
        self.cx.agenda.clock.now()
    }

    /// Seconds since 1970, from the same reading.
    #[inline]
    #[must_use]
    pub fn unix_seconds(&self) -> u64 {
        self.cx.agenda.clock.unix_seconds()
    }

    /// Queues a copy of these bytes.
    #[inline]
    pub fn send(&mut self, bytes: &[u8]) {
        if self.drops_output() {
            return;
        }
        self.stream.out.write(&mut self.cx.agenda.pool, bytes);
    }

    /// Sends these bytes without a copy, and at once; what the socket does not take is copied and queued.
    ///
    /// One system call inside the callback, unless something is queued already: then these bytes are queued
    /// behind it, as [`send`](Self::send) does. For a callback whose whole answer is one slice, such as an
    /// echo or a proxied piece. An answer in several pieces costs less queued.
    ///
    /// Bytes of the input that the callback was offered are better still: where nothing else is sent, they stay
    /// in the read block and leave from there behind the callbacks of the batch (at most 16), which is cheaper than at
    /// once. They count as queued only when the socket has not taken them.
    ///
    /// What the socket does not take holds the connection back as any other queue does, and a stream that has failed
    /// is lost when the callback has returned. What was sent is not taken back by
    /// [`Flow::Reset`](crate::Flow::Reset) or a panic.
    #[inline]
    pub fn send_now(&mut self, bytes: &[u8]) {
        if bytes.is_empty() || self.drops_output() {
            return;
        }
        if self.stream.waiting_bytes() == 0 {
            if self.reply.extend(bytes) {
                return;
            }
            if !self.reply.is_none() {
                // What goes back leaves behind the callback, and in front of the queue.
                return self.send(bytes);
            }
        }
        self.send_past_reply(bytes);
    }

    /// Sends bytes at once that are none of the input, where nothing of that goes back.
    #[inline]
    pub(crate) fn send_past_reply(&mut self, bytes: &[u8]) {
        sys::assert_not_forked();
        let sent = if self.stream.waiting_bytes() == 0 { self.io.send(self.key, bytes) } else { 0 };
        self.stream.progressed(sent);
        if sent < bytes.len() {
            self.send_rest(&bytes[sent..]);
        }
    }

    #[cold]
    fn send_rest(&mut self, rest: &[u8]) {
        self.send(rest);
    }

    /// Queues bytes that live for ever. Above 4 KiB they are not copied.
    #[inline]
    pub fn send_static(&mut self, bytes: &'static [u8]) {
        if self.drops_output() {
            return;
        }
        self.stream.out.write_static(&mut self.cx.agenda.pool, bytes);
    }

    /// Queues shared bytes ([`netpoll_core::Bytes`](crate::Bytes), of the crate `bytes`). Above 4 KiB they are not copied, however many
    /// connections send them; they count as memory of this one
    /// ([`ConnLimits::memory_bytes_max`]), so of what many get better use [`send_common`](Self::send_common).
    #[inline]
    pub fn send_shared(&mut self, bytes: Bytes) {
        if self.drops_output() {
            return mem::discard(bytes);
        }
        self.stream.out.write_shared(&mut self.cx.agenda.pool, bytes);
    }

    /// The same for bytes that others hold as well: what is sent to many, a value of a cache. Above 4 KiB they do not count as memory of
    /// this connection ([`ConnLimits::memory_bytes_max`]), because they would be there without it. Whoever queues them has to see to
    /// it that somebody else bounds them: a value that is overwritten in the cache stays for as long as it waits here. For
    /// [`Protocol::outgoing`](crate::Protocol::outgoing) too.
    #[inline]
    pub fn send_common(&mut self, bytes: Bytes) {
        if self.drops_output() {
            return mem::discard(bytes);
        }
        self.stream.out.write_common(&mut self.cx.agenda.pool, bytes);
    }

    /// Queues a part of an open file, which leaves by `sendfile`: its bytes take no memory here, however many.
    ///
    /// They count as queued, so a part above [`ConnLimits::write_high_bytes`] holds the connection's input back until
    /// it has left but for [`ConnLimits::write_low_bytes`], and `drained` comes then. In one turn a connection sends
    /// at most 512 KiB of files; the rest follows in the next turns. If the file cannot be read, or turns out to be
    /// shorter than the range, the connection is reset and lost with [`Lost::FileFailed`](crate::Lost::FileFailed).
    ///
    /// One system call for each 512 KiB that the peer takes, and one more when it does not take all. Bytes in
    /// front of the file leave with `MSG_MORE`. A file system that has no `sendfile` is read in pieces of 64 KiB.
    /// Pages that are not in the page cache are read from the disk while the worker, and all its connections, wait.
    ///
    /// # Panics
    /// If more than `usize::MAX` bytes would be queued.
    pub fn send_file(&mut self, range: FileRange) {
        if self.drops_output() {
            return;
        }
        self.stream.out.write_file(&mut self.cx.agenda.pool, range);
    }

    /// Writes straight into the queue's last block, which has room for `reserve` bytes at least.
    ///
    /// The vector already holds queued bytes: append to it; what this call appended may be truncated
    /// again, or patched. Writing more than `reserve` grows the block by reallocation.
    ///
    /// # Panics
    /// If `write` leaves the vector shorter than it found it.
    #[inline]
    pub fn append<R>(&mut self, reserve: usize, write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let drops = self.drops_output();
        self.stream.out.append(&mut self.cx.agenda.pool, reserve, |into| {
            let queued = into.len();
            let result = write(into);
            if drops {
                into.truncate(queued);
            }
            result
        })
    }

    /// Ends our direction (FIN) behind what is queued, and goes on receiving: the peer sees the end of the stream, and
    /// may still send. Other than [`Flow::Close`](crate::Flow::Close) and [`Flow::Linger`](crate::Flow::Linger) it says nothing
    /// about the input.
    ///
    /// What is sent on this connection from here on, by whomever, is dropped; what [`append`](Self::append) writes is taken back.
    /// Input that was held back by the queue flows at once, and `drained` does not come any more. When the peer ends its
    /// direction too, or has already, the connection closes by itself ([`Lost::Closed`](crate::Lost::Closed)): behind
    /// [`eof`](crate::Protocol::eof), and behind what a pause or a [`Flow::Yield`](crate::Flow::Yield) has left to be offered. A peer
    /// that never ends keeps it open: set a deadline. A peer that does not take what is queued is cut as ever. The end of a
    /// drain cuts it without a reset once all has left.
    ///
    /// Nothing happens the second time. One system call (`shutdown`), behind the callback.
    pub fn finish(&mut self) {
        if self.reply.is_veiled() {
            // What waits above the layer leaves first. What is sent from here on is dropped, as long as the veil hangs and behind it.
            return self.stream.drop_output();
        }
        if self.stream.phase == Phase::Open {
            self.stream.say_end();
        }
        self.stream.finish_output(&mut self.cx.agenda, self.io, self.key);
    }

    /// Our direction ends, or has ended: [`finish`](Self::finish) was called, and what is sent is dropped.
    #[inline]
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.drops_output()
    }

    #[inline]
    fn drops_output(&self) -> bool {
        self.stream.phase != Phase::Open
    }

    /// Bytes that were queued and have not left.
    #[inline]
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.stream.waiting_bytes()
    }

    /// Output had to wait for the peer, and it has not been heard since that all of it has arrived
    /// ([`flushed`](crate::Protocol::flushed)). False for what is queued in this callback: nobody has tried to send it.
    #[inline]
    #[must_use]
    pub fn awaits_peer(&self) -> bool {
        self.stream.guard.is_some()
    }

    /// Has [`flushed`](crate::Protocol::flushed) come once when what is queued has left, also if it leaves at once: in the next turn
    /// then. For who wants to know when the last byte was handed to the kernel. Nothing comes behind the end of the connection but
    /// [`lost`](crate::Protocol::lost), as ever.
    ///
    /// A push on a list, and a turn that does not wait.
    ///
    /// ```
    /// use netpoll_core::{Conn, Flow, Input, Protocol};
    ///
    /// struct Report;
    ///
    /// impl Protocol for Report {
    ///     fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
    ///         conn.send(input.bytes());
    ///         conn.tell_when_flushed();
    ///         input.advance_all();
    ///         Flow::Continue
    ///     }
    ///
    ///     fn flushed(&mut self, conn: &mut Conn<'_>) {
    ///         println!("sent by {:?}", conn.now());
    ///     }
    /// }
    /// ```
    pub fn tell_when_flushed(&mut self) {
        self.stream.output_left(&mut self.cx.agenda, self.key);
    }

    /// More is queued than [`ConnLimits::write_high_bytes`]. When this callback has returned, the
    /// connection is not read until the queue has fallen to low water, which is when `drained` comes.
    ///
    /// What waits behind the end of our direction ([`finish`](Self::finish)) backs up nobody: input flows, and nothing more is queued.
    /// Nor does anything while [`read_while_backed_up`](Self::read_while_backed_up) is on. Who fills the queue until this says so asks
    /// [`is_finished`](Self::is_finished) as well.
    #[inline]
    #[must_use]
    pub fn is_backed_up(&self) -> bool {
        self.stream.waiting_bytes() > self.cx.limits.write_high_bytes
            && !self.drops_output()
            && !self.stream.hears_on()
    }

    /// Whether input flows although more than high water of output waits. Off by default: who does not read is not read, or one
    /// who asks on and on and takes no answer would fill the memory.
    ///
    /// So two peers that both send more than the kernels between them take, and read only behind that, stand still until one of them is
    /// cut ([`Lost::Stalled`](crate::Lost::Stalled)). A protocol whose peers may do that, as those that exchange large states in both
    /// directions at a time, turns it on, and sees to it itself that input does not make output without end:
    /// [`is_backed_up`](Self::is_backed_up) says no meanwhile, [`queued_bytes`](Self::queued_bytes) what waits, and `drained` comes as
    /// ever. A peer that does not take its output is still cut.
    ///
    /// From the end of this callback on, at most, and until it is turned off.
    ///
    /// ```
    /// use netpoll_core::{Conn, Flow, Input, Protocol};
    ///
    /// /// Both sides send all they have, and read what comes meanwhile.
    /// struct Exchange(Vec<u8>);
    ///
    /// impl Protocol for Exchange {
    ///     fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
    ///         conn.read_while_backed_up(true);
    ///         conn.send(&self.0);
    ///         Flow::Continue
    ///     }
    ///
    ///     fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
    ///         input.advance_all(); // nothing is answered, so nothing more is queued
    ///         Flow::Continue
    ///     }
    /// }
    /// ```
    pub fn read_while_backed_up(&mut self, on: bool) {
        self.stream.set_hears_on(on);
        if !self.reply.is_veiled() {
            self.stream.rein(&mut self.cx.agenda, self.io, self.key);
        }
    }

    /// The peer has sent all it will send.
    #[must_use]
    pub fn is_finished_by_peer(&self) -> bool {
        self.stream.is_finished()
    }

    /// The flow that changes nothing: `Flow::Pause` if this connection has paused, else `Flow::Continue`. For callbacks that
    /// have no wish of their own.
    #[must_use]
    pub fn unchanged_flow(&self) -> Flow {
        self.stream.unchanged_flow()
    }

    /// Calls `deadline` so long after now. A connection has one deadline; this replaces it. In the common
    /// case, a deadline later than the last one, this is a store.
    #[inline(always)]
    pub fn set_deadline(&mut self, after: Duration) {
        let now = self.now();
        self.set_deadline_at(now.saturating_add(after));
    }

    /// Calls `deadline` at this time, or in the next turn if it has passed.
    #[inline]
    pub fn set_deadline_at(&mut self, at: Instant) {
        let agenda = &mut self.cx.agenda;
        let now = agenda.clock.now();
        self.stream.deadlines.set_protocol(&mut agenda.timers, now, self.key, at);
    }

    /// No `deadline` call, until one is set again.
    #[inline]
    pub fn clear_deadline(&mut self) {
        self.stream.deadlines.clear_protocol();
    }

    /// When bytes were last moved between this connection and another one, in either direction
    /// ([`Commands::forward`](crate::Commands::forward)), or when that began if none were; now, while output waits to leave, forwarded
    /// or not, or the connection that the input goes to has no room or is not open yet: readers that are too slow are cut as ever. The
    /// end of one direction counts as a move of the other. Else `None` for one that has nothing forwarded, or no more.
    ///
    /// A `deadline` that looks here and sets the next one cuts a pair that has been idle, and no other: before it is called, what lies
    /// in the socket of this connection, and in that of the one whose input comes here, is moved.
    #[must_use]
    pub fn forwarded_at(&self) -> Option<Instant> {
        let moved = self.cx.forwards.last_moved(self.key);
        if self.stream.forwards_later() { Some(self.now()) } else { moved }
    }

    /// The deadline that is set, if one is.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.stream.deadlines.protocol()
    }

    /// The peer's address, or that of the other end of an outgoing connection. One system call. `None` when the peer is gone.
    #[must_use]
    pub fn peer_addr(&mut self) -> Option<Address> {
        self.io.peer_addr(self.key)
    }

    /// Our own address of this connection. One system call.
    #[must_use]
    pub fn local_addr(&mut self) -> Option<Address> {
        self.io.local_addr(self.key)
    }

    /// Bytes that have left the queue and that the peer's side has not acknowledged, if the driver can tell. One system
    /// call.
    #[must_use]
    pub fn unacknowledged_bytes(&mut self) -> Option<usize> {
        self.io.unacknowledged(self.key)
    }

    /// A waker that leads to `woken` on this connection, from any thread. One allocation at the first
    /// call; a burst of wakes is one `woken`.
    pub fn waker(&mut self) -> Waker {
        let (key, cx) = (self.key, &self.cx);
        self.stream
            .wake
            .get_or_insert_with(|| WakeTarget::new(key, cx.lane.number(), Arc::clone(&cx.wakes)))
            .waker()
    }

    /// What to do to other connections once this callback has returned.
    pub fn commands(&mut self) -> &mut Commands {
        &mut self.cx.commands
    }

    /// The value of this type that [`Builder::state`](crate::Builder::state) made for this worker. A short search and a clone
    /// of an `Rc`; a protocol that needs it in every callback had better be given it by its factory
    /// ([`WorkerInfo::state`](crate::WorkerInfo::state)).
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    #[track_caller]
    pub fn state<S: 'static>(&self) -> Rc<S> {
        self.cx.states.0.get()
    }

    /// The worker that this connection lives on, as code sees it that belongs to none.
    pub fn local(&mut self) -> Local<'_> {
        Local { cx: self.cx }
    }

    /// What a [`Layer`](crate::Layer) of this connection has told the protocols above it ([`Upper::tell_facts`](crate::Upper::tell_facts)), of
    /// the nearest layer that has told something of this type. Of TLS it is a `tls::TlsFacts`. `None` where there is none. A search among
    /// the layers, of which there is hardly ever more than one, and a clone of an `Arc`.
    #[must_use]
    pub fn layer_facts<F: Any + Send + Sync>(&self) -> Option<Arc<F>> {
        self.cx.facts.iter().rev().find_map(|facts| Arc::clone(facts).downcast().ok())
    }

    /// One more step of a handshake, if this turn has made fewer than so many.
    #[cfg(feature = "tls")]
    pub(crate) fn takes_handshake_step(&mut self, steps_max: usize) -> bool {
        let steps = &mut self.cx.agenda.handshake_steps;
        let takes = *steps < steps_max;
        *steps += usize::from(takes);
        takes
    }

    /// The runtime is shutting down gracefully: finish and close.
    #[inline]
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.cx.stopping
    }

    /// How long a connection that is between two requests should wait for another when a drain begins:
    /// [`ConnLimits::drain_grace`], but at most half of what is left of the drain that is under way: the other half is for the end.
    #[must_use]
    pub fn drain_grace(&self) -> Duration {
        self.cx.drain_grace()
    }

    /// Messages of this connection that a protocol should handle before it returns
    /// [`Flow::Yield`](crate::Flow::Yield): the events of the poll budget, `usize::MAX` if it is unlimited.
    #[inline]
    #[must_use]
    pub fn turn_budget(&self) -> usize {
        self.cx.agenda.turn_budget
    }

    /// The limits of this worker's connections.
    #[must_use]
    pub fn limits(&self) -> &ConnLimits {
        &self.cx.limits
    }

    /// The counters of this worker, as of its last turn for what the driver counts. A copy of half a kilobyte.
    #[must_use]
    pub fn worker_stats(&self) -> crate::Stats {
        self.cx.stats()
    }

    /// Adds answered requests to the ledger, which divides everything else by them.
    #[inline]
    pub fn count_requests(&mut self, requests: u64) {
        self.cx.agenda.stats.requests += requests;
    }

    /// Counts memory that this protocol keeps for its connection, nothing at first, until what is returned is dropped. Small
    /// and steady amounts are not worth it.
    #[must_use]
    pub fn hold_memory(&self) -> Held {
        self.cx.agenda.pool.hold()
    }

    /// The worker's connections hold more than [`ConnLimits::memory_bytes_max`]: do not hold more for this one, and let it go.
    #[must_use]
    pub fn is_short_of_memory(&self) -> bool {
        self.cx.agenda.is_short_of_memory()
    }

    /// Counts a connection or request that was let go for lack of memory.
    pub fn count_memory_overflow(&mut self) {
        self.cx.agenda.stats.memory_overflows += 1;
    }

    /// Counts a connection that was let go because more would have been queued for it than [`ConnLimits::output_bytes_max`].
    pub fn count_output_overflow(&mut self) {
        self.cx.agenda.stats.output_overflows += 1;
    }

    /// Counts an answer that the protocol gave up because its client had left.
    pub fn count_abandoned(&mut self) {
        self.cx.agenda.stats.abandoned += 1;
    }

    /// Counts a panic that the protocol caught itself.
    pub fn count_panic(&mut self) {
        self.cx.agenda.stats.panics += 1;
    }
}

// For the streams of `net`.
impl Conn<'_> {
    /// Its key.
    pub(crate) fn key(&self) -> Key {
        self.key
    }

    /// The blocks of its worker.
    #[inline]
    pub(crate) fn pool(&mut self) -> &mut Pool {
        &mut self.cx.agenda.pool
    }

    /// What is sent past its queue would not be what its peer expects: a layer has it.
    pub(crate) fn is_veiled(&self) -> bool {
        self.reply.is_veiled() || self.stream.is_layered()
    }

    /// It is a task's from here on: nothing of it is forwarded.
    pub(crate) fn give_to_task(&mut self) {
        self.stream.set_in_task();
    }

    /// The grace of a drain begins, unless it has.
    pub(crate) fn retire(&mut self) {
        self.stream.begin_to_retire(self.cx, self.key);
    }

    /// That grace is called off, if it runs: something is under way again.
    pub(crate) fn go_on_after_all(&mut self) {
        self.stream.go_on_after_all(&mut self.cx.agenda, &self.cx.limits, self.io, self.key);
    }

    /// Whether the peer takes what is sent is watched: what is sent past the queue would not be counted.
    #[inline]
    pub(crate) fn is_watched(&self) -> bool {
        self.stream.guard.is_some()
    }

    /// Takes over a queue, and leaves it empty. One that is a single piece is sent at once, if nothing waits.
    #[inline]
    pub(crate) fn take_over(&mut self, queue: &mut WriteQueue) {
        let pool = &mut self.cx.agenda.pool;
        if self.stream.phase != Phase::Open {
            return queue.clear(pool);
        }
        if !self.reply.is_veiled() && self.stream.waiting_bytes() == 0 && queue.is_single() {
            sys::assert_not_forked();
            let sent = self.io.send(self.key, queue.front());
            self.stream.progressed(sent);
            queue.consume(pool, sent);
            if queue.is_empty() {
                return;
            }
        }
        self.stream.out.write_all_of(pool, queue);
    }

    /// The flow of a connection that holds more than its worker has: it is lost for that.
    #[cold]
    pub(crate) fn let_go_for_memory(&mut self) -> Flow {
        self.count_memory_overflow();
        self.cx.cause = Some((self.key, Lost::MemoryOverflow));
        Flow::Reset
    }
}
