//! A server with a thread for each connection and blocking calls: what an event loop is compared with.
//! `GET /stats` says how often its threads were taken off their core; nobody else knows when they have ended.

use benches::runner::Failure;
use benches::sys;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nServer: blocking\r\nContent-Type: text/plain\r\n\
    Content-Length: 13\r\n\r\nHello, World!";

/// Serves until it is killed.
pub fn serve(port: u16) -> Result<(), Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    for stream in listener.incoming() {
        let stream = stream?;
        stream.set_nodelay(true)?;
        std::thread::Builder::new().stack_size(64 * 1024).spawn(move || {
            // However it ends, it ends for this connection only.
            let _ = answer(stream);
        })?;
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    let mut filled = 0;
    loop {
        match stream.read(&mut buffer[filled..])? {
            0 => return Ok(()),
            read => filled += read,
        }
        if buffer[..filled].ends_with(b"\r\n\r\n") {
            if buffer.starts_with(b"GET /stats ") {
                let body = format!(r#"{{"switches":{}}}"#, sys::context_switches()?);
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
            } else {
                stream.write_all(ANSWER)?;
            }
            filled = 0;
        }
    }
}
