//! `NAME --port P [--workers N] [--cpu LIST]`, and what follows from it before a server starts.
//!
//! Words that are not understood, and CPUs that do not exist, end the process with status 2 and a line on stderr.

use std::io;
use std::net::TcpListener;
use std::process::exit;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::socket;

/// What the command line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Port on 127.0.0.1.
    pub port: u16,
    /// Worker threads, at least one. Default 1.
    pub workers: usize,
    /// CPUs to run on, as in `0,2-3`. Default all.
    pub cpus: Vec<usize>,
}

impl Options {
    /// Reads the command line, confines the process to the CPUs, and raises the limit of open files to the hard
    /// limit.
    #[must_use]
    pub fn from_args() -> Self {
        Self::with_choice("", &[""]).0
    }

    /// As [`from_args`](Self::from_args), with one more option whose value is one of `values`; default the first.
    #[must_use]
    pub fn with_choice(name: &str, values: &[&'static str]) -> (Self, &'static str) {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let parsed = parse(&args, name, values).and_then(|(options, choice)| {
            options.prepare().map_err(|error| error.to_string())?;
            Ok((options, choice))
        });
        parsed.unwrap_or_else(|error| {
            let more =
                if name.is_empty() { String::new() } else { format!(" [{name} {}]", values.join("|")) };
            eprintln!("{error}; usage: --port P [--workers N] [--cpu LIST]{more}");
            exit(2)
        })
    }

    /// The same of words that stand somewhere else than behind the program's name.
    ///
    /// # Errors
    /// A sentence: what is not understood, or a CPU that does not exist.
    pub fn of(words: &[String]) -> Result<Self, String> {
        let (options, _) = parse(words, "", &[""])?;
        options.prepare().map_err(|error| error.to_string())?;
        Ok(options)
    }

    fn prepare(&self) -> io::Result<()> {
        if !self.cpus.is_empty() {
            confine(&self.cpus)?;
        }
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
    }

    /// The CPU of worker `index`, if CPUs were named. Workers beyond the list begin it again.
    #[must_use]
    pub fn cpu(&self, index: usize) -> Option<usize> {
        self.cpus.get(index % self.cpus.len().max(1)).copied()
    }

    /// Pins the calling thread to the CPU of worker `index`, if CPUs were named.
    ///
    /// # Errors
    /// The kernel's.
    pub fn pin(&self, index: usize) -> io::Result<()> {
        self.cpu(index).map_or(Ok(()), |cpu| confine(&[cpu]))
    }

    /// A nonblocking listening socket for one worker; it shares the port if there are more.
    ///
    /// # Errors
    /// The kernel's: the port is taken.
    pub fn listener(&self) -> io::Result<TcpListener> {
        socket::listener(self.port, self.workers > 1)
    }

    /// A nonblocking listening socket for servers whose workers share one; a taken port is always an error.
    ///
    /// # Errors
    /// The kernel's: the port is taken.
    pub fn only_listener(&self) -> io::Result<TcpListener> {
        socket::listener(self.port, false)
    }
}

/// Runs the calling thread, and what it starts from now on, on these CPUs only.
fn confine(cpus: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        set.set(cpu);
    }
    Ok(sched_setaffinity(None, &set)?)
}

fn parse(args: &[String], name: &str, values: &[&'static str]) -> Result<(Options, &'static str), String> {
    let mut options = Options { port: 0, workers: 1, cpus: Vec::new() };
    let mut choice = values[0];
    for pair in args.chunks(2) {
        let [option, value] = pair else { return Err(format!("{} wants a value", pair[0])) };
        let bad = || format!("{option} {value}: not understood");
        match option.as_str() {
            "--port" => options.port = value.parse().map_err(|_| bad())?,
            "--workers" => options.workers = value.parse().map_err(|_| bad())?,
            "--cpu" => options.cpus = cpu_list(value).ok_or_else(bad)?,
            other if other == name && !name.is_empty() => {
                choice = values.iter().find(|known| *known == value).ok_or_else(bad)?;
            }
            _ => return Err(format!("{option}: unknown option")),
        }
    }
    if options.port == 0 || options.workers == 0 {
        return Err("--port is missing, or --port or --workers is zero".to_owned());
    }
    Ok((options, choice))
}

/// `0,2-3` is 0, 2, 3, as in cpuset(7).
fn cpu_list(list: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= CpuSet::MAX_CPU {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<(Options, &'static str), String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse(&words, "--driver", &["epoll", "uring"])
    }

    #[test]
    fn options_are_understood_in_any_order() {
        let (options, driver) = parsed("--cpu 0,2-3 --port 80 --driver uring --workers 4").expect("valid");
        assert_eq!(options, Options { port: 80, workers: 4, cpus: vec![0, 2, 3] });
        assert_eq!(driver, "uring");
        assert_eq!([0, 1, 2, 3].map(|index| options.cpu(index)), [Some(0), Some(2), Some(3), Some(0)]);
    }

    #[test]
    fn one_worker_anywhere_is_the_default() {
        let (options, driver) = parsed("--port 80").expect("valid");
        assert_eq!(options, Options { port: 80, workers: 1, cpus: Vec::new() });
        assert_eq!((driver, options.cpu(0)), ("epoll", None));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for line in [
            "",
            "--port",
            "--port x",
            "--port 0",
            "--port 80 --workers 0",
            "--port 80 --cpu 3-2",
            "--port 80 --cpu 0,",
            "--port 80 --cpu 99999",
            "--port 80 --driver kqueue",
            "--port 80 --verbose 1",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
