//! The recipe of docs/COOKBOOK.md: a chat in all processes.

use std::error::Error;
use std::net::SocketAddr;

use netpoll_core::Message as Told;
use netpoll_http::rooms::bus::Bus;
use netpoll_http::rooms::{Gap, Rooms, Settings};
use netpoll_http::websocket::{Frame, Handler, Message, WebSocket};
use netpoll_http::{Request, Router, Running, Server};

struct Member(Rooms);

impl Handler for Member {
    fn opened(&mut self, socket: &mut WebSocket<'_, '_>) {
        match self.0.join(socket, "lobby") {
            Ok(_) => socket.text("here"),
            Err(refused) => socket.text(&refused.to_string()),
        }
    }

    fn message(&mut self, _socket: &mut WebSocket<'_, '_>, message: Message<'_>) {
        if let Message::Text(text) = message {
            self.0.publish("lobby", Frame::text(text)); // here at once, elsewhere in a moment
        }
    }

    fn told(&mut self, socket: &mut WebSocket<'_, '_>, value: Told) {
        if let Ok(gap) = value.downcast::<Gap>() {
            socket.text(&format!("missing {}", gap.messages())); // load them from where they are kept
        }
    }
}

pub fn start(addr: SocketAddr, redis: &str) -> Result<Running, Box<dyn Error>> {
    let rooms = Rooms::new(Settings::default()).bus(Bus::redis(redis)?.prefix("chat"));
    let app = move |worker: &_| {
        let rooms = rooms.on(worker);
        let figures = rooms.clone();
        Router::new()
            .websocket("/", move |_: &Request| Member(rooms.clone()))
            .get("/bus", move |_: &Request| format!("{:#?}\n", figures.bus_stats()))
    };
    Ok(Server::bind(addr)?.app(app).start()?)
}
