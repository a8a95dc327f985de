//! Input that its receiver takes itself, into memory of its own: no copy, where the receiver is code that has memory and is polled on the spot.
//!
//! It begins when somebody copied a large chunk whole ([`Io::announce`](super::super::Io::announce)), and stops when little comes, when nobody waits for it,
//! and when it would be taken in many small pieces ([`pays_to_take`]).
//!
//! Invariant: what was not taken is still in the socket, and READABLE is set as after a read: so whoever stops anywhere in here is read as
//! ever. The end of a stream is not told from in here; the failure of one is, behind the announcement, as the kernel tells it once.

use super::super::{HangUp, Limits, Sink, Verdict, pays_to_take};
use super::batch::Ahead;
use super::source::{ANNOUNCED, CONNECTING, ENDED, ENDING, PAUSED, READABLE, Received};
use super::splicing::Step;
use super::streams::{Register, Streams};
use crate::mem::Key;
use crate::sys;

/// What is being announced, and what became of it.
#[derive(Default)]
pub struct Taking {
    key: Option<Key>,
    /// Bytes that may still be taken in this turn; none behind an end.
    left: usize,
    taken: usize,
    /// What was taken last was worth it.
    pays: bool,
    /// It has failed.
    failure: Option<HangUp>,
}

impl<R: Register> Streams<R> {
    /// Announces a source of which no more is known than that there may be input.
    #[inline(never)]
    pub(super) fn announce_ahead<S: Sink>(&mut self, limits: &Limits, sink: &mut S, key: Key) -> Ahead {
        match self.announce_input(limits.read_bytes, sink, key) {
            Step::Over => Ahead::Received,
            Step::Moved(1..) => {
                sink.unfinished(key);
                Ahead::Received
            }
            Step::Moved(0) | Step::Reads | Step::Drained => Ahead::PutOff,
        }
    }

    /// Lets the receiver of a source take what lies in its socket, up to so many bytes.
    #[inline]
    pub(super) fn announce_input<S: Sink>(&mut self, left: usize, sink: &mut S, key: Key) -> Step {
        let taking = &mut self.taking;
        (taking.key, taking.left, taking.taken, taking.pays) = (Some(key), left, 0, false);
        let verdict = sink.announced(self, key);
        sys::assert_not_forked();
        let Self { taking, sources, .. } = self;
        taking.key = None;
        let Some(source) = sources.get_mut(key) else { return self.is_gone() };
        // That nothing is there now says nothing of what comes.
        if !taking.pays && (taking.taken > 0 || source.has(READABLE)) {
            source.bits &= !ANNOUNCED;
        }
        if taking.failure.is_some() {
            return self.has_failed(sink, key);
        }
        let stops = matches!(verdict, Some(Verdict::Stop | Verdict::Gone));
        if stops || !source.has(READABLE) { Step::Over } else { Step::Moved(taking.taken) }
    }

    #[cold]
    fn is_gone(&mut self) -> Step {
        self.taking.failure = None;
        Step::Over
    }

    #[cold]
    fn has_failed<S: Sink>(&mut self, sink: &mut S, key: Key) -> Step {
        if let Some(how) = self.taking.failure.take() {
            sink.hung_up(self, key, how);
        }
        Step::Over
    }

    /// Takes input of the source that is being announced.
    #[inline]
    pub(super) fn take_input(&mut self, key: Key, into: &mut [u8]) -> usize {
        let Self { taking, sources, counts, .. } = self;
        let room = into.len().min(taking.left);
        if taking.key != Some(key) || room == 0 {
            return 0;
        }
        let Some(source) = sources.get_mut(key) else { return 0 };
        loop {
            if source.bits & (READABLE | PAUSED | ENDED | CONNECTING) != READABLE {
                return 0;
            }
            match source.receive(counts, &mut into[..room]) {
                Received::Bytes { len, .. } => {
                    taking.left -= len;
                    taking.taken += len;
                    taking.pays = pays_to_take(len, into.len());
                    return len;
                }
                Received::Interrupted => {}
                Received::Nothing => return 0,
                Received::End(how) => {
                    taking.left = 0;
                    match how {
                        // The next read finds it again.
                        HangUp::Eof => source.bits = (source.bits | READABLE | ENDING) & !ENDED,
                        failed => taking.failure = Some(failed),
                    }
                    return 0;
                }
            }
        }
    }
}

#[cfg(all(test, target_os = "linux", not(netpoll_portable)))]
mod tests {
    use std::io::{self, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::super::super::{Close, Demand, Io};
    use super::super::source::{Readiness, Scratch};
    use super::*;
    use crate::mem::Pool;

    const KEY: Key = Key::new(1, 1, 0);

    /// Takes what is announced as it is told, and writes down what comes.
    struct Log {
        pool: Pool,
        /// How much room it has each time that it takes, and what it does behind that.
        rooms: Vec<usize>,
        then: fn(&mut dyn Io) -> Verdict,
        seen: Vec<String>,
    }

    impl Log {
        fn new(rooms: &[usize]) -> Self {
            let then = |_: &mut dyn Io| Verdict::Continue;
            Self { pool: Pool::new(0), rooms: rooms.to_vec(), then, seen: Vec::new() }
        }
    }

    impl Sink for Log {
        fn pool(&mut self) -> &mut Pool {
            &mut self.pool
        }

        fn accepted(
            &mut self,
            _io: &mut dyn Io,
            _listener: Key,
            _peer: io::Result<Option<sys::Address>>,
        ) -> Option<Key> {
            None
        }

        fn listener_empty(&mut self, _io: &mut dyn Io, _listener: Key) {}

        fn opened(&mut self, _io: &mut dyn Io, _key: Key, _result: io::Result<()>) {}

        fn received(&mut self, _io: &mut dyn Io, _key: Key, chunk: &mut [u8]) -> Verdict {
            self.seen.push(format!("{} received", chunk.len()));
            Verdict::Continue
        }

        fn announced(&mut self, io: &mut dyn Io, key: Key) -> Option<Verdict> {
            if self.rooms.is_empty() {
                return None;
            }
            for room in std::mem::take(&mut self.rooms) {
                let mut place = vec![0; room];
                let taken = io.take(key, &mut place);
                assert!(place[..taken].iter().all(|byte| *byte == b'x'));
                self.seen.push(format!("{taken} taken"));
            }
            Some((self.then)(io))
        }

        fn unsent(&mut self, _key: Key, _bytes: &[u8]) {}

        fn sent(&mut self, _io: &mut dyn Io, _key: Key, _bytes: usize) {}

        fn hung_up(&mut self, _io: &mut dyn Io, _key: Key, how: HangUp) {
            self.seen.push(match how {
                HangUp::Eof => "end".into(),
                HangUp::Failed(error) => format!("{:?}", error.kind()),
            });
        }

        fn ending(&mut self, _io: &mut dyn Io, _key: Key) {}

        fn unfinished(&mut self, _key: Key) {
            self.seen.push("unfinished".into());
        }

        fn delivered(&mut self, _io: &mut dyn Io) {}
    }

    struct Pair {
        streams: Streams<sys::Epoll>,
        theirs: TcpStream,
    }

    impl Pair {
        /// One whose input is announced.
        fn new() -> Self {
            let mut streams = Streams::new(sys::Epoll::new().unwrap()).unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let ours = listener.accept().unwrap().0;
            ours.set_nonblocking(true).unwrap();
            streams.adopt(KEY, ours.into()).unwrap();
            streams.announce(KEY);
            Self { streams, theirs }
        }

        /// Has so many bytes arrive.
        fn send(&mut self, bytes: usize) {
            let unread =
                |pair: &Self| sys::unread_bytes(pair.streams.sources.get(KEY).unwrap().fd.as_fd()).unwrap();
            let before = unread(self);
            self.theirs.write_all(&vec![b'x'; bytes]).unwrap();
            while unread(self) < before + bytes {
                std::thread::yield_now();
            }
        }

        /// What is told of input with a share of so many bytes.
        fn told(&mut self, log: &mut Log, read_bytes: usize, ending: bool) -> Vec<String> {
            let limits = Limits { events: 1, read_bytes, accepts: 1 };
            let now = Readiness { readable: true, ending, ..Readiness::default() };
            self.streams.ready(&mut Scratch::new(), &limits, log, KEY, now);
            std::mem::take(&mut log.seen)
        }

        fn is_announced(&self) -> bool {
            self.streams.sources.get(KEY).unwrap().has(ANNOUNCED)
        }
    }

    #[test]
    fn what_is_announced_is_taken_and_not_received() {
        let mut pair = Pair::new();
        pair.send(5000);
        assert_eq!(pair.told(&mut Log::new(&[16 << 10]), 64 << 10, false), ["5000 taken"]);
        assert!(pair.is_announced(), "it paid");
        pair.send(40_000);
        let rooms = [16 << 10; 3];
        let told = pair.told(&mut Log::new(&rooms), 64 << 10, false);
        assert_eq!(told, ["16384 taken", "16384 taken", "7232 taken"]);
        assert_eq!(pair.streams.take(KEY, &mut [0; 10]), 0, "outside of an announcement");
    }

    #[test]
    fn what_nobody_takes_is_received_and_announced_no_more() {
        let mut pair = Pair::new();
        pair.send(5000);
        assert_eq!(pair.told(&mut Log::new(&[]), 64 << 10, false), ["5000 received"]);
        assert!(!pair.is_announced());
    }

    #[test]
    fn what_is_taken_in_small_pieces_is_received_instead() {
        for (bytes, room, told) in
            [(100, 16 << 10, ["100 taken", ""]), (5000, 3000, ["3000 taken", "2000 received"])]
        {
            let mut pair = Pair::new();
            pair.send(bytes);
            let told: Vec<&str> = told.into_iter().filter(|told| !told.is_empty()).collect();
            assert_eq!(pair.told(&mut Log::new(&[room]), 64 << 10, false), told);
            assert!(!pair.is_announced());
        }
    }

    #[test]
    fn no_more_than_its_share_is_taken_in_a_turn() {
        let mut pair = Pair::new();
        pair.send(50_000);
        let told = pair.told(&mut Log::new(&[20_000; 4]), 30_000, false);
        assert_eq!(told, ["20000 taken", "10000 taken", "0 taken", "0 taken", "unfinished"]);
        assert_eq!(pair.told(&mut Log::new(&[64 << 10]), 30_000, false), ["20000 taken"]);
    }

    #[test]
    fn an_end_is_told_behind_what_was_taken_and_once() {
        let mut pair = Pair::new();
        pair.send(5000);
        pair.theirs.shutdown(Shutdown::Write).unwrap();
        let told = pair.told(&mut Log::new(&[16 << 10, 16 << 10]), 64 << 10, true);
        // The FIN may not be here yet; what is told of it is the next event then.
        let end = if told.len() == 2 {
            while pair.streams.sources.get(KEY).unwrap().has(READABLE) {
                std::thread::yield_now();
            }
            let mut seen = Vec::new();
            while seen.is_empty() {
                seen = pair.told(&mut Log::new(&[]), 64 << 10, true);
            }
            seen
        } else {
            told[2..].to_vec()
        };
        assert_eq!(told[..2], ["5000 taken", "0 taken"]);
        assert_eq!(end, ["end"]);
        assert!(pair.told(&mut Log::new(&[10]), 64 << 10, true).is_empty());
    }

    #[test]
    fn a_failure_is_told_behind_the_announcement() {
        let pair = Pair::new();
        socket2::SockRef::from(&pair.theirs).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        let Pair { mut streams, theirs } = pair;
        drop(theirs);
        let limits = Limits { events: 1, read_bytes: 64 << 10, accepts: 1 };
        let now = Readiness { readable: true, ..Readiness::default() };
        let mut log = Log::new(&[]);
        while log.seen.is_empty() || log.seen == ["0 taken"] {
            (log.rooms, log.seen) = (vec![16 << 10], Vec::new());
            streams.announce(KEY);
            streams.ready(&mut Scratch::new(), &limits, &mut log, KEY, now);
        }
        assert_eq!(log.seen, ["0 taken", "ConnectionReset"]);
    }

    #[test]
    fn who_is_paused_or_closed_in_an_announcement_takes_nothing_more() {
        let mut pair = Pair::new();
        pair.send(5000);
        let mut log = Log::new(&[3000]);
        log.then = |io| {
            assert!(!io.receive(KEY, Demand::Pause));
            assert_eq!(io.take(KEY, &mut [0; 3000]), 0);
            Verdict::Stop
        };
        assert_eq!(pair.told(&mut log, 64 << 10, false), ["3000 taken"]);
        assert!(pair.streams.receive(KEY, Demand::Flow), "there is more");
        pair.streams.announce(KEY);
        let mut log = Log::new(&[1000]);
        log.then = |io| {
            io.close(KEY, Close::Now);
            assert_eq!(io.take(KEY, &mut [0; 3000]), 0);
            Verdict::Gone
        };
        assert_eq!(pair.told(&mut log, 64 << 10, false), ["1000 taken"]);
        assert!(pair.streams.sources.get(KEY).is_none());
    }
}
