//! How much memory this process may use, and giving back what it does not.

use std::fs;

/// The memory that this process may use, in bytes: the least of the machine's, its control group's and its resource limits.
/// `None` if nothing says.
///
/// Reads a handful of files, once at start.
pub fn memory_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = limit_from(&groups, |path| fs::read_to_string(path).ok());
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_from(&text));
    // A closure, because C libraries have types of their own for what it takes.
    let resource_limit = |resource| {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: getrlimit(2) writes one `rlimit`; `limit` is one and outlives the call.
        // (test: `the_limit_is_at_most_what_the_machine_has`)
        let result = unsafe { libc::getrlimit(resource, &raw mut limit) };
        (result == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
    };
    [group, machine, resource_limit(libc::RLIMIT_AS), resource_limit(libc::RLIMIT_DATA)]
        .into_iter()
        .flatten()
        .min()
}

/// Gives memory that was freed back to the system, as far as the allocator lets itself be told: glibc keeps most of what
/// a spike has left behind, other allocators give it back by themselves. Takes its time, about a millisecond for
/// each 10 MiB that go back, and the locks of the allocator.
pub fn release_free_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: malloc_trim(3) takes no pointers and may be called at any time, on any thread.
        // (test: `memory_that_was_freed_goes_back`)
        unsafe { libc::malloc_trim(0) };
    }
}

/// The smallest limit named by the files that `/proc/self/cgroup` (`groups`) leads to: cgroup v2 `memory.max`, v1
/// `memory.limit_in_bytes`.
fn limit_from(groups: &str, read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let mut smallest = None;
    for line in groups.lines() {
        // hierarchy-id:controllers:path, and the path may hold colons (cgroups(7))
        let mut fields = line.splitn(3, ':');
        let (Some(hierarchy), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let (root, file) = if hierarchy == "0" && controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            continue;
        };
        for directory in super::cpu::with_parents(root, path) {
            // `max` is no number, and no limit.
            let limit = read(&format!("{directory}/{file}")).and_then(|text| text.trim().parse().ok());
            smallest = smallest.into_iter().chain(limit).min();
        }
    }
    smallest
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn total_from(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_at_most_what_the_machine_has() {
        let machine = total_from(&fs::read_to_string("/proc/meminfo").unwrap()).unwrap();
        let limit = memory_limit().unwrap();
        assert!(limit > 1 << 20 && limit <= machine, "{limit} of {machine}");
    }

    #[test]
    fn the_smallest_limit_of_a_group_and_those_above_it_counts() {
        let read = |path: &str| match path {
            "/sys/fs/cgroup/a/b/memory.max" => Some("max\n".to_owned()),
            "/sys/fs/cgroup/a/memory.max" => Some("4096\n".to_owned()),
            "/sys/fs/cgroup/memory/x/memory.limit_in_bytes" => Some("9223372036854771712\n".to_owned()),
            _ => None,
        };
        assert_eq!(limit_from("0::/a/b\n", read), Some(4096));
        assert_eq!(limit_from("3:cpu,memory:/x\n", read), Some(9_223_372_036_854_771_712));
        assert_eq!(limit_from("0::/\nnonsense\n2:cpu:/x\n", read), None);
    }

    #[test]
    fn the_total_is_in_kibibytes() {
        assert_eq!(total_from("MemFree: 1 kB\nMemTotal:       16 kB\n"), Some(16 << 10));
        assert_eq!(total_from("MemTotal: none\n"), None);
    }

    #[test]
    fn memory_that_was_freed_goes_back() {
        let resident = || {
            let text = fs::read_to_string("/proc/self/statm").unwrap();
            text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
        };
        // Blocks below the threshold for mappings of their own, with one that stays behind them.
        let blocks: Vec<Vec<u8>> = (0..1024).map(|_| vec![1; 64 << 10]).collect();
        let last = vec![1_u8; 64 << 10];
        let before = resident();
        drop(blocks);
        release_free_memory();
        let after = resident();
        assert!(cfg!(not(target_env = "gnu")) || before - after > 48 << 20, "{before} before, {after} after");
        drop(last);
    }
}
