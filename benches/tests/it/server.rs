//! A server that does what a script says, in threads of the test, and a way to run the generator against it.

use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

pub const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nHello, World!";

/// What a server does next with a connection that has sent a whole request.
pub enum Act {
    Answer(Vec<u8>),
    /// Answer with the body of the request.
    Echo,
    AnswerAndClose(Vec<u8>),
    Reset,
    /// Never answer; go on reading.
    Ignore,
}

/// Serves until the test's process ends. `script` is told how many requests came before, on all connections.
pub fn serve(script: impl Fn(usize) -> Act + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let (script, requests) = (Arc::new(script), Arc::new(AtomicUsize::new(0)));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (script, requests) = (Arc::clone(&script), Arc::clone(&requests));
            // A generator that is done hangs up in the middle of anything.
            thread::spawn(move || talk(stream?, &*script, &requests));
        }
    });
    to
}

fn talk(mut stream: TcpStream, script: &dyn Fn(usize) -> Act, requests: &AtomicUsize) -> std::io::Result<()> {
    let mut kept = Vec::new();
    while let Some(body) = request(&mut stream, &mut kept)? {
        match script(requests.fetch_add(1, Ordering::Relaxed)) {
            Act::Answer(bytes) => stream.write_all(&bytes)?,
            Act::Echo => {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                stream.write_all(&[head.into_bytes(), body].concat())?;
            }
            Act::AnswerAndClose(bytes) => return stream.write_all(&bytes),
            Act::Reset => return socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)),
            Act::Ignore => {}
        }
    }
    Ok(())
}

/// Reads one request; its body, or `None` when there are no more.
fn request(stream: &mut TcpStream, kept: &mut Vec<u8>) -> std::io::Result<Option<Vec<u8>>> {
    let mut piece = [0; 16 * 1024];
    loop {
        if let Some(end) = kept.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&kept[..end]).into_owned();
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            let whole = end + 4 + length.map_or(0, |length| length.parse().unwrap());
            if kept.len() >= whole {
                return Ok(Some(kept.drain(..whole).skip(end + 4).collect()));
            }
        }
        match stream.read(&mut piece)? {
            0 => return Ok(None),
            read => kept.extend_from_slice(&piece[..read]),
        }
    }
}

/// Sends back what comes, after `change` has seen the last byte of each piece.
pub fn echo(change: fn(&mut u8)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut piece = [0; 16 * 1024];
                while let Ok(read @ 1..) = stream.read(&mut piece) {
                    change(&mut piece[read - 1]);
                    if stream.write_all(&piece[..read]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    to
}

/// Runs the generator to its end.
pub fn output(to: SocketAddr, options: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_load"));
    // Of an option that is given twice the first one counts.
    command.args(["--to", &to.to_string()]).args(options.split_whitespace()).args(["--seconds", "20"]);
    command.output().unwrap()
}

/// Runs the generator, which succeeds; its report.
pub fn load(to: SocketAddr, options: &str) -> Value {
    let output = output(to, options);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}
