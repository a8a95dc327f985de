//! What servers are held against has to be right as well.

use crate::server::load;
use benches::runner::free_port;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

struct Floor(Child, SocketAddr);

impl Floor {
    /// `None` where the kernel, or who stands before it, makes no ring.
    fn start(options: &[&str]) -> Option<Self> {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()));
        let mut command = Command::new(env!("CARGO_BIN_EXE_floor-uring"));
        command.arg("--port").arg(addr.port().to_string()).args(options).stderr(Stdio::null());
        let mut floor = Self(command.spawn().unwrap(), addr);
        let began = Instant::now();
        while TcpStream::connect(addr).is_err() {
            if floor.0.try_wait().unwrap().is_some() {
                println!("skipped: there is no ring here");
                return None;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "it never listens");
            std::thread::yield_now();
        }
        Some(floor)
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn the_ring_loop_answers_every_request_however_many_come_at_once() {
    let Some(floor) = Floor::start(&[]) else { return };
    for options in ["--connections 8 --requests 800", "--connections 4 --depth 200 --requests 4000"] {
        let report = load(floor.1, options);
        assert!(report["requests"].as_u64() >= Some(800), "{options}: {report}");
    }
    let Some(json) = Floor::start(&["--json"]) else { return };
    assert!(load(json.1, "--path /json --requests 100")["requests"].as_u64() >= Some(100));
}

#[test]
fn the_ring_loop_sends_back_all_of_it_in_order_also_what_fits_into_no_socket() {
    let Some(floor) = Floor::start(&["--echo"]) else { return };
    for options in [
        "--connections 64 --echo 64 --requests 2000",
        "--connections 4 --echo 4096 --depth 8 --requests 500",
        "--connections 2 --echo 3000000 --requests 10",
    ] {
        let report = load(floor.1, options);
        assert!(report["requests"].as_u64() >= Some(10), "{options}: {report}");
    }
}

#[test]
fn the_ring_loop_closes_behind_its_answer_when_it_is_told_to() {
    let Some(floor) = Floor::start(&["--close"]) else { return };
    // A head in pieces is answered when it is whole. Its end says that the loop has all that it opens by itself, and this connection no more.
    let mut stream = TcpStream::connect(floor.1).unwrap();
    stream.set_nodelay(true).unwrap();
    for piece in ["GET / HTTP/1.1\r\nHost: a\r", "\n\r", "\n"] {
        stream.write_all(piece.as_bytes()).unwrap();
        std::thread::yield_now();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("Hello, World!"), "{answer}");
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", floor.0.id())).unwrap().count();
    let before = descriptors();
    let report = load(floor.1, "--connections 8 --churn --requests 400");
    assert!(report["requests"].as_u64() >= Some(400), "{report}");
    // What the generator has connected to and not asked is all that is left, and ends with it.
    let began = Instant::now();
    while descriptors() > before {
        assert!(began.elapsed() < Duration::from_secs(20), "{} descriptors, {before} before", descriptors());
        std::thread::yield_now();
    }
}
