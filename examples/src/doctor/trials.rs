//! What is found out by doing it: runtimes are started, and stopped at once.

use std::io;
use std::time::Duration;

use netpoll_core::{Backend, Builder, Conn, Flow, Input, Protocol, Runtime, WaitStrategy, Workers};

/// What came of each; the text is the error of the start.
pub struct Trials {
    /// What the server is going to run on, by its name.
    pub chosen: Result<&'static str, String>,
    pub epoll: Result<(), String>,
    pub mio: Result<(), String>,
    /// `None` in a build without it.
    pub uring: Option<Result<(), String>>,
    pub busy_poll: Result<(), String>,
    pub share_port: Result<(), String>,
}

impl Trials {
    /// Takes some milliseconds.
    pub fn of(backend: Backend) -> Self {
        let on = |backend, workers| {
            Runtime::builder().workers(Workers::Count(workers)).pin(false).backend(backend)
        };
        let start = |backend| stopped(on(backend, 1)).map(drop);
        let busy_poll = WaitStrategy::KernelBusyPoll { usecs: 50, budget: 8, prefer: false };
        Self {
            chosen: stopped(on(backend, 1)),
            epoll: start(Backend::Epoll),
            mio: start(Backend::Mio),
            uring: "uring".parse().ok().map(start),
            busy_poll: stopped(on(Backend::Epoll, 1).wait(busy_poll)).map(drop),
            // Two workers have a socket each on one port.
            share_port: listening(on(Backend::Epoll, 2)).map_err(|error| error.to_string()),
        }
    }
}

fn stopped(builder: Builder) -> Result<&'static str, String> {
    let running = builder.start().map_err(|error| error.to_string())?;
    let name = running.handle().setup().backend;
    running.stop(Duration::ZERO).map(|_| name).map_err(|error| error.to_string())
}

/// Nobody connects.
struct Silent;

impl Protocol for Silent {
    fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        Flow::Close
    }
}

fn listening(builder: Builder) -> io::Result<()> {
    let running = builder.listen("127.0.0.1:0", |_worker| |_peer| Silent)?.start()?;
    running.stop(Duration::ZERO).map(drop)
}
