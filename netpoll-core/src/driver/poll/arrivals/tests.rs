//! What only the inside can know: whom the poller hears of, and what happens when it has no room.

use std::io::{self, Write};
use std::net::TcpStream;
use std::os::fd::BorrowedFd;

use super::super::super::{Close, Interest, Io, Queue, Verdict};
use super::super::door::{FirstWords, SILENT_MAX};
use super::super::source::Readiness;
use super::*;
use crate::mem::Pool;
use crate::sys::{self, ListenOptions};

/// Of so many connections, accepted so many at a time: how many are received from at once, and how many of them find
/// something.
fn heard(connections: usize, share: usize, speaks: impl Fn(usize) -> bool) -> (usize, usize) {
    let (mut words, mut asked, mut spoke) = (FirstWords::new(), 0, 0);
    for first in (0..connections).step_by(share) {
        let expected: Vec<usize> = (first..first + share).filter(|_| words.are_expected()).collect();
        for &nth in &expected {
            words.learn(speaks(nth));
            spoke += usize::from(speaks(nth));
        }
        asked += expected.len();
    }
    (asked, spoke)
}

#[test]
fn peers_that_never_speak_first_are_hardly_asked() {
    assert_eq!(heard(32 + 100 * 65, 1, |_| false), (32 + 100, 0));
    for share in [2, 8, 64] {
        let (asked, _) = heard(6400, share, |_| false);
        assert!(asked <= 32 + share + 100, "{asked} by {share}");
    }
}

#[test]
fn peers_that_speak_first_now_and_then_are_all_asked() {
    for share in [1, 8] {
        assert_eq!(heard(1000, share, |nth| nth % 10 == 0), (1000, 100));
    }
}

#[test]
fn peers_that_begin_to_speak_first_are_noticed() {
    for share in [1, 8, 64] {
        let (asked, spoke) = heard(6400, share, |nth| nth >= 3200);
        assert!(asked < 3400 && spoke >= 3200 - 2 * 65, "{spoke} of {asked} by {share}");
    }
}

/// A poller that has room for no stream.
struct Full;

impl Register for Full {
    const REPORTS_LISTENERS_ONCE: bool = false;

    fn register_stream(&self, _fd: BorrowedFd<'_>, _key: Key) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(libc::ENOSPC))
    }

    fn register_listener(&self, _fd: BorrowedFd<'_>, _key: Key, _shared: bool) -> io::Result<()> {
        Ok(())
    }

    fn hush_listener(&self, _fd: BorrowedFd<'_>, _key: Key, _shared: bool, _hush: bool) -> io::Result<()> {
        Ok(())
    }

    fn register_datagrams(&self, _fd: BorrowedFd<'_>, _key: Key) -> io::Result<()> {
        Ok(())
    }

    fn await_room(&self, _fd: BorrowedFd<'_>, _key: Key, _awaits: bool) -> io::Result<()> {
        Ok(())
    }

    fn forget(&self, _fd: BorrowedFd<'_>) {}

    fn watch(&self, _fd: BorrowedFd<'_>, _token: u64, _interest: Interest) -> io::Result<()> {
        Ok(())
    }

    fn unwatch(&self, _fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }
}

/// Writes down what is reported, and closes a connection that says so.
struct Listening {
    pool: Pool,
    peers: usize,
    log: Vec<String>,
}

impl Sink for Listening {
    fn pool(&mut self) -> &mut Pool {
        &mut self.pool
    }

    fn accepted(
        &mut self,
        _io: &mut dyn Io,
        _listener: Key,
        peer: io::Result<Option<sys::Address>>,
    ) -> Option<Key> {
        peer.unwrap();
        self.peers += 1;
        Some(Key::new(1, 1, self.peers))
    }

    fn listener_empty(&mut self, _io: &mut dyn Io, _listener: Key) {}

    fn opened(&mut self, _io: &mut dyn Io, _key: Key, result: io::Result<()>) {
        self.log.push(format!("opened {}", result.is_ok()));
    }

    fn unsent(&mut self, _key: Key, _bytes: &[u8]) {}

    fn received(&mut self, io: &mut dyn Io, key: Key, chunk: &mut [u8]) -> Verdict {
        self.log.push(String::from_utf8_lossy(chunk).into_owned());
        if chunk == b"close" {
            io.close(key, Close::Now);
            return Verdict::Gone;
        }
        Verdict::Continue
    }

    fn sent(&mut self, _io: &mut dyn Io, _key: Key, _bytes: usize) {}

    fn hung_up(&mut self, io: &mut dyn Io, key: Key, how: HangUp) {
        self.log.push(match how {
            HangUp::Eof => "eof".to_owned(),
            HangUp::Failed(error) => format!("failed {:?}", error.raw_os_error()),
        });
        io.close(key, Close::Now);
    }

    fn ending(&mut self, _io: &mut dyn Io, _key: Key) {}

    fn unfinished(&mut self, _key: Key) {}

    fn delivered(&mut self, _io: &mut dyn Io) {
        self.log.push("delivered".to_owned());
    }
}

/// Accepts a peer that has sent this, and whether it stays.
fn arrival(streams: &mut Streams<Full>, first_words: &str) -> (Vec<String>, bool) {
    let listener = Key::new(0, 1, 0);
    if streams.doors.get(listener).is_none() {
        let options =
            ListenOptions { backlog: 8, sharing: sys::Sharing::Alone, defer_accept: None, fast_open: None };
        let socket = sys::listen("127.0.0.1:0".parse().unwrap(), &options).unwrap();
        streams.listen(listener, socket, Queue::Own).unwrap();
    }
    let addr = sys::local_addr(streams.doors.get(listener).unwrap().socket().as_fd()).unwrap();
    let mut peer = TcpStream::connect(addr).unwrap();
    peer.write_all(first_words.as_bytes()).unwrap();

    let (mut batch, mut sink) = (Batch::new(), Listening { pool: Pool::new(0), peers: 0, log: Vec::new() });
    batch.put_off(listener, Readiness { readable: true, ..Readiness::default() });
    let limits = Limits { events: 1, read_bytes: 1024, accepts: 1 };
    streams.deliver(&mut batch, &limits, &mut sink);
    assert!(streams.arrivals.is_empty());
    let stays = !streams.sources.is_empty();
    (sink.log, stays)
}

#[test]
fn who_cannot_be_registered_ends_as_failed_behind_its_first_answer() {
    let mut streams = Streams::new(Full).unwrap();
    let (log, stays) = arrival(&mut streams, "hello");
    let no_space = format!("failed {:?}", Some(libc::ENOSPC));
    assert_eq!(log, ["opened true", "hello", "delivered", &no_space, "delivered"]);
    assert!(!stays);
}

#[test]
fn who_cannot_be_registered_and_was_not_asked_fails_to_open() {
    let mut streams = Streams::new(Full).unwrap();
    for _ in 0..SILENT_MAX {
        arrival(&mut streams, "");
    }
    let (log, stays) = arrival(&mut streams, "hello");
    assert_eq!((log, stays), (vec!["opened false".to_owned(), "delivered".to_owned()], false));
}

#[test]
fn the_poller_never_hears_of_who_is_gone_within_its_batch() {
    let mut streams = Streams::new(Full).unwrap();
    let registered = streams.counts().syscalls_ctl;
    let (log, stays) = arrival(&mut streams, "close");
    assert_eq!((log, stays), (vec!["opened true".into(), "close".into(), "delivered".into()], false));
    assert_eq!(streams.counts().syscalls_ctl, registered + 1, "the listener");
}
