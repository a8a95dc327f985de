//! The load generator: N connections to a server on this machine, a JSON report of what they saw.
//!
//! It shares a small machine with the server that it measures, so it stays light: the fast lane of netpoll-core on
//! one worker, one `recv` and one `send` per event, no allocation per request once warm (in an open loop one for some
//! thirty, by the worker's mailbox; with churn two for each connection). Every answer is checked: status 200, one
//! Content-Length, the body where it is known, and nothing behind it.
//!
//! *Closed loop* (default): a connection asks again when it has been answered. Latency is from the callback that
//! queues a batch to the one that reads its answer, so it includes the client's own share, some tens of us with
//! 64 connections. A slow server gets fewer requests: percentiles compare servers, and say little about an open
//! system. *Open loop* (`--rate`): requests are due at constant spacing whatever the server does, and latency
//! counts from then. What is due at the end and unsent counts with its age, as does what is unanswered.
//!
//! Options (defaults in brackets):
//! `--to` 127.0.0.1:8080, any address in 127.0.0.0/8; `--connections` \[64\]; `--depth` \[1\] requests on the way on
//! each; `--seconds` \[1\]; `--requests` \[0, no bound\]; `--warmup` \[0\] seconds before, whose figures are dropped;
//! `--rate` requests per second in total; `--pause-us` \[0\] between answer and next request, up to 2 ms longer;
//! `--sources` \[1\] addresses from 127.0.0.2 on to connect from; `--cpu` to run on; `--spin` never sleep; `--backend`
//! \[auto\] what it runs on itself.
//! `--path` \[/plaintext, or /echo\]; `--post BYTES` a JSON body; `--header 'Name: value'`, repeatable; `--expect TEXT`
//! the body of a good answer \[known for /plaintext, /json and a post to /echo, else any\].
//! `--churn` one request per connection, which the server has to close; N at most are open at a time, and latency
//! includes connecting. `--echo BYTES` raw bytes that have to come back instead of HTTP. `--flood 1` one more
//! connection that pipelines without waiting. `--hold` one request per connection, then they stay open until standard
//! input ends or `--seconds` have passed. `--stand-by` connects, warms up and prints `{"ready":true}`; then each line of
//! standard input is a window, so many seconds long or, if it is empty, `--seconds`, and gives a report of its own;
//! in between it is quiet, and connects anew where the server has closed meanwhile. The end of input ends it.
//! `--timeout-ms` \[10000\] for each request and connect; `--drain-ms` \[3000\] for answers owed at the end;
//! `--count-errors` go on after an error, on a new connection \[the first one ends the run\]; `--histogram` the
//! report has (us, count) pairs.
//!
//! Whoever sends to a thread that sleeps pays for waking it, on virtual machines several us, and how often this one
//! sleeps depends on how fast the server is: servers that are compared by their CPU time would pay for being slower
//! than the client twice. With `--spin` it never sleeps while it measures.
//!
//! A `busy_share` near 1 says that the generator was the limit, not the server.

mod answer;
mod flood;
mod metronome;
mod options;
mod orders;
mod polite;
mod run;
mod window;

use benches::sys;
use metronome::Metronome;
use netpoll_core::{ConnLimits, ConnectOptions, Runtime, Workers};
use options::Options;
use run::{Run, Word};
use serde_json::json;
use std::cell::RefCell;
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// Descriptors that are not connections.
const SPARE_FILES: u64 = 32;
/// A whole answer that arrives in pieces is kept until it is there, and then checked.
const INPUT_BYTES_MAX: usize = 64 * 1024 * 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let args = benches::arguments(include_str!("main.rs"));
    let options = Arc::new(Options::parse(&args)?);
    if let Some(cpu) = options.cpu {
        // The worker inherits it.
        sys::pin_current_thread(&[cpu])?;
    }
    let files = options.connections as u64 + SPARE_FILES;
    let limit = sys::raise_open_files(files)?;
    if limit < files {
        return Err(format!("{limit} open files allowed, {files} needed").into());
    }

    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let to_nobody = nobody.local_addr()?;
    // Never held back by its own output, which is bounded by the depth: it has to read for the server to go on.
    let limits = ConnLimits::default().write_high_bytes(usize::MAX).input_bytes_max(INPUT_BYTES_MAX);
    let (sender, words) = mpsc::channel();
    let asked = Arc::clone(&options);
    let running = Runtime::builder()
        .workers(Workers::Count(1))
        .pin(false)
        .backend(options.backend)
        .limits(limits)
        .on_start(move |_worker, commands| {
            let run = Rc::new(RefCell::new(Run::new(Arc::clone(&asked), sender.clone())));
            commands.connect(to_nobody, ConnectOptions::default(), Metronome::new(run));
        })
        .start()?;
    while let Some(line) = match words.recv().map_err(|_| "the worker ended")?? {
        Word::Ready => Some(json!({ "ready": true, "connections": options.connections })),
        Word::Window(window) if options.hold => Some(json!({ "connections": window.requests })),
        Word::Window(window) => Some(window.to_json(&options)),
        Word::Over => None,
    } {
        writeln!(io::stdout(), "{line}")?;
        if !options.stand_by {
            break;
        }
    }
    if options.hold {
        // Whoever started us ends us by closing our standard input; if nobody does, time does.
        let (ended, end) = mpsc::channel();
        std::thread::spawn(move || ended.send(io::stdin().read_to_end(&mut Vec::new()).is_ok()));
        // Both outcomes mean the same: it is over.
        let _ = end.recv_timeout(options.length);
    }
    running.stop(Duration::ZERO)?;
    Ok(())
}
