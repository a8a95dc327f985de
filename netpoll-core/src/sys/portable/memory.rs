//! How much memory this process may use.

/// The memory that this process may use, in bytes: the least of the machine's and its resource limits. `None` if nothing says.
pub fn memory_limit() -> Option<u64> {
    [machine(), limit(libc::RLIMIT_AS), limit(libc::RLIMIT_DATA)].into_iter().flatten().min()
}

/// Does nothing: the allocator gives back by itself.
pub fn release_free_memory() {}

fn machine() -> Option<u64> {
    // SAFETY: sysconf(3) takes no pointers. (test: `the_limit_is_at_most_the_memory_of_the_machine`)
    let pages = unsafe { libc::sysconf(libc::_SC_PHYS_PAGES) };
    // SAFETY: as above. (test: `the_limit_is_at_most_the_memory_of_the_machine`)
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(pages).ok()?.checked_mul(u64::try_from(bytes).ok()?).filter(|bytes| *bytes > 0)
}

#[cfg(target_os = "macos")]
type Resource = libc::c_int;
#[cfg(not(target_os = "macos"))]
type Resource = libc::__rlimit_resource_t;

fn limit(resource: Resource) -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit(2) writes one `rlimit`; `limit` is one and outlives the call.
    // (test: `the_limit_is_at_most_the_memory_of_the_machine`)
    let result = unsafe { libc::getrlimit(resource, &raw mut limit) };
    (result == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_at_most_the_memory_of_the_machine() {
        let (limit, machine) = (memory_limit().unwrap(), machine().unwrap());
        assert!(limit > 1 << 20 && limit <= machine, "{limit} of {machine}");
        release_free_memory();
    }
}
