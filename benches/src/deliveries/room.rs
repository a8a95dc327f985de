//! A room of netpoll-http.

use std::time::Duration;

use benches::runner::Failure;
use netpoll_core::Backend;
use netpoll_http::rooms::{self, Rooms};
use netpoll_http::websocket::{Frame, Handler, Message, Opening, Settings, WebSocket};
use netpoll_http::{Request, Router, Server};

const ROOM: &str = "room";

struct Member(Rooms);

impl Handler for Member {
    fn opened(&mut self, socket: &mut WebSocket<'_, '_>) {
        // Nobody is refused: there is one room.
        let joined = self.0.join(socket, ROOM);
        debug_assert!(joined.is_ok());
    }

    fn message(&mut self, _socket: &mut WebSocket<'_, '_>, message: Message<'_>) {
        if let Message::Text(text) = message {
            self.0.publish(ROOM, Frame::text(text));
        }
    }
}

/// Serves until it is killed.
///
/// # Errors
/// The port is taken.
pub fn serve(port: u16, backend: Backend) -> Result<(), Failure> {
    // Nobody is asked whether he is there, in a crowd that only listens.
    let settings = Settings { ping_after: Duration::ZERO, ..Settings::default() };
    let server =
        Server::bind(("127.0.0.1", port))?.workers(1).runtime(move |builder| builder.backend(backend));
    let rooms = Rooms::new(rooms::Settings::default());
    server.serve(move |worker| {
        let rooms = rooms.on(worker);
        Router::new().get("/room", move |req: &Request| {
            Opening::of(req)?.settings(settings).accept(Member(rooms.clone()))
        })
    })?;
    Ok(())
}
