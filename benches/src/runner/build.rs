//! Building the programs that a runner starts.

use super::Failure;
use super::backend::feature;
use std::path::PathBuf;
use std::process::Command;

/// Builds programs of `benches/peers`, name and profile, each with its feature alone; one on netpoll with the driver that was asked
/// for, and with these features. Returns the directory that has one for each profile.
///
/// # Errors
/// One does not build; the compiler has said why.
pub fn build_peers(programs: &[(&str, &str)], ours: &[&str]) -> Result<PathBuf, Failure> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/peers"));
    for (program, profile) in programs {
        let status = Command::new(&cargo)
            .args(["build", "--quiet", "--profile", profile, "--features", program, "--bin", program])
            .args(
                ours.iter()
                    .chain(&feature())
                    .filter(|_| program.contains("netpoll"))
                    .flat_map(|it| ["--features", it]),
            )
            .current_dir(&folder)
            .status()?;
        if !status.success() {
            return Err(format!("{program} does not build").into());
        }
    }
    Ok(folder.join("target"))
}

/// Builds packages in release mode, each with these arguments of cargo: `["-p", "benches", "--bins"]`, and with the driver that was asked
/// for. Returns the directory that
/// the programs are in, which is that of the running one.
///
/// # Errors
/// One does not build; the compiler has said why.
pub fn build(packages: &[&[&str]]) -> Result<PathBuf, Failure> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    for package in packages {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let status = Command::new(&cargo)
            .args(["build", "--quiet", "--release", "--manifest-path", manifest])
            .args(*package)
            .args(feature().iter().flat_map(|it| ["--features", it]))
            .status()?;
        if !status.success() {
            return Err("a program does not build".into());
        }
    }
    Ok(std::env::current_exe()?.parent().ok_or("no directory")?.to_path_buf())
}
