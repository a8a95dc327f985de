//! Tasks of a server: one for each WebSocket that a route opens.
//!
//! Invariant: a task begins when the handshake is done, and what it has failed to say is said for it.

use std::io;
use std::rc::Rc;

use netpoll_core::task;

use super::{Attached, Shared, Socket};
use crate::message::{Error, Request, Response};
use crate::router::Router;
use crate::websocket::{Closed, Handler, Message, Opening, WebSocket};

impl Opening<'_> {
    /// Accepts, for a task: `serve` is called when the handshake is done, and what it returns is a task of this worker. A drain waits for it.
    ///
    /// If it returns an error, or panics, before either side has said goodbye, the peer is told so (1011).
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub fn accept_task<F>(self, serve: impl FnOnce(Socket) -> F + 'static) -> Result<Response, Error>
    where
        F: Future<Output = io::Result<()>> + 'static,
    {
        let shared = Rc::<Shared>::default();
        let protocol = self.chosen();
        let starting = Starting { attached: Attached(Rc::clone(&shared)), protocol, serve: Some(serve) };
        self.accept(starting)
    }
}

/// Starts the task when the connection is open.
struct Starting<S> {
    attached: Attached,
    protocol: Option<String>,
    serve: Option<S>,
}

impl<S, F> Handler for Starting<S>
where
    S: FnOnce(Socket) -> F + 'static,
    F: Future<Output = io::Result<()>> + 'static,
{
    fn opened(&mut self, socket: &mut WebSocket<'_, '_>) {
        self.attached.agreed(self.protocol.take().as_deref());
        self.attached.opened(socket);
        let shared = Rc::clone(&self.attached.0);
        if let Some(serve) = self.serve.take() {
            let serving = serve(Socket::of(Rc::clone(&shared)));
            task::spawn_local(run(shared, serving)).detach();
        }
    }

    fn message(&mut self, socket: &mut WebSocket<'_, '_>, message: Message<'_>) {
        self.attached.message(socket, message);
    }

    fn woken(&mut self, socket: &mut WebSocket<'_, '_>) {
        self.attached.woken(socket);
    }

    fn drained(&mut self, socket: &mut WebSocket<'_, '_>) {
        self.attached.drained(socket);
    }

    fn goodbye(&mut self) {
        self.attached.goodbye();
    }

    fn closed(&mut self, how: Closed, commands: &mut netpoll_core::Commands) {
        self.attached.closed(how, commands);
    }
}

/// A task that has not come to its end.
struct Unfinished(Option<Rc<Shared>>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            shared.left_by_failure();
        }
    }
}

async fn run(shared: Rc<Shared>, serving: impl Future<Output = io::Result<()>>) {
    // Dropped behind the socket, whose goodbye it changes.
    let mut unfinished = Unfinished(Some(shared));
    if serving.await.is_ok() {
        unfinished.0 = None;
    }
}

impl Router {
    /// Adds a route that opens a WebSocket, with a task for each, and with the default [`Settings`](crate::websocket::Settings). A request that is no opening handshake is answered by what is
    /// wrong with it. To decline, to choose a subprotocol or to set limits take the [`Opening`] in a handler of [`get`](Self::get), and [`Opening::accept_task`].
    ///
    /// Any page may open one in the name of its visitor: see [`Opening::origin`].
    ///
    /// ```
    /// use netpoll_http::websocket::Socket;
    /// use netpoll_http::{App, Router};
    ///
    /// let app = App::new(|_worker| {
    ///     Router::new().websocket_task("/echo", async |mut socket: Socket| {
    ///         while let Some(message) = socket.recv().await? {
    ///             socket.send(message).await?;
    ///         }
    ///         Ok(())
    ///     })
    /// });
    ///
    /// let mut connection = app.test().connect();
    /// connection.send(
    ///     b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    ///       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    /// );
    /// connection.response().expect("a 101");
    /// connection.send(b"\x81\x82\0\0\0\0hi"); // a text, masked with zeros
    /// assert_eq!(connection.received(), b"\x81\x02hi");
    /// ```
    ///
    /// A task costs its future and some 300 bytes beside a handler with callbacks, and each message a copy.
    ///
    /// # Panics
    /// As [`on`](Self::on).
    #[must_use]
    #[track_caller]
    pub fn websocket_task(
        self,
        pattern: &str,
        serve: impl AsyncFn(Socket) -> io::Result<()> + 'static,
    ) -> Self {
        let serve = Rc::new(serve);
        self.get(pattern, move |req: &Request<'_>| {
            let serve = Rc::clone(&serve);
            Opening::of(req)?.accept_task(async move |socket| serve(socket).await)
        })
    }
}
