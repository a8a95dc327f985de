//! What the machine can, and how much of it this process gets.

use crate::finding::{Finding, State};
use crate::machine::Machine;
use crate::trials::Trials;

/// Waits in nanoseconds.
const PRECISE_WAITS: (u64, u64) = (5, 11);
const BUSY_POLL: (u64, u64) = (6, 9);
const SHARED_QUEUES: (u64, u64) = (4, 5);
/// With what came to it later.
const URING: (u64, u64) = (6, 1);
const URING_SINCE: [((u64, u64), &str); 2] =
    [((6, 12), "a block serves many receives"), ((6, 17), "a receive ends at the share of a turn")];
/// Locked memory that the rings of a worker may take.
const LOCKED_BYTES: u64 = 200 << 10;
/// A clock that is read without a system call.
const FAST_CLOCKS: [&str; 4] = ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"];

/// Without trials, by what the files say alone.
pub fn look(machine: &Machine, trials: Option<&Trials>) -> Vec<Finding> {
    let mut found = vec![kernel(machine)];
    if let Some(trials) = trials {
        found.push(driver(trials));
        found.push(trial("epoll", &trials.epoll, State::Broken, "nothing runs without it"));
        found.push(trial(
            "mio",
            &trials.mio,
            State::Note,
            "a second driver, of use where epoll is suspected",
        ));
        let shared = "workers cannot have a socket each on one port, and a new process cannot listen beside an old one";
        found.push(trial("SO_REUSEPORT", &trials.share_port, State::Broken, shared));
    }
    found.push(uring(machine, trials));
    found.push(busy_poll(machine, trials));
    found.extend(cpus(machine));
    found.extend(numa(machine));
    found.extend(huge_pages(machine));
    found.extend(clock(machine));
    found.extend(governor(machine));
    found
}

fn trial(name: &'static str, tried: &Result<(), String>, else_it_is: State, why: &str) -> Finding {
    match tried {
        Ok(()) => Finding::good(name, "works"),
        Err(error) => match short_of(error) {
            Some(cure) => Finding::good(name, error).but(else_it_is, SHORT, cure),
            None => Finding::good(name, error).but(else_it_is, why, ""),
        },
    }
}

fn kernel(machine: &Machine) -> Finding {
    let Some(version) = machine.kernel() else {
        let why = "there is no /proc: most of this cannot be said, and a server does not see its own limits";
        return Finding::good("kernel", "not known").but(State::Broken, why, "mount -t proc proc /proc");
    };
    let found = Finding::good("kernel", machine.text("/proc/sys/kernel/osrelease").unwrap_or_default());
    match version {
        old if old < SHARED_QUEUES => found.but(
            State::Broken,
            "workers cannot share a queue: that needs Linux 4.5",
            "a newer kernel; 5.11 has all that epoll is used for",
        ),
        old if old < PRECISE_WAITS => found.but(
            State::Advice,
            "a wait that is timed ends in whole milliseconds; from Linux 5.11 on it is as long as it was meant to be",
            "a newer kernel",
        ),
        _ => found,
    }
}

fn driver(trials: &Trials) -> Finding {
    match &trials.chosen {
        Ok(name) => Finding::good("driver", format!("a server runs on {name}")),
        Err(error) => Finding::good("driver", error).but(
            State::Broken,
            "a server does not start on what --backend or NETPOLL_BACKEND names, or without them",
            short_of(error).unwrap_or("another --backend, or what stands below for this one"),
        ),
    }
}

/// A note where it cannot be had: epoll is there for everybody. Who has asked for it is told so by [`driver`]. What was tried counts, and what
/// files say only explains it.
fn uring(machine: &Machine, trials: Option<&Trials>) -> Finding {
    let name = "io_uring";
    let note = |what: String, why: &str, cure: &str| Finding::good(name, what).but(State::Note, why, cure);
    let tried = trials.map(|trials| &trials.uring);
    let version = machine.kernel();
    let disabled = machine.number("/proc/sys/kernel/io_uring_disabled").filter(|disabled| *disabled > 0);
    if !matches!(tried, Some(Some(Ok(())))) {
        if version.is_some_and(|version| version < URING) {
            return note("not with this kernel".into(), "the driver needs Linux 6.1", "a newer kernel");
        }
        if let Some(disabled) = disabled {
            let what = format!("kernel.io_uring_disabled is {disabled}");
            let why = "the kernel makes no ring, or with 1 only for the group of kernel.io_uring_group";
            return note(what, why, "sysctl -w kernel.io_uring_disabled=0");
        }
    }
    let features: Vec<_> = URING_SINCE
        .iter()
        .map(|(since, what)| match version {
            Some(version) if version >= *since => (*what).to_owned(),
            Some(_) => format!("not: {what} ({}.{})", since.0, since.1),
            None => format!("not known: {what}"),
        })
        .collect();
    let features = features.join("; ");
    match tried {
        Some(Some(Ok(()))) => {}
        Some(Some(Err(error))) => {
            let (why, cure) = refused(machine, error);
            return note(error.clone(), why, &cure);
        }
        Some(None) => {
            let why = "this program was built without the driver, so it was not tried";
            let cure = "cargo run --features netpoll-core/uring --bin doctor";
            return note(format!("not forbidden by a sysctl; {features}"), why, cure);
        }
        None => return Finding::good(name, format!("not forbidden by a sysctl; {features}")),
    }
    let found = Finding::good(name, format!("works; {features}"));
    if let Some(disabled) = disabled {
        let why = format!(
            "kernel.io_uring_disabled is {disabled}: it works for the user of this process, and not for every one"
        );
        return found.but(State::Note, why, "sysctl -w kernel.io_uring_disabled=0");
    }
    let wanted = LOCKED_BYTES * machine.allowed_cpus().unwrap_or(1) as u64;
    match machine.limit("Max locked memory") {
        Some((soft, _)) if soft < wanted => found.but(
            State::Note,
            format!("{soft} bytes may be locked; with some kernels the rings of all workers take {wanted}"),
            format!("ulimit -l {} (a service of systemd: LimitMEMLOCK={wanted})", wanted.div_ceil(1024)),
        ),
        _ => found,
    }
}

/// Who forbids it, as far as the error says it or that can be seen.
fn refused(machine: &Machine, error: &str) -> (&'static str, String) {
    if error.contains("ulimit -l") {
        (
            "what may be locked into memory is not enough for a ring",
            "ulimit -l unlimited (a service of systemd: LimitMEMLOCK=infinity)".into(),
        )
    } else if let Some(cure) = short_of(error) {
        (SHORT, cure.into())
    } else if error.contains("6.1") {
        (
            "its trial failed; epoll is not concerned",
            "a kernel that is built with io_uring, 6.1 or later".into(),
        )
    } else if error.contains("seccomp") || machine.status("Seccomp").as_deref() == Some("2") {
        let cure = "--security-opt seccomp=PROFILE.json, one that allows io_uring_setup, io_uring_enter and io_uring_register \
                    (in Kubernetes seccompProfile of type Localhost)";
        ("a filter of system calls is in force, as container profiles have it", cure.into())
    } else {
        (
            "its trial failed; epoll is not concerned",
            "nothing that is known: epoll is what a server runs on by default".into(),
        )
    }
}

const SHORT: &str = "this process may not have more, whatever it is to run on";

/// What to type where a trial failed for want of something that is none of its business.
fn short_of(error: &str) -> Option<&'static str> {
    if error.contains("`ulimit -n`") {
        Some("ulimit -n 1024 (a service of systemd: LimitNOFILE=1024), or more: see `open files`")
    } else if error.contains("`ulimit -u`") {
        Some("ulimit -u unlimited (a service of systemd: TasksMax=infinity; docker: --pids-limit)")
    } else {
        None
    }
}

fn busy_poll(machine: &Machine, trials: Option<&Trials>) -> Finding {
    let name = "busy polling";
    let why = "`WaitStrategy::KernelBusyPoll` needs Linux 6.9; all others are there";
    match trials.map(|trials| &trials.busy_poll) {
        Some(tried) => trial(name, tried, State::Note, why),
        None if machine.kernel().unwrap_or_default() >= BUSY_POLL => Finding::good(name, "since Linux 6.9"),
        None => Finding::good(name, "not with this kernel").but(State::Note, why, "a newer kernel"),
    }
}

/// How many there are, how many this process may use, and how much of their time.
fn cpus(machine: &Machine) -> Vec<Finding> {
    let (Some(online), Some(allowed)) = (machine.online_cpus(), machine.allowed_cpus()) else {
        return Vec::new();
    };
    let set = Finding::good("CPU set", format!("{allowed} of {online} CPUs"));
    let mut found = vec![match allowed < online {
        true => set.but(State::Note, "there is a worker for each CPU of the set", ""),
        false => set,
    }];
    let Some(quota) = machine.cpu_quota() else {
        found.push(Finding::good("CPU quota", "none"));
        return found;
    };
    let whole = quota.ceil();
    let cure = format!(
        "--cpus {whole} of docker (a service of systemd: CPUQuota={}%), or a CPU set instead",
        whole * 100.0
    );
    let is = Finding::good("CPU quota", format!("{quota} CPUs; taken away {} times", machine.throttled()));
    found.push(if machine.throttled() > 0 {
        let why = "the quota was used up, and whoever waited then waited for the next period, up to 0.1 s";
        is.but(State::Advice, why, cure)
    } else if whole > quota && quota < allowed as f64 {
        let why = format!(
            "{whole} workers share less than so many CPUs: all of them stand still at the end of a period"
        );
        is.but(State::Advice, why, cure)
    } else {
        let why = "workers are no more than the quota, rounded up; none of them spins";
        is.but(State::Note, why, "")
    });
    found
}

fn numa(machine: &Machine) -> Option<Finding> {
    let nodes = machine.numa_nodes()?;
    let found = Finding::good("NUMA nodes", nodes.to_string());
    Some(match nodes {
        0 | 1 => found,
        _ => found.but(
            State::Note,
            "memory of another node is slower; a process for each node, on one port, keeps to its own",
            "numactl --cpunodebind=0 --membind=0 PROGRAM --share-port, and so on for each node",
        ),
    })
}

fn huge_pages(machine: &Machine) -> Option<Finding> {
    let text = machine.text("/sys/kernel/mm/transparent_hugepage/enabled")?;
    let word = text.split('[').nth(1)?.split(']').next()?.to_owned();
    let found = Finding::good("huge pages", &word);
    Some(match word.as_str() {
        "always" => found.but(
            State::Note,
            "memory that grows in small steps may be kept in pages of 2 MiB: more is resident than is used",
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        ),
        _ => found,
    })
}

fn clock(machine: &Machine) -> Option<Finding> {
    let at = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    let name = machine.text(at)?;
    let found = Finding::good("clock", &name);
    Some(match FAST_CLOCKS.contains(&name.as_str()) {
        true => found,
        false => found.but(
            State::Advice,
            "reading the time is a system call, or slow, and every turn reads it",
            format!("echo tsc > {at} (where /sys/devices/system/clocksource/clocksource0/available_clocksource has it)"),
        ),
    })
}

fn governor(machine: &Machine) -> Option<Finding> {
    let governors = machine.governors();
    let names: Vec<_> = governors.iter().map(|(name, driver)| format!("{name} ({driver})")).collect();
    let found = Finding::good("CPU governor", names.join(", "));
    // These two drivers change the clock under either governor, by what the CPU itself sees.
    let by_itself = |driver: &str| driver.starts_with("intel_pstate") || driver.starts_with("amd-pstate");
    let is_slow = |(name, driver): &(String, String)| name == "powersave" && !by_itself(driver);
    Some(match governors.as_slice() {
        [] => return None,
        all if all.iter().any(is_slow) => found.but(
            State::Advice,
            "the clock stays at its lowest whatever there is to do",
            "cpupower frequency-set -g performance",
        ),
        all if all.iter().any(|(name, _)| name != "performance") => found.but(
            State::Note,
            "the clock follows the load, late: first requests behind a pause are slower, and measurements differ",
            "cpupower frequency-set -g performance",
        ),
        _ => found,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(uring: Result<(), String>) -> Trials {
        Trials {
            chosen: Ok("epoll"),
            epoll: Ok(()),
            mio: Ok(()),
            uring: Some(uring),
            busy_poll: Ok(()),
            share_port: Ok(()),
        }
    }

    #[test]
    fn a_ring_that_works_is_not_denied_where_nothing_is_known_of_the_kernel() {
        let nothing = Machine::below("/nowhere");
        let found = uring(&nothing, Some(&tried(Ok(()))));
        assert!(found.state == State::Good && found.found.starts_with("works; not known"), "{found:?}");
    }

    #[test]
    fn what_a_trial_was_short_of_is_not_blamed_on_the_kernel() {
        let nothing = Machine::below("/nowhere");
        for (error, cure) in [
            (
                "worker 0 did not start: Too many open files (os error 24); this process may have 7: `ulimit -n`, ..",
                "ulimit -n",
            ),
            ("no thread for `netpoll-trial`: os error 11; `ulimit -u`, or TasksMax= ..", "ulimit -u"),
            ("worker 3 did not start: io_uring cannot be used: .. (ulimit -l, LimitMEMLOCK=)", "ulimit -l"),
            (
                "io_uring cannot be used: polling: Operation not permitted: a container profile (seccomp) ..",
                "seccomp=",
            ),
            ("io_uring cannot be used: polling: Invalid argument; Linux 6.1 or later does it", "6.1"),
        ] {
            let found = uring(&nothing, Some(&tried(Err(error.to_owned()))));
            assert!(found.state == State::Note && found.cure.contains(cure), "{found:?}");
            assert_eq!(found.cure.contains("6.1"), error.contains("6.1"), "{found:?}");
        }
    }
}
