//! Datagrams that a task has received together.

use std::fmt;
use std::rc::Rc;

use super::udp::Shared;
use super::watched::wake;
use crate::mem::{DatagramPath, DatagramQueue, Joining};

/// Datagrams that had come, in order. What is not taken out of it goes back when it is dropped, in front of what came later, and whoever
/// waits for it is woken. Until then it counts as unread ([`UdpOptions::unread_bytes_max`](crate::UdpOptions)).
///
/// ```
/// use netpoll_core::net::UdpSocket;
/// use netpoll_core::sim::{Options, Sim};
///
/// let mut sim = Sim::new(Options::default());
/// let lengths = sim.block_on(async {
///     let socket = UdpSocket::bind("127.0.0.1:0").await?;
///     socket.send_segments(&[7; 2500], 1000, socket.local_addr()).await?;
///     let mut lengths = Vec::new();
///     let mut batch = socket.recv_batch().await?;
///     while let Some((_path, bytes)) = batch.next() {
///         lengths.push(bytes.len());
///     }
///     std::io::Result::Ok(lengths)
/// });
/// assert_eq!(lengths.unwrap(), [1000, 1000, 500]);
/// ```
pub struct DatagramBatch<'a> {
    shared: &'a Rc<Shared>,
    queue: DatagramQueue,
    /// Datagrams in front that were handed out.
    out: usize,
}

/// Datagrams of one path in a row, of one length but the last, which may be shorter: one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct JoinedDatagrams<'a> {
    /// Where they came from and to.
    pub path: DatagramPath,
    /// Their bytes.
    pub bytes: &'a [u8],
    /// How many they are.
    pub datagrams: usize,
    /// How long each but the last is.
    pub segment: usize,
}

impl<'a> DatagramBatch<'a> {
    pub(super) fn new(shared: &'a Rc<Shared>, queue: DatagramQueue) -> Self {
        let batch = Self { shared, queue, out: 0 };
        batch.lends(batch.queue.queued_bytes());
        batch
    }

    fn lends(&self, bytes: usize) {
        self.shared.lent_bytes.set(self.shared.lent_bytes.get() + bytes);
    }

    /// Forgets what was handed out.
    fn pop(&mut self) {
        let before = self.queue.queued_bytes();
        self.queue.pop(std::mem::take(&mut self.out));
        self.returns(before - self.queue.queued_bytes());
    }

    fn returns(&self, bytes: usize) {
        self.shared.lent_bytes.set(self.shared.lent_bytes.get() - bytes);
    }

    /// Takes the next one.
    #[expect(
        clippy::should_implement_trait,
        reason = "what it lends lies in the batch, which no iterator can say"
    )]
    pub fn next(&mut self) -> Option<(DatagramPath, &[u8])> {
        let next = self.next_joined(1)?;
        Some((next.path, next.bytes))
    }

    /// Takes the next one, and those behind it that may be looked at as one with it: so many at most.
    ///
    /// # Panics
    /// If that is none.
    pub fn next_joined(&mut self, datagrams_max: usize) -> Option<JoinedDatagrams<'_>> {
        assert!(datagrams_max > 0, "the next datagram is one");
        self.pop();
        let joining = Joining { datagrams_max, bytes_max: usize::MAX, segment_max: usize::MAX };
        let run = self.queue.front(joining).next()?;
        self.out = run.datagrams;
        Some(JoinedDatagrams {
            path: run.path,
            bytes: run.bytes,
            datagrams: run.datagrams,
            segment: run.segment,
        })
    }

    /// How many are left.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len() - self.out
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Drop for DatagramBatch<'_> {
    fn drop(&mut self) {
        self.pop();
        self.returns(self.queue.queued_bytes());
        let is_left = !self.queue.is_empty();
        if is_left {
            let mut unread = self.shared.unread.borrow_mut();
            self.queue.append_all(&mut unread);
            std::mem::swap(&mut self.queue, &mut *unread);
        }
        self.shared.give_back(&mut self.queue);
        if is_left {
            wake(&self.shared.readers);
        }
    }
}

impl fmt::Debug for DatagramBatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatagramBatch").field("left", &self.len()).finish_non_exhaustive()
    }
}
