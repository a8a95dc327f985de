//! The thread that writes what all workers have put into their pages.
//!
//! It gathers for a moment, writes what each worker has in one call, and sleeps without a deadline when it has found nothing twice in a row. Who puts a
//! line in wakes it only if it sleeps, or if a page has become half full: a busy worker makes no system calls for its log. While its sink does not even
//! take that lines are lost, it asks it again once a second.
//!
//! `tests/loom.rs` has it in every interleaving with a worker, but for the file and the hangup.
//!
//! Invariant: the thread is the only one that takes from the pages and that has the sink. When it sleeps, it has seen each page empty and
//! left word there that it is to be woken.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{OnceLock, PoisonError};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use netpoll_core::signal::Signal;

use super::line::Lines;
use super::pages::{Level, Page, Pages, Put};
use super::sync::{
    Arc, AtomicU64, Condvar, JoinHandle, Mutex, MutexGuard, Ordering::Relaxed, Sleeper, spawn,
};
use crate::message::guarded;

/// How long lines are gathered, while there are any: so late a line is in its file at most, and so few writes there are.
const GATHER: Duration = Duration::from_millis(20);

/// How long the writer waits for a sink that takes nothing now and does not block, such as a standard output that a neighbour has set so, and
/// how often it looks. Then the lines are lost, and those of other workers that wait behind them, unless it takes them at once.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(5);
const TRIES: u32 = 200;

/// How often a sink that takes nothing is asked whether it takes the line that says how many are lost, if nothing else is written.
const TELL_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Where lines go.
pub enum Sink {
    /// A file, and its name.
    File(File, PathBuf),
    /// The program's.
    Other(Box<dyn Write + Send>),
}

impl Sink {
    /// Appends to a file, which is made if it is not there.
    ///
    /// # Errors
    /// It cannot be opened; the error names it.
    pub fn file(path: &Path) -> io::Result<Self> {
        Ok(Self::File(open(path)?, path.to_owned()))
    }
}

pub fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().append(true).create(true).open(path);
    file.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// Whether a file ends inside a line, as one does whose disk was full. `None` where that cannot be seen.
fn is_torn(file: &File, path: &Path) -> Option<bool> {
    let bytes = file.metadata().ok().filter(Metadata::is_file)?.len();
    let Some(last) = bytes.checked_sub(1) else { return Some(false) };
    let mut byte = [0];
    // It is open for appending only.
    File::open(path).ok()?.read_exact_at(&mut byte, last).ok()?;
    Some(byte != *b"\n")
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file, _) => file.write(bytes),
            Self::Other(sink) => sink.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file, _) => file.flush(),
            Self::Other(sink) => sink.flush(),
        }
    }
}

/// What workers, the program and the writer share.
#[derive(Default)]
pub struct Shared {
    writer: OnceLock<Sleeper>,
    workers: Mutex<Workers>,
    orders: Mutex<Orders>,
    /// The writer has carried orders out.
    done: Condvar,
    /// Lines that could not be written.
    unwritten: AtomicU64,
}

/// The pages of all workers.
#[derive(Default)]
struct Workers {
    live: Vec<Arc<Pages>>,
    /// What those have lost that are gone, and what was left out of them on purpose.
    gone: [u64; 3],
    gone_sampled_out: u64,
}

impl Workers {
    /// Lets go of the pages of those that have ended, if all was taken out of them.
    fn forget(&mut self) {
        let Self { live, gone, gone_sampled_out } = self;
        live.retain_mut(|pages| {
            // Having them alone is behind all that their worker did: a count would not tell.
            let is_over = Arc::get_mut(pages).is_some_and(Pages::are_empty);
            if is_over {
                for level in Level::ALL {
                    gone[level as usize] += pages.lost(level);
                }
                *gone_sampled_out += pages.sampled_out();
            }
            !is_over
        });
    }
}

/// What the program wants of the writer.
#[derive(Default)]
struct Orders {
    /// A file to go on in.
    file: Option<File>,
    hangup: Option<Signal>,
    /// How often everything was to be written, and has been.
    flushes: u64,
    flushed: u64,
    ends: bool,
}

/// A mutex is held for a moment, and nothing panics meanwhile.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Pages for one more worker.
    pub fn pages(&self, bytes_max: usize) -> Arc<Pages> {
        let pages = Arc::new(Pages::new(bytes_max));
        let mut workers = lock(&self.workers);
        // The writer sleeps while workers come and go that have no lines.
        workers.forget();
        workers.live.push(Arc::clone(&pages));
        pages
    }

    /// Has a line written into pages of this log, see [`Pages::put`].
    #[inline(always)]
    pub fn put(&self, pages: &Pages, level: Level, write: impl FnOnce(&mut [u8]) -> Option<usize>) {
        match pages.put(level, write) {
            Put::Taken => {}
            Put::TakenAndAwaited | Put::Lost => self.wake(),
        }
    }

    #[cold]
    fn wake(&self) {
        if let Some(writer) = self.writer.get() {
            writer.wake();
        }
    }

    /// Goes on in this file.
    pub fn go_on_in(&self, file: File) {
        lock(&self.orders).file = Some(file);
        self.wake();
    }

    /// Opens the file again when it is told so.
    pub fn listen_to(&self, hangup: Signal) {
        lock(&self.orders).hangup = Some(hangup);
        self.wake();
    }

    /// Waits until everything is written that was put in before.
    pub fn flush(&self) {
        let mut orders = lock(&self.orders);
        orders.flushes += 1;
        let wanted = orders.flushes;
        self.wake();
        while orders.flushed < wanted {
            orders = self.done.wait(orders).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Has the writer write what is there and end.
    pub fn end(&self) {
        lock(&self.orders).ends = true;
        self.wake();
    }

    /// Lines that there was no room for, by level.
    pub fn lost(&self) -> [u64; 3] {
        let workers = lock(&self.workers);
        let of = |level| {
            workers.gone[level as usize] + workers.live.iter().map(|pages| pages.lost(level)).sum::<u64>()
        };
        Level::ALL.map(of)
    }

    /// Lines that were left out on purpose.
    pub fn sampled_out(&self) -> u64 {
        let workers = lock(&self.workers);
        workers.gone_sampled_out + workers.live.iter().map(|pages| pages.sampled_out()).sum::<u64>()
    }

    /// Lines that the sink did not take.
    pub fn unwritten(&self) -> u64 {
        self.unwritten.load(Relaxed)
    }

    fn all_lost(&self) -> u64 {
        self.lost().iter().sum::<u64>() + self.unwritten()
    }
}

struct Awaken(Sleeper);

impl Wake for Awaken {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.wake();
    }
}

/// Starts the thread.
///
/// # Errors
/// There is none to be had.
pub fn start(shared: Arc<Shared>, sink: Sink, lines: Lines) -> io::Result<JoinHandle<()>> {
    let of_thread = Arc::clone(&shared);
    let is_torn = matches!(&sink, Sink::File(file, path) if is_torn(file, path) == Some(true));
    let writer = move |me| {
        let page = Page::default();
        Writer { me, shared: of_thread, sink, lines, page, reported: 0, has_to_tell: false, is_torn }.run()
    };
    let (handle, sleeper) = spawn("netpoll-log", writer)?;
    // Nobody has pages yet, so nobody has missed it.
    let _ = shared.writer.set(sleeper);
    Ok(handle)
}

/// Does it again while it was interrupted, and for a second while it would block, if it is worth the wait.
fn insist<T>(is_patient: bool, mut act: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut tries = if is_patient { 0 } else { TRIES };
    loop {
        match act() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && tries < TRIES => {
                tries += 1;
                std::thread::sleep(TRY_AGAIN_AFTER);
            }
            outcome => return outcome,
        }
    }
}

struct Writer {
    me: Sleeper,
    shared: Arc<Shared>,
    sink: Sink,
    lines: Lines,
    /// Empty but while it is written: given to a worker in exchange for a full one.
    page: Page,
    /// Lost lines that the log tells of.
    reported: u64,
    /// There are more, and the sink did not take the line that says so.
    has_to_tell: bool,
    /// What it writes to ends inside a line, of which the rest was not taken: it is ended before the next one.
    is_torn: bool,
}

impl Writer {
    fn run(mut self) {
        let waker = Waker::from(std::sync::Arc::new(Awaken(self.me.clone())));
        let mut found_nothing = false;
        loop {
            let (flushes, ends) = self.take_orders(&waker);
            let has_written = self.write_all(found_nothing);
            {
                let mut orders = lock(&self.shared.orders);
                orders.flushed = orders.flushed.max(flushes);
                self.shared.done.notify_all();
            }
            if ends {
                return;
            }
            if has_written {
                self.me.sleep_for(GATHER);
            } else if found_nothing && self.has_to_tell {
                self.me.sleep_for(TELL_AGAIN_AFTER);
            } else if found_nothing {
                // Lines, orders and signals leave a token, which keeps the thread from sleeping.
                self.me.sleep();
            }
            found_nothing = !has_written;
        }
    }

    /// What was asked for before now: how many flushes, and whether this is the end.
    fn take_orders(&mut self, waker: &Waker) -> (u64, bool) {
        let shared = Arc::clone(&self.shared);
        let mut orders = lock(&shared.orders);
        let has_hung_up = orders
            .hangup
            .as_mut()
            .is_some_and(|hangup| hangup.poll_recv(&mut Context::from_waker(waker)).is_ready());
        let file = orders.file.take();
        let asked = (orders.flushes, orders.ends);
        drop(orders);
        if let Sink::File(current, path) = &mut self.sink {
            // Whoever cannot open it again goes on in the one it has.
            let again = if has_hung_up { open(path).ok() } else { None };
            if let Some(next) = again.or(file) {
                self.is_torn = is_torn(&next, path).unwrap_or(self.is_torn);
                *current = next;
            }
        }
        if has_hung_up {
            // It is polled again before the thread sleeps, and its waker registered.
            self.me.wake();
        }
        asked
    }

    /// Writes what is there now. True if there was anything. Who puts a line into an empty page is told to wake this thread, if that is so.
    ///
    /// What comes meanwhile is the next round's: who is faster than the disk keeps neither other workers waiting nor what was asked for.
    fn write_all(&mut self, is_awaited: bool) -> bool {
        let workers = lock(&self.shared.workers).live.clone();
        let (mut has_written, mut page) = (false, std::mem::take(&mut self.page));
        // Once in a round is enough to wait for a sink.
        let mut is_patient = true;
        for pages in &workers {
            pages.take(&mut page, is_awaited, |page| {
                has_written = true;
                is_patient &= self.write(page, is_patient);
            });
        }
        // There is room again: the log says what it lacks.
        let lost = self.shared.all_lost();
        if lost > self.reported {
            let mut line = Vec::new();
            self.lines.write_lost(&mut line, lost - self.reported);
            page.push(&line);
            is_patient &= !self.has_to_tell;
            self.has_to_tell = !self.write(&mut page, is_patient);
            if !self.has_to_tell {
                (has_written, self.reported) = (true, lost);
            }
        }
        self.page = page;
        if has_written {
            // What it could not write it says at the next write.
            let _ = guarded(|| insist(is_patient, || self.sink.flush()));
        }
        drop(workers);
        lock(&self.shared.workers).forget();
        has_written
    }

    /// Writes a page, and clears it. False if some of it was not taken. A sink that has taken the first of it is waited for in any case.
    fn write(&mut self, page: &mut Page, is_patient: bool) -> bool {
        let (text, lines) = page.lines();
        let joined;
        let text = match self.is_torn {
            true => {
                joined = [b"\n", text].concat();
                &joined
            }
            false => text,
        };
        let mut taken = 0;
        // The sink may be the program's, and panic.
        let outcome = guarded(|| {
            while taken < text.len() {
                match insist(is_patient || taken > 0, || self.sink.write(&text[taken..]))? {
                    0 => return Err(io::Error::from(io::ErrorKind::WriteZero)),
                    bytes => taken = text.len().min(taken + bytes),
                }
            }
            Ok(())
        });
        let has_panicked = outcome.is_none();
        let is_written = outcome.is_some_and(|outcome| outcome.is_ok());
        if !is_written {
            let whole = memchr::memchr_iter(b'\n', &text[..taken]).count() as u64;
            // The first one ends what was torn before.
            let whole = whole.saturating_sub(u64::from(self.is_torn));
            self.shared.unwritten.fetch_add(lines.saturating_sub(whole), Relaxed);
        }
        if let Some(last) = text[..taken].last() {
            self.is_torn = *last != b'\n';
        }
        // Who panics may have taken more than it has said.
        self.is_torn |= has_panicked;
        page.clear();
        is_written
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn pages_of_workers_that_come_and_go_without_a_line_are_not_kept() {
        let shared = Shared::default();
        let kept = || lock(&shared.workers).live.len();
        for worker in 1..=10 {
            shared.pages(1024).leave_out();
            assert_eq!((shared.sampled_out(), kept()), (worker, 1), "the next one lets go of them");
        }
        let has_a_line = shared.pages(1024);
        shared.put(&has_a_line, Level::Usual, |_| Some(5));
        drop(has_a_line);
        let _next = shared.pages(1024);
        assert_eq!((shared.sampled_out(), kept()), (10, 2));
    }
}
