//! A server that speaks HTTP/2 as well.

use super::{App, IntoService, Server, Worker};
use crate::h2::Http2;

impl Server {
    /// Speaks HTTP/2 with clients that begin with it, on the same port as HTTP/1.1: those that know beforehand (`h2c`, prior knowledge),
    /// and behind [TLS](Self::tls) those with whom it was agreed on (ALPN `h2`, which is offered then, unless the settings of TLS offer
    /// something of their own). Off by default. Clients of [`bind_reserved`](Self::bind_reserved) are served so as well, those of
    /// [`admin`](Self::admin) are not.
    ///
    /// The service, its hooks and its limits are the same, and [`Request::version`](crate::Request::version) tells them apart. What is
    /// different: requests of one connection do not wait for each other; `Connection` and what belongs to it is neither sent nor taken;
    /// nothing can be [upgraded](crate::Request::upgrade), WebSocket included; a client that waits for `100 Continue` is not told to go on,
    /// and sends its body when it has waited enough; a client that ends its direction has left. Figures of [`Completed`](crate::Completed)
    /// are those of the same request in HTTP/1.1, without frames.
    ///
    /// A request costs 4 us of CPU time more than in HTTP/1.1, and an idle connection 20 KiB of memory where it was 250 bytes: it is for
    /// clients that speak nothing else, or have many requests at a time to send over a long way.
    ///
    /// ```no_run
    /// use netpoll_http::{Http2, Request, Router, Server};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// Server::bind("127.0.0.1:8080")?
    ///     .http2(Http2::default())
    ///     .serve(|_worker| Router::new().get("/", |req: &Request| format!("{:?}", req.version())))?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn http2(mut self, settings: Http2) -> Self {
        self.settings.http2 = Some(settings);
        self
    }
}

impl<F, S> App<F>
where
    F: Fn(&Worker) -> S + Send + Sync + 'static,
    S: IntoService,
{
    /// Speaks HTTP/2 as well, see [`Server::http2`].
    #[must_use]
    pub fn http2(mut self, settings: Http2) -> Self {
        self.settings().http2 = Some(settings);
        self
    }
}
