//! What the doctor says of this machine, and of machines that a test has invented.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use netpoll_core::Backend;
use serde_json::Value;

use crate::support::run;

/// A machine of which nothing hurts, as files below a directory that goes with it.
struct Invented(PathBuf);

const LIMITS: &str = "\
Limit                     Soft Limit           Hard Limit           Units
Max open files            1048576              1048576              files
Max locked memory         unlimited            unlimited            bytes
";
const GOOD: [(&str, &str); 27] = [
    ("proc/sys/kernel/osrelease", "6.18.3-generic\n"),
    ("proc/sys/kernel/io_uring_disabled", "0\n"),
    ("proc/self/limits", LIMITS),
    ("proc/self/status", "Name:\tdoctor\nCpus_allowed_list:\t0-3\nSeccomp:\t0\n"),
    ("proc/self/cgroup", "0::/app.slice/app.service\n"),
    ("proc/meminfo", "MemTotal:       8388608 kB\n"),
    ("proc/sys/net/core/somaxconn", "4096\n"),
    ("proc/sys/net/core/rmem_max", "212992\n"),
    ("proc/sys/net/core/wmem_max", "212992\n"),
    ("proc/sys/net/ipv4/tcp_max_syn_backlog", "2048\n"),
    ("proc/sys/net/ipv4/tcp_syncookies", "1\n"),
    ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
    ("proc/sys/net/ipv4/tcp_tw_reuse", "1\n"),
    ("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n"),
    ("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304\n"),
    ("proc/sys/net/netfilter/nf_conntrack_max", "262144\n"),
    ("proc/sys/net/netfilter/nf_conntrack_count", "17\n"),
    ("proc/sys/fs/nr_open", "1048576\n"),
    ("proc/sys/fs/file-nr", "700\t0\t800000\n"),
    ("proc/sys/vm/overcommit_memory", "0\n"),
    ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
    ("sys/devices/system/node/online", "0\n"),
    ("sys/devices/system/cpu/online", "0-3\n"),
    ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n"),
    ("sys/devices/system/cpu/cpu0/cpufreq/scaling_driver", "acpi-cpufreq\n"),
    ("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n"),
    ("sys/fs/cgroup/app.slice/memory.max", "max\n"),
];

impl Invented {
    fn new(name: &str) -> Self {
        let root =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("doctor-{}-{name}", std::process::id()));
        let machine = Self(root);
        GOOD.iter().for_each(|(path, text)| machine.set(path, text));
        machine
    }

    fn set(&self, path: &str, text: &str) {
        let file = self.0.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    /// As it was, but for a file.
    fn restore(&self, path: &str) {
        match GOOD.iter().find(|(known, _)| *known == path) {
            Some((path, text)) => self.set(path, text),
            None => fs::remove_file(self.0.join(path)).unwrap(),
        }
    }

    fn examined(&self) -> (Option<i32>, Value) {
        examined(Command::new(env!("CARGO_BIN_EXE_doctor")).arg("--json").arg("--root").arg(&self.0))
    }
}

impl Drop for Invented {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn examined(command: &mut Command) -> (Option<i32>, Value) {
    let (status, said, errors) = run(command.env_remove("NETPOLL_BACKEND"));
    let report: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}{errors}"));
    assert_eq!(report["status"].as_i64(), status.map(i64::from));
    (status, report)
}

/// What is said of one thing.
fn of<'a>(report: &'a Value, name: &str) -> &'a Value {
    let mut all = report["findings"].as_array().unwrap().iter();
    all.find(|finding| finding["name"] == name).unwrap_or_else(|| panic!("no {name} in {report:#}"))
}

#[test]
fn of_a_machine_that_nothing_hurts_it_says_so() {
    let machine = Invented::new("good");
    let (status, report) = machine.examined();
    assert_eq!(status, Some(0), "{report:#}");
    let states: Vec<_> = report["findings"].as_array().unwrap().iter().map(|it| &it["state"]).collect();
    assert!(states.len() > 20 && states.iter().all(|state| *state == "good"), "{report:#}");

    let (status, said, _) = run(Command::new(env!("CARGO_BIN_EXE_doctor")).arg("--root").arg(&machine.0));
    assert!(status == Some(0) && said.ends_with("nothing hurts\n"), "{said}");
}

#[test]
fn what_is_too_low_is_named_with_the_reason_and_with_what_to_type() {
    let machine = Invented::new("low");
    for (path, text, name, cure) in [
        ("proc/sys/kernel/osrelease", "5.4.0-90", "kernel", "a newer kernel"),
        ("proc/sys/net/core/somaxconn", "128", "net.core.somaxconn", "sysctl -w net.core.somaxconn='4096'"),
        ("proc/sys/net/core/rmem_max", "1000", "net.core.rmem_max", "sysctl -w net.core.rmem_max='212992'"),
        ("proc/sys/net/core/wmem_max", "1000", "net.core.wmem_max", "sysctl -w net.core.wmem_max='212992'"),
        ("proc/sys/net/ipv4/tcp_max_syn_backlog", "128", "net.ipv4.tcp_max_syn_backlog", "backlog='1024'"),
        ("proc/sys/net/ipv4/tcp_syncookies", "0", "net.ipv4.tcp_syncookies", "net.ipv4.tcp_syncookies=1"),
        (
            "proc/sys/net/ipv4/ip_local_port_range",
            "50000 60999",
            "net.ipv4.ip_local_port_range",
            "'10240 60999'",
        ),
        ("proc/sys/net/ipv4/tcp_tw_reuse", "0", "net.ipv4.tcp_tw_reuse", "net.ipv4.tcp_tw_reuse=1"),
        ("proc/sys/net/ipv4/tcp_rmem", "4096 9999999 65536", "net.ipv4.tcp_rmem", "'4096 4194304 4194304'"),
        ("proc/sys/net/ipv4/tcp_wmem", "4096 16384 65536", "net.ipv4.tcp_wmem", "'4096 16384 4194304'"),
        ("proc/sys/net/netfilter/nf_conntrack_max", "65536", "net.netfilter.nf_conntrack_max", "='262144'"),
        ("proc/sys/net/netfilter/nf_conntrack_count", "250000", "tracked connections", "_max=1048576"),
        ("proc/sys/fs/nr_open", "65536", "fs.nr_open", "sysctl -w fs.nr_open='1048576'"),
        ("proc/sys/fs/file-nr", "790000 0 800000", "fs.file-max", "sysctl -w fs.file-max=3200000"),
        ("proc/sys/vm/overcommit_memory", "2", "vm.overcommit_memory", "sysctl -w vm.overcommit_memory=0"),
        ("sys/fs/cgroup/app.slice/memory.max", "134217728", "memory", "--memory 256m"),
        ("sys/fs/cgroup/app.slice/cpu.max", "150000 100000", "CPU quota", "--cpus 2"),
        ("sys/devices/system/cpu/cpu3/cpufreq/scaling_governor", "powersave", "CPU governor", "cpupower"),
        ("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet", "clock", "echo tsc"),
    ] {
        machine.set(path, text);
        let (status, report) = machine.examined();
        let finding = of(&report, name);
        assert_eq!((status, &finding["state"]), (Some(1), &"advice".into()), "{path}: {report:#}");
        let text = |key: &str| finding[key].as_str().unwrap().to_owned();
        assert!(text("do").contains(cure) && !text("why").is_empty(), "{path}: {finding:#}");
        machine.restore(path);
    }
    assert_eq!(machine.examined().0, Some(0), "each is as it was");
}

#[test]
fn what_does_not_hurt_everybody_is_a_note() {
    let machine = Invented::new("notes");
    for (path, text, name) in [
        ("proc/sys/kernel/io_uring_disabled", "2", "io_uring"),
        ("proc/sys/kernel/osrelease", "6.0.1", "io_uring"),
        ("proc/sys/kernel/osrelease", "6.8.0", "busy polling"),
        ("proc/sys/net/ipv4/tcp_tw_reuse", "2", "net.ipv4.tcp_tw_reuse"),
        ("proc/self/status", "Cpus_allowed_list:\t0,2\n", "CPU set"),
        ("sys/fs/cgroup/app.slice/app.service/cpu.max", "200000 100000", "CPU quota"),
        ("sys/devices/system/node/online", "0-1", "NUMA nodes"),
        ("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never", "huge pages"),
        ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "schedutil", "CPU governor"),
    ] {
        machine.set(path, text);
        let (status, report) = machine.examined();
        assert_eq!((status, &of(&report, name)["state"]), (Some(0), &"note".into()), "{path}: {report:#}");
        machine.restore(path);
    }
}

#[test]
fn groups_of_the_first_version_limit_as_well() {
    let machine = Invented::new("first");
    machine.set("proc/self/cgroup", "4:memory:/app\n3:cpu,cpuacct:/app\n0::/\n");
    machine.set("sys/fs/cgroup/memory/app/memory.limit_in_bytes", "134217728\n");
    machine.set("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    machine.set("sys/fs/cgroup/cpu/app/cpu.cfs_quota_us", "50000\n");
    machine.set("sys/fs/cgroup/cpu/app/cpu.cfs_period_us", "100000\n");
    machine.set("sys/fs/cgroup/cpu/app/cpu.stat", "nr_periods 9\nnr_throttled 7\n");
    let (status, report) = machine.examined();
    assert_eq!(status, Some(1), "{report:#}");
    assert_eq!(of(&report, "memory")["found"], "128 MiB of 8192, by the control group");
    assert_eq!(of(&report, "CPU quota")["found"], "0.5 CPUs; taken away 7 times");
}

#[test]
fn what_keeps_a_server_from_serving_is_broken() {
    let machine = Invented::new("broken");
    let low = LIMITS.replace("1048576              1048576 ", "32                   1048576 ");
    for (path, text, name) in [
        ("proc/self/limits", low.as_str(), "open files"),
        ("proc/sys/net/netfilter/nf_conntrack_count", "262144", "tracked connections"),
        ("proc/sys/kernel/osrelease", "3.10.0-1160", "kernel"),
        ("proc/sys/kernel/osrelease", "", "kernel"),
    ] {
        machine.set(path, text);
        let (status, report) = machine.examined();
        assert_eq!((status, &of(&report, name)["state"]), (Some(2), &"broken".into()), "{path}: {report:#}");
        machine.restore(path);
    }
}

#[test]
fn a_low_limit_of_this_process_is_reported() {
    for (files, state) in [(300, "advice"), (50, "broken")] {
        let script = format!("ulimit -n {files}; exec \"$0\" --json");
        let (status, report) =
            examined(Command::new("sh").args(["-c", &script, env!("CARGO_BIN_EXE_doctor")]));
        let finding = of(&report, "open files");
        assert_eq!(finding["state"], state, "{finding:#}");
        assert_eq!(finding["found"], format!("{files}, may be raised to {files}"));
        let cure = finding["do"].as_str().unwrap();
        assert!(
            cure.starts_with("sudo prlimit --pid $$ --nofile=1048576:1048576 "),
            "ulimit would refuse: {cure}"
        );
        assert!(status >= Some(if state == "broken" { 2 } else { 1 }), "{report:#}");
    }
}

#[test]
fn drivers_are_tried_on_this_machine() {
    let doctor = || Command::new(env!("CARGO_BIN_EXE_doctor"));
    let (_, report) = examined(doctor().args(["--json", "--backend", "epoll"]));
    for name in ["epoll", "driver", "SO_REUSEPORT"] {
        assert_eq!(of(&report, name)["state"], "good", "{report:#}");
    }
    let tried = of(&report, "io_uring");
    if "uring".parse::<Backend>().is_err() {
        let (status, _, said) = run(doctor().args(["--backend", "uring"]));
        assert!(status == Some(2) && said.contains("needs a build with that feature"), "{said}");
        return;
    }
    // Whether it is allowed here or not, the finding says that it was tried, and who wants it hears the same.
    let works = tried["found"].as_str().unwrap().starts_with("works");
    assert!(works || tried["do"] != "", "{tried:#}");
    let (status, report) = examined(doctor().args(["--json", "--backend", "uring"]));
    assert_eq!(of(&report, "driver")["state"], if works { "good" } else { "broken" }, "{report:#}");
    assert!(works || status == Some(2));
}
