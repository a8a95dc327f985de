//! The small examples do what their first comments say.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Instant;

use crate::support::{Answer, PATIENCE, Program, send_request};

fn start(path: &str) -> Program {
    Program::start(path, &["127.0.0.1:0"])
}

#[test]
fn hello_says_hello_and_is_at_most_15_lines_long() {
    assert!(include_str!("../../src/bin/hello.rs").lines().count() <= 15);
    let program = start(env!("CARGO_BIN_EXE_hello"));
    assert_eq!(program.get("/").said(), (200, "Hello, World!"));
    assert!(program.terminate().1.success());
}

#[test]
fn echo_sends_back_everything_even_behind_the_end() {
    let program = start(env!("CARGO_BIN_EXE_echo"));
    let sent: Vec<u8> = (0..1 << 20).map(|index: u32| (index.wrapping_mul(40_503) >> 16) as u8).collect();
    let mut stream = program.connect();
    let mut writer = stream.try_clone().unwrap();
    let mut back = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            writer.write_all(&sent).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        stream.read_to_end(&mut back).unwrap();
    });
    assert!(back == sent, "{} bytes of {}", back.len(), sent.len());

    let (printed, status) = program.terminate();
    assert!(status.success() && printed.contains("system calls for each connection"), "{printed}");
}

#[test]
fn udp_echo_sends_each_datagram_back_from_the_address_that_was_asked() {
    let program = start(env!("CARGO_BIN_EXE_udp_echo"));
    let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    client.connect(program.addr).unwrap();
    for word in [&b"hello"[..], b"", &[7; 1400]] {
        client.send(word).unwrap();
        let mut buffer = [0; 2048];
        let len = client.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], word);
    }
    let (printed, status) = program.terminate();
    assert!(status.success(), "{printed}");
}

/// Sends everything, ends, and returns what came back.
fn told(program: &Program, bytes: &[u8]) -> String {
    let mut stream = program.connect();
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut back = String::new();
    stream.read_to_string(&mut back).unwrap();
    back
}

#[test]
fn line_protocol_answers_every_line_even_one_without_its_end() {
    let program = start(env!("CARGO_BIN_EXE_line_protocol"));
    assert_eq!(told(&program, b"SET tea hot and sweet\nGET tea\r\nDEL tea\nDEL tea\nGET tea"), {
        "OK\nhot and sweet\nOK\nNONE\nNONE\n"
    });
    assert_eq!(told(&program, b"SET a 1\nGET a"), "OK\n1\n", "as the first comment says");
    assert_eq!(told(&program, b"GET a"), "1\n", "another connection, maybe of another worker");
    assert_eq!(told(&program, b"BREW tea\n"), "ERR say SET key value, GET key or DEL key\n");
    assert_eq!(told(&program, &[b'x'; 1500]), "ERR a line has at most 1024 bytes\n");

    let mut flood = "SET big ".to_owned() + &"y".repeat(1000) + "\n";
    flood.push_str(&"GET big\n".repeat(10_000));
    let mut stream = program.connect();
    let mut writer = stream.try_clone().unwrap();
    let mut back = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            writer.write_all(flood.as_bytes()).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        stream.read_to_end(&mut back).unwrap();
    });
    assert_eq!(back.len(), 3 + 10_000 * 1001, "answers far beyond the queue's limit all arrive");

    let (printed, status) = program.terminate();
    assert!(status.success() && printed.contains("10010 requests"), "{printed}");
}

#[test]
fn graceful_shutdown_lets_a_request_in_flight_finish_and_refuses_new_ones() {
    let mut program = start(env!("CARGO_BIN_EXE_graceful_shutdown"));
    let mut idle = program.connect();
    send_request(&mut idle, "GET", "/", &[], "");
    assert_eq!(Answer::read(&mut idle).said(), (200, "try /slow\n"));
    let mut busy = program.connect();
    send_request(&mut busy, "GET", "/slow/1", &[], "");
    assert_eq!(program.line(), "working for 1 s\n");

    program.ask_to_end();

    let asked = Instant::now();
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"", "a connection between requests is closed");
    // Each worker closes its listener by itself, in its next turns.
    while TcpStream::connect(program.addr).is_ok() {
        assert!(asked.elapsed() < PATIENCE, "new connections are refused");
    }
    let answer = Answer::read(&mut busy);
    assert_eq!(answer.said(), (200, "done\n"));
    assert_eq!(answer.header("connection"), Some("close"));
    let (printed, status) = program.wait();
    assert!(status.success(), "{printed}");
    assert!(printed.starts_with("drained 2 connections") && printed.contains(" 0 of them cut"), "{printed}");
}

#[test]
fn static_routes_knows_its_routes_their_parameters_and_their_methods() {
    let program = start(env!("CARGO_BIN_EXE_static_routes"));
    assert_eq!(program.get("/double/21").said(), (200, "42\n"));
    assert_eq!(program.get("/double/x").status, 400);
    assert_eq!(program.get("/files/css/site.css").said(), (200, "css/site.css\n"));
    assert_eq!(program.get("/worker").said(), (200, "0"));
    assert_eq!(program.request("POST", "/sum/a", &[], "5").said(), (200, "a: 5\n"));
    assert_eq!(program.request("POST", "/sum/a", &[], "-7").said(), (200, "a: -2\n"));
    assert_eq!(program.request("POST", "/sum/a", &[], "x").status, 400);
    assert_eq!(program.get("/nowhere").status, 404);
    let refused = program.request("PUT", "/double/21", &[], "");
    assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD")));
    assert!(program.terminate().1.success());
}

#[test]
fn guestbook_knows_its_guests_and_says_what_is_wrong_as_json() {
    let program = start(env!("CARGO_BIN_EXE_guestbook"));
    let form = "Content-Type: application/x-www-form-urlencoded";
    let stranger = program.request("POST", "/entries", &[form], "text=hello");
    assert_eq!(stranger.said(), (401, r#"{"status":401,"title":"Unauthorized","detail":"sign in first"}"#));
    let signed_in = program.request("POST", "/sign-in", &[form], "name=Ada");
    assert_eq!((signed_in.status, signed_in.header("location")), (303, Some("/")));
    let cookie = "session=1; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax";
    assert_eq!(signed_in.header("set-cookie"), Some(cookie));
    let write = |text: &str| program.request("POST", "/entries", &[form, "Cookie: session=1"], text);
    assert_eq!((write("text=hello").status, write("text=again").status), (303, 303));
    let long = write(&format!("text={}", "x".repeat(81)));
    assert!(long.status == 422 && long.body.contains("at most 80 characters"), "{}", long.body);
    let unnamed = write("words=hello");
    assert!(
        unnamed.status == 400 && unnamed.body.contains("form field `text` is missing"),
        "{}",
        unnamed.body
    );
    assert_eq!(program.get("/entries?most=1").said(), (200, r#"[{"name":"Ada","text":"again"}]"#));
    let wrong = program.get("/entries?most=x");
    assert!(wrong.status == 400 && wrong.body.contains("query parameter `most`"), "{}", wrong.body);
    assert_eq!(program.get("/nowhere").said(), (404, r#"{"status":404,"title":"Not Found"}"#));
    assert!(program.get("/").body.contains("<form action=/sign-in"));
    assert!(program.terminate().1.success());
}

#[test]
fn files_serves_a_directory_and_nothing_beside_it() {
    let here = env!("CARGO_MANIFEST_DIR");
    let program = Program::start(env!("CARGO_BIN_EXE_files"), &["127.0.0.1:0", here]);
    let served = program.get("/src/bin/files.rs");
    assert_eq!(served.said(), (200, include_str!("../../src/bin/files.rs")));
    assert_eq!(served.header("cache-control"), Some("no-cache"));
    let part = program.request("GET", "/src/bin/files.rs", &["Range: bytes=0-3"], "");
    assert_eq!(part.said(), (206, "//! "));
    assert_eq!(program.request("GET", "/Cargo.toml", &["If-None-Match: *"], "").status, 304);
    assert_eq!(program.get("/../Cargo.toml").status, 400);
    assert_eq!(program.get("/").status, 404, "there is no index.html");
    let (printed, status) = program.terminate();
    assert!(status.success() && printed.contains("and 2 sendfile"), "{printed}");
}

#[test]
fn toy_cipher_serves_http_and_an_echo_that_nobody_on_the_way_can_read() {
    let path = env!("CARGO_BIN_EXE_toy_cipher");
    let mut program = Program::start(path, &["127.0.0.1:0", "127.0.0.1:0"]);
    let line = program.line();
    let echo_addr = line.trim().rsplit(' ').next().unwrap();
    let talk = |arguments: &[&str]| {
        let output = std::process::Command::new(path).args(arguments).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let (is_fine, page) = talk(&["get", &program.addr.to_string(), "/"]);
    assert!(is_fine && page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    assert!(page.ends_with("Nobody on the way has read this.\n"), "{page}");
    assert_eq!(talk(&["say", echo_addr, "hello"]), (true, "hello".to_owned()));

    let mut stream = program.connect();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut back = Vec::new();
    // In plain text there is no more than the greeting, and then the end, which may be a reset.
    let _ = stream.read_to_end(&mut back);
    assert!(back.len() <= 12 && !back.starts_with(b"HTTP"), "{}", back.escape_ascii());
    assert!(program.terminate().1.success());
}

const PROGRAMS: [&str; 10] = [
    env!("CARGO_BIN_EXE_hello"),
    env!("CARGO_BIN_EXE_echo"),
    env!("CARGO_BIN_EXE_line_protocol"),
    env!("CARGO_BIN_EXE_files"),
    env!("CARGO_BIN_EXE_guestbook"),
    env!("CARGO_BIN_EXE_service"),
    env!("CARGO_BIN_EXE_static_routes"),
    env!("CARGO_BIN_EXE_graceful_shutdown"),
    env!("CARGO_BIN_EXE_websocket_chat"),
    env!("CARGO_BIN_EXE_mini-program"),
];

/// Where it listens: the mini-program wants that named.
fn address(path: &str) -> &'static str {
    if path.ends_with("mini-program") { "--addr=127.0.0.1:0" } else { "127.0.0.1:0" }
}

#[test]
fn nobody_has_to_read_what_the_programs_print() {
    for path in PROGRAMS {
        let mut program = Program::start(path, &[address(path)]);
        program.stop_listening();
        if path.ends_with("graceful_shutdown") {
            assert_eq!(program.get("/slow/0").said(), (200, "done\n"), "it prints in its handler, too");
        }
        assert!(program.terminate().1.success(), "{path}");
    }
}

#[test]
fn a_full_disk_behind_the_output_ends_no_program() {
    for path in PROGRAMS {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let program = Program::start_unheard(path, &[address(path)], full.into());
        assert!(program.terminate().1.success(), "{path}");
    }
}

#[test]
fn tcp_proxy_passes_bytes_half_closes_and_resets_on_and_is_at_most_60_lines_long() {
    assert!(include_str!("../../src/bin/tcp_proxy.rs").lines().count() <= 60);
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = backend.local_addr().unwrap().to_string();
    let program = Program::start(env!("CARGO_BIN_EXE_tcp_proxy"), &["127.0.0.1:0", &to, "2"]);
    let pair = || {
        let client = program.connect();
        let (server, _) = backend.accept().unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        (client, server)
    };

    let (mut client, mut server) = pair();
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut heard = String::new();
    server.read_to_string(&mut heard).unwrap();
    server.write_all(b"answer").unwrap();
    drop(server);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!((heard, answer), ("question".into(), "answer".into()));

    // Both are idle, and after two seconds both are reset.
    let (mut client, mut server) = pair();
    for end in [&mut client, &mut server] {
        assert_eq!(end.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }

    drop(backend);
    let mut client = program.connect();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset, "nobody is behind it");
    assert!(program.terminate().1.success());
}

#[test]
fn task_chat_lets_all_hear_a_line_and_is_held_up_by_nobody() {
    let program = start(env!("CARGO_BIN_EXE_task_chat"));
    let mut members: Vec<_> = (0..4).map(|_| BufReader::new(program.connect())).collect();
    for (index, member) in members.iter_mut().enumerate() {
        // Who has heard itself is a member.
        member.get_mut().write_all(format!("member {index}\n").as_bytes()).unwrap();
        // It may have heard others before, whose lines are on their way between the workers.
        let own = format!("member {index}");
        assert!(member.lines().map(Result::unwrap).any(|line| line == own));
    }
    members[0].get_mut().write_all(b"tea is ready\n").unwrap();
    for member in &mut members {
        let heard = member.lines().map(Result::unwrap).find(|line| !line.starts_with("member "));
        assert_eq!(heard.as_deref(), Some("tea is ready"));
    }
    let (printed, status) = program.terminate();
    assert!(
        status.success() && printed.contains("drained 4 connections") && printed.contains(" 0 of them cut"),
        "{printed}"
    );
}

#[test]
fn the_chat_of_the_page_about_async_is_the_example_but_for_the_option_that_all_examples_have() {
    let program = include_str!("../../src/bin/task_chat.rs")
        .replace(
            "let (backend, mut words) = examples::words()?;\n    let addr = words.next()",
            "let addr = std::env::args().nth(1)",
        )
        .replace("        .backend(backend)\n", "");
    let page = include_str!("../../../docs/ASYNC.md");
    let (_, behind) = page.split_once("```rust,no_run\n").unwrap();
    let (block, _) = behind.split_once("```\n").unwrap();
    assert!(block.contains("listen_tasks") && program.contains(block));
}
