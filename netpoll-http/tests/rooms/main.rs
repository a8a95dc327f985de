//! What rooms of WebSockets promise their members, and those who are none.

mod back;
mod bus;
#[path = "../../../netpoll-core/tests/it/chance.rs"]
mod chance;
mod limits;
mod members;
mod slow;
mod storms;
mod workers;
#[path = "../it/ws_bytes.rs"]
mod ws_bytes;

use std::time::Duration;

use netpoll_core::Message as Told;
use netpoll_core::sim::Options;
use netpoll_http::rooms::{Gap, Refused, Resumed, Rooms, Settings};
use netpoll_http::websocket::{self, CloseCode, Frame, Handler, Message, Opening, WebSocket};
use netpoll_http::{App, Request, Router, StatusCode, TestClient, TestConnection};

use ws_bytes::{HANDSHAKE, frames, text};

/// Does what its peer says: `join ROOM`, `last ROOM COUNT`, `resume ROOM POSITION`, `leave ROOM`, `say ROOM TEXT`, `I am WHO DEVICE`, and says what came of it.
struct Member(Rooms);

impl Member {
    fn answer(&self, socket: &mut WebSocket<'_, '_>, words: &[&str]) -> Result<String, Refused> {
        let rooms = &self.0;
        Ok(match words {
            ["join", room] => format!("at {}", rooms.join(socket, room)?.sequence),
            ["last", room, count] => {
                let at = rooms.join_with_last(socket, room, count.parse().expect("a number"))?;
                format!("at {}", at.sequence)
            }
            ["resume", room, at] => resumed(&rooms.resume(socket, room, at.parse().expect("a position"))?),
            ["leave", room] => format!("left {}", rooms.leave(socket, room)),
            ["say", room, text] => {
                let at = rooms.publish(room, Frame::text(text)).map(|at| at.sequence);
                format!("said {at:?}")
            }
            ["I", "am", who, device] => {
                let back = rooms.session(socket, who, device)?;
                let all = back.iter().map(|back| format!(" {}: {}", back.room, resumed(&back.resumed)));
                format!("back:{}", all.collect::<String>())
            }
            ["I", "am", who, device, "trouble"] => {
                rooms.session_from(socket, who, device, |_| panic!("as told"))?;
                String::new()
            }
            ["I", "am", who, device, at] => {
                let at = at.parse().ok();
                let back = rooms.session_from(socket, who, device, |_| at)?;
                let all = back.iter().map(|back| format!(" {}: {}", back.room, resumed(&back.resumed)));
                format!("back:{}", all.collect::<String>())
            }
            ["bye", code] => {
                let code = CloseCode::new(code.parse().expect("a number")).expect("a code");
                socket.close(code, "");
                String::new()
            }
            other => panic!("{other:?}"),
        })
    }
}

fn resumed(resumed: &Resumed) -> String {
    match resumed {
        Resumed::All { messages } => format!("all {messages}"),
        Resumed::Gap(gap) => format!("gap {}..{}", gap.after.sequence, gap.until.sequence),
        Resumed::Anew(at) => format!("anew {}", at.sequence),
        other => panic!("{other:?}"),
    }
}

impl Handler for Member {
    fn message(&mut self, socket: &mut WebSocket<'_, '_>, message: Message<'_>) {
        let Message::Text(text) = message else { return };
        let words: Vec<_> = text.split(' ').collect();
        let answer = self.answer(socket, &words).unwrap_or_else(|refused| refused.to_string());
        if !answer.starts_with("said") {
            socket.text(&format!("> {answer}"));
        }
    }

    fn told(&mut self, socket: &mut WebSocket<'_, '_>, value: Told) {
        let gap = value.downcast::<Gap>().expect("a gap");
        socket.text(&format!("> gap {}..{}", gap.after.sequence, gap.until.sequence));
    }
}

fn world(rooms: &Rooms, options: Options) -> TestClient {
    let rooms = rooms.clone();
    App::new(move |worker| {
        let rooms = rooms.on(worker);
        // Who is not asked whether it is there need not answer.
        let settings =
            websocket::Settings { ping_after: Duration::ZERO, compression: true, ..Default::default() };
        Router::new()
            .get("/", move |req: &Request| Opening::of(req)?.settings(settings).accept(Member(rooms.clone())))
            .get("/plain", |_: &Request| "plain")
    })
    .test_with(options)
}

/// One worker, and rooms with these settings.
fn site(settings: Settings) -> (Rooms, TestClient) {
    let rooms = Rooms::new(settings);
    let client = world(&rooms, Options::default());
    (rooms, client)
}

fn opened(mut connection: TestConnection) -> TestConnection {
    connection.send(format!("{HANDSHAKE}\r\n").as_bytes());
    assert_eq!(connection.response().expect("a 101").status, StatusCode::SWITCHING_PROTOCOLS);
    connection
}

fn open(client: &TestClient) -> TestConnection {
    opened(client.connect())
}

fn says(connection: &mut TestConnection, words: &str) -> String {
    connection.send(&text(words));
    heard(connection).join(", ")
}

/// Whoever is in this room, from now on.
fn member(client: &TestClient, room: &str) -> TestConnection {
    let mut connection = open(client);
    says(&mut connection, &format!("join {room}"));
    connection
}

/// The texts that have come.
fn heard(connection: &mut TestConnection) -> Vec<String> {
    words(&connection.received())
}

/// Those of whole frames.
fn words(bytes: &[u8]) -> Vec<String> {
    let payload = |(first, payload): (u8, Vec<u8>)| match first {
        0x81 => String::from_utf8(payload).expect("a text"),
        0x88 => format!("close {}", u16::from_be_bytes([payload[0], payload[1]])),
        _ => panic!("{first:x}"),
    };
    frames(bytes).into_iter().map(payload).collect()
}

fn numbers(of: impl IntoIterator<Item = usize>) -> Vec<String> {
    of.into_iter().map(|number| number.to_string()).collect()
}

fn publish(rooms: &Rooms, room: &str, of: impl IntoIterator<Item = usize>) {
    for number in of {
        rooms.publish(room, Frame::text(number.to_string())).expect("published");
    }
}

/// Longer than a socket may have queued, if it is told several.
fn long(number: usize) -> String {
    format!("{number:09}").repeat(400)
}

fn publish_long(rooms: &Rooms, room: &str, of: impl IntoIterator<Item = usize>) {
    for number in of {
        rooms.publish(room, Frame::text(long(number))).expect("published");
    }
}

/// The numbers of long messages, and what else came.
fn shortened(all: Vec<String>) -> Vec<String> {
    let short = |text: String| match text.len() {
        3600 => text[..9].trim_start_matches('0').to_owned(),
        _ => text,
    };
    all.into_iter().map(short).collect()
}
