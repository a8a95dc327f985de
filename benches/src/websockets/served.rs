//! A server that echoes, of netpoll-http.

use std::error::Error;

use netpoll_http::websocket::{Handler, Message, Opening, Settings, WebSocket};
use netpoll_http::{Request, Router, Server};

struct Echo;

impl Handler for Echo {
    fn message(&mut self, socket: &mut WebSocket<'_, '_>, message: Message<'_>) {
        match message {
            Message::Text(text) => socket.text(text),
            Message::Binary(bytes) => socket.binary(bytes),
        }
    }
}

pub fn router(compression: bool) -> Router {
    let settings = Settings { compression, ..Settings::default() };
    Router::new().get("/echo", move |req: &Request| Opening::of(req)?.settings(settings).accept(Echo))
}

/// Serves until a signal.
///
/// # Errors
/// The port is taken.
pub fn serve(port: u16) -> Result<(), Box<dyn Error>> {
    Server::bind(("127.0.0.1", port))?.workers(1).serve(|_worker| router(true))?;
    Ok(())
}
