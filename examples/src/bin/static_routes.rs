//! Routes that are known when the program is compiled: the compiler checks and sorts them.
//!
//! Run it with `cargo run --bin static_routes` (or with an address behind it), then
//! `curl http://127.0.0.1:8082/double/21` prints `42`, `curl -d 5 http://127.0.0.1:8082/sum/a` prints `a: 5`,
//! `curl http://127.0.0.1:8082/files/css/site.css` prints the rest of the path, and `curl -i -X PUT` of any of
//! them is answered 405 with the methods that there are.
//!
//! `routes!` takes the same patterns and handlers as `Router`. What it gains: a pattern with a mistake, or
//! two that take the same paths, do not compile, and from the parser to the handler there is no
//! pointer to follow. What it costs: routes cannot be put together at run time.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Display;
use std::io::{self, Write};

use netpoll_http::{Error, Json, Request, Server, routes};

/// Counters that a worker keeps; more are refused.
const COUNTERS_MAX: usize = 1000;

fn say(text: impl Display) {
    // Whoever closed our output (`| head -1`) does not want to read this, but may want the server.
    let _ = writeln!(io::stdout(), "{text}");
}

fn main() -> io::Result<()> {
    let (backend, mut words) = examples::words()?;
    let addr = words.next().unwrap_or("127.0.0.1:8082".to_owned());
    let server = Server::bind(addr)?
        .workers(1)
        .runtime(move |builder| builder.backend(backend).stop_on_signals(true))
        .app(|worker| {
            let index = worker.index();
            // Made once for each worker and never shared, so it needs no lock.
            let sums = RefCell::new(HashMap::<String, i64>::new());
            routes! {
                GET "/" => |_: &Request| "try /double/21\n",
                GET "/worker" => move |_: &Request| Json(index),
                GET "/double/{n}" => |req: &Request| {
                    let n: i32 = req.param("n")?;
                    Ok(format!("{}\n", i64::from(n) * 2))
                },
                GET "/files/{*path}" => |req: &Request| {
                    let path: String = req.param("path")?;
                    Ok(format!("{path}\n"))
                },
                POST "/sum/{name}" => move |req: &Request| {
                    let number: i64 = req.text()?.trim().parse().map_err(|error| {
                        Error::bad_request(format!("request body: {error}"))
                    })?;
                    let (name, mut sums) = (req.param::<String>("name")?, sums.borrow_mut());
                    if sums.len() >= COUNTERS_MAX && !sums.contains_key(&name) {
                        return Err(Error::bad_request("there are too many names"));
                    }
                    let sum = sums.entry(name.clone()).or_default();
                    *sum = sum.saturating_add(number);
                    Ok(format!("{name}: {sum}\n"))
                },
            }
        })
        .start()?;
    say(format_args!("static_routes listens on http://{}", server.addr()));

    say(server.wait()?);
    Ok(())
}
