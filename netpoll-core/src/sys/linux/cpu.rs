//! Which CPUs this process may use, how much of them, and where a thread runs.
//!
//! Read once at start. Allowed CPUs are the scheduler's affinity mask (which `taskset` and cpusets set);
//! a quota (containers) limits how much time all of them together get. The quota files are text, parsed
//! in functions that take the text, so tests need no container.

use std::fs;
use std::io;

use crate::sys::checked;

/// Threads can be kept on CPUs.
pub const PINS: bool = true;

/// Bits per word of the kernel's CPU mask.
const WORD_BITS: usize = libc::c_ulong::BITS as usize;

/// Where asking for the mask starts: 1024 CPUs, the size of a `cpu_set_t`.
const MASK_WORDS: usize = size_of::<libc::cpu_set_t>() / size_of::<libc::c_ulong>();

/// Where it ends. The largest configurable Linux has 8192 CPUs (x86, `CONFIG_MAXSMP`).
const MASK_WORDS_MAX: usize = 65536 / WORD_BITS;

const _: () = assert!(align_of::<libc::c_ulong>() >= align_of::<libc::cpu_set_t>());

/// The CPUs that a thread may run on, to be given to others.
///
/// A thread inherits those of the one that starts it. A pool that starts its threads when they are needed, as most do, and is first
/// asked by a worker, has them all on the one CPU of that worker. Take the affinity where the program begins, and apply it in
/// the function that the pool calls on each of its threads:
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// let affinity = netpoll_core::Affinity::of_this_thread()?;
/// let on_thread_start = move || {
///     // Where the kernel refuses, the thread stays on the CPU that it was started on.
///     let _ = affinity.apply();
/// };
/// # on_thread_start();
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Affinity {
    cpus: Vec<usize>,
}

impl Affinity {
    /// That of the calling thread.
    ///
    /// # Errors
    /// The kernel's; none are known.
    pub fn of_this_thread() -> io::Result<Self> {
        Ok(Self { cpus: allowed_cpus()? })
    }

    /// Lets the calling thread run there and nowhere else, and the threads that it starts from now on.
    ///
    /// # Errors
    /// The kernel's: `InvalidInput` when none of the CPUs may be used any more.
    pub fn apply(&self) -> io::Result<()> {
        keep_current_thread_on(&self.cpus)
    }
}

/// The CPUs that the calling thread may run on, ascending; never empty.
///
/// # Errors
/// The kernel's; none are known for the calling thread.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    let mut mask = vec![0; MASK_WORDS];
    while let Err(error) = read_mask(&mut mask) {
        // EINVAL: the kernel's mask is larger than ours.
        if error.raw_os_error() != Some(libc::EINVAL) || mask.len() >= MASK_WORDS_MAX {
            return Err(error);
        }
        mask = vec![0; mask.len() * 2];
    }
    Ok(cpus_in(&mask))
}

/// Keeps the calling thread on `cpu`; threads that it starts later inherit that.
///
/// # Errors
/// The kernel's: `EINVAL` when the CPU does not exist, is offline or is outside the process's cpuset.
pub fn pin_current_thread(cpu: usize) -> io::Result<()> {
    keep_current_thread_on(&[cpu])
}

/// Keeps the calling thread on some of these CPUs; threads that it starts later inherit that.
///
/// # Errors
/// The kernel's: `EINVAL` when none of them may be used.
fn keep_current_thread_on(cpus: &[usize]) -> io::Result<()> {
    let mut mask: Vec<libc::c_ulong> = vec![0; MASK_WORDS];
    for &cpu in cpus {
        if cpu >= MASK_WORDS_MAX * WORD_BITS {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        mask.resize(mask.len().max(cpu / WORD_BITS + 1), 0);
        mask[cpu / WORD_BITS] |= 1 << (cpu % WORD_BITS);
    }
    let bytes = size_of_val(mask.as_slice());
    // SAFETY: sched_setaffinity(2) reads `bytes` bytes of mask; `mask` has that many initialised ones, and
    // words of a `cpu_set_t` are c_ulongs. Zero is the calling thread. (test: `a_pinned_thread_runs_where_it_was_put`)
    checked(unsafe { libc::sched_setaffinity(0, bytes, mask.as_ptr().cast()) })?;
    Ok(())
}

/// The CPU that the calling thread is running on right now.
///
/// # Errors
/// `ENOSYS` where the kernel cannot say.
#[cfg(test)]
pub fn current_cpu() -> io::Result<usize> {
    // SAFETY: sched_getcpu(3) has no arguments and no preconditions. (test: `a_pinned_thread_runs_where_it_was_put`)
    let cpu = checked(unsafe { libc::sched_getcpu() })?;
    Ok(cpu as usize)
}

/// How many CPUs' worth of time this process may use, as a container sets it (1.5 is one and a half).
/// `None`: unlimited, or it cannot be found out.
///
/// The smallest limit of the process's control group and of those above it; cgroup v2 `cpu.max`, v1
/// `cpu.cfs_quota_us`, under `/sys/fs/cgroup`. Inside a container the upper ones may be invisible; the
/// container's own is the one at the root of that mount. Reads a handful of files.
pub fn quota() -> Option<f64> {
    quota_below("")
}

/// The same where the root directory is another one.
fn quota_below(root: &str) -> Option<f64> {
    let read = |path: &str| fs::read_to_string(format!("{root}{path}")).ok();
    quota_from(&read("/proc/self/cgroup")?, read)
}

fn read_mask(mask: &mut [libc::c_ulong]) -> io::Result<()> {
    let bytes = size_of_val(mask);
    // SAFETY: sched_getaffinity(2) writes at most `bytes` bytes from the mask's start on; `mask` is that large,
    // borrowed exclusively, and any bits are valid. Zero is the calling thread.
    // (test: `the_allowed_cpus_are_those_of_proc_status`)
    checked(unsafe { libc::sched_getaffinity(0, bytes, mask.as_mut_ptr().cast()) })?;
    Ok(())
}

fn cpus_in(mask: &[libc::c_ulong]) -> Vec<usize> {
    let is_set = |cpu: &usize| mask[cpu / WORD_BITS] >> (cpu % WORD_BITS) & 1 == 1;
    (0..mask.len() * WORD_BITS).filter(is_set).collect()
}

/// The smallest limit named by the files that `/proc/self/cgroup` (`groups`) leads to.
fn quota_from(groups: &str, read: impl Fn(&str) -> Option<String>) -> Option<f64> {
    let mut smallest: Option<f64> = None;
    let mut consider = |limit: f64| smallest = Some(smallest.map_or(limit, |known| known.min(limit)));
    for line in groups.lines() {
        // hierarchy-id:controllers:path, and the path may hold colons (cgroups(7))
        let mut fields = line.splitn(3, ':');
        let (Some(hierarchy), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if hierarchy == "0" && controllers.is_empty() {
            for directory in with_parents("/sys/fs/cgroup", path) {
                let limit = read(&format!("{directory}/cpu.max")).and_then(|text| parse_cpu_max(&text));
                limit.into_iter().for_each(&mut consider);
            }
        } else if controllers.split(',').any(|name| name == "cpu") {
            // Mounted under its own name, or all of `cpu,cpuacct` behind a link called `cpu`.
            for root in [format!("/sys/fs/cgroup/{controllers}"), "/sys/fs/cgroup/cpu".to_owned()] {
                for directory in with_parents(&root, path) {
                    let quota = read(&format!("{directory}/cpu.cfs_quota_us"));
                    let period = read(&format!("{directory}/cpu.cfs_period_us"));
                    let limit = quota.zip(period).and_then(|(quota, period)| ratio(&quota, &period));
                    limit.into_iter().for_each(&mut consider);
                }
            }
        }
    }
    smallest
}

/// `root/a/b`, `root/a`, `root`. A path that leads out of our view (`/../x`) is only the root.
pub(super) fn with_parents<'a>(root: &'a str, path: &'a str) -> impl Iterator<Item = String> + 'a {
    let path = if path.split('/').any(|part| part == "..") { "" } else { path.trim_matches('/') };
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    (0..=parts.len()).rev().map(move |depth| {
        parts[..depth].iter().fold(root.to_owned(), |directory, part| directory + "/" + part)
    })
}

/// `"150000 100000"` is 1.5, `"max 100000"` is no limit (cgroup-v2.rst of the kernel).
fn parse_cpu_max(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    ratio(quota, period)
}

/// Microseconds of run time per microseconds of wall time; v1 says -1 and v2 says `max` for no limit.
fn ratio(quota: &str, period: &str) -> Option<f64> {
    let quota: u32 = quota.trim().parse().ok()?;
    let period: u32 = period.trim().parse().ok()?;
    (quota > 0 && period > 0).then(|| f64::from(quota) / f64::from(period))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn the_allowed_cpus_are_those_of_proc_status() {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
        let mut expected = Vec::new();
        for range in list.trim().split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            expected.extend(first.parse::<usize>().unwrap()..=last.parse().unwrap());
        }

        assert_eq!(allowed_cpus().unwrap(), expected);
    }

    #[test]
    fn a_pinned_thread_runs_where_it_was_put() {
        for cpu in allowed_cpus().unwrap() {
            let pinned = move || {
                pin_current_thread(cpu).unwrap();
                (current_cpu().unwrap(), allowed_cpus().unwrap())
            };
            assert_eq!(thread::spawn(pinned).join().unwrap(), (cpu, vec![cpu]));
        }
    }

    #[test]
    fn a_thread_that_a_pinned_one_starts_runs_everywhere_if_it_is_given_the_affinity() {
        let affinity = Affinity::of_this_thread().unwrap();
        let all = allowed_cpus().unwrap();
        let pinned = move || {
            pin_current_thread(all[0]).unwrap();
            let started = thread::spawn(move || {
                let inherited = allowed_cpus().unwrap();
                affinity.apply().unwrap();
                (inherited, allowed_cpus().unwrap())
            });
            assert_eq!(started.join().unwrap(), (vec![all[0]], all));
        };
        thread::spawn(pinned).join().unwrap();
    }

    #[test]
    fn a_cpu_that_does_not_exist_is_refused() {
        for cpu in [MASK_WORDS_MAX * WORD_BITS - 1, MASK_WORDS_MAX * WORD_BITS, usize::MAX] {
            assert_eq!(pin_current_thread(cpu).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        }
    }

    #[test]
    fn the_mask_is_read_across_words() {
        assert_eq!(cpus_in(&[0b101, 0, 1]), [0, 2, 2 * WORD_BITS]);
    }

    /// What `quota_from` finds when only these files exist.
    fn quota_of(groups: &str, files: &[(&str, &str)]) -> Option<f64> {
        quota_from(groups, |path| {
            files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn a_v2_quota_is_run_time_over_period() {
        assert_eq!(parse_cpu_max("150000 100000\n"), Some(1.5));
        assert_eq!(parse_cpu_max("50000 100000\n"), Some(0.5));
        assert_eq!(parse_cpu_max("max 100000\n"), None);
        assert_eq!(parse_cpu_max(""), None);
        assert_eq!(parse_cpu_max("100000 0"), None);
    }

    #[test]
    fn a_v1_quota_of_minus_one_is_no_limit() {
        assert_eq!(ratio("200000\n", "100000\n"), Some(2.0));
        assert_eq!(ratio("-1\n", "100000\n"), None);
    }

    #[test]
    fn the_smallest_limit_on_the_way_up_counts() {
        let files = [
            ("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
            ("/sys/fs/cgroup/a/cpu.max", "250000 100000\n"),
            ("/sys/fs/cgroup/cpu.max", "400000 100000\n"),
        ];
        assert_eq!(quota_of("0::/a/b\n", &files), Some(2.5));
    }

    #[test]
    fn a_container_finds_its_limit_at_the_root_of_the_mount() {
        let files = [("/sys/fs/cgroup/cpu.max", "200000 100000\n")];
        assert_eq!(quota_of("0::/\n", &files), Some(2.0));
        assert_eq!(quota_of("0::/system.slice/docker-1f.scope\n", &files), Some(2.0));
        assert_eq!(quota_of("0::/../../other\n", &files), Some(2.0));
    }

    #[test]
    fn v1_is_found_under_either_name_of_the_mount() {
        let groups = "11:memory:/docker/1f\n4:cpu,cpuacct:/docker/1f\n1:cpuset:/docker/1f\n0::/\n";
        let named = [
            ("/sys/fs/cgroup/cpu,cpuacct/docker/1f/cpu.cfs_quota_us", "300000\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/docker/1f/cpu.cfs_period_us", "100000\n"),
        ];
        let linked = [
            ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(quota_of(groups, &named), Some(3.0));
        assert_eq!(quota_of(groups, &linked), Some(0.5));
    }

    #[test]
    fn without_limits_or_files_there_is_no_quota() {
        assert_eq!(quota_of("0::/a\n4:cpu:/a\n", &[]), None);
        assert_eq!(quota_of("nonsense\n\n1:\n", &[]), None);
    }

    #[test]
    fn a_quota_is_read_from_the_files_of_a_machine() {
        let root = std::env::temp_dir().join(format!("netpoll-quota-{}", std::process::id()));
        for (path, text) in [
            ("proc/self/cgroup", "0::/slice/service\n"),
            ("sys/fs/cgroup/slice/service/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/slice/cpu.max", "250000 100000\n"),
        ] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let found = quota_below(root.to_str().unwrap());
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(found, Some(2.5));
        assert_eq!(quota_below(root.to_str().unwrap()), None, "the files are gone");
    }
}
