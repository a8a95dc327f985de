//! Servers of Redis and NATS, on a free port each. They are killed when the test ends.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use netpoll_http::rooms::bus::Bus;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Redis,
    Nats,
}

impl Kind {
    pub fn bus(url: &str) -> Bus {
        if url.starts_with("redis") { Bus::redis(url) } else { Bus::nats(url) }.expect("a URL")
    }

    fn command(self, port: u16) -> Command {
        let port = port.to_string();
        let mut command = match self {
            Self::Redis => Command::new("redis-server"),
            Self::Nats => Command::new("nats-server"),
        };
        match self {
            Self::Redis => command.args(["--bind", "127.0.0.1", "--port", &port, "--save", ""]).args([
                "--appendonly",
                "no",
                "--requirepass",
                "sec:ret",
            ]),
            Self::Nats => command.args(["-a", "127.0.0.1", "-p", &port, "--user", "me", "--pass", "sec:ret"]),
        };
        command
    }
}

pub struct Engine {
    kind: Kind,
    pub port: u16,
    child: Child,
}

impl Engine {
    /// None if it is not installed.
    pub fn start(kind: Kind) -> Option<Self> {
        for _ in 0..10 {
            let free =
                TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its name").port();
            match serve(kind, free) {
                // Somebody else has taken the port meanwhile.
                Some(Err(_)) => {}
                Some(Ok(child)) => return Some(Self { kind, port: free, child }),
                None => {
                    println!("skipped: there is no server of {kind:?}");
                    return None;
                }
            }
        }
        panic!("{kind:?} does not start");
    }

    pub fn url(&self) -> String {
        match self.kind {
            Kind::Redis => format!("redis://:sec%3Aret@127.0.0.1:{}", self.port),
            Kind::Nats => format!("nats://me:sec:ret@127.0.0.1:{}", self.port),
        }
    }

    /// By SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().expect("it was there");
        self.child.wait().expect("it has ended");
    }

    /// On the same port.
    pub fn start_again(&mut self) {
        self.child = serve(self.kind, self.port).expect("installed").expect("it starts again");
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server that takes connections. None if it is not installed.
fn serve(kind: Kind, port: u16) -> Option<Result<Child, ()>> {
    let mut child = kind.command(port).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().ok()?;
    let (sender, ready) = mpsc::channel();
    let output: [Box<dyn std::io::Read + Send>; 2] =
        [Box::new(child.stdout.take().expect("piped")), Box::new(child.stderr.take().expect("piped"))];
    for output in output {
        let sender = sender.clone();
        // To its end: a server that is not listened to may stop.
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if line.contains("eady to accept connections") || line.contains("Server is ready") {
                    // Nobody may wait any more.
                    let _ = sender.send(());
                }
            }
        });
    }
    drop(sender);
    match ready.recv_timeout(Duration::from_secs(30)) {
        Ok(()) => Some(Ok(child)),
        Err(_) => {
            child.kill().expect("it is ours");
            child.wait().expect("it has ended");
            Some(Err(()))
        }
    }
}
