//! The servers, each in a process of its own: this program with `--serve NAME --port P --workers N --cpu LIST`.
//!
//! A worker is a thread on a CPU of its own, but where a runtime spreads its work over threads by itself: there the threads share
//! the CPUs. All answer `GET /plaintext` with `Hello, World!`, a date, and the head that they are used to.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use netpoll_core::{Backend, Workers};
use netpoll_http::{Reply, Request, Router, Server as HttpServer, StatusCode};
use peers::http::HELLO;
use peers::{BACKLOG, Options, end, http_hyper, http_monoio};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::Failure;

pub struct Server {
    pub name: &'static str,
    pub what: &'static str,
    serve: fn(&Options) -> Result<(), Failure>,
}

impl Server {
    pub fn is_ours(&self) -> bool {
        self.name.starts_with("netpoll")
    }
}

pub const SERVERS: [Server; 7] = [
    Server {
        name: "netpoll-epoll",
        what: "netpoll-http, a worker for each CPU, epoll",
        serve: |options| netpoll(options, "epoll"),
    },
    Server {
        name: "netpoll-uring",
        what: "netpoll-http, a worker for each CPU, io_uring",
        serve: |options| netpoll(options, "uring"),
    },
    Server {
        name: "tokio-multi",
        what: "hyper on one tokio runtime whose threads steal work",
        serve: |options| end(http_hyper::multi(options)),
    },
    Server {
        name: "tokio-per-core",
        what: "hyper on a current-thread tokio runtime for each CPU",
        serve: |options| http_hyper::current(options),
    },
    Server {
        name: "monoio-epoll",
        what: "a small server on monoio, a runtime for each CPU, its legacy driver",
        serve: |options| http_monoio::on(options, false),
    },
    Server {
        name: "monoio-uring",
        what: "the same on io_uring",
        serve: |options| http_monoio::on(options, true),
    },
    Server {
        name: "nginx",
        what: "the nginx that is installed, a process for each CPU, constant answers",
        serve: nginx,
    },
];

/// Serves until the runner ends it, and not longer than the runner is there.
pub fn serve(words: &[String]) -> Result<(), Failure> {
    let name = words.first().ok_or("--serve wants a name")?;
    let server = SERVERS.iter().find(|server| server.name == name).ok_or("no such server")?;
    // nginx ends its workers when it is asked to end; killed, it would leave them behind.
    let death = if server.name == "nginx" { Signal::TERM } else { Signal::KILL };
    set_parent_process_death_signal(Some(death))?;
    (server.serve)(&Options::of(&words[1..])?)
}

fn netpoll(options: &Options, backend: &str) -> Result<(), Failure> {
    let backend: Backend = backend.parse()?;
    let cpus = options.cpus.clone();
    HttpServer::bind(("127.0.0.1", options.port))?
        .runtime(move |builder| {
            builder.workers(Workers::Cpus(cpus)).backend(backend).backlog(BACKLOG).stop_on_signals(true)
        })
        .serve(|_worker| {
            let plaintext =
                |_: &Request, reply: Reply| reply.bytes(StatusCode::OK, "text/plain", HELLO.as_bytes());
            Router::new().get("/plaintext", plaintext)
        })?;
    Ok(())
}

const NGINX: &str = "\
daemon off; pid nginx.pid; error_log stderr crit; worker_processes {workers};
events { use epoll; worker_connections 16384; multi_accept on; }
http {
    access_log off; server_tokens off; default_type text/plain; tcp_nodelay on;
    keepalive_timeout 3600s; keepalive_requests 1000000000;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    server {
        listen 127.0.0.1:{port} backlog={backlog} reuseport;
        location = /plaintext { return 200 \"{hello}\"; }
    }
}
";

/// Where nginx has its files, while the server of this port runs.
pub fn directory(port: u16) -> PathBuf {
    std::env::temp_dir().join(format!("netpoll-scale-{port}"))
}

/// Becomes nginx: its processes inherit the CPUs, and which of them runs where is the scheduler's choice.
fn nginx(options: &Options) -> Result<(), Failure> {
    let places = ["nginx", "/usr/sbin/nginx", "/usr/local/sbin/nginx", "/usr/local/nginx/sbin/nginx"];
    let is_there = |program: &&&str| Command::new(program).arg("-v").output().is_ok();
    let program = places.iter().find(is_there).ok_or("not installed")?;
    let directory = directory(options.port);
    std::fs::create_dir_all(&directory)?;
    let text = NGINX
        .replace("{workers}", &options.workers.to_string())
        .replace("{port}", &options.port.to_string())
        .replace("{backlog}", &BACKLOG.to_string())
        .replace("{hello}", HELLO);
    let file = directory.join("nginx.conf");
    std::fs::write(&file, text)?;
    Err(Command::new(program).args(["-e", "stderr", "-p"]).arg(&directory).arg("-c").arg(&file).exec().into())
}
