//! Where a process spends its CPU time, user space or kernel, by the kernel's own sampling clock.
//!
//! `cpu-clock` (perf_event_open(2), PERF_TYPE_SOFTWARE) fires a timer after every `PERIOD` of *run time* of a
//! thread; each record says which side it hit. That is the question utime and stime answer as well, but sixteen
//! times as often as a tick at HZ 250, so the same run gives a quarter of the sampling error. It needs no hardware
//! counters; without CAP_PERFMON it needs perf_event_paranoid <= 1. Costs the sampled thread an interrupt per
//! period of its run time.
//!
//! Invariant: records are taken in order, `tail` never passes the kernel's head. One thread drains a ring.
#![expect(unsafe_code, reason = "perf_event_open and its ring have no safe interface in std")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// Not a divisor of any usual timer period, so that samples do not march in step with ticks.
const PERIOD_NS: u64 = 251_003;
const PAGE_BYTES: usize = 4096;
/// 256 KiB hold 16 384 records: four seconds of run time.
const DATA_BYTES: usize = 64 * PAGE_BYTES;
/// Places of `data_head` and `data_tail` in `struct perf_event_mmap_page`, in words.
const HEAD: usize = 1024 / 8;
const TAIL: usize = 1032 / 8;

/// Samples on either side.
#[derive(Clone, Copy, Default, Debug)]
pub struct Sides {
    /// Hits in user space.
    pub user: u64,
    /// Hits in the kernel.
    pub kernel: u64,
}

/// Samples all threads that a process had when it was attached.
#[derive(Debug)]
pub struct Sampler(Vec<Ring>);

impl Sampler {
    /// Starts to sample.
    ///
    /// # Errors
    /// The kernel's: no such process, or not permitted.
    pub fn attach(pid: u32) -> io::Result<Self> {
        let mut rings = Vec::new();
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let name = task?.file_name();
            let thread = name.to_str().and_then(|name| name.parse().ok());
            rings.push(Ring::open(thread.ok_or(io::ErrorKind::InvalidData)?)?);
        }
        Ok(Self(rings))
    }

    /// What was sampled since the last call.
    pub fn drain(&mut self) -> Sides {
        self.0.iter_mut().fold(Sides::default(), |sum, ring| {
            let more = ring.drain();
            Sides { user: sum.user + more.user, kernel: sum.kernel + more.kernel }
        })
    }
}

#[derive(Debug)]
struct Ring {
    _event: OwnedFd,
    /// The control page, then the data; written by the kernel while we look.
    words: &'static [AtomicU64],
}

impl Ring {
    fn open(thread: i32) -> io::Result<Self> {
        // struct perf_event_attr, first version (64 bytes): type and size, config, sample_period, sample_type,
        // read_format, flags, wakeup_events, config1.
        const SOFTWARE: u64 = 1;
        const CPU_CLOCK: u64 = 0;
        const SAMPLE_IP: u64 = 1;
        let attributes: [u64; 8] = [SOFTWARE | 64 << 32, CPU_CLOCK, PERIOD_NS, SAMPLE_IP, 0, 0, 0, 0];
        let (any_cpu, no_group, close_on_exec) = (-1, -1, 8_u64);
        // SAFETY: the kernel reads as many bytes of `attributes` as its size field says, 64, which it has.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                attributes.as_ptr(),
                thread,
                any_cpu,
                no_group,
                close_on_exec,
            )
        };
        let fd = i32::try_from(fd).ok().filter(|&fd| fd >= 0).ok_or_else(io::Error::last_os_error)?;
        // SAFETY: the kernel has just given us this descriptor, nobody else owns it.
        let event = unsafe { OwnedFd::from_raw_fd(fd) };
        let (bytes, access) = (PAGE_BYTES + DATA_BYTES, libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), bytes, access, libc::MAP_SHARED, event.as_raw_fd(), 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the mapping is page-aligned, `bytes` long and lives until `drop` below, which is the last use of
        // `words`; the kernel writes to it at any time, which atomics allow.
        let words = unsafe { std::slice::from_raw_parts(start.cast::<AtomicU64>(), bytes / 8) };
        Ok(Self { _event: event, words })
    }

    fn drain(&mut self) -> Sides {
        const SAMPLE: u64 = 9;
        const DATA: usize = PAGE_BYTES / 8;
        let mut sides = Sides::default();
        // Acquire pairs with the kernel's barrier before it publishes the head.
        let head = self.words[HEAD].load(Ordering::Acquire);
        let mut tail = self.words[TAIL].load(Ordering::Relaxed);
        while tail < head {
            // struct perf_event_header: type (32 bits), misc (16), size (16); records are whole words.
            let at = usize::try_from(tail % DATA_BYTES as u64).expect("below DATA_BYTES") / 8;
            let header = self.words[DATA + at].load(Ordering::Relaxed);
            let (kind, mode, bytes) = (header & 0xffff_ffff, (header >> 32) & 7, header >> 48);
            match (kind, mode) {
                (SAMPLE, 1) => sides.kernel += 1,
                (SAMPLE, 2) => sides.user += 1,
                _ => {}
            }
            if bytes == 0 {
                break;
            }
            tail += bytes;
        }
        self.words[TAIL].store(head, Ordering::Release);
        sides
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let start = self.words.as_ptr().cast_mut().cast();
        // SAFETY: exactly the mapping of `open`; nothing borrows `words` any more.
        unsafe { libc::munmap(start, PAGE_BYTES + DATA_BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_computes_is_seen_in_user_space() {
        let Ok(mut sampler) = Sampler::attach(std::process::id()) else { return }; // not permitted here
        let begin = std::time::Instant::now();
        // A read of the clock stays in user space (vDSO).
        while begin.elapsed().as_millis() < 100 {}
        let Sides { user, kernel } = sampler.drain();
        assert!(user > 20 && user > kernel, "{user} in user space, {kernel} in the kernel");
    }
}
