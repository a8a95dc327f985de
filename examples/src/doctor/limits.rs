//! What may be too low: of this process, of its control group, and of the kernel.

use crate::finding::{Finding, State};
use crate::machine::Machine;

/// Without so many the examples do not start: workers, listeners, a few dozen connections.
const FILES_MIN: u64 = 64;
/// A server of some size.
const FILES_WANTED: u64 = 65_536;
/// All that the kernel allows a process by default.
const FILES_MAX: u64 = 1 << 20;
/// Ports to dial from, as Linux has them by default.
const PORTS: u64 = 28_232;
/// What connections of a worker may hold, below which uploads and slow readers are soon refused.
const HELD_BYTES_MIN: u64 = 16 << 20;

/// A sysctl that is a number, or several, one of which should not be below what is told.
struct Least {
    name: &'static str,
    /// Which of several.
    nth: usize,
    least: u64,
    why: &'static str,
}

const LEAST: [Least; 8] = [
    Least {
        name: "net.core.somaxconn",
        nth: 0,
        least: 4096,
        why: "it caps `Builder::backlog` (4096): connections of a burst are dropped while no worker has accepted them",
    },
    Least {
        name: "net.ipv4.tcp_max_syn_backlog",
        nth: 0,
        least: 1024,
        why: "handshakes of a burst that are under way beyond it are answered with cookies, or not at all",
    },
    Least {
        name: "fs.nr_open",
        nth: 0,
        least: FILES_MAX,
        why: "no process may have a higher limit on open files, whatever its `ulimit -n` is to be",
    },
    Least {
        name: "net.ipv4.tcp_rmem",
        nth: 2,
        least: 4 << 20,
        why: "a connection receives no more than this between two round trips: long links stay slow",
    },
    Least {
        name: "net.ipv4.tcp_wmem",
        nth: 2,
        least: 4 << 20,
        why: "a connection sends no more than this between two round trips: long links stay slow",
    },
    Least {
        name: "net.core.rmem_max",
        nth: 0,
        least: 212_992,
        why: "`receive_buffer_bytes` is cut to it: bursts of datagrams are dropped",
    },
    Least { name: "net.core.wmem_max", nth: 0, least: 212_992, why: "`send_buffer_bytes` is cut to it" },
    Least {
        name: "net.netfilter.nf_conntrack_max",
        nth: 0,
        least: 262_144,
        why: "the firewall keeps so many connections in its table, ended ones for minutes; a new one beyond it is dropped",
    },
];

pub fn look(machine: &Machine) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(open_files(machine));
    found.extend(LEAST.iter().filter_map(|least| at_least(machine, least)));
    found.extend(files_of_the_system(machine));
    found.extend(tracked(machine));
    found.extend(ports(machine));
    found.extend(reuse(machine));
    found.extend(cookies(machine));
    found.extend(overcommit(machine));
    found.extend(memory(machine));
    found
}

fn path_of(sysctl: &str) -> String {
    format!("/proc/sys/{}", sysctl.replace('.', "/"))
}

fn open_files(machine: &Machine) -> Option<Finding> {
    let (soft, hard) = machine.limit("Max open files")?;
    let found = Finding::good("open files", format!("{soft}, may be raised to {hard}"));
    let command = |files: u64| match files <= hard {
        true => format!("ulimit -n {files} (a service of systemd: LimitNOFILE={files})"),
        // `ulimit` goes no further than the hard limit, but for root.
        false => format!(
            "sudo prlimit --pid $$ --nofile={files}:{files} in a shell, `nofile` in /etc/security/limits.conf for all that log in \
             (a service of systemd: LimitNOFILE={files})"
        ),
    };
    Some(if soft < FILES_MIN {
        let why = format!("the mini-program wants {FILES_MIN} to start with");
        found.but(State::Broken, why, command(FILES_MAX))
    } else if hard < FILES_WANTED {
        let why =
            "each connection takes one: beyond it newcomers are turned away, and idle ones closed for them";
        found.but(State::Advice, why, command(FILES_MAX))
    } else if soft < FILES_WANTED {
        let why = "each connection takes one, and a server that does not raise its limit stays below this";
        found.but(
            State::Advice,
            why,
            format!("{}, or netpoll_core::raise_open_files", command(hard.min(FILES_MAX))),
        )
    } else {
        found
    })
}

fn at_least(machine: &Machine, least: &Least) -> Option<Finding> {
    let numbers = machine.numbers(&path_of(least.name))?;
    let text = |numbers: &[u64]| numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
    let found = Finding::good(least.name, text(&numbers));
    if *numbers.get(least.nth)? >= least.least {
        return Some(found);
    }
    let mut wanted = numbers;
    wanted[least.nth] = least.least;
    // Of three the kernel wants the middle one between the others.
    for lower in (0..least.nth).rev() {
        wanted[lower] = wanted[lower].min(wanted[lower + 1]);
    }
    Some(found.but(State::Advice, least.why, format!("sysctl -w {}='{}'", least.name, text(&wanted))))
}

fn files_of_the_system(machine: &Machine) -> Option<Finding> {
    let [open, _, most] = machine.numbers("/proc/sys/fs/file-nr")?[..] else { return None };
    let found = Finding::good("fs.file-max", format!("{open} of {most} are open on the whole machine"));
    Some(match open.saturating_mul(10) >= most.saturating_mul(9) {
        true => found.but(
            State::Advice,
            "it is nearly reached, and then nobody on the machine opens a file or accepts a connection",
            format!("sysctl -w fs.file-max={}", most.saturating_mul(4)),
        ),
        false => found,
    })
}

/// How full the table is that [`LEAST`] looks at the size of.
fn tracked(machine: &Machine) -> Option<Finding> {
    let most = machine.number(&path_of("net.netfilter.nf_conntrack_max"))?;
    let now = machine.number(&path_of("net.netfilter.nf_conntrack_count"))?;
    let found = Finding::good("tracked connections", format!("{now} of {most}"));
    let cure = format!("sysctl -w net.netfilter.nf_conntrack_max={}", most.saturating_mul(4));
    Some(if now >= most {
        found.but(State::Broken, "the table of the firewall is full: new connections are dropped", cure)
    } else if now.saturating_mul(10) >= most.saturating_mul(8) {
        found.but(
            State::Advice,
            "the table of the firewall is nearly full, and then new connections are dropped",
            cure,
        )
    } else {
        found
    })
}

fn ports(machine: &Machine) -> Option<Finding> {
    let name = "net.ipv4.ip_local_port_range";
    let [first, last] = machine.numbers(&path_of(name))?[..] else { return None };
    let found = Finding::good(name, format!("{first} {last}"));
    Some(match (last + 1).saturating_sub(first) < PORTS {
        true => found.but(
            State::Advice,
            "a proxy or a load client dials no more connections than this to one address at a time, those that have just ended included",
            format!("sysctl -w {name}='10240 60999'"),
        ),
        false => found,
    })
}

fn reuse(machine: &Machine) -> Option<Finding> {
    let name = "net.ipv4.tcp_tw_reuse";
    let value = machine.number(&path_of(name))?;
    let found = Finding::good(name, value.to_string());
    Some(match value {
        0 => found.but(
            State::Advice,
            "the port of an outgoing connection stays taken for a minute behind its end: 28 000 a minute to one address",
            format!("sysctl -w {name}=1"),
        ),
        2 => found.but(
            State::Note,
            "on loopback only; a proxy that dials a backend for each request has 28 000 a minute to one address",
            format!("sysctl -w {name}=1"),
        ),
        _ => found,
    })
}

fn cookies(machine: &Machine) -> Option<Finding> {
    let name = "net.ipv4.tcp_syncookies";
    let value = machine.number(&path_of(name))?;
    let found = Finding::good(name, value.to_string());
    Some(match value {
        0 => found.but(
            State::Advice,
            "while handshakes that are never finished fill the queue, nobody else gets in",
            format!("sysctl -w {name}=1"),
        ),
        _ => found,
    })
}

fn overcommit(machine: &Machine) -> Option<Finding> {
    let name = "vm.overcommit_memory";
    let value = machine.number(&path_of(name))?;
    let found = Finding::good(name, value.to_string());
    Some(match value {
        2 => found.but(
            State::Advice,
            "memory that is set aside counts as used, so stacks of threads and buffers are refused while most of it is free",
            format!("sysctl -w {name}=0"),
        ),
        _ => found,
    })
}

/// What the process may use decides what its connections may hold.
fn memory(machine: &Machine) -> Option<Finding> {
    let all = machine.memory_bytes()?;
    let group = machine.memory_of_group();
    let mib = |bytes: u64| bytes >> 20;
    let found = Finding::good(
        "memory",
        match group {
            Some(group) => format!("{} MiB of {}, by the control group", mib(group), mib(all)),
            None => format!("{} MiB", mib(all)),
        },
    );
    let quota = machine.cpu_quota().map_or(usize::MAX, |quota| quota.ceil() as usize);
    let workers = machine.allowed_cpus().unwrap_or(1).min(quota).max(1) as u64;
    let held = group.unwrap_or(all) / 4 / workers;
    Some(match held < HELD_BYTES_MIN {
        true => found.but(
            State::Advice,
            format!("connections of each of {workers} workers may hold {} MiB, a quarter in all: uploads and slow readers are refused early", mib(held)),
            format!("--memory {}m of docker (a service of systemd: MemoryMax=), or fewer workers", mib(HELD_BYTES_MIN * 4 * workers)),
        ),
        false => found,
    })
}
