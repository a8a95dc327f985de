//! The least a server can do: count blank lines, send that many constant answers.
//!
//! Everything a general server adds (parsing, routing, deadlines, limits) is measured against this. One thread,
//! edge-triggered epoll without write interest, one 64 KiB read buffer for all, one `recv` and one `send` per
//! readable event, no second `recv` after a short one. Answers carry Server, Date, Content-Type and
//! Content-Length as in TechEmpower's plaintext test; the Date is that of the start, because a floor asks no
//! clock. It serves bodiless requests only and never closes a connection of its own accord.
//!
//! Invariant: a connection that owes bytes (`owed > 0`) is watched for writability and not read.
//! Use: `floor --port 8080 [--cpu 0] [--json]`; with `--json` the answers are those of the JSON test.

use benches::civil::{http_date, unix_seconds};
use benches::scan::Tail;
use benches::sys::{EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP, Epoll, epoll_event};
use benches::{known_options, option, sys};
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

const LISTENER: u64 = u64::MAX;
const READ_BYTES: usize = 64 * 1024;
/// Answers sent at once: as many as 16 pipelined requests of 64 bytes that fill the read buffer ask for.
const ANSWERS: usize = 1024;
const WATCH: i32 = EPOLLIN | EPOLLRDHUP | EPOLLET;

struct Conn {
    stream: TcpStream,
    tail: Tail,
    /// Bytes of answers that the socket has not taken yet.
    owed: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = benches::arguments(include_str!("floor.rs"));
    known_options(&args, &["--port", "--cpu"], &["--json"])?;
    if args.iter().any(|arg| arg == "--cpu") {
        sys::pin_current_thread(&[option(&args, "--cpu", 0)?])?;
    }
    sys::raise_open_files(20_100)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, option(&args, "--port", 8080)?))?;
    sys::set_backlog(&listener, 4096)?;
    listener.set_nonblocking(true)?;
    let json = args.iter().any(|arg| arg == "--json");
    let (content_type, body) = if json {
        ("application/json", r#"{"message":"Hello, World!"}"#)
    } else {
        ("text/plain", "Hello, World!")
    };
    serve(&listener, content_type, body)?;
    Ok(())
}

fn serve(listener: &TcpListener, content_type: &str, body: &str) -> io::Result<()> {
    let answer = format!(
        "HTTP/1.1 200 OK\r\nServer: floor\r\nDate: {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}",
        http_date(unix_seconds()),
        body.len(),
    );
    let answers = Answers { one: answer.len(), bytes: answer.repeat(ANSWERS).into_bytes() };
    let epoll = Epoll::new()?;
    epoll.add(listener, EPOLLIN | EPOLLET, LISTENER)?;
    let mut conns: Vec<Option<Conn>> = Vec::new();
    let mut events = [epoll_event { events: 0, u64: 0 }; 512];
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let ready = epoll.wait(&mut events, -1)?;
        for event in &events[..ready] {
            if event.u64 == LISTENER {
                accept(listener, &epoll, &mut conns)?;
                continue;
            }
            let index = usize::try_from(event.u64).expect("an index of ours");
            let Some(conn) = conns[index].as_mut() else { continue };
            if serve_one(conn, index, &epoll, &answers, &mut buffer).is_err() {
                conns[index] = None;
            }
        }
    }
}

fn accept(listener: &TcpListener, epoll: &Epoll, conns: &mut Vec<Option<Conn>>) -> io::Result<()> {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error),
        };
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        // The descriptor number is the index: the kernel hands out the smallest free one.
        let index = usize::try_from(stream.as_raw_fd()).expect("not negative");
        epoll.add(&stream, WATCH, index as u64)?;
        if conns.len() <= index {
            conns.resize_with(index + 1, || None);
        }
        conns[index] = Some(Conn { stream, tail: Tail::default(), owed: 0 });
    }
}

/// One event: an error means that the connection is over.
fn serve_one(
    conn: &mut Conn,
    index: usize,
    epoll: &Epoll,
    answers: &Answers,
    buffer: &mut [u8],
) -> io::Result<()> {
    if conn.owed > 0 {
        if !answers.send(conn)? {
            return Ok(());
        }
        epoll.modify(&conn.stream, WATCH, index as u64)?;
    }
    loop {
        let read = match (&conn.stream).read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        conn.owed += conn.tail.count_ends(&buffer[..read]) * answers.one;
        if conn.owed > 0 && !answers.send(conn)? {
            return epoll.modify(&conn.stream, WATCH | EPOLLOUT, index as u64);
        }
        if read < buffer.len() {
            return Ok(());
        }
    }
}

/// The same answer many times over, so that any number of them is one slice.
struct Answers {
    one: usize,
    bytes: Vec<u8>,
}

impl Answers {
    /// Sends what `conn` owes; false when the socket is full.
    fn send(&self, conn: &mut Conn) -> io::Result<bool> {
        while conn.owed > 0 {
            // A whole number of answers was owed at first, so the rest tells where in an answer we stopped.
            let from = (self.one - conn.owed % self.one) % self.one;
            let until = self.bytes.len().min(from + conn.owed);
            match (&conn.stream).write(&self.bytes[from..until]) {
                Ok(sent) => conn.owed -= sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}
