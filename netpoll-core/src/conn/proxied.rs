//! Connections that a proxy has accepted: a header in front of the client's bytes says who the client is.

mod header;

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::{Commands, Conn, Flow, Input, Lost, Message, Peer, Protocol};
use crate::clockwork::Instant;
use crate::sys::Address;
pub use header::{Parsed, parse};

/// How long a proxy may take for its header. It sends it in front of everything else, as soon as it has connected.
const HEADER_WITHIN: Duration = Duration::from_secs(5);

type Accept<P> = Rc<RefCell<dyn FnMut(Peer) -> P>>;

/// A connection behind a proxy that speaks the PROXY protocol, version 1 or 2, as HAProxy, nginx, Envoy and cloud balancers do: the
/// header is taken off, and the protocol is made for the client that it names.
///
/// [`accept`](Self::accept) wraps an accept function. That is called when the header is there, with the client's address in
/// [`Peer::addr`]; where the proxy speaks for itself (`LOCAL`, for its health checks) or knows no client (`UNKNOWN`, and datagrams), with the address of the
/// proxy. [`Conn::peer_addr`] is the proxy in any case.
///
/// **Only proxies may reach such a listener**: whoever can connect to it can say that he is anybody. Where others can, `accept_from` says
/// which peers send a header; those of other addresses are clients, and what they send is theirs.
///
/// A connection that does not begin with a header, whose header does not come within five seconds, or has more than 4 KiB behind
/// its addresses, is closed without a word. What the header says beyond addresses is skipped. Limits that
/// count by address ([`ConnLimits`](crate::ConnLimits)) see the proxy, as they count before a byte was read. Cost: one branch
/// for each callback, and an allocation for a header that comes in pieces.
///
/// ```
/// use netpoll_core::sim::{Options, Sim};
/// use netpoll_core::{Conn, Flow, Input, Peer, Protocol, Proxied};
///
/// /// Tells clients where they come from.
/// struct Whence(Peer);
///
/// impl Protocol for Whence {
///     fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
///         conn.send(format!("{}\n", self.0.addr).as_bytes());
///         Flow::Close
///     }
///     fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
///         Flow::Continue
///     }
/// }
///
/// let mut sim = Sim::new(Options::default());
/// let listener = sim.listen(Proxied::accept(Whence));
/// let proxy = sim.connect(listener);
/// sim.send(proxy, b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\r\n");
/// sim.settle();
/// assert_eq!(sim.take_received(proxy), b"192.0.2.7:4711\n");
/// ```
///
/// On a [`Builder`](crate::Builder): `listen(address, |_worker| Proxied::accept(|peer| ..))`.
pub struct Proxied<P>(State<P>);

enum State<P> {
    /// The header is not there.
    Waits {
        accept: Accept<P>,
        peer: Peer,
        /// Whether a peer sends one. All do if nobody says.
        is_proxy: Option<fn(&Address) -> bool>,
        /// A drain has begun.
        retires: bool,
    },
    /// The client's protocol.
    Runs(P),
}

impl<P> fmt::Debug for Proxied<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.0 {
            State::Waits { .. } => "waits for its header",
            State::Runs(_) => "runs",
        };
        f.debug_tuple("Proxied").field(&state).finish()
    }
}

impl<P: Protocol> Proxied<P> {
    /// An accept function for proxies, of one for clients.
    pub fn accept(accept: impl FnMut(Peer) -> P + 'static) -> impl FnMut(Peer) -> Self + 'static {
        Self::accepting(accept, None)
    }

    /// The same where not only proxies connect: those for whose addresses `is_proxy` is true send a header, all others are clients. Costs a
    /// system call for each connection, which asks for the address.
    pub fn accept_from(
        is_proxy: fn(&Address) -> bool,
        accept: impl FnMut(Peer) -> P + 'static,
    ) -> impl FnMut(Peer) -> Self + 'static {
        Self::accepting(accept, Some(is_proxy))
    }

    fn accepting(
        accept: impl FnMut(Peer) -> P + 'static,
        is_proxy: Option<fn(&Address) -> bool>,
    ) -> impl FnMut(Peer) -> Self + 'static {
        let accept: Accept<P> = Rc::new(RefCell::new(accept));
        move |peer| Self(State::Waits { accept: Rc::clone(&accept), peer, is_proxy, retires: false })
    }

    /// The client is known: its protocol begins, and is offered what is left.
    fn begin(
        &mut self,
        conn: &mut Conn<'_>,
        accept: &Accept<P>,
        peer: Peer,
        input: Option<&mut Input<'_>>,
    ) -> Flow {
        let protocol = (accept.borrow_mut())(peer);
        let retires = matches!(self.0, State::Waits { retires: true, .. });
        self.0 = State::Runs(protocol);
        let State::Runs(protocol) = &mut self.0 else { unreachable!("it was just set") };
        conn.clear_deadline();
        let mut flow = protocol.opened(conn);
        if retires && !ends(flow) {
            conn.go_on_after_all();
            flow = protocol.stopping(conn);
        }
        match (flow, input) {
            (Flow::Continue, Some(input)) if !input.is_empty() => protocol.received(conn, input),
            (Flow::Retire, Some(input)) if !input.is_empty() => match protocol.received(conn, input) {
                Flow::Continue => Flow::Retire,
                other => other,
            },
            (flow, _) => flow,
        }
    }
}

/// Nothing but [`Protocol::lost`] comes behind it.
fn ends(flow: Flow) -> bool {
    matches!(flow, Flow::Close | Flow::Linger | Flow::Reset)
}

/// What the client's protocol does, or what is done where there is none yet.
macro_rules! running {
    ($this:expr, $protocol:ident => $call:expr, $else:expr) => {
        match &mut $this.0 {
            State::Runs($protocol) => $call,
            State::Waits { .. } => $else,
        }
    };
}

impl<P: Protocol> Protocol for Proxied<P> {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        let State::Waits { accept, peer, is_proxy: Some(is_proxy), .. } = &mut self.0 else {
            conn.set_deadline(HEADER_WITHIN);
            return Flow::Continue;
        };
        if peer.addr == Address::Unknown {
            peer.addr = conn.peer_addr().unwrap_or(Address::Unknown);
        }
        if is_proxy(&peer.addr) {
            conn.set_deadline(HEADER_WITHIN);
            return Flow::Continue;
        }
        let (accept, peer) = (Rc::clone(accept), peer.clone());
        self.begin(conn, &accept, peer, None)
    }

    #[inline]
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        let (accept, mut peer) = match &mut self.0 {
            State::Runs(protocol) => return protocol.received(conn, input),
            State::Waits { accept, peer, .. } => (Rc::clone(accept), peer.clone()),
        };
        // Not by `bytes`: the protocol may want to change the rest where it lies.
        match parse(input.bytes_mut()) {
            Parsed::Partial => Flow::Continue,
            Parsed::Not => Flow::Close,
            Parsed::Header { bytes, client } => {
                input.advance(bytes);
                if let Some(client) = client {
                    peer.addr = client;
                }
                self.begin(conn, &accept, peer, Some(input))
            }
        }
    }

    fn announced(&mut self, conn: &mut Conn<'_>) -> Option<Flow> {
        running!(self, protocol => protocol.announced(conn), None)
    }

    fn eof(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        running!(self, protocol => protocol.eof(conn, input), Flow::Close)
    }

    fn peer_ended(&mut self, conn: &mut Conn<'_>) -> Flow {
        running!(self, protocol => protocol.peer_ended(conn), conn.unchanged_flow())
    }

    fn flushed(&mut self, conn: &mut Conn<'_>) {
        running!(self, protocol => protocol.flushed(conn), ());
    }

    fn drained(&mut self, conn: &mut Conn<'_>) -> Flow {
        running!(self, protocol => protocol.drained(conn), conn.unchanged_flow())
    }

    fn deadline(&mut self, conn: &mut Conn<'_>) -> Flow {
        running!(self, protocol => protocol.deadline(conn), Flow::Close)
    }

    fn woken(&mut self, conn: &mut Conn<'_>) -> Flow {
        running!(self, protocol => protocol.woken(conn), conn.unchanged_flow())
    }

    fn told(&mut self, conn: &mut Conn<'_>, message: Message) -> Flow {
        running!(self, protocol => protocol.told(conn, message), conn.unchanged_flow())
    }

    fn takes_last_input(&mut self) -> bool {
        running!(self, protocol => protocol.takes_last_input(), false)
    }

    /// Who the client is says its protocol.
    fn hand_over(&mut self, conn: &mut Conn<'_>) -> Option<Vec<u8>> {
        running!(self, protocol => protocol.hand_over(conn), None)
    }

    /// The header was taken off by the process before.
    fn taken_over(&mut self, conn: &mut Conn<'_>, state: &[u8]) -> Flow {
        if let State::Waits { accept, peer, .. } = &mut self.0 {
            let (accept, peer) = (Rc::clone(accept), peer.clone());
            let flow = self.begin(conn, &accept, peer, None);
            if ends(flow) {
                return flow;
            }
        }
        running!(self, protocol => protocol.taken_over(conn, state), Flow::Close)
    }

    fn idle_since(&mut self, conn: &mut Conn<'_>) -> Option<Instant> {
        running!(self, protocol => protocol.idle_since(conn), None)
    }

    /// A client may be behind the header that is on its way.
    fn stopping(&mut self, conn: &mut Conn<'_>) -> Flow {
        match &mut self.0 {
            State::Runs(protocol) => protocol.stopping(conn),
            State::Waits { retires, .. } => {
                *retires = true;
                Flow::Retire
            }
        }
    }

    fn finishing(&mut self, conn: &mut Conn<'_>) -> Flow {
        running!(self, protocol => protocol.finishing(conn), Flow::Close)
    }

    fn closing(&mut self, conn: &mut Conn<'_>) -> Flow {
        running!(self, protocol => protocol.closing(conn), Flow::Close)
    }

    /// Nobody can know the client before its protocol has begun, so nothing is for it.
    fn outgoing(&mut self, conn: &mut Conn<'_>, bytes: Bytes) -> Flow {
        running!(self, protocol => protocol.outgoing(conn, bytes), conn.unchanged_flow())
    }

    fn lost(&mut self, reason: Lost, commands: &mut Commands) {
        running!(self, protocol => protocol.lost(reason, commands), ());
    }
}
