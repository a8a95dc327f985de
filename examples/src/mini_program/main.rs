//! The backend of a mini-program: login through the platform, sessions, orders, and the ledger.
//!
//! Run it with `cargo run --release`. It prints where it listens, for a browser, and two `curl` lines to try; Ctrl-C
//! drains it and prints what it did. `--help` lists the options.
//!
//! | file | story |
//! |---|---|
//! | `options` | what may be set, and what it is without |
//! | `sources` | where that stands: command line, environment, file |
//! | `values` | text that becomes a value |
//! | `app` | the routes |
//! | `operators` | what those who run it get |
//! | `login` | a code from the mini-program becomes a session |
//! | `session` | who is who, for two hours |
//! | `orders` | what users order |
//! | `events` | what becomes of orders, as it happens |
//! | `chat` | rooms to talk in |
//! | `uploads` | files from forms, counted and digested |
//! | `stats` | the ledger as JSON and as a page |
//! | `tls` | the certificate that clients are shown |
//! | `page`, `pages/` | what browsers get |
//!
//! Everything is kept in memory and bounded by a named limit; nothing survives a restart.

mod app;
mod chat;
mod events;
mod login;
mod operators;
mod options;
mod orders;
mod page;
mod session;
mod sources;
mod stats;
#[cfg(feature = "tls")]
mod tls;
mod uploads;
mod values;

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;
use std::sync::Arc;

use netpoll_core::Address;
use netpoll_http::{Metrics, RateLimit, Server};

use crate::app::{App, BodyLimits};
use crate::login::StandIn;
use crate::options::{Command, HELP, Options};

/// Descriptors without which it is not worth starting: workers, listeners, and a few dozen connections.
const DESCRIPTORS_MIN: u64 = 64;
/// Descriptors that are asked for: one for each connection of a large server.
const DESCRIPTORS_WANTED: u64 = 1 << 20;

/// Why the program ends early: one line for standard error, and the exit code.
struct Failure {
    message: String,
    code: u8,
}

impl From<sources::Wrong> for Failure {
    fn from(wrong: sources::Wrong) -> Self {
        Self { message: format!("{wrong}; --help lists the options"), code: 2 }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        // A setting that this machine does not have, such as a CPU, is the caller's to change.
        let code = if error.kind() == io::ErrorKind::InvalidInput { 2 } else { 1 };
        Self { message: error.to_string(), code }
    }
}

fn main() -> ExitCode {
    let ended = match options::parse(std::env::args_os().skip(1), std::env::vars_os()) {
        Ok(Command::Help) => {
            say(HELP);
            Ok(())
        }
        Ok(Command::Version) => {
            say(concat!("mini-program ", env!("CARGO_PKG_VERSION"), "\n"));
            Ok(())
        }
        Ok(Command::Serve(options)) => serve(&options),
        Err(wrong) => Err(wrong.into()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&failure.message);
            ExitCode::from(failure.code)
        }
    }
}

fn serve(options: &Options) -> Result<(), Failure> {
    let inherited = netpoll_core::listen_fds()?;
    let descriptors = netpoll_core::raise_open_files(DESCRIPTORS_WANTED)?;
    if descriptors < DESCRIPTORS_MIN {
        let message = format!(
            "{descriptors} file descriptors are allowed and {DESCRIPTORS_MIN} are needed: raise `ulimit -n`"
        );
        return Err(Failure { message, code: 1 });
    }

    let limit = options.rate_limit.map(|rate| RateLimit::per_address(rate, rate));
    let served = Arc::new(App::new(StandIn::start()?));
    let body_limits = BodyLimits {
        echo_bytes_max: options.limits.body_bytes_max,
        upload_bytes_max: options.upload_bytes_max,
    };
    let mut server = Server::bind(&options.addr)?;
    if let Some(addr) = &options.reserved {
        server = server.bind_reserved(addr)?;
    }
    if let Some(addr) = &options.admin {
        // Counted only where somebody looks.
        let (metrics, rooms) = (Metrics::new(), served.rooms.clone());
        server = server.on_complete(metrics.hook());
        server = server.admin(addr, move |worker| operators::router(worker, &metrics, &rooms))?;
    }
    let (server, certificate) = behind_tls(server, options)?;
    let running = server
        .limits(options.limits.clone())
        .server_header(options.server_header.clone())
        .runtime(|builder| {
            let builder = options.apply(builder).inherit(inherited);
            let builder = builder.on_stuck(|turn| complain(&format!("{turn}")));
            match options.handover() {
                Some(handover) => builder.handover(handover.on_end(handover_ended)),
                None => builder,
            }
        })
        .app(move |worker| app::router(&served, worker, limit.as_ref(), body_limits))
        .start()?;

    let addr = running.addr();
    let setup = running.handle().setup().clone();
    let workers = match setup.cpus.len() {
        1 => "1 worker".to_owned(),
        count => format!("{count} workers"),
    };
    let operators =
        running.admin_addr().map(|addr| format!("operators are served on {}\n", shown(&addr, false)));
    say(&format!(
        "mini-program listens on {} ({workers}, budget {}, wait {}, backend {})\n{certificate}{}{}",
        shown(&addr, options.certificate.is_some()),
        setup.budget,
        setup.wait,
        setup.backend,
        operators.unwrap_or_default(),
        to_try(&addr, options.certificate.is_some()),
    ));
    let report = running.wait()?;
    let stats = report.stats;
    let (accepted, shed) = (stats.accepted, stats.shed);
    say(&format!("{report}\n{accepted} connections accepted, {shed} turned away\n{stats}\n"));
    Ok(())
}

/// An address as one would paste it.
fn shown(addr: &Address, has_tls: bool) -> String {
    match (addr.is_unix(), has_tls) {
        (true, _) => addr.to_string(),
        (false, true) => format!("https://{addr}"),
        (false, false) => format!("http://{addr}"),
    }
}

/// The server behind TLS, if it is to be, and a line to say about that.
#[cfg(feature = "tls")]
fn behind_tls(server: Server, options: &Options) -> io::Result<(Server, String)> {
    tls::behind(server, options, |read| match read {
        Ok(()) => complain("the certificates were read again"),
        Err(error) => complain(&format!("the certificates are the old ones: {error}")),
    })
}

#[cfg(not(feature = "tls"))]
fn behind_tls(server: Server, options: &Options) -> io::Result<(Server, String)> {
    match options.certificate {
        None => Ok((server, String::new())),
        Some(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "this program was built without TLS")),
    }
}

/// What became of a process that wanted to take over.
fn handover_ended(outcome: Result<u32, &io::Error>) {
    match outcome {
        Ok(pid) => complain(&format!("process {pid} has taken over")),
        Err(error) => complain(&format!("no other process has taken over: {error}")),
    }
}

/// A line on standard error.
fn complain(text: &str) {
    // Where to say that this cannot be said?
    let _ = writeln!(io::stderr(), "mini-program: {text}");
}

/// Two lines to paste into a shell on the same machine; a browser finds the way by itself, but to no Unix socket.
fn to_try(addr: &Address, has_tls: bool) -> String {
    let how = if addr.is_unix() { "Try it" } else { "Open it in a browser, or try it here" };
    // Its certificate may be for another name than this machine's own.
    let (curl, scheme) = if has_tls { ("curl --insecure", "https") } else { ("curl", "http") };
    let url = match (addr.as_socket_addr(), addr.as_unix()) {
        (Some(mut addr), _) => {
            match addr.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => addr.set_ip(Ipv4Addr::LOCALHOST.into()),
                IpAddr::V6(ip) if ip.is_unspecified() => addr.set_ip(Ipv6Addr::LOCALHOST.into()),
                _ => {}
            }
            format!("{curl} '{scheme}://{addr}")
        }
        (None, Some(name)) => {
            let how = if name.as_path().is_some() { "--unix-socket" } else { "--abstract-unix-socket" };
            let name = addr.to_string();
            let name = name.trim_start_matches("unix:").trim_start_matches('@');
            format!("{curl} {how} '{name}' '{scheme}://localhost")
        }
        (None, None) => format!("{curl} '{scheme}://{addr}"),
    };
    // A browser finds no Unix socket.
    let talk = match addr.is_unix() {
        true => String::new(),
        false => {
            format!("Two tabs talk to each other at {}/chat\n", url.split('\'').nth(1).unwrap_or_default())
        }
    };
    format!(
        "{how}, and end it with Ctrl-C:\n  \
         {url}/json'\n  \
         {url}/login' -H 'Content-Type: application/json' -d '{{\"code\":\"demo-ann\"}}'\n\
         With the token of that in place of TOKEN, orders as they change, and an upload:\n  \
         {url}/events' -N -H 'Authorization: Bearer TOKEN'\n  \
         {url}/upload' -H 'Authorization: Bearer TOKEN' -F file=@Cargo.toml\n\
         {talk}"
    )
}

fn say(text: &str) {
    let mut out = io::stdout().lock();
    // Whoever closed our output (`| head -1`) does not want to read this, but may want the server.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_to_try_name_an_address_that_can_be_connected_to() {
        let try_it = |addr: &str| to_try(&addr.parse().unwrap(), false);
        assert!(try_it("0.0.0.0:80").contains("'http://127.0.0.1:80/json'"));
        assert!(try_it("[::]:80").contains("'http://[::1]:80/json'"));
        assert!(try_it("10.0.0.1:80").contains("'http://10.0.0.1:80/json'"));
        assert!(
            try_it("unix:/run/x.sock").contains("curl --unix-socket '/run/x.sock' 'http://localhost/json'")
        );
        let with_tls = to_try(&"0.0.0.0:443".parse().unwrap(), true);
        assert!(with_tls.contains("curl --insecure 'https://127.0.0.1:443/login' -H"), "{with_tls}");
        assert!(with_tls.contains(" at https://127.0.0.1:443/chat\n"), "{with_tls}");
        assert!(!try_it("unix:/run/x.sock").contains("/chat"));
    }
}
