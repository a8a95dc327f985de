//! The contract about datagrams: beside that about streams, and only for drivers that have them.
//!
//! A datagram socket is bound ([`Io::bind`](super::Io::bind), or [`Io::open_datagrams`](super::Io::open_datagrams) while its worker serves) and then reports batches ([`Sink::datagrams`](super::Sink::datagrams)):
//! whole datagrams, each with its [`DatagramPath`], which names the peer and, where the socket is bound to all
//! addresses, the one of ours that the peer has sent to. What is to leave lies in a [`DatagramQueue`] of the
//! receiver's, which [`Io::send_to`](super::Io::send_to) empties as far as the kernel takes it.
//!
//! Invariants that every driver keeps, beside those of `driver/mod.rs`:
//! - a datagram is handed on once and whole, or cut to the length that was agreed and marked as such;
//! - a socket with datagrams left is reported [`Sink::unfinished`](super::Sink::unfinished), or goes on in the next wait;
//! - no error of the kernel ends a socket: it is counted, and the datagram that it was about is lost;
//! - a send that was cut short is followed by [`Sink::sent`](super::Sink::sent) with zero bytes, when there is room again.

use std::fmt;
use std::net::SocketAddr;

use crate::mem::DatagramPath;

/// What a driver needs to know of a socket.
#[derive(Debug, Clone, Copy)]
pub struct DatagramSetup {
    /// Datagrams received at once, at most; what the kernel has joined counts as one.
    pub batch: usize,
    /// Datagrams delivered in one turn, at least one; a batch may go beyond it by what the kernel has joined.
    pub per_turn: usize,
    /// Datagrams that are longer are cut to this length.
    pub bytes_max: usize,
    /// Several may be received as one, where the kernel can.
    pub join_received: bool,
    /// Several may be sent as one, where the kernel can.
    pub join_sent: bool,
    /// Others have it open as well: it does not go when it is closed here.
    pub is_shared: bool,
}

/// A socket that is to be opened while its worker serves.
#[derive(Debug, Clone, Copy)]
pub struct DatagramBind {
    /// Where; port 0 takes a free one.
    pub addr: SocketAddr,
    /// Sizes of the kernel's buffers, if they are not to be its own choice.
    pub send_buffer_bytes: Option<usize>,
    pub receive_buffer_bytes: Option<usize>,
    pub setup: DatagramSetup,
}

/// What became of a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatagramsFlushed {
    /// The queue is empty.
    Done,
    /// The kernel takes no more now; [`Sink::sent`](super::Sink::sent) follows.
    Blocked,
}

/// Where one message lies in the block of its batch: a datagram, or several of one path and length, joined.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub path: DatagramPath,
    pub start: usize,
    pub len: usize,
    /// The length of each datagram but the last, which may be shorter; `None` if it is one.
    pub segment: Option<usize>,
    /// It was longer than its place.
    pub is_truncated: bool,
}

impl Place {
    /// How many datagrams it is.
    #[inline]
    pub fn datagrams(&self) -> usize {
        self.segment.map_or(1, |segment| self.len.div_ceil(segment).max(1))
    }

    /// How many of them are cut to so many bytes.
    #[inline]
    pub fn truncated(&self, bytes_max: usize) -> usize {
        match self.segment {
            None => usize::from(self.is_truncated || self.len > bytes_max),
            Some(segment) if segment <= bytes_max => usize::from(self.is_truncated),
            Some(segment) => self.len / segment + usize::from(self.len % segment > bytes_max),
        }
    }
}

/// Datagrams that were received together, in order of arrival: an iterator.
///
/// They lie in a block of the worker's, and may be changed there, as deciphering does. What is not taken out is lost.
pub struct Datagrams<'a> {
    /// What of the block is left, and where it begins there.
    bytes: &'a mut [u8],
    start: usize,
    places: std::slice::Iter<'a, Place>,
    /// What is left of the place that is cut up now.
    current: Option<Place>,
    bytes_max: usize,
    left: usize,
}

impl<'a> Datagrams<'a> {
    /// The datagrams at these places of a block, which lie in order, each cut to so many bytes.
    pub(super) fn new(block: &'a mut [u8], places: &'a [Place], bytes_max: usize) -> Self {
        let left = places.iter().map(Place::datagrams).sum();
        Self { bytes: block, start: 0, places: places.iter(), current: None, bytes_max, left }
    }
}

impl<'a> Iterator for Datagrams<'a> {
    type Item = Datagram<'a>;

    #[inline]
    fn next(&mut self) -> Option<Datagram<'a>> {
        let Place { path, start, len, segment, is_truncated } = match self.current.take() {
            Some(rest) => rest,
            None => *self.places.next()?,
        };
        let own = segment.map_or(len, |segment| len.min(segment));
        let (_, bytes) = std::mem::take(&mut self.bytes).split_at_mut(start - self.start);
        let (bytes, rest) = bytes.split_at_mut(own);
        (self.bytes, self.start) = (rest, start + own);
        if own < len {
            self.current = Some(Place { path, start: start + own, len: len - own, segment, is_truncated });
        }
        self.left -= 1;
        let is_truncated = (is_truncated && own == len) || own > self.bytes_max;
        let bytes = if own > self.bytes_max { &mut bytes[..self.bytes_max] } else { bytes };
        Some(Datagram { path, bytes, is_truncated })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Datagrams<'_> {}

impl fmt::Debug for Datagrams<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Datagrams").field("left", &self.left).finish_non_exhaustive()
    }
}

/// A datagram that was received.
#[derive(Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    path: DatagramPath,
    bytes: &'a mut [u8],
    is_truncated: bool,
}

impl<'a> Datagram<'a> {
    /// Its bytes.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// The same, to change.
    #[inline]
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes
    }

    /// The same for as long as its batch is there.
    #[inline]
    #[must_use]
    pub fn into_bytes(self) -> &'a mut [u8] {
        self.bytes
    }

    /// Where it came from and to, for the answer.
    #[inline]
    #[must_use]
    pub fn path(&self) -> DatagramPath {
        self.path
    }

    /// Who sent it, as far as the network can be believed: whoever likes can write another address there.
    #[inline]
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.path.peer()
    }

    /// It was longer, and the rest is lost.
    #[inline]
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.is_truncated
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(peer: u16) -> DatagramPath {
        SocketAddr::from(([127, 0, 0, 1], peer)).into()
    }

    proptest! {
        #[test]
        fn every_datagram_of_a_batch_comes_once_whole_or_cut_and_marked(
            messages in proptest::collection::vec((0..50_usize, proptest::option::of(1..20_usize), 0..8_usize), 0..10),
            bytes_max in 1..30_usize,
        ) {
            let (mut block, mut places, mut expected) = (Vec::new(), Vec::new(), Vec::new());
            for (index, (len, segment, gap)) in messages.into_iter().enumerate() {
                block.extend(std::iter::repeat_n(0xff, gap));
                let bytes: Vec<u8> = (0..len).map(|byte| byte as u8).collect();
                let path = path(index as u16);
                places.push(Place { path, start: block.len(), len, segment, is_truncated: false });
                block.extend_from_slice(&bytes);
                let mut cut: Vec<&[u8]> = bytes.chunks(segment.unwrap_or(usize::MAX)).collect();
                if cut.is_empty() {
                    cut.push(&[]);
                }
                expected.extend(cut.into_iter().map(|own| {
                    (path, own[..own.len().min(bytes_max)].to_vec(), own.len() > bytes_max)
                }));
            }
            let truncated: usize = places.iter().map(|place| place.truncated(bytes_max)).sum();
            prop_assert_eq!(truncated, expected.iter().filter(|datagram| datagram.2).count());
            let mut batch = Datagrams::new(&mut block, &places, bytes_max);
            for (index, (path, bytes, is_truncated)) in expected.iter().enumerate() {
                prop_assert_eq!(batch.len(), expected.len() - index);
                let datagram = batch.next().unwrap();
                prop_assert_eq!((datagram.path(), datagram.is_truncated()), (*path, *is_truncated));
                prop_assert_eq!(datagram.bytes(), &bytes[..]);
            }
            prop_assert!(batch.next().is_none());
        }
    }
}
