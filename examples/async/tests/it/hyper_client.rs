//! The client of hyper against Python's server, and against nobody.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use crate::clients::{Scratch, has, output};
use crate::support::run;

const PROGRAM: &str = env!("CARGO_BIN_EXE_hyper_client");

/// `python3 -m http.server` on a directory. Killed when the test ends.
struct Files {
    child: Child,
    url: String,
}

impl Files {
    fn start(directory: &Scratch) -> Self {
        let mut child = Command::new("python3")
            .args(["-u", "-m", "http.server", "--protocol", "HTTP/1.1", "--bind", "127.0.0.1", "--directory"])
            .arg(&directory.0)
            .arg("0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.split(['(', ')']).nth(1).unwrap_or_else(|| panic!("{line}")).to_owned();
        Self { child, url }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn connections_are_kept_and_as_many_as_are_needed_at_the_same_time() {
    if !has("python3") {
        return;
    }
    let directory = Scratch::new("hyper-client");
    directory.write("small", "hello");
    directory.write("large", vec![b'x'; 300_000]);
    let files = Files::start(&directory);
    let (small, large) = (format!("{}small", files.url), format!("{}large", files.url));

    let printed = output(Command::new(PROGRAM).args(["--times", "10", &small, &large]));
    let mut wanted = format!("200 5 {small}\n200 300000 {large}\n").repeat(10);
    wanted += "1 connections\n";
    assert_eq!(printed, wanted);

    let printed = output(Command::new(PROGRAM).args(["--times", "10", "--at-once", "4", &small, &large]));
    assert!(printed.ends_with("4 connections\n"), "{printed}");
    let nowhere = format!("{}nowhere", files.url);
    assert!(output(Command::new(PROGRAM).arg(&nowhere)).starts_with("404 "));
}

#[test]
fn who_does_not_answer_is_given_up_and_the_others_are_answered() {
    if !has("python3") {
        return;
    }
    let directory = Scratch::new("hyper-client-silent");
    directory.write("small", "hello");
    let files = Files::start(&directory);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let mut command = Command::new(PROGRAM);
    let (code, printed, _) = run(command.args(["--timeout", "3000", &url, &files.url]));
    assert_eq!(code, Some(1));
    assert!(printed.starts_with(&format!("timed out {url}\n200 ")), "{printed}");
    assert!(printed.ends_with("2 connections\n"), "{printed}");
    // It was asked, and the connection given up with the request.
    let mut request = String::new();
    silent.accept().unwrap().0.read_to_string(&mut request).unwrap();
    assert!(request.starts_with("GET / HTTP/1.1\r\nhost: 127.0.0.1:"), "{request}");
}
