//! The input of one connection as the output of another, on the same worker: what a relay is made of.
//!
//! A chunk goes from the block that it was read into to the target's socket, by one send and without a copy. What the socket does
//! not take is copied into the target's queue, and then the source is held until the queue has left; so one direction holds one
//! read at most. A driver that takes everything and sends it later gets up to high water ahead, and the source is let go at low
//! water.
//!
//! Invariants:
//! - a link is in both maps, and its two streams have their marks, from [`Tables::link`] until the source's input has ended or one of
//!   the two is gone; a connection is the source of one link at most, and the target of one. A source that has ended its own direction
//!   outlives its target, marked as one and without a link: its bytes lead to a reset, its end to a close;
//! - while there is a link, its source's protocol is offered no input, and its target's marks none of its own to go back: a
//!   link that begins while its target is open begins in the next turn, when what was marked has left;
//! - a link whose source is held has its target connecting, or something of it queued or in flight, or stands on the ready list;
//! - a source that fails gives what it has received by then; its target is reset behind that, when the peer has acknowledged it, or after a
//!   lingering close's time;
//! - what is noted may be carried out when the link has changed: who is no source any more is offered what it has kept, or told of its
//!   end, by the ready list.
//!
//! Callbacks and events know one table; what concerns two is noted down as a command of the machinery's own, and carried out
//! by the worker when the table is free.

use super::commands::Command;
use super::stream::{End, FED, FORWARDS, HELD_BY_TARGET, PAUSED, Phase, Stream, YIELDED};
use super::tables::Tables;
use super::{ConnLimits, Context, Lost};
use crate::clockwork::Instant;
use crate::driver::{Io, SPLICED_BYTES_MIN, Verdict};
use crate::mem::{Key, KeyMap, ReadBuffer};
use crate::reactor::{Agenda, Due};

/// How much is read at a time of what lies in the socket of a source that has failed.
const SALVAGED_PIECE_BYTES: usize = 16 * 1024;

/// What is to be done about a link, noted where only one of the two is at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forward {
    /// The chunk that a source is being offered goes to its target.
    Chunk,
    /// What its source has kept does.
    Kept(Key),
    /// Its source has ended.
    Ended(Key),
    /// Its target has room, or is open now.
    Room(Key),
    /// A flush has made room in the queue of its target, which may have been full of other output.
    Flushed(Key),
    /// Its other end is gone.
    Left(Key),
}

/// What a target gets.
pub(super) enum Piece<'a> {
    Chunk(&'a [u8]),
    Kept(ReadBuffer),
}

impl Piece<'_> {
    fn is_large(&self) -> bool {
        matches!(self, Self::Chunk(bytes) if bytes.len() >= SPLICED_BYTES_MIN)
    }
}

pub(super) struct Link {
    pub(super) to: Key,
    /// When bytes were last moved.
    pub(super) at: Instant,
    /// Large chunks in a row that left at once (`splicing.rs`).
    pub(super) large_chunks: u8,
}

/// The links of one worker.
#[derive(Default)]
pub struct Forwards {
    /// By source.
    pub(super) links: KeyMap<Link>,
    /// The source of each target.
    sources: KeyMap<Key>,
    /// Of those whose other end has failed: what it had still to give, if it was their source. Until that is carried out.
    last: KeyMap<Option<ReadBuffer>>,
}

impl Forwards {
    /// When bytes were last moved out of or into this connection.
    pub fn last_moved(&self, key: Key) -> Option<Instant> {
        let out = self.links.get(key);
        let into = self.sources.get(key).and_then(|source| self.links.get(*source));
        out.into_iter().chain(into).map(|link| link.at).max()
    }

    /// Something has moved to or from these two: what else goes through them is not idle either.
    fn moved(&mut self, ends: [Key; 2], at: Instant) {
        for end in ends {
            let source = self.sources.get(end).copied();
            for from in source.into_iter().chain([end]) {
                if let Some(link) = self.links.get_mut(from) {
                    link.at = at;
                }
            }
        }
    }

    pub(super) fn target_of(&self, from: Key) -> Option<Key> {
        self.links.get(from).map(|link| link.to)
    }

    fn remove(&mut self, from: Key) -> Option<Key> {
        let Link { to, .. } = self.links.remove(from)?;
        self.sources.remove(to);
        Some(to)
    }

    /// Gives back the memory that it does not need.
    pub fn shrink(&mut self) {
        self.links.shrink();
        self.sources.shrink();
        self.last.shrink();
    }
}

/// A connection that was part of a link is gone: the others are seen to.
#[cold]
pub fn left(cx: &mut Context, key: Key, last: Option<ReadBuffer>) {
    let target = cx.forwards.remove(key);
    let source = cx.forwards.sources.get(key).copied();
    if let Some(source) = source {
        cx.forwards.remove(source);
    }
    let target = target.filter(|other| *other != key);
    let source = source.filter(|other| *other != key && Some(*other) != target);
    match (last, target, source) {
        (Some(last), Some(target), _) => {
            cx.forwards.last.insert(target, Some(last));
        }
        (Some(mut last), None, source) => {
            last.clear(&mut cx.agenda.pool);
            if let Some(source) = source {
                cx.forwards.last.insert(source, None);
            }
        }
        (None, ..) => {}
    }
    for other in [target, source].into_iter().flatten() {
        cx.commands.push(Command::Forward(Forward::Left(other)));
    }
}

impl Tables {
    /// From now on input of one connection goes to the other. Where one is not there the other is reset.
    pub fn link(&mut self, cx: &mut Context, io: &mut dyn Io, from: Option<Key>, to: Option<Key>) {
        let source = from.filter(|key| self.plain_stream(*key).is_some_and(|stream| stream.may_forward()));
        let target = to.filter(|key| self.plain_stream(*key).is_some_and(|stream| stream.takes_forwarded()));
        let (Some(source), Some(target)) = (source, target) else {
            // Whoever is there and has no other.
            let orphans = [from.filter(|_| target.is_none()), to.filter(|_| source.is_none())];
            for orphan in orphans.into_iter().flatten() {
                if self.stream(orphan).is_some_and(|stream| stream.may_forward()) {
                    self.end(cx, io, orphan, End::reset(Lost::Reset));
                }
            }
            return;
        };
        self.unlink(cx, io, source);
        if let Some(other) = cx.forwards.sources.get(target).copied() {
            self.unlink(cx, io, other);
        }
        cx.forwards.links.insert(source, Link { to: target, at: cx.agenda.clock.now(), large_chunks: 0 });
        cx.forwards.sources.insert(target, source);
        let mut target_is_open = false;
        if let Some(stream) = self.stream(target) {
            stream.mark(FED, true);
            stream.go_on_after_all(&mut cx.agenda, &cx.limits, io, target);
            target_is_open = stream.phase == Phase::Open;
        }
        let Some(stream) = self.stream(source) else { return };
        stream.mark(FORWARDS, true);
        stream.go_on_after_all(&mut cx.agenda, &cx.limits, io, source);
        if stream.phase.is_connecting() {
            // Whichever opens first: the target speaks before it is fed.
            return stream.mark(HELD_BY_TARGET, !target_is_open);
        }
        if stream.is_finished() && stream.input.is_empty() {
            return self.forward_end(cx, io, source);
        }
        stream.mark(PAUSED, false);
        if target_is_open {
            stream.mark(YIELDED, true);
            stream.push_ready(&mut cx.agenda, source);
        } else {
            stream.mark(HELD_BY_TARGET, true);
        }
        stream.rein(&mut cx.agenda, io, source);
    }

    /// Input goes to its protocol again.
    fn unlink(&mut self, cx: &mut Context, io: &mut dyn Io, from: Key) {
        let Some(target) = cx.forwards.remove(from) else { return };
        if let Some(stream) = self.stream(target) {
            stream.mark(FED, false);
            stream.retire_after_all(cx, target);
        }
        if let Some(stream) = self.stream(from) {
            stream.mark(FORWARDS, false);
            stream.retire_after_all(cx, from);
            if stream.phase.is_open() && stream.has_remainder() {
                // What it has kept, or its end, was about to be forwarded: its protocol is offered it instead.
                stream.mark(YIELDED, true);
                stream.push_ready(&mut cx.agenda, from);
            }
            stream.let_go(&mut cx.agenda, io, from);
        }
    }

    /// Carries out what was noted of a link; a chunk has its own way, with what was read.
    pub fn forward(&mut self, cx: &mut Context, io: &mut dyn Io, what: Forward) {
        match what {
            Forward::Chunk => {}
            Forward::Kept(from) => self.forward_kept(cx, io, from),
            Forward::Ended(from) => {
                // Behind what was kept, if something was.
                if self.stream(from).is_some_and(|stream| stream.input.is_empty()) {
                    self.forward_end(cx, io, from);
                }
            }
            Forward::Room(to) => self.forward_on(cx, io, to),
            Forward::Flushed(to) => {
                let source = cx.forwards.sources.get(to).copied();
                if source.and_then(|from| self.stream(from)).is_some_and(|stream| stream.has(HELD_BY_TARGET))
                {
                    self.forward_on(cx, io, to);
                }
            }
            Forward::Left(key) => self.other_left(cx, io, key),
        }
    }

    /// The other end of a link is gone: this one is reset, or its peer would take a part for the whole. Where the other one has failed,
    /// by a reset of its own peer, what came before that, with its end if there was one, is delivered first. Nor is one reset whose own
    /// protocol had ended its direction before: its peer has been told that this was all.
    fn other_left(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) {
        let is_target = cx.forwards.sources.get(key).is_some();
        let last = cx.forwards.last.remove(key);
        let has_failed = last.is_some();
        let mut kept = last.flatten();
        let Some(stream) = self.stream(key).filter(|stream| !stream.has_said_end()) else {
            if let Some(kept) = &mut kept {
                kept.clear(&mut cx.agenda.pool);
            }
            return self.other_left_behind_end(cx, io, key, is_target);
        };
        let end = match (kept, stream.phase) {
            (Some(kept), Phase::Open) => stream.cut_behind(cx, io, key, kept),
            (None, Phase::HalfClosing | Phase::HalfClosed) if has_failed => {
                stream.cut_behind(cx, io, key, ReadBuffer::new())
            }
            (kept, _) => {
                if let Some(mut kept) = kept {
                    kept.clear(&mut cx.agenda.pool);
                }
                Some(End::reset(Lost::Reset))
            }
        };
        if let Some(end) = end {
            self.end(cx, io, key, end);
        }
    }

    fn other_left_behind_end(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, is_target: bool) {
        let Some(stream) = self.stream(key) else { return };
        stream.mark(FED, is_target);
        stream.retire_after_all(cx, key);
        if stream.forwards() && stream.phase.is_open() {
            // Nobody takes its input any more, so bytes lead to a reset. Its end is just that.
            stream.let_go(&mut cx.agenda, io, key);
            if stream.is_finished() && stream.input.is_empty() {
                self.forward_end(cx, io, key);
            }
        }
    }

    /// The source of this target goes on.
    fn forward_on(&mut self, cx: &mut Context, io: &mut dyn Io, to: Key) {
        let Some(from) = cx.forwards.sources.get(to).copied() else { return };
        let now = cx.agenda.clock.now();
        if let Some(link) = cx.forwards.links.get_mut(from) {
            link.at = now;
        }
        if let Some(stream) = self.stream(from) {
            stream.let_go(&mut cx.agenda, io, from);
        }
    }

    /// Sends what was read from a connection on to another.
    pub fn forward_chunk(&mut self, cx: &mut Context, io: &mut dyn Io, from: Key, chunk: &[u8]) -> Verdict {
        let verdict = self.feed(cx, io, from, Piece::Chunk(chunk));
        if chunk.len() >= SPLICED_BYTES_MIN {
            Self::sent_large_chunk(cx, io, from, verdict);
        }
        verdict
    }

    fn forward_kept(&mut self, cx: &mut Context, io: &mut dyn Io, from: Key) {
        // A source whose link has changed since this was noted, or that was paused, brings it when its turn comes again.
        let Some(stream) = self.stream(from).filter(|from| from.forwards() && !from.is_held()) else {
            return;
        };
        let kept = std::mem::take(&mut stream.input);
        self.feed(cx, io, from, Piece::Kept(kept));
        let Some(stream) = self.stream(from) else { return };
        if stream.is_finished() {
            self.forward_end(cx, io, from);
        } else if !stream.is_held() {
            // What came meanwhile lies in the socket, and nobody reports it a second time.
            stream.push_ready(&mut cx.agenda, from);
        }
    }

    /// Lets the target of a link have something, and holds the source if that was too much.
    pub(super) fn feed(&mut self, cx: &mut Context, io: &mut dyn Io, from: Key, piece: Piece<'_>) -> Verdict {
        let now = cx.agenda.clock.now();
        let target = cx.forwards.links.get_mut(from).map(|link| {
            link.at = now;
            if !piece.is_large() {
                link.large_chunks = 0;
            }
            link.to
        });
        // One that is gone, or whose output ends, takes nothing: the source's peer shall know that.
        let fed = target.and_then(|to| Some((to, self.stream(to).filter(|to| to.takes_forwarded())?)));
        let Some((to, stream)) = fed else {
            if let Piece::Kept(mut kept) = piece {
                kept.clear(&mut cx.agenda.pool);
            }
            self.end(cx, io, from, End::reset(Lost::Reset));
            return Verdict::Gone;
        };
        let end = match piece {
            Piece::Chunk(chunk) => stream.feed(cx, io, to, chunk),
            Piece::Kept(kept) => stream.feed_kept(cx, io, to, kept),
        };
        if let Some(end) = end {
            self.end(cx, io, to, end);
            return Verdict::Stop;
        }
        let holds = stream.holds_source(&cx.limits);
        let Some(stream) = self.stream(from) else { return Verdict::Gone };
        if holds {
            stream.mark(HELD_BY_TARGET, true);
            stream.rein(&mut cx.agenda, io, from);
        }
        if stream.is_held() { Verdict::Stop } else { Verdict::Continue }
    }

    /// The source of a link has ended, and all of its input was moved.
    fn forward_end(&mut self, cx: &mut Context, io: &mut dyn Io, from: Key) {
        if let Some(to) = cx.forwards.remove(from) {
            cx.forwards.moved([from, to], cx.agenda.clock.now());
            if let Some(stream) = self.stream(to) {
                stream.mark(FED, false);
                stream.finish_output(&mut cx.agenda, io, to);
                stream.retire_after_all(cx, to);
            }
        }
        if let Some(stream) = self.stream(from).filter(|from| from.forwards()) {
            stream.mark(FORWARDS, false);
            stream.end_was_passed_on();
            stream.retire_after_all(cx, from);
            stream.let_go(&mut cx.agenda, io, from);
            if stream.ends_with_input() {
                stream.push_dirty(&mut cx.agenda, from);
            }
        }
    }

    /// What is to be looked at before this deadline of a connection counts: what lies in the socket of its source has moved here.
    #[inline]
    pub fn look_at_source(&mut self, cx: &Context, key: Key, due: Due) -> Due {
        if due == Due::Not || !self.stream(key).is_some_and(|stream| stream.has(FED)) {
            return due;
        }
        let source = cx.forwards.sources.get(key).copied().filter(|source| *source != key);
        let open = source.filter(|source| {
            self.stream(*source).is_some_and(|source| source.phase.is_open() && !source.is_held())
        });
        match (open, due) {
            (Some(source), Due::LookFirst) => Due::LookAtBoth(source),
            (Some(source), _) => Due::LookThere(source),
            (None, due) => due,
        }
    }

    pub(super) fn stream(&mut self, key: Key) -> Option<&mut Stream> {
        self.get(key)?.stream(key)
    }

    /// One whose bytes on the wire are those of its protocol.
    pub(super) fn plain_stream(&mut self, key: Key) -> Option<&mut Stream> {
        self.stream(key).filter(|stream| stream.is_linkable())
    }

    fn end(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, end: End) {
        if let Some(table) = self.get(key) {
            table.end_by(cx, io, key, end);
        }
    }
}

impl Stream {
    /// Its input goes to another connection.
    #[inline]
    pub fn forwards(&self) -> bool {
        self.has(FORWARDS)
    }

    /// It is an end of a link.
    #[inline]
    pub fn is_linked(&self) -> bool {
        self.has(FORWARDS | FED)
    }

    /// Something that was forwarded waits to leave, from here or from where its input goes.
    pub fn forwards_later(&self) -> bool {
        self.waiting_bytes() > 0 || self.has(HELD_BY_TARGET)
    }

    /// A drain had begun while it was an end of a link: it has its grace now.
    fn retire_after_all(&mut self, cx: &mut Context, key: Key) {
        if !self.is_linked() && self.take_retires_later() {
            self.begin_to_retire(cx, key);
        }
    }

    fn may_forward(&self) -> bool {
        self.phase.is_open() || self.phase.is_connecting()
    }

    fn takes_forwarded(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Connecting)
    }

    /// Its target has room.
    fn let_go(&mut self, agenda: &mut Agenda, io: &mut dyn Io, key: Key) {
        self.mark(HELD_BY_TARGET, false);
        self.rein(agenda, io, key);
    }

    /// Flushes, and lets the source that feeds it go on if that has made room.
    #[inline(always)]
    pub fn flush_for_source(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) -> Option<End> {
        let may_make_room = self.has(FED) && !self.out.is_empty();
        let end = self.flush(&mut cx.agenda, &cx.limits, io, key);
        if may_make_room && end.is_none() && self.has_room_for_source(&cx.limits) {
            cx.commands.push(Command::Forward(Forward::Flushed(key)));
        }
        end
    }

    /// After a part of its queue has left: whether the source that feeds it may go on.
    pub fn has_room_for_source(&self, limits: &ConnLimits) -> bool {
        self.has(FED)
            && (self.waiting_bytes() == 0
                || (self.in_flight > 0 && self.waiting_bytes() <= limits.write_low_bytes))
    }

    /// Whether its source has to wait: the socket is full, or so much is under way.
    fn holds_source(&self, limits: &ConnLimits) -> bool {
        let waiting = self.waiting_bytes();
        waiting > 0 && (self.in_flight == 0 || waiting > limits.write_high_bytes)
    }

    /// Sends these bytes, at once if nothing waits; what the socket does not take is copied and queued.
    fn feed(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, bytes: &[u8]) -> Option<End> {
        let sent =
            if self.waiting_bytes() == 0 && self.phase == Phase::Open { io.send(key, bytes) } else { 0 };
        self.progressed(sent);
        let rest = &bytes[sent..];
        if rest.is_empty() {
            return None;
        }
        cx.agenda.stats.copied_bytes += rest.len() as u64;
        self.out.write(&mut cx.agenda.pool, rest);
        self.flush(&mut cx.agenda, &cx.limits, io, key)
    }

    /// What a connection that is about to end has still to give to the one that its input goes to, if it has failed: what was kept,
    /// and what lies in its socket; no more than others may send to one. `None` if it has not failed.
    #[inline]
    pub fn last_input(
        &mut self,
        cx: &mut Context,
        io: &mut dyn Io,
        key: Key,
        end: &End,
    ) -> Option<ReadBuffer> {
        if !self.is_linked() || !matches!(end.reason, Lost::Failed(_)) {
            return None;
        }
        let mut last = std::mem::take(&mut self.input);
        if self.forwards() {
            let mut piece = [0; SALVAGED_PIECE_BYTES];
            while last.len() <= cx.limits.output_bytes_max {
                let len = io.salvage(key, &mut piece);
                if len == 0 {
                    break;
                }
                last.append(&mut cx.agenda.pool, &piece[..len]);
                cx.agenda.stats.copied_bytes += len as u64;
            }
        }
        Some(last)
    }

    /// Its source has failed: it is reset when all that came before, with its end if that was passed on, has arrived.
    fn cut_behind(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, last: ReadBuffer) -> Option<End> {
        self.mark(FED, false);
        self.set_ends_before_cut(self.phase == Phase::HalfClosing);
        self.begin_to_cut(&mut cx.agenda, &cx.limits, key);
        self.rein(&mut cx.agenda, io, key);
        self.feed_kept(cx, io, key, last)
    }

    /// Queues what another connection had kept, without a copy, and sends it as far as it goes.
    fn feed_kept(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, kept: ReadBuffer) -> Option<End> {
        self.out.write_kept(&mut cx.agenda.pool, kept);
        self.flush(&mut cx.agenda, &cx.limits, io, key)
    }
}
