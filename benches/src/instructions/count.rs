//! One count: this program, run by callgrind, with few and with many rounds of one case.
//!
//! Invariant: the two runs differ in the digits of one number and nothing else, so that what surrounds the rounds
//! costs the same in both. The environment is empty but for the C library's setting, because its size moves the stack.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::cases::Case;

/// Asks the program to run a case: name and rounds follow.
pub const RUN: &str = "--run";
/// Asks it what the CPU offers.
pub const CPU: &str = "--cpu";

/// As many digits each.
const ROUNDS: [u64; 2] = [1000, 3000];

/// What glibc may not use, in its names for it before and since 2.33. Unknown ones are ignored, and so is all of it
/// by other libraries.
const TUNABLES: &str = "glibc.cpu.hwcaps=-AVX512VL,-AVX512F,-AVX2,-AVX2_Usable,-AVX_Fast_Unaligned_Load,\
    -Prefer_No_VZEROUPPER,-ERMS,-FSRM,-RTM,-SSE4_2,-SSE4_1,-SSSE3,-BMI2,-MOVBE";

/// Instructions of one operation of a case, rounded.
///
/// # Errors
/// A sentence: valgrind is missing, or it failed.
pub fn instructions(case: &Case) -> Result<u64, String> {
    let [few, many] = ROUNDS.map(|rounds| collected(case.name, rounds));
    let (few, many) = (few?, many?);
    let operations = (ROUNDS[1] - ROUNDS[0]) * case.operations;
    let difference = many.checked_sub(few).ok_or("more rounds took fewer instructions")?;
    Ok((difference + operations / 2) / operations)
}

/// The instructions of a whole run.
fn collected(name: &str, rounds: u64) -> Result<u64, String> {
    let output = valgrind("callgrind", &[RUN, name, &rounds.to_string()])?;
    // The summary on standard error: `==123== Collected : 456`.
    let summary = String::from_utf8_lossy(&output.stderr);
    let count = summary.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    count.ok_or_else(|| format!("no count in what callgrind says: {summary}"))
}

/// What the program sees of the CPU under valgrind, which hides what it cannot emulate.
///
/// # Errors
/// As [`instructions`].
pub fn cpu_under_valgrind() -> Result<String, String> {
    let output = valgrind("none", &[CPU])?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The architecture, and the extension that `memchr` looks for.
pub fn cpu() -> String {
    #[cfg(target_arch = "x86_64")]
    let has_avx2 = std::arch::is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    let has_avx2 = false;
    format!("{}{}", env::consts::ARCH, if has_avx2 { " with avx2" } else { "" })
}

/// Runs this program under a tool of valgrind, by its bare name, so that the path to it moves nothing.
fn valgrind(tool: &str, args: &[&str]) -> Result<Output, String> {
    let (folder, program) = own_program()?;
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places = env::split_paths(&path).map(|folder| folder.join("valgrind"));
    let found = places.find(|place| place.is_file());
    let found = found.ok_or("valgrind is not installed (Debian and Ubuntu: apt-get install valgrind)")?;
    let mut command = Command::new(found);
    command.arg(format!("--tool={tool}"));
    if tool == "callgrind" {
        command.arg("--callgrind-out-file=/dev/null");
    }
    command.arg(program).args(args).current_dir(folder).env_clear().env("GLIBC_TUNABLES", TUNABLES);
    let output = command.output().map_err(|error| format!("valgrind: {error}"))?;
    match output.status.success() {
        true => Ok(output),
        false => {
            Err(format!("{} under valgrind: {}", args.join(" "), String::from_utf8_lossy(&output.stderr)))
        }
    }
}

fn own_program() -> Result<(PathBuf, OsString), String> {
    let own = env::current_exe().map_err(|error| format!("where is this program? {error}"))?;
    let (Some(folder), Some(name)) = (own.parent(), own.file_name()) else {
        return Err(format!("{} has no folder", own.display()));
    };
    let mut program = OsString::from("./");
    program.push(name);
    Ok((folder.to_owned(), program))
}
