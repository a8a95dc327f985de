//! Input of a stream that goes to another one without a copy: through a pipe, into which the kernel moves pages and out of
//! which it sends them.
//!
//! A worker has one pipe, made when it is needed first. It is empty between two steps: what the target does not take is read out
//! of it and handed on like a chunk, so nothing waits where nobody counts it, and whoever takes the stream over finds all
//! of it in the socket or in the queue.
//!
//! Invariant: input of a source whose SPLICES bit is set is moved as long as the receiver says where to ([`Sink::splices_to`],
//! asked in each step). Whatever is unusual clears the bit, and the stream is read as ever: its end, input in front of urgent data, a
//! target that is full, no descriptor for a pipe, few bytes twice in a row.
//!
//! A step moves twice as many bytes as a read takes, because it costs half as much: so a source that is spliced keeps others
//! waiting no longer than one that is read.
//!
//! Cost: two system calls for each step, and a third one that finds nothing when the source is drained; where the target is full, two
//! more and a copy of what it leaves.

use std::io;
use std::os::fd::AsFd;

use super::super::{HangUp, IoCounts, SPLICED_BYTES_MIN, Sink, Verdict};
use super::source::{
    BLOCKED, CONNECTING, EBBS, ENDED, POLLED, READABLE, SEND_FAILED, SPLICES, Source, URGENT,
};
use super::streams::{Register, Streams};
use crate::mem::Key;
use crate::sys::{self, Pipe};

/// Bytes of one step, at most. Half of it takes a seventh more CPU, twice as much saves nothing (`docs/decisions/0014`).
const STEP_BYTES_MAX: usize = 128 * 1024;

/// A pipe has slots for pieces, one for each page that it is long: as many as a step has when each piece is what an Ethernet frame
/// brings, and more. Only the slots take memory, 10 KiB; the pages are those of the socket.
const PIPE_BYTES: usize = 1 << 20;

/// A byte that is spliced takes half the share of one that is read.
pub const BYTES_PER_SHARE_BYTE: usize = 2;

/// The pipe of a worker.
pub struct Splicer {
    pipe: Option<Pipe>,
    /// Where what a target leaves lands: as long as a step, or empty until a target does that.
    rest: Box<[u8]>,
    /// It is not wanted, or the kernel has refused to splice.
    is_off: bool,
}

/// What became of a step.
pub enum Step {
    /// So many bytes have left the source.
    Moved(usize),
    /// None: the source is read as ever.
    Reads,
    /// None: nothing seems to be there, and a read makes sure.
    Drained,
    /// The source has been drained, paused, put off or closed.
    Over,
}

impl Step {
    pub fn map(self, of: impl FnOnce(usize) -> usize) -> Self {
        match self {
            Self::Moved(bytes) => Self::Moved(of(bytes)),
            other => other,
        }
    }
}

impl Splicer {
    pub fn new(is_on: bool) -> Self {
        Self { pipe: None, rest: Box::default(), is_off: !is_on }
    }

    /// Whether there is a pipe. It is made if there can be one.
    fn has_pipe(&mut self, counts: &mut IoCounts) -> bool {
        if self.pipe.is_none() && !self.is_off {
            counts.syscalls_other += 2;
            match Pipe::new(PIPE_BYTES) {
                Ok(pipe) => self.pipe = Some(pipe),
                Err(error) if error.kind() == io::ErrorKind::Unsupported => self.is_off = true,
                // There may be descriptors again.
                Err(_) => {}
            }
        }
        self.pipe.is_some()
    }

    /// The kernel does not splice: it is not tried again.
    fn turn_off(&mut self) {
        self.is_off = true;
        self.shrink();
    }

    /// Closes the pipe until it is needed again.
    pub fn shrink(&mut self) {
        (self.pipe, self.rest) = (None, Box::default());
    }
}

impl Source {
    /// Moves what the pipe holds into this stream, as far as it takes it; how many bytes. True beside it if the kernel does not splice.
    fn take_from(&mut self, counts: &mut IoCounts, pipe: &Pipe, bytes: usize) -> (usize, bool) {
        let mut sent = 0;
        // Fewer than asked for may be a signal: only EAGAIN promises an edge.
        while sent < bytes {
            counts.syscalls_splice += 1;
            match pipe.drain(self.fd.as_fd(), bytes - sent) {
                Ok(0) => break,
                Ok(moved) => sent += moved,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.cut_short(counts);
                    break;
                }
                Err(error) if is_refusal(&error) => return (sent, true),
                Err(error) => {
                    self.send_failed(&error);
                    break;
                }
            }
        }
        (sent, false)
    }
}

impl<R: Register> Streams<R> {
    /// Moves the input of a source from now on instead of reading it. False if there is no pipe for it.
    pub(super) fn begin_to_splice(&mut self, key: Key) -> bool {
        let Some(source) = self.sources.get_mut(key).filter(|source| !source.has(URGENT)) else {
            return false;
        };
        let can = self.splicer.has_pipe(&mut self.counts);
        if can {
            source.bits = (source.bits | SPLICES) & !EBBS;
            if R::MOVES_BYTES && !source.has(POLLED) {
                source.bits |= POLLED;
                self.poller.poll_instead(source.fd.as_fd(), key);
            }
        }
        can
    }

    /// Moves a source's input to where it goes, up to so many bytes.
    #[inline(never)]
    pub(super) fn splice<S: Sink>(&mut self, bytes_max: usize, sink: &mut S, key: Key) -> Step {
        let to = sink.splices_to(key).filter(|to| {
            let target = self.sources.get(*to);
            target.is_some_and(|target| !target.has(BLOCKED | CONNECTING | SEND_FAILED))
                && !self.poller.sends_soon(*to)
        });
        let Some(source) = self.sources.get_mut(key) else { return Step::Over };
        let Splicer { pipe: Some(pipe), rest, .. } = &mut self.splicer else { return source.reads() };
        let Some(to) = to.filter(|_| !source.has(URGENT)) else { return source.reads() };
        self.counts.syscalls_splice += 1;
        let bytes = match pipe.fill(source.fd.as_fd(), bytes_max.min(STEP_BYTES_MAX)) {
            // The end, or urgent data: a read tells them apart.
            Ok(0) => return source.reads(),
            Ok(bytes) => bytes,
            // Urgent data looks the same, and a poller that is not told of it has to make sure.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && source.has(POLLED) => {
                return Step::Drained;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                source.bits &= !READABLE;
                self.counts.receives_empty += 1;
                return Step::Over;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Step::Moved(0),
            Err(error) if is_refusal(&error) => {
                self.splicer.turn_off();
                return source.reads();
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => return source.reads(),
            Err(error) => {
                source.bits = (source.bits | ENDED) & !READABLE;
                sink.hung_up(self, key, HangUp::Failed(error));
                return Step::Over;
            }
        };
        self.counts.received_bytes += bytes as u64;
        source.moved(bytes);
        let (sent, is_refused) = match self.sources.get_mut(to) {
            Some(target) => {
                let taken = target.take_from(&mut self.counts, pipe, bytes);
                if R::MOVES_BYTES && target.has(BLOCKED) {
                    self.poller.await_writable(target.fd.as_fd(), to);
                }
                taken
            }
            None => (0, false),
        };
        self.counts.sent_bytes += sent as u64;
        self.counts.spliced_bytes += sent as u64;
        let mut block = std::mem::take(rest);
        if sent < bytes && block.is_empty() {
            block = vec![0; STEP_BYTES_MAX].into_boxed_slice();
        }
        let rest = &mut block[..bytes - sent];
        let emptied = empty(pipe, rest, &mut self.counts);
        if is_refused {
            self.splicer.turn_off();
        }
        if let Err(error) = emptied {
            // What is left in it belongs to nobody any more.
            self.splicer.shrink();
            sink.hung_up(self, key, HangUp::Failed(error));
            return Step::Over;
        }
        let verdict = sink.spliced(self, key, sent, rest);
        sys::assert_not_forked();
        if !self.splicer.is_off {
            self.splicer.rest = block;
        }
        if verdict == Verdict::Continue { Step::Moved(bytes) } else { Step::Over }
    }
}

impl Source {
    /// Draws the consequence of how much a step has moved. A small one may be the tail of what came at once; two in a row are
    /// small messages.
    pub fn moved(&mut self, bytes: usize) {
        self.bits = match (bytes < SPLICED_BYTES_MIN, self.has(EBBS)) {
            (false, _) => self.bits & !EBBS,
            (true, false) => self.bits | EBBS,
            (true, true) => self.bits & !(SPLICES | EBBS),
        };
    }

    fn reads(&mut self) -> Step {
        self.bits &= !(SPLICES | EBBS);
        Step::Reads
    }
}

/// Takes out of the pipe what is left in it.
fn empty(pipe: &Pipe, into: &mut [u8], counts: &mut IoCounts) -> io::Result<()> {
    let mut read = 0;
    while read < into.len() {
        counts.syscalls_splice += 1;
        match pipe.read(&mut into[read..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => read += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What the kernel says of a socket that cannot be spliced, and a sandbox of a call that it forbids; no stream says it.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP | libc::EPERM))
}

#[cfg(all(test, target_os = "linux", not(netpoll_portable)))]
mod tests {
    use std::io::Write;
    use std::net::{Shutdown, TcpListener, TcpStream};

    use super::super::super::{Io, Limits};
    use super::super::source::{Readiness, Scratch};
    use super::*;
    use crate::mem::Pool;

    const FROM: Key = Key::new(1, 1, 0);
    const TO: Key = Key::new(1, 1, 1);

    /// Writes down what comes, and has it spliced.
    struct Log(Pool, Vec<String>);

    impl Sink for Log {
        fn pool(&mut self) -> &mut Pool {
            &mut self.0
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
            self.1.push(String::from_utf8_lossy(chunk).into_owned());
            Verdict::Continue
        }

        fn splices_to(&mut self, _key: Key) -> Option<Key> {
            Some(TO)
        }

        fn spliced(&mut self, _io: &mut dyn Io, _key: Key, bytes: usize, rest: &[u8]) -> Verdict {
            self.1.push(format!("{bytes} spliced, {} left", rest.len()));
            Verdict::Continue
        }

        fn unsent(&mut self, _key: Key, _bytes: &[u8]) {}

        fn sent(&mut self, _io: &mut dyn Io, _key: Key, _bytes: usize) {}

        fn hung_up(&mut self, _io: &mut dyn Io, _key: Key, how: HangUp) {
            self.1.push(format!("{how:?}"));
        }

        fn ending(&mut self, _io: &mut dyn Io, _key: Key) {}

        fn unfinished(&mut self, _key: Key) {
            self.1.push("unfinished".into());
        }

        fn delivered(&mut self, _io: &mut dyn Io) {}
    }

    /// Ours is registered under this key.
    fn pair(streams: &mut Streams<sys::Epoll>, key: Key) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let ours = listener.accept().unwrap().0;
        ours.set_nonblocking(true).unwrap();
        streams.adopt(key, ours.into()).unwrap();
        theirs
    }

    /// Has what these bytes lead to delivered, once their number has arrived.
    fn deliver(streams: &mut Streams<sys::Epoll>, bytes: usize, read_bytes: usize) -> Vec<String> {
        while sys::unread_bytes(streams.sources.get(FROM).unwrap().fd.as_fd()).unwrap() < bytes {
            std::thread::yield_now();
        }
        assert!(streams.begin_to_splice(FROM));
        let (mut scratch, mut log) = (Scratch::new(), Log(Pool::new(0), Vec::new()));
        let limits = Limits { events: 1, read_bytes, accepts: 1 };
        let readable = Readiness { readable: true, ..Readiness::default() };
        streams.ready(&mut scratch, &limits, &mut log, FROM, readable);
        log.1
    }

    #[test]
    fn input_in_front_of_urgent_data_is_not_taken_for_the_end() {
        let mut streams = Streams::new(sys::Epoll::new().unwrap()).unwrap();
        let (mut from, _to) = (pair(&mut streams, FROM), pair(&mut streams, TO));
        from.write_all(&[b'f'; 20_000]).unwrap();
        socket2::SockRef::from(&from).send_out_of_band(b"!").unwrap();
        from.write_all(b"behind").unwrap();
        from.shutdown(Shutdown::Write).unwrap();
        let (mut events, mut has_ended) = (sys::Events::with_capacity(4), false);
        while !has_ended {
            let wait = sys::Timeout::After(std::time::Duration::from_secs(10));
            let count = streams.poller.wait(&mut events, 4, wait).unwrap();
            assert!(count > 0, "the end does not come");
            has_ended = (0..count).any(|index| events.get(index).is_peer_closed());
        }
        assert_eq!(deliver(&mut streams, 20_000, 64 << 10), ["20000 spliced, 0 left", "behind"]);
    }

    #[test]
    fn a_share_of_what_is_spliced_is_twice_that_of_what_is_read() {
        let mut streams = Streams::new(sys::Epoll::new().unwrap()).unwrap();
        let (mut from, _to) = (pair(&mut streams, FROM), pair(&mut streams, TO));
        from.write_all(&[b'f'; 100_000]).unwrap();
        assert_eq!(deliver(&mut streams, 100_000, 20_000), ["40000 spliced, 0 left", "unfinished"]);
    }
}
