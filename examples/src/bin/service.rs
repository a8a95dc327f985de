//! A service as a team would begin one: notes, behind tokens. Errors are JSON, each request has an id and a line in the log,
//! figures are at `/metrics`, a page of another origin may use it; each of these is said once, in `router` or `main`, and handlers know nothing of them.
//!
//! Run it with `cargo run --bin service`, or with another address behind it, and try
//! `curl -i -H 'Authorization: Bearer ada-7' -H 'Content-Type: application/json' -d '{"title":"tea"}' http://127.0.0.1:8095/notes`, then
//! `curl -H 'Authorization: Bearer ada-7' 'http://127.0.0.1:8095/notes?limit=5'`. Without the token both are 401. A picture goes to
//! `PUT /notes/1/picture`, up to 4 MiB; every other body has at most 64 KiB.

use std::collections::BTreeMap;
use std::collections::btree_map::{Entry, OccupiedEntry};
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use netpoll_core::{Bytes, task};
use netpoll_http::{
    AccessLog, Error, FromRequest, Handler, HeaderValue, Json, Limits, LogFormat, Method, Metrics, Parts,
    Query, Request, RequestId, Response, RouteLimits, Router, Server, StatusCode, errors, header,
};
use serde::{Deserialize, Serialize};

/// The page of another origin that may use this service.
const PAGE: &str = "http://localhost:3000";
/// In the place of a database of users.
const TOKENS: [(&str, &str); 2] = [("ada-7", "Ada"), ("bob-9", "Bob")];

/// In the place of a database of notes: one for all workers.
#[derive(Clone, Default)]
struct Store(Arc<Mutex<BTreeMap<u64, Note>>>);

#[derive(Clone, Serialize)]
struct Note {
    id: u64,
    title: String,
    #[serde(skip)]
    owner: &'static str,
    #[serde(skip)]
    picture: Option<Bytes>,
}

impl Store {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Note>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers what a browser asks in advance, which comes without a token.
fn preflight(req: &Request) -> Option<Response> {
    if req.method() != Method::OPTIONS || req.header(header::ACCESS_CONTROL_REQUEST_METHOD).is_none() {
        return None;
    }
    let mut response = Response::new(StatusCode::NO_CONTENT);
    let mut say = |name, value| response.headers.insert(name, HeaderValue::from_static(value));
    say(header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PUT, DELETE");
    say(header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type");
    Some(response)
}

fn allow_page(req: &Request, parts: &mut Parts) {
    parts.headers.append(header::VARY, HeaderValue::from_static("origin"));
    if req.header_str(header::ORIGIN) == Some(PAGE) {
        parts.headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static(PAGE));
    }
}

#[derive(Clone, Copy)]
struct User(&'static str);

/// It may wait, as it would for a database. The body of what it refuses is never read.
async fn sign_in(req: Request<'static>) -> Result<(), Error> {
    let token = req.header_str("authorization").and_then(|value| value.strip_prefix("Bearer "));
    let user = TOKENS.iter().find(|(known, _)| Some(*known) == token).map(|(_, name)| User(name));
    let bearer = HeaderValue::from_static("Bearer");
    let refused = || Error::from(StatusCode::UNAUTHORIZED).with_header(header::WWW_AUTHENTICATE, bearer);
    req.extensions().insert(user.ok_or_else(refused)?);
    Ok(())
}

impl FromRequest<'_> for User {
    fn from_request(req: &Request<'_>) -> Result<Self, Error> {
        req.extensions().get().copied().ok_or_else(|| Error::internal("a route that is not behind `sign_in`"))
    }
}

#[derive(Deserialize)]
struct Draft {
    title: String,
}

#[derive(Deserialize)]
struct Page {
    after: Option<u64>,
    limit: Option<usize>,
}

fn list(req: &Request) -> Result<Response, Error> {
    let (User(user), Query(Page { after, limit })) = (req.extract()?, req.extract()?);
    let store = task::state::<Store>();
    let notes = store.lock();
    let own = notes.values().filter(|note| note.owner == user && Some(note.id) > after);
    Response::json(&own.take(limit.unwrap_or(20).min(100)).collect::<Vec<_>>())
}

fn add(req: &Request) -> Result<Response, Error> {
    let (User(owner), Draft { title }) = (req.extract()?, req.json()?);
    if !(1..=80).contains(&title.chars().count()) {
        return Err((StatusCode::UNPROCESSABLE_ENTITY, "a title has 1 to 80 characters").into());
    }
    let store = task::state::<Store>();
    let mut notes = store.lock();
    let id = notes.last_key_value().map_or(1, |(last, _)| last + 1);
    let note = notes.entry(id).or_insert(Note { id, title, owner, picture: None });
    let created = Response::json(note)?.status(StatusCode::CREATED);
    created.header(header::LOCATION, format!("/notes/{id}"))
}

/// Does something with the note that a request is about; those of others are not there.
fn with_note<R>(req: &Request, act: impl FnOnce(OccupiedEntry<'_, u64, Note>) -> R) -> Result<R, Error> {
    let (User(user), id) = (req.extract()?, req.param("id")?);
    match task::state::<Store>().lock().entry(id) {
        Entry::Occupied(entry) if entry.get().owner == user => Ok(act(entry)),
        _ => Err(Error::not_found(format!("you have no note {id}"))),
    }
}

fn router(metrics: &Metrics) -> Router {
    let picture = |req: &Request| with_note(req, |mut note| note.get_mut().picture = Some(req.body_bytes()));
    let large = RouteLimits::default().body_bytes_max(4 << 20);
    let notes = Router::new()
        .get("/", list)
        .post("/", add)
        .get("/{id}", |req: &Request| with_note(req, |note| Json(note.get().clone())))
        .delete("/{id}", |req: &Request| with_note(req, |note| drop(note.remove())))
        .get("/{id}/picture", |req: &Request| with_note(req, |note| note.get().picture.clone()))
        .put("/{id}/picture", picture.limits(large))
        .before(sign_in);
    Router::new()
        .before(RequestId::take)
        .after(RequestId::show)
        .before(preflight)
        .after(allow_page)
        .get("/health", |_: &Request| "well")
        .get("/metrics", metrics.handler())
        .nest("/notes", notes)
        .fallback(|req: &Request| Error::not_found(format!("nothing is at {}", req.path())))
}

fn main() -> io::Result<()> {
    let (backend, mut words) = examples::words()?;
    let addr = words.next().unwrap_or("127.0.0.1:8095".to_owned());
    let store = Store::default();
    let log = AccessLog::to(io::stdout(), LogFormat::Json)?;
    let metrics = Metrics::new().log(&log);
    let server = Server::bind(addr)?
        .limits(Limits::default().body_bytes_max(64 << 10))
        .errors(errors::json)
        .state(move |_worker| store.clone())
        .runtime(move |builder| builder.backend(backend).stop_on_signals(true))
        .on_complete(log.hook())
        .on_complete(metrics.hook())
        .app(move |_worker| router(&metrics))
        .start()?;
    let _ = writeln!(io::stdout(), "service listens on http://{}", server.addr());
    server.wait().map(drop)
}
