//! The access log between a worker and the thread that writes, under the model checker, in any interleaving: lines arrive whole and in
//! order or are counted, what went wrong has its reserve, and no line is slept over, by a wake-up or at the end.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p netpoll-http --features internals --test loom`.
//! These fail if the worker leaves the page aside before it was emptied; if the writer sleeps without having asked to be woken, or asks behind its
//! look; if it looks at the pages before it looks whether this is the end, or counts the owners of pages before it forgets them.
#![cfg(all(loom, feature = "internals"))]

use std::io;

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use netpoll_http::LogFormat;
use netpoll_http::internals::watch::{Level, Lines, Page, Pages, Put, Shared, Sink, start};

/// Forty-eight bytes are for any line, eight more for what went wrong, and the last eight for what went wrong for us.
const ROOM_BYTES: usize = 64;

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

/// Puts a line where there is room for it.
fn written(line: &[u8]) -> impl FnOnce(&mut [u8]) -> Option<usize> {
    |room| {
        room.get_mut(..line.len())?.copy_from_slice(line);
        Some(line.len())
    }
}

/// What is there now, and how many lines it is.
fn taken(pages: &Pages, page: &mut Page, out: &mut Vec<u8>) -> u64 {
    let mut all = 0;
    pages.take(page, false, |page| {
        let (text, lines) = page.lines();
        out.extend_from_slice(text);
        all += lines;
        page.clear();
    });
    all
}

#[test]
fn lines_come_out_whole_and_in_order_whatever_the_writer_is_at_or_are_counted() {
    model(4, || {
        let pages = Arc::new(Pages::new(ROOM_BYTES));
        let of_worker = Arc::clone(&pages);
        // Some fifty bytes, if none is lost.
        let worker = thread::spawn(move || {
            (1..=6)
                .filter(|number| of_worker.put(Level::Usual, written(&line(*number))) != Put::Lost)
                .collect::<Vec<u8>>()
        });
        let (mut out, mut page, mut lines) = (Vec::new(), Page::default(), 0);
        for _ in 0..3 {
            lines += taken(&pages, &mut page, &mut out);
        }
        let put = worker.join().unwrap();
        lines += taken(&pages, &mut page, &mut out);
        assert_eq!((numbers(&out), lines), (put.clone(), put.len() as u64));
        assert_eq!(lines + pages.lost(Level::Usual), 6);
        assert!(Arc::get_mut(&mut { pages }).unwrap().are_empty());
    });
}

#[test]
fn what_went_wrong_has_room_however_many_lines_went_well() {
    model(4, || {
        let pages = Arc::new(Pages::new(ROOM_BYTES));
        let of_worker = Arc::clone(&pages);
        let worker = thread::spawn(move || {
            let usual =
                (0..9).filter(|_| of_worker.put(Level::Usual, written(b"usual\n")) != Put::Lost).count();
            let failure = of_worker.put(Level::Failure, written(b"failure\n"));
            assert_ne!(failure, Put::Lost, "the reserve is for it");
            usual as u64
        });
        let (mut out, mut page) = (Vec::new(), Page::default());
        let mut lines = taken(&pages, &mut page, &mut out);
        let usual = worker.join().unwrap();
        lines += taken(&pages, &mut page, &mut out);
        assert!(out.ends_with(b"failure\n"));
        assert_eq!((lines, usual + pages.lost(Level::Usual), pages.lost(Level::Failure)), (usual + 1, 9, 0));
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
            let pages = shared.pages(ROOM_BYTES);
            for number in 1..=lines {
                shared.put(&pages, Level::Usual, written(&line(number)));
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
        let pages = shared.pages(ROOM_BYTES);
        shared.put(&pages, Level::Usual, written(&line(1)));
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
        let (of_worker, pages) = (Arc::clone(&shared), shared.pages(ROOM_BYTES));
        let worker = thread::spawn(move || {
            // More than there is room for, if the writer does not look.
            for number in [5, 5, 5, 5] {
                of_worker.put(&pages, Level::Usual, written(&line(number)));
            }
        });
        worker.join().unwrap();
        shared.end();
        writer.join().unwrap();
        assert_eq!(paper.numbers().len() as u64 + shared.lost()[0], 4);
    });
}
