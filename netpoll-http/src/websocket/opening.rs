//! The opening handshake, between the request and the connection.

use super::connection::Connection;
use super::{Handler, Settings};
use crate::message::{Error, Request, Response, Upgrade};
use crate::router::Router;
use crate::ws;
use http::header::{SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderName, HeaderValue, StatusCode};

/// A request that opens a WebSocket as RFC 6455 asks for, and that nobody has answered yet. Dropping it declines: whatever else the handler answers is an ordinary answer.
///
/// Which answer that was a browser does not tell its page. Whom a page is to tell why, accept, and [close](super::WebSocket::close) it in
/// [`opened`](super::Handler::opened): it gets the code and the reason.
///
/// ```
/// use netpoll_http::websocket::{Handler, Message, Opening, Settings, WebSocket};
/// use netpoll_http::{App, Error, Request, Response, Router, StatusCode};
///
/// struct Chat(String);
/// impl Handler for Chat {
///     fn message(&mut self, socket: &mut WebSocket<'_, '_>, _message: Message<'_>) {
///         socket.text(&self.0);
///     }
/// }
///
/// fn chat(req: &Request) -> Result<Response, Error> {
///     let mut opening = Opening::of(req)?;
///     if opening.origin() != Some(b"https://example.org") {
///         return Err(StatusCode::FORBIDDEN.into()); // a page of somebody else, in the name of its visitor
///     }
///     opening.choose(&["chat.v2", "chat.v1"]);
///     let room = req.param::<String>("room")?;
///     opening.settings(Settings { message_bytes_max: 64 * 1024, ..Settings::default() }).accept(Chat(room))
/// }
///
/// let client = App::new(|_worker| Router::new().get("/rooms/{room}", chat)).test();
/// assert_eq!(client.get("/rooms/lobby").status, StatusCode::UPGRADE_REQUIRED);
/// ```
#[derive(Debug)]
pub struct Opening<'r> {
    upgrade: Upgrade,
    opening: ws::Opening<'r>,
    protocol: Option<&'r str>,
    settings: Settings,
}

impl<'r> Opening<'r> {
    /// Judges a request.
    ///
    /// # Errors
    /// What is missing or wrong: 426 for whoever does not speak WebSocket, or another version of it, 400 for a handshake that is none, 405 for another method than
    /// GET. Returned from a handler it is the answer.
    pub fn of(req: &'r Request<'_>) -> Result<Self, Error> {
        let line = ws::RequestLine {
            method: req.method_str(),
            minor_version: u8::from(req.version() != http::Version::HTTP_10),
            has_body: !req.body().is_empty() || req.header("transfer-encoding").is_some(),
        };
        let opening = ws::Opening::read(line, req.headers()).map_err(refused)?;
        let upgrade = req.upgrade("websocket").ok_or_else(|| {
            Error::bad_request(
                "A WebSocket is opened by a request that does not ask for the connection to be closed.",
            )
        })?;
        Ok(Self { upgrade, opening, protocol: None, settings: Settings::default() })
    }

    /// The origin of the page that has opened it, as it was sent. Browsers always say it, and say the truth; others may say anything. Compare it with whom the program
    /// lets in if it knows its users by cookies: any page in the world may open a WebSocket to it, and the visitor's cookies come along. Behind a proxy that ends TLS it begins with
    /// `https` though `Request::tls` says nothing.
    #[must_use]
    pub fn origin(&self) -> Option<&'r [u8]> {
        self.opening.origin()
    }

    /// The subprotocols that the client speaks, the one that it likes best first.
    #[must_use]
    pub fn protocols(&self) -> &[&'r str] {
        self.opening.protocols()
    }

    /// Agrees on the first of the client's subprotocols that is one of these, and returns it. Without one in common none is agreed on, and the client decides
    /// what that means.
    pub fn choose(&mut self, spoken: &[&str]) -> Option<&'r str> {
        self.protocol = self.opening.choose(spoken);
        self.protocol
    }

    /// The subprotocol that was agreed on, kept.
    pub(super) fn chosen(&self) -> Option<String> {
        self.protocol.map(str::to_owned)
    }

    /// With these limits and times in place of the defaults.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Accepts: the answer is 101, and behind it the connection is the handler's. Headers can be added to it.
    ///
    /// On a connection that is to be closed, for example because the server is draining, the answer is 503, and the handler is dropped.
    ///
    /// # Errors
    /// None of a handshake that was accepted; it is that of [`Response::header`].
    pub fn accept(self, handler: impl Handler) -> Result<Response, Error> {
        let answer = self.opening.answer(self.protocol, self.settings.compression);
        let connection = Connection::new(ws::Role::Server, handler, &self.settings, answer.deflate);
        let mut response =
            self.upgrade.accept(connection).header(SEC_WEBSOCKET_ACCEPT, answer.accept.as_str())?;
        if let Some(protocol) = answer.protocol {
            response = response.header(SEC_WEBSOCKET_PROTOCOL, protocol)?;
        }
        match answer.deflate {
            Some(deflate) => response.header(SEC_WEBSOCKET_EXTENSIONS, deflate.to_string()),
            None => Ok(response),
        }
    }
}

#[cold]
fn refused(refusal: ws::Refusal) -> Error {
    // All of them are statuses.
    let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST);
    refusal.fields().iter().fold(Error::new(status, refusal.reason()), |error, (name, value)| {
        match HeaderName::from_bytes(name.as_bytes()) {
            Ok(name) => error.with_header(name, HeaderValue::from_static(value)),
            Err(_) => error,
        }
    })
}

impl Router {
    /// Adds a route that opens a WebSocket, with a handler for each, and with the default [`Settings`]. A request that is no opening handshake is answered by what is
    /// wrong with it. `open` sees who asks and where; to decline, to choose a subprotocol or to set limits take the [`Opening`] in a handler of [`get`](Self::get).
    ///
    /// Any page may open one in the name of its visitor: see [`Opening::origin`].
    ///
    /// # Panics
    /// As [`on`](Self::on).
    #[must_use]
    #[track_caller]
    pub fn websocket<H: Handler>(self, pattern: &str, open: impl Fn(&Request<'_>) -> H + 'static) -> Self {
        self.get(pattern, move |req: &Request<'_>| Opening::of(req)?.accept(open(req)))
    }
}
