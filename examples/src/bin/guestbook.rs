//! A guest book: forms and cookies for people, JSON for programs, and one place that says how errors look.
//!
//! Run it with `cargo run --bin guestbook` and open `http://127.0.0.1:8084`, or with another address behind it. A program signs in
//! first, `curl -i -d name=Ada http://127.0.0.1:8084/sign-in`, and brings the cookie along: `curl -H 'Cookie: session=1' -d
//! text=hello http://127.0.0.1:8084/entries`, then `curl 'http://127.0.0.1:8084/entries?most=5'`. Without the cookie a POST is 401; `most=x` is
//! a 400 that names the field, `/nowhere` a 404, all as JSON. Each worker has a book of its own, so there is one.

use std::cell::RefCell;
use std::io::{self, Write};
use std::rc::Rc;
use std::time::Duration;

use netpoll_http::{
    Cookie, Error, Form, Query, Request, Response, ResponseError, Router, SameSite, Server, StatusCode,
    errors,
};
use serde::{Deserialize, Serialize};

#[derive(Default)]
struct Book {
    sessions: Vec<String>,
    entries: Vec<Entry>,
}

#[derive(Clone, Serialize)]
struct Entry {
    name: String,
    text: String,
}

/// Who writes: what the hook has found out, for the handler.
struct Guest(String);

#[derive(Debug)]
struct Stranger;

impl std::fmt::Display for Stranger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("sign in first")
    }
}

impl std::error::Error for Stranger {}

/// `?` makes this answer of it.
impl ResponseError for Stranger {
    fn status(&self) -> StatusCode {
        StatusCode::UNAUTHORIZED
    }
}

#[derive(Deserialize)]
struct SignIn {
    name: String,
}

#[derive(Deserialize)]
struct Text {
    text: String,
}

#[derive(Deserialize)]
struct Page {
    most: Option<usize>,
}

const PAGE: &str = "<form action=/sign-in method=post><input name=name><button>Sign in</button></form>\
    <form action=/entries method=post><input name=text><button>Write</button></form><a href=/entries>Read</a>";

fn router(book: &Rc<RefCell<Book>>) -> Router {
    let [signing, asked, written, read] = [(); 4].map(|()| Rc::clone(book));
    let sign_in = move |req: &Request| {
        let Form(SignIn { name }) = req.extract()?;
        let sessions = &mut signing.borrow_mut().sessions;
        sessions.push(name);
        // Of a real session nobody can guess the number.
        let session = Cookie::new("session", sessions.len().to_string()).path("/").http_only();
        let session = session.same_site(SameSite::Lax).max_age(Duration::from_secs(3600));
        Response::redirect(StatusCode::SEE_OTHER, "/")?.cookie(session)
    };
    // It may wait, as it would for a database; what it refuses is never read.
    let is_guest = async move |req: Request| {
        let number: usize = req.cookie("session").and_then(|number| number.parse().ok()).unwrap_or(0);
        let name = asked.borrow().sessions.get(number.wrapping_sub(1)).cloned();
        req.extensions().insert(Guest(name.ok_or(Stranger)?));
        Ok(())
    };
    let write = move |req: &Request| {
        let Guest(name) = req.extensions().get().ok_or(Stranger)?;
        let Form(Text { text }) = req.extract()?;
        if text.chars().count() > 80 {
            return Err(Error::new(StatusCode::UNPROCESSABLE_ENTITY, "an entry has at most 80 characters"));
        }
        written.borrow_mut().entries.push(Entry { name: name.clone(), text });
        Response::redirect(StatusCode::SEE_OTHER, "/entries")
    };
    let show = move |req: &Request| {
        let Query(Page { most }) = req.extract()?;
        let entries = &read.borrow().entries;
        Response::json(&entries[entries.len().saturating_sub(most.unwrap_or(20))..])
    };
    let guests = Router::new().post("/entries", write).before(is_guest);
    let people = Router::new().get("/", |_: &Request| Response::html(PAGE)).post("/sign-in", sign_in);
    people.get("/entries", show).merge(guests)
}

fn main() -> io::Result<()> {
    let (backend, mut words) = examples::words()?;
    let addr = words.next().unwrap_or("127.0.0.1:8084".to_owned());
    let server = Server::bind(addr)?
        .workers(1)
        .errors(errors::json)
        .runtime(move |builder| builder.backend(backend).stop_on_signals(true))
        .app(|_worker| router(&Rc::default()))
        .start()?;
    // Whoever closed our output does not want to read this, but may want the server.
    let _ = writeln!(io::stdout(), "guestbook listens on http://{}", server.addr());
    server.wait().map(drop)
}
