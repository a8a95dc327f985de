//! The thread that writes what all workers have put into their rings.
//!
//! It gathers for a moment, writes what there is in one call, and sleeps without a deadline when there is nothing. Who puts a line
//! in wakes it only if it sleeps, or if a ring has become half full: a busy worker makes no system calls for its log.
//!
//! `tests/loom.rs` has it in every interleaving with a worker, but for the file and the hangup.
//!
//! Invariant: the thread is the only one that takes from the rings and that has the sink.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{OnceLock, PoisonError};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use netpoll_core::signal::Signal;

use super::line::Lines;
use super::ring::{Level, Put, Ring};
use super::sync::{
    Arc, AtomicBool, AtomicU64, Condvar, JoinHandle, Mutex, MutexGuard, Ordering::Relaxed, Ordering::SeqCst,
    Sleeper, fence, spawn,
};
use crate::message::guarded;

/// How long lines are gathered, while there are any: so late a line is in its file at most, and so few writes there are.
const GATHER: Duration = Duration::from_millis(20);
/// What is gathered for one write.
const WRITE_BYTES: usize = 64 * 1024;

/// How long the writer waits for a sink that takes nothing now and does not block, such as a standard output that a neighbour has set so, and
/// how often it looks. Then the lines are lost.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(5);
const TRIES: u32 = 200;

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
    /// The writer sleeps, or is about to: who has something for it wakes it.
    is_asleep: AtomicBool,
    rings: Mutex<Rings>,
    orders: Mutex<Orders>,
    /// The writer has carried orders out.
    done: Condvar,
    /// Lines that could not be written.
    unwritten: AtomicU64,
}

/// The rings of all workers.
#[derive(Default)]
struct Rings {
    live: Vec<Arc<Ring>>,
    /// What those have lost that are gone, and what was left out of them on purpose.
    gone: [u64; 3],
    gone_sampled_out: u64,
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
    /// A ring for one more worker.
    pub fn ring(&self, bytes: usize) -> Arc<Ring> {
        let ring = Arc::new(Ring::new(bytes));
        lock(&self.rings).live.push(Arc::clone(&ring));
        ring
    }

    /// Puts a line into a ring of this log.
    pub fn put(&self, ring: &Ring, line: &[u8], level: Level) {
        match ring.put(line, level) {
            Put::Taken => {
                // With the one in `sleep`: either it sees the line, or we see that it sleeps.
                fence(SeqCst);
                if self.is_asleep.load(Relaxed) && self.is_asleep.swap(false, Relaxed) {
                    self.wake();
                }
            }
            Put::TakenAndHalfFull | Put::Lost => self.wake(),
        }
    }

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
        let rings = lock(&self.rings);
        let of =
            |level| rings.gone[level as usize] + rings.live.iter().map(|ring| ring.lost(level)).sum::<u64>();
        Level::ALL.map(of)
    }

    /// Lines that were left out on purpose.
    pub fn sampled_out(&self) -> u64 {
        let rings = lock(&self.rings);
        rings.gone_sampled_out + rings.live.iter().map(|ring| ring.sampled_out()).sum::<u64>()
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
    let writer = |me| {
        Writer { me, shared: of_thread, sink, lines, buffer: Vec::new(), reported: 0, is_torn: false }.run()
    };
    let (handle, sleeper) = spawn("netpoll-log", writer)?;
    // Nobody has a ring yet, so nobody has missed it.
    let _ = shared.writer.set(sleeper);
    Ok(handle)
}

/// Does it again while it was interrupted, and for a second while it would block.
fn insist<T>(mut act: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut tries = 0;
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
    buffer: Vec<u8>,
    /// Lost lines that the log tells of.
    reported: u64,
    /// The last line was not taken as a whole: it is ended before the next one.
    is_torn: bool,
}

impl Writer {
    fn run(mut self) {
        let waker = Waker::from(std::sync::Arc::new(Awaken(self.me.clone())));
        loop {
            let (flushes, ends) = self.take_orders(&waker);
            let has_written = self.write_all();
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
            } else {
                self.sleep();
            }
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
                *current = next;
            }
        }
        if has_hung_up {
            // It is polled again before the thread sleeps, and its waker registered.
            self.me.wake();
        }
        asked
    }

    /// Writes what is in the rings now. True if there was anything.
    ///
    /// What comes meanwhile is the next round's: who is faster than the disk keeps neither other rings waiting nor what was asked for.
    fn write_all(&mut self) -> bool {
        let rings = lock(&self.shared.rings).live.clone();
        let (mut has_written, mut lines) = (false, 0);
        for ring in &rings {
            let end = ring.end();
            loop {
                lines += ring.take(&mut self.buffer, WRITE_BYTES, end);
                if self.buffer.len() < WRITE_BYTES {
                    break;
                }
                has_written = true;
                self.write_buffer(std::mem::take(&mut lines));
            }
        }
        if lines > 0 {
            has_written = true;
            self.write_buffer(lines);
        }
        // There is room again: the log says what it lacks.
        let lost = self.shared.all_lost();
        if lost > self.reported {
            self.lines.write_lost(&mut self.buffer, lost - self.reported);
            has_written = true;
            if self.write_buffer(0) {
                self.reported = lost;
            }
        }
        if has_written {
            // What it could not write it says at the next write.
            let _ = guarded(|| insist(|| self.sink.flush()));
        }
        drop(rings);
        self.forget_rings();
        has_written
    }

    /// Lets go of the rings of workers that have ended.
    fn forget_rings(&self) {
        let Rings { live, gone, gone_sampled_out } = &mut *lock(&self.shared.rings);
        live.retain_mut(|ring| {
            // Having it alone is behind all that its worker did: a count would not tell.
            let is_over = Arc::get_mut(ring).is_some_and(|ring| ring.is_empty());
            if is_over {
                for level in Level::ALL {
                    gone[level as usize] += ring.lost(level);
                }
                *gone_sampled_out += ring.sampled_out();
            }
            !is_over
        });
    }

    /// Writes what was gathered, which is so many lines. False if some of it was not taken.
    fn write_buffer(&mut self, lines: u64) -> bool {
        if self.is_torn {
            self.buffer.insert(0, b'\n');
        }
        let mut taken = 0;
        // The sink may be the program's, and panic.
        let outcome = guarded(|| {
            while taken < self.buffer.len() {
                match insist(|| self.sink.write(&self.buffer[taken..]))? {
                    0 => return Err(io::Error::from(io::ErrorKind::WriteZero)),
                    bytes => taken = self.buffer.len().min(taken + bytes),
                }
            }
            Ok(())
        });
        let is_written = outcome.is_some_and(|outcome| outcome.is_ok());
        if !is_written {
            let whole = memchr::memchr_iter(b'\n', &self.buffer[..taken]).count() as u64;
            // The first one ends what was torn before.
            let whole = whole.saturating_sub(u64::from(self.is_torn));
            self.shared.unwritten.fetch_add(lines.saturating_sub(whole), Relaxed);
        }
        if let Some(last) = self.buffer[..taken].last() {
            self.is_torn = *last != b'\n';
        }
        self.buffer.clear();
        is_written
    }

    fn sleep(&self) {
        self.shared.is_asleep.store(true, Relaxed);
        // With the one in `put`.
        fence(SeqCst);
        let is_empty = lock(&self.shared.rings).live.iter().all(|ring| ring.is_empty());
        if is_empty {
            // Orders and signals leave a token, which keeps the thread from sleeping.
            self.me.sleep();
        }
        self.shared.is_asleep.store(false, Relaxed);
    }
}
