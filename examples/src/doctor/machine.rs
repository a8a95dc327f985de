//! The files of `/proc` and `/sys`, as values. What is not there, or not as expected, is `None`, and nobody is told of it.
//!
//! All paths are below a root, so that a test has a machine of its own invention, and a reader the files of another one.

use std::fs;
use std::path::PathBuf;

pub struct Machine {
    root: PathBuf,
}

impl Machine {
    /// The one whose `/proc` and `/sys` are below this directory; the empty name is this machine.
    pub fn below(root: &str) -> Self {
        Self { root: root.into() }
    }

    fn at(&self, path: &str) -> PathBuf {
        match self.root.as_os_str().is_empty() {
            true => path.into(),
            false => self.root.join(path.trim_start_matches('/')),
        }
    }

    /// A file without the end of its line.
    pub fn text(&self, path: &str) -> Option<String> {
        Some(fs::read_to_string(self.at(path)).ok()?.trim().to_owned())
    }

    /// The numbers of a file, in order.
    pub fn numbers(&self, path: &str) -> Option<Vec<u64>> {
        self.text(path)?.split_whitespace().map(|word| word.parse().ok()).collect()
    }

    pub fn number(&self, path: &str) -> Option<u64> {
        self.numbers(path)?.first().copied()
    }

    /// The version of the kernel, as 6.1 in (6, 1).
    pub fn kernel(&self) -> Option<(u64, u64)> {
        let text = self.text("/proc/sys/kernel/osrelease")?;
        let mut numbers = text.split(|byte: char| !byte.is_ascii_digit()).map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    }

    /// A limit of this process by its name in `/proc/self/limits`: the one in force and the hard one. `u64::MAX` is none.
    pub fn limit(&self, name: &str) -> Option<(u64, u64)> {
        let text = self.text("/proc/self/limits")?;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let mut words = line
            .split_whitespace()
            .map(|word| if word == "unlimited" { Some(u64::MAX) } else { word.parse().ok() });
        Some((words.next()??, words.next()??))
    }

    /// What a line of `/proc/self/status` says.
    pub fn status(&self, name: &str) -> Option<String> {
        let text = self.text("/proc/self/status")?;
        Some(text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?.trim().to_owned())
    }

    /// How many CPUs this process may run on.
    pub fn allowed_cpus(&self) -> Option<usize> {
        count_of_list(&self.status("Cpus_allowed_list")?)
    }

    pub fn online_cpus(&self) -> Option<usize> {
        count_of_list(&self.text("/sys/devices/system/cpu/online")?)
    }

    pub fn numa_nodes(&self) -> Option<usize> {
        count_of_list(&self.text("/sys/devices/system/node/online")?)
    }

    /// Bytes of memory that the machine has.
    pub fn memory_bytes(&self) -> Option<u64> {
        let text = self.text("/proc/meminfo")?;
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
    }

    /// The least memory that the process's control groups allow, in bytes.
    pub fn memory_of_group(&self) -> Option<u64> {
        let files = self.group_files("memory", "memory.max", "memory.limit_in_bytes");
        // `max` is no number, and no limit. The first version writes a very large one.
        let limits = files.iter().filter_map(|text| text.parse().ok());
        limits.filter(|&limit: &u64| self.memory_bytes().is_none_or(|all| limit < all)).min()
    }

    /// The least CPUs' worth of time that they allow.
    pub fn cpu_quota(&self) -> Option<f64> {
        let ratio = |quota: &str, period: &str| {
            let (quota, period) = (quota.parse::<f64>().ok()?, period.parse::<f64>().ok()?);
            (quota > 0.0 && period > 0.0).then_some(quota / period)
        };
        let second = self.group_files("cpu", "cpu.max", "").into_iter();
        let second = second.filter_map(|text| ratio(text.split(' ').next()?, text.split(' ').nth(1)?));
        let first = self.group_files("cpu", "", "cpu.cfs_quota_us").into_iter();
        let periods = self.group_files("cpu", "", "cpu.cfs_period_us").into_iter();
        let first = first.zip(periods).filter_map(|(quota, period)| ratio(&quota, &period));
        second.chain(first).reduce(f64::min)
    }

    /// How often they have taken the CPUs away.
    pub fn throttled(&self) -> u64 {
        let files = self.group_files("cpu", "cpu.stat", "cpu.stat");
        let counts = files.iter().flat_map(|text| text.lines());
        counts.filter_map(|line| line.strip_prefix("nr_throttled ")?.parse().ok()).max().unwrap_or(0)
    }

    /// A file of the process's control group and of those above it: by one name in the second version of control groups, by another
    /// in the first. An empty name is not read.
    fn group_files(&self, controller: &str, second: &str, first: &str) -> Vec<String> {
        let mut files = Vec::new();
        for line in self.text("/proc/self/cgroup").unwrap_or_default().lines() {
            // hierarchy-id:controllers:path (cgroups(7))
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
            let (mount, file) = match controllers {
                "" => ("/sys/fs/cgroup".to_owned(), second),
                names if names.split(',').any(|name| name == controller) => {
                    (format!("/sys/fs/cgroup/{controller}"), first)
                }
                _ => continue,
            };
            if file.is_empty() {
                continue;
            }
            let mut group = path.trim_end_matches('/');
            loop {
                files.extend(self.text(&format!("{mount}{group}/{file}")));
                let Some(parent) = group.rfind('/') else { break };
                group = &group[..parent];
            }
        }
        files
    }

    /// The governor of each CPU's clock and what sets it, each once.
    pub fn governors(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let listed = fs::read_dir(self.at("/sys/devices/system/cpu"));
        for entry in listed.into_iter().flatten().flatten() {
            let name = entry.file_name();
            let of = |file| {
                self.text(&format!("/sys/devices/system/cpu/{}/cpufreq/{file}", name.to_string_lossy()))
            };
            if let Some(governor) = of("scaling_governor") {
                found.push((governor, of("scaling_driver").unwrap_or_default()));
            }
        }
        found.sort();
        found.dedup();
        found
    }
}

/// How many a list such as `0,2-3` names.
fn count_of_list(list: &str) -> Option<usize> {
    let mut count = 0;
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse::<usize>().ok()?, last.trim().parse::<usize>().ok()?);
        count += last.checked_sub(first)? + 1;
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_counted() {
        assert_eq!(count_of_list("0-3,8,10-11"), Some(7));
        assert_eq!(count_of_list("0"), Some(1));
        assert_eq!((count_of_list(""), count_of_list("3-1")), (None, None));
    }
}
