//! Instructions of a message: the server under callgrind, with few and with many messages; the difference leaves out its start and
//! its end. All connections ask at once, so that a turn of the server finds many of them, as it does under load. Those of
//! user space alone: callgrind does not see the kernel.

use super::CONNECTIONS;
use benches::runner::{Failure, collected};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

/// Messages of each connection in the two runs.
const MESSAGES: [usize; 2] = [50, 150];
/// Valgrind makes a program some fifty times slower.
const PATIENCE: Duration = Duration::from_secs(20);

/// Instructions of one message of so many bytes.
///
/// # Errors
/// Valgrind is not installed, or the server failed.
pub fn instructions(command: &str, bytes: usize) -> Result<f64, Failure> {
    let [few, many] = MESSAGES.map(|messages| collected(command, |port| ask(port, messages, bytes)));
    let operations = (MESSAGES[1] - MESSAGES[0]) * CONNECTIONS;
    Ok((many? - few?) / operations as f64)
}

/// All connections ask so often, each when all have been answered.
fn ask(port: u16, messages: usize, bytes: usize) -> Result<(), Failure> {
    let mut streams = vec![first(port)?];
    while streams.len() < CONNECTIONS {
        streams.push(connect(port)?);
    }
    let (message, mut answer) = (vec![b'e'; bytes], vec![0; bytes]);
    for _ in 0..messages {
        for stream in &mut streams {
            stream.write_all(&message)?;
        }
        for stream in &mut streams {
            answer.fill(0);
            stream.read_exact(&mut answer)?;
            if answer != message {
                return Err("a wrong answer".into());
            }
        }
    }
    Ok(())
}

/// As soon as it listens.
fn first(port: u16) -> Result<TcpStream, Failure> {
    let begin = Instant::now();
    loop {
        match connect(port) {
            Ok(stream) => return Ok(stream),
            Err(error) if begin.elapsed() > PATIENCE => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn connect(port: u16) -> Result<TcpStream, Failure> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}
