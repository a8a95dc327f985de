//! Echo on mio by hand, as its documentation asks: every event is followed by reads until `WouldBlock`.

use std::io::{self, Read, Write};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use peers::{Options, on_each_worker};

const LISTENER: Token = Token(usize::MAX);
const READ_BYTES: usize = 64 * 1024;

struct Conn {
    stream: TcpStream,
    /// What the socket has not taken yet. A connection that owes bytes is not read.
    owed: Vec<u8>,
}

fn main() {
    on_each_worker(&Options::from_args(), |listener| serve(TcpListener::from_std(listener)))
}

fn serve(mut listener: TcpListener) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut conns: Vec<Option<Conn>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        // A slot that ends in this batch is reused in the next: an event for it may be in this one.
        let mut ended = Vec::new();
        for event in &events {
            if event.token() == LISTENER {
                accept(&listener, &poll, &mut conns, &mut free)?;
                continue;
            }
            let index = event.token().0;
            let Some(conn) = conns[index].as_mut() else { continue };
            if echo(conn, &mut buffer).is_err() {
                // Closing takes it out of epoll.
                conns[index] = None;
                ended.push(index);
            }
        }
        free.append(&mut ended);
    }
}

fn accept(
    listener: &TcpListener,
    poll: &Poll,
    conns: &mut Vec<Option<Conn>>,
    free: &mut Vec<usize>,
) -> io::Result<()> {
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error),
        };
        let index = free.pop().unwrap_or_else(|| {
            conns.push(None);
            conns.len() - 1
        });
        poll.registry().register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)?;
        conns[index] = Some(Conn { stream, owed: Vec::new() });
    }
}

/// One event: an error means that the connection is over.
fn echo(conn: &mut Conn, buffer: &mut [u8]) -> io::Result<()> {
    if !conn.owed.is_empty() {
        let sent = send(&conn.stream, &conn.owed)?;
        conn.owed.drain(..sent);
        if !conn.owed.is_empty() {
            return Ok(());
        }
    }
    loop {
        let read = match conn.stream.read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let sent = send(&conn.stream, &buffer[..read])?;
        if sent < read {
            conn.owed.extend_from_slice(&buffer[sent..read]);
            return Ok(());
        }
    }
}

/// How many bytes the socket took; less than all means that it is full.
fn send(mut stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(more) => sent += more,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}
