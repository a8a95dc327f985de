//! A chat room in the browser: whoever says something is heard by all, on whatever worker they are.
//!
//! Run it with `cargo run --bin websocket_chat` (or with an address behind it) and open `http://127.0.0.1:8083/` in two windows. Who leaves says so; who does
//! not read is cut; Ctrl-C tells everybody to come back, and the page does.
//!
//! A message is framed once. To each worker goes one letter, and what leaves there is the same memory for all members.

use std::cell::RefCell;
use std::fmt::Display;
use std::io::{self, Write};

use netpoll_core::{Commands, ConnId, Handle};
use netpoll_http::websocket::{CloseCode, Closed, Frame, Handler, Message, Opening, Settings, WebSocket};
use netpoll_http::{Error, Request, Response, Router, Server, StatusCode};

const PAGE: &str = include_str!("websocket_chat.html");
/// What a member says is for reading.
const MESSAGE_BYTES_MAX: u32 = 4096;
const NAME_BYTES_MAX: usize = 40;

/// The members on this worker: nothing of it is shared, so there is no lock.
#[derive(Default)]
struct Room(RefCell<Vec<ConnId>>);

/// One letter for each worker, this one included, and from there one frame for all of its members.
fn tell_all(handle: &Handle, text: &str) {
    let frame = Frame::text(text);
    for worker in 0..handle.workers() {
        let frame = frame.clone();
        handle.run_on(worker, move |local| {
            for member in local.state::<Room>().0.borrow().iter() {
                local.commands().tell(*member, frame.clone());
            }
        });
    }
}

struct Member {
    name: String,
    handle: Handle,
    id: Option<ConnId>,
}

impl Handler for Member {
    fn opened(&mut self, socket: &mut WebSocket<'_, '_>) {
        self.id = Some(socket.id());
        socket.conn().state::<Room>().0.borrow_mut().push(socket.id());
        tell_all(&self.handle, &format!("{} has come", self.name));
    }

    fn message(&mut self, socket: &mut WebSocket<'_, '_>, message: Message<'_>) {
        match message {
            Message::Text(text) => tell_all(&self.handle, &format!("{}: {text}", self.name)),
            Message::Binary(_) => socket.close(CloseCode::UNSUPPORTED, "words only"),
        }
    }

    fn closed(&mut self, _how: Closed, commands: &mut Commands) {
        if let Some(room) = commands.state::<Room>() {
            room.0.borrow_mut().retain(|member| Some(*member) != self.id);
        }
        tell_all(&self.handle, &format!("{} has left", self.name));
    }
}

fn join(req: &Request, handle: &Handle) -> Result<Response, Error> {
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
    opening.settings(settings).accept(Member { name, handle: handle.clone(), id: None })
}

fn say(text: impl Display) {
    // Whoever closed our output (`| head -1`) does not want to read this, but may want the server.
    let _ = writeln!(io::stdout(), "{text}");
}

fn main() -> io::Result<()> {
    let (backend, mut words) = examples::words()?;
    let server = Server::bind(words.next().unwrap_or("127.0.0.1:8083".to_owned()))?
        .runtime(move |builder| builder.backend(backend).stop_on_signals(true))
        .state(|_worker| Room::default())
        .app(|worker| {
            let handle = worker.handle().clone();
            Router::new()
                .get("/", |_: &Request| Response::html(PAGE))
                .get("/room", move |req: &Request| join(req, &handle))
        })
        .start()?;
    for addr in server.local_addrs() {
        say(format_args!("websocket_chat at http://{addr}/"));
    }
    say(server.wait()?);
    Ok(())
}
