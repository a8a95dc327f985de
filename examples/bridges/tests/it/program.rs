//! The example does what its first comment says.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::support::{Answer, Program, send_request};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tokio_bridge");

#[test]
fn timers_sockets_and_tasks_of_tokio_work_in_handlers() {
    let program = Program::start(PROGRAM, &["127.0.0.1:0"]);
    assert_eq!(program.get("/sleep/20").said(), (200, "slept 20 ms\n"));
    assert_eq!(program.get("/shout/hello").said(), (200, "HELLO\n"));
    assert_eq!(program.get("/divide/7/2").said(), (200, "3\n"));
    // A connection for all of them, each answer before the next question.
    let mut stream = program.connect();
    for word in ["hot", "and", "sweet"] {
        send_request(&mut stream, "GET", &format!("/shout/{word}"), &[], "");
        assert_eq!(Answer::read(&mut stream).body, word.to_uppercase() + "\n");
    }
    assert!(program.terminate().1.success());
}

#[test]
fn a_task_that_panics_costs_its_own_request() {
    let program = Program::start(PROGRAM, &["127.0.0.1:0"]);
    let mut stream = program.connect();
    send_request(&mut stream, "GET", "/divide/7/0", &[], "");
    assert_eq!(Answer::read(&mut stream).status, 500);
    send_request(&mut stream, "GET", "/divide/7/1", &[], "");
    assert_eq!(Answer::read(&mut stream).said(), (200, "7\n"), "not even its connection");
    let (printed, status) = program.terminate();
    assert!(status.success() && !printed.contains("panic"), "it was not the worker's: {printed}");
}

#[test]
fn a_drain_waits_for_a_handler_that_waits_for_tokio() {
    let mut program = Program::start(PROGRAM, &["127.0.0.1:0"]);
    let mut stream = program.connect();
    send_request(&mut stream, "GET", "/sleep/700", &[], "");
    program.ask_to_end();
    let answer = Answer::read(&mut stream);
    assert_eq!(answer.said(), (200, "slept 700 ms\n"));
    assert_eq!(answer.header("connection"), Some("close"));
    let (printed, status) = program.wait();
    assert!(status.success() && printed.contains(" 0 of them cut"), "{printed}");
}

/// The code of a page, without the indent that it has in its program.
fn lines(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).collect()
}

#[test]
fn the_code_of_the_page_is_the_examples() {
    let program = lines(include_str!("../../src/bin/tokio_bridge.rs"));
    let page = include_str!("../../../../docs/ASYNC.md");
    let mut blocks = 0;
    for block in page.split("```rust\n").skip(1) {
        let block = lines(block.split("```").next().unwrap());
        assert!(program.windows(block.len()).any(|window| window == block), "{block:#?}");
        blocks += 1;
    }
    assert!(blocks > 3, "{blocks}");
}

/// A Redis server on a Unix socket of its own. Killed when the test ends.
struct Redis {
    child: Child,
    socket: PathBuf,
}

impl Redis {
    /// None if it is not installed.
    fn start() -> Option<Self> {
        let socket = std::env::temp_dir().join(format!("netpoll-bridge-{}.sock", std::process::id()));
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(&socket)
            .stdout(Stdio::piped())
            .spawn();
        let mut redis = Self { child: child.ok()?, socket };
        let mut lines = BufReader::new(redis.child.stdout.take().unwrap()).lines();
        assert!(
            lines.any(|line| line.unwrap().contains("eady to accept connections")),
            "Redis does not start"
        );
        // It says no more until its end, and nobody listens then.
        Some(redis)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}

#[test]
fn a_client_of_redis_that_needs_tokio_counts_in_handlers_of_all_workers() {
    let Some(redis) = Redis::start() else {
        return println!("skipped: there is no redis-server");
    };
    let program = Program::start(PROGRAM, &["127.0.0.1:0", &format!("unix://{}", redis.socket.display())]);
    for count in 1..=20 {
        assert_eq!(program.get("/count/tea").said(), (200, format!("{count}\n").as_str()));
    }
    // All of them share the connection: answers come to those who asked.
    std::thread::scope(|scope| {
        for key in ["a", "b", "c", "d"] {
            let program = &program;
            scope.spawn(move || {
                let mut stream = program.connect();
                for count in 1..=50 {
                    send_request(&mut stream, "GET", &format!("/count/{key}"), &[], "");
                    assert_eq!(Answer::read(&mut stream).said(), (200, format!("{count}\n").as_str()));
                }
            });
        }
    });
    assert!(program.terminate().1.success());
}
