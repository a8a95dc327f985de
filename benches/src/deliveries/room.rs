//! A room of netpoll-http.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use benches::runner::Failure;
use netpoll_core::{Backend, Commands, ConnId};
use netpoll_http::websocket::{Closed, Frame, Handler, Message, Opening, Settings, WebSocket};
use netpoll_http::{Request, Router, Server};

type Members = Rc<RefCell<Vec<ConnId>>>;

struct Member {
    members: Members,
    id: Option<ConnId>,
}

impl Handler for Member {
    fn opened(&mut self, socket: &mut WebSocket<'_, '_>) {
        self.id = Some(socket.id());
        self.members.borrow_mut().push(socket.id());
    }

    fn message(&mut self, socket: &mut WebSocket<'_, '_>, message: Message<'_>) {
        let Message::Text(text) = message else { return };
        let frame = Frame::text(text);
        for member in self.members.borrow().iter() {
            socket.commands().tell(*member, frame.clone());
        }
    }

    fn closed(&mut self, _how: Closed, _commands: &mut Commands) {
        self.members.borrow_mut().retain(|member| Some(*member) != self.id);
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
    server.serve(move |_worker| {
        let members = Members::default();
        Router::new().get("/room", move |req: &Request| {
            let member = Member { members: Rc::clone(&members), id: None };
            Opening::of(req)?.settings(settings).accept(member)
        })
    })?;
    Ok(())
}
