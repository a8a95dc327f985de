//! Datagrams that are to leave one socket, in order, their bytes one behind the other.
//!
//! Datagrams of one length to one peer that were queued in a row therefore are one slice, which the kernel can be given
//! whole and told to cut ([`DatagramQueue::front`]).
//!
//! Invariant: what lies in `bytes` from `head` on are the bytes of `entries`, in order and without a gap; together with
//! what each entry costs they are at most `bytes_max`. A datagram is in the queue whole or not at all.
//!
//! Pushing is a copy; nothing allocates once warm. The memory stays until [`DatagramQueue::shrink`].

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

/// What an entry counts beside its bytes, so that empty datagrams fill a queue too.
const ENTRY_BYTES: usize = 64;

const _: () = assert!(size_of::<Entry>() <= ENTRY_BYTES);

/// A longer draft is not kept: no datagram has so many bytes.
const DRAFT_BYTES_MAX: usize = 64 * 1024;

/// Where a datagram came from and to: what an answer to it needs.
///
/// Made of the peer's address where nothing came from there yet; then the kernel chooses the address of ours.
///
/// ```
/// use netpoll_core::DatagramPath;
///
/// let peer: std::net::SocketAddr = "192.0.2.1:53".parse().unwrap();
/// let path = DatagramPath::from(peer);
/// assert_eq!((path.peer(), path.local_ip()), (peer, None));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DatagramPath {
    peer: SocketAddr,
    local: Option<IpAddr>,
    interface: u32,
}

impl DatagramPath {
    pub(crate) const fn new(peer: SocketAddr, local: Option<(IpAddr, u32)>) -> Self {
        match local {
            Some((ip, interface)) => Self { peer, local: Some(ip), interface },
            None => Self { peer, local: None, interface: 0 },
        }
    }

    /// The other side.
    #[must_use]
    pub const fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The address of ours that the peer has sent to, if the socket is bound to all of them: answers leave from there.
    #[must_use]
    pub const fn local_ip(&self) -> Option<IpAddr> {
        self.local
    }

    /// The same with the number of the interface.
    pub(crate) fn local(&self) -> Option<(IpAddr, u32)> {
        self.local.map(|ip| (ip, self.interface))
    }
}

impl From<SocketAddr> for DatagramPath {
    fn from(peer: SocketAddr) -> Self {
        Self::new(peer, None)
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    path: DatagramPath,
    len: usize,
}

/// How datagrams may be joined.
#[derive(Debug, Clone, Copy)]
pub struct Joining {
    /// So many at most.
    pub datagrams_max: usize,
    /// To so many bytes at most.
    pub bytes_max: usize,
    /// Longer ones are not.
    pub segment_max: usize,
}

impl Joining {
    /// Each by itself.
    pub const NONE: Self = Self { datagrams_max: 1, bytes_max: 0, segment_max: 0 };
}

/// Datagrams in a row to one peer that can leave as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run<'a> {
    /// Where they go.
    pub path: DatagramPath,
    /// Their bytes, one behind the other.
    pub bytes: &'a [u8],
    /// How many they are.
    pub datagrams: usize,
    /// How long each but the last is.
    pub segment: usize,
}

/// A queue with a limit.
#[derive(Debug)]
pub struct DatagramQueue {
    bytes: Vec<u8>,
    head: usize,
    entries: VecDeque<Entry>,
    bytes_max: usize,
    /// Where a datagram is written before it is queued: who writes it reaches no other.
    draft: Vec<u8>,
}

impl DatagramQueue {
    /// An empty queue that holds so many bytes, of which each datagram costs 64 beside its own. Allocates nothing yet.
    pub const fn new(bytes_max: usize) -> Self {
        Self { bytes: Vec::new(), head: 0, entries: VecDeque::new(), bytes_max, draft: Vec::new() }
    }

    /// The same queue with another limit.
    #[must_use]
    pub fn limited_to(mut self, bytes_max: usize) -> Self {
        self.bytes_max = bytes_max;
        self
    }

    /// The longest datagram that a queue with this limit takes. `None` if it takes none.
    pub const fn longest(bytes_max: usize) -> Option<usize> {
        bytes_max.checked_sub(ENTRY_BYTES)
    }

    /// Whether a datagram of so many bytes fits.
    #[inline]
    pub fn has_room(&self, len: usize) -> bool {
        self.queued_bytes() + ENTRY_BYTES + len <= self.bytes_max
    }

    /// Bytes of memory that it has for those of datagrams.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Whether nothing is in it.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Datagrams in it.
    #[inline]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// What counts against the limit.
    #[inline]
    pub fn queued_bytes(&self) -> usize {
        self.bytes.len() - self.head + self.entries.len() * ENTRY_BYTES
    }

    /// Queues a copy; false if it does not fit.
    #[inline]
    pub fn push(&mut self, path: DatagramPath, bytes: &[u8]) -> bool {
        if !self.has_room(bytes.len()) {
            return false;
        }
        self.bytes.extend_from_slice(bytes);
        self.entries.push_back(Entry { path, len: bytes.len() });
        true
    }

    /// Queues what `write` leaves in the vector it is given, which is empty; false if that does not fit, or if it is longer than
    /// `len_max`. If `write` panics nothing is queued.
    pub fn append<R>(
        &mut self,
        path: DatagramPath,
        len_max: usize,
        write: impl FnOnce(&mut Vec<u8>) -> R,
    ) -> (R, bool) {
        self.draft.clear();
        let returned = write(&mut self.draft);
        let draft = std::mem::take(&mut self.draft);
        let fits = draft.len() <= len_max && self.push(path, &draft);
        if draft.capacity() <= DRAFT_BYTES_MAX {
            self.draft = draft;
        }
        (returned, fits)
    }

    /// What is in front, joined as far as may be: datagrams of one path and length in a row, of which the last may be shorter.
    pub fn front(&self, joining: Joining) -> impl Iterator<Item = Run<'_>> {
        let mut entries = self.entries.iter().peekable();
        let mut start = self.head;
        std::iter::from_fn(move || {
            let Entry { path, len: segment } = *entries.next()?;
            let (mut datagrams, mut len, mut last) = (1, segment, segment);
            // Nothing can be cut into datagrams without bytes.
            while let Some(next) = entries.next_if(|next| {
                datagrams < joining.datagrams_max
                    && segment <= joining.segment_max
                    && next.path == path
                    && (1..=segment).contains(&next.len)
                    && last == segment
                    && len + next.len <= joining.bytes_max
            }) {
                (datagrams, len, last) = (datagrams + 1, len + next.len, next.len);
            }
            let bytes = &self.bytes[start..start + len];
            start += len;
            Some(Run { path, bytes, datagrams, segment })
        })
    }

    /// Takes so many datagrams out of the front.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn pop(&mut self, datagrams: usize) {
        self.head += self.entries.drain(..datagrams).map(|entry| entry.len).sum::<usize>();
        if self.entries.is_empty() {
            self.clear();
        } else if self.head > self.bytes.len() / 2 {
            // Each byte is moved once at most for one that has left.
            self.bytes.drain(..self.head);
            self.head = 0;
        }
    }

    /// Moves what is in `behind` to its end, whatever the limit.
    pub fn append_all(&mut self, behind: &mut Self) {
        self.bytes.extend_from_slice(&behind.bytes[behind.head..]);
        self.entries.append(&mut behind.entries);
        behind.clear();
    }

    /// Drops everything; how many datagrams that were.
    pub fn clear(&mut self) -> usize {
        let datagrams = self.entries.len();
        self.entries.clear();
        self.bytes.clear();
        self.head = 0;
        datagrams
    }

    /// Gives back what it does not use.
    pub fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.entries.shrink_to_fit();
        self.draft = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use proptest::prelude::*;

    use super::*;

    fn path(peer: u8) -> DatagramPath {
        SocketAddr::from(([127, 0, 0, peer], 7)).into()
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(u8, usize),
        Append(u8, usize),
        Panic(usize),
        Pop(usize),
        AppendAll(usize),
        Clear,
        Shrink,
    }

    fn step() -> impl Strategy<Value = Step> {
        let len = prop_oneof![Just(10), Just(9), 0..30_usize];
        prop_oneof![
            4 => (0..2_u8, len.clone()).prop_map(|(peer, len)| Step::Push(peer, len)),
            3 => (0..2_u8, len).prop_map(|(peer, len)| Step::Append(peer, len)),
            1 => (0..20_usize).prop_map(Step::Panic),
            3 => (0..6_usize).prop_map(Step::Pop),
            1 => (0..4_usize).prop_map(Step::AppendAll),
            1 => Just(Step::Clear),
            1 => Just(Step::Shrink),
        ]
    }

    proptest! {
        #[test]
        fn it_is_a_queue_of_whole_datagrams_whatever_is_joined(
            steps in proptest::collection::vec(step(), 0..80),
            datagrams_max in 1..6_usize,
            bytes_max in 0..60_usize,
            segment_max in 0..20_usize,
        ) {
            const QUEUE_BYTES_MAX: usize = 600;
            let mut queue = DatagramQueue::new(QUEUE_BYTES_MAX);
            let mut model: VecDeque<(DatagramPath, Vec<u8>)> = VecDeque::new();
            let mut fill = 0_u8;
            for step in steps {
                let cost = |model: &VecDeque<(DatagramPath, Vec<u8>)>| {
                    model.iter().map(|(_, bytes)| bytes.len() + ENTRY_BYTES).sum::<usize>()
                };
                fill = fill.wrapping_add(1);
                match step {
                    Step::Push(peer, len) => {
                        let fits = cost(&model) + len + ENTRY_BYTES <= QUEUE_BYTES_MAX;
                        prop_assert_eq!(queue.push(path(peer), &vec![fill; len]), fits);
                        if fits {
                            model.push_back((path(peer), vec![fill; len]));
                        }
                    }
                    Step::Append(peer, len) => {
                        let fits = len <= 25 && cost(&model) + len + ENTRY_BYTES <= QUEUE_BYTES_MAX;
                        let write = |out: &mut Vec<u8>| out.resize(out.len() + len, fill);
                        prop_assert_eq!(queue.append(path(peer), 25, write).1, fits);
                        if fits {
                            model.push_back((path(peer), vec![fill; len]));
                        }
                    }
                    Step::Panic(len) => {
                        let write = |out: &mut Vec<u8>| {
                            out.resize(out.len() + len, fill);
                            std::panic::resume_unwind(Box::new(()));
                        };
                        let called = catch_unwind(AssertUnwindSafe(|| queue.append(path(0), 25, write)));
                        prop_assert!(called.is_err());
                    }
                    Step::Pop(count) => {
                        let count = count.min(model.len());
                        queue.pop(count);
                        model.drain(..count);
                    }
                    Step::AppendAll(count) => {
                        let mut behind = DatagramQueue::new(usize::MAX);
                        behind.push(path(1), b"in front");
                        for _ in 0..count {
                            behind.push(path(1), &[fill; 9]);
                            model.push_back((path(1), vec![fill; 9]));
                        }
                        behind.pop(1);
                        queue.append_all(&mut behind);
                        prop_assert!(behind.is_empty());
                    }
                    Step::Clear => prop_assert_eq!(queue.clear(), model.drain(..).count()),
                    Step::Shrink => queue.shrink(),
                }
                prop_assert_eq!(queue.len(), model.len());
                prop_assert_eq!(queue.queued_bytes(), cost(&model));
                let joining = Joining { datagrams_max, bytes_max, segment_max };
                let mut left = model.iter();
                for run in queue.front(joining) {
                    prop_assert!(run.datagrams <= datagrams_max);
                    let is_joined = run.datagrams > 1;
                    prop_assert!(!is_joined || run.bytes.len() <= bytes_max && run.segment <= segment_max);
                    let mut bytes = run.bytes;
                    for index in 0..run.datagrams {
                        let (path, own) = left.next().unwrap();
                        let (first, rest) = bytes.split_at(run.segment.min(bytes.len()));
                        prop_assert_eq!((&run.path, first), (path, &own[..]));
                        prop_assert!(index + 1 == run.datagrams || first.len() == run.segment);
                        bytes = rest;
                    }
                    prop_assert!(bytes.is_empty());
                }
                prop_assert!(left.next().is_none());
            }
        }
    }

    #[test]
    fn answers_of_one_length_to_one_peer_are_one_run_and_a_shorter_one_ends_it() {
        let mut queue = DatagramQueue::new(10_000);
        for (peer, bytes) in [(1, "aa"), (1, "bb"), (1, "c"), (1, "dd"), (2, "ee"), (1, "")] {
            assert!(queue.push(path(peer), bytes.as_bytes()));
        }
        let runs = |joining| {
            queue
                .front(joining)
                .map(|run| (run.datagrams, run.segment, run.bytes.to_vec()))
                .collect::<Vec<_>>()
        };
        let joined = runs(Joining { datagrams_max: 64, bytes_max: 1000, segment_max: 10 });
        let expected =
            [(3, 2, b"aabbc".to_vec()), (1, 2, b"dd".to_vec()), (1, 2, b"ee".to_vec()), (1, 0, Vec::new())];
        assert_eq!(joined, expected);
        assert_eq!(runs(Joining::NONE).len(), 6);
    }
}
