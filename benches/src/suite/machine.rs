//! Where and when a run was made.

use benches::civil::Date;
use benches::runner::Failure;
use std::fs;
use std::process::Command;

/// What a reader has to know about the machine.
pub fn description() -> Vec<(String, String)> {
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let cpu_info = read("/proc/cpuinfo");
    let cores = cpu_info.lines().filter(|line| line.starts_with("processor")).count();
    let memory = read("/proc/meminfo");
    let kib: u64 = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0);
    let virtual_machine =
        cpu_info.lines().any(|line| line.starts_with("flags") && line.contains(" hypervisor"));
    let tool = |program: &str, arg: &str| {
        let output = Command::new(program).arg(arg).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).lines().next()?.to_owned())
    };
    [
        ("date", Date::now().to_string()),
        ("commit", commit().unwrap_or_else(|| "unknown".into())),
        ("processor", format!("{cores} x {}", model(&cpu_info))),
        ("virtual machine", if virtual_machine { "yes" } else { "no" }.into()),
        ("memory", format!("{} GiB", kib.div_ceil(1 << 20))),
        ("kernel", read("/proc/sys/kernel/osrelease")),
        ("compiler", tool("rustc", "--version").unwrap_or_else(|| "unknown".into())),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// A short name of the machine for a directory: `amd-epyc-2`.
pub fn short_name() -> Result<String, Failure> {
    let cpu_info = fs::read_to_string("/proc/cpuinfo")?;
    let cores = cpu_info.lines().filter(|line| line.starts_with("processor")).count();
    let words = model(&cpu_info).to_ascii_lowercase();
    let words: Vec<&str> = words
        .split(|byte: char| !byte.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty() && !["r", "tm", "cpu", "processor", "core"].contains(word))
        .take(2)
        .collect();
    Ok(format!("{}-{cores}", if words.is_empty() { "machine".into() } else { words.join("-") }))
}

fn model(cpu_info: &str) -> &str {
    let line = cpu_info.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| Some(line.split_once(':')?.1.trim())).unwrap_or("processor")
}

fn commit() -> Option<String> {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short", "HEAD"])?;
    let changed =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|text| !text.is_empty());
    Some(if changed { format!("{commit}, with local changes") } else { commit })
}
