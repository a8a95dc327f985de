//! Whether this kernel, and whatever stands before it, does what the driver needs: tried, and not looked up.
//!
//! Containers and sandboxes forbid calls, kernels have features in part, and a number of a version says neither. So a small ring is
//! made, and everything that the driver relies on is done once with a pair of sockets. It takes a fraction of a millisecond, and is
//! done once in a process where all went well. A refusal is not kept: a limit may be raised, and a descriptor be free, by the next time.

use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::time::Duration;

use super::buffers::{Buffers, GROUP, PAGE};
use super::ring::{Answer, Ring, SOON, special};
use crate::sys;

/// How long an answer may take that needs nobody.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the kernel can that not every one can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// One block serves many small receives (Linux 6.12).
    pub incremental_buffers: bool,
    /// A receive ends by itself when it has brought so much (Linux 6.17).
    pub caps: bool,
    /// It can be told where in a block it goes on.
    pub aligned_receives: bool,
}

/// Why there is no ring.
#[derive(Debug, Clone)]
pub struct Refusal {
    kind: io::ErrorKind,
    what: &'static str,
    why: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "io_uring cannot be used: {}: {}", self.what, self.why)
    }
}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.kind, refusal.to_string())
    }
}

/// What the kernel can.
///
/// # Errors
/// What it lacks, and what would help.
pub fn probe() -> Result<Features, Refusal> {
    static FEATURES: OnceLock<Features> = OnceLock::new();
    match FEATURES.get() {
        Some(features) => Ok(*features),
        None => try_on_a_thread().map(|features| *FEATURES.get_or_init(|| features)),
    }
}

/// A ring that is gone interrupts the thread that has used it, which is none of the program's then.
fn try_on_a_thread() -> Result<Features, Refusal> {
    let refused = |kind, why: String| Refusal { kind, what: "it cannot be tried", why };
    let name = "netpoll-trial";
    let thread = std::thread::Builder::new().name(name.into()).spawn(try_all);
    let thread = thread.map_err(|error| sys::no_thread(name, error));
    let tried = thread.map_err(|error| refused(error.kind(), error.to_string()))?.join();
    tried.unwrap_or_else(|_| Err(refused(io::ErrorKind::Other, "a panic".into())))
}

fn try_all() -> Result<Features, Refusal> {
    let ring = Ring::new().map_err(|error| refusal(NO_RING, error))?;
    let lacks = |what| move |error| refusal(what, error);
    // The ring is dropped in front of its buffers.
    let all = Features { incremental_buffers: true, caps: true, aligned_receives: true };
    let few = Features { incremental_buffers: false, ..all };
    // The ring is dropped in front of its buffers.
    let (buffers, features) = match Buffers::new(&ring, all) {
        Ok(buffers) => (buffers, all),
        Err(_) => (Buffers::new(&ring, few).map_err(lacks("provided buffers"))?, few),
    };
    let mut trial = Trial { ring, buffers };
    trial.receives(None).map_err(lacks("receiving many times with one order"))?;
    trial.sends().map_err(lacks("sending without an answer"))?;
    trial.polls().map_err(lacks("polling"))?;
    let caps = trial.receives(Some(3)).is_ok();
    // The last one: if it fails, nothing is where it is looked for.
    let aligned_receives = features.incremental_buffers && trial.aligns().is_ok();
    Ok(Features { caps, aligned_receives, ..features })
}

struct Trial {
    ring: Ring,
    buffers: Buffers,
}

impl Trial {
    /// The next answer.
    fn answer(&mut self) -> io::Result<Answer> {
        if self.ring.came().is_empty() {
            self.ring.enter(true, Some(PATIENCE))?;
        }
        self.ring.came().pop_front().ok_or_else(|| io::ErrorKind::TimedOut.into())
    }

    /// Two messages by one order, in place and in order, and then it is cancelled; or, with a cap, it ends there.
    fn receives(&mut self, cap: Option<u32>) -> io::Result<()> {
        let (ours, mut theirs) = UnixStream::pair()?;
        self.ring.receive(ours.as_fd(), GROUP, cap, 1);
        theirs.write_all(b"abcdef")?;
        let first = self.answer()?;
        let wanted = cap.map_or(6, |cap| cap as i32);
        let (is_whole, goes_on) = (first.result == wanted, first.has_more());
        self.take(first)?;
        if cap.is_some() {
            return wants(is_whole && !goes_on);
        }
        wants(is_whole && goes_on)?;
        theirs.write_all(b"gh")?;
        let second = self.answer()?;
        wants(second.result == 2 && second.has_more())?;
        self.take(second)?;
        self.ring.cancel(1);
        let last = self.answer()?;
        wants(last.result == -libc::ECANCELED && !last.has_more())
    }

    /// What comes behind a large message begins with a page.
    fn aligns(&mut self) -> io::Result<()> {
        static LARGE: [u8; 3000] = [b'x'; 3000];
        let (ours, mut theirs) = UnixStream::pair()?;
        self.ring.receive(ours.as_fd(), GROUP, None, 4);
        let mut starts = Vec::new();
        for bytes in [&LARGE[..], b"abcdef", b"gh"] {
            theirs.write_all(bytes)?;
            let answer = self.answer()?;
            starts.push(self.take_whole(answer, bytes)?);
            self.buffers.align();
        }
        let pages: Vec<_> = starts.iter().map(|start| start % PAGE).collect();
        wants(pages[1..] == [0, 6])
    }

    fn take(&mut self, answer: Answer) -> io::Result<()> {
        if let Some(error) = answer.error() {
            return Err(error);
        }
        let chunk = self.buffers.received(answer).ok_or(io::ErrorKind::Unsupported)?;
        self.buffers.release(chunk);
        Ok(())
    }

    /// The same of what has to be this. Returns its address.
    fn take_whole(&mut self, answer: Answer, bytes: &[u8]) -> io::Result<usize> {
        let chunk = self.buffers.received(answer).ok_or(io::ErrorKind::Unsupported)?;
        // SAFETY: the chunk is held, and nobody else looks at it. (test: `a_large_receive_begins_with_a_page`)
        let came = unsafe { self.buffers.place(chunk).bytes() };
        let (is_it, start) = (came == bytes, came.as_ptr().addr());
        self.buffers.release(chunk);
        wants(is_it).map(|()| start)
    }

    /// What fits is sent without a word, and of what does not the answer says how much did.
    fn sends(&mut self) -> io::Result<()> {
        static MUCH: [u8; 1 << 20] = [b'x'; 1 << 20];
        let (ours, mut theirs) = UnixStream::pair()?;
        for len in [2, MUCH.len() as u32] {
            // SAFETY: the bytes are there for ever. (test: `what_is_sent_soon_has_left_with_the_next_wait`)
            unsafe { self.ring.send(ours.as_fd(), MUCH.as_ptr(), len, special(SOON, 0)) };
        }
        self.ring.enter(false, None)?;
        let cut: Vec<_> = self.ring.short_sends().collect();
        let &[(0, sent)] = &cut[..] else { return Err(io::ErrorKind::Unsupported.into()) };
        drop(ours);
        wants(sent > 0)?;
        let mut read = 0;
        let mut bytes = [0; 4096];
        loop {
            match theirs.read(&mut bytes)? {
                0 => return wants(read == sent as usize + 2),
                len => read += len,
            }
        }
    }

    /// Room is reported once, and input each time.
    fn polls(&mut self) -> io::Result<()> {
        let (ours, mut theirs) = UnixStream::pair()?;
        self.ring.poll(ours.as_fd(), libc::POLLOUT as u32, false, 2);
        let room = self.answer()?;
        wants(room.result & i32::from(libc::POLLOUT) != 0 && !room.has_more())?;
        self.ring.poll(ours.as_fd(), libc::POLLIN as u32, true, 3);
        for _ in 0..2 {
            theirs.write_all(b"x")?;
            let input = self.answer()?;
            wants(input.result & i32::from(libc::POLLIN) != 0 && input.has_more())?;
        }
        self.ring.cancel(3);
        wants(!self.answer()?.has_more())
    }
}

fn wants(holds: bool) -> io::Result<()> {
    if holds { Ok(()) } else { Err(io::ErrorKind::Unsupported.into()) }
}

const NO_RING: &str = "the kernel makes no ring";

/// The same for a worker's own ring, and what it needs beside it: there may be no more of what there was for the trial.
pub fn cannot_be_made(error: io::Error) -> io::Error {
    refusal(NO_RING, error).into()
}

/// Who forbids it, and who can allow it.
fn refusal(what: &'static str, error: io::Error) -> Refusal {
    let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    let mut kind = error.kind();
    let cure = match (error.raw_os_error(), disabled.trim()) {
        (Some(libc::EPERM), "1" | "2") if what == NO_RING => {
            ": the sysctl kernel.io_uring_disabled forbids it; 0 allows it".to_owned()
        }
        (Some(libc::EPERM | libc::EACCES | libc::ENOSYS), _) => {
            ": a container profile (seccomp) forbids it, or the kernel is built without it; docs/TUNING.md says how to allow it"
                .to_owned()
        }
        (Some(libc::ENOMEM), _) => ": the limit on locked memory is too low (ulimit -l, LimitMEMLOCK=)".to_owned(),
        (Some(libc::EMFILE | libc::ENFILE), _) => sys::cure(&error),
        _ if kind == io::ErrorKind::TimedOut => ": the machine may be too busy to answer".to_owned(),
        _ => {
            if what != NO_RING {
                kind = io::ErrorKind::Unsupported;
            }
            "; Linux 6.1 or later does it".to_owned()
        }
    };
    Refusal { kind, what, why: format!("{error}{cure}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_cause_and_the_cure_whatever_is_refused() {
        for (errno, cure) in [
            (libc::ENOSYS, "seccomp"),
            (libc::EPERM, "seccomp"),
            (libc::ENOMEM, "ulimit -l"),
            (libc::EMFILE, "ulimit -n"),
            (libc::ENFILE, "fs.file-max"),
            (libc::EINVAL, "Linux 6.1"),
        ] {
            for what in [NO_RING, "provided buffers"] {
                let refusal = refusal(what, io::Error::from_raw_os_error(errno));
                let said = refusal.to_string();
                assert!(said.contains(cure) && said.contains(what), "{said}");
                assert_eq!(said.contains("6.1"), errno == libc::EINVAL, "{said}");
            }
            let kind = io::Error::from(refusal(NO_RING, io::Error::from_raw_os_error(errno))).kind();
            assert_eq!(kind, io::Error::from_raw_os_error(errno).kind());
        }
    }
}
