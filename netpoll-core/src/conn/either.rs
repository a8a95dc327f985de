//! One of two protocols, chosen for each connection: with a layer or without, as the settings of a program say.

use bytes::Bytes;

use super::{Commands, Conn, Flow, Input, Lost, Message, Protocol};
use crate::clockwork::Instant;

/// One of two protocols, chosen for each connection when it is made. As large as the larger of the two, and one more branch for each
/// callback.
///
/// A listener has one type of protocol. Where its connections have a [`Layer`](crate::Layer) or none as the settings say, this is it:
/// ```
/// use netpoll_core::sim::{Options, Sim};
/// use netpoll_core::{Conn, Either, Flow, Input, Layer, Layered, Protocol, Upper};
///
/// /// Stands for encryption.
/// struct Veil;
/// # impl Layer for Veil {
/// #     fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>, upper: &mut Upper<'_>) -> Flow {
/// #         let bytes = input.bytes_mut();
/// #         bytes.iter_mut().for_each(|byte| *byte = !*byte);
/// #         upper.received(conn, bytes);
/// #         input.advance_all();
/// #         Flow::Continue
/// #     }
/// #     fn send(&mut self, conn: &mut Conn<'_>, plain: &[u8]) -> Flow {
/// #         conn.append(plain.len(), |out| out.extend(plain.iter().map(|byte| !byte)));
/// #         Flow::Continue
/// #     }
/// # }
/// struct Echo;
/// # impl Protocol for Echo {
/// #     fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
/// #         conn.send(input.bytes());
/// #         input.advance_all();
/// #         Flow::Continue
/// #     }
/// # }
///
/// for veiled in [false, true] {
///     let mut sim = Sim::new(Options::default());
///     let listener = sim.listen(move |_peer| match veiled {
///         false => Either::Left(Echo),
///         true => Either::Right(Layered::new(Veil, Echo)),
///     });
///     let peer = sim.connect(listener);
///     sim.send(peer, b"hello");
///     sim.settle();
///     assert_eq!(sim.take_received(peer), b"hello");
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Either<A, B> {
    /// The one.
    Left(A),
    /// The other.
    Right(B),
}

/// Whichever it is.
macro_rules! whichever {
    ($either:expr, $protocol:ident => $call:expr) => {
        match $either {
            Either::Left($protocol) => $call,
            Either::Right($protocol) => $call,
        }
    };
}

impl<A: Protocol, B: Protocol> Protocol for Either<A, B> {
    #[inline]
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        whichever!(self, protocol => protocol.opened(conn))
    }

    #[inline]
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        whichever!(self, protocol => protocol.received(conn, input))
    }

    fn announced(&mut self, conn: &mut Conn<'_>) -> Option<Flow> {
        whichever!(self, protocol => protocol.announced(conn))
    }

    fn eof(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        whichever!(self, protocol => protocol.eof(conn, input))
    }

    fn peer_ended(&mut self, conn: &mut Conn<'_>) -> Flow {
        whichever!(self, protocol => protocol.peer_ended(conn))
    }

    fn flushed(&mut self, conn: &mut Conn<'_>) {
        whichever!(self, protocol => protocol.flushed(conn));
    }

    fn drained(&mut self, conn: &mut Conn<'_>) -> Flow {
        whichever!(self, protocol => protocol.drained(conn))
    }

    fn deadline(&mut self, conn: &mut Conn<'_>) -> Flow {
        whichever!(self, protocol => protocol.deadline(conn))
    }

    fn woken(&mut self, conn: &mut Conn<'_>) -> Flow {
        whichever!(self, protocol => protocol.woken(conn))
    }

    fn told(&mut self, conn: &mut Conn<'_>, message: Message) -> Flow {
        whichever!(self, protocol => protocol.told(conn, message))
    }

    fn takes_last_input(&mut self) -> bool {
        whichever!(self, protocol => protocol.takes_last_input())
    }

    fn is_of_task(&self) -> bool {
        whichever!(self, protocol => protocol.is_of_task())
    }

    fn idle_since(&mut self, conn: &mut Conn<'_>) -> Option<Instant> {
        whichever!(self, protocol => protocol.idle_since(conn))
    }

    fn stopping(&mut self, conn: &mut Conn<'_>) -> Flow {
        whichever!(self, protocol => protocol.stopping(conn))
    }

    fn finishing(&mut self, conn: &mut Conn<'_>) -> Flow {
        whichever!(self, protocol => protocol.finishing(conn))
    }

    fn closing(&mut self, conn: &mut Conn<'_>) -> Flow {
        whichever!(self, protocol => protocol.closing(conn))
    }

    fn outgoing(&mut self, conn: &mut Conn<'_>, bytes: Bytes) -> Flow {
        whichever!(self, protocol => protocol.outgoing(conn, bytes))
    }

    fn lost(&mut self, reason: Lost, commands: &mut Commands) {
        whichever!(self, protocol => protocol.lost(reason, commands));
    }
}
