//! What copies cost: a message to many sockets, and a file to one, each in several ways.
//!
//! A thread on one core sends, a thread on another reads and never sleeps. What counts is the CPU time of the sender, by its own clock; all ways take
//! turns, and of each the median is taken. The kernel's own copy out of the receiver's queue is the reader's, and the same for all.

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, PipeReader, PipeWriter, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use benches::runner::{Failure, LOAD_CPU, SERVER_CPU, digits, median};
use benches::sys::{self, Sends};

use super::{Claim, Verdict};

const SOCKETS: usize = 100;
const FILE_BYTES: u64 = 64 << 20;
/// What `read` and a pipe take at once.
const PIECE: usize = 64 << 10;
const ROUNDS: usize = 11;
const WINDOW: Duration = Duration::from_millis(40);
/// How long the reader may take for what was sent.
const PATIENCE: Duration = Duration::from_secs(10);

/// One way to send the same.
struct Way {
    name: &'static str,
    /// Sends all of it, in so many system calls.
    send: Box<dyn FnMut() -> io::Result<u64>>,
    costs: Vec<f64>,
    calls: u64,
}

impl Way {
    fn new(name: &'static str, send: impl FnMut() -> io::Result<u64> + 'static) -> Self {
        Self { name, send: Box::new(send), costs: Vec::new(), calls: 0 }
    }

    /// CPU seconds of one time.
    fn cost(&self) -> f64 {
        median(&self.costs).unwrap_or(f64::NAN)
    }
}

/// The other ends of sockets, read by a thread until this is dropped.
struct Readers {
    bytes: Arc<AtomicU64>,
    stops: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Readers {
    /// So many sockets, and who reads what is sent to them.
    fn of(count: usize) -> io::Result<(Arc<[TcpStream]>, Self)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..count {
            ours.push(TcpStream::connect(listener.local_addr()?)?);
            theirs.push(listener.accept()?.0);
        }
        ours.iter().try_for_each(|socket| socket.set_nodelay(true))?;
        theirs.iter().try_for_each(|socket| socket.set_nonblocking(true))?;
        let (bytes, stops) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let thread = thread::spawn({
            let (bytes, stops) = (Arc::clone(&bytes), Arc::clone(&stops));
            move || {
                sys::pin_current_thread(&[LOAD_CPU])?;
                let mut block = vec![0; 4 * PIECE];
                while !stops.load(Ordering::Relaxed) {
                    for mut socket in &theirs {
                        match socket.read(&mut block) {
                            Ok(read) => {
                                bytes.fetch_add(read as u64, Ordering::Relaxed);
                            }
                            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                            Err(error) => return Err(error),
                        }
                    }
                }
                Ok(())
            }
        });
        Ok((ours.into(), Self { bytes, stops, thread: Some(thread) }))
    }

    /// Waits until so many bytes were read, all in all.
    fn await_bytes(&self, bytes: u64) -> Result<(), Failure> {
        let begin = Instant::now();
        while self.bytes.load(Ordering::Relaxed) < bytes {
            if begin.elapsed() > PATIENCE {
                return Err("what was sent has not arrived".into());
            }
            thread::yield_now();
        }
        Ok(())
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.stops.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its error was seen by who waited for bytes.
            let _ = thread.join();
        }
    }
}

/// Lets the ways take turns; each sends so many bytes at a time.
fn measure(ways: &mut [Way], readers: &Readers, bytes: u64) -> Result<(), Failure> {
    let mut sent = 0;
    // The first round is for warmth.
    for round in 0..=ROUNDS {
        for way in &mut *ways {
            let (begin, mut spent, mut times) = (Instant::now(), Duration::ZERO, 0_u32);
            while times == 0 || begin.elapsed() < WINDOW {
                let cpu = sys::thread_cpu_time()?;
                way.calls = (way.send)()?;
                spent += sys::thread_cpu_time()? - cpu;
                (sent, times) = (sent + bytes, times + 1);
                // Each begins with sockets that have room.
                readers.await_bytes(sent)?;
            }
            if round > 0 {
                way.costs.push(spent.as_secs_f64() / f64::from(times));
            }
        }
    }
    Ok(())
}

/// A pipe that holds a message, and one that gets it for each socket.
struct Tee {
    kept: (PipeReader, PipeWriter),
    copy: (PipeReader, PipeWriter),
    drain: File,
}

impl Tee {
    fn new() -> io::Result<Self> {
        let drain = File::options().write(true).open("/dev/null")?;
        Ok(Self { kept: io::pipe()?, copy: io::pipe()?, drain })
    }

    fn send(&mut self, frame: &[u8], sockets: &[TcpStream]) -> io::Result<u64> {
        self.kept.1.write_all(frame)?;
        let mut calls = 2;
        for socket in sockets {
            let teed = sys::tee(&self.kept.0, &self.copy.1, frame.len())?;
            if teed != frame.len() {
                return Err(io::Error::other("tee(2) has left something"));
            }
            calls += 1 + splice_all(&self.copy.0, socket, teed)?;
        }
        splice_all(&self.kept.0, &self.drain, frame.len())?;
        Ok(calls)
    }
}

/// Moves so many bytes, and returns in how many calls.
fn splice_all(from: impl std::os::fd::AsFd, to: impl std::os::fd::AsFd, bytes: usize) -> io::Result<u64> {
    let (mut left, mut calls) = (bytes, 0);
    while left > 0 {
        match sys::splice(&from, &to, left)? {
            0 => return Err(ErrorKind::WriteZero.into()),
            moved => left -= moved,
        }
        calls += 1;
    }
    Ok(calls)
}

/// The header of a text frame of a server.
fn header(bytes: usize) -> Vec<u8> {
    match bytes {
        0..=125 => vec![0x81, bytes as u8],
        _ => [&[0x81, 126][..], &(bytes as u16).to_be_bytes()].concat(),
    }
}

fn to_many(bytes: usize) -> Result<Vec<Way>, Failure> {
    let (sockets, readers) = Readers::of(SOCKETS)?;
    let payload: Arc<[u8]> = vec![b'x'; bytes].into();
    let head: Arc<[u8]> = header(bytes).into();
    let frame: Arc<[u8]> = [&head[..], &payload].concat().into();
    let mut ways = Vec::new();
    ways.push(Way::new("a copy for each", {
        let (sockets, head, payload) = (Arc::clone(&sockets), Arc::clone(&head), Arc::clone(&payload));
        move || {
            sockets.iter().try_for_each(|mut socket| {
                let mut copy = Vec::with_capacity(head.len() + payload.len());
                copy.extend_from_slice(&head);
                copy.extend_from_slice(&payload);
                socket.write_all(&copy)
            })?;
            Ok(sockets.len() as u64)
        }
    }));
    ways.push(Way::new("one frame", {
        let (sockets, frame) = (Arc::clone(&sockets), Arc::clone(&frame));
        move || {
            sockets.iter().try_for_each(|mut socket| socket.write_all(&frame))?;
            Ok(sockets.len() as u64)
        }
    }));
    ways.push(Way::new("writev", {
        let (sockets, total) = (Arc::clone(&sockets), frame.len());
        move || {
            for mut socket in &*sockets {
                // The peer reads all the time, so a blocking socket takes all of it.
                if socket.write_vectored(&[IoSlice::new(&head), IoSlice::new(&payload)])? != total {
                    return Err(ErrorKind::WriteZero.into());
                }
            }
            Ok(sockets.len() as u64)
        }
    }));
    ways.push(Way::new("tee and splice", {
        let (sockets, frame, mut tee) = (Arc::clone(&sockets), Arc::clone(&frame), Tee::new()?);
        move || tee.send(&frame, &sockets)
    }));
    // Where a sandbox forbids rings there is none in the table.
    if let Ok(mut sends) = Sends::new(SOCKETS as u32) {
        let (sockets, frame) = (Arc::clone(&sockets), Arc::clone(&frame));
        ways.push(Way::new("io_uring", move || sends.send_to_all(&sockets, &frame)));
    }
    measure(&mut ways, &readers, (SOCKETS * frame.len()) as u64)?;
    Ok(ways)
}

fn of_a_file() -> Result<Vec<Way>, Failure> {
    let path = std::env::temp_dir().join(format!("netpoll-copies-{}", std::process::id()));
    let block = vec![b'x'; PIECE];
    let written = File::create(&path).and_then(|mut file| {
        (0..FILE_BYTES / PIECE as u64).try_for_each(|_| file.write_all(&block))?;
        File::open(&path)
    });
    // It is there as long as somebody has it open.
    let removed = std::fs::remove_file(&path);
    let file = Arc::new(written?);
    removed?;
    let (sockets, readers) = Readers::of(1)?;
    let mut ways = Vec::new();
    ways.push(Way::new("read and write", {
        let (sockets, file, mut block) = (Arc::clone(&sockets), Arc::clone(&file), block);
        move || {
            let (mut socket, mut at, mut calls) = (&sockets[0], 0, 0);
            while at < FILE_BYTES {
                let read = std::os::unix::fs::FileExt::read_at(&*file, &mut block, at)?;
                socket.write_all(&block[..read])?;
                (at, calls) = (at + read as u64, calls + 2);
            }
            Ok(calls)
        }
    }));
    ways.push(Way::new("sendfile", {
        let (sockets, file) = (Arc::clone(&sockets), Arc::clone(&file));
        move || {
            let (mut at, mut calls) = (0, 0);
            while at < FILE_BYTES {
                at += sys::send_file(&sockets[0], &file, at, 8 * PIECE)? as u64;
                calls += 1;
            }
            Ok(calls)
        }
    }));
    ways.push(Way::new("splice", {
        let pipe = io::pipe()?;
        move || {
            let (mut at, mut calls) = (0, 0);
            while at < FILE_BYTES {
                let moved = sys::splice_from(&file, at, &pipe.1, PIECE)?;
                calls += 1 + splice_all(&pipe.0, &sockets[0], moved)?;
                at += moved as u64;
            }
            Ok(calls)
        }
    }));
    measure(&mut ways, &readers, FILE_BYTES)?;
    Ok(ways)
}

/// How much more the best way sends in the same time than the first one.
fn gain(ways: &[Way]) -> f64 {
    ways[0].cost() / ways.iter().map(Way::cost).fold(f64::INFINITY, f64::min) - 1.0
}

fn list(ways: &[Way], scale: f64, calls: f64) -> String {
    let one = |way: &Way| {
        format!("{} {} ({} calls)", way.name, digits(way.cost() * scale), digits(way.calls as f64 * calls))
    };
    ways.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Measured on a thread of its own, as that is pinned.
pub fn claims() -> Result<Vec<Claim>, Failure> {
    let measured = thread::spawn(|| {
        let measure = || -> Result<_, Failure> {
            sys::pin_current_thread(&[SERVER_CPU])?;
            Ok((to_many(64)?, to_many(1024)?, to_many(16 << 10)?, of_a_file()?))
        };
        // What they send by ends with this thread.
        measure()
            .map(|(small, middle, large, file)| of(&small, &middle, &large, &file))
            .map_err(|error| error.to_string())
    });
    Ok(measured.join().map_err(|_| "the thread that measures copies panicked")??)
}

fn of(small: &[Way], middle: &[Way], large: &[Way], file: &[Way]) -> Vec<Claim> {
    let one = 1.0 / SOCKETS as f64;
    let to_many = |ways| list(ways, 1e6 * one, one);
    let best = [small, middle, large].map(gain).into_iter().fold(0.0, f64::max);
    let per_gib = (1_u64 << 30) as f64 / FILE_BYTES as f64;
    vec![
        Claim {
            says: "Without copies a message reaches a room with 60 % more throughput.",
            here: format!(
                "CPU of a delivery to {SOCKETS} sockets, us: of 64 B {}; of 1 KiB {}; of 16 KiB {}: {:+.0} % at best",
                to_many(small),
                to_many(middle),
                to_many(large),
                best * 100.0
            ),
            verdict: Verdict::of(best >= 0.6),
            why: "judged by CPU time, beside a copy for each socket; what a socket costs the kernel is far more than the copy of a message",
        },
        Claim {
            says: "Without copies a file is sent with 85 % more throughput.",
            here: format!(
                "CPU of a GiB, ms: {}: {:+.0} % at best",
                list(file, 1e3 * per_gib, per_gib),
                gain(file) * 100.0
            ),
            verdict: Verdict::of(gain(file) >= 0.85),
            why: "judged by CPU time, beside read and write in pieces of 64 KiB; a file in the page cache, to a socket of this machine",
        },
    ]
}
