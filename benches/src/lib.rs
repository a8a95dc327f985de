//! What the bench programs share: the kernel calls that `std` does not offer, and the clock.
//!
//! Programs: `floor` and `floor-uring` (the least a server can do, by epoll and by io_uring), `hyper-peer` (feature `peers`), `load` (the client), the runners
//! `checks`, `suite`, `claims` and `stores`, `ends` (restarts and attacks, counted), and `conformance` (raw bytes against any
//! server). They talk to each other over 127.0.0.1 and as processes only, so any of them can be swapped for somebody
//! else's.
//!
//! Inside one process: `instructions` (feature of that name, `cargo bench-instructions`) counts, and the micro
//! benchmarks (`cargo bench -p benches`) time; both share what is in [`requests`] and [`routes`].

pub mod civil;
pub mod requests;
pub mod routes;
pub mod runner;
pub mod sampler;
pub mod scan;
pub mod sys;
pub mod watched;

use std::fmt::Display;
use std::str::FromStr;

/// The words on the command line. For `--help` it prints the header of the program's source, which is where its
/// options are described, and ends the process.
pub fn arguments(source: &str) -> Vec<String> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        print!("{}", header(source));
        std::process::exit(0);
    }
    args
}

/// The `//!` lines at the start of a source file, as text.
fn header(source: &str) -> String {
    let lines = source.lines().map_while(|line| line.strip_prefix("//!"));
    lines
        .map(|line| line.strip_prefix(' ').unwrap_or(line).replace("\\[", "[").replace("\\]", "]") + "\n")
        .collect()
}

/// The value after option `name`, parsed, or `default` where the option is absent.
///
/// # Errors
/// A sentence for the user: the value is missing or does not parse.
pub fn option<T: FromStr<Err: Display>>(args: &[String], name: &str, default: T) -> Result<T, String> {
    let Some(at) = args.iter().position(|arg| arg == name) else { return Ok(default) };
    let value = args.get(at + 1).ok_or_else(|| format!("{name} wants a value"))?;
    value.parse().map_err(|error| format!("{name} {value}: {error}"))
}

/// Refuses words that are none of `options` (which take a value) and none of `switches` (which do not).
///
/// # Errors
/// A sentence for the user that names the word.
pub fn known_options(args: &[String], options: &[&str], switches: &[&str]) -> Result<(), String> {
    let mut rest = args.iter();
    while let Some(word) = rest.next() {
        if options.contains(&word.as_str()) {
            rest.next();
        } else if !switches.contains(&word.as_str()) {
            return Err(format!(
                "unknown option {word}; known: {} {}",
                options.join(" "),
                switches.join(" ")
            ));
        }
    }
    Ok(())
}
