//! `cargo bench-tls`: HTTPS, netpoll beside hyper on tokio-rustls, and nginx where it is installed.
//!
//! `GET /plaintext` in three ways: on 64 connections that are kept, one request on its way on each (`kept`); with a connection and a full handshake for each
//! (`full`); and with a connection and a ticket for each (`resumed`). TLS 1.3, a key of P-256, and ring, which netpoll and hyper have in common; nginx has its own
//! cryptography. Each server has one thread on core 0, the client spins on core 1. What counts is the CPU time of the server for each request, as the scheduler
//! measured it, and of that the part in user space, sampled by the kernel four times a millisecond. Ratios of the whole are taken within each round, ratios of user time between sums
//! over all of them. At the end: resident bytes of an idle connection, of 2000 that have had an answer.
//!
//! Options (defaults in brackets): `--only kept,..`; `--rounds` \[31\] kept rounds of each; `--seconds` \[0.1\] of each window; `--steal-max` \[0.05\] and
//! `--other-max` \[0.10\] shares of a core at which a round is dropped; `--peers DIR` use the programs of `benches/peers` there and build none; `--programs DIR`
//! the same of ours; `--verbose` progress on standard error.
//!
//! Exit status: 0 measured, 2 could not measure.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use benches::runner::{
    Conditions, Failure, Figure, LOAD_CPU, Metered, SERVER_CPU, Server, Spent, Template, build, build_peers,
    resident_bytes, run,
};
use benches::{known_options, option, sys};
use netpoll_core::tls::roots_from_pem_file;
use netpoll_core::tls::rustls::client::Resumption;
use netpoll_core::tls::rustls::crypto::ring;
use netpoll_core::tls::rustls::pki_types::ServerName;
use netpoll_core::tls::rustls::{ClientConfig, ClientConnection, StreamOwned};

const OPTIONS: [&str; 7] =
    ["--only", "--rounds", "--seconds", "--steal-max", "--other-max", "--peers", "--programs"];
const PROFILE: &str = "release";
const CONNECTIONS: usize = 64;
const IDLE: usize = 2000;
const PATIENCE: Duration = Duration::from_secs(10);
const PEMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../netpoll-core/tests/tls/pems");

const NGINX: &str = "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr;\nevents { worker_connections 8192; }\nhttp {\n\
    access_log off;\nkeepalive_requests 100000000;\nssl_protocols TLSv1.3;\nssl_session_tickets on;\nserver {\n\
    listen 127.0.0.1:{port} ssl backlog=4096;\nssl_certificate {pems}/server.pem;\nssl_certificate_key {pems}/server-key.pem;\n\
    location = /plaintext { default_type text/plain; return 200 'Hello, World!'; }\n}\n}\n";

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Kept,
    Full,
    Resumed,
}

const WAYS: [(&str, Way); 3] = [("kept", Way::Kept), ("full", Way::Full), ("resumed", Way::Resumed)];

fn main() -> ExitCode {
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tls: {error}");
            ExitCode::from(2)
        }
    }
}

fn measure() -> Result<(), Failure> {
    let args = benches::arguments(include_str!("tls.rs"));
    known_options(&args, &OPTIONS, &["--verbose"])?;
    let has = |name: &str| args.iter().any(|arg| arg == name);
    let conditions = Conditions {
        rounds: option(&args, "--rounds", 31)?,
        steal_max: option(&args, "--steal-max", 0.05)?,
        other_max: option(&args, "--other-max", 0.10)?,
        verbose: has("--verbose"),
    };
    let seconds = option(&args, "--seconds", 0.1)?;
    let only: String = option(&args, "--only", String::new())?;
    sys::raise_open_files(IDLE as u64 + 200)?;
    let programs = match has("--programs") {
        true => option(&args, "--programs", PathBuf::new())?,
        false => build(&[&["-p", "examples", "--bin", "mini-program"]])?,
    };
    let peers = match has("--peers") {
        true => option(&args, "--peers", PathBuf::new())?,
        false => build_peers(&[("https-hyper", PROFILE)], &[])?,
    };
    sys::pin_current_thread(&[LOAD_CPU])?;
    let templates = templates(&programs, &peers)?;
    for (name, way) in
        WAYS.iter().filter(|(name, _)| only.is_empty() || only.split(',').any(|it| it == *name))
    {
        let mut entrants =
            templates.iter().map(|it| Entrant::new(it, *way)).collect::<Result<Vec<_>, Failure>>()?;
        let (kept, rounds) = run(&conditions, entrants.len(), |nth| entrants[nth].window(seconds))?;
        print(name, &templates, &kept)?;
        println!("{} rounds kept, {} dropped", rounds.kept, rounds.dropped);
    }
    println!("\n| | resident bytes of an idle connection |\n|---|---:|");
    for template in &templates {
        println!("| {} | {} |", template.name, idle_bytes(template)?);
    }
    Ok(())
}

fn templates(programs: &Path, peers: &Path) -> Result<Vec<Template>, Failure> {
    let ours = format!(
        "{} --workers 1 --addr 127.0.0.1:{{port}} --tls-cert {PEMS}/server.pem --tls-key {PEMS}/server-key.pem",
        programs.join("mini-program").display()
    );
    let hyper = format!("{} --port {{port}}", peers.join(PROFILE).join("https-hyper").display());
    let template = |name: &str, command: String| Template { name: name.into(), command, configuration: None };
    let mut templates = vec![template("netpoll", ours), template("hyper, tokio-rustls", hyper)];
    if ["/usr/sbin/nginx", "/usr/bin/nginx"].iter().any(|path| Path::new(path).exists()) {
        let file = std::env::temp_dir().join(format!("netpoll-tls-{}.conf", std::process::id()));
        std::fs::write(&file, NGINX.replace("{pems}", PEMS))?;
        let nginx = template("nginx", "nginx -e stderr -p {dir} -c {conf}".to_owned());
        templates.push(Template { configuration: Some(file), ..nginx });
    } else {
        println!("nginx is left out: it is not installed");
    }
    Ok(templates)
}

fn start(template: &Template) -> Result<Server, Failure> {
    Server::start_on(&[SERVER_CPU], template, "", |port| {
        TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(Into::into)
    })
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

fn config(resumes: bool) -> Result<Arc<ClientConfig>, Failure> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let roots = roots_from_pem_file(Path::new(PEMS).join("ca.pem"))?;
    let mut config =
        config.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth();
    config.resumption = if resumes { Resumption::in_memory_sessions(8) } else { Resumption::disabled() };
    Ok(Arc::new(config))
}

fn connect(port: u16, config: &Arc<ClientConfig>) -> Result<Stream, Failure> {
    let socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_nodelay(true)?;
    socket.set_nonblocking(true)?;
    let tls = ClientConnection::new(Arc::clone(config), ServerName::try_from("localhost")?)?;
    Ok(StreamOwned::new(tls, socket))
}

/// Does it again until it is done: nobody sleeps who would have to be woken.
fn spin<T>(mut act: impl FnMut() -> std::io::Result<T>) -> Result<T, Failure> {
    let begin = Instant::now();
    loop {
        match act() {
            Err(error) if error.kind() == ErrorKind::WouldBlock && begin.elapsed() < PATIENCE => {}
            done => return Ok(done?),
        }
    }
}

fn ask(stream: &mut Stream, is_last: bool) -> Result<(), Failure> {
    let close = if is_last { "Connection: close\r\n" } else { "" };
    let request = format!("GET /plaintext HTTP/1.1\r\nHost: localhost\r\n{close}\r\n");
    // A write that is refused in the middle of the handshake has taken nothing.
    let taken = spin(|| stream.write(request.as_bytes()))?;
    if taken < request.len() {
        return Err("a request was cut".into());
    }
    spin(|| stream.flush())
}

/// Reads an answer, and the end behind it if it is the last.
fn hear(stream: &mut Stream, is_last: bool) -> Result<(), Failure> {
    let (mut heard, mut block) = (Vec::new(), [0; 4096]);
    loop {
        if !is_last && heard.ends_with(b"\r\n\r\nHello, World!") {
            return Ok(());
        }
        match spin(|| stream.read(&mut block))? {
            0 if heard.ends_with(b"Hello, World!") => return Ok(()),
            0 => return Err(format!("an answer was cut: {}", String::from_utf8_lossy(&heard)).into()),
            bytes => heard.extend_from_slice(&block[..bytes]),
        }
    }
}

struct Entrant {
    // In front of their server.
    streams: Vec<Stream>,
    config: Arc<ClientConfig>,
    metered: Metered,
}

impl Entrant {
    fn new(template: &Template, way: Way) -> Result<Self, Failure> {
        let server = start(template)?;
        let config = config(way == Way::Resumed)?;
        let count = if way == Way::Kept { CONNECTIONS } else { 0 };
        let streams =
            (0..count).map(|_| connect(server.port, &config)).collect::<Result<Vec<_>, Failure>>()?;
        let mut entrant = Self { streams, config, metered: Metered::new(server) };
        entrant.window(0.2)?;
        Ok(entrant)
    }

    fn window(&mut self, seconds: f64) -> Result<Spent, Failure> {
        let Self { streams, config, metered } = self;
        let port = metered.server.port;
        metered.during(|| {
            let (begin, mut requests) = (Instant::now(), 0.0);
            while begin.elapsed().as_secs_f64() < seconds {
                requests += go_around(streams, config, port)?;
            }
            Ok(requests)
        })
    }
}

/// A request on each of these, or on a connection of its own if there are none.
fn go_around(streams: &mut [Stream], config: &Arc<ClientConfig>, port: u16) -> Result<f64, Failure> {
    if streams.is_empty() {
        let mut stream = connect(port, config)?;
        ask(&mut stream, true)?;
        hear(&mut stream, true)?;
        return Ok(1.0);
    }
    streams.iter_mut().try_for_each(|stream| ask(stream, false))?;
    streams.iter_mut().try_for_each(|stream| hear(stream, false))?;
    Ok(streams.len() as f64)
}

fn idle_bytes(template: &Template) -> Result<u64, Failure> {
    let (server, config) = (start(template)?, config(false)?);
    let open = |count: usize| {
        let each = || {
            let mut stream = connect(server.port, &config)?;
            ask(&mut stream, false)?;
            hear(&mut stream, false)?;
            Ok(stream)
        };
        (0..count).map(|_| each()).collect::<Result<Vec<Stream>, Failure>>()
    };
    let first = open(200)?;
    let before = resident_bytes(server.pid())?;
    let idle = open(IDLE)?;
    let bytes = resident_bytes(server.pid())?.saturating_sub(before) / IDLE as u64;
    drop((first, idle));
    Ok(bytes)
}

fn print(name: &str, templates: &[Template], kept: &[Vec<Spent>]) -> Result<(), Failure> {
    println!(
        "\n| {name} | CPU, us | beside netpoll | 95 % | user, us | beside netpoll | requests of a CPU second |"
    );
    println!("|---|---:|---:|---|---:|---:|---:|");
    let user = |nth: usize| Spent::user(kept.iter().map(|round| &round[nth]));
    let first = user(0).us_per_request;
    for (nth, template) in templates.iter().enumerate() {
        let figure = |values: Vec<f64>| Figure::of(&values).ok_or("no round was quiet enough");
        let us = figure(kept.iter().map(|round| round[nth].us()).collect())?;
        let ratio = figure(kept.iter().map(|round| round[nth].us() / round[0].us()).collect())?;
        let user = user(nth);
        println!(
            "| {} | {:.2} | {:.3} | {:.3} to {:.3} | {:.2} ± {:.2} | {:.2} | {:.0} |",
            template.name,
            us.median,
            ratio.median,
            ratio.low,
            ratio.high,
            user.us_per_request,
            user.us_per_request * user.error,
            user.us_per_request / first,
            1e6 / us.median,
        );
    }
    Ok(())
}
