//! What the peers share: the command line, pinning, limits, the listening socket, and one thread per worker.
//!
//! Every peer has the same options, so that the runner needs one way to start them all; what is theirs
//! is in `bin/`. Nothing here is on the path of a request but [`http`]'s JSON and date.

#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "http1")]
pub mod http1;
#[cfg(feature = "http-hyper")]
pub mod http_hyper;
#[cfg(feature = "http-monoio")]
pub mod http_monoio;
mod options;
mod socket;

pub use options::Options;
pub use socket::{BACKLOG, tune_listeners};

use std::io;
use std::net::TcpListener;
use std::thread;

/// Runs `worker` once on each worker's thread, pinned and with a listening socket of its own. Does not return:
/// a worker that ends, ends the process with status 1 and its error on stderr.
///
/// For runtimes of one thread. With several workers the sockets share the port (`SO_REUSEPORT`).
pub fn on_each_worker(options: &Options, worker: impl Fn(TcpListener) -> io::Result<()> + Sync) -> ! {
    let run = |index| {
        options.pin(index)?;
        worker(options.listener()?)
    };
    thread::scope(|scope| {
        for index in 1..options.workers {
            scope.spawn(move || end(run(index)));
        }
        end(run(0))
    })
}

/// Ends the process: no server is meant to.
pub fn end<T>(outcome: io::Result<T>) -> ! {
    match outcome {
        Ok(_) => eprintln!("the server ended"),
        Err(error) => eprintln!("{error}"),
    }
    std::process::exit(1)
}
