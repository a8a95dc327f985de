//! A gRPC service and its client, tonic's codec and generated code on netpoll: unary, streams both ways, deadlines.
//!
//! Start it with `cargo run --release -p async-examples --bin grpc serve 127.0.0.1:8091`, and speak to it in a second terminal:
//!
//! | `grpc`… | what you will see |
//! |---|---|
//! | `say 127.0.0.1:8091 tea hello` | `1`: how many lines have been said in the room `tea` |
//! | `say 127.0.0.1:8091 tea hello --after 500 --timeout 100` | an error: the deadline has passed (`grpc-timeout`, both ends keep it) |
//! | `listen 127.0.0.1:8091 tea` | the lines that others say from then on |
//! | `shout 127.0.0.1:8091 hot and sweet` | `HOT`, `AND`, `SWEET` |
//!
//! Any other client will do: `proto/rooms.proto` is the service. Ctrl-C drains the server. Tonic's own server and channel want a tokio runtime; here hyper
//! carries the frames, and `deadline.rs` does what that server does about `grpc-timeout`.

mod client;
mod deadline;
#[rustfmt::skip]
#[allow(missing_docs, clippy::all, reason = "it is generated")]
mod rooms;
mod server;

use std::time::Duration;

use netpoll_core::{Backend, Runtime};

const HELP: &str = "grpc serve ADDRESS | say ADDRESS ROOM TEXT [--after MS] [--timeout MS] | listen ADDRESS ROOM | \
                    shout ADDRESS WORD..";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    use lexopt::prelude::*;

    let (mut words, mut after, mut timeout, mut backend) = (Vec::new(), 0, None, Backend::Auto);
    let mut parser = lexopt::Parser::from_env();
    while let Some(word) = parser.next()? {
        match word {
            Long("after") => after = parser.value()?.parse()?,
            Long("backend") => backend = parser.value()?.parse()?,
            Long("timeout") => timeout = Some(Duration::from_millis(parser.value()?.parse()?)),
            Value(word) => words.push(word.string()?),
            _ => return Err(HELP.into()),
        }
    }
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", addr] => server::serve(addr, backend),
        ["say", addr, room, text] => {
            let line = rooms::Line { room: room.to_owned(), text: text.to_owned(), after_ms: after };
            Runtime::block_on(client::say(addr.to_owned(), line, timeout))?
        }
        ["listen", addr, room] => {
            Runtime::block_on(client::listen(addr.to_owned(), room.to_owned(), timeout))?
        }
        ["shout", addr, ..] => {
            let (addr, lines) = (addr.to_owned(), words.drain(2..).collect());
            Runtime::block_on(client::shout(addr, lines, timeout))?
        }
        _ => Err(HELP.into()),
    }
}
