//! Where a connection turns out to speak HTTP/2: because that was agreed on below, or because its first bytes are those of it.
//!
//! Invariant: nothing was answered before, and no byte was taken. What comes with the connection is what its peer began with.

use std::rc::Rc;

use netpoll_core::{Address, Conn, Flow};

use super::upgrade::Next;
use super::{Http, Phase, Service, Step, Worker};

/// What a client begins with that knows that HTTP/2 is spoken (RFC 9113 section 3.4). It is no request of any other version.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How ALPN calls it.
#[cfg(feature = "tls")]
const ALPN: &[u8] = b"h2";

/// What such a connection goes on as, with this peer; made above.
pub(crate) type Second<S> = Box<dyn Fn(&Rc<Worker<S>>, &Address, &mut Conn<'_>) -> Next>;

/// What was agreed on below: HTTP/2, or something else. `None` where nobody has asked.
#[cfg(feature = "tls")]
fn agreed(conn: &Conn<'_>) -> Option<bool> {
    let facts = conn.layer_facts::<netpoll_core::tls::TlsFacts>()?;
    Some(facts.alpn() == Some(ALPN))
}

#[cfg(not(feature = "tls"))]
fn agreed(_: &Conn<'_>) -> Option<bool> {
    None
}

impl<S: Service> Http<S> {
    /// The connection is open: it speaks what was agreed on.
    #[cold]
    pub(super) fn begin_as_agreed(&mut self, conn: &mut Conn<'_>) -> Flow {
        if agreed(conn) != Some(true) {
            return Flow::Continue;
        }
        match self.go_on_in_second(conn) {
            Step::Next | Step::Coded(_) => Flow::Continue,
            Step::Stop(flow) => flow,
        }
    }

    /// Whether what cannot be read is no request but the beginning of HTTP/2.
    #[cold]
    pub(super) fn is_second(&self, conn: &Conn<'_>, bytes: &[u8]) -> bool {
        let is_first =
            matches!(self.phase, Phase::Idle | Phase::Head) && !self.has_answered && !self.half_closed;
        let begins = bytes.iter().zip(PREFACE).all(|(byte, expected)| byte == expected);
        // Under TLS it has to be agreed on (RFC 9113 section 3.2).
        self.worker.second.is_some() && is_first && begins && agreed(conn).is_none()
    }

    /// Hands the connection on, with all that has come.
    #[cold]
    pub(super) fn go_on_in_second(&mut self, conn: &mut Conn<'_>) -> Step {
        let Some(second) = &self.worker.second else { unreachable!("asked before") };
        let next = second(&self.worker, &self.peer, conn);
        // It is told of its requests itself.
        self.watch = None;
        self.phase = Phase::Upgraded(Box::new(next));
        conn.clear_deadline();
        let Phase::Upgraded(next) = &mut self.phase else { unreachable!("set above") };
        match next.opened(conn) {
            Flow::Continue => Step::Next,
            flow => Step::Stop(flow),
        }
    }
}
