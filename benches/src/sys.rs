//! The kernel calls that `std` does not offer: epoll, affinity, limits, CPU time. All unsafe code of the crate but one line.
//!
//! Every wrapper is one system call; errors are the kernel's. Safe to use from any thread.
#![expect(unsafe_code, reason = "plain system calls; the floor must not borrow the runtime that it judges")]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use io_uring::{IoUring, opcode, types};

pub use libc::{EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, epoll_event};

/// An epoll instance; closed when dropped.
#[derive(Debug)]
pub struct Epoll(OwnedFd);

impl Epoll {
    /// A new instance, closed on exec.
    ///
    /// # Errors
    /// The kernel's: no descriptors or no memory left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes no pointer.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the kernel has just given us this descriptor, nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Watches `source` for `bits`, reported with `data`. Closing the source ends it.
    ///
    /// # Errors
    /// The kernel's: watched already, or no watches left.
    pub fn add(&self, source: impl AsFd, bits: i32, data: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, &source, bits, data)
    }

    /// Changes what `source` is watched for.
    ///
    /// # Errors
    /// The kernel's: not watched.
    pub fn modify(&self, source: impl AsFd, bits: i32, data: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, &source, bits, data)
    }

    fn control(&self, operation: i32, source: &impl AsFd, bits: i32, data: u64) -> io::Result<()> {
        let mut event = epoll_event { events: bits.cast_unsigned(), u64: data };
        let source = source.as_fd().as_raw_fd();
        // SAFETY: `event` lives through the call, which copies it; both descriptors are borrowed, hence open.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, source, &raw mut event) }).map(drop)
    }

    /// Waits until something happens or `timeout_ms` passed (-1: for ever); how many of `events` were filled.
    ///
    /// # Errors
    /// The kernel's; being interrupted counts as no events.
    pub fn wait(&self, events: &mut [epoll_event], timeout_ms: i32) -> io::Result<usize> {
        let room = i32::try_from(events.len()).unwrap_or(i32::MAX);
        // SAFETY: the kernel writes at most `room` events, and the slice has that many.
        match check(unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), room, timeout_ms) }) {
            Ok(filled) => Ok(filled.cast_unsigned() as usize),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(error),
        }
    }
}

/// Lets `listener` queue up to `backlog` connections that nobody has accepted yet (`std` asks for 128).
///
/// # Errors
/// The kernel's: not a listening socket.
pub fn set_backlog(listener: impl AsFd, backlog: i32) -> io::Result<()> {
    // SAFETY: takes no pointer; a second listen(2) on a listening socket only changes the backlog.
    check(unsafe { libc::listen(listener.as_fd().as_raw_fd(), backlog) }).map(drop)
}

/// Has the kernel cut each send of a UDP socket into datagrams of so many bytes.
///
/// # Errors
/// The kernel's: it is older than 4.18.
pub fn set_udp_segment(socket: impl AsFd, bytes: u16) -> io::Result<()> {
    let (value, length) = (i32::from(bytes), size_of::<i32>() as libc::socklen_t);
    // SAFETY: the kernel reads `length` bytes of `value`, which lives through the call.
    check(unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            (&raw const value).cast(),
            length,
        )
    })
    .map(drop)
}

/// Runs the calling thread, and what it starts from now on, on these CPUs only.
///
/// # Errors
/// The kernel's: none of the CPUs is online and allowed.
pub fn pin_current_thread(cpus: &[usize]) -> io::Result<()> {
    // SAFETY: cpu_set_t is a bit array, for which all zeroes is the empty set.
    let mut set: libc::cpu_set_t = unsafe { MaybeUninit::zeroed().assume_init() };
    for &cpu in cpus.iter().filter(|&&cpu| cpu < libc::CPU_SETSIZE.cast_unsigned() as usize) {
        // SAFETY: `cpu` is below CPU_SETSIZE, the number of bits in the set.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: the pointer and the size are those of `set`; 0 is the calling thread.
    check(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) }).map(drop)
}

/// How often this process was taken off its core so far, all threads together, ended ones too.
///
/// # Errors
/// None that the kernel documents.
pub fn context_switches() -> io::Result<u64> {
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the kernel writes one rusage, which is what the pointer leads to.
    check(unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so it was written.
    let usage = unsafe { usage.assume_init() };
    Ok(u64::try_from(usage.ru_nvcsw + usage.ru_nivcsw).unwrap_or(0))
}

/// CPU time that the calling thread has used, up to now.
///
/// # Errors
/// The kernel's; Linux gives none for this clock.
pub fn thread_cpu_time() -> io::Result<Duration> {
    cpu_time(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// CPU time that all threads of this process have used, up to now.
///
/// # Errors
/// The kernel's; Linux gives none for this clock.
pub fn process_cpu_time() -> io::Result<Duration> {
    cpu_time(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// CPU time of all child processes that have ended and were waited for, theirs included.
///
/// # Errors
/// None that the kernel documents.
pub fn children_cpu_time() -> io::Result<Duration> {
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the kernel writes one rusage, which is what the pointer leads to.
    check(unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so it was written.
    let usage = unsafe { usage.assume_init() };
    let duration = |time: libc::timeval| {
        Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_usec * 1000).unwrap_or(0))
    };
    Ok(duration(usage.ru_utime) + duration(usage.ru_stime))
}

fn cpu_time(clock: libc::clockid_t) -> io::Result<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills in `time`, which lives through the call.
    check(unsafe { libc::clock_gettime(clock, &raw mut time) })?;
    Ok(Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap_or(0)))
}

/// Moves bytes from or to a pipe inside the kernel; how many.
///
/// # Errors
/// The kernel's: neither is a pipe, or one of them is what cannot be spliced.
pub fn splice(from: impl AsFd, to: impl AsFd, bytes: usize) -> io::Result<usize> {
    splice_at(&from, None, &to, bytes)
}

/// The same out of a file, from an offset on.
///
/// # Errors
/// As [`splice`].
pub fn splice_from(file: impl AsFd, at: u64, to: impl AsFd, bytes: usize) -> io::Result<usize> {
    splice_at(&file, Some(at), &to, bytes)
}

fn splice_at(from: &impl AsFd, at: Option<u64>, to: &impl AsFd, bytes: usize) -> io::Result<usize> {
    let (from, to) = (from.as_fd().as_raw_fd(), to.as_fd().as_raw_fd());
    let mut at = at.map(|at| libc::loff_t::try_from(at).unwrap_or(libc::loff_t::MAX));
    let offset = at.as_mut().map_or(std::ptr::null_mut(), std::ptr::from_mut);
    // SAFETY: the first offset is null or `at`, which lives through the call, the second is null; both descriptors are borrowed, hence open.
    checked_size(unsafe { libc::splice(from, offset, to, std::ptr::null_mut(), bytes, 0) })
}

/// Puts what is in a pipe into another one as well, without a copy and without taking it out; how many bytes.
///
/// # Errors
/// The kernel's: one of them is no pipe.
pub fn tee(from: impl AsFd, to: impl AsFd, bytes: usize) -> io::Result<usize> {
    let (from, to) = (from.as_fd().as_raw_fd(), to.as_fd().as_raw_fd());
    // SAFETY: takes no pointer; both descriptors are borrowed, hence open.
    checked_size(unsafe { libc::tee(from, to, bytes, 0) })
}

/// Sends a part of a file; how many bytes.
///
/// # Errors
/// The kernel's.
pub fn send_file(to: impl AsFd, file: impl AsFd, at: u64, bytes: usize) -> io::Result<usize> {
    let (to, file) = (to.as_fd().as_raw_fd(), file.as_fd().as_raw_fd());
    let mut at = libc::off_t::try_from(at).unwrap_or(libc::off_t::MAX);
    // SAFETY: `at` lives through the call; both descriptors are borrowed, hence open.
    checked_size(unsafe { libc::sendfile(to, file, &raw mut at, bytes) })
}

fn checked_size(size: isize) -> io::Result<usize> {
    usize::try_from(size).map_err(|_| io::Error::last_os_error())
}

/// A ring that does nothing but send.
pub struct Sends(IoUring);

impl Sends {
    /// One that takes so many orders at once.
    ///
    /// # Errors
    /// The kernel's: it has no rings, or none for this process.
    pub fn new(entries: u32) -> io::Result<Self> {
        IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(entries).map(Self)
    }

    /// Sends the same to each, and waits until all of it is sent; in how many system calls.
    ///
    /// # Errors
    /// The kernel's for one of them; the ring is of no use then.
    pub fn send_to_all(&mut self, sockets: &[impl AsFd], bytes: &[u8]) -> io::Result<u64> {
        let mut calls = 0;
        let entries = self.0.params().sq_entries() as usize;
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        for part in sockets.chunks(entries) {
            for socket in part {
                let send = opcode::Send::new(types::Fd(socket.as_fd().as_raw_fd()), bytes.as_ptr(), length);
                let order = send.flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL).build();
                // SAFETY: the bytes and the sockets are borrowed until this returns, and all orders have ended by then.
                let pushed = unsafe { self.0.submission().push(&order) };
                debug_assert!(pushed.is_ok(), "a part is as many as there is room for");
            }
            // All of them end, whatever becomes of one.
            let mut outcome = Ok(());
            let mut left = part.len();
            while left > 0 {
                match self.0.submit_and_wait(left) {
                    Ok(_) => calls += 1,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    // The kernel may read these bytes for as long as it likes.
                    Err(_) => std::process::abort(),
                }
                for done in self.0.completion() {
                    left -= 1;
                    if done.result() < 0 {
                        outcome = Err(io::Error::from_raw_os_error(-done.result()));
                    } else if done.result().cast_unsigned() != length {
                        outcome = Err(io::ErrorKind::WriteZero.into());
                    }
                }
            }
            outcome?;
        }
        Ok(calls)
    }
}

/// Raises the limit of open descriptors towards `want`, for this process and those it starts; what it is now.
///
/// # Errors
/// The kernel's. A hard limit below `want` is not an error.
pub fn raise_open_files(want: u64) -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills in `limit`, which lives through the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    if limit.rlim_max < want {
        let higher = libc::rlimit { rlim_cur: want, rlim_max: want };
        // SAFETY: the kernel only reads `higher`, which lives through the call.
        if check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const higher) }).is_ok() {
            return Ok(want);
        }
    }
    limit.rlim_cur = limit.rlim_max.min(want.max(limit.rlim_cur));
    // SAFETY: the kernel only reads `limit`, which lives through the call.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    Ok(limit.rlim_cur)
}

/// Has the kernel kill the process that `command` starts when the thread that started it ends.
pub fn dies_with_us(command: &mut Command) -> &mut Command {
    let ask = || {
        // SAFETY: takes no pointer.
        check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) }).map(drop)
    };
    // SAFETY: between fork and exec the closure makes one system call; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(ask) }
}

/// Sends SIGINT, which the tracers take as "print your counts and end".
///
/// # Errors
/// The kernel's: no such process.
pub fn interrupt(child: &std::process::Child) -> io::Result<()> {
    let pid = child.id().cast_signed();
    // SAFETY: takes no pointer. The pid is that of a child which has not been waited for, so it is not reused.
    check(unsafe { libc::kill(pid, libc::SIGINT) }).map(drop)
}

/// Sends SIGTERM, which asks a server to drain.
///
/// # Errors
/// The kernel's: no such process.
pub fn terminate(child: &std::process::Child) -> io::Result<()> {
    let pid = child.id().cast_signed();
    // SAFETY: takes no pointer. The pid is that of a child which has not been waited for, so it is not reused.
    check(unsafe { libc::kill(pid, libc::SIGTERM) }).map(drop)
}

/// What a process may take of the kernel.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    /// Bytes of address space, as `ulimit -v` sets them in KiB.
    AddressSpace(u64),
    /// Open descriptors, as `ulimit -n` sets them.
    OpenFiles(u64),
}

/// Starts what `command` starts under this limit, soft and hard.
pub fn limited(command: &mut Command, limit: Limit) -> &mut Command {
    let (resource, value) = match limit {
        Limit::AddressSpace(bytes) => (libc::RLIMIT_AS, bytes),
        Limit::OpenFiles(count) => (libc::RLIMIT_NOFILE, count),
    };
    let set = move || {
        let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
        // SAFETY: the kernel only reads `limit`, which lives through the call.
        check(unsafe { libc::setrlimit(resource, &raw const limit) }).map(drop)
    };
    // SAFETY: between fork and exec the closure makes one system call; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(set) }
}

/// Has `bind` of port 0 leave the choice of the port to `connect`, which then looks for one that is free towards the
/// peer in question and not for one that is free altogether.
///
/// # Errors
/// The kernel's: older than 4.2.
pub fn choose_port_late(socket: impl AsFd) -> io::Result<()> {
    let on: i32 = 1;
    let (fd, bytes) = (socket.as_fd().as_raw_fd(), size_of::<i32>() as libc::socklen_t);
    let option = libc::IP_BIND_ADDRESS_NO_PORT;
    // SAFETY: the kernel reads `bytes` bytes at the pointer, which is that of an integer of this size.
    check(unsafe { libc::setsockopt(fd, libc::IPPROTO_IP, option, (&raw const on).cast(), bytes) }).map(drop)
}

fn check(returned: i32) -> io::Result<i32> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}
