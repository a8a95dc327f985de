//! Programs on sockets that are not TCP's, or not their own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

/// A program that has said its first line. Killed if the test does not end it.
struct Started(Child, String);

impl Started {
    fn new(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self(child, line)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ask(mut stream: impl Read + Write, target: &str) -> String {
    write!(stream, "GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_mini_program_serves_on_a_unix_socket() {
    let path = std::env::temp_dir().join(format!("netpoll-mini-program-{}.sock", std::process::id()));
    let mut command = Command::new(env!("CARGO_BIN_EXE_mini-program"));
    let program = Started::new(command.arg(format!("--addr=unix:{}", path.display())));
    assert!(program.1.contains(&format!("listens on unix:{}", path.display())), "{}", program.1);
    assert!(ask(UnixStream::connect(&path).unwrap(), "/json").starts_with("HTTP/1.1 200"));
    drop(program);
    // It was killed: its file is left, and taken over by the next.
    assert!(path.exists());
    let next = Started::new(command.stdout(Stdio::piped()));
    assert!(ask(UnixStream::connect(&path).unwrap(), "/json").starts_with("HTTP/1.1 200"));
    drop(next);
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_program_that_was_killed_is_followed_at_once_whatever_it_ran_on() {
    let path = std::env::temp_dir().join(format!("netpoll-killed-{}.sock", std::process::id()));
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let start = |addr: &str, backend| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mini-program"));
        Started::new(command.args(["--workers", "2", "--addr", addr, "--backend", backend]))
    };
    for backend in ["auto", "uring"] {
        if start("127.0.0.1:0", backend).1.is_empty() {
            eprintln!("{backend}: not to be had here, and not tried");
            continue;
        }
        for addr in [format!("127.0.0.1:{port}"), format!("unix:{}", path.display())] {
            for nth in 0..5 {
                let said = start(&addr, backend).1.clone();
                assert!(said.contains("listens on"), "{backend}, {addr}, start {nth}");
            }
        }
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_program_serves_on_the_socket_that_its_service_manager_has_opened() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let early = TcpStream::connect(addr).unwrap();
    let start = || {
        let mut command = Command::new("sh");
        command
            .args([
                "-c",
                r#"LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" 3<&0"#,
                env!("CARGO_BIN_EXE_socket_activation"),
            ])
            .stdin(Stdio::from(OwnedFd::from(listener.try_clone().unwrap())));
        Started::new(&mut command)
    };
    let first = start();
    assert_eq!(first.1, format!("socket_activation listens on {addr}\n"));
    let own = early.local_addr().unwrap();
    assert!(ask(early, "/").ends_with(&format!("hello, {own}\n")));
    drop(first);

    // Who comes between two of them waits.
    let between = TcpStream::connect(addr).unwrap();
    let _second = start();
    assert!(ask(between, "/").starts_with("HTTP/1.1 200"));
}
