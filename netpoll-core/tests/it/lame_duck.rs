//! Whether a runtime wants work, and the time between the first stop signal and the drain.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use netpoll_core::sim::{Options, Sim};
use netpoll_core::{Builder, Readiness, Runtime, Stage, Workers};

use crate::support::{Echo, alone};

const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than any test runs.
const LONG: Duration = Duration::from_secs(600);
const MOMENT: Duration = Duration::from_millis(100);

fn echo() -> Builder {
    let builder = Runtime::builder().workers(Workers::Count(2));
    builder.listen("127.0.0.1:0", |_worker| |_peer| Echo).unwrap()
}

/// Whether it takes in a newcomer and answers.
fn serves(addr: &netpoll_core::Address) -> bool {
    let Ok(mut stream) = TcpStream::connect(addr.as_socket_addr().unwrap()) else { return false };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"x").is_ok() && stream.read_exact(&mut [0]).is_ok()
}

fn wait_for(readiness: &Readiness, stage: Stage) {
    let began = Instant::now();
    while readiness.stage() < stage {
        assert!(began.elapsed() < PATIENCE, "it is {}", readiness.stage());
        std::thread::yield_now();
    }
}

#[test]
fn a_runtime_is_ready_from_its_start_to_its_stop_unless_the_program_says_otherwise() {
    let (sender, made) = mpsc::channel();
    let running = Runtime::builder()
        .workers(Workers::Count(1))
        .listen("127.0.0.1:0", move |worker| {
            sender.send(worker.handle.readiness().stage()).unwrap();
            worker.handle.readiness().set_ready(false);
            |_peer| Echo
        })
        .unwrap()
        .start()
        .unwrap();
    assert_eq!(made.recv().unwrap(), Stage::Starting);
    let readiness = running.handle().readiness();
    assert!(!readiness.is_ready() && !readiness.says_ready() && readiness.stage() == Stage::Serving);
    readiness.set_ready(true);
    assert!(readiness.is_ready() && running.handle().readiness().is_ready());
    running.stop(PATIENCE).unwrap();
    assert!(!readiness.is_ready() && readiness.stage() == Stage::Ended);
}

#[test]
fn a_world_that_drains_is_not_ready() {
    let mut sim = Sim::new(Options::default().workers(2));
    let readiness = sim.handle().readiness();
    assert!(readiness.is_ready());
    sim.begin_drain(PATIENCE);
    assert_eq!(readiness.stage(), Stage::Draining);
    assert!(!readiness.is_ready());
}

#[test]
fn what_is_stopped_serves_on_for_the_lame_duck_time_and_is_not_ready_meanwhile() {
    let running = echo().lame_duck(Duration::from_secs(1)).start().unwrap();
    let (readiness, addr) = (running.handle().readiness(), running.local_addrs()[0].clone());
    let began = Instant::now();
    let stopped = std::thread::spawn(move || (running.stop(PATIENCE).unwrap(), began.elapsed()));
    wait_for(&readiness, Stage::LameDuck);
    assert!(!readiness.is_ready());
    // Asked while it certainly serves on, or it is too late to ask.
    let serves = serves(&addr);
    if readiness.stage() == Stage::LameDuck {
        assert!(serves);
    }
    let (report, took) = stopped.join().unwrap();
    assert!(took >= Duration::from_secs(1), "{took:?}");
    assert!(report.took < Duration::from_secs(30));
    assert_eq!(
        TcpStream::connect(addr.as_socket_addr().unwrap()).unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
}

#[test]
fn a_drain_that_the_program_begins_has_no_lame_duck_time() {
    let running = echo().lame_duck(LONG).start().unwrap();
    running.handle().drain(PATIENCE);
    running.wait().unwrap();
}

#[test]
fn a_drain_that_the_program_begins_ends_the_lame_duck_time() {
    let running = echo().lame_duck(LONG).start().unwrap();
    let handle = running.handle().clone();
    let stopped = std::thread::spawn(move || running.stop(PATIENCE).unwrap());
    wait_for(&handle.readiness(), Stage::LameDuck);
    handle.drain(PATIENCE);
    stopped.join().unwrap();
}

#[test]
fn dropping_a_runtime_waits_for_no_lame_duck_time() {
    drop(echo().lame_duck(LONG).start().unwrap());
}

/// Sends this process a signal.
fn raise(signal: libc::c_int) {
    #[expect(unsafe_code, reason = "kill(2) has no safe form")]
    // SAFETY: kill(2) and getpid(2) take no pointers.
    let sent = unsafe { libc::kill(std::process::id().cast_signed(), signal) };
    assert_eq!(sent, 0);
}

/// Gives the signals of the tests below their usual action: a test that runs in the background of a shell begins with some ignored.
fn by_default() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        #[expect(unsafe_code, reason = "signal(2) has no safe form")]
        // SAFETY: SIG_DFL is a number.
        let before = unsafe { libc::signal(signal, libc::SIG_DFL) };
        assert_ne!(before, libc::SIG_ERR);
    }
}

/// A runtime with a lame-duck time for ever that was sent SIGTERM, and what its end is awaited by.
fn signalled() -> (netpoll_core::Handle, netpoll_core::Address, std::thread::JoinHandle<netpoll_core::Report>)
{
    by_default();
    let running = echo().lame_duck(LONG).stop_on_signals(true).start().unwrap();
    let (handle, addr) = (running.handle().clone(), running.local_addrs()[0].clone());
    let ended = std::thread::spawn(move || running.wait().unwrap());
    assert!(handle.readiness().is_ready());
    raise(libc::SIGTERM);
    wait_for(&handle.readiness(), Stage::LameDuck);
    (handle, addr, ended)
}

#[test]
fn behind_the_first_signal_it_serves_on_and_the_second_begins_the_drain() {
    assert!(alone(module_path!(), "two_signals").success());
}

/// Run by `behind_the_first_signal_it_serves_on_and_the_second_begins_the_drain`.
#[test]
#[ignore = "needs a process of its own"]
fn two_signals() {
    let (handle, addr, ended) = signalled();
    for _ in 0..20 {
        assert!(serves(&addr), "newcomers are served");
    }
    assert_eq!(handle.readiness().stage(), Stage::LameDuck);
    raise(libc::SIGINT);
    ended.join().unwrap();
    assert!(!serves(&addr));
}

#[test]
fn a_third_signal_ends_the_process() {
    assert_eq!(alone(module_path!(), "three_signals").signal(), Some(libc::SIGHUP));
}

/// Run by `a_third_signal_ends_the_process`.
#[test]
#[ignore = "needs a process of its own"]
fn three_signals() {
    let (handle, addr, ended) = signalled();
    let mut held = TcpStream::connect(addr.as_socket_addr().unwrap()).unwrap();
    held.write_all(b"x").unwrap();
    held.read_exact(&mut [0]).unwrap();
    raise(libc::SIGINT);
    wait_for(&handle.readiness(), Stage::Draining);
    raise(libc::SIGHUP);
    ended.join().unwrap();
}

#[test]
fn in_a_drain_behind_a_lame_duck_time_that_has_passed_the_second_signal_ends_the_process() {
    assert_eq!(alone(module_path!(), "a_late_second_signal").signal(), Some(libc::SIGINT));
}

/// Run by `in_a_drain_behind_a_lame_duck_time_that_has_passed_the_second_signal_ends_the_process`.
#[test]
#[ignore = "needs a process of its own"]
fn a_late_second_signal() {
    by_default();
    let running = echo().lame_duck(MOMENT).stop_on_signals(true).start().unwrap();
    let readiness = running.handle().readiness();
    let mut held = TcpStream::connect(running.local_addrs()[0].as_socket_addr().unwrap()).unwrap();
    held.write_all(b"x").unwrap();
    held.read_exact(&mut [0]).unwrap();
    let ended = std::thread::spawn(move || running.wait().unwrap());
    raise(libc::SIGTERM);
    wait_for(&readiness, Stage::Draining);
    raise(libc::SIGINT);
    ended.join().unwrap();
}
