//! What is in the access log, and what becomes of it when the disk does not keep up.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use netpoll_http::{
    AccessLog, App, Completed, Error, Forwarded, LogFormat, Method, Request, RequestId, Response, Router,
    Server, StatusCode, TestClient, TraceContext,
};

/// What was written, for a test to look at.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Paper {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("nobody panics").clone()).expect("printable ASCII")
    }
}

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody panics").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// More than anything takes.
const PATIENCE: Duration = Duration::from_secs(30);

fn router() -> Router {
    Router::new()
        .get("/", |_: &Request| "hello")
        .get("/orders/{id}", |_: &Request| "an order")
        .get("/missing", |_: &Request| StatusCode::GONE)
        .get("/broken", |_: &Request| StatusCode::BAD_GATEWAY)
        .get("/for_ever", async |_: Request| std::future::pending::<()>().await)
        .get("/large", |_: &Request| Response::bytes(vec![0; 100_000]))
}

fn logged_to(log: &AccessLog) -> TestClient {
    App::new(|_| router()).on_complete(log.hook()).test()
}

fn logged(format: LogFormat) -> (TestClient, AccessLog, Paper) {
    let paper = Paper::default();
    let log = AccessLog::to(paper.clone(), format).expect("a thread");
    (logged_to(&log), log, paper)
}

#[test]
fn a_line_of_the_common_log_format_is_as_apache_has_it() {
    let (client, log, paper) = logged(LogFormat::Common);
    let mut connection = client.connect_from(([10, 0, 0, 7], 4711));
    connection.send(b"GET /orders/7?a=b HTTP/1.1\r\nHost: a\r\n\r\n");
    connection.send(b"GET /nowhere HTTP/1.0\r\n\r\n");
    log.flush();
    let expected = "10.0.0.7 - - [06/Nov/1994:08:49:37 +0000] \"GET /orders/7?a=b HTTP/1.1\" 200 8\n\
                    10.0.0.7 - - [06/Nov/1994:08:49:37 +0000] \"GET /nowhere HTTP/1.0\" 404 10\n";
    assert_eq!(paper.text(), expected);
}

#[test]
fn a_combined_line_has_who_asked_and_a_request_that_could_not_be_read_is_a_dash() {
    let (client, log, paper) = logged(LogFormat::Combined);
    let mut connection = client.connect_from(([10, 0, 0, 7], 4711));
    connection.send(b"GET / HTTP/1.1\r\nHost: a\r\nReferer: http://b/\r\nUser-Agent: curl/8 \"x\"\r\n\r\n");
    connection.send(b"nonsense\r\n\r\n");
    log.flush();
    let text = paper.text();
    let mut lines = text.lines();
    let rest =
        |line: Option<&str>| line.and_then(|line| line.split_once("] ")).map(|(_, rest)| rest.to_owned());
    assert_eq!(rest(lines.next()).as_deref(), Some(r#""GET / HTTP/1.1" 200 5 "http://b/" "curl/8 \"x\"""#));
    let unread = rest(lines.next()).expect("a second line");
    assert!(unread.starts_with("\"-\" 400 ") && unread.ends_with(" \"-\" \"-\""), "{unread}");
}

#[test]
fn a_line_of_json_has_all_that_is_known() {
    let paper = Paper::default();
    let log = AccessLog::to(paper.clone(), LogFormat::Json).expect("a thread");
    let hooks = |_: &_| router().before(RequestId::take).before(TraceContext::take).after(RequestId::show);
    let client = App::new(hooks).on_complete(log.hook()).test();
    client
        .request(Method::GET, "/orders/7")
        .header("X-Request-Id", "abc-7")
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .header("User-Agent", "a \"b\"")
        .send();
    client.raw(b"nonsense\r\n\r\n");
    log.flush();
    let text = paper.text();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let first = &lines[0];
    for (name, expected) in [
        ("time", "1994-11-06T08:49:37Z"),
        ("method", "GET"),
        ("target", "/orders/7"),
        ("version", "HTTP/1.1"),
        ("route", "/orders/{id}"),
        ("outcome", "answered"),
        ("user_agent", "a \"b\""),
        ("request_id", "abc-7"),
        ("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736"),
    ] {
        assert_eq!(first[name], expected, "{name}");
    }
    assert_eq!((&first["status"], &first["queue_us"]), (&200.into(), &0.into()));
    assert!(first["bytes_in"].as_u64() > Some(100) && first["bytes_out"].as_u64() > Some(100));
    let second = &lines[1];
    assert_eq!((&second["status"], &second["outcome"]), (&400.into(), &"malformed".into()));
    assert_eq!((second.get("method"), second.get("route")), (None, None));
    assert_eq!(second["request_id"].as_str().map(str::len), Some(32), "its answer says it as well");
}

#[test]
fn a_line_is_whole_however_long_its_texts_are_and_whatever_is_in_them() {
    let paper = Paper::default();
    let log = AccessLog::to(paper.clone(), LogFormat::Json).expect("a thread");
    let client = App::new(|_: &_| router()).on_complete(log.hook()).test();
    // Of some lengths the text is plain, of others all of it is escaped; short lines follow long ones.
    let texts: Vec<(String, String)> = (0..2600)
        .step_by(97)
        .flat_map(|bytes| {
            [("b".repeat(bytes), "\"".repeat(bytes)), ("\"".repeat(bytes % 7), "c".repeat(bytes))]
        })
        .collect();
    for (target, agent) in &texts {
        let agent = format!("a{agent}");
        client
            .request(Method::GET, &format!("/orders/7?{target}"))
            .header("User-Agent", agent.as_str())
            .send();
    }
    log.flush();
    let text = paper.text();
    let shown = |text: &str| match text.len() {
        0..=2048 => text.to_owned(),
        _ => format!("{}...", &text[..2048]),
    };
    assert_eq!(text.lines().count(), texts.len());
    for (line, (target, agent)) in text.lines().zip(&texts) {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(line["target"], shown(&format!("/orders/7?{target}")));
        assert_eq!(line["user_agent"], shown(&format!("a{agent}")));
    }
}

#[test]
fn a_line_of_json_says_why_it_is_a_5xx_and_no_error_can_write_a_line_of_its_own() {
    const WHY: &str = "duplicate key \"ключ\"\r\n{\"status\":200}\u{1b}[31m 🫖";
    for format in [LogFormat::Common, LogFormat::Combined, LogFormat::Json] {
        let paper = Paper::default();
        let log = AccessLog::to(paper.clone(), format).expect("a thread");
        let fails = |_: &Request| -> Result<(), Error> { Err(io::Error::other(WHY).into()) };
        let routes = move |_: &_| Router::new().get("/fails", fails).get("/", |_: &Request| "hello");
        let client = App::new(routes).on_complete(log.hook()).test();
        client.get("/fails");
        client.get("/");
        log.flush();
        let text = paper.text();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\n')), "{text}");
        if format == LogFormat::Json {
            let lines: Vec<serde_json::Value> =
                text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
            assert_eq!((&lines[0]["status"], &lines[0]["error"]), (&500.into(), &WHY.into()));
            assert_eq!(lines[1].get("error"), None);
        }
    }
}

#[test]
fn no_client_can_write_a_line_of_its_own() {
    for format in [LogFormat::Common, LogFormat::Combined, LogFormat::Json] {
        let (client, log, paper) = logged(format);
        let mut connection = client.connect();
        connection
            .send(b"GET /\"%0a HTTP/1.1\r\nHost: a\r\nUser-Agent: \x09\"\xff\xfe\\\"\r\nReferer: \\\r\n\r\n");
        connection.received();
        log.flush();
        let text = paper.text();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\n')), "{text}");
        if format == LogFormat::Json {
            let line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!(line["user_agent"], "\"\u{ff}\u{fe}\\\"");
        }
    }
}

/// Waits at each write until it is let go.
struct Gate {
    paper: Paper,
    asked: Sender<()>,
    opened: Receiver<()>,
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.asked.send(());
        // Whoever has the other end has gone: it is open for good.
        let _ = self.opened.recv();
        self.paper.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_disk_that_stands_still_holds_nobody_up_and_what_went_wrong_is_lost_last() {
    let paper = Paper::default();
    let ((asked, was_asked), (open, opened)) = (channel(), channel());
    let gate = Gate { paper: paper.clone(), asked, opened };
    let log = AccessLog::to(gate, LogFormat::Common).expect("a thread").ring_bytes(64 * 1024);
    let client = logged_to(&log);
    // Let go before the log, whose end waits for its writer.
    let open = open;
    let mut connection = client.connect();
    let mut ask = |path: &str| {
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        assert!(connection.response().is_some(), "{path} is answered");
    };
    ask("/");
    was_asked.recv().expect("the first line is being written");
    // From here on nobody takes anything out.
    for _ in 0..1000 {
        ask("/");
    }
    let usual = log.lost().usual;
    assert!(usual > 0, "a thousand lines are more than 64 KiB");
    ask("/missing");
    ask("/broken");
    assert_eq!(log.lost().total(), usual, "there was room for what went wrong");
    for _ in 0..200 {
        ask("/missing");
    }
    let client_lines = log.lost().client;
    assert!(client_lines > 0);
    ask("/broken");
    assert_eq!((log.lost().failure, log.lost().client), (0, client_lines));
    for _ in 0..200 {
        ask("/broken");
    }
    assert!(log.lost().failure > 0, "even these are lost when nothing else is left");

    drop(open);
    log.flush();
    let (text, lost) = (paper.text(), log.lost());
    let lines = text.lines().filter(|line| !line.starts_with('#')).count() as u64;
    assert_eq!(lines + lost.total(), 1 + 1000 + 2 + 200 + 1 + 200);
    let says = text
        .lines()
        .filter_map(|line| line.strip_prefix("# ")?.strip_suffix(" lines lost")?.parse::<u64>().ok());
    assert_eq!(says.collect::<Vec<_>>(), [lost.total()], "one line says what is missing");
    let before = paper.text().len();
    client.get("/");
    log.flush();
    assert!(paper.text().len() > before, "and it goes on");
}

#[test]
fn what_cannot_be_written_is_counted_and_the_log_says_so_when_it_can() {
    struct Full(Paper, Arc<Mutex<bool>>);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if *self.1.lock().expect("nobody panics") {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (paper, is_full) = (Paper::default(), Arc::new(Mutex::new(true)));
    let log = AccessLog::to(Full(paper.clone(), Arc::clone(&is_full)), LogFormat::Json).expect("a thread");
    let client = logged_to(&log);
    client.get("/");
    client.get("/");
    log.flush();
    assert_eq!((log.lost().unwritten, paper.text().as_str()), (2, ""));
    *is_full.lock().expect("nobody panics") = false;
    client.get("/");
    log.flush();
    assert!(paper.text().ends_with("{\"lost\":2}\n"), "{}", paper.text());
    assert_eq!(paper.text().lines().count(), 2);
}

#[test]
fn a_sink_that_would_block_is_waited_for() {
    /// Takes a few bytes at each second call.
    #[derive(Clone, Default)]
    struct Narrow(Paper, bool);
    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                Err(io::ErrorKind::WouldBlock.into())
            } else {
                self.0.write(&bytes[..bytes.len().min(60)])
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            self.1 = !self.1;
            if self.1 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        }
    }
    let narrow = Narrow::default();
    let paper = narrow.0.clone();
    let log = AccessLog::to(narrow, LogFormat::Common).expect("a thread");
    let client = logged_to(&log);
    for _ in 0..20 {
        client.get("/");
    }
    log.flush();
    assert_eq!((log.lost().total(), paper.text().lines().count()), (0, 20), "{}", paper.text());
}

#[test]
fn a_sink_that_panics_costs_its_lines_and_nothing_else() {
    struct Bomb;
    impl Write for Bomb {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            panic!("as told")
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let log = AccessLog::to(Bomb, LogFormat::Json).expect("a thread");
    let client = logged_to(&log);
    assert_eq!(client.get("/").text(), "hello");
    log.flush();
    assert_eq!(log.lost().unwritten, 1);
}

/// A disk that has room for so many bytes.
struct Disk {
    paper: Paper,
    room: Arc<Mutex<usize>>,
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut room = self.room.lock().expect("nobody panics");
        let taken = bytes.len().min(*room);
        *room -= taken;
        match taken {
            0 => Err(io::Error::from(io::ErrorKind::StorageFull)),
            _ => self.paper.write(&bytes[..taken]),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_line_of_which_the_disk_took_a_part_is_counted_and_the_next_one_begins_a_line() {
    let (paper, room) = (Paper::default(), Arc::new(Mutex::new(usize::MAX)));
    let disk = Disk { paper: paper.clone(), room: Arc::clone(&room) };
    let log = AccessLog::to(disk, LogFormat::Json).expect("a thread");
    let client = logged_to(&log);
    client.get("/");
    log.flush();
    let line_bytes = paper.text().len();
    // Room for a whole line and a part of another.
    *room.lock().expect("nobody panics") = line_bytes + 20;
    for _ in 0..3 {
        client.get("/");
    }
    log.flush();
    assert_eq!(log.lost().unwritten, 2, "of three lines one has arrived");
    *room.lock().expect("nobody panics") = usize::MAX;
    client.get("/missing");
    log.flush();
    let text = paper.text();
    let torn: Vec<&str> = text.lines().filter(|line| !line.ends_with('}')).collect();
    assert_eq!(torn.len(), 1, "{text}");
    assert!(
        text.lines().any(|line| line.starts_with("{\"time\"") && line.contains("\"target\":\"/missing\"")),
        "{text}"
    );
    assert!(text.ends_with("{\"lost\":2}\n"), "{text}");
}

/// Does not come back from a write before somebody has put more into the log.
fn slow_log() -> (AccessLog, Paper, Receiver<()>, Sender<()>) {
    let paper = Paper::default();
    let ((asked, was_asked), (open, opened)) = (channel(), channel());
    let gate = Gate { paper: paper.clone(), asked, opened };
    (AccessLog::to(gate, LogFormat::Combined).expect("a thread"), paper, was_asked, open)
}

#[test]
fn a_disk_that_is_slower_than_the_requests_keeps_nobody_waiting_who_flushes() {
    let (log, _paper, was_asked, open) = slow_log();
    let client = logged_to(&log);
    client.get("/");
    let flusher = std::thread::spawn({
        let log = log.clone();
        move || log.flush()
    });
    let began = Instant::now();
    while !flusher.is_finished() {
        assert!(began.elapsed() < PATIENCE, "it is never done");
        if was_asked.recv_timeout(Duration::from_millis(1)).is_ok() {
            client.get("/");
            open.send(()).expect("the log is there");
        }
    }
    flusher.join().expect("it does not panic");
    drop(open);
}

#[test]
fn a_worker_that_is_faster_than_the_disk_does_not_keep_the_lines_of_another_from_it() {
    let (log, paper, was_asked, open) = slow_log();
    let (busy, quiet) = (logged_to(&log), logged_to(&log));
    let agent = "x".repeat(2000);
    let fill = || {
        for _ in 0..80 {
            busy.request(Method::GET, "/").header("User-Agent", &agent).send();
        }
    };
    fill();
    was_asked.recv_timeout(PATIENCE).expect("the first lines are being written");
    quiet.get("/broken");
    for _ in 0..20 {
        fill();
        open.send(()).expect("the log is there");
        was_asked.recv_timeout(PATIENCE).expect("there is always more");
    }
    assert!(paper.text().contains("GET /broken"), "what went wrong elsewhere is not kept from the disk");
    drop(open);
}

/// A folder of a test's own, which goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("netpoll-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // The system's to clear away otherwise.
    }
}

#[test]
fn a_file_that_was_moved_is_left_alone_once_it_is_opened_again() {
    let folder = Folder::new("reopen");
    let path = folder.0.join("access.log");
    fs::write(&path, "what was there\n").expect("a file");
    let log = AccessLog::file(&path, LogFormat::Common).expect("a file");
    let client = logged_to(&log);
    client.get("/before");
    log.flush();
    assert_eq!(folder.read("access.log").lines().count(), 2, "behind what was there");
    fs::rename(&path, folder.0.join("access.log.1")).expect("it is there");
    client.get("/moved");
    log.flush();
    assert_eq!(folder.read("access.log.1").lines().count(), 3, "it does not notice by itself");
    log.reopen().expect("it can be made");
    client.get("/after");
    log.flush();
    assert_eq!(
        (folder.read("access.log.1").lines().count(), folder.read("access.log").lines().count()),
        (3, 1)
    );

    drop((client, log));
    let nowhere = AccessLog::file(folder.0.join("no/such/folder"), LogFormat::Common);
    let error = nowhere.expect_err("there is no such folder").to_string();
    assert!(error.contains("no/such/folder"), "{error}");
}

#[test]
fn a_hangup_opens_the_file_again() {
    let folder = Folder::new("hangup");
    let path = folder.0.join("access.log");
    let log = AccessLog::file(&path, LogFormat::Common).expect("a file");
    let log = log.reopen_on_hangup().expect("a descriptor");
    let client = logged_to(&log);
    for round in 0..3 {
        fs::rename(&path, folder.0.join(format!("old.{round}"))).expect("it is there");
        let pid = std::process::id().to_string();
        let kill = std::process::Command::new("kill").args(["-HUP", &pid]).status();
        assert!(kill.expect("kill is there").success());
        let deadline = Instant::now() + Duration::from_secs(30);
        while !path.exists() {
            client.get("/");
            log.flush();
            assert!(Instant::now() < deadline, "it is opened again");
        }
    }
}

#[test]
fn a_client_that_leaves_is_in_the_log_and_all_lines_are_there_when_the_server_is_gone() {
    let paper = Paper::default();
    let log = AccessLog::to(paper.clone(), LogFormat::Combined).expect("a thread");
    let (sender, over) = channel();
    let running = Server::bind("127.0.0.1:0")
        .expect("an address")
        .workers(2)
        .on_complete(log.hook())
        .on_complete(move |_| {
            let sender = sender.clone();
            move |done: &Completed<'_>| sender.send(done.outcome).expect("the test listens")
        })
        .app(|_| router())
        .start()
        .expect("it starts");
    let addr = running.addr().as_socket_addr().expect("TCP");
    let mut leaves = TcpStream::connect(addr).expect("it listens");
    leaves.write_all(b"GET /for_ever HTTP/1.1\r\nHost: a\r\n\r\n").expect("it is there");
    drop(leaves);
    over.recv().expect("it is over");
    for _ in 0..50 {
        let mut client = TcpStream::connect(addr).expect("it listens");
        client.write_all(b"GET /large HTTP/1.0\r\n\r\n").expect("it is there");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).expect("an answer");
        assert!(answer.len() > 100_000);
    }
    running.stop(Duration::from_secs(10)).expect("it ran");
    drop(log);
    let text = paper.text();
    assert_eq!(
        text.lines().filter(|line| line.contains("\"GET /for_ever HTTP/1.1\" 499 0 ")).count(),
        1,
        "{text}"
    );
    assert_eq!(text.lines().filter(|line| line.contains("\"GET /large HTTP/1.0\" 200 100000 ")).count(), 50);
    assert_eq!(text.lines().count(), 51);
}

#[test]
fn behind_a_trusted_proxy_the_line_names_the_client() {
    let paper = Paper::default();
    let log = AccessLog::to(paper.clone(), LogFormat::Common).expect("a thread");
    let proxies = Forwarded::x_forwarded_for(["10.0.0.0/8"]).expect("a network");
    let service = move |_: &_| {
        let proxies = proxies.clone();
        router().before(move |req: &Request| proxies.note(req))
    };
    let client = App::new(service).on_complete(log.hook()).test();
    for peer in [[10, 0, 0, 7], [11, 0, 0, 7]] {
        let mut connection = client.connect_from((peer, 4711));
        connection.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n");
    }
    log.flush();
    let text = paper.text();
    let names: Vec<_> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names, ["192.0.2.7", "11.0.0.7"]);
}

#[test]
fn of_requests_that_went_well_one_in_so_many_has_a_line_and_of_others_each() {
    let paper = Paper::default();
    let log = AccessLog::to(paper.clone(), LogFormat::Common).expect("a thread").sample(10);
    let panics = |_: &Request| -> &str { panic!("as told") };
    let client = App::new(move |_| router().get("/panics", panics)).on_complete(log.hook()).test();
    let mut connection = client.connect();
    for round in 0..1000 {
        connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(connection.response().is_some());
        if round % 100 == 0 {
            for path in ["/nowhere", "/missing", "/broken", "/panics"] {
                client.get(path);
            }
            client.raw(b"nonsense\r\n\r\n");
        }
    }
    log.flush();
    let text = paper.text();
    let lines = |what: &str| text.lines().filter(|line| line.contains(what)).count();
    assert_eq!((lines("\"GET / HTTP/1.1\" 200 "), log.sampled_out()), (100, 900));
    let wrong = ["/nowhere", "/missing", "/broken", "/panics", "\"-\" 400 "];
    assert_eq!(wrong.map(lines), [10; 5]);
    assert_eq!((text.lines().count(), log.lost().total()), (150, 0), "what is left out is not lost");
}

#[test]
fn a_request_whose_trace_is_sampled_has_its_line_where_the_trace_is_taken() {
    for is_taken in [true, false] {
        let paper = Paper::default();
        let log = AccessLog::to(paper.clone(), LogFormat::Json).expect("a thread").sample(1000);
        let service = move |_: &_| if is_taken { router().before(TraceContext::take) } else { router() };
        let client = App::new(service).on_complete(log.hook()).test();
        client.get("/"); // The first of its thousand.
        for flags in ["01", "00"] {
            let parent = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}");
            client.request(Method::GET, "/orders/7").header("traceparent", &parent).send();
        }
        log.flush();
        let lines = paper.text().lines().filter(|line| line.contains("/orders/7")).count();
        assert_eq!((lines, log.sampled_out()), if is_taken { (1, 1) } else { (0, 2) });
    }
}

/// Asks for the same so many times, in batches, and waits for all answers.
fn ask(stream: &mut TcpStream, path: &str, body: &str, times: usize) {
    const BATCH: usize = 100;
    let end = format!("\r\n\r\n{body}");
    for begin in (0..times).step_by(BATCH) {
        let count = BATCH.min(times - begin);
        let batch = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").repeat(count);
        stream.write_all(batch.as_bytes()).expect("it reads");
        let (mut answers, mut piece) = (Vec::new(), [0; 16 * 1024]);
        while memchr::memmem::find_iter(&answers, "HTTP/1.1 ").count() < count
            || !answers.ends_with(end.as_bytes())
        {
            let bytes = match stream.read(&mut piece) {
                // By the hangup of another test: a read that has a deadline is not begun again.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                outcome => outcome.expect("an answer in time, whatever the log does"),
            };
            assert!(bytes > 0, "the connection stays");
            answers.extend_from_slice(&piece[..bytes]);
        }
    }
}

#[test]
fn a_flood_of_lines_on_a_server_whose_disk_stands_still_holds_nobody_up_and_all_are_accounted_for() {
    for one_in in [1, 10] {
        let paper = Paper::default();
        let ((asked, was_asked), (open, opened)) = (channel(), channel());
        let gate = Gate { paper: paper.clone(), asked, opened };
        let log = AccessLog::to(gate, LogFormat::Combined).expect("a thread");
        let log = log.ring_bytes(64 * 1024).sample(one_in);
        // Let go before the log, whose end waits for its writer.
        let open = open;
        let running = Server::bind("127.0.0.1:0")
            .expect("an address")
            .workers(2)
            .on_complete(log.hook())
            .app(|_| router())
            .start()
            .expect("it starts");
        let addr = running.addr().as_socket_addr().expect("TCP");
        // Several, so that both workers have some.
        let mut clients: Vec<_> = (0..8).map(|_| TcpStream::connect(addr).expect("it listens")).collect();
        for client in &clients {
            client.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
        }
        ask(&mut clients[0], "/missing", "", 1);
        was_asked.recv().expect("its line is being written, and goes on being so");
        let (usual, broken) = (16_000, 40);
        for client in &mut clients {
            ask(client, "/", "hello", usual / 8);
        }
        let lost = log.lost();
        assert!(lost.usual > 0, "more than there is room for");
        for client in &mut clients {
            ask(client, "/broken", "", broken / 8);
        }
        assert_eq!(log.lost(), lost, "the reserve has room for them");
        let flood = 4000;
        for client in &mut clients {
            ask(client, "/broken", "", flood / 8);
        }
        assert!(log.lost().failure > 0, "it is not without end");

        drop(open);
        drop(clients);
        running.stop(Duration::from_secs(10)).expect("it ran");
        log.flush();
        let (text, lost) = (paper.text(), log.lost());
        let written = |status: &str| text.lines().filter(|line| line.contains(status)).count() as u64;
        assert_eq!(written(" 200 ") + lost.usual + log.sampled_out(), usual as u64, "one in {one_in}");
        assert_eq!(written(" 502 ") + lost.failure, (broken + flood) as u64);
        assert_eq!((written(" 410 "), lost.client, lost.unwritten), (1, 0, 0));
        let says =
            text.lines().filter_map(|line| line.strip_prefix("# ")?.split(' ').next()?.parse::<u64>().ok());
        assert_eq!(says.sum::<u64>(), lost.total(), "the log says what it lacks");
        let sampled_out = log.sampled_out() * u64::from(one_in);
        // Each worker is somewhere in a block.
        let expected = (usual as u64) * u64::from(one_in - 1);
        assert!(sampled_out.abs_diff(expected) < 2 * u64::from(one_in).pow(2), "{sampled_out} of {expected}");
    }
}
