//! What becomes of orders, as the mini-program tells it, by hand and in a browser.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::browser::Story;
use crate::support::Program;

const JSON: &str = "Content-Type: application/json";

fn start(arguments: &[&str]) -> Program {
    let arguments = [&["--addr", "127.0.0.1:0"], arguments].concat();
    Program::start(env!("CARGO_BIN_EXE_mini-program"), &arguments)
}

fn log_in(program: &Program, code: &str) -> String {
    let answer = program.request("POST", "/login", &[JSON], &format!(r#"{{"code":"{code}"}}"#));
    format!("Authorization: Bearer {}", answer.json()["token"].as_str().unwrap())
}

fn order(program: &Program, who: &str, item: &str) -> u64 {
    let made =
        program.request("POST", "/orders", &[JSON, who], &format!(r#"{{"item":"{item}","quantity":1}}"#));
    assert_eq!(made.status, 201, "{}", made.body);
    made.json()["id"].as_u64().unwrap()
}

/// A stream that somebody listens to. Its chunks are not looked at: what is between them are lines of the chunked coding.
struct Listener(BufReader<TcpStream>);

#[derive(Debug)]
struct Heard {
    event: String,
    id: String,
    data: Value,
}

impl Listener {
    fn open(program: &Program, target: &str, headers: &[&str]) -> Self {
        let mut stream = program.connect();
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{headers}\r\n").as_bytes()).unwrap();
        let mut listener = Self(BufReader::new(stream));
        assert!(listener.line().starts_with("HTTP/1.1 200 "));
        while !listener.line().is_empty() {}
        listener
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "the stream has ended behind {line:?}");
        assert_ne!(line, ":\n", "nothing has come for so long that it says so");
        line.trim_end().to_owned()
    }

    fn hears(&mut self) -> Heard {
        let mut heard = Heard { event: String::new(), id: String::new(), data: Value::Null };
        loop {
            let line = self.line();
            match line.split_once(": ") {
                Some(("event", name)) => heard.event = name.to_owned(),
                Some(("id", id)) => heard.id = id.to_owned(),
                Some(("data", data)) => heard.data = serde_json::from_str(data).unwrap(),
                _ if line.is_empty() && !heard.event.is_empty() => return heard,
                _ => {}
            }
        }
    }

    /// All that comes until it ends.
    fn rest(mut self) -> String {
        let mut rest = String::new();
        while self.0.read_line(&mut rest).unwrap() > 0 {
            assert!(!rest.ends_with("\n:\n"), "it goes on behind {rest}");
        }
        rest
    }
}

#[test]
fn who_listens_hears_its_own_orders_change_on_whatever_worker_that_happens() {
    let program = start(&["--workers", "3"]);
    let (ann, ben) = (log_in(&program, "demo-ann"), log_in(&program, "demo-ben"));
    order(&program, &ann, "old");
    let mut listeners: Vec<_> = (0..6).map(|_| Listener::open(&program, "/events", &[&ann])).collect();
    for listener in &mut listeners {
        let heard = listener.hears();
        assert_eq!((&*heard.event, &heard.data), ("anew", &json!({ "total": 1 })));
    }
    order(&program, &ben, "of another");
    let id = order(&program, &ann, "tea");
    for listener in &mut listeners {
        let heard = listener.hears();
        let said = [&heard.data["id"], &heard.data["status"]];
        assert_eq!((&*heard.event, said), ("order", [&json!(id), &json!("open")]));
    }
    let cancelled = program.request("POST", &format!("/orders/{id}/cancel"), &[&ann], "");
    for listener in &mut listeners {
        assert_eq!(listener.hears().data, cancelled.json());
    }
    drop(listeners);
    assert!(program.terminate().1.success());
}

#[test]
fn who_comes_back_says_what_it_heard_last_and_hears_what_it_has_missed_as_it_is_now() {
    let program = start(&["--workers", "2"]);
    let ann = log_in(&program, "demo-ann");
    let mut first = Listener::open(&program, "/events", &[&ann]);
    let start = first.hears().id;
    drop(first);
    let ids: Vec<_> = (0..40).map(|nth| order(&program, &ann, &format!("cup {nth}"))).collect();
    assert_eq!(program.request("POST", &format!("/orders/{}/cancel", ids[3]), &[&ann], "").status, 200);

    let last = format!("Last-Event-ID: {start}");
    let mut back = Listener::open(&program, "/events", &[&ann, &last]);
    let heard: Vec<_> = (0..40).map(|_| back.hears()).collect();
    let expected: Vec<_> =
        ids.iter().filter(|id| **id != ids[3]).chain([&ids[3]]).map(|id| json!(id)).collect();
    assert_eq!(heard.iter().map(|heard| heard.data["id"].clone()).collect::<Vec<_>>(), expected);
    assert_eq!(heard[39].data["status"], "cancelled");

    // From the middle of that, and from another life of the program.
    let last = format!("Last-Event-ID: {}", heard[38].id);
    let mut back = Listener::open(&program, "/events", &[&ann, &last]);
    assert_eq!(back.hears().data["id"], json!(ids[3]));
    let (life, change) = start.split_once('.').unwrap();
    let other = format!("Last-Event-ID: {}.{change}", "0".repeat(life.len()));
    let mut back = Listener::open(&program, "/events", &[&ann, &other]);
    assert_eq!((&*back.hears().event, program.get("/events").status), ("anew", 401));
}

#[test]
fn a_stream_ends_when_its_time_is_over_and_in_a_drain() {
    let mut program = start(&["--workers", "1", "--drain", "60"]);
    let ann = log_in(&program, "demo-ann");
    let close = "Connection: close";
    let timed = Listener::open(&program, "/events?seconds=1", &[&ann, close]);
    assert!(timed.rest().contains("\nevent: anew\n"));
    for wrong in ["0", "-1", "x"] {
        let refused = program.request("GET", &format!("/events?seconds={wrong}"), &[&ann], "");
        assert!(refused.status == 400 && refused.body.contains("`seconds`"), "{wrong}: {}", refused.body);
    }
    let mut listener = Listener::open(&program, "/events", &[&ann]);
    listener.hears();
    program.ask_to_end();
    assert!(listener.rest().ends_with("0\r\n\r\n"), "the stream is whole");
    assert!(program.wait().1.success());
}

#[test]
fn the_front_page_shows_orders_as_they_change_and_comes_back_when_the_server_does() {
    let Some(mut story) = Story::begin(&["--workers", "2"]) else { return };
    story.browser.look(390, "light");
    story.open("/");
    assert_eq!(story.eval("byId('live').hidden"), json!(true), "nobody is logged in");
    story.eval("byId('login').querySelector('form button').click()");
    story.browser.until("byId('live-state').textContent === 'Live; there are none yet.'");
    for nth in 1..=7 {
        story.eval("byId('order').querySelector('form button').click()");
        story.browser.until(&format!("byId('live-orders').querySelector('[data-id=\"{nth}\"].open')"));
    }
    assert_eq!(story.eval("byId('live-orders').children.length"), json!(5));
    story.eval("byId('cancel').querySelector('form button').click()");
    story.browser.until("byId('live-orders').querySelector('[data-id=\"7\"].cancelled')");
    assert_eq!(story.eval("document.documentElement.scrollWidth <= 390"), json!(true));
    // A page that is loaded again has them as they are.
    story.open("/");
    story.browser.until("byId('live-orders').querySelector('[data-id=\"7\"].cancelled')");
    assert_eq!(story.browser.complaints, [""; 0]);

    let Story { program, mut browser, .. } = story;
    assert!(program.terminate().1.success());
    browser.until("byId('live-state').textContent === 'Away, coming back …'");
    browser.close();
}
