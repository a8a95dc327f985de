//! Instructions of a message: the server under callgrind, with few and with many messages; the difference leaves out its start and
//! its end. All connections ask at once, so that a turn of the server finds many of them, as it does under load. Those of
//! user space alone: callgrind does not see the kernel.

use super::CONNECTIONS;
use benches::runner::{Failure, end, free_port};
use benches::sys;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Command, Stdio};
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
    let [few, many] = MESSAGES.map(|messages| collected(command, messages, bytes));
    let operations = (MESSAGES[1] - MESSAGES[0]) * CONNECTIONS;
    Ok((many? - few?) / operations as f64)
}

/// The instructions of a whole run.
fn collected(command: &str, messages: usize, bytes: usize) -> Result<f64, Failure> {
    let port = free_port()?;
    let command = command.replace("{port}", &port.to_string());
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).args(command.split_whitespace());
    valgrind.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut server =
        sys::dies_with_us(&mut valgrind).spawn().map_err(|error| format!("valgrind: {error}"))?;
    let asked = ask(port, messages, bytes);
    sys::interrupt(&server)?;
    if let Err(error) = asked {
        end(&mut server);
        return Err(error);
    }
    let output = server.wait_with_output()?;
    // The summary on standard error: `==123== Collected : 456`.
    let text = String::from_utf8_lossy(&output.stderr);
    let count = text.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    count.ok_or_else(|| format!("no count in what callgrind says: {text}").into())
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
