//! The mini-program behind TLS.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use netpoll_core::tls::roots_from_pem_file;
use netpoll_core::tls::rustls::crypto::ring;
use netpoll_core::tls::rustls::pki_types::{CertificateDer, ServerName};
use netpoll_core::tls::rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::member::{Member, OPENING};
use crate::support::Program;

const MINI_PROGRAM: &str = env!("CARGO_BIN_EXE_mini-program");

fn pem(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../netpoll-core/tests/tls/pems").join(name)
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

fn connect(program: &Program) -> Stream {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots_from_pem_file(pem("ca.pem")).unwrap())
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), program.connect())
}

/// Sends the head and the body of a request and reads an answer, of which so much is returned that a test can look at it.
fn ask(stream: &mut Stream, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut heard = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let bytes = stream.read(&mut piece).unwrap();
        heard.extend_from_slice(&piece[..bytes]);
        let text = String::from_utf8_lossy(&heard);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length =
            head.split("Content-Length: ").nth(1).and_then(|rest| rest.split("\r\n").next()).unwrap();
        if body.len() >= length.trim().parse().unwrap() {
            return text.into_owned();
        }
    }
}

const GET: &str = "GET /json HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn certificate(program: &Program) -> CertificateDer<'static> {
    let mut stream = connect(program);
    ask(&mut stream, GET);
    stream.conn.peer_certificates().unwrap()[0].clone()
}

#[test]
fn certificates_are_read_again_on_sighup_and_sigterm_ends_it() {
    let directory = std::env::temp_dir().join(format!("mini-program-tls-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let [chain, key] = ["chain.pem", "key.pem"].map(|name| directory.join(name));
    let put = |name: &str| {
        std::fs::copy(pem(&format!("{name}.pem")), &chain).unwrap();
        std::fs::copy(pem(&format!("{name}-key.pem")), &key).unwrap();
    };
    put("server");
    let mut command = Command::new(MINI_PROGRAM);
    command.args(["--addr", "127.0.0.1:0", "--workers", "2", "--tls-cert"]).arg(&chain);
    command.arg("--tls-key").arg(&key);
    let (mut program, errors) = Program::spawn_heard(&mut command);
    let mut errors = BufReader::new(errors);
    assert!(program.printed.contains("https://127.0.0.1:"), "{}", program.printed);

    let mut early = connect(&program);
    let login = "POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 19\r\n\r\n{\"code\":\"demo-ann\"}";
    let answer = ask(&mut early, login);
    assert!(answer.contains("SameSite=Lax; Secure\r\n"), "{answer}");
    let first = certificate(&program);
    let mut hang_up = |expected: &str| {
        let killed = Command::new("kill").args(["-HUP", &program.pid().to_string()]).status();
        assert!(killed.unwrap().success());
        let mut line = String::new();
        errors.read_line(&mut line).unwrap();
        assert!(line.contains(expected), "{line}");
    };
    put("renewed");
    hang_up("the certificates were read again");
    std::fs::write(&chain, "").unwrap();
    hang_up("the certificates are the old ones: ");
    let second = certificate(&program);
    assert_ne!(second, first);
    assert!(ask(&mut early, GET).starts_with("HTTP/1.1 200 OK\r\n"), "a connection goes on");
    drop(early);
    program.ask_to_end();
    let (_, status) = program.wait();
    assert!(status.success(), "{status}");
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_room_is_entered_over_tls_and_by_pages_of_https_alone() {
    let mut command = Command::new(MINI_PROGRAM);
    command.args(["--addr", "127.0.0.1:0", "--workers", "2", "--tls-cert"]).arg(pem("server.pem"));
    let program = Program::spawn(command.arg("--tls-key").arg(pem("server-key.pem")));
    let mut members: Vec<_> =
        (0..2).map(|_| Member::on(connect(&program), "/chat/lobby", &["Origin: https://a"])).collect();
    members.iter_mut().for_each(|member| drop(member.json("welcome")));
    members[0].say(r#"{"text":"hello"}"#);
    members.iter_mut().for_each(|member| assert_eq!(member.json("message")["text"], "hello"));
    let opening = format!("GET /chat/lobby HTTP/1.1\r\nHost: a\r\nOrigin: http://a\r\n{OPENING}\r\n\r\n");
    assert!(ask(&mut connect(&program), &opening).starts_with("HTTP/1.1 403 "));
    drop(members);
    assert!(program.terminate().1.success());
}

#[test]
fn a_storm_of_sighup_while_it_drains_ends_nobody() {
    let mut command = Command::new(MINI_PROGRAM);
    command
        .args(["--addr", "127.0.0.1:0", "--workers", "4", "--drain", "60", "--tls-cert"])
        .arg(pem("server.pem"));
    command.arg("--tls-key").arg(pem("server-key.pem"));
    let (mut program, _errors) = Program::spawn_heard(&mut command);
    let pid = program.pid().to_string();
    let hang_up = |times: usize| {
        for _ in 0..times {
            let killed = Command::new("kill").args(["-HUP", &pid]).status();
            assert!(killed.unwrap().success());
        }
    };
    // One after the other they are through, and so are the workers that they are on.
    let mut clients: Vec<_> = (0..6).map(|_| connect(&program)).collect();
    let head = "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n";
    for client in &mut clients {
        ask(client, GET);
        client.write_all(format!("{head}a").as_bytes()).unwrap();
    }
    hang_up(3);
    program.ask_to_end();
    while let Some(mut client) = clients.pop() {
        hang_up(40);
        client.write_all(b"b").unwrap();
        let mut heard = String::new();
        // To the `close_notify`, without which it would be an error.
        client.read_to_string(&mut heard).unwrap();
        assert!(heard.ends_with("ab"), "{heard}");
    }
    let (_, status) = program.wait();
    assert!(status.success(), "{status}");
}

#[test]
fn a_certificate_of_its_own_is_the_one_whose_fingerprint_is_printed() {
    let arguments = ["--addr", "127.0.0.1:0", "--workers", "1", "--tls-self-signed"];
    let mut program = Program::start(MINI_PROGRAM, &arguments);
    let line = program.line();
    let printed = line.trim().rsplit(' ').next().unwrap().to_owned();
    let addr = program.addr.to_string();
    let asked = Command::new("openssl")
        .args(["s_client", "-connect", &addr, "-showcerts"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let shown = match asked {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            println!("skipped: there is no openssl");
            return;
        }
        asked => asked.unwrap().stdout,
    };
    let mut openssl = Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    openssl.stdin.take().unwrap().write_all(&shown).unwrap();
    let said = String::from_utf8(openssl.wait_with_output().unwrap().stdout).unwrap();
    assert!(said.trim().ends_with(&format!("={printed}")), "{said} but {line}");
    assert!(program.terminate().1.success());
}

#[test]
fn what_is_wrong_with_a_file_is_said_before_anything_listens() {
    let said = Command::new(MINI_PROGRAM)
        .args(["--addr", "127.0.0.1:0", "--tls-cert", "nowhere.pem"])
        .output()
        .unwrap();
    assert_eq!(said.status.code(), Some(1));
    let error = String::from_utf8(said.stderr).unwrap();
    assert!(error.starts_with("mini-program: nowhere.pem: "), "{error}");
    assert!(said.stdout.is_empty());
}
