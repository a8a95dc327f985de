//! Instructions of a server in user space, counted from outside: callgrind does not see the kernel.

use super::Failure;
use super::backend::with_backend;
use super::process::{end, free_port};
use crate::sys;
use std::process::{Command, Stdio};

/// The instructions of a whole run: a server is started under callgrind by a command with `{port}`, `ask` has it work, and then it ends.
///
/// # Errors
/// Valgrind is not installed, the server failed, or what `ask` says.
pub fn collected(command: &str, ask: impl FnOnce(u16) -> Result<(), Failure>) -> Result<f64, Failure> {
    let port = free_port()?;
    let command = command.replace("{port}", &port.to_string());
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).args(command.split_whitespace());
    valgrind.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut server = sys::dies_with_us(with_backend(&mut valgrind))
        .spawn()
        .map_err(|error| format!("valgrind: {error}"))?;
    let asked = ask(port);
    sys::interrupt(&server)?;
    if let Err(error) = asked {
        end(&mut server);
        return Err(error);
    }
    let output = server.wait_with_output()?;
    // The summary on standard error: `==123== Collected : 456`.
    let text = String::from_utf8_lossy(&output.stderr);
    let count = text.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    count.ok_or_else(|| format!("no count in what callgrind says: {text}").into())
}
