//! A protocol around a protocol: what is said in plain text above goes over the wire as something else.
//!
//! [`Layer`] is what somebody writes, [`Layered`] the protocol that it makes of another one; `upper.rs` keeps what belongs to the
//! protocol above, and `veil.rs` shows it the connection without the wire.
//!
//! Invariant: whatever is queued above, by whomever, goes through [`Layer::send`]; nothing but a layer's own callbacks writes
//! into the connection's queue or sends on its socket. See `docs/decisions/0011`.

mod layered;
mod upper;
mod veil;

pub use layered::Layered;
pub use upper::Upper;

use super::{Conn, Flow, Input};
use crate::clockwork::Instant;

/// What stands between a connection and a protocol that is written as if it had the connection to itself: encryption,
/// compression, a tunnel. Made a [`Protocol`](crate::Protocol) by [`Layered`].
///
/// `conn` is the connection itself: what a layer queues on it goes over the wire as it is (a handshake, an alert, a ping).
/// `upper` is the protocol above. A layer has a deadline of its own ([`Conn::set_deadline`], for a handshake), beside that of the
/// protocol above, and neither sees the other's.
///
/// A layer that needs no other memory works in place: [`Input::bytes_mut`] is the block that was read into, and
/// [`Upper::received`] offers a part of it to the protocol above as it lies there. What that leaves is kept, and offered again.
/// What the layer leaves, a record that is not whole yet, is kept as for any protocol.
///
/// One that only takes something off the front of a connection, as the PROXY protocol does, needs none of this: it can be a
/// protocol that hands its own `conn` and `input` on. What it has looked at ([`Input::bytes`]) nobody changes in place in the same callback:
/// it returns `Flow::Yield`, and hands on what it is offered next.
///
/// ```
/// use netpoll_core::sim::{Options, Sim};
/// use netpoll_core::{Conn, Flow, Input, Layer, Layered, Protocol, Upper};
///
/// /// Turns every bit around. No security whatsoever.
/// struct Flip;
///
/// impl Layer for Flip {
///     fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>, upper: &mut Upper<'_>) -> Flow {
///         let bytes = input.bytes_mut();
///         bytes.iter_mut().for_each(|byte| *byte = !*byte);
///         upper.received(conn, bytes);
///         input.advance_all();
///         Flow::Continue
///     }
///
///     fn send(&mut self, conn: &mut Conn<'_>, plain: &[u8]) -> Flow {
///         conn.append(plain.len(), |out| out.extend(plain.iter().map(|byte| !byte)));
///         Flow::Continue
///     }
/// }
///
/// /// Knows nothing of it.
/// struct Echo;
///
/// impl Protocol for Echo {
///     fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
///         conn.send_now(input.bytes());
///         input.advance_all();
///         Flow::Continue
///     }
/// }
///
/// let mut sim = Sim::new(Options::default());
/// let listener = sim.listen(|_peer| Layered::new(Flip, Echo));
/// let peer = sim.connect(listener);
/// sim.send(peer, &b"hello".map(|byte| !byte));
/// sim.settle();
/// assert_eq!(sim.take_received(peer), b"hello".map(|byte| !byte));
/// ```
///
/// # A whole one
///
/// With a greeting that has its time, records, a last word, and an end that can be told from a cut:
/// ```
/// use std::time::Duration;
///
/// use netpoll_core::sim::{Options, Sim};
/// use netpoll_core::{Conn, Flow, Input, Layer, Layered, Upper};
/// # use netpoll_core::Protocol;
/// # struct Echo;
/// # impl Protocol for Echo {
/// #     fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
/// #         conn.send(input.bytes());
/// #         input.advance_all();
/// #         Flow::Continue
/// #     }
/// # }
///
/// /// Both sides say `hi`; then come records, a byte of length each and that many bytes. An empty one is the end.
/// #[derive(Default)]
/// struct Records {
///     has_greeted: bool,
///     has_ended: bool,
/// }
///
/// impl Layer for Records {
///     const PIECE_BYTES_MAX: usize = 255;
///
///     fn opened(&mut self, conn: &mut Conn<'_>, _upper: &mut Upper<'_>) -> Flow {
///         conn.send(b"hi");
///         conn.set_deadline(Duration::from_secs(5)); // then `deadline` closes
///         Flow::Continue
///     }
///
///     fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>, upper: &mut Upper<'_>) -> Flow {
///         if !self.has_greeted {
///             let Some(greeting) = input.bytes_mut().get(..2) else { return Flow::Continue };
///             if greeting != b"hi" {
///                 return Flow::Reset;
///             }
///             input.advance(2);
///             self.has_greeted = true;
///             conn.clear_deadline(); // its own; that of the protocol above is another
///             upper.open(conn);
///         }
///         // What is left when it takes no more comes again when it goes on.
///         while upper.takes_more(conn) {
///             let bytes = input.bytes_mut();
///             let Some(length) = bytes.first().map(|length| usize::from(*length)) else { break };
///             let Some(plain) = bytes.get_mut(1..1 + length) else { break }; // not whole yet
///             if length == 0 {
///                 self.has_ended = true;
///                 upper.eof(conn);
///             } else {
///                 upper.received(conn, plain);
///             }
///             input.advance(1 + length);
///         }
///         Flow::Continue
///     }
///
///     fn send(&mut self, conn: &mut Conn<'_>, plain: &[u8]) -> Flow {
///         conn.append(1 + plain.len(), |out| {
///             out.push(plain.len() as u8); // no more than a piece has
///             out.extend(plain);
///         });
///         Flow::Continue
///     }
///
///     fn finish(&mut self, conn: &mut Conn<'_>) {
///         conn.send(&[0]);
///     }
///
///     fn eof(&mut self, conn: &mut Conn<'_>, _input: &mut Input<'_>, _upper: &mut Upper<'_>) -> Flow {
///         // The peer has said so, and the protocol above knows; or somebody has cut the connection.
///         if self.has_ended { conn.unchanged_flow() } else { Flow::Reset }
///     }
/// }
///
/// let mut sim = Sim::new(Options::default());
/// let listener = sim.listen(|_peer| Layered::new(Records::default(), Echo));
/// let (ends, is_cut, is_silent) = (sim.connect(listener), sim.connect(listener), sim.connect(listener));
/// sim.send(ends, b"hi\x05hello\0");
/// sim.send(is_cut, b"hi\x05hel");
/// sim.finish(is_cut);
/// sim.settle();
/// assert_eq!(sim.take_received(ends), b"hi\x05hello\0", "with a last word, for the echo has closed");
/// assert!(sim.is_reset(is_cut) && !sim.is_closed(is_silent));
/// sim.advance(Duration::from_secs(5));
/// assert!(sim.is_closed(is_silent));
/// ```
pub trait Layer: Sized + 'static {
    /// The most that [`send`](Self::send) is given at once, in bytes. Default 16 KiB, the most that a record of TLS carries.
    const PIECE_BYTES_MAX: usize = 16 * 1024;

    /// The connection is open. The default opens the protocol above at once; a layer with a handshake does so when that is done.
    fn opened(&mut self, conn: &mut Conn<'_>, upper: &mut Upper<'_>) -> Flow {
        upper.open(conn);
        conn.unchanged_flow()
    }

    /// Bytes from the wire. What is not consumed is kept, and offered again in front of the bytes that follow.
    ///
    /// Stop when [`Upper::takes_more`] says no: what is left comes again when the protocol above goes on, and until then nothing
    /// comes, neither data nor a ping. Who hands on more all the same has it kept.
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>, upper: &mut Upper<'_>) -> Flow;

    /// What the protocol above says, in order and never empty: puts it on the wire, as by [`Conn::append`]. Called when a
    /// callback has returned, as long as no more than high water waits on the wire
    /// ([`ConnLimits::write_high_bytes`](crate::ConnLimits::write_high_bytes)); the rest waits above. Any flow but
    /// `Flow::Continue` ends the connection in that way.
    fn send(&mut self, conn: &mut Conn<'_>, plain: &[u8]) -> Flow;

    /// All that was sent up to here has to reach the peer in a form that it can read: a layer that collects lets go.
    /// Comes behind the last [`send`](Self::send) of a callback. The default has nothing.
    fn flush(&mut self, conn: &mut Conn<'_>) {
        let _ = conn;
    }

    /// The protocol above closes, and all of its output has been sent: the layer's own last word, such as a `close_notify`.
    /// Comes once, and not if the connection is reset or lost. The default says nothing.
    fn finish(&mut self, conn: &mut Conn<'_>) {
        let _ = conn;
    }

    /// The peer has sent all it will send; `input` is what was never consumed. The default tells the protocol above, if it is open,
    /// and closes otherwise. A layer that can tell the end from a cut ([`Upper::eof`] when the peer has said so) returns
    /// `Flow::Reset` for a cut.
    ///
    /// What was left because [`Upper::takes_more`] said no was offered to [`received`](Self::received) again before this comes. The
    /// protocol above may take no more here all the same, since it was offered what it has left itself just before: its end is told
    /// behind that, when it goes on.
    fn eof(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>, upper: &mut Upper<'_>) -> Flow {
        let _ = input;
        if !upper.is_open() {
            return Flow::Close;
        }
        upper.eof(conn);
        conn.unchanged_flow()
    }

    /// The deadline that the layer has set has passed. It is cleared. The default closes.
    fn deadline(&mut self, conn: &mut Conn<'_>, upper: &mut Upper<'_>) -> Flow {
        let _ = (conn, upper);
        Flow::Close
    }

    /// A waker of the connection ([`Conn::waker`]) was woken: the layer and the protocol above share it, so both are told.
    /// The default does nothing.
    fn woken(&mut self, conn: &mut Conn<'_>, upper: &mut Upper<'_>) -> Flow {
        let _ = upper;
        conn.unchanged_flow()
    }

    /// Since when the layer has waited for its peer, if the protocol above is not open yet and closing the connection costs the peer no more than
    /// connecting again: as [`Protocol::idle_since`](crate::Protocol::idle_since), of which the protocol above is asked when it is open. The default is that it
    /// never has.
    fn idle_since(&mut self, conn: &mut Conn<'_>) -> Option<Instant> {
        let _ = conn;
        None
    }

    /// The runtime is shutting down gracefully, and the protocol above is not open yet. The default goes on for a moment.
    fn stopping(&mut self, conn: &mut Conn<'_>) -> Flow {
        let _ = conn;
        Flow::Retire
    }
}
