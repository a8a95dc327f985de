//! The access log between a worker and the thread that writes, under the model checker, in any interleaving: lines arrive whole and in
//! order or are counted, what went wrong has its reserve, and no line is slept over, by a wake-up or at the end.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p netpoll-http --features internals --test loom`.
//! These fail if the `Release` of the head in `watch/ring.rs`, or its `Acquire`, is relaxed; if either of the two fences in
//! `watch/writer.rs` is removed; if its writer looks at the rings before it looks whether this is the end, or counts the owners of a ring
//! before it forgets it. The orders of the tail are beyond the model: to it no load sees what is stored later, which is what they forbid.
#![cfg(all(loom, feature = "internals"))]

use std::io;

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use netpoll_http::LogFormat;
use netpoll_http::internals::watch::{Level, Lines, Put, Ring, Shared, Sink, start};

/// The smallest ring: eight words. Six are for any line, the seventh for what went wrong, the eighth for what went wrong for us.
const RING_BYTES: usize = 64;

fn model(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    builder.check(model);
}

/// Lines that tell if they were torn: a digit, so often as it says.
fn line(number: u8) -> Vec<u8> {
    let bytes = 1 + usize::from(number) * 5 % 14;
    let mut line = vec![b'0' + number; bytes];
    line.push(b'\n');
    line
}

/// The numbers of lines that are whole.
fn numbers(text: &[u8]) -> Vec<u8> {
    let whole = |text: &[u8]| {
        let number = text[0] - b'0';
        assert_eq!(text, line(number), "a whole line");
        number
    };
    text.split_inclusive(|byte| *byte == b'\n').filter(|line| line[0] != b'#').map(whole).collect()
}

#[test]
fn lines_come_out_whole_and_in_order_around_the_end_of_the_ring_or_are_counted() {
    model(3, || {
        let ring = Arc::new(Ring::new(RING_BYTES));
        let of_worker = Arc::clone(&ring);
        // Some ten words, if none is lost.
        let worker = thread::spawn(move || {
            (1..=5)
                .filter(|number| of_worker.put(&line(*number), Level::Usual) != Put::Lost)
                .collect::<Vec<u8>>()
        });
        let (mut out, mut taken) = (Vec::new(), 0);
        for _ in 0..3 {
            let bytes_max = out.len() + 1;
            taken += ring.take(&mut out, bytes_max, ring.end());
        }
        let put = worker.join().unwrap();
        taken += ring.take(&mut out, usize::MAX, ring.end());
        assert_eq!((numbers(&out), taken), (put.clone(), put.len() as u64));
        assert_eq!(taken + ring.lost(Level::Usual), 5);
        assert!(ring.is_empty());
    });
}

#[test]
fn what_went_wrong_has_room_however_many_lines_went_well() {
    model(3, || {
        let ring = Arc::new(Ring::new(RING_BYTES));
        let of_worker = Arc::clone(&ring);
        // Two words each.
        let worker = thread::spawn(move || {
            let usual = (0..5).filter(|_| of_worker.put(b"usual\n", Level::Usual) != Put::Lost).count();
            assert_ne!(of_worker.put(b"failure\n", Level::Failure), Put::Lost, "the reserve is for it");
            usual as u64
        });
        let mut out = Vec::new();
        let mut taken = ring.take(&mut out, 1, ring.end());
        let usual = worker.join().unwrap();
        taken += ring.take(&mut out, usize::MAX, ring.end());
        assert!(out.ends_with(b"failure\n"));
        assert_eq!((taken, usual + ring.lost(Level::Usual), ring.lost(Level::Failure)), (usual + 1, 5, 0));
    });
}

/// What was written, for who waits for it.
#[derive(Clone)]
struct Paper(Arc<(Mutex<Vec<u8>>, Condvar)>);

impl Paper {
    fn new() -> Self {
        Self(Arc::new((Mutex::new(Vec::new()), Condvar::new())))
    }

    fn numbers(&self) -> Vec<u8> {
        numbers(&self.0.0.lock().unwrap())
    }

    /// Waits for so many lines. If one is slept over nobody goes on, which the model checker reports.
    fn wait_for(&self, lines: usize) {
        let mut text = self.0.0.lock().unwrap();
        while numbers(&text).len() < lines {
            text = self.0.1.wait(text).unwrap();
        }
    }
}

impl io::Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.0.lock().unwrap().extend_from_slice(bytes);
        self.0.1.notify_one();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn log() -> (Arc<Shared>, Paper, thread::JoinHandle<()>) {
    let (shared, paper) = (Arc::new(Shared::default()), Paper::new());
    let sink = Sink::Other(Box::new(paper.clone()));
    let writer = start(Arc::clone(&shared), sink, Lines::new(LogFormat::Common)).unwrap();
    (shared, paper, writer)
}

#[test]
fn a_line_always_wakes_the_writer() {
    for lines in [1, 2] {
        model(2, move || {
            let (shared, paper, writer) = log();
            let ring = shared.ring(RING_BYTES);
            for number in 1..=lines {
                shared.put(&ring, &line(number), Level::Usual);
            }
            paper.wait_for(lines.into());
            shared.end();
            writer.join().unwrap();
            assert_eq!((paper.numbers(), shared.lost()), ((1..=lines).collect(), [0; 3]));
        });
    }
}

#[test]
fn what_was_put_in_before_a_flush_is_written_behind_it() {
    model(2, || {
        let (shared, paper, writer) = log();
        let ring = shared.ring(RING_BYTES);
        shared.put(&ring, &line(1), Level::Usual);
        shared.flush();
        assert_eq!(paper.numbers(), [1]);
        shared.end();
        writer.join().unwrap();
    });
}

#[test]
fn at_the_end_each_line_is_written_or_counted_with_those_of_a_worker_that_ends() {
    model(2, || {
        let (shared, paper, writer) = log();
        let (of_worker, ring) = (Arc::clone(&shared), shared.ring(RING_BYTES));
        let worker = thread::spawn(move || {
            // More than there is room for, if the writer does not look.
            for number in [5, 5, 5] {
                of_worker.put(&ring, &line(number), Level::Usual);
            }
        });
        worker.join().unwrap();
        shared.end();
        writer.join().unwrap();
        assert_eq!(paper.numbers().len() as u64 + shared.lost()[0], 3);
    });
}
