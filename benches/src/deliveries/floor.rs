//! What the kernel takes: a list of sockets, and a frame that is ready, written to each.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;

use benches::runner::Failure;

use crate::crowd::head;

const ANSWER: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Serves until it is killed. The first who opens is the one who speaks, texts of so many bytes.
///
/// # Errors
/// The port is taken; the speaker has left.
pub fn serve(port: u16, bytes: usize) -> Result<(), Failure> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    let (sender, opened) = mpsc::channel();
    thread::spawn(move || {
        listener
            .incoming()
            .flatten()
            .filter_map(|socket| open(socket).ok())
            .try_for_each(|it| sender.send(it))
    });
    let ready = [head(bytes, 0), (0..bytes).map(|at| b'a' + (at % 26) as u8).collect()].concat();
    let mut spoken = vec![0; head(bytes, 0).len() + 4 + bytes];
    let first: TcpStream = opened.recv()?;
    let mut sockets = vec![first];
    loop {
        sockets[0].read_exact(&mut spoken)?;
        sockets.extend(opened.try_iter());
        for socket in &mut sockets {
            socket.write_all(&ready)?;
        }
    }
}

/// An opening whose request is not looked at.
fn open(mut socket: TcpStream) -> std::io::Result<TcpStream> {
    socket.set_nodelay(true)?;
    let (mut request, mut block) = (Vec::new(), [0; 1024]);
    while !request.ends_with(b"\r\n\r\n") {
        match socket.read(&mut block)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            bytes => request.extend_from_slice(&block[..bytes]),
        }
    }
    socket.write_all(ANSWER)?;
    Ok(socket)
}
