//! A connection that went on in another protocol.
//!
//! Invariant: the next protocol sees its first byte after the 101 was queued, and HTTP sees none from then
//! on. Bytes behind a request that was not upgraded are the next request.

use std::rc::Rc;

use bytes::Bytes;
use http::StatusCode;
use netpoll_core::{Commands, Conn, Flow, Input, Instant, Lost, Message, Protocol};

use super::answer::let_go;
use super::{Exchange, Http, Phase, Service, Step};
use crate::message::{
    Body, Request, Response, Rest, Switching, Takeover, Unread, Upgrade, too_late_to_switch,
};

/// Any [`Protocol`], behind a pointer.
pub(crate) trait Successor {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow;
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow;
    fn eof(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow;
    fn peer_ended(&mut self, conn: &mut Conn<'_>) -> Flow;
    fn flushed(&mut self, conn: &mut Conn<'_>);
    fn takes_last_input(&mut self) -> bool;
    fn idle_since(&mut self, conn: &mut Conn<'_>) -> Option<Instant>;
    fn drained(&mut self, conn: &mut Conn<'_>) -> Flow;
    fn deadline(&mut self, conn: &mut Conn<'_>) -> Flow;
    fn woken(&mut self, conn: &mut Conn<'_>) -> Flow;
    fn stopping(&mut self, conn: &mut Conn<'_>) -> Flow;
    fn closing(&mut self, conn: &mut Conn<'_>) -> Flow;
    fn outgoing(&mut self, conn: &mut Conn<'_>, bytes: Bytes) -> Flow;
    fn told(&mut self, conn: &mut Conn<'_>, message: Message) -> Flow;
    fn finishing(&mut self, conn: &mut Conn<'_>) -> Flow;
    fn lost(&mut self, reason: Lost, commands: &mut Commands);
}

impl<P: Protocol> Successor for P {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        Protocol::opened(self, conn)
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        Protocol::received(self, conn, input)
    }

    fn eof(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        Protocol::eof(self, conn, input)
    }

    fn peer_ended(&mut self, conn: &mut Conn<'_>) -> Flow {
        Protocol::peer_ended(self, conn)
    }

    fn flushed(&mut self, conn: &mut Conn<'_>) {
        Protocol::flushed(self, conn);
    }

    fn takes_last_input(&mut self) -> bool {
        Protocol::takes_last_input(self)
    }

    fn idle_since(&mut self, conn: &mut Conn<'_>) -> Option<Instant> {
        Protocol::idle_since(self, conn)
    }

    fn drained(&mut self, conn: &mut Conn<'_>) -> Flow {
        Protocol::drained(self, conn)
    }

    fn deadline(&mut self, conn: &mut Conn<'_>) -> Flow {
        Protocol::deadline(self, conn)
    }

    fn woken(&mut self, conn: &mut Conn<'_>) -> Flow {
        Protocol::woken(self, conn)
    }

    fn stopping(&mut self, conn: &mut Conn<'_>) -> Flow {
        Protocol::stopping(self, conn)
    }

    fn closing(&mut self, conn: &mut Conn<'_>) -> Flow {
        Protocol::closing(self, conn)
    }

    fn outgoing(&mut self, conn: &mut Conn<'_>, bytes: Bytes) -> Flow {
        Protocol::outgoing(self, conn, bytes)
    }

    fn told(&mut self, conn: &mut Conn<'_>, message: Message) -> Flow {
        Protocol::told(self, conn, message)
    }

    fn finishing(&mut self, conn: &mut Conn<'_>) -> Flow {
        Protocol::finishing(self, conn)
    }

    fn lost(&mut self, reason: Lost, commands: &mut Commands) {
        Protocol::lost(self, reason, commands);
    }
}

/// What a [`Takeover`] carries.
pub(crate) type Next = Box<dyn Successor>;

impl Upgrade {
    /// Answers `101 Switching Protocols` and hands the connection to `next`.
    ///
    /// `next` gets [`Protocol::opened`] when the 101 has been queued, and in the next turn the bytes behind the request. From
    /// then on the connection is its own: the limits of HTTP do not apply, those of the core
    /// ([`ConnLimits`](netpoll_core::ConnLimits)) do. Headers can be added to the response; its status stays
    /// 101, unless an `after` hook makes an error of it, which declines. On a connection that is to be closed, for
    /// example because the server is draining, the answer is 503 and `next` is dropped.
    ///
    /// Two allocations, and an indirect call for each callback.
    ///
    /// ```
    /// use netpoll_core::{Conn, Flow, Input, Protocol};
    /// use netpoll_http::{App, Request, Response, Router, StatusCode};
    ///
    /// struct Echo;
    /// impl Protocol for Echo {
    ///     fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
    ///         conn.send(input.bytes());
    ///         input.advance_all();
    ///         Flow::Continue
    ///     }
    /// }
    ///
    /// let echo = |req: &Request| match req.upgrade("echo") {
    ///     Some(upgrade) => Ok(upgrade.accept(Echo)),
    ///     None => Response::new(StatusCode::UPGRADE_REQUIRED).header("upgrade", "echo"),
    /// };
    /// let client = App::new(move |_| Router::new().get("/echo", echo)).test();
    /// assert_eq!(client.get("/echo").status, StatusCode::UPGRADE_REQUIRED);
    ///
    /// let mut connection = client.connect();
    /// connection.send(b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nhello");
    /// assert_eq!(connection.response().expect("the 101").status, StatusCode::SWITCHING_PROTOCOLS);
    /// assert_eq!(connection.received(), b"hello");
    /// ```
    pub fn accept(self, next: impl Protocol) -> Response {
        let next: Next = Box::new(next);
        let takeover = Takeover { protocol: self.protocol, next: Box::new(next) };
        Response::new(StatusCode::SWITCHING_PROTOCOLS).body(Body::Upgrade(takeover))
    }
}

impl<S: Service> Http<S> {
    /// Leaves to the next protocol what came behind the request. It is offered that in a callback of its own: HTTP has looked at
    /// these bytes, and who changes them where they lie must be the first to.
    #[cold]
    pub(super) fn hand_on(input: &Input<'_>) -> Flow {
        if input.is_empty() { Flow::Continue } else { Flow::Yield }
    }

    /// Answers an upgrade that this request did not ask for, or that comes too late.
    #[cold]
    pub(super) fn decline_upgrade(
        &mut self,
        conn: &mut Conn<'_>,
        exchange: Exchange,
        switching: Switching,
    ) -> Step {
        let exchange = Exchange { is_last_word: false, ..exchange };
        let error = too_late_to_switch();
        let worker = Rc::clone(&self.worker);
        let mut rest = Rest::Nothing;
        let now = conn.now();
        let refuse = |request: &Request<'_>| {
            worker.write(conn, &exchange, Some(request), &mut rest, |reply| reply.fail(error))
        };
        // Hooks would have seen to it that this is not reached.
        let replied = match &switching.request {
            Some(request) => refuse(request),
            None => Unread::new(&self.peer, now).show(refuse),
        };
        self.note_declined_upgrade(conn);
        let_go(conn, switching);
        self.settle(conn, exchange, replied, rest, false)
    }

    /// Answers 101 and lets the next protocol begin.
    #[cold]
    pub(super) fn hand_over(&mut self, conn: &mut Conn<'_>, switching: Switching) -> Step {
        let Switching { headers, takeover, request } = switching;
        let head_bytes = self.worker.switch_protocols(conn, &headers);
        self.note_upgrade(conn, head_bytes);
        let_go(conn, request);
        // In its place before its first callback: if that panics it still hears that the connection is lost.
        self.phase = Phase::Upgraded(takeover.next.downcast().expect("only `accept` makes them"));
        conn.clear_deadline();
        let Phase::Upgraded(next) = &mut self.phase else { unreachable!("set above") };
        match next.opened(conn) {
            Flow::Continue => Step::Next,
            flow => Step::Stop(flow),
        }
    }
}
