//! Building the programs that a runner starts.

use super::Failure;
use std::path::PathBuf;
use std::process::Command;

/// Builds packages in release mode, each with these arguments of cargo: `["-p", "benches", "--bins"]`. Returns the directory that
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
            .status()?;
        if !status.success() {
            return Err("a program does not build".into());
        }
    }
    Ok(std::env::current_exe()?.parent().ok_or("no directory")?.to_path_buf())
}
