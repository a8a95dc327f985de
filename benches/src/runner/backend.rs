//! What servers on netpoll run on: `--backend auto|epoll|uring|mio`, the same option in every runner.
//!
//! It is said once, when the command line is read, and handed to whatever is started in the environment, where a runtime looks for
//! it; programs of others do not know the variable. Clients are started without it, whatever the runner's own environment says: who
//! is measured changes, and who measures does not. A server that lacks the driver does not start, and says why.

use super::Failure;
use std::process::Command;
use std::sync::OnceLock;

const OPTION: &str = "--backend";
const VARIABLE: &str = "NETPOLL_BACKEND";
/// This runner may be built without one of them that its servers have.
const NAMES: [&str; 4] = ["auto", "epoll", "uring", "mio"];

static ASKED: OnceLock<String> = OnceLock::new();

/// The words on the command line, as [`benches::arguments`](crate::arguments) has them, without the option, which holds for every server
/// from now on.
///
/// # Errors
/// No name, or none of a driver.
pub fn arguments(source: &str) -> Result<Vec<String>, Failure> {
    let mut args = crate::arguments(source);
    if let Some(name) = taken(&mut args)? {
        // The command line is read once.
        let _ = ASKED.set(name);
    }
    Ok(args)
}

/// The name that was asked for; `None` leaves it to the servers, and to this process's environment.
pub fn backend() -> Option<&'static str> {
    ASKED.get().map(String::as_str)
}

/// What a program has to be built with to have it.
pub fn feature() -> Option<&'static str> {
    match backend()? {
        "uring" => Some("netpoll-core/uring"),
        "mio" => Some("netpoll-core/mio"),
        _ => None,
    }
}

/// For a command that starts a server, or something that starts one.
pub fn with_backend(command: &mut Command) -> &mut Command {
    match backend() {
        Some(name) => command.env(VARIABLE, name),
        None => command,
    }
}

/// For a command that starts a client.
pub(super) fn without_backend(command: &mut Command) -> &mut Command {
    command.env_remove(VARIABLE)
}

fn taken(args: &mut Vec<String>) -> Result<Option<String>, Failure> {
    let Some(at) = args.iter().position(|arg| arg == OPTION) else { return Ok(None) };
    let name = args.get(at + 1).ok_or_else(|| format!("{OPTION} wants a name"))?.clone();
    if !NAMES.contains(&name.as_str()) {
        return Err(format!("{OPTION} {name}: none of {}", NAMES.join(", ")).into());
    }
    args.drain(at..=at + 1);
    Ok(Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_is_taken_from_among_the_others() {
        let mut args = ["--quick", "--backend", "uring", "--rounds", "3"].map(String::from).to_vec();
        assert_eq!(taken(&mut args).unwrap().as_deref(), Some("uring"));
        assert_eq!(args, ["--quick", "--rounds", "3"]);
        assert!(taken(&mut args).unwrap().is_none());
        for wrong in [&["--backend"][..], &["--backend", "kqueue"]] {
            assert!(taken(&mut wrong.iter().map(|&word| word.to_owned()).collect()).is_err(), "{wrong:?}");
        }
    }
}
