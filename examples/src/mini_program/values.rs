//! Values of options: text in, a value or the reason why it is none out.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use netpoll_core::{Address, Target};
use netpoll_http::ServerHeader;

/// Where CPU lists end: the most CPUs that Linux supports.
const CPU_MAX: usize = 8191;
/// Workers that are nobody's mistake, on however few CPUs.
const WORKERS_SENSIBLE: usize = 64;
/// A socket's path has 107 bytes, and while two processes listen the newer one's has a dot and its number behind it.
const SOCKET_PATH_MAX: usize = 96;
/// A request in a microsecond: more than a machine answers.
const RATE_MAX: u32 = 1_000_000;

/// Anything that reads itself from text.
pub fn parsed<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

pub fn at_least_one(text: &str) -> Result<usize, String> {
    match parsed(text)? {
        0 => Err("must be at least 1".to_owned()),
        count => Ok(count),
    }
}

/// Threads beyond a few for each CPU only wait for one another.
pub fn worker_count(text: &str) -> Result<usize, String> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let most = (8 * cpus).max(WORKERS_SENSIBLE);
    match at_least_one(text)? {
        count if count > most => Err(format!("at most {most} workers make sense on {cpus} CPUs")),
        count => Ok(count),
    }
}

/// Requests a second.
pub fn rate(text: &str) -> Result<u32, String> {
    match parsed(text)? {
        0 => Err("a limit of zero lets nobody in".to_owned()),
        rate if rate > RATE_MAX => Err(format!("a rate above {RATE_MAX} a second limits nobody")),
        rate => Ok(rate),
    }
}

/// What the server calls itself; `none` is that it does not. Whether it can be a header is seen when the server starts.
pub fn server_header(text: &str) -> Result<ServerHeader, String> {
    Ok(if text == "none" { None.into() } else { text.to_owned().into() })
}

/// The file of a socket.
pub fn socket_path(text: &str) -> Result<PathBuf, String> {
    match text.len() {
        1..=SOCKET_PATH_MAX => Ok(PathBuf::from(text)),
        _ => Err(format!("must be a path of 1 to {SOCKET_PATH_MAX} bytes")),
    }
}

pub fn some_path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("must be the path of a file".to_owned()) } else { Ok(PathBuf::from(text)) }
}

pub fn seconds(text: &str) -> Result<Duration, String> {
    Duration::try_from_secs_f64(parsed(text)?)
        .map_err(|_| "must be a number of seconds, zero or more".to_owned())
}

pub fn some_seconds(text: &str) -> Result<Duration, String> {
    match seconds(text)? {
        Duration::ZERO => Err("must be more than zero seconds".to_owned()),
        time => Ok(time),
    }
}

pub fn address(text: &str) -> Result<Address, String> {
    let mut found = Target::from(text).resolve().map_err(|error| error.to_string())?;
    Ok(found.swap_remove(0))
}

/// `0,2-3` is CPUs 0, 2 and 3.
pub fn cpu_list(text: &str) -> Result<Vec<usize>, String> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let range: (usize, usize) = (parsed(first)?, parsed(last)?);
        if range.1 > CPU_MAX {
            return Err(format!("there is no CPU above {CPU_MAX}"));
        }
        if range.0 > range.1 {
            return Err(format!("{part} runs backwards"));
        }
        for cpu in range.0..=range.1 {
            if cpus.contains(&cpu) {
                return Err(format!("CPU {cpu} is named twice"));
            }
            cpus.push(cpu);
        }
    }
    Ok(cpus)
}
