//! The settings of the program: text in, settings or one clear sentence out.
//!
//! Nothing is started here and nothing is opened but the file of settings; whatever is wrong with an option is found
//! before anything else happens.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use netpoll_core::{Address, Backend, Budget, Builder, ConnLimits, Handover, WaitStrategy, Workers};
use netpoll_http::{Limits, ServerHeader};

use crate::sources::{Asked, Names, Setting, Wrong};
use crate::values::{
    address, at_least_one, cpu_list, parsed, rate, seconds, server_header, socket_path, some_path,
    some_seconds, worker_count,
};

/// What `--help` prints.
pub const HELP: &str = include_str!("help.txt");

/// Every option but those that are asked for on the command line only, and `--config`.
const NAMES: Names = Names {
    valued: &[
        "addr",
        "workers",
        "cpus",
        "budget",
        "wait",
        "backend",
        "drain",
        "lame-duck",
        "handover",
        "reserved",
        "admin",
        "stuck-turn",
        "server-header",
        "tls-cert",
        "tls-key",
        "head-timeout",
        "idle-timeout",
        "body-bytes-max",
        "upload-bytes-max",
        "requests-per-turn",
        "connections-max",
        "memory-bytes-max",
        "handler-timeout",
        "connections-per-address",
        "rate-limit",
    ],
    switches: &["share-port", "tls-self-signed"],
};

/// What the command line asks for.
pub enum Command {
    Help,
    Version,
    Serve(Box<Options>),
}

/// What clients are shown.
#[derive(Debug, PartialEq)]
pub enum Certificate {
    /// Made at the start, and trusted by nobody.
    OfItsOwn,
    Files {
        chain: PathBuf,
        key: PathBuf,
    },
}

/// Settings of the server.
pub struct Options {
    pub addr: Address,
    pub limits: Limits,
    pub upload_bytes_max: usize,
    drain: Duration,
    lame_duck: Duration,
    stuck_turn: Duration,
    share_port: bool,
    handover: Option<PathBuf>,
    workers: Option<usize>,
    cpus: Option<Vec<usize>>,
    budget: Budget,
    wait: WaitStrategy,
    backend: Backend,
    connections_max: usize,
    memory_bytes_max: Option<usize>,
    connections_per_address_max: Option<usize>,
    pub reserved: Option<Address>,
    pub admin: Option<Address>,
    pub server_header: ServerHeader,
    pub rate_limit: Option<u32>,
    /// None without TLS.
    pub certificate: Option<Certificate>,
}

/// Reads the arguments behind the program's name, the environment, and the file that one of them names.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Command, Wrong> {
    let settings = match NAMES.read(arguments, environment)? {
        Asked::Help => return Ok(Command::Help),
        Asked::Version => return Ok(Command::Version),
        Asked::Settings(settings) => settings,
    };
    let mut options = Options::new();
    for setting in &settings {
        options.set(setting)?;
    }
    if let (Some(workers), Some(cpus)) = (&options.workers, &options.cpus)
        && *workers != cpus.len()
    {
        let origin =
            |name| settings.iter().rfind(|setting| setting.name == name).map_or(name, |it| &*it.origin);
        let (count, first, second) = (cpus.len(), origin("workers"), origin("cpus"));
        return Err(Wrong(format!("{first} {workers} does not fit the {count} CPUs of {second}")));
    }
    options.certificate = certificate(&settings)?;
    Ok(Command::Serve(Box::new(options)))
}

/// What clients are shown. A file of certificates may have the key in it as well.
fn certificate(settings: &[Setting]) -> Result<Option<Certificate>, Wrong> {
    let last = |name| settings.iter().rfind(|setting| setting.name == name);
    let is_of_its_own = match last("tls-self-signed") {
        Some(setting) => setting.read(parsed)?,
        None => false,
    };
    match (last("tls-cert"), last("tls-key"), is_of_its_own) {
        (None, None, false) => Ok(None),
        (None, None, true) => Ok(Some(Certificate::OfItsOwn)),
        (Some(chain), _, true) => {
            let wrong = format!("{} does not go with --tls-self-signed, which makes one", chain.origin);
            Err(Wrong(wrong))
        }
        (None, Some(key), _) => Err(Wrong(format!("{} is the key of no --tls-cert", key.origin))),
        (Some(chain), key, false) => Ok(Some(Certificate::Files {
            chain: chain.read(some_path)?,
            key: key.unwrap_or(chain).read(some_path)?,
        })),
    }
}

impl Options {
    /// Those of a program that was told nothing.
    fn new() -> Self {
        Self {
            addr: Address::from((Ipv4Addr::LOCALHOST, 8080)),
            limits: Limits::default(),
            upload_bytes_max: 64 << 20,
            drain: Duration::from_secs(10),
            lame_duck: Duration::ZERO,
            stuck_turn: Duration::from_secs(10),
            share_port: false,
            handover: None,
            workers: None,
            cpus: None,
            budget: Budget::default(),
            wait: WaitStrategy::default(),
            backend: Backend::default(),
            connections_max: ConnLimits::default().connections_max,
            memory_bytes_max: None,
            connections_per_address_max: None,
            reserved: None,
            admin: None,
            server_header: ServerHeader::default(),
            rate_limit: None,
            certificate: None,
        }
    }

    fn set(&mut self, setting: &Setting) -> Result<(), Wrong> {
        let limits = &mut self.limits;
        match setting.name {
            "addr" => self.addr = setting.read(address)?,
            "workers" => self.workers = Some(setting.read(worker_count)?),
            "cpus" => self.cpus = Some(setting.read(cpu_list)?),
            "budget" => self.budget = setting.read(parsed)?,
            "wait" => self.wait = setting.read(parsed)?,
            "backend" => self.backend = setting.read(parsed)?,
            "drain" => self.drain = setting.read(seconds)?,
            "lame-duck" => self.lame_duck = setting.read(seconds)?,
            "stuck-turn" => self.stuck_turn = setting.read(some_seconds)?,
            "admin" => self.admin = Some(setting.read(address)?),
            "server-header" => self.server_header = setting.read(server_header)?,
            "handover" => self.handover = Some(setting.read(socket_path)?),
            "share-port" => self.share_port = setting.read(parsed)?,
            "reserved" => self.reserved = Some(setting.read(parsed)?),
            "head-timeout" => limits.head_timeout = setting.read(some_seconds)?,
            "idle-timeout" => limits.idle_timeout = setting.read(some_seconds)?,
            "handler-timeout" => limits.handler_timeout = setting.read(some_seconds)?,
            "body-bytes-max" => limits.body_bytes_max = setting.read(parsed)?,
            "upload-bytes-max" => self.upload_bytes_max = setting.read(parsed)?,
            "requests-per-turn" => limits.requests_per_turn = Some(setting.read(at_least_one)?),
            "connections-max" => self.connections_max = setting.read(at_least_one)?,
            "memory-bytes-max" => self.memory_bytes_max = Some(setting.read(at_least_one)?),
            "connections-per-address" => {
                self.connections_per_address_max = Some(setting.read(at_least_one)?);
            }
            "rate-limit" => self.rate_limit = Some(setting.read(rate)?),
            // They are one setting: see `certificate`.
            "tls-cert" | "tls-key" | "tls-self-signed" => {}
            name => unreachable!("{name} is among the names and nobody reads it"),
        }
        Ok(())
    }

    /// Where a process hands over to the next.
    pub fn handover(&self) -> Option<Handover> {
        self.handover.as_ref().map(Handover::at)
    }

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
            .backend(self.backend)
            .lame_duck(self.lame_duck)
            .drain_within(self.drain)
            .stuck_turn(self.stuck_turn)
            .sd_notify()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Options, String> {
        read_with(&[], line)
    }

    fn read_with(environment: &[(&str, &str)], line: &str) -> Result<Options, String> {
        let environment = environment.iter().map(|(name, value)| (name.into(), value.into()));
        match parse(line.split_whitespace().map(OsString::from), environment) {
            Ok(Command::Serve(options)) => Ok(*options),
            Ok(Command::Help | Command::Version) => Err("help".to_owned()),
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
    fn a_certificate_is_from_one_file_or_two_or_of_its_own() {
        let certificate = |line: &str| read(line).unwrap().certificate;
        let files = |chain: &str, key: &str| {
            Some(Certificate::Files { chain: PathBuf::from(chain), key: PathBuf::from(key) })
        };
        assert_eq!(certificate(""), None);
        assert_eq!(certificate("--tls-cert a"), files("a", "a"));
        assert_eq!(certificate("--tls-key b --tls-cert a"), files("a", "b"));
        assert_eq!(certificate("--tls-self-signed"), Some(Certificate::OfItsOwn));
        assert_eq!(certificate("--tls-self-signed=false --tls-cert a"), files("a", "a"));
        let said = |line: &str| read(line).err().unwrap();
        assert_eq!(said("--tls-key b"), "--tls-key is the key of no --tls-cert");
        assert!(said("--tls-cert a --tls-self-signed").starts_with("--tls-cert does not go with"));
        assert_eq!(said("--tls-cert="), "--tls-cert \"\": must be the path of a file");
    }

    #[test]
    fn what_is_wrong_is_said_with_the_option_in_it() {
        let said = |line: &str| read(line).err().unwrap();
        assert_eq!(said("--workers 0"), "--workers \"0\": must be at least 1");
        assert!(said("--wait never").starts_with("--wait \"never\": `never` is not one of `block`"));
        assert!(said("--backend kqueue").starts_with("--backend \"kqueue\": `kqueue` is not one of `auto`"));
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
        assert_eq!(said("--handover="), "--handover \"\": must be a path of 1 to 96 bytes");
        assert!(said("--colour").contains("--colour") && said("--addr").contains("--addr"));
        assert!(said("stray").contains("stray"));
    }

    #[test]
    fn a_variable_is_named_like_its_option_and_the_command_line_counts_before_it() {
        let environment = [("MINI_PROGRAM_IDLE_TIMEOUT", "3"), ("MINI_PROGRAM_DRAIN", "4"), ("PATH", "/bin")];
        let options = read_with(&environment, "--drain 5").unwrap();
        let seconds = |time: Duration| time.as_secs();
        assert_eq!((seconds(options.limits.idle_timeout), seconds(options.drain)), (3, 5));
    }

    #[test]
    fn a_switch_may_be_turned_off_where_the_environment_turns_it_on() {
        let environment = [("MINI_PROGRAM_SHARE_PORT", "true")];
        assert!(read_with(&environment, "").unwrap().share_port && read("--share-port").unwrap().share_port);
        assert!(!read_with(&environment, "--share-port=false").unwrap().share_port);
        assert!(read("--share-port=perhaps").err().unwrap().starts_with("--share-port \"perhaps\": "));
    }

    #[test]
    fn what_is_wrong_with_a_variable_is_said_with_the_variable_in_it() {
        let said = |name: &str, value: &str| read_with(&[(name, value)], "").err().unwrap();
        assert_eq!(said("MINI_PROGRAM_WORKERS", "0"), "MINI_PROGRAM_WORKERS \"0\": must be at least 1");
        for unknown in ["MINI_PROGRAM_COLOUR", "MINI_PROGRAM_addr", "MINI_PROGRAM_", "MINI_PROGRAM_HELP"] {
            let expected = format!("{unknown}, in the environment: there is no such option");
            assert_eq!(said(unknown, "1"), expected);
        }
        assert_eq!(
            read_with(&[("MINI_PROGRAM_CPUS", "0-2")], "--workers 2").err().unwrap(),
            "--workers 2 does not fit the 3 CPUs of MINI_PROGRAM_CPUS"
        );
    }

    #[test]
    fn every_name_is_read_and_is_in_the_help() {
        for name in NAMES.valued.iter().chain(NAMES.switches) {
            assert!(HELP.contains(&format!("  --{name}")), "--{name}");
            // Whether or not `1` is a value of it, somebody reads it.
            let _ = read(&format!("--{name}=1"));
        }
        assert!(HELP.contains("--config") && HELP.contains("--version"));
    }
}
