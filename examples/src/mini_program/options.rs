//! The command line: text in, settings or one clear sentence out.
//!
//! Nothing is opened or started here; whatever is wrong with an option is found before anything else
//! happens.

use std::ffi::OsString;
use std::fmt::{self, Display};
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::time::Duration;

use lexopt::prelude::*;
use netpoll_core::{Address, Budget, Builder, ConnLimits, Target, WaitStrategy, Workers};
use netpoll_http::Limits;

/// What `--help` prints.
pub const HELP: &str = "\
The backend of a mini-program on netpoll: login, orders, and a ledger.

Usage: mini-program [OPTIONS]

Where and how it runs:
  --addr HOST:PORT|unix:PATH
                           where to listen; port 0 lets the kernel choose [127.0.0.1:8080]
  --workers N              worker threads [one for each CPU that may be used]
  --cpus LIST              one worker pinned to each of these CPUs, such as 0,2-3
  --budget N|adaptive|unlimited
                           events that one turn takes from the kernel [64]
  --wait block|spin|hybrid|busy-poll
                           how a worker waits for events [block]
  --drain SECONDS          time for connections to end after Ctrl-C, SIGTERM or SIGHUP [10]
  --share-port             listen on a port that other processes of this user may listen on: for a restart without a
                           gap, start the next one with it as well, then end this one
  --reserved HOST:PORT     a second address, whose clients are accepted whatever the limits say: for health checks [none]

Limits of each connection:
  --head-timeout SECONDS   for a request head, from its first byte [10]
  --idle-timeout SECONDS   of silence between requests [75]
  --body-bytes-max BYTES   of a request body [1048576]
  --requests-per-turn N    answered before other connections come first [the budget]
  --connections-max N      open at a time on one worker [1000000]
  --memory-bytes-max N     what connections of one worker may hold together [256 MiB or less]
  --handler-timeout SECONDS
                           for an asynchronous handler [30]

Limits of each client address:
  --connections-per-address N
                           open at a time on one worker [any number]
  --rate-limit N           requests a second, and at once; 429 beyond it [none]

  --help                   print this

Endpoints:
  POST /login              {\"code\":\"demo-NAME\"} becomes a session token, and a cookie
  GET  /me                 who the session belongs to
  POST /orders             {\"item\":\"tea\",\"quantity\":2,\"note\":\"hot\"}
  GET  /orders             ?page=1&size=20, newest first
  GET  /orders/{id}        POST /orders/{id}/cancel
  GET  /plaintext, /json, /healthz, /stats        any method: /echo
";

/// Where CPU lists end: the most CPUs that Linux supports.
const CPU_MAX: usize = 8191;
/// Workers that are nobody's mistake, on however few CPUs.
const WORKERS_SENSIBLE: usize = 64;
/// A request in a microsecond: more than a machine answers.
const RATE_MAX: u32 = 1_000_000;
/// What the command line asks for.
pub enum Command {
    Help,
    Serve(Box<Options>),
}

/// Settings of the server.
pub struct Options {
    pub addr: Address,
    pub limits: Limits,
    drain: Duration,
    share_port: bool,
    workers: Option<usize>,
    cpus: Option<Vec<usize>>,
    budget: Budget,
    wait: WaitStrategy,
    connections_max: usize,
    memory_bytes_max: Option<usize>,
    connections_per_address_max: Option<usize>,
    pub reserved: Option<Address>,
    pub rate_limit: Option<u32>,
}

/// What is wrong with the command line.
#[derive(Debug)]
pub struct Wrong(String);

impl Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<lexopt::Error> for Wrong {
    fn from(error: lexopt::Error) -> Self {
        Self(error.to_string())
    }
}

/// Reads the arguments behind the program's name.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, Wrong> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut options = Options {
        addr: Address::from((Ipv4Addr::LOCALHOST, 8080)),
        limits: Limits::default(),
        drain: Duration::from_secs(10),
        share_port: false,
        workers: None,
        cpus: None,
        budget: Budget::default(),
        wait: WaitStrategy::default(),
        connections_max: ConnLimits::default().connections_max,
        memory_bytes_max: None,
        connections_per_address_max: None,
        reserved: None,
        rate_limit: None,
    };
    while let Some(argument) = parser.next()? {
        match argument {
            Long("help") | Short('h') => return Ok(Command::Help),
            Long("addr") => options.addr = value(&mut parser, "--addr", address)?,
            Long("workers") => options.workers = Some(value(&mut parser, "--workers", worker_count)?),
            Long("cpus") => options.cpus = Some(value(&mut parser, "--cpus", cpu_list)?),
            Long("budget") => options.budget = value(&mut parser, "--budget", parsed)?,
            Long("wait") => options.wait = value(&mut parser, "--wait", parsed)?,
            Long("drain") => options.drain = value(&mut parser, "--drain", seconds)?,
            Long("share-port") => options.share_port = true,
            Long("head-timeout") => {
                options.limits.head_timeout = value(&mut parser, "--head-timeout", some_seconds)?;
            }
            Long("idle-timeout") => {
                options.limits.idle_timeout = value(&mut parser, "--idle-timeout", some_seconds)?;
            }
            Long("handler-timeout") => {
                options.limits.handler_timeout = value(&mut parser, "--handler-timeout", some_seconds)?;
            }
            Long("rate-limit") => {
                options.rate_limit = Some(value(&mut parser, "--rate-limit", rate)?);
            }
            Long("body-bytes-max") => {
                options.limits.body_bytes_max = value(&mut parser, "--body-bytes-max", parsed)?;
            }
            Long("requests-per-turn") => {
                let count = value(&mut parser, "--requests-per-turn", at_least_one)?;
                options.limits.requests_per_turn = Some(count);
            }
            Long("connections-max") => {
                options.connections_max = value(&mut parser, "--connections-max", at_least_one)?;
            }
            Long("reserved") => options.reserved = Some(value(&mut parser, "--reserved", parsed)?),
            Long("connections-per-address") => {
                let most = value(&mut parser, "--connections-per-address", at_least_one)?;
                options.connections_per_address_max = Some(most);
            }
            Long("memory-bytes-max") => {
                options.memory_bytes_max = Some(value(&mut parser, "--memory-bytes-max", at_least_one)?);
            }
            _ => return Err(argument.unexpected().into()),
        }
    }
    match (&options.workers, &options.cpus) {
        (Some(workers), Some(cpus)) if *workers != cpus.len() => {
            Err(Wrong(format!("--workers {workers} does not fit the {} CPUs of --cpus", cpus.len())))
        }
        _ => Ok(Command::Serve(Box::new(options))),
    }
}

impl Options {
    /// Hands the settings of the runtime to it.
    pub fn apply(&self, builder: Builder) -> Builder {
        let workers = match (&self.cpus, self.workers) {
            (Some(cpus), _) => Workers::Cpus(cpus.clone()),
            (None, Some(count)) => Workers::Count(count),
            (None, None) => Workers::Auto,
        };
        builder
            .workers(workers)
            .budget(self.budget.clone())
            .wait(self.wait)
            .drain_within(self.drain)
            .share_port(self.share_port)
            .stop_on_signals(true)
            .limits(
                ConnLimits::default()
                    .connections_max(self.connections_max)
                    .memory_bytes_max(self.memory_bytes_max)
                    .connections_per_address_max(self.connections_per_address_max),
            )
    }
}

/// The value of an option; an error names the option and the text.
fn value<T>(
    parser: &mut lexopt::Parser,
    name: &str,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, Wrong> {
    let text = parser.value()?.string()?;
    read(&text).map_err(|why| Wrong(format!("{name} {text:?}: {why}")))
}

/// Anything that reads itself from text.
fn parsed<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match parsed(text)? {
        0 => Err("must be at least 1".to_owned()),
        count => Ok(count),
    }
}

/// Threads beyond a few for each CPU only wait for one another.
fn worker_count(text: &str) -> Result<usize, String> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let most = (8 * cpus).max(WORKERS_SENSIBLE);
    match at_least_one(text)? {
        count if count > most => Err(format!("at most {most} workers make sense on {cpus} CPUs")),
        count => Ok(count),
    }
}

/// Requests a second.
fn rate(text: &str) -> Result<u32, String> {
    match parsed(text)? {
        0 => Err("a limit of zero lets nobody in".to_owned()),
        rate if rate > RATE_MAX => Err(format!("a rate above {RATE_MAX} a second limits nobody")),
        rate => Ok(rate),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    Duration::try_from_secs_f64(parsed(text)?)
        .map_err(|_| "must be a number of seconds, zero or more".to_owned())
}

fn some_seconds(text: &str) -> Result<Duration, String> {
    match seconds(text)? {
        Duration::ZERO => Err("must be more than zero seconds".to_owned()),
        time => Ok(time),
    }
}

fn address(text: &str) -> Result<Address, String> {
    let mut found = Target::from(text).resolve().map_err(|error| error.to_string())?;
    Ok(found.swap_remove(0))
}

/// `0,2-3` is CPUs 0, 2 and 3.
fn cpu_list(text: &str) -> Result<Vec<usize>, String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Options, String> {
        match parse(line.split_whitespace().map(OsString::from)) {
            Ok(Command::Serve(options)) => Ok(*options),
            Ok(Command::Help) => Err("help".to_owned()),
            Err(wrong) => Err(wrong.to_string()),
        }
    }

    #[test]
    fn without_options_it_listens_on_port_8080_of_this_machine_only() {
        assert_eq!(read("").unwrap().addr.to_string(), "127.0.0.1:8080");
    }

    #[test]
    fn it_listens_on_a_unix_socket_if_its_path_is_given() {
        let addr = read("--addr unix:/run/x.sock").unwrap().addr;
        assert_eq!(addr.as_path(), Some(std::path::Path::new("/run/x.sock")));
    }

    #[test]
    fn cpu_lists_hold_numbers_and_ranges() {
        assert_eq!(read("--cpus 0,2-4").unwrap().cpus, Some(vec![0, 2, 3, 4]));
        assert_eq!(read("--cpus=7 --workers=1").unwrap().cpus, Some(vec![7]));
        for wrong in ["--cpus 3-1", "--cpus 1,1", "--cpus 0-9999999", "--cpus ,", "--cpus x"] {
            assert!(read(wrong).err().unwrap().starts_with("--cpus"), "{wrong}");
        }
    }

    #[test]
    fn seconds_may_have_fractions_but_not_be_negative() {
        assert_eq!(read("--drain 0.25").unwrap().drain, Duration::from_millis(250));
        assert!(read("--drain=-1").is_err() && read("--drain nan").is_err() && read("--drain 1e99").is_err());
    }

    #[test]
    fn what_is_wrong_is_said_with_the_option_in_it() {
        let said = |line: &str| read(line).err().unwrap();
        assert_eq!(said("--workers 0"), "--workers \"0\": must be at least 1");
        assert!(said("--wait never").starts_with("--wait \"never\": `never` is not one of `block`"));
        assert!(said("--budget 0").starts_with("--budget \"0\": `0` is not a number of events from 1"));
        assert_eq!(said("--workers 2 --cpus 0"), "--workers 2 does not fit the 1 CPUs of --cpus");
        assert!(said("--workers 99999").contains("workers make sense on"));
        assert_eq!(said("--rate-limit 0"), "--rate-limit \"0\": a limit of zero lets nobody in");
        assert!(said("--rate-limit 2000000000").contains("a rate above 1000000 a second limits nobody"));
        assert_eq!(said("--drain -1"), "--drain \"-1\": must be a number of seconds, zero or more");
        assert_eq!(said("--drain=inf"), "--drain \"inf\": must be a number of seconds, zero or more");
        for timeout in ["--head-timeout", "--idle-timeout", "--handler-timeout"] {
            assert_eq!(
                said(&format!("{timeout} 0")),
                format!("{timeout} \"0\": must be more than zero seconds")
            );
        }
        assert!(said("--colour").contains("--colour") && said("--addr").contains("--addr"));
        assert!(said("stray").contains("stray"));
    }

    #[test]
    fn help_names_every_option() {
        let source = include_str!("options.rs");
        let names = source.split("Long(\"").skip(1).filter_map(|rest| rest.split_once('"'));
        for (name, _) in names.filter(|(name, _)| !name.is_empty() && name.is_ascii()) {
            assert!(HELP.contains(&format!("--{name}")), "--{name}");
        }
    }
}
