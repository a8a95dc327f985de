//! Settings of UDP sockets: each with a name, a default, a unit and a reason.

use crate::driver::DatagramSetup;
use crate::sys;

/// How UDP sockets are set up, and what each may hold.
///
/// ```
/// use netpoll_core::UdpOptions;
/// // A name server: short questions, short answers.
/// let options = UdpOptions::default().datagram_bytes_max(4096).join_received(false);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct UdpOptions {
    /// Datagrams received by one system call and handed over together, 1 to 1024. Default 32: the call costs a hundredth of
    /// what they do by then. What the kernel has joined counts as one.
    pub batch: usize,
    /// Datagrams that one socket is received from in a turn, at least 1. Default 128: about 100 µs, so that a flood leaves time for
    /// the worker's connections and other sockets. What is left comes in the next turn. The last batch may go beyond it by
    /// what the kernel has joined.
    pub datagrams_per_turn: usize,
    /// Length of the longest datagram that is received whole, in bytes, 1 to 65 535. Default 65 535: any. Longer ones are cut,
    /// marked ([`Datagram::is_truncated`](crate::Datagram::is_truncated)) and counted.
    pub datagram_bytes_max: usize,
    /// Bytes that may wait in one socket for the kernel to take them, 64 for each datagram included. Default 4 MiB: the answers to a
    /// batch of the longest datagrams there are, twice. What does not fit is dropped and counted
    /// ([`Stats::datagrams_dropped`](crate::Stats::datagrams_dropped)), as a network would.
    pub queue_bytes_max: usize,
    /// Bytes that may wait in one socket of a task ([`UdpSocket`](crate::net::UdpSocket)) for somebody to receive them, 64 for each datagram
    /// included, and what a [`DatagramBatch`](crate::net::DatagramBatch) still has. Default 1 MiB: 8000 short datagrams, or 15 of the longest. What does not fit is dropped and counted
    /// ([`Stats::datagrams_dropped`](crate::Stats::datagrams_dropped)): who does not keep up loses the newest.
    pub unread_bytes_max: usize,
    /// Whether datagrams of one sender that came together are received as one, where the kernel can (`UDP_GRO`, Linux 5.0). They are
    /// handed over one by one all the same. Default true. It makes each of the batch's places 64 KiB long, of which only
    /// what is used takes memory: turn it off if every peer only sends single datagrams.
    pub join_received: bool,
    /// Whether datagrams of one length to one peer that are queued in a row are given to the kernel as one, to be cut there or in the
    /// network card, where the kernel can (`UDP_SEGMENT`, Linux 4.18). Default true; off, each is a packet of its own from the
    /// start.
    pub join_sent: bool,
    /// Size of the kernel's receive buffer, in bytes (`SO_RCVBUF`; the kernel doubles it, and caps it at `net.core.rmem_max`).
    /// Default `None`: `net.core.rmem_default`, about 250 small datagrams. A larger one bridges longer bursts.
    pub receive_buffer_bytes: Option<usize>,
    /// Size of the kernel's send buffer, in bytes (`SO_SNDBUF`, capped at `net.core.wmem_max`). Default `None`:
    /// `net.core.wmem_default`.
    pub send_buffer_bytes: Option<usize>,
}

impl Default for UdpOptions {
    fn default() -> Self {
        Self {
            batch: 32,
            datagrams_per_turn: 128,
            datagram_bytes_max: Self::DATAGRAM_BYTES_MAX,
            queue_bytes_max: 4 * 1024 * 1024,
            unread_bytes_max: 1024 * 1024,
            join_received: true,
            join_sent: true,
            receive_buffer_bytes: None,
            send_buffer_bytes: None,
        }
    }
}

setters! {
    UdpOptions {
        batch: usize,
        datagrams_per_turn: usize,
        datagram_bytes_max: usize,
        queue_bytes_max: usize,
        unread_bytes_max: usize,
        join_received: bool,
        join_sent: bool,
        receive_buffer_bytes: impl Into<Option<usize>>,
        send_buffer_bytes: impl Into<Option<usize>>,
    }
}

impl UdpOptions {
    /// The longest datagram there is.
    pub(crate) const DATAGRAM_BYTES_MAX: usize = 65_535;
    /// What the kernel takes in one call (`UIO_MAXIOV`).
    const BATCH_MAX: usize = 1024;

    /// What a driver needs to know.
    pub(crate) fn setup(&self) -> DatagramSetup {
        DatagramSetup {
            batch: self.batch,
            per_turn: self.datagrams_per_turn,
            bytes_max: self.datagram_bytes_max,
            join_received: self.join_received,
            join_sent: self.join_sent,
            is_shared: false,
        }
    }

    /// What is wrong with it, if something is.
    pub(crate) fn complaint(&self) -> Option<&'static str> {
        if !(1..=Self::BATCH_MAX).contains(&self.batch) {
            return Some("batch of UDP is not between 1 and 1024");
        }
        if self.datagrams_per_turn == 0 {
            return Some("datagrams_per_turn is zero");
        }
        if !(1..=Self::DATAGRAM_BYTES_MAX).contains(&self.datagram_bytes_max) {
            return Some("datagram_bytes_max is not between 1 and 65535");
        }
        if !sys::is_buffer_size(self.send_buffer_bytes) {
            return Some("send_buffer_bytes of UDP is not between 1 and 2147483647");
        }
        if !sys::is_buffer_size(self.receive_buffer_bytes) {
            return Some("receive_buffer_bytes of UDP is not between 1 and 2147483647");
        }
        if self.unread_bytes_max == 0 {
            return Some("unread_bytes_max is zero");
        }
        (self.queue_bytes_max == 0).then_some("queue_bytes_max is zero")
    }
}
