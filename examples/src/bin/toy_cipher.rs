//! A layer around HTTP and around a protocol of one's own: both are as without, and on the wire is a cipher. A TOY: its key is in
//! the source. It shows where encryption, compression or a tunnel goes, not how to keep a secret.
//!
//! Run it with `cargo run --bin toy_cipher`. It serves HTTP on port 7100 and an echo on port 7101, both through the cipher; with
//! `curl http://127.0.0.1:7100/` you get nothing, and in time a closed connection, because curl does not greet. In a second terminal
//! `cargo run --bin toy_cipher get 127.0.0.1:7100 /` asks for a page through the cipher, and
//! `cargo run --bin toy_cipher say 127.0.0.1:7101 hello` gets its words back. Ctrl-C ends the server.
//!
//! The cipher itself is in `src/cipher.rs`: 180 lines, of which [`Layer`](netpoll_core::Layer) are 60.

#[path = "../cipher.rs"]
mod cipher;

use std::fmt::Display;
use std::io::{self, Read, Write};
use std::net::TcpStream;

use cipher::{Cipher, Codec, Record};
use netpoll_core::{Backend, Conn, Flow, Input, Layered, Protocol, Runtime};
use netpoll_http::{Http, Limits, Request, Router};

/// Knows nothing of the cipher.
struct Echo;

impl Protocol for Echo {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        conn.send_now(input.bytes());
        input.advance_all();
        Flow::Continue
    }
}

fn router() -> Router {
    Router::new()
        .get("/", |_: &Request| "Nobody on the way has read this.\n")
        .post("/echo", |req: &Request| req.body().to_vec())
}

/// What no other connection begins with: the time, which is good enough for a toy.
fn nonce() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}

fn serve(backend: Backend, http_addr: &str, echo_addr: &str) -> io::Result<()> {
    let server = Runtime::builder()
        .backend(backend)
        .stop_on_signals(true)
        .try_listen(http_addr, |_worker| {
            let mut http = Http::acceptor(router(), Limits::default())?;
            Ok(move |peer| Layered::new(Cipher::new(nonce()), http(peer)))
        })?
        .listen(echo_addr, |_worker| |_peer| Layered::new(Cipher::new(nonce()), Echo))?
        .start()?;
    for addr in server.local_addrs() {
        say(format_args!("toy_cipher listens on {addr}"));
    }
    say(server.wait()?);
    Ok(())
}

/// Says something through the cipher, and prints what comes back until the server ends.
fn talk(addr: &str, words: &[u8]) -> io::Result<()> {
    let (mut socket, mut codec) = (TcpStream::connect(addr)?, Codec::new(nonce()));
    let mut wire = Vec::new();
    codec.greet(&mut wire);
    words.chunks(16_384).for_each(|piece| codec.data(piece, &mut wire));
    codec.bye(&mut wire);
    socket.write_all(&wire)?;

    wire.clear();
    socket.read_to_end(&mut wire)?;
    let mut rest = &mut wire[..];
    while let Some((record, bytes)) = codec.open(rest).map_err(io::Error::other)? {
        if let Record::Data(length) = record {
            io::stdout().write_all(&rest[3..3 + length])?;
        }
        rest = &mut rest[bytes..];
    }
    if codec.is_over { Ok(()) } else { Err(io::Error::other("the connection was cut")) }
}

fn say(text: impl Display) {
    // Whoever closed our output does not want to read this, but may want the server.
    let _ = writeln!(io::stdout(), "{text}");
}

fn main() -> io::Result<()> {
    let (backend, arguments) = examples::words()?;
    let arguments: Vec<String> = arguments.collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["get", addr, path] => {
            talk(addr, format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes())
        }
        ["say", addr, words] => talk(addr, words.as_bytes()),
        [http, echo] => serve(backend, http, echo),
        _ => serve(backend, "127.0.0.1:7100", "127.0.0.1:7101"),
    }
}
