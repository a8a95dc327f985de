//! A chat room in the browser: whoever says something is heard by all, on whatever worker they are.
//!
//! Run it with `cargo run --bin websocket_chat` (or with an address behind it) and open `http://127.0.0.1:8083/` in two windows. Who leaves
//! says so; Ctrl-C tells everybody to come back, and the page does.
//!
//! A message is framed once, goes to each worker in one letter, and leaves there as the same memory for all members. The room remembers the last ones: newcomers get
//! some, and who reads slowly goes on from there, or hears how much it has missed.

use std::fmt::Display;
use std::io::{self, Write};

use netpoll_core::{Commands, Message as Told};
use netpoll_http::rooms::{self, Gap, Rooms};
use netpoll_http::websocket::{CloseCode, Closed, Frame, Handler, Message, Opening, Settings, WebSocket};
use netpoll_http::{Error, Request, Response, Router, Server, StatusCode};

const PAGE: &str = include_str!("websocket_chat.html");
/// What a member says is for reading.
const MESSAGE_BYTES_MAX: u32 = 4096;
const NAME_BYTES_MAX: usize = 40;
const ROOM: &str = "lobby";
/// What a newcomer gets of what was said before.
const OLD_MESSAGES: usize = 10;

struct Member {
    name: String,
    rooms: Rooms,
}

impl Member {
    fn say(&self, text: &str) {
        self.rooms.publish(ROOM, Frame::text(text));
    }
}

impl Handler for Member {
    fn opened(&mut self, socket: &mut WebSocket<'_, '_>) {
        match self.rooms.join_with_last(socket, ROOM, OLD_MESSAGES) {
            Ok(_position) => self.say(&format!("{} has come", self.name)),
            Err(refused) => socket.close(CloseCode::TRY_AGAIN, &refused.to_string()),
        }
    }

    fn message(&mut self, socket: &mut WebSocket<'_, '_>, message: Message<'_>) {
        match message {
            Message::Text(text) => self.say(&format!("{}: {text}", self.name)),
            Message::Binary(_) => socket.close(CloseCode::UNSUPPORTED, "words only"),
        }
    }

    fn told(&mut self, socket: &mut WebSocket<'_, '_>, value: Told) {
        if let Some(gap) = value.downcast_ref::<Gap>() {
            socket.text(&format!("({} messages are missing here)", gap.messages()));
        }
    }

    fn closed(&mut self, _how: Closed, _commands: &mut Commands) {
        self.say(&format!("{} has left", self.name));
    }
}

fn join(req: &Request, rooms: &Rooms) -> Result<Response, Error> {
    let opening = Opening::of(req)?;
    // A page of somebody else would speak in the name of its visitor. Who says no origin is no browser.
    let host = req.host().unwrap_or_default();
    if opening.origin().is_some_and(|origin| origin != format!("http://{host}").as_bytes()) {
        return Err((StatusCode::FORBIDDEN, "this room is for its own page").into());
    }
    let name: String = req.query("name")?;
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(Error::bad_request(format!("a name has 1 to {NAME_BYTES_MAX} bytes")));
    }
    let settings = Settings { message_bytes_max: MESSAGE_BYTES_MAX, ..Settings::default() };
    opening.settings(settings).accept(Member { name, rooms: rooms.clone() })
}

fn say(text: impl Display) {
    // Whoever closed our output (`| head -1`) does not want to read this, but may want the server.
    let _ = writeln!(io::stdout(), "{text}");
}

fn main() -> io::Result<()> {
    let (backend, mut words) = examples::words()?;
    let rooms = Rooms::new(rooms::Settings::default());
    let server = Server::bind(words.next().unwrap_or("127.0.0.1:8083".to_owned()))?
        .runtime(move |builder| builder.backend(backend).stop_on_signals(true))
        .app(move |worker| {
            let rooms = rooms.on(worker);
            Router::new()
                .get("/", |_: &Request| Response::html(PAGE))
                .get("/room", move |req: &Request| join(req, &rooms))
        })
        .start()?;
    for addr in server.local_addrs() {
        say(format_args!("websocket_chat at http://{addr}/"));
    }
    say(server.wait()?);
    Ok(())
}
