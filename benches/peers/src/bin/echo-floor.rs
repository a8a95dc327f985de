//! The least an echo server can do: one `recv` and one `send` for each readable event.
//!
//! Edge-triggered epoll without write interest, one 64 KiB read buffer for all connections of a worker, no second
//! `recv` after a short one. Only a connection whose socket was full has a buffer and write interest.
//!
//! Invariant: a connection that owes bytes is watched for writability and not read.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};

use peers::{Options, on_each_worker};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

const LISTENER: u64 = u64::MAX;
const READ_BYTES: usize = 64 * 1024;
const WATCH: EventFlags = EventFlags::IN.union(EventFlags::RDHUP).union(EventFlags::ET);

struct Conn {
    stream: TcpStream,
    /// What the socket has not taken yet.
    owed: Vec<u8>,
}

fn main() {
    on_each_worker(&Options::from_args(), |listener| serve(&listener))
}

fn serve(listener: &TcpListener) -> io::Result<()> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, listener, EventData::new_u64(LISTENER), EventFlags::IN | EventFlags::ET)?;
    let mut conns: Vec<Option<Conn>> = Vec::new();
    let mut events: Vec<Event> = Vec::with_capacity(512);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        events.clear();
        match epoll::wait(&epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let data = event.data;
            if data.u64() == LISTENER {
                accept(listener, &epoll, &mut conns)?;
                continue;
            }
            let index = usize::try_from(data.u64()).expect("an index of ours");
            let Some(conn) = conns[index].as_mut() else { continue };
            if echo(conn, data, &epoll, &mut buffer).is_err() {
                conns[index] = None;
            }
        }
    }
}

fn accept(listener: &TcpListener, epoll: &OwnedFd, conns: &mut Vec<Option<Conn>>) -> io::Result<()> {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error),
        };
        stream.set_nonblocking(true)?;
        // The descriptor number is the index: the kernel hands out the smallest free one.
        let index = usize::try_from(stream.as_raw_fd()).expect("not negative");
        epoll::add(epoll, &stream, EventData::new_u64(index as u64), WATCH)?;
        if conns.len() <= index {
            conns.resize_with(index + 1, || None);
        }
        conns[index] = Some(Conn { stream, owed: Vec::new() });
    }
}

/// One event: an error means that the connection is over.
fn echo(conn: &mut Conn, data: EventData, epoll: &OwnedFd, buffer: &mut [u8]) -> io::Result<()> {
    if !conn.owed.is_empty() {
        let sent = send(&conn.stream, &conn.owed)?;
        conn.owed.drain(..sent);
        if !conn.owed.is_empty() {
            return Ok(());
        }
        epoll::modify(epoll, &conn.stream, data, WATCH)?;
    }
    loop {
        let read = match (&conn.stream).read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let sent = send(&conn.stream, &buffer[..read])?;
        if sent < read {
            conn.owed.extend_from_slice(&buffer[sent..read]);
            return Ok(epoll::modify(epoll, &conn.stream, data, WATCH | EventFlags::OUT)?);
        }
        if read < buffer.len() {
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
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}
