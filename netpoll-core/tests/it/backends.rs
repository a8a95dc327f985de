//! Which driver workers run on, and who says so. The program's word counts before that of the environment.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

#[cfg(feature = "mio")]
use netpoll_core::WaitStrategy;
use netpoll_core::{Backend, Budget, Builder, Conn, Flow, Input, Protocol, Runtime, Workers};

#[cfg(feature = "uring")]
use crate::support::Echo;

const VARIABLE: &str = "NETPOLL_BACKEND";

fn builder() -> Builder {
    Runtime::builder().workers(Workers::Count(1)).pin(false)
}

/// The backend that a runtime with these settings has.
fn started(builder: Builder) -> io::Result<&'static str> {
    Ok(builder.start()?.handle().setup().backend)
}

/// The one of a runtime that is left alone.
const BEST: &str = if cfg!(all(target_os = "linux", not(netpoll_portable))) { "epoll" } else { "mio" };

/// Its name for programs.
fn best() -> Backend {
    BEST.parse().unwrap()
}

/// Whether this build has that one too.
fn has_mio() -> bool {
    cfg!(feature = "mio") || BEST == "mio"
}

/// A process of its own for a test, with this value of the variable, or without it.
fn with(value: Option<&str>, test: &str) {
    let name =
        module_path!().split_once("::").map_or(test.to_owned(), |(_, module)| format!("{module}::{test}"));
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &name, "--ignored", "--test-threads=1"]).env_remove(VARIABLE);
    let output = command.envs(value.map(|value| (VARIABLE, value))).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("1 passed"), "{name}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_backend_that_the_program_names_is_the_one_that_its_workers_have() {
    assert_eq!(started(builder().backend(best())).unwrap(), BEST);
    let said = builder().backend(best()).on_start(|worker, _commands| {
        assert_eq!(worker.handle.setup().backend, BEST);
    });
    said.block_on(async {}).unwrap();
}

#[test]
fn without_a_word_of_anybody_workers_run_on_epoll_where_there_is_one() {
    with(None, "runs_on_the_best");
    with(Some(""), "runs_on_the_best");
    with(Some("auto"), "runs_on_the_best");
}

#[test]
#[ignore = "in a process of its own, see above"]
fn runs_on_the_best() {
    assert_eq!(started(builder()).unwrap(), BEST);
}

#[cfg(feature = "uring")]
#[test]
fn a_ring_serves_where_the_machine_has_one_and_is_refused_with_the_cause_elsewhere() {
    let listening = builder().backend(Backend::Uring).listen("127.0.0.1:0", |_worker| |_peer| Echo).unwrap();
    let server = match listening.start() {
        Ok(server) => server,
        Err(error) => return assert!(error.to_string().starts_with("io_uring cannot be used: "), "{error}"),
    };
    assert_eq!(server.handle().setup().backend, "uring");
    let mut client = TcpStream::connect(server.local_addrs()[0].as_socket_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    for _ in 0..200 {
        client.write_all(b"there and back").unwrap();
        let mut back = [0; 14];
        client.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"there and back");
    }
    drop(client);
    let stats = server.stop(Duration::from_secs(10)).unwrap().stats;
    assert_eq!((stats.received_bytes, stats.sent_bytes), (2800, 2800));
    assert_eq!(
        (stats.syscalls_recv, stats.syscalls_send, stats.syscalls_ctl),
        (0, 0, 0),
        "the waits do it all"
    );
}

#[test]
fn a_backend_that_is_none_is_an_error_of_the_start_that_names_the_variable_and_those_that_are() {
    with(Some("kqueue"), "is_refused");
}

#[test]
#[ignore = "in a process of its own, see above"]
fn is_refused() {
    let blocked = builder().block_on(async {}).unwrap_err();
    for error in [started(builder()).unwrap_err(), blocked] {
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().starts_with("NETPOLL_BACKEND: `kqueue` is not one of "), "{error}");
    }
    // Whoever names one does not ask the environment.
    assert_eq!(started(builder().backend(best())).unwrap(), BEST);
}

#[test]
fn a_backend_that_this_build_lacks_is_an_error_of_the_start_that_says_how_to_get_it() {
    let mio = started(builder().backend(Backend::Mio));
    if has_mio() {
        assert_eq!(mio.unwrap(), "mio");
        return;
    }
    let error = mio.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(
        error.to_string(),
        "this build has no backend `mio`: it comes with the feature `mio` of netpoll-core"
    );
}

#[test]
fn epoll_is_an_error_of_the_start_that_says_what_there_is_where_there_is_none() {
    match started(builder().backend(Backend::Epoll)) {
        Ok(backend) => assert_eq!((backend, BEST), ("epoll", "epoll")),
        Err(error) => {
            assert_eq!((error.kind(), BEST), (ErrorKind::Unsupported, "mio"));
            assert_eq!(
                error.to_string(),
                "the backend `epoll` is Linux's: this system has the backend `mio`"
            );
        }
    }
}

#[test]
fn the_environment_chooses_a_backend_where_the_program_does_not() {
    with(Some("mio"), "runs_on_mio_if_this_build_has_it");
}

#[test]
#[ignore = "in a process of its own, see above"]
fn runs_on_mio_if_this_build_has_it() {
    match started(builder()) {
        Ok(backend) => assert!(has_mio() && backend == "mio", "{backend}"),
        Err(error) => {
            assert!(!has_mio(), "{error}");
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().starts_with("NETPOLL_BACKEND: this build has no backend `mio`"));
        }
    }
    assert_eq!(started(builder().backend(best())).unwrap(), BEST);
}

#[test]
#[cfg(feature = "mio")]
fn a_wait_strategy_that_a_backend_lacks_is_an_error_of_the_start_that_says_which_has_it() {
    let wait = WaitStrategy::KernelBusyPoll { usecs: 50, budget: 8, prefer: false };
    let error = started(builder().backend(Backend::Mio).wait(wait)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(
        error.to_string(),
        "the backend `mio` has no kernel busy polling: take `epoll`, or another wait strategy"
    );
}

#[test]
fn what_stands_beside_the_workers_has_their_backend() {
    let backend = if has_mio() { Backend::Mio } else { Backend::Epoll };
    let (sender, beside) = mpsc::channel();
    let builder = builder().backend(backend).beside(move |_handle, builder| {
        let running = builder.start()?;
        sender.send(running.handle().setup().backend).unwrap();
        Ok(running)
    });
    assert_eq!(started(builder).unwrap(), backend.to_string());
    assert_eq!(beside.recv().unwrap(), backend.to_string());
}

/// An echo that keeps its worker busy when asked to "hold", until it is released.
#[derive(Clone)]
struct Holding {
    held: mpsc::Sender<()>,
    released: Arc<Mutex<mpsc::Receiver<()>>>,
}

impl Protocol for Holding {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        conn.send(input.bytes());
        if input.bytes() == b"hold" {
            self.held.send(()).unwrap();
            self.released.lock().unwrap().recv().unwrap();
        }
        input.advance_all();
        Flow::Continue
    }
}

#[test]
fn a_wait_brings_no_more_events_than_the_budget_and_what_it_leaves_comes_in_the_next() {
    let ((held, is_held), (release, released)) = (mpsc::channel(), mpsc::channel());
    let holding = Holding { held, released: Arc::new(Mutex::new(released)) };
    let server = builder().budget(Budget::fixed(4)).listen("127.0.0.1:0", move |_worker| {
        let holding = holding.clone();
        move |_peer| holding.clone()
    });
    let server = server.unwrap().start().unwrap();
    let addr = server.local_addrs()[0].as_socket_addr().unwrap();
    let mut clients: Vec<TcpStream> = (0..41).map(|_| TcpStream::connect(addr).unwrap()).collect();
    let echoed = |client: &mut TcpStream, len: usize| {
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut echo = vec![0; len];
        client.read_exact(&mut echo).unwrap();
    };
    for client in &mut clients {
        client.write_all(b"x").unwrap();
        echoed(client, 1);
    }
    let (holder, others) = clients.split_first_mut().unwrap();
    holder.write_all(b"hold").unwrap();
    is_held.recv().unwrap();
    let before = server.handle().stats();
    for client in &mut *others {
        client.write_all(b"x").unwrap();
    }
    release.send(()).unwrap();
    for client in others {
        echoed(client, 1);
    }
    echoed(holder, 4);
    drop(clients);
    let stats = server.stop(Duration::from_secs(10)).unwrap().stats.since(&before);
    assert!(stats.waits_saturated >= 40 / 4, "{stats:?}");
    assert!(stats.events <= 4 * (stats.waits_blocked + stats.waits_polled), "{stats:?}");
}
