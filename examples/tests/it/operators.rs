//! mini-program, seen by those who run it.

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{PATIENCE, Program, run};

const PROGRAM: &str = env!("CARGO_BIN_EXE_mini-program");

#[test]
fn it_tells_its_manager_and_its_balancer_serves_on_and_ends_at_the_second_signal() {
    let path = std::env::temp_dir().join(format!("netpoll-mini-program-{}", std::process::id()));
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = || {
        let mut line = [0; 64];
        let length = manager.recv(&mut line).expect("it says something");
        String::from_utf8(line[..length].to_vec()).unwrap()
    };
    let mut command = Command::new(PROGRAM);
    command.env("NOTIFY_SOCKET", &path);
    let mut program = Program::spawn(command.args([
        "--addr=127.0.0.1:0",
        "--admin=127.0.0.1:0",
        "--workers=1",
        "--lame-duck=600",
        "--server-header=none",
    ]));
    assert_eq!(told(), "READY=1");
    let line = program.line();
    let admin = line.trim_end().strip_prefix("operators are served on http://").expect("where operators go");
    let (addr, admin) = (program.addr, admin.parse::<SocketAddr>().unwrap());
    let hello = program.get("/json");
    assert_eq!((hello.status, hello.header("server")), (200, None));
    assert_eq!(program.get("/readyz").said(), (200, "ready\n"));

    program.addr = admin;
    assert_eq!(program.get("/readyz").said(), (200, "ready\n"));
    assert_eq!(program.get("/healthz").said(), (200, "ok\n"));
    let figures = program.get("/metrics").body;
    assert!(figures.contains("netpoll_worker_turn_age_seconds{worker=\"0\"} "), "{figures}");
    assert!(figures.contains("{route=\"/json\",class=\"2xx\"} 1\n"), "{figures}");
    // A worker shows what it has counted when its turn is over.
    let asked = Instant::now();
    while program.get("/stats.json").json()["requests"].as_u64() < Some(2) {
        assert!(asked.elapsed() < Duration::from_secs(10), "requests are counted");
    }
    assert_eq!(program.get("/stats.json").json()["rooms"], 0, "rooms are counted as well");

    program.ask_to_end();
    assert_eq!(told(), "STOPPING=1");
    let asked = Instant::now();
    while program.get("/readyz").status == 200 {
        assert!(asked.elapsed() < PATIENCE);
    }
    assert_eq!(program.get("/readyz").said(), (503, "not ready: about to drain\n"));
    program.addr = addr;
    assert_eq!(program.get("/json").status, 200, "it serves on");
    program.ask_to_end();
    let (printed, status) = program.wait();
    assert!(status.success() && printed.contains("drained "), "{printed}");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn what_it_calls_itself_has_to_be_a_header() {
    for name in ["", "a\nb"] {
        let mut command = Command::new(PROGRAM);
        let (code, _, errors) = run(command.args(["--addr", "127.0.0.1:0", "--server-header", name]));
        assert!(code == Some(2) && errors.starts_with("mini-program: server_header is "), "{errors}");
    }
}

#[test]
fn a_manager_that_makes_no_sense_ends_the_start() {
    let mut command = Command::new(PROGRAM);
    command.args(["--addr", "127.0.0.1:0"]).env("NOTIFY_SOCKET", "nowhere");
    let (code, _, errors) = run(&mut command);
    assert!(code == Some(2) && errors.contains("NOTIFY_SOCKET"), "{errors}");
}
