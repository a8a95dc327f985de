//! What a worker that does not come to look is told, and how often.

use super::super::{Rooms, Settings};
use super::lock;
use crate::message::Request;
use crate::router::Router;
use crate::server::App;
use crate::websocket::{Frame, Handler, Message, WebSocket};

struct Member(Rooms);

impl Handler for Member {
    fn opened(&mut self, socket: &mut WebSocket<'_, '_>) {
        for room in ["a", "b"] {
            self.0.join(socket, room).expect("joined");
        }
    }

    fn message(&mut self, _socket: &mut WebSocket<'_, '_>, _message: Message<'_>) {}
}

#[test]
fn what_waits_for_a_worker_is_each_room_once_however_much_is_published() {
    let rooms = Rooms::new(Settings::default());
    let published = rooms.clone();
    let client = App::new(move |worker| {
        let rooms = rooms.on(worker);
        Router::new().websocket("/", move |_: &Request<'_>| Member(rooms.clone()))
    })
    .test();
    let mut connection = client.connect();
    connection.send(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
          Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    connection.response().expect("a 101");
    let runtime = published.0.runtime.get().expect("bound");
    let waiting = || lock(&runtime.workers[0].outbox).rooms.len();
    for _ in 0..2 {
        for _ in 0..1000 {
            published.publish("a", Frame::text("x"));
            published.publish("b", Frame::text("x"));
        }
        assert_eq!(waiting(), 2);
        client.run();
        assert_eq!((waiting(), connection.received().len()), (0, 6000));
    }
}
