//! What a user implements for a datagram socket.

use std::time::Duration;

use super::DatagramSocket;
use crate::driver::{Datagram, Datagrams};

/// A protocol over datagrams: one value for each socket, and so one on each worker.
///
/// A program implements it, and of it only [`received`](Self::received); who would rather await datagrams in a task has
/// [`net::UdpSocket`](crate::net::UdpSocket).
///
/// Its callbacks run on that worker, one at a time, and must not block. What they queue ([`DatagramSocket::send`]) leaves behind
/// the callback, with everything else that its batch has brought forth, in one system call.
///
/// A callback that panics costs the datagram that it was called for: what it had queued leaves, the rest of the batch is handed
/// over, and the value is called again, in whatever state the panic has left it. The panic is counted
/// ([`Stats::panics`](crate::Stats::panics)). A socket serves everybody who sends to it, so it does not end for one of them.
///
/// ```
/// use netpoll_core::{Datagram, DatagramProtocol, DatagramSocket};
///
/// /// Sends back what it gets.
/// struct Echo;
///
/// impl DatagramProtocol for Echo {
///     fn received(&mut self, socket: &mut DatagramSocket<'_>, datagram: Datagram<'_>) {
///         if !datagram.is_truncated() {
///             socket.send(datagram.path(), datagram.bytes());
///         }
///     }
/// }
/// ```
///
/// Anybody can write any address into a datagram as its sender. Who answers with more bytes than were asked with lends
/// attackers a hand: keep answers to strangers short.
pub trait DatagramProtocol: 'static {
    /// The socket is bound and its worker serves. Nothing has come before. The default does nothing.
    fn opened(&mut self, socket: &mut DatagramSocket<'_>) {
        let _ = socket;
    }

    /// A datagram has come. There is no default.
    fn received(&mut self, socket: &mut DatagramSocket<'_>, datagram: Datagram<'_>);

    /// Datagrams have come together. Calls [`received`](Self::received) for each of them, unless it is implemented otherwise:
    /// for who sorts them first, or counts once for all. Those that are not taken out of the batch are lost.
    fn received_batch(&mut self, socket: &mut DatagramSocket<'_>, batch: &mut Datagrams<'_>) {
        for datagram in batch {
            self.received(socket, datagram);
            if socket.is_closing() {
                break;
            }
        }
    }

    /// What had to wait for room in the kernel has left. The default does nothing.
    fn drained(&mut self, socket: &mut DatagramSocket<'_>) {
        let _ = socket;
    }

    /// The deadline that was set has passed. Not before what had come by then was handed over. The default does nothing: the socket goes on.
    fn deadline(&mut self, socket: &mut DatagramSocket<'_>) {
        let _ = socket;
    }

    /// A waker of this socket was woken. The default does nothing.
    fn woken(&mut self, socket: &mut DatagramSocket<'_>) {
        let _ = socket;
    }

    /// A drain has begun. How long the socket is to go on, for answers that are under way elsewhere; at most until the drain's
    /// deadline, and [`DatagramSocket::close`] ends it earlier. Zero by default.
    ///
    /// After that time what has come is handed over and answered, for no longer than
    /// [`ConnLimits::drain_grace`](crate::ConnLimits::drain_grace) however much comes, and the socket closes.
    fn stopping(&mut self, socket: &mut DatagramSocket<'_>) -> Duration {
        let _ = socket;
        Duration::ZERO
    }
}
