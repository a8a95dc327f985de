//! What the kernel says about a process and about the machine. A few files of /proc per reading.

use super::Failure;
use std::fs;

/// CPU time of one process.
#[derive(Clone, Copy, Default, Debug)]
pub struct CpuTime {
    /// User and system together, in ns, as the scheduler measured it; steal is not part of it.
    pub total_ns: u64,
    /// The part in user space in ticks of `getconf CLK_TCK`; sampled, see [`Contestant`](super::Contestant).
    pub user_ticks: u64,
    /// The part in the kernel, likewise.
    pub system_ticks: u64,
}

impl CpuTime {
    /// Of all threads that process `pid` has now; what threads did that have ended is gone with them.
    ///
    /// # Errors
    /// The process is gone.
    pub fn of(pid: u32) -> Result<Self, Failure> {
        let mut total_ns = 0;
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            total_ns += field(&text, 0)?;
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The second field is a name in brackets that may hold anything; utime and stime are the 14th and 15th.
        let (_, rest) = stat.rsplit_once(')').ok_or("an odd /proc/PID/stat")?;
        Ok(Self { total_ns, user_ticks: field(rest, 11)?, system_ticks: field(rest, 12)? })
    }

    /// What was added since `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            total_ns: self.total_ns.saturating_sub(before.total_ns),
            user_ticks: self.user_ticks.saturating_sub(before.user_ticks),
            system_ticks: self.system_ticks.saturating_sub(before.system_ticks),
        }
    }
}

fn field(text: &str, nth: usize) -> Result<u64, Failure> {
    Ok(text.split_whitespace().nth(nth).ok_or("a short file in /proc")?.parse()?)
}

/// How often a process was taken off its core, all of its threads together.
#[derive(Clone, Copy, Default, Debug)]
pub struct Switches {
    /// It had to wait for something.
    pub voluntary: u64,
    /// Somebody else's turn came.
    pub involuntary: u64,
}

impl Switches {
    /// Of all threads that process `pid` has now; what threads did that have ended is gone with them.
    ///
    /// # Errors
    /// The process is gone.
    pub fn of(pid: u32) -> Result<Self, Failure> {
        let mut switches = Self::default();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let Ok(text) = fs::read_to_string(task?.path().join("status")) else { continue };
            let of = |name: &str| {
                text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
            };
            switches.voluntary += of("voluntary_ctxt_switches:").unwrap_or(0);
            switches.involuntary += of("nonvoluntary_ctxt_switches:").unwrap_or(0);
        }
        Ok(switches)
    }

    /// What was added since `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            voluntary: self.voluntary.saturating_sub(before.voluntary),
            involuntary: self.involuntary.saturating_sub(before.involuntary),
        }
    }

    /// Both kinds.
    pub fn total(self) -> u64 {
        self.voluntary + self.involuntary
    }
}

/// Ticks of all CPUs together.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// In which a core worked for us.
    pub busy: u64,
    /// In which it worked for another guest of the host, though we had work.
    pub stolen: u64,
}

impl Machine {
    /// Since it was started.
    ///
    /// # Errors
    /// /proc/stat is not as expected.
    pub fn now() -> Result<Self, Failure> {
        let text = fs::read_to_string("/proc/stat")?;
        // cpu user nice system idle iowait irq softirq steal
        let [user, nice, system, irq, softirq, stolen] = {
            let mut fields = [0; 6];
            for (value, nth) in fields.iter_mut().zip([1, 2, 3, 6, 7, 8]) {
                *value = field(&text, nth)?;
            }
            fields
        };
        Ok(Self { busy: user + nice + system + irq + softirq, stolen })
    }
}

/// Resident bytes of a process, exactly: the counters in /proc/PID/status lag by up to some hundred KiB.
///
/// # Errors
/// The process is gone, or the kernel is older than 4.14.
pub fn resident_bytes(pid: u32) -> Result<u64, Failure> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find(|line| line.starts_with("Rss:")).ok_or("no Rss in smaps_rollup")?;
    Ok(field(line, 1)? * 1024)
}

/// The most that was resident of a process at any time since it started.
///
/// # Errors
/// The process is gone.
pub fn peak_resident_bytes(pid: u32) -> Result<u64, Failure> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find(|line| line.starts_with("VmHWM:")).ok_or("no VmHWM in /proc/PID/status")?;
    Ok(field(line, 1)? * 1024)
}
