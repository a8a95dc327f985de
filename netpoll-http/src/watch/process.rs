//! What the kernel knows of this process, as far as `/proc` shows it.
//!
//! What cannot be read is left out. Seven files, none of them on a disk; some hundred microseconds.

use std::fs;

/// Units of the times in `/proc/self/stat`, a second: the same on every machine that Linux runs on (`USER_HZ`, proc(5)).
const TICKS_PER_SECOND: f64 = 100.0;

/// One figure: its name, what it is, whether it only grows, and its value.
pub struct Figure {
    pub name: &'static str,
    pub help: &'static str,
    pub is_counter: bool,
    pub value: f64,
}

/// All that can be read.
pub fn figures() -> Vec<Figure> {
    let gauge = |name, help, value| Figure { name, help, is_counter: false, value };
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program may have anything in it; numbers follow its last parenthesis. The third field is the first here.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map_or(Vec::new(), |(_, rest)| rest.split_ascii_whitespace().collect());
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    let cpu = field(14).zip(field(15)).map(|(user, system)| (user + system) / TICKS_PER_SECOND);
    let boot = value_of("/proc/stat", "btime");
    let start = boot.zip(field(22)).map(|(boot, ticks)| boot + ticks / TICKS_PER_SECOND);
    let resident = value_of("/proc/self/status", "VmRSS:").map(|kib| kib * 1024.0);
    let fds = fs::read_dir("/proc/self/fd").ok().map(|fds| fds.count().saturating_sub(1) as f64);
    let fds_max = value_of("/proc/self/limits", "Max open files");
    let all = [
        cpu.map(|value| Figure {
            name: "process_cpu_seconds",
            help: "CPU time of user and system, in seconds.",
            is_counter: true,
            value,
        }),
        resident.map(|value| gauge("process_resident_memory_bytes", "Memory that is resident.", value)),
        field(23).map(|value| gauge("process_virtual_memory_bytes", "Memory that is mapped.", value)),
        fds.map(|value| gauge("process_open_fds", "Descriptors that are open.", value)),
        fds_max.map(|value| gauge("process_max_fds", "Descriptors that may be open.", value)),
        field(20).map(|value| gauge("process_threads", "Threads.", value)),
        start.map(|value| {
            gauge("process_start_time_seconds", "When it was started, in seconds since 1970.", value)
        }),
    ];
    all.into_iter().flatten().collect()
}

/// A number in the line of a file that begins with this.
fn value_of(path: &str, name: &str) -> Option<f64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}
