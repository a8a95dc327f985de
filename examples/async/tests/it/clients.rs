//! Clients of other people, where they are installed.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Whether a program is there; says so if not.
pub fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_err() {
        println!("skipped: there is no {program}");
    }
    found.is_ok()
}

/// Whether Python has a module; says so if not.
pub fn has_module(module: &str) -> bool {
    let import = format!("import {module}");
    let found = Command::new("python3").args(["-c", &import]).stderr(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        println!("skipped: there is no module {module} of python3");
    }
    found
}

/// What a program says; it has to end well.
pub fn output(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// What curl says: the body, then the version of HTTP and the status.
pub fn curl(arguments: &[&str]) -> String {
    let mut curl = Command::new("curl");
    output(
        curl.args([
            "--silent",
            "--show-error",
            "--max-time",
            "60",
            "--write-out",
            "%{http_version} %{http_code}",
        ])
        .args(arguments),
    )
}

/// Has Python run this, with these arguments behind it.
pub fn python(script: &str, arguments: &[&str]) -> String {
    output(Command::new("python3").args(["-c", script]).args(arguments))
}

/// A directory for one test, which is removed when it ends.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("netpoll-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A test that has failed may have left something open.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
