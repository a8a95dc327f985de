//! What is in the access log, and what becomes of it when the disk does not keep up.

use std::cell::OnceCell;
use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use netpoll_http::{
    AccessLog, App, Completed, Error, Forwarded, HeaderName, HeaderValue, Json, LogFormat, Method, Params,
    Parts, Replied, Reply, Request, RequestId, Response, Route, RouteId, Router, Server, Service, StatusCode,
    TestClient, TraceContext,
};

use crate::chance::Chance;

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
        .post("/length", |req: &Request| req.body().len().to_string())
        .get("/waits", async |_: Request| {
            netpoll_core::time::sleep(Duration::from_secs(5)).await;
            "at last"
        })
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
    assert_eq!(first["status"], 200);
    assert!(first["bytes_in"].as_u64() > Some(100) && first["bytes_out"].as_u64() > Some(100));
    let second = &lines[1];
    assert_eq!((&second["status"], &second["outcome"]), (&400.into(), &"malformed".into()));
    assert_eq!((second.get("method"), second.get("route")), (None, None));
    assert_eq!(second["request_id"].as_str().map(str::len), Some(32), "its answer says it as well");
}

#[test]
fn a_line_of_json_has_the_times_that_a_request_took_and_no_zeros() {
    let paper = Paper::default();
    let log = AccessLog::to(paper.clone(), LogFormat::Json).expect("a thread");
    let client = App::new(|_: &_| router()).on_complete(log.hook()).test();
    let mut connection = client.connect();
    connection.send(b"POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
    connection.advance(Duration::from_millis(2));
    connection.send(b"hello");
    connection.send(b"GET /waits HTTP/1.1\r\nHost: a\r\n\r\n");
    connection.advance(Duration::from_secs(5));
    connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    log.flush();
    let times = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        ["queue_us", "handler_us", "send_us"]
            .map(|name| line.get(name).map(|time| time.as_u64().expect("a number")))
    };
    let lines: Vec<_> = paper.text().lines().map(times).collect();
    assert_eq!(lines, [[Some(2000), None, None], [None, Some(5_000_000), None], [None; 3]]);
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

/// A text as the documentation of the formats says, written without any haste.
fn escaped(text: &[u8], format: LogFormat) -> String {
    let shown = text.iter().take(2048).map(|byte| match (*byte, format) {
        (b'"' | b'\\', _) => format!("\\{}", char::from(*byte)),
        (b' '..=b'~', _) => char::from(*byte).to_string(),
        (byte, LogFormat::Json) => format!("\\u{byte:04x}"),
        (byte, _) => format!("\\x{byte:02x}"),
    });
    shown.chain((text.len() > 2048).then(|| "...".to_owned())).collect()
}

/// The line of a request in the same way: all but its last figures.
fn slow_line(
    format: LogFormat,
    client: &str,
    (method, target): (&[u8], &[u8]),
    host: &[u8],
    fields: [Option<&[u8]>; 2],
    (bytes_in, bytes_out, body_bytes): (usize, usize, usize),
) -> String {
    let show = |text: &[u8]| escaped(text, format);
    let (method, target, host) = (show(method), show(target), show(host));
    if format == LogFormat::Json {
        let [referer, user_agent] = ["referer", "user_agent"];
        let more = [(referer, fields[0]), (user_agent, fields[1])]
            .iter()
            .filter_map(|(name, value)| value.map(|value| format!(",\"{name}\":\"{}\"", show(value))))
            .collect::<String>();
        return format!(
            "{{\"time\":\"1994-11-06T08:49:37Z\",\"client\":\"{client}\",\"method\":\"{method}\",\
             \"target\":\"{target}\",\"version\":\"HTTP/1.1\",\"host\":\"{host}\",\"route\":\"/{{*rest}}\",\
             \"status\":200,\"outcome\":\"answered\",\"bytes_in\":{bytes_in},\"bytes_out\":{bytes_out}{more}}}\n"
        );
    }
    let more = match format {
        LogFormat::Combined => {
            fields.map(|value| format!(" \"{}\"", value.map_or("-".to_owned(), show))).concat()
        }
        _ => String::new(),
    };
    format!(
        "{client} - - [06/Nov/1994:08:49:37 +0000] \"{method} {target} HTTP/1.1\" 200 {body_bytes}{more}\n"
    )
}

#[test]
fn a_line_is_what_the_documentation_says_whatever_is_in_the_texts_of_a_peer() {
    use std::net::SocketAddr;

    const TOKENS: &[u8] = b"!#$%&'*+-.^_`|~0123456789ABCXYZabcxyz";
    let mut chance = Chance::new(7);
    for format in [LogFormat::Common, LogFormat::Combined, LogFormat::Json] {
        let paper = Paper::default();
        let log = AccessLog::to(paper.clone(), format).expect("a thread");
        let answers = |req: &Request| "x".repeat(req.header("n").map_or(0, |n| n.len() * n.len() * n.len()));
        let client = App::new(move |_| Router::new().any("/{*rest}", answers)).on_complete(log.hook()).test();
        for round in 0..600 {
            // Most are short; some are about as long as is shown, and some longer.
            let mut any = |from: &mut dyn FnMut(usize) -> u8| -> Vec<u8> {
                let length = match chance.below(8) {
                    0 => 2040 + chance.below(20),
                    1 => chance.below(3000),
                    _ => chance.below(40),
                };
                (0..length).map(|_| from(chance.below(1 << 16))).collect()
            };
            let odd = round % 3;
            // All that may be in a value: mostly what stands for itself, or mostly not.
            let mut value = |number: usize| match number % 5 {
                0 => b"\"\\\t\xff\x80 "[number / 5 % 6],
                _ if odd == 0 => b'a' + (number % 26) as u8,
                _ => [b' '..=b'~', 0x80..=0xff][odd - 1].clone().nth(number % 95).unwrap_or(b'y'),
            };
            let (referer, agent) = (any(&mut value), any(&mut value));
            let path = any(&mut |number| match b'!' + (number % 94) as u8 {
                b'#' => b'"',
                byte => byte,
            });
            let target = [b"/t", &path[..]].concat();
            let method: Vec<u8> = match chance.below(3) {
                0 => b"GET".to_vec(),
                1 => b"POST".to_vec(),
                _ => (0..=chance.below(32)).map(|_| TOKENS[chance.below(TOKENS.len())]).collect(),
            };
            let (peer, name): (SocketAddr, _) = match chance.below(4) {
                0 => ("[2001:db8::7]:1".parse().expect("an address"), "2001:db8::7".to_owned()),
                1 => ("[::ffff:10.0.0.7]:1".parse().expect("an address"), "10.0.0.7".to_owned()),
                _ => {
                    let octets: [u8; 4] = std::array::from_fn(|_| chance.below(256) as u8);
                    let ip = std::net::Ipv4Addr::from(octets);
                    ((ip, 1).into(), ip.to_string())
                }
            };
            let mut head = [&method[..], b" ", &target, b" HTTP/1.1\r\nHost: a-b.c:80\r\n"].concat();
            // Other fields around, and a second one of a name, of which the first is shown.
            let has = [chance.below(4) > 0, chance.below(4) > 0];
            head.extend_from_slice(
                format!("N: {}\r\nReferers: no\r\n", "n".repeat(chance.below(15))).as_bytes(),
            );
            for (name, text, has) in [("REFERER", &referer, has[0]), ("user-AGENT", &agent, has[1])] {
                if has {
                    head.extend_from_slice(format!("{name}: ").as_bytes());
                    head.extend_from_slice(text);
                    head.extend_from_slice(format!("\r\n{name}: second\r\n").as_bytes());
                }
            }
            head.extend_from_slice(b"\r\n");
            let mut connection = client.connect_from(peer);
            connection.send(&head);
            let answer = connection.received();
            assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", head.escape_ascii());
            let head_bytes = memchr::memmem::find(&answer, b"\r\n\r\n").expect("a head") + 4;
            log.flush();
            let line = std::mem::take(&mut *paper.0.lock().expect("nobody panics"));
            let line = String::from_utf8(line).expect("ASCII");
            let trimmed = |text: &'_ [u8]| {
                let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
                let begin = text.iter().position(|byte| !is_blank(byte)).unwrap_or(text.len());
                let end = text.iter().rposition(|byte| !is_blank(byte)).map_or(begin, |end| end + 1);
                text[begin..end].to_vec()
            };
            let (referer, agent) = (trimmed(&referer), trimmed(&agent));
            let fields = [has[0].then_some(&referer[..]), has[1].then_some(&agent[..])];
            let bytes = (head.len(), answer.len(), answer.len() - head_bytes);
            assert_eq!(
                line,
                slow_line(format, &name, (&method, &target), b"a-b.c:80", fields, bytes),
                "round {round}"
            );
            if format == LogFormat::Json {
                let read: serde_json::Value = serde_json::from_str(&line).expect("JSON");
                assert_eq!(read["bytes_in"], head.len());
            }
        }
    }
}

#[test]
fn whatever_is_sent_each_line_of_json_is_one() {
    let paper = Paper::default();
    let log = AccessLog::to(paper.clone(), LogFormat::Json).expect("a thread");
    let mut chance = Chance::new(8);
    let good = b"GET /orders/7 HTTP/1.1\r\nHost: example.org:80\r\nUser-Agent: me\r\nReferer: you\r\n\r\n";
    for at in 0..good.len() {
        let client = App::new(|_| router()).on_complete(log.hook()).test();
        for byte in (0..=u8::MAX).filter(|byte| !byte.is_ascii_alphanumeric()) {
            let mut bytes = good.to_vec();
            bytes[at] = byte;
            if chance.below(4) == 0 {
                let other = chance.below(bytes.len());
                bytes[other] = chance.below(256) as u8;
            }
            client.raw(&bytes);
        }
        log.flush();
    }
    let text = paper.text();
    assert!(text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\n')));
    let mut methods = 0;
    for line in text.lines() {
        let line: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        methods += usize::from(line["method"] == "GET");
        assert!(line["status"].is_u64() || line["outcome"] == "abandoned", "{line}");
    }
    assert!(methods > 1000 && log.lost().total() == 0, "{methods} {:?}", log.lost());
}

#[test]
fn the_size_in_a_line_is_that_of_the_body_whichever_way_the_answer_was_written() {
    let paper = Paper::default();
    let log = AccessLog::to(paper.clone(), LogFormat::Common).expect("a thread");
    let added = || (HeaderName::from_static("x-a"), HeaderValue::from_static("b"));
    let routes = move || {
        Router::new()
            .get("/text", |_: &Request| "hello")
            .get("/json", |_: &Request| Json([1, 2]))
            .get("/created", |_: &Request| (StatusCode::CREATED, Json([1, 2])))
            .get("/more", move |_: &Request, reply: Reply<'_>| {
                let (name, value) = added();
                reply.with_header(name, value).json(StatusCode::OK, &[1, 2])
            })
            .get("/more/text", move |_: &Request, reply: Reply<'_>| {
                let (name, value) = added();
                reply.with_header(name, value).bytes(StatusCode::OK, "text/plain", b"hello")
            })
            .get("/more/close", move |_: &Request, reply: Reply<'_>| {
                let (name, value) = added();
                reply.close().with_header(name, value).json(StatusCode::OK, "\r\n\r\n")
            })
            .get("/async", async |_: Request| Json([1, 2]))
            .get("/fails", |_: &Request| -> Result<(), Error> { Err(Error::bad_request("why not")) })
            .get("/panics", |_: &Request| -> &str { panic!("as told") })
            .method_not_allowed(|_: &Request| (StatusCode::METHOD_NOT_ALLOWED, Json("not this one")))
            .fallback(|_: &Request| Json("nothing"))
    };
    let kinds: [fn(Router) -> Router; 4] = [
        |router| router,
        |router| router.before(|_: &Request| ()),
        |router| router.before(RequestId::take).after(RequestId::show),
        |router| {
            router.after(|_: &Request, parts: &mut Parts| {
                parts.headers.insert(HeaderName::from_static("x-b"), HeaderValue::from_static("c"));
            })
        },
    ];
    for kind in kinds {
        let client = App::new(move |_| kind(routes())).on_complete(log.hook()).test();
        let ways = [
            "/text",
            "/json",
            "/created",
            "/more",
            "/more/text",
            "/more/close",
            "/async",
            "/fails",
            "/panics",
            "/nowhere",
        ];
        let all = ways.map(|path| ("GET", path)).into_iter();
        for (method, path) in
            all.chain(ways.map(|path| ("HEAD", path))).chain([("PUT", "/json"), ("GET", "*")])
        {
            // The second answer of a connection begins where something lies already.
            let mut connection = client.connect();
            connection.send(
                format!("GET /text HTTP/1.1\r\nHost: a\r\n\r\n{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n")
                    .as_bytes(),
            );
            let answers = String::from_utf8(connection.received()).expect("text");
            let (_, last) = answers.rsplit_once("HTTP/1.1 ").expect("an answer");
            let (_, body) = last.split_once("\r\n\r\n").expect("a head");
            log.flush();
            let lines = std::mem::take(&mut *paper.0.lock().expect("nobody panics"));
            let lines = String::from_utf8(lines).expect("ASCII");
            assert_eq!(lines.lines().count(), 2, "{method} {path}: {answers}");
            assert!(lines.ends_with(&format!(" {}\n", body.len())), "{method} {path}: {lines}{answers}");
        }
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
    let log = AccessLog::to(gate, LogFormat::Common).expect("a thread").room_bytes(64 * 1024);
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
fn a_sink_that_would_block_for_ever_is_waited_for_once_however_many_workers_there_are() {
    struct Stuck(Arc<AtomicU32>);
    impl Write for Stuck {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            self.0.fetch_add(1, Relaxed);
            Err(io::ErrorKind::WouldBlock.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            self.write(&[]).map(|_| ())
        }
    }
    let times = Arc::new(AtomicU32::new(0));
    let log = AccessLog::to(Stuck(Arc::clone(&times)), LogFormat::Json).expect("a thread");
    let workers: Vec<TestClient> = (0..5).map(|_| logged_to(&log)).collect();
    // The thread is at the first one, or is not, when the others come.
    for worker in &workers {
        worker.get("/");
    }
    log.flush();
    assert_eq!(log.lost().unwritten, 5);
    let seconds = times.load(Relaxed) / 200;
    assert!((1..=3).contains(&seconds), "it was waited for {seconds} s");
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

#[test]
fn behind_a_sink_that_has_panicked_halfway_the_next_line_begins_a_line() {
    /// Panics once, when it has taken ten bytes.
    struct Trips(Paper, bool);
    impl Write for Trips {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if !std::mem::replace(&mut self.1, true) {
                self.0.write_all(&bytes[..10])?;
                panic!("as told")
            }
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let paper = Paper::default();
    let log = AccessLog::to(Trips(paper.clone(), false), LogFormat::Json).expect("a thread");
    let client = logged_to(&log);
    client.get("/");
    log.flush();
    client.get("/missing");
    log.flush();
    let text = paper.text();
    let lines: Vec<&str> = text.lines().collect();
    assert!(matches!(lines[..], ["{\"time\":\"1", "{\"lost\":1}", _]), "{text}");
    assert!(lines[2].starts_with("{\"time\"") && lines[2].contains("/missing"), "{text}");
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

#[test]
fn a_log_whose_sink_is_gone_asks_it_seldom_whether_it_is_back() {
    struct Gone(Sender<()>);
    impl Write for Gone {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.send(()); // Nobody counts any more.
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (asked, was_asked) = channel();
    let log = AccessLog::to(Gone(asked), LogFormat::Json).expect("a thread");
    let client = logged_to(&log);
    client.get("/");
    let (began, mut times) = (Instant::now(), 0);
    while let Some(left) = Duration::from_millis(500).checked_sub(began.elapsed()) {
        times += was_asked.recv_timeout(left).map_or(0, |()| 1);
    }
    assert!((1..8).contains(&times), "{times} times in half a second");
    assert_eq!(log.lost().unwritten, 1);
}

#[test]
fn a_log_whose_sink_is_back_says_what_it_lacks_though_nobody_asks_for_anything_more() {
    let (paper, room) = (Paper::default(), Arc::new(Mutex::new(0)));
    let disk = Disk { paper: paper.clone(), room: Arc::clone(&room) };
    let log = AccessLog::to(disk, LogFormat::Json).expect("a thread");
    let client = logged_to(&log);
    client.get("/");
    // Long enough for it to have given up asking often.
    for _ in 0..5 {
        log.flush();
    }
    *room.lock().expect("nobody panics") = usize::MAX;
    let began = Instant::now();
    while paper.text() != "{\"lost\":1}\n" {
        assert!(began.elapsed() < PATIENCE, "{}", paper.text());
        std::thread::yield_now();
    }
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
fn a_line_begins_a_line_wherever_the_file_ended_and_no_empty_one_comes_before_it() {
    let folder = Folder::new("torn");
    let path = folder.0.join("access.log");
    let moved = |times: u32| folder.0.join(format!("access.log.{times}"));
    let is_line = |line: &str| line.starts_with("{\"time\"") && line.ends_with('}');
    let lines = |text: &str| text.split('\n').map(|line| (is_line(line), line.len())).collect::<Vec<_>>();
    // Its disk was full, or the machine lost its power.
    fs::write(&path, "{\"time\":\"19").expect("a file");
    let log = AccessLog::file(&path, LogFormat::Json).expect("a file");
    let client = logged_to(&log);
    client.get("/");
    log.flush();
    let text = folder.read("access.log");
    assert!(matches!(lines(&text)[..], [(false, 11), (true, _), (false, 0)]), "{text}");

    // The same where it is opened again, and not where it is another one.
    for (nth, (before, is_moved)) in
        [("{\"torn", false), ("{\"torn", true), ("whole\n", true), ("", true)].into_iter().enumerate()
    {
        fs::rename(&path, moved(2 * nth as u32)).expect("it is there");
        fs::write(&path, before).expect("a file");
        log.reopen().expect("it is there");
        if is_moved {
            log.flush();
            fs::rename(&path, moved(2 * nth as u32 + 1)).expect("it is there");
            log.reopen().expect("it can be made");
        }
        client.get("/");
        log.flush();
        let text = folder.read("access.log");
        match is_moved {
            true => assert!(matches!(lines(&text)[..], [(true, _), (false, 0)]), "{text}"),
            false => assert!(matches!(lines(&text)[..], [(false, 6), (true, _), (false, 0)]), "{text}"),
        }
    }
}

#[test]
fn a_hangup_opens_the_file_again() {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).map(str::trim);
    if ignored.and_then(|mask| u64::from_str_radix(mask, 16).ok()).is_some_and(|mask| mask & 1 != 0) {
        return eprintln!("skipped: this process was started to ignore hangups, as by nohup");
    }
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
fn a_line_says_what_its_own_request_was_whatever_came_before_it() {
    // More than are remembered, and one that is too long for it.
    const ROUTES: usize = 100;
    let pattern = |route: usize| match route {
        ROUTES => format!("/{}", "long-".repeat(60)),
        route => format!("/route/{route}"),
    };
    let paper = Paper::default();
    let log = AccessLog::to(paper.clone(), LogFormat::Json).expect("a thread").room_bytes(4 << 20);
    let service = move |_: &_| {
        let answer = |request: &Request, reply: Reply| {
            let status = match request.query_raw() {
                Some("made") => StatusCode::CREATED,
                Some("gone") => StatusCode::GONE,
                _ => StatusCode::OK,
            };
            reply.bytes(status, "text/plain", b"an answer")
        };
        (0..=ROUTES).fold(Router::new(), |router, route| {
            router.get(&pattern(route), answer).post(&pattern(route), answer)
        })
    };
    let client = App::new(service).on_complete(log.hook()).test();
    let peers = ["10.0.0.7:1", "10.0.0.8:1", "192.168.100.200:1", "[2001:db8::7]:1"];
    let mut connections =
        peers.map(|peer| client.connect_from(peer.parse::<std::net::SocketAddr>().expect("an address")));
    let mut chance = Chance::new(9);
    let mut expected = Vec::new();
    for _ in 0..2000 {
        let (route, peer) = (chance.below(ROUTES + 1), chance.below(peers.len()));
        let method = ["GET", "GET", "POST"][chance.below(3)];
        let (query, status) = [("", 200), ("?made", 201), ("?gone", 410)][chance.below(3)];
        // Often the same again.
        for _ in 0..=chance.below(3) {
            let request = format!(
                "{method} {}{query} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
                pattern(route)
            );
            connections[peer].send(request.as_bytes());
            let client = peers[peer].trim_end_matches(":1").trim_matches(['[', ']']);
            expected.push((client, method, format!("{}{query}", pattern(route)), pattern(route), status));
        }
    }
    log.flush();
    let text = paper.text();
    assert_eq!(text.lines().count(), expected.len());
    for (line, (client, method, target, route, status)) in text.lines().zip(expected) {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let says =
            ["client", "method", "target", "route"].map(|name| line[name].as_str().unwrap_or_default());
        assert_eq!(says, [client, method, &target, &route]);
        assert_eq!((&line["status"], &line["outcome"]), (&status.into(), &"answered".into()));
    }
}

/// A service of one route, the name of which lies where that of the one before it lay.
struct Named(Arc<Mutex<String>>, String);

impl Drop for Named {
    fn drop(&mut self) {
        *self.0.lock().expect("nobody panics") = std::mem::take(&mut self.1);
    }
}

impl Service for Named {
    fn find(&self, _method: &str, _path: &[u8], _params: &mut Params) -> Route<'_> {
        Route::To(RouteId(0))
    }

    fn methods(&self) -> &str {
        "GET, HEAD"
    }

    fn pattern(&self, _route: RouteId) -> Option<&str> {
        Some(&self.1)
    }

    fn call(&self, _route: RouteId, _request: &Request<'_>, reply: Reply<'_>) -> Replied {
        reply.bytes(StatusCode::OK, "text/plain", b"an answer")
    }
}

type Hook = Rc<dyn Fn(&Completed<'_>)>;

thread_local! {
    /// Of all services that this thread has, one after the other.
    static HOOK: OnceCell<Hook> = const { OnceCell::new() };
}

#[test]
fn a_hook_that_outlives_a_service_says_of_the_next_one_what_its_routes_are() {
    let (paper, place) = (Paper::default(), Arc::new(Mutex::new(String::with_capacity(64))));
    let log = AccessLog::to(paper.clone(), LogFormat::Json).expect("a thread");
    // The last ones look like those before them would if they were escaped.
    for name in ["/a", "/b", "/a/long", "/a", "/\"", "/\\\"", "/\"", "/a", "/\\", "/\\\\"] {
        let (place, make) = (Arc::clone(&place), log.hook());
        let app = App::new(move |_| {
            let mut text = std::mem::take(&mut *place.lock().expect("nobody panics"));
            text.clear();
            text.push_str(name);
            Named(Arc::clone(&place), text)
        });
        let watched = app.on_complete(move |worker| {
            let hook = HOOK.with(|hook| Rc::clone(hook.get_or_init(|| make(worker).into())));
            move |done: &Completed<'_>| hook(done)
        });
        watched.test().get("/");
        log.flush();
        let text = paper.text();
        let line: serde_json::Value =
            serde_json::from_str(text.lines().last().unwrap_or_default()).expect("JSON");
        assert_eq!(line["route"].as_str(), Some(name), "{text}");
    }
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
        let log = log.room_bytes(64 * 1024).sample(one_in);
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
