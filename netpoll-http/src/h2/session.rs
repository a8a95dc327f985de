//! A connection that speaks HTTP/2, as a protocol: bytes to frames and back, and the ends.
//!
//! Frames are hyper's to read and to write. It is polled in the callbacks of the connection, as a handler that waits is in HTTP/1.1
//! ([0005](../../../docs/decisions/0005-a-waiting-handler-lives-in-its-connection.md)), and finds what has come in a [`Pipe`]. Requests are tasks.
//!
//! The deadline of the connection is the earliest of those that it has: for being idle, for its age, for ends of answers that are not taken,
//! for going.
//!
//! Invariant: no frames are read while more than high water of output waits, or more of the input of one turn than that begins so many
//! requests. Behind the end of the frames nothing is read.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::server::conn::http2;
use netpoll_core::bridge::HyperTimer;
use netpoll_core::{Commands, Conn, Flow, Held, Input, Instant, Lost, Message, Protocol};

use super::line::Line;
use super::meter::{Meter, Reason, goodbye};
use super::pipe::{End, Pipe};
use super::settings::Http2;
use super::tasks::{Front, Tasks};
use crate::h1::Service;
use crate::h1::shared::FOREVER;
use crate::message::{dropped, guarded};

/// Bytes of input that are read in one go, before it is looked at how many requests have begun.
const PORTION_BYTES: usize = 4096;

/// Memory below this is as small as what a connection costs anyway.
const UNCOUNTED_BYTES_MAX: u64 = 64 * 1024;

/// By how much the memory that a connection holds may have changed since it was counted.
const UNSAID_BYTES_MAX: u64 = 16 * 1024;

type Frames<S> = http2::Connection<End, Front<S>, Tasks<S>>;

pub(super) struct Session<S: Service> {
    line: Rc<Line<S>>,
    pipe: Rc<Pipe>,
    /// Until it has come to an end.
    frames: Option<Pin<Box<Frames<S>>>>,
    meter: Meter,
    opened: Instant,
    /// Since when nothing is under way, the ends of answers included, if that is so.
    idle_since: Option<Instant>,
    /// Since when it takes no new requests, or is about to.
    going_since: Option<Instant>,
    /// Of the output, what had left at the last look at who is slow to go.
    seen_bytes: u64,
    sent_bytes: u64,
    /// Of the memory that it holds, what was counted.
    held: Option<Held>,
    held_bytes: u64,
}

impl<S: Service> Session<S> {
    pub(super) fn new(line: Rc<Line<S>>, conn: &Conn<'_>) -> Self {
        let pipe = Rc::new(Pipe::default());
        let meter = Meter::new(line.settings.idle_frames_max, conn.now());
        Self {
            frames: Some(Box::pin(frames(&line, &pipe))),
            line,
            pipe,
            meter,
            opened: conn.now(),
            idle_since: Some(conn.now()),
            going_since: None,
            seen_bytes: 0,
            sent_bytes: 0,
            held: None,
            held_bytes: 0,
        }
    }

    /// Lets frames be read and written, as far as there are any and there is room.
    fn drive(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.line.look(conn);
        let waker = conn.waker();
        let mut context = Context::from_waker(&waker);
        loop {
            let Some(frames) = &mut self.frames else { return Flow::Linger };
            self.pipe.set_room(!conn.is_backed_up());
            let polled = conn.lend(|| guarded(|| frames.as_mut().poll(&mut context)));
            self.send(conn);
            match polled {
                Some(Poll::Pending) if self.pipe.was_full() && !conn.is_backed_up() => {}
                Some(Poll::Pending) => break,
                // Its last frame says why, and is queued.
                Some(Poll::Ready(_)) => {
                    self.end(conn);
                    return Flow::Linger;
                }
                None => {
                    conn.count_panic();
                    self.end(conn);
                    return Flow::Reset;
                }
            }
        }
        self.tend(conn)
    }

    /// Queues what was written.
    fn send(&mut self, conn: &mut Conn<'_>) {
        let Self { pipe, meter, sent_bytes, .. } = self;
        pipe.take_output(|bytes| {
            meter.sent(bytes.len());
            *sent_bytes += bytes.len() as u64;
            conn.send(bytes);
        });
    }

    /// No more frames: what is under way hears of it.
    fn end(&mut self, conn: &mut Conn<'_>) {
        if !dropped(self.frames.take()) {
            conn.count_panic();
        }
        self.line.settle(conn);
        self.held = None;
        conn.clear_deadline();
    }

    /// Sees to what has changed: counters, memory, the deadline.
    fn tend(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.line.settle(conn);
        self.line.set_backed_up(conn.is_backed_up());
        let is_idle = self.line.streams() == 0 && self.line.unsent_bytes() == 0;
        match (is_idle, self.idle_since) {
            (true, None) => self.idle_since = Some(conn.now()),
            (false, Some(_)) => self.idle_since = None,
            _ => {}
        }
        if is_idle && conn.queued_bytes() == 0 {
            self.pipe.rest();
        }
        if !self.holds(conn) {
            conn.count_memory_overflow();
            self.end(conn);
            return Flow::Reset;
        }
        match self.deadline_at(conn) {
            Some(at) => conn.set_deadline_at(at),
            None => conn.clear_deadline(),
        }
        conn.unchanged_flow()
    }

    /// Counts the memory that the connection holds beside its queue. False if there is no more.
    fn holds(&mut self, conn: &mut Conn<'_>) -> bool {
        let waiting = self.pipe.waiting_bytes() as u64;
        if waiting == 0 {
            self.line.forget_closed_bodies(self.meter.data_bytes);
        }
        let ahead = self.meter.data_bytes.saturating_sub(self.line.taken_bytes());
        let ahead = ahead.min(u64::from(self.line.settings.connection_window_bytes));
        self.line.set_ahead_bytes(ahead);
        let bytes = ahead + self.line.unsent_bytes() + waiting;
        let grows = bytes > self.held_bytes;
        if bytes.abs_diff(self.held_bytes) > UNSAID_BYTES_MAX || (bytes == 0 && self.held.is_some()) {
            self.held = None;
            self.held_bytes = bytes;
            if bytes > 0 {
                let mut held = conn.hold_memory();
                held.grow(usize::try_from(bytes).unwrap_or(usize::MAX));
                self.held = Some(held);
            }
        }
        !(grows && bytes > UNCOUNTED_BYTES_MAX && conn.is_short_of_memory())
    }

    /// When something has to be done, if nothing happens.
    fn deadline_at(&self, conn: &Conn<'_>) -> Option<Instant> {
        let limits = &self.line.worker.limits;
        // A preface is as good as a head.
        let half_since = if self.meter.is_fresh() { Some(self.opened) } else { self.meter.half_since() };
        let half = half_since.map(|since| since.saturating_add(limits.head_timeout.min(FOREVER)));
        let idle = self.idle_since.map(|idle| idle.saturating_add(limits.idle_timeout.min(FOREVER)));
        let age = self.line.settings.age_max.map(|age| self.opened.saturating_add(age.min(FOREVER)));
        if let Some(going_since) = self.going_since {
            // What is under way is answered first.
            let idle = self.idle_since.map(|idle| idle.max(going_since).saturating_add(self.patience(conn)));
            return half.into_iter().chain(idle).chain(self.line.leftovers_due_at()).min();
        }
        half.into_iter().chain(idle).chain(age).chain(self.line.leftovers_due_at()).min()
    }

    /// Whether the rest of a frame, or of a block of fields, has taken too long.
    fn is_late(&self, conn: &Conn<'_>) -> bool {
        let is_late =
            |since: Instant| conn.now().duration_since(since) >= self.line.worker.limits.head_timeout;
        !self.meter.is_fresh() && self.meter.half_since().is_some_and(is_late)
    }

    /// How long one that goes may take to say that it has heard.
    fn patience(&self, conn: &Conn<'_>) -> Duration {
        if conn.is_stopping() { conn.drain_grace() } else { conn.limits().linger_silence_max }
    }

    /// Takes no new requests from when the client has heard of it, and ends behind those that are under way.
    fn go(&mut self, conn: &mut Conn<'_>) -> Flow {
        if self.going_since.is_none()
            && let Some(frames) = &mut self.frames
        {
            frames.as_mut().graceful_shutdown();
            self.going_since = Some(conn.now());
            self.seen_bytes = self.sent_bytes;
        }
        self.drive(conn)
    }

    /// Ends a connection that asks for too much in vain.
    #[cold]
    fn calm_down(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.send(conn);
        self.leave(conn, Reason::EnhanceYourCalm)
    }

    /// Ends a connection, and says which requests nobody has looked at: the client may send them again elsewhere. What h2 says of itself
    /// before is that it will look at all that come.
    fn leave(&mut self, conn: &mut Conn<'_>, reason: Reason) -> Flow {
        // Between two frames.
        if self.frames.is_some() && !self.pipe.was_full() {
            conn.send(&goodbye(self.meter.last_stream, reason));
        }
        self.end(conn);
        Flow::Linger
    }
}

fn frames<S: Service>(line: &Rc<Line<S>>, pipe: &Rc<Pipe>) -> Frames<S> {
    let Http2 {
        streams_max,
        resets_waiting_max,
        resets_by_rule_max,
        stream_window_bytes,
        connection_window_bytes,
        send_buffer_bytes,
        ping_after,
        pong_within,
        ..
    } = *line.settings;
    let head_bytes_max = line.worker.wire_limits.head_bytes_max;
    http2::Builder::new(Tasks(Rc::clone(line)))
        .timer(HyperTimer)
        // Each answer has its own.
        .auto_date_header(false)
        .max_concurrent_streams(streams_max)
        .max_pending_accept_reset_streams(resets_waiting_max)
        .max_local_error_reset_streams(resets_by_rule_max)
        .initial_stream_window_size(stream_window_bytes)
        .initial_connection_window_size(connection_window_bytes)
        .max_send_buf_size(send_buffer_bytes)
        .max_header_list_size(u32::try_from(head_bytes_max).unwrap_or(u32::MAX))
        .keep_alive_interval(ping_after)
        .keep_alive_timeout(pong_within)
        .serve_connection(End(Rc::clone(pipe)), Front(Rc::clone(line)))
}

impl<S: Service> Protocol for Session<S> {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        // It says its settings.
        match self.drive(conn) {
            _ if self.frames.is_some() && conn.is_stopping() => self.go(conn),
            Flow::Pause => Flow::Continue,
            flow => flow,
        }
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        let requests_max = self.line.worker.limits.requests_per_turn.unwrap_or_else(|| conn.turn_budget());
        let begun = self.line.begun();
        loop {
            if conn.is_backed_up() || self.line.begun().wrapping_sub(begun) as usize >= requests_max {
                return Flow::Yield;
            }
            let bytes = input.bytes();
            let portion = &bytes[..bytes.len().min(PORTION_BYTES)];
            if !self.meter.came(portion, conn.now()) {
                input.advance_all();
                return self.calm_down(conn);
            }
            self.pipe.put(portion);
            input.advance(portion.len());
            match self.drive(conn) {
                Flow::Continue if input.is_empty() => return Flow::Continue,
                Flow::Continue => {}
                flow => {
                    input.advance_all();
                    return flow;
                }
            }
        }
    }

    /// What is under way is for nobody: a client that has ended its direction cannot take it.
    fn eof(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.pipe.put(input.bytes());
        input.advance_all();
        self.pipe.end();
        match self.drive(conn) {
            Flow::Reset => Flow::Reset,
            _ => Flow::Close,
        }
    }

    fn drained(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.drive(conn)
    }

    fn woken(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.drive(conn)
    }

    fn deadline(&mut self, conn: &mut Conn<'_>) -> Flow {
        // Of what lies behind the task of its answer nothing can be taken back: its client is told to go.
        if self.line.has_stuck_leftovers(conn.now()) {
            if self.going_since.is_none() {
                return self.go(conn);
            }
            if self.line.streams() == 0 {
                return self.leave(conn, Reason::NoError);
            }
        }
        let is_over = self.deadline_at(conn).is_some_and(|at| at <= conn.now());
        if !is_over {
            return self.drive(conn);
        }
        if self.is_late(conn) {
            // Nothing that h2 would tell it comes in front of the rest of what it says.
            return self.leave(conn, Reason::NoError);
        }
        if self.going_since.is_none() {
            return self.go(conn);
        }
        // Who still takes what is under way is let take it, at the least rate.
        let taken = self.sent_bytes - self.seen_bytes;
        let patience = self.patience(conn);
        if conn.queued_bytes() > 0 || taken >= conn.limits().least_taken_bytes(patience).max(1) {
            self.seen_bytes = self.sent_bytes;
            self.going_since = Some(conn.now());
            return self.drive(conn);
        }
        self.leave(conn, Reason::NoError)
    }

    fn stopping(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.line.look(conn);
        if self.going_since.is_some() {
            return self.drive(conn);
        }
        self.go(conn)
    }

    fn idle_since(&mut self, _: &mut Conn<'_>) -> Option<Instant> {
        self.idle_since
    }

    fn closing(&mut self, conn: &mut Conn<'_>) -> Flow {
        match self.go(conn) {
            Flow::Reset => Flow::Reset,
            _ => self.leave(conn, Reason::NoError),
        }
    }

    fn finishing(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.go(conn)
    }

    /// Bytes of others would stand between frames.
    fn outgoing(&mut self, conn: &mut Conn<'_>, bytes: Bytes) -> Flow {
        drop(bytes);
        conn.unchanged_flow()
    }

    fn told(&mut self, conn: &mut Conn<'_>, message: Message) -> Flow {
        drop(message);
        conn.unchanged_flow()
    }

    /// Whoever waits for the client hears of it.
    fn lost(&mut self, _: Lost, _: &mut Commands) {
        self.line.worker.let_go(self.frames.take());
    }
}
