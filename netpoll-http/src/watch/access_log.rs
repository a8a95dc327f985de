//! The access log: a line for each request that is over, written by a thread of its own.
//!
//! A worker writes the line where the writer takes it from; it never waits, and makes no system call but to wake the writer. See
//! `pages.rs` for what is kept when not all can be, and `writer.rs` for the other end.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

use netpoll_core::signal;

use super::line::{Lines, LogFormat, level};
use super::pages::{Level, Pages};
use super::sample::Sample;
use super::sync::{Arc, JoinHandle};
use super::writer::{Shared, Sink, open, start};
use crate::h1::{Completed, Outcome};
use crate::message::TraceContext;
use crate::server::Worker;

/// What a worker has room for unless something else is asked for: some two thousand usual lines.
const ROOM_BYTES: usize = 256 * 1024;
/// What the longest line takes.
const ROOM_BYTES_MIN: usize = 64 * 1024;

/// A log with a line for each request that is over, for [`Server::on_complete`](crate::Server::on_complete): to a file, or to whatever can be
/// written to. Clones are the same log.
///
/// Lines leave by a thread of the log, `netpoll-log`, at most 20 ms after their requests, those of each worker in one piece. Meanwhile they lie in
/// memory of their worker, 256 KiB unless [`room_bytes`](Self::room_bytes) says otherwise. A worker never waits:
/// when the disk does not keep up and there is no room, lines are lost, and counted. Those of requests that
/// went well are lost first: the last quarter of the room is for answers of 4xx and clients that have left as well, and the last eighth for
/// 5xx, panics and what was broken off alone. When there is room again the log has a line that says how many it lacks: `# 37 lines lost`,
/// or `{"lost":37}`.
///
/// ```
/// use netpoll_http::{AccessLog, LogFormat, Request, Router, Server};
///
/// # fn main() -> std::io::Result<()> {
/// # let path = std::env::temp_dir().join(format!("netpoll-log-example-{}", std::process::id()));
/// let log = AccessLog::file(&path, LogFormat::Json)?;
/// let running = Server::bind("127.0.0.1:0")?
///     .on_complete(log.hook())
///     .app(|_worker| Router::new().get("/", |_: &Request| "hello"))
///     .start()?;
/// # use std::io::{Read, Write};
/// # let mut client = std::net::TcpStream::connect(running.addr().as_socket_addr().unwrap())?;
/// # client.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
/// # client.read_to_end(&mut Vec::new())?;
/// # running.stop(std::time::Duration::from_secs(1))?;
/// log.flush();
/// let lines = std::fs::read_to_string(&path)?;
/// assert!(lines.contains(r#""method":"GET","target":"/","version":"HTTP/1.0""#));
/// # std::fs::remove_file(&path)?;
/// # Ok(())
/// # }
/// ```
///
/// # Rotation
///
/// The file is opened for appending. After it was moved, [`reopen`](Self::reopen) goes on in a new one, and with
/// [`reopen_on_hangup`](Self::reopen_on_hangup) SIGHUP does.
///
/// # The end
///
/// When the last clone is dropped, those in the hooks of workers included, what is left is written before `drop` returns. A program that
/// calls [`std::process::exit`] calls [`flush`](Self::flush) before it.
#[derive(Clone)]
pub struct AccessLog {
    owner: Arc<Owner>,
}

struct Owner {
    shared: Arc<Shared>,
    format: LogFormat,
    room_bytes: AtomicUsize,
    one_in: AtomicU32,
    path: Option<Box<Path>>,
    writer: Option<JoinHandle<()>>,
}

/// Lines that a log lacks, since it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct LostLines {
    /// There was no room: requests that went well.
    pub usual: u64,
    /// There was no room: 4xx, and clients that have left.
    pub client: u64,
    /// There was no room: 5xx, panics, what was broken off or cut.
    pub failure: u64,
    /// The file, or what there is in its place, did not take them.
    pub unwritten: u64,
}

impl LostLines {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.usual + self.client + self.failure + self.unwritten
    }
}

impl AccessLog {
    /// A log in a file, behind what is in it, and behind a line end where that lacks one; it is made if it is not there.
    ///
    /// # Errors
    /// The file cannot be opened; the error names it. No thread to be had.
    pub fn file(path: impl AsRef<Path>, format: LogFormat) -> io::Result<Self> {
        let path = path.as_ref();
        Self::open(Sink::file(path)?, Some(path.into()), format)
    }

    /// A log into anything, such as [`std::io::stdout`]. It is written to on the thread of the log, and may block there. One that does not
    /// block, and takes nothing for a second (`WouldBlock`), loses the lines.
    ///
    /// # Errors
    /// No thread to be had.
    pub fn to(sink: impl io::Write + Send + 'static, format: LogFormat) -> io::Result<Self> {
        Self::open(Sink::Other(Box::new(sink)), None, format)
    }

    fn open(sink: Sink, path: Option<Box<Path>>, format: LogFormat) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let writer = Some(start(Arc::clone(&shared), sink, Lines::new(format))?);
        let (room_bytes, one_in) = (AtomicUsize::new(ROOM_BYTES), AtomicU32::new(1));
        Ok(Self { owner: Arc::new(Owner { shared, format, room_bytes, one_in, path, writer }) })
    }

    /// Each worker has room for so many bytes of lines: how much there may be between two writes, and what a disk that stands still is
    /// given. Default 256 KiB, some two thousand usual lines; at least 64 KiB, which the longest line takes. While these are written there is as much
    /// room for more. For hooks that are made from here on.
    #[must_use]
    pub fn room_bytes(self, bytes: usize) -> Self {
        self.owner.room_bytes.store(bytes.max(ROOM_BYTES_MIN), Relaxed);
        self
    }

    /// Of requests that went well only one in so many has a line. Default 1, all of them; 0 is 1. For hooks that are made from here on.
    ///
    /// A request *went well* if it was answered with a status below 400, all of it. Whatever went wrong always has its line: 4xx, 5xx,
    /// refusals, panics, clients that have left, what was broken off or cut. So has a request whose trace is
    /// [sampled](TraceContext::is_sampled) and that [`TraceContext::take`] has seen to: who follows a trace finds it in the log. That is for its
    /// client to say; where clients are not trusted with the size of the log, the hook is left out.
    ///
    /// On each worker it is one of each block of so many, at a place that differs from block to block and is the same in each run. What is
    /// left out is in [`sampled_out`](Self::sampled_out), and costs a few instructions: no line is made. What there was of each route is for
    /// [`Metrics`](crate::Metrics) to say, which counts all.
    ///
    /// ```
    /// use netpoll_http::{AccessLog, App, LogFormat, Request, Router};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let log = AccessLog::to(std::io::stdout(), LogFormat::Json)?.sample(100);
    /// let client = App::new(|_worker| Router::new().get("/", |_: &Request| "hello")).on_complete(log.hook()).test();
    /// for _ in 0..1000 {
    ///     client.get("/");
    /// }
    /// client.get("/nowhere"); // has its line
    /// assert_eq!(log.sampled_out(), 990);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn sample(self, one_in: u32) -> Self {
        self.owner.one_in.store(one_in, Relaxed);
        self
    }

    /// Opens the file again when the process gets SIGHUP, as logrotate sends it: `postrotate` with `kill -HUP`. If that fails the log goes on
    /// in the file that it has.
    ///
    /// SIGHUP stops a server unless it is left out of [`Builder::stop_signals`](netpoll_core::Builder::stop_signals):
    ///
    /// ```no_run
    /// use netpoll_core::StopSignal;
    /// use netpoll_http::{AccessLog, LogFormat, Request, Router, Server};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let log = AccessLog::file("/var/log/app/access.log", LogFormat::Combined)?.reopen_on_hangup()?;
    /// Server::bind("127.0.0.1:8080")?
    ///     .runtime(|builder| builder.stop_signals([StopSignal::Interrupt, StopSignal::Terminate]))
    ///     .on_complete(log.hook())
    ///     .serve(|_worker| Router::new().get("/", |_: &Request| "hello"))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// No descriptor, or no thread, to be had.
    pub fn reopen_on_hangup(self) -> io::Result<Self> {
        self.owner.shared.listen_to(signal::hangup()?);
        Ok(self)
    }

    /// Opens the file again, under the name that it had. What is written from now on is in the new one. Nothing happens to a log that is in no
    /// file.
    ///
    /// # Errors
    /// It cannot be opened; the log goes on in the one that it has.
    pub fn reopen(&self) -> io::Result<()> {
        if let Some(path) = &self.owner.path {
            self.owner.shared.go_on_in(open(path)?);
        }
        Ok(())
    }

    /// Waits until everything is written that was put in before. Blocks as long as the disk does: for the end of a program and for tests, not for
    /// handlers.
    pub fn flush(&self) {
        self.owner.shared.flush();
    }

    /// The lines that it lacks.
    #[must_use]
    pub fn lost(&self) -> LostLines {
        let shared = &self.owner.shared;
        let [usual, client, failure] = shared.lost();
        LostLines { usual, client, failure, unwritten: shared.unwritten() }
    }

    /// Requests that have no line because only one in so many [has one](Self::sample). They are not among the lines that it
    /// [lacks](Self::lost): lines written, lost and left out are as many as requests.
    #[must_use]
    pub fn sampled_out(&self) -> u64 {
        self.owner.shared.sampled_out()
    }

    /// What [`Server::on_complete`](crate::Server::on_complete) takes: it makes room for the lines of each worker.
    pub fn hook(&self) -> impl Fn(&Worker) -> Box<dyn Fn(&Completed<'_>)> + Send + Sync + 'static {
        let log = self.clone();
        move |_worker| {
            let logging = Logging::begin(&log.owner);
            Box::new(move |done| logging.log(done))
        }
    }
}

/// The log of one worker.
struct Logging {
    owner: Arc<Owner>,
    pages: Arc<Pages>,
    sample: Sample,
    lines: RefCell<Lines>,
}

impl Logging {
    fn begin(owner: &Arc<Owner>) -> Self {
        Self {
            pages: owner.shared.pages(owner.room_bytes.load(Relaxed)),
            sample: Sample::one_in(owner.one_in.load(Relaxed)),
            lines: RefCell::new(Lines::new(owner.format)),
            owner: Arc::clone(owner),
        }
    }

    #[inline(always)]
    fn log(&self, done: &Completed<'_>) {
        if went_well(done) && !self.sample.shows_next() && !is_traced(done) {
            return self.pages.leave_out();
        }
        self.put(done);
    }

    #[inline(never)]
    fn put(&self, done: &Completed<'_>) {
        let lines = &mut *self.lines.borrow_mut();
        let level = if went_well(done) { Level::Usual } else { level(done) };
        self.owner.shared.put(&self.pages, level, |room| lines.write(room, done));
    }
}

/// It is of the [level](level) that is lost first.
#[inline(always)]
fn went_well(done: &Completed<'_>) -> bool {
    match (done.outcome, done.status) {
        (Outcome::Answered, Some(status)) => status.as_u16() < 400,
        _ => goes_otherwise_well(done),
    }
}

/// The same of what was not answered by a handler.
#[cold]
fn goes_otherwise_well(done: &Completed<'_>) -> bool {
    level(done) == Level::Usual
}

/// Somebody follows it.
fn is_traced(done: &Completed<'_>) -> bool {
    done.request.extensions().get::<TraceContext>().is_some_and(TraceContext::is_sampled)
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.end();
        if let Some(writer) = self.writer.take() {
            // If what it wrote to has panicked, nobody is told any more.
            let _ = writer.join();
        }
    }
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessLog")
            .field("path", &self.owner.path)
            .field("format", &self.owner.format)
            .field("lost", &self.lost())
            .field("sampled_out", &self.sampled_out())
            .finish_non_exhaustive()
    }
}
