//! PostgreSQL and Redis in handlers, on the worker itself: no thread and no runtime beside it.
//!
//! Run it with `cargo run --release -p async-examples --bin databases -- 127.0.0.1:8093 postgres://USER@127.0.0.1:5432/DATABASE redis://127.0.0.1:6379`,
//! and ask it:
//!
//! | `curl http://127.0.0.1:8093`… | what you will see |
//! |---|---|
//! | `/add/2/3` | `5`, from PostgreSQL |
//! | `/count/tea` | how often you have asked, counted in Redis |
//!
//! Each worker has a connection to each, made when it is first wanted and made anew when it has ended; requests of the worker share it, and are
//! under way on it at the same time. Both crates drive a `net::Stream` by the traits of tokio, in a task of the worker.

mod clients;

use std::io::Write;

use netpoll_http::{Error, Request, Router, Server, StatusCode};

use crate::clients::{Failure, Postgres, Redis};

fn unreachable(error: Failure) -> Error {
    Error::new(StatusCode::BAD_GATEWAY, "no answer from the store\n").with_source(error)
}

fn main() -> Result<(), Failure> {
    let (backend, words) = examples::words()?;
    let words: Vec<String> = words.collect();
    let [addr, postgres, redis] = &words[..] else {
        return Err("databases ADDRESS POSTGRES_URL REDIS_URL".into());
    };
    let (postgres, redis) = (Postgres::config(postgres)?, Redis::config(redis)?);
    let server = Server::bind(addr)?
        .runtime(move |builder| builder.backend(backend).stop_on_signals(true))
        .app(move |_worker| {
            let (postgres, redis) = (Postgres::new(postgres.clone()), Redis::new(redis.clone()));
            Router::new()
                .get("/add/{a}/{b}", async move |req: Request| {
                    let (a, b) = (req.param("a")?, req.param("b")?);
                    let sum = postgres.add(a, b).await.map_err(unreachable)?;
                    Ok(format!("{sum}\n"))
                })
                .get("/count/{key}", async move |req: Request| {
                    let key: String = req.param("key")?;
                    Ok(format!("{}\n", redis.count(&key).await.map_err(unreachable)?))
                })
        })
        .start()?;
    // Whoever closed our output (`| head -1`) does not want to read this, but may want the server.
    let _ = writeln!(std::io::stdout(), "databases listens on http://{}", server.addr());
    let _ = writeln!(std::io::stdout(), "{}", server.wait()?);
    Ok(())
}
