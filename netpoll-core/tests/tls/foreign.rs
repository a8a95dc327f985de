//! Other implementations, over sockets.

use std::io::{ErrorKind, Write};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use netpoll_core::tls::TlsFacts;
use netpoll_core::{Conn, Flow, Input, Layered, Protocol, Running, Runtime, Workers};

use crate::support::{identity, pem, server};

/// Answers a request of HTTP with what TLS has brought, and any other line with itself; then it ends.
struct Answers;

impl Protocol for Answers {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        let bytes = input.bytes();
        if bytes.starts_with(b"GET ") {
            if !bytes.ends_with(b"\r\n\r\n") {
                return Flow::Continue;
            }
            let facts = conn.layer_facts::<TlsFacts>().expect("it is behind TLS");
            let alpn = String::from_utf8_lossy(facts.alpn().unwrap_or_default()).into_owned();
            let text = format!("{:?} {alpn} {}", facts.version(), "x".repeat(300_000));
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", text.len());
            conn.send(head.as_bytes());
            conn.send(text.as_bytes());
        } else {
            if !bytes.ends_with(b"\n") {
                return Flow::Continue;
            }
            conn.send(bytes);
        }
        input.advance_all();
        Flow::Close
    }
}

fn serve() -> (Running, u16) {
    let tls = server("server").identity(identity("other")).alpn(["http/1.1"]).build().unwrap();
    let server = Runtime::builder()
        .workers(Workers::Count(1))
        .pin(false)
        .listen("127.0.0.1:0", move |_worker| {
            let tls = tls.clone();
            move |_peer| Layered::new(tls.layer(), Answers)
        })
        .unwrap()
        .start()
        .unwrap();
    let port = server.local_addrs()[0].as_socket_addr().unwrap().port();
    (server, port)
}

/// What a program says, or `None` if it is not there.
fn run(command: &mut Command, words: &[u8]) -> Option<Output> {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            println!("skipped: there is no {:?}", command.get_program());
            return None;
        }
        spawned => spawned.unwrap(),
    };
    // One that has given up by now does not read it.
    let mut input = child.stdin.take().unwrap();
    let _ = input.write_all(words);
    let output = child.wait_with_output().unwrap();
    drop(input);
    Some(output)
}

#[test]
fn openssl_speaks_with_it_in_both_versions() {
    let (server, port) = serve();
    for version in ["-tls1_3", "-tls1_2"] {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-quiet", "-verify_return_error", "-servername", "other.test", version]);
        command.args(["-verify_hostname", "other.test", "-connect", &format!("127.0.0.1:{port}")]);
        command.arg("-CAfile").arg(pem("ca.pem"));
        let Some(output) = run(&mut command, b"hello\n") else { break };
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "hello\n", "{version}: {errors}");
        assert!(output.status.success(), "{version}: {errors}");
    }
    let report = server.stop(Duration::from_secs(10)).unwrap();
    assert_eq!((report.stats.layer_failures, report.stats.panics), (0, 0));
}

#[test]
fn curl_reads_an_answer_of_many_records() {
    let (server, port) = serve();
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--show-error", "--max-time", "60", "--http1.1", "--cacert"])
        .arg(pem("ca.pem"));
    command
        .arg(format!("https://localhost:{port}/"))
        .args(["--resolve", &format!("localhost:{port}:127.0.0.1")]);
    if let Some(output) = run(&mut command, b"") {
        let errors = String::from_utf8_lossy(&output.stderr);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.starts_with("TLSv1_3 http/1.1 xxx"), "{errors}");
        assert_eq!(text.len(), 300_017, "{errors}");
    }
    server.stop(Duration::from_secs(10)).unwrap();
}
