//! Lines from one worker to the thread that writes them, without a copy and without waiting.
//!
//! A worker writes its lines into a page of memory where the file takes them from: the writer takes the page as it is, and leaves an empty one
//! in its place. While it does so, which is a few words, the worker goes on in a second page, so that neither waits for a thread that the kernel has stopped just
//! then. What there is no room for is not taken, and counted.
//!
//! `tests/loom.rs` has them, their writer and their wake-ups in every interleaving.
//!
//! Invariant: a page has whole lines. The worker turns to the one aside when it finds the writer at the main one, which empties that, and comes back when
//! the one aside was emptied: at most one has lines that were not taken, so they are taken in their order. Who holds a page holds no other. A line costs
//! taking a lock that is free, and giving it back.

use super::sync::{AtomicBool, AtomicU64, Held, Lock, Ordering::Relaxed};

/// Fewer have no eighth to keep.
const BYTES_MIN: usize = 8;

/// How much a line matters when not all can be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// A request that went well.
    Usual,
    /// One that went wrong for its client: 4xx, or it left.
    Client,
    /// One that went wrong for us: 5xx, panics, what was broken off or cut.
    Failure,
}

impl Level {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Usual, Self::Client, Self::Failure];
}

/// Lines that wait to be written, with memory for more.
#[derive(Default)]
pub struct Page {
    memory: Vec<u8>,
    /// Bytes of lines; at most as many as there are of `memory`.
    used: usize,
    lines: u64,
    /// The writer has found nothing here and sleeps, or is about to: who writes a line here wakes it.
    is_awaited: bool,
}

impl Page {
    /// The lines, and how many they are.
    pub fn lines(&self) -> (&[u8], u64) {
        (&self.memory[..self.used], self.lines)
    }

    /// Adds something that is no line of a worker.
    pub fn push(&mut self, text: &[u8]) {
        self.make_room(self.used + text.len());
        self.memory[self.used..][..text.len()].copy_from_slice(text);
        self.used += text.len();
    }

    /// Nothing is in it any more.
    pub fn clear(&mut self) {
        (self.used, self.lines) = (0, 0);
    }

    /// It has at least so many bytes.
    fn make_room(&mut self, bytes: usize) {
        if self.memory.is_empty() {
            // The system has it zeroed.
            self.memory = vec![0; bytes];
        } else if self.memory.len() < bytes {
            self.memory.resize(bytes, 0);
        }
    }
}

/// The pages of one worker.
pub struct Pages {
    main: Lock<Page>,
    aside: Lock<Page>,
    /// The worker has turned to the one aside. By the worker only.
    is_aside: AtomicBool,
    /// Of lines that a page has room for.
    bytes_max: usize,
    /// Lines that there was no room for, by level.
    lost: [AtomicU64; 3],
    /// Lines that nobody wanted in it.
    sampled_out: AtomicU64,
}

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The writer finds it when it looks.
    Taken,
    /// The same, and it should look now: it sleeps, or more than half has become full.
    TakenAndAwaited,
    /// There was no room for a line of its level.
    Lost,
}

impl Pages {
    /// Pages that have room for so many bytes each. Their memory is the system's until it is used.
    pub fn new(bytes_max: usize) -> Self {
        let bytes_max = bytes_max.max(BYTES_MIN);
        // The writer may sleep when the first line comes.
        let page = || Lock::new(Page { memory: vec![0; bytes_max], is_awaited: true, ..Page::default() });
        let (main, aside) = (page(), page());
        let (is_aside, sampled_out) = (AtomicBool::new(false), AtomicU64::new(0));
        Self { main, aside, is_aside, bytes_max, lost: Default::default(), sampled_out }
    }

    /// How full a page may be for a line of this level to be taken: the last quarter is for what went wrong, and the last eighth for
    /// what went wrong for us.
    #[inline]
    fn bytes_max(&self, level: Level) -> usize {
        match level {
            Level::Usual => self.bytes_max - self.bytes_max / 4,
            Level::Client => self.bytes_max - self.bytes_max / 8,
            Level::Failure => self.bytes_max,
        }
    }

    /// Has a line written, and says how long it has become: `None` if it has no room. By the worker only.
    #[inline(always)]
    pub fn put(&self, level: Level, write: impl FnOnce(&mut [u8]) -> Option<usize>) -> Put {
        let page = &mut *self.open();
        let (used, bytes_max) = (page.used, self.bytes_max(level));
        let Some(bytes) = page.memory.get_mut(used..bytes_max).and_then(write) else {
            add_one(&self.lost[level as usize]);
            return Put::Lost;
        };
        page.used = bytes_max.min(used + bytes);
        page.lines += 1;
        let half = self.bytes_max / 2;
        let is_half_full = used <= half && page.used > half;
        match std::mem::take(&mut page.is_awaited) | is_half_full {
            true => Put::TakenAndAwaited,
            false => Put::Taken,
        }
    }

    /// The page to write to.
    #[inline(always)]
    fn open(&self) -> Held<'_, Page> {
        if !self.is_aside.load(Relaxed)
            && let Some(page) = self.main.unless_held()
        {
            return page;
        }
        self.open_aside()
    }

    /// The same where the writer is, or was, at the main one. It is at one of them at most, and seldom.
    #[cold]
    fn open_aside(&self) -> Held<'_, Page> {
        if self.is_aside.load(Relaxed)
            && let Some(page) = self.aside.unless_held()
            && page.used > 0
        {
            return page;
        }
        // It was emptied, or is just now.
        loop {
            for (page, is_aside) in [(&self.main, false), (&self.aside, true)] {
                if let Some(page) = page.unless_held() {
                    self.is_aside.store(is_aside, Relaxed);
                    return page;
                }
            }
        }
    }

    /// Counts one that is left out on purpose. By the worker only.
    #[inline]
    pub fn leave_out(&self) {
        add_one(&self.sampled_out);
    }

    /// Takes what is there, page by page: into `page`, which is empty, and shown. What is put in meanwhile may be left for the next time. If there is
    /// nothing, `is_awaited` has the next line wake the writer. By the writer only.
    pub fn take(&self, page: &mut Page, is_awaited: bool, mut show: impl FnMut(&mut Page)) {
        for place in [&self.main, &self.aside] {
            page.make_room(self.bytes_max);
            let mut there = place.hold();
            if there.used > 0 {
                std::mem::swap(&mut *there, page);
                there.is_awaited = false;
                drop(there);
                show(page);
            } else {
                there.is_awaited |= is_awaited;
            }
        }
    }

    /// Nothing is in them.
    pub fn are_empty(&mut self) -> bool {
        self.main.get_mut().used == 0 && self.aside.get_mut().used == 0
    }

    /// Lines of a level that there was no room for, ever.
    pub fn lost(&self, level: Level) -> u64 {
        self.lost[level as usize].load(Relaxed)
    }

    /// Lines that were left out on purpose, ever.
    pub fn sampled_out(&self) -> u64 {
        self.sampled_out.load(Relaxed)
    }
}

/// By the one thread that stores it.
#[inline]
fn add_one(counter: &AtomicU64) {
    counter.store(counter.load(Relaxed) + 1, Relaxed);
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn put(pages: &Pages, line: &[u8], level: Level) -> Put {
        pages.put(level, |room| {
            room.get_mut(..line.len())?.copy_from_slice(line);
            Some(line.len())
        })
    }

    /// All that is there, and how many lines it is.
    fn taken(pages: &Pages, page: &mut Page) -> (Vec<u8>, u64) {
        let (mut out, mut all) = (Vec::new(), 0);
        pages.take(page, false, |page| {
            let (text, lines) = page.lines();
            out.extend_from_slice(text);
            all += lines;
            page.clear();
        });
        (out, all)
    }

    #[test]
    fn what_went_wrong_is_lost_last() {
        let pages = Pages::new(1024);
        let fill = |level| {
            std::iter::from_fn(|| (put(&pages, &[b'x'; 32], level) != Put::Lost).then_some(())).count()
        };
        assert_eq!(fill(Level::Usual), 24);
        assert_eq!((fill(Level::Client), fill(Level::Failure)), (4, 4));
        let lost = Level::ALL.map(|level| pages.lost(level));
        assert_eq!(lost, [1, 1, 1]);
        let mut page = Page::default();
        let (out, lines) = taken(&pages, &mut page);
        assert_eq!((lines, out.len()), (32, 32 * 32));
        assert_eq!((put(&pages, b"again", Level::Usual), { pages }.are_empty()), (Put::Taken, false));
    }

    #[test]
    fn the_writer_is_woken_by_the_first_line_and_by_the_one_that_makes_a_page_half_full() {
        let pages = Pages::new(1024);
        let line = [b'x'; 200];
        let put = |level| put(&pages, &line, level);
        let expected = [Put::TakenAndAwaited, Put::Taken, Put::TakenAndAwaited, Put::Lost];
        assert_eq!([(); 4].map(|()| put(Level::Usual)), expected);
        let mut page = Page::default();
        for (is_awaited, then) in [(false, Put::Taken), (true, Put::TakenAndAwaited)] {
            pages.take(&mut page, is_awaited, Page::clear);
            assert_eq!(put(Level::Usual), Put::Taken, "it was not found empty");
            pages.take(&mut page, false, Page::clear);
            pages.take(&mut page, is_awaited, Page::clear);
            assert_eq!(put(Level::Usual), then);
        }
    }

    #[test]
    fn a_worker_goes_on_while_the_writer_is_at_its_page_and_its_lines_keep_their_order() {
        let pages = Pages::new(1024);
        let mut page = Page::default();
        let line =
            |number| assert_ne!(put(&pages, format!("{number}\n").as_bytes(), Level::Usual), Put::Lost);
        let at_it = pages.main.hold();
        line(1);
        drop(at_it);
        line(2);
        let mut all = taken(&pages, &mut page).0;
        line(3);
        let at_it = pages.aside.hold();
        line(4);
        drop(at_it);
        all.extend(taken(&pages, &mut page).0);
        assert_eq!(String::from_utf8_lossy(&all), "1\n2\n3\n4\n");
    }

    #[test]
    fn lines_of_another_thread_arrive_whole_and_in_order_but_for_those_that_were_lost() {
        let pages = Pages::new(4096);
        let lines = 20_000;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..lines {
                    let line = format!("{number}:{}\n", "x".repeat(number % 100));
                    put(&pages, line.as_bytes(), Level::Usual);
                }
                while put(&pages, b"end\n", Level::Failure) == Put::Lost {
                    std::thread::yield_now();
                }
            });
            let (mut out, mut all, mut page) = (Vec::new(), 0, Page::default());
            while !out.ends_with(b"end\n") {
                let (more, lines) = taken(&pages, &mut page);
                out.extend(more);
                all += lines;
                std::thread::yield_now();
            }
            let text = std::str::from_utf8(&out).expect("it was text");
            let mut last = None;
            for line in text.lines().filter(|line| *line != "end") {
                let (number, rest) = line.split_once(':').expect("a whole line");
                let number: usize = number.parse().expect("a number");
                assert_eq!(rest.len(), number % 100);
                assert!(last.is_none_or(|last| last < number));
                last = Some(number);
            }
            assert_eq!(all + pages.lost(Level::Usual), lines as u64 + 1);
        });
    }

    proptest! {
        #[test]
        fn what_was_put_in_comes_out(rounds in proptest::collection::vec((0_usize..200, any::<bool>()), 1..200)) {
            let pages = Pages::new(2048);
            let (mut expected, mut out, mut page) = (Vec::new(), Vec::new(), Page::default());
            for (number, (bytes, takes)) in rounds.into_iter().enumerate() {
                let line = vec![number as u8; bytes];
                if put(&pages, &line, Level::Usual) != Put::Lost {
                    expected.extend_from_slice(&line);
                }
                if takes {
                    out.extend(taken(&pages, &mut page).0);
                }
            }
            out.extend(taken(&pages, &mut page).0);
            prop_assert_eq!(out, expected);
        }
    }
}
