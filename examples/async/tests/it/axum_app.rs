//! axum behind curl, h2load and a WebSocket client.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use crate::clients::{Scratch, curl, has, has_module, output, python};
use crate::support::{Answer, Program, send_request};

const PROGRAM: &str = env!("CARGO_BIN_EXE_axum_app");

fn start() -> Program {
    Program::start(PROGRAM, &["--listen", "127.0.0.1:0", "--workers", "2"])
}

/// The routes, by the version of HTTP that this option of curl asks for.
fn ask_all(program: &Program, option: &str, version: &str) {
    let ask = |path: &str, arguments: &[&str]| {
        let url = format!("http://{}{path}", program.addr);
        curl(&[&[option], arguments, &[&url]].concat())
    };
    assert_eq!(ask("/", &[]), format!("Hello, World!{version} 200"));
    assert_eq!(ask("/hello/ada", &[]), format!("hello, ada\n{version} 200"));
    let json = ["--header", "content-type: application/json", "--data"];
    assert_eq!(
        ask("/sum", &[&json[..], &[r#"{"numbers":[1,2,3]}"#]].concat()),
        format!("{{\"sum\":6}}{version} 200")
    );
    assert!(
        ask("/sum", &[&json[..], &[r#"{"numbers":[1,2,"#]].concat()).ends_with(&format!("{version} 400"))
    );
    assert!(
        ask("/sum", &[&json[..], &[r#"{"numbers":"none"}"#]].concat()).ends_with(&format!("{version} 422"))
    );
    assert!(ask("/sum", &["--request", "POST"]).ends_with(&format!("{version} 415")));
    assert_eq!(ask("/slow?ms=30", &[]), format!("waited 30 ms\n{version} 200"));
    assert!(ask("/slow?ms=soon", &[]).ends_with(&format!("{version} 400")));
    assert_eq!(ask("/ticks?count=2", &["--no-buffer"]), format!("tick 1\ntick 2\n{version} 200"));
    assert_eq!(ask("/nowhere", &[]), format!("{version} 404"));
    // More than windows and queues hold.
    let scratch = Scratch::new(&format!("upload-{version}"));
    let file = format!("@{}", scratch.write("zeros", vec![0; 5_000_000]));
    assert_eq!(ask("/upload", &["--data-binary", &file]), format!("5000000 bytes\n{version} 200"));
}

#[test]
fn an_axum_application_is_served_over_both_versions_of_http() {
    if !has("curl") {
        return;
    }
    let program = start();
    ask_all(&program, "--http1.1", "1.1");
    ask_all(&program, "--http2-prior-knowledge", "2");
    // The workers share what axum shares.
    let visits: Vec<String> = (0..8).map(|_| program.get("/visits").body).collect();
    assert_eq!(visits, (1..=8).map(|count| format!("{count}\n")).collect::<Vec<_>>());
    assert!(program.terminate().1.success());
}

#[test]
fn the_same_application_runs_on_tokio() {
    if !has("curl") {
        return;
    }
    let program = Program::start(PROGRAM, &["--listen", "127.0.0.1:0", "--runtime", "tokio"]);
    ask_all(&program, "--http1.1", "1.1");
    ask_all(&program, "--http2-prior-knowledge", "2");
}

#[test]
fn a_websocket_is_an_upgrade_of_its_connection() {
    if !has_module("websockets") {
        return;
    }
    let script = "
import sys
from websockets.sync.client import connect
for round in range(3):
    with connect(sys.argv[1], max_size=None) as socket:
        for message in ['hello', 'x' * 200000, b'bytes', '']:
            socket.send(message)
            assert socket.recv(timeout=60) == message
        assert socket.ping().wait(60)
print('all came back')
";
    let program = start();
    assert_eq!(python(script, &[&format!("ws://{}/echo", program.addr)]), "all came back\n");
    assert_eq!(program.get("/echo").status, 426, "for who does not ask for it");
    assert!(program.terminate().1.success());
}

#[test]
fn a_drain_answers_who_waits_over_http_1_and_ends_the_connection() {
    let mut program = start();
    let mut waiting = program.connect();
    send_request(&mut waiting, "GET", "/ticks?count=8", &[], "");
    // It is under way.
    let (mut answer, mut buffer) = (String::new(), [0; 1000]);
    while !answer.contains("tick 1\n") {
        let count = waiting.read(&mut buffer).unwrap();
        answer.push_str(str::from_utf8(&buffer[..count]).unwrap());
    }
    // Kept, and asked for nothing: it does not hold the drain up.
    let mut idle = program.connect();
    send_request(&mut idle, "GET", "/", &[], "");
    assert_eq!(Answer::read(&mut idle).body, "Hello, World!");
    program.ask_to_end();
    assert_eq!(idle.read(&mut [0]).unwrap(), 0);
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("tick 8\n") && answer.ends_with("\r\n0\r\n\r\n"), "{answer}");
    let (printed, status) = program.wait();
    assert!(status.success() && printed.contains(" 0 of them cut"), "{printed}");
}

#[test]
fn a_drain_sends_a_stream_of_http_2_to_its_end() {
    if !has("curl") {
        return;
    }
    let mut program = start();
    let url = format!("http://{}/ticks?count=8", program.addr);
    let mut curl = Command::new("curl")
        .args(["--silent", "--no-buffer", "--http2-prior-knowledge", "--max-time", "60", &url])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(curl.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "tick 1");
    program.ask_to_end();
    assert_eq!(lines.collect::<Vec<_>>(), (2..=8).map(|tick| format!("tick {tick}")).collect::<Vec<_>>());
    assert!(curl.wait().unwrap().success());
    let (printed, status) = program.wait();
    assert!(status.success() && printed.contains(" 0 of them cut"), "{printed}");
}

#[test]
fn many_streams_of_http_2_are_answered_each() {
    if !has("h2load") {
        return;
    }
    let program = start();
    let url = format!("http://{}/", program.addr);
    for arguments in [&["-m", "50"][..], &["--h1"][..]] {
        let said = output(Command::new("h2load").args(["-n", "5000", "-c", "10"]).args(arguments).arg(&url));
        assert!(said.contains("5000 succeeded, 0 failed"), "{said}");
    }
    assert!(program.terminate().1.success());
}
