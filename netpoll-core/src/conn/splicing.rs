//! A link whose bytes the kernel moves by itself, where the driver can do that and where it pays.
//!
//! It begins when chunks in a row were large and left at once: small messages, and a reader that is slow, are cheaper copied. From
//! then on the driver asks before each step where the bytes may go, and stops as soon as there is something in between: output
//! of the target's own, what was kept of the source, an end, a pause, another link. So nothing has to be called off.
//!
//! Of a step only what the target did not take is ever here: it is a chunk like any other.

use super::Context;
use super::forward::Piece;
use super::stream::Phase;
use super::tables::Tables;
use crate::driver::{Io, Verdict};
use crate::mem::Key;

/// Large chunks in a row that left at once, behind which the next bytes are spliced.
const LARGE_CHUNKS: u8 = 2;

impl Tables {
    /// A large chunk of a link has left, if it is to go on.
    #[cold]
    pub fn sent_large_chunk(cx: &mut Context, io: &mut dyn Io, from: Key, verdict: Verdict) {
        let Some(link) = cx.forwards.links.get_mut(from) else { return };
        link.large_chunks = if verdict == Verdict::Continue { link.large_chunks + 1 } else { 0 };
        if link.large_chunks >= LARGE_CHUNKS {
            link.large_chunks = 0;
            io.splice(from);
        }
    }

    /// Where all that a connection receives goes now, if nothing is in between.
    pub fn splices_to(&mut self, cx: &Context, from: Key) -> Option<Key> {
        let to = cx.forwards.target_of(from)?;
        let source = self.plain_stream(from)?;
        let is_free = source.phase.is_open() && !source.is_held() && source.input.is_empty();
        let target = self.plain_stream(to)?;
        (is_free && target.phase == Phase::Open && target.waiting_bytes() == 0).then_some(to)
    }

    /// So many bytes went from a connection to where its input goes, and `rest` has to wait there.
    pub fn spliced(
        &mut self,
        cx: &mut Context,
        io: &mut dyn Io,
        from: Key,
        bytes: usize,
        rest: &[u8],
    ) -> Verdict {
        let now = cx.agenda.clock.now();
        let target = cx.forwards.links.get_mut(from).map(|link| {
            link.at = now;
            link.to
        });
        if let Some(stream) = target.and_then(|to| self.stream(to)) {
            stream.progressed(bytes);
        }
        if rest.is_empty() { Verdict::Continue } else { self.feed(cx, io, from, Piece::Chunk(rest)) }
    }
}
