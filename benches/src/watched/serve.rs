//! The server that is watched, in a process of its own.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::path::Path;

use netpoll_http::{
    AccessLog, Completed, LogFormat, Metrics, Reply, Request, RequestId, Router, Server, StatusCode,
    TraceContext, Worker,
};

use super::{ALONE, LADDER, LOGS, Log, Way};
use crate::runner::{Failure, SERVER_CPU};

/// Serves until it is told to end, watched in the way of this name; its log is in this directory, and goes with it.
///
/// # Errors
/// No such way; whatever keeps the server from starting.
pub fn serve(name: &str, port: u16, directory: &Path) -> Result<(), Failure> {
    let way = LADDER.into_iter().chain(LOGS).chain(ALONE).find(|way| way.name == name);
    let Way { log, has_figures, has_names, has_traces, .. } = way.ok_or("no such way")?;
    let mut server = Server::bind((Ipv4Addr::LOCALHOST, port))?
        .workers(1)
        .cpus([SERVER_CPU])
        .runtime(|builder| builder.stop_on_signals(true));
    server = match log {
        Log::None => server,
        Log::Combined(one_in) => {
            let log = AccessLog::to(nameless(directory)?, LogFormat::Combined)?.sample(one_in);
            server.on_complete(log.hook())
        }
        Log::Json(one_in) => {
            let log = AccessLog::to(nameless(directory)?, LogFormat::Json)?.sample(one_in);
            server.on_complete(log.hook())
        }
        Log::Synchronous => {
            let file = nameless(directory)?;
            server.on_complete(move |_: &Worker| {
                let file = file.try_clone();
                let line = RefCell::new(String::new());
                move |done: &Completed<'_>| {
                    let line = &mut *line.borrow_mut();
                    line.clear();
                    // Writing to memory does not fail; what a disk does not take is not measured.
                    let _ = write_line(line, done);
                    let _ = file.as_ref().map(|mut file| file.write_all(line.as_bytes()));
                }
            })
        }
    };
    if has_figures {
        server = server.on_complete(Metrics::new().hook());
    }
    server.serve(move |_: &Worker| {
        let plaintext =
            |_: &Request, reply: Reply| reply.bytes(StatusCode::OK, "text/plain", b"Hello, World!");
        let mut router = Router::new().get("/plaintext", plaintext);
        if has_names {
            router = router.before(RequestId::take).after(RequestId::show);
        }
        if has_traces {
            router = router.before(TraceContext::take);
        }
        router
    })?;
    Ok(())
}

/// A file that is gone when nobody has it open any more.
fn nameless(directory: &Path) -> io::Result<File> {
    let path = directory.join(format!("netpoll-watched-{}.log", std::process::id()));
    let file = OpenOptions::new().append(true).create(true).open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

/// The line as a program would write it.
fn write_line(line: &mut String, done: &Completed<'_>) -> std::fmt::Result {
    use std::fmt::Write;
    let request = done.request;
    let text = |name: &str| request.header_str(name).unwrap_or_default();
    write!(
        line,
        "{{\"time\":{},\"client\":\"{}\",\"method\":\"{}\",\"target\":\"{}\",\"host\":\"{}\",\"route\":\"{}\",\"status\":{},\
        \"bytes_in\":{},\"bytes_out\":{},\"user_agent\":\"{}\"",
        done.unix_seconds,
        request.peer(),
        request.method_str(),
        request.target().escape_default(),
        request.host().unwrap_or_default(),
        done.route.unwrap_or_default(),
        done.status.map_or(0, |status| status.as_u16()),
        done.bytes_in,
        done.bytes_out,
        text("user-agent").escape_default(),
    )?;
    for (name, time) in [("queue_us", done.queue), ("handler_us", done.handler), ("send_us", done.send)] {
        if !time.is_zero() {
            write!(line, ",\"{name}\":{}", time.as_micros())?;
        }
    }
    if let Some(id) = request.extensions().get::<RequestId>() {
        write!(line, ",\"request_id\":\"{id}\"")?;
    }
    if let Some(trace) = request.extensions().get::<TraceContext>() {
        write!(line, ",\"trace_id\":\"{}\"", trace.trace_id_hex())?;
    }
    line.write_str("}\n")
}
