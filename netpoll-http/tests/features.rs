//! What the features `anyhow` and `tracing` bring: `?` on foreign results, and failures in the log.

use std::fmt::{self, Write};
use std::sync::{Arc, Mutex};

use netpoll_http::{App, Error, Request, Router, StatusCode, TestClient};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

fn read() -> anyhow::Result<String> {
    Err(anyhow::Error::new(std::io::Error::other("the disk is gone")).context("page 7"))
}

fn find() -> anyhow::Result<String> {
    Err(Error::not_found("no such page"))?
}

fn client() -> TestClient {
    App::new(|_| {
        Router::new()
            .get("/read", |_: &Request| Ok(read()?))
            .get("/async-read", async |_: Request| Ok(read()?))
            .get("/find", |_: &Request| Ok(find()?))
            .get("/panics", |_: &Request| -> &'static str { panic!("on purpose") })
            .get("/late", async |_: Request| std::future::pending::<()>().await)
            .get("/busy", |_: &Request| Err::<(), _>(Error::from(StatusCode::SERVICE_UNAVAILABLE)))
    })
    .test()
}

/// Writes down the fields of every event.
struct Lines(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("netpoll_http")
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = Line(format!("{} ", event.metadata().level()));
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0.trim_end().to_owned());
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// What is logged meanwhile.
fn logged(act: impl FnOnce(&TestClient)) -> Vec<String> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    tracing::subscriber::with_default(Lines(Arc::clone(&lines)), || act(&client()));
    let lines = lines.lock().unwrap();
    lines.clone()
}

#[test]
fn results_of_anyhow_are_500_unless_they_were_made_of_an_answer() {
    let read = client().get("/read");
    assert_eq!((read.status.as_u16(), read.text()), (500, "internal server error\n"));
    let find = client().get("/find");
    assert_eq!((find.status.as_u16(), find.text()), (404, "no such page\n"));
}

#[test]
fn failures_of_the_program_are_logged_with_their_sources_and_nothing_else_is() {
    for (path, method) in [("/read", "read"), ("/async-read", "async-read")] {
        let lines = logged(|client| drop(client.get(&format!("{path}?secret=7"))));
        let line = format!(
            "ERROR message=a request failed method=\"GET\" path=\"/{method}\" \
             answer=\"500 internal server error\" source=\"page 7: the disk is gone\""
        );
        assert_eq!(lines, [line]);
    }
    let lines = logged(|client| {
        for path in ["/find", "/busy", "/nowhere"] {
            client.get(path);
        }
        client.raw(b"GET / HTTP/2.0\r\n\r\n");
        client.raw(b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n");
    });
    assert_eq!(lines, [""; 0]);
}

#[test]
fn a_panic_and_a_handler_that_is_late_are_logged_as_well() {
    let lines = logged(|client| drop(client.get("/panics")));
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains(r#"path="/panics" answer="500 Internal Server Error""#), "{lines:?}");
    let lines = logged(|client| {
        let mut connection = client.connect();
        connection.send(b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n");
        client.advance(std::time::Duration::from_secs(31));
    });
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains(r#"path="/late" answer="503 "#), "{lines:?}");
}

#[test]
fn what_a_peer_sends_makes_no_line_of_its_own_in_a_log() {
    let lines = logged(|_| {
        let echo =
            |req: &Request| Err::<(), _>(Error::internal(String::from_utf8_lossy(req.body()).into_owned()));
        let client = App::new(move |_| Router::new().post("/", echo)).test();
        client.post("/", "a\nERROR all is lost");
    });
    assert!(lines.len() == 1 && !lines[0].contains('\n'), "{lines:?}");
}
