//! What a service manager hears of a runtime.

use std::ffi::OsString;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use netpoll_core::{Builder, Conn, Flow, Input, Protocol, Runtime, ServiceManager, Stage, Workers};

use crate::support::Echo;

const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than any test runs.
const LONG: Duration = Duration::from_secs(600);
const STUCK: Duration = Duration::from_millis(200);

/// A manager at an abstract name of its own.
#[cfg(all(target_os = "linux", not(netpoll_portable)))]
fn listen(test: &str) -> (UnixDatagram, String) {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;
    let name = format!("netpoll-{test}-{}", std::process::id());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    (socket, format!("@{name}"))
}

/// A manager at a path of its own, where there are no other names.
#[cfg(not(all(target_os = "linux", not(netpoll_portable))))]
fn listen(test: &str) -> (UnixDatagram, String) {
    let path = std::env::temp_dir().join(format!("netpoll-{test}-{}", std::process::id()));
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    (socket, path.to_str().unwrap().to_owned())
}

fn hear(socket: &UnixDatagram) -> String {
    let mut line = [0; 256];
    let length = socket.recv(&mut line).expect("the manager is told");
    String::from_utf8(line[..length].to_vec()).unwrap()
}

fn echo() -> Builder {
    let builder = Runtime::builder().workers(Workers::Count(2));
    builder.listen("127.0.0.1:0", |_worker| |_peer| Echo).unwrap()
}

fn variables(of: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    of.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

#[test]
fn a_manager_hears_that_it_serves_and_that_it_stops_and_nothing_else() {
    let (socket, address) = listen("serves");
    let variables = variables(&[("HOME", "/"), ("NOTIFY_SOCKET", &address)]);
    let manager = ServiceManager::of_variables(variables).unwrap().unwrap();
    assert_eq!(manager.watchdog_every(), None);
    let running = echo().lame_duck(LONG).service_manager(manager).start().unwrap();
    assert_eq!(hear(&socket), "READY=1");
    let handle = running.handle().clone();
    let stopped = std::thread::spawn(move || running.stop(PATIENCE).unwrap());
    assert_eq!(hear(&socket), "STOPPING=1");
    assert_eq!(handle.readiness().stage(), Stage::LameDuck, "not only when the drain begins");
    handle.drain(PATIENCE);
    stopped.join().unwrap();
    socket.set_nonblocking(true).unwrap();
    assert_eq!(socket.recv(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_manager_at_a_path_hears_as_much() {
    let path = std::env::temp_dir().join(format!("netpoll-notify-{}.sock", std::process::id()));
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let running = echo().service_manager(ServiceManager::at(&path).unwrap()).start().unwrap();
    assert_eq!(hear(&socket), "READY=1");
    ServiceManager::at(&path).unwrap().tell("STATUS=well").unwrap();
    assert_eq!(hear(&socket), "STATUS=well");
    drop(running);
    assert_eq!(hear(&socket), "STOPPING=1");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn what_does_not_start_is_never_ready() {
    let (socket, address) = listen("fails");
    let builder = echo().service_manager(ServiceManager::at(address).unwrap().watchdog(LONG));
    let failing = builder.try_state(|_worker| Err::<u8, _>(std::io::Error::other("no disk")));
    assert!(failing.start().is_err());
    socket.set_nonblocking(true).unwrap();
    let mut line = [0; 64];
    while let Ok(length) = socket.recv(&mut line) {
        assert_eq!(&line[..length], b"WATCHDOG=1");
    }
}

/// Blocks its worker for each byte until the test lets it go.
struct Blocks(Arc<Mutex<mpsc::Receiver<()>>>);

impl Protocol for Blocks {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        self.0.lock().unwrap().recv().unwrap();
        conn.send(b"x");
        Flow::Close
    }
}

#[test]
fn a_manager_hears_that_it_lives_only_while_all_workers_turn() {
    let (socket, address) = listen("lives");
    let (let_go, release) = mpsc::channel();
    let release = Arc::new(Mutex::new(release));
    let builder = Runtime::builder().workers(Workers::Count(2)).stuck_turn(STUCK);
    let builder = builder.service_manager(ServiceManager::at(address).unwrap().watchdog(STUCK * 2));
    let builder = builder.listen("127.0.0.1:0", move |_worker| {
        let release = Arc::clone(&release);
        move |_peer| Blocks(Arc::clone(&release))
    });
    let running = builder.unwrap().start().unwrap();
    // Dropped before it, or a test that fails would wait for the worker for ever.
    let let_go = let_go;
    let handle = running.handle();
    // That it lives may be said before that it is ready, however often.
    let (mut is_ready, mut lives) = (false, 0);
    while !is_ready || lives < 3 {
        match hear(&socket).as_str() {
            "READY=1" => assert!(!std::mem::replace(&mut is_ready, true), "once"),
            said => {
                assert_eq!(said, "WATCHDOG=1");
                lives += 1;
            }
        }
    }

    let mut client = TcpStream::connect(running.local_addrs()[0].as_socket_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"x").unwrap();
    let began = Instant::now();
    while !handle.stuck().iter().any(|(_, age)| *age > STUCK * 2) {
        assert!(began.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    // What was said before.
    socket.set_nonblocking(true).unwrap();
    while socket.recv(&mut [0; 64]).is_ok() {}
    socket.set_nonblocking(false).unwrap();
    socket.set_read_timeout(Some(STUCK * 3)).unwrap();
    assert!(socket.recv(&mut [0; 64]).is_err(), "in more time than it gives");
    assert!(!handle.stuck().is_empty());

    let_go.send(()).unwrap();
    client.read_exact(&mut [0]).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(hear(&socket), "WATCHDOG=1");
}

#[test]
fn where_nobody_asks_for_it_or_nobody_listens_nothing_is_lost() {
    assert!(ServiceManager::of_variables(variables(&[("WATCHDOG_USEC", "30000000")])).unwrap().is_none());
    assert!(ServiceManager::of_variables(variables(&[("NOTIFY_SOCKET", "")])).unwrap().is_none());
    let (gone, address) = listen("nobody");
    drop(gone);
    let nobody = ServiceManager::at(address).unwrap();
    assert_eq!(nobody.tell("READY=1").unwrap_err().kind(), ErrorKind::ConnectionRefused);
    echo().service_manager(nobody).start().unwrap().stop(PATIENCE).unwrap();
}

#[test]
fn the_watchdog_of_a_manager_is_that_of_its_process() {
    let of = |pid: &str| {
        let named = [("NOTIFY_SOCKET", "/x"), ("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", pid)];
        ServiceManager::of_variables(variables(&named)).unwrap().unwrap().watchdog_every()
    };
    assert_eq!(of(&std::process::id().to_string()), Some(Duration::from_secs(3)));
    assert_eq!(of("1"), None);
    let named = [("WATCHDOG_USEC", "3000000"), ("NOTIFY_SOCKET", "/x")];
    let manager = ServiceManager::of_variables(variables(&named)).unwrap().unwrap();
    assert_eq!(manager.watchdog_every(), Some(Duration::from_secs(3)));
}

#[test]
fn a_variable_that_makes_no_sense_is_named() {
    let long = format!("/{}", "x".repeat(200));
    for (name, value) in [
        ("NOTIFY_SOCKET", "vsock:2:1234"),
        ("NOTIFY_SOCKET", "@"),
        ("NOTIFY_SOCKET", &long),
        ("WATCHDOG_USEC", "soon"),
        ("WATCHDOG_USEC", "0"),
        ("WATCHDOG_PID", "-1"),
    ] {
        let mut all = variables(&[("NOTIFY_SOCKET", "/x"), ("WATCHDOG_USEC", "1")]);
        all.push((name.into(), value.into()));
        let error = ServiceManager::of_variables(all).expect_err(value);
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().starts_with(name), "{error}");
    }
}
