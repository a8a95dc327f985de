//! Notes in PostgreSQL, asked by handlers on their own worker: what a service does about a database that may be slow, gone or back.
//!
//! Run it with `cargo run --release -p async-examples --bin notes -- 127.0.0.1:8096 127.0.0.1:9096 postgres://USER@127.0.0.1:5432/DATABASE`,
//! and ask it:
//!
//! | `curl -i http://127.0.0.1`… | what you will see |
//! |---|---|
//! | `:8096/notes -d tea` | 201, and where the note is |
//! | `:8096/notes/1` | `tea`; without the database 503, with `Retry-After` |
//! | `:9096/readyz` | `ready`; without the database 503, a second later |
//!
//! Each worker has one connection, made when it is first wanted and made anew when it has ended. The log on standard output says why a 503 is one.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use netpoll_core::net::Stream;
use netpoll_core::task::{self, spawn_daemon};
use netpoll_core::time::{sleep, timeout};
use netpoll_core::{Handle, Runtime};
use netpoll_http::{
    AccessLog, Error, HeaderValue, Health, LogFormat, Request, Response, Router, Server, StatusCode, Worker,
    header,
};
use tokio_postgres::config::Host;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Row};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How long an answer of the database may take, with a new connection where one is wanted.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it is asked whether it is there.
const PROBE: Duration = Duration::from_secs(1);
const TABLE: &str = "CREATE TABLE IF NOT EXISTS notes (id bigserial PRIMARY KEY, text text NOT NULL)";

/// The connection of one worker.
struct Postgres {
    config: Config,
    client: RefCell<Option<Rc<Client>>>,
}

impl Postgres {
    fn new(config: Config) -> Self {
        Self { config, client: RefCell::default() }
    }

    /// The one there is, or a new one.
    async fn client(&self) -> Result<Rc<Client>, Failure> {
        let known = self.client.borrow().clone();
        if let Some(client) = known.filter(|client| !client.is_closed()) {
            return Ok(client);
        }
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        let stream = match self.config.get_hosts() {
            [Host::Tcp(name), ..] => Stream::connect(format!("{name}:{port}")).await?,
            [Host::Unix(directory), ..] => {
                Stream::connect(format!("unix:{}/.s.PGSQL.{port}", directory.display())).await?
            }
            [] => return Err("the URL names no host".into()),
        };
        let (client, connection) = self.config.connect_raw(stream, NoTls).await?;
        // Who waits hears of its end, and a drain does not wait for it.
        spawn_daemon(connection).detach();
        let client = Rc::new(client);
        *self.client.borrow_mut() = Some(Rc::clone(&client));
        Ok(client)
    }

    async fn query(&self, sql: &str, with: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Failure> {
        let answer = async { Ok::<_, Failure>(self.client().await?.query(sql, with).await?) };
        let rows = timeout(PATIENCE, answer).await;
        // One that is slow may never answer again.
        if rows.is_err() {
            self.client.take();
        }
        rows?
    }
}

/// Where notes are: handlers do not know.
enum Store {
    Postgres(Box<Postgres>),
    /// For tests. `None` is one that is away.
    #[cfg_attr(not(test), expect(dead_code, reason = "the program has the other"))]
    Memory(RefCell<Option<Vec<String>>>),
}

impl Store {
    async fn add(&self, text: &str) -> Result<i64, Failure> {
        match self {
            Self::Postgres(postgres) => {
                let sql = "INSERT INTO notes (text) VALUES ($1) RETURNING id";
                let rows = postgres.query(sql, &[&text]).await?;
                Ok(rows.first().ok_or("no row")?.try_get(0)?)
            }
            Self::Memory(notes) => {
                let mut notes = notes.borrow_mut();
                let notes = notes.as_mut().ok_or("switched off")?;
                notes.push(text.to_owned());
                Ok(notes.len() as i64)
            }
        }
    }

    async fn get(&self, id: i64) -> Result<Option<String>, Failure> {
        match self {
            Self::Postgres(postgres) => {
                let rows = postgres.query("SELECT text FROM notes WHERE id = $1", &[&id]).await?;
                Ok(rows.first().map(|row| row.try_get(0)).transpose()?)
            }
            Self::Memory(notes) => {
                let notes = notes.borrow();
                let notes = notes.as_ref().ok_or("switched off")?;
                Ok(usize::try_from(id - 1).ok().and_then(|index| notes.get(index)).cloned())
            }
        }
    }

    async fn is_there(&self) -> bool {
        match self {
            Self::Postgres(postgres) => postgres.query("SELECT 1", &[]).await.is_ok(),
            Self::Memory(notes) => notes.borrow().is_some(),
        }
    }
}

/// What the database has refused is our mistake; else it is away, and who asked may come again. Away is also who says that it has no
/// connection (class 08), no room (53), or is about to go or to come (57).
fn failed(error: Failure) -> Error {
    let state = error.downcast_ref::<tokio_postgres::Error>().and_then(tokio_postgres::Error::code);
    if state.is_some_and(|state| !["08", "53", "57"].contains(&&state.code()[..2])) {
        return Error::internal(error);
    }
    Error::new(StatusCode::SERVICE_UNAVAILABLE, "the notes are away, try again")
        .with_header(header::RETRY_AFTER, HeaderValue::from_static("5"))
        .with_source(error)
}

async fn add(req: Request<'static>) -> Result<Response, Error> {
    let id = task::state::<Store>().add(req.text()?).await.map_err(failed)?;
    Response::new(StatusCode::CREATED).header(header::LOCATION, format!("/notes/{id}"))
}

async fn get(req: Request<'static>) -> Result<Option<String>, Error> {
    task::state::<Store>().get(req.param("id")?).await.map_err(failed)
}

/// Readiness follows the database.
async fn probe() {
    let handle = Handle::current();
    while !handle.is_draining() {
        handle.readiness().set_ready(task::state::<Store>().is_there().await);
        sleep(PROBE).await;
    }
}

fn router(worker: &Worker) -> Router {
    if worker.index() == 0 {
        spawn_daemon(probe()).detach();
    }
    Router::new().post("/notes", add).get("/notes/{id}", get)
}

fn main() -> Result<(), Failure> {
    let (backend, words) = examples::words()?;
    let words: Vec<String> = words.collect();
    let [addr, operators, url] = &words[..] else {
        return Err("notes ADDRESS OPERATORS POSTGRES_URL".into());
    };
    let config: Config = url.parse()?;
    // Before anybody is served: without its table there is no service.
    let first = Postgres::new(config.clone());
    Runtime::block_on(async move { first.query(TABLE, &[]).await })??;

    let log = AccessLog::to(io::stdout(), LogFormat::Json)?;
    let server = Server::bind(addr)?
        .admin(operators, |worker| Health::of(worker).router())?
        .state(move |_worker| Store::Postgres(Box::new(Postgres::new(config.clone()))))
        .on_complete(log.hook())
        .runtime(move |builder| builder.backend(backend).stop_on_signals(true))
        .app(router)
        .start()?;
    println!("notes at http://{}", server.addr());
    if let Some(operators) = server.admin_addr() {
        println!("operators at http://{operators}");
    }
    let report = server.wait()?;
    log.flush();
    println!("{report}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use netpoll_http::{App, TestClient};

    use super::*;

    fn service(notes: Option<Vec<String>>) -> TestClient {
        App::new(router).state(move |_worker| Store::Memory(RefCell::new(notes.clone()))).test()
    }

    #[test]
    fn a_note_is_found_where_its_answer_says() {
        let client = service(Some(Vec::new()));
        let added = client.post("/notes", "tea");
        assert_eq!((added.status, added.header("location")), (StatusCode::CREATED, Some("/notes/1")));
        assert_eq!(client.get("/notes/1").text(), "tea");
        assert_eq!(client.get("/notes/2").status, StatusCode::NOT_FOUND);
    }

    #[test]
    fn without_the_database_clients_are_told_to_come_again_and_not_why() {
        let answer = service(None).get("/notes/1");
        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, Some("5")));
        assert_eq!(answer.text(), "the notes are away, try again\n");
    }
}
