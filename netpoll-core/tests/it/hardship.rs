//! What the network and the system do to a server, on real sockets.

use std::future::poll_fn;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use netpoll_core::{
    Backend, Commands, Conn, ConnId, ConnLimits, ConnectOptions, Datagram, DatagramProtocol, DatagramSocket,
    Flow, Input, Lost, Protocol, Running, Runtime, Workers,
};

use crate::support::{Echo, backend};

/// A server of one worker whose connections report their end.
fn server<P: Protocol + Clone + Send + Sync>(protocol: P) -> Running {
    Runtime::builder()
        .workers(Workers::Count(1))
        .listen("127.0.0.1:0", move |_worker| {
            let protocol = protocol.clone();
            move |_peer| protocol.clone()
        })
        .unwrap()
        .start()
        .unwrap()
}

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Tells the test what happens to a connection.
#[derive(Clone)]
struct Reporter(mpsc::Sender<String>);

impl Reporter {
    fn pair() -> (Self, mpsc::Receiver<String>) {
        let (sender, receiver) = mpsc::channel();
        (Self(sender), receiver)
    }

    fn say(&self, what: String) {
        // The test may have ended before the server.
        let _ = self.0.send(what);
    }
}

impl Protocol for Reporter {
    fn opened(&mut self, _conn: &mut Conn<'_>) -> Flow {
        self.say("opened".to_owned());
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        let bytes = input.bytes();
        input.advance_all();
        match bytes {
            b"pause" => {
                self.say("paused".to_owned());
                return Flow::Pause;
            }
            b"flood" => conn.send(&vec![b'x'; 16 << 20]),
            b"panic" => panic!("asked to"),
            _ => conn.send(bytes),
        }
        Flow::Continue
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        self.say(format!("{reason:?}"));
    }
}

#[test]
fn a_reset_at_each_stage_leaves_no_connection_behind() {
    let (reporter, reports) = Reporter::pair();
    let server = server(reporter);
    let addr = server.local_addrs()[0].as_socket_addr().unwrap();
    for stage in ["connected", "sending", "paused", "flooded"] {
        let mut stream = connect(addr);
        assert_eq!(reports.recv().unwrap(), "opened");
        match stage {
            "sending" => stream.write_all(b"some").unwrap(),
            "paused" => {
                stream.write_all(b"pause").unwrap();
                assert_eq!(reports.recv().unwrap(), "paused");
            }
            "flooded" => {
                stream.write_all(b"flood").unwrap();
                stream.read_exact(&mut [0; 1024]).unwrap();
            }
            _ => {}
        }
        reset(stream);
        let end = reports.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(end.starts_with("Failed"), "{stage}: {end}");
    }
    let report = server.stop(Duration::from_secs(5)).unwrap();
    assert_eq!((report.stats.open(), report.cut), (0, 0));
    assert_eq!(report.stats.failed, 4);
}

#[test]
fn a_peer_that_stops_reading_is_cut_and_others_are_served_meanwhile() {
    let (reporter, reports) = Reporter::pair();
    let limits = ConnLimits::default().write_grace(Duration::from_secs(1));
    let server = Runtime::builder()
        .workers(Workers::Count(1))
        .limits(limits)
        .listen("127.0.0.1:0", move |_worker| {
            let reporter = reporter.clone();
            move |_peer| reporter.clone()
        })
        .unwrap()
        .start()
        .unwrap();
    let mut slow = connect(server.local_addrs()[0].as_socket_addr().unwrap());
    slow.write_all(b"flood").unwrap();
    let mut other = connect(server.local_addrs()[0].as_socket_addr().unwrap());
    other.write_all(b"hello").unwrap();
    let mut back = [0; 5];
    other.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello");
    loop {
        let report = reports.recv_timeout(Duration::from_secs(20)).unwrap();
        if report == "Stalled" {
            break;
        }
        assert_eq!(report, "opened");
    }
    let report = server.stop(Duration::from_secs(5)).unwrap();
    assert_eq!((report.stats.stalled, report.stats.open(), report.cut), (1, 0, 0));
}

#[test]
fn a_slow_reader_that_does_read_gets_everything() {
    let (reporter, _reports) = Reporter::pair();
    let server = server(reporter);
    let mut stream = connect(server.local_addrs()[0].as_socket_addr().unwrap());
    // Fixed, or it would grow to hold everything on some machines.
    socket2::SockRef::from(&stream).set_recv_buffer_size(64 * 1024).unwrap();
    stream.write_all(b"flood").unwrap();
    let mut left = 16 << 20;
    let mut block = [0; 8192];
    while left > 0 {
        left -= stream.read(&mut block).unwrap();
    }
    // Both socket buffers together hold less than was sent. Counters are exact once the worker has ended.
    let report = server.stop(Duration::from_secs(5)).unwrap();
    assert!(report.stats.sends_blocked > 0);
}

#[test]
fn a_storm_of_connections_is_served_and_forgotten() {
    let server = server_of_echo();
    let addr = server.local_addrs()[0].as_socket_addr().unwrap();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                for _ in 0..250 {
                    let mut stream = connect(addr);
                    stream.write_all(b"x").unwrap();
                    stream.read_exact(&mut [0]).unwrap();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let report = server.stop(Duration::from_secs(10)).unwrap();
    assert_eq!((report.stats.accepted, report.stats.closed, report.cut), (1000, 1000, 0));
    let orders = if backend() == "uring" { 0 } else { 1000 + 1 };
    assert_eq!(report.stats.syscalls_ctl, orders, "one registration for each connection and the listener");
}

fn server_of_echo() -> Running {
    Runtime::builder()
        .workers(Workers::Count(1))
        .listen("127.0.0.1:0", |_worker| |_peer| Echo)
        .unwrap()
        .start()
        .unwrap()
}

#[test]
fn a_port_that_is_taken_is_an_error_that_names_it() {
    let server = server_of_echo();
    let addr = server.local_addrs()[0].as_socket_addr().unwrap();
    for workers in [1, 2] {
        let again = Runtime::builder()
            .workers(Workers::Count(workers))
            .listen(addr, |_worker| |_peer| Echo)
            .unwrap()
            .start();
        let error = again.err().expect("the port is taken");
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&addr.to_string()), "{error}");
    }
}

/// Connects to a server and reports how that went.
struct Client(mpsc::Sender<(Option<ConnId>, String)>);

impl Protocol for Client {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        let _ = self.0.send((Some(conn.id()), "opened".to_owned()));
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        let text = String::from_utf8_lossy(input.bytes()).into_owned();
        input.advance_all();
        let _ = self.0.send((Some(conn.id()), text));
        Flow::Continue
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        let _ = self.0.send((None, format!("{reason:?}")));
    }
}

#[test]
fn an_outgoing_connection_talks_to_a_server_from_any_thread() {
    let server = server_of_echo();
    let clients = Runtime::builder().workers(Workers::Count(2)).start().unwrap();
    let (sender, reports) = mpsc::channel();
    let to = server.local_addrs()[0].as_socket_addr().unwrap();
    clients.handle().connect(1, to, ConnectOptions::default(), Client(sender));
    let (id, what) = reports.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(what, "opened");
    let id = id.unwrap();
    assert_eq!(id.worker(), 1);

    clients.handle().send(id, Bytes::from_static(b"hello"));
    assert_eq!(reports.recv_timeout(Duration::from_secs(20)).unwrap().1, "hello");
    clients.handle().close(id);
    assert_eq!(reports.recv_timeout(Duration::from_secs(20)).unwrap().1, "Closed");
    clients.handle().send(id, Bytes::from_static(b"to nobody"));
    assert_eq!(clients.stop(Duration::from_secs(5)).unwrap().stats.connected, 1);
}

#[test]
fn a_refused_outgoing_connection_says_so() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = unused.local_addr().unwrap();
    drop(unused);
    let clients = Runtime::builder().workers(Workers::Count(1)).start().unwrap();
    let (sender, reports) = mpsc::channel();
    clients.handle().connect(0, to, ConnectOptions::default(), Client(sender));
    let (_, what) = reports.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(what.contains("ConnectFailed") && what.contains("refused"), "{what}");
}

#[test]
fn an_outgoing_connection_is_never_its_own_peer() {
    let unused = std::net::TcpListener::bind("127.7.7.7:0").unwrap();
    let to = unused.local_addr().unwrap();
    drop(unused);
    let clients = Runtime::builder().workers(Workers::Count(1)).start().unwrap();
    let (sender, reports) = mpsc::channel();
    // What the kernel picks once in 28 thousand times.
    let options = ConnectOptions::default().from(to);
    clients.handle().connect(0, to, options, Client(sender));
    let (_, what) = reports.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(what.contains("ConnectFailed") && what.contains("refused"), "{what}");
    std::net::TcpListener::bind(to).expect("nothing is left at the port");
}

#[test]
fn an_outgoing_connection_that_nobody_answers_times_out() {
    // A listener with a full queue ignores further SYNs.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.listen(0).unwrap();
    let to = socket.local_addr().unwrap().as_socket().unwrap();
    let clients = Runtime::builder().workers(Workers::Count(1)).start().unwrap();
    let (sender, reports) = mpsc::channel();
    let options = ConnectOptions::default().timeout(Duration::from_millis(300));
    for _ in 0..8 {
        clients.handle().connect(0, to, options, Client(sender.clone()));
    }
    loop {
        let (_, what) = reports.recv_timeout(Duration::from_secs(20)).unwrap();
        if what.contains("ConnectFailed") {
            assert!(what.contains("TimedOut") || what.contains("timed out"), "{what}");
            break;
        }
    }
}

/// Runs one test of this program in a process of its own, under a shell command that sets limits first.
pub fn alone(test: &str, limits: &str) {
    let program = std::env::current_exe().unwrap();
    let script = format!("{limits} exec \"$0\" --exact {test} --ignored --nocapture --test-threads=1");
    let status = Command::new("sh")
        .arg("-c")
        .arg(script)
        .arg(program)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{test}: {status}");
}

#[test]
fn running_out_of_descriptors_sheds_and_recovers() {
    alone("hardship::with_few_descriptors", "ulimit -n 40;");
}

/// Run by `running_out_of_descriptors_sheds_and_recovers` with 40 descriptors.
#[test]
#[ignore = "needs a process of its own"]
fn with_few_descriptors() {
    let server = server_of_echo();
    let addr = server.local_addrs()[0].as_socket_addr().unwrap();
    let mut first = connect(addr);
    first.write_all(b"a").unwrap();
    first.read_exact(&mut [0]).unwrap();
    // Client and server share the limit. The crowd takes all descriptors before it connects, so that none is left for
    // the server's ends.
    let mut crowd = Vec::new();
    while let Ok(socket) = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None) {
        crowd.push(socket);
    }
    for socket in &crowd {
        socket.connect(&addr.into()).unwrap();
    }
    let mut wait = 0;
    while server.handle().stats().descriptors_exhausted == 0 {
        std::thread::yield_now();
        wait += 1;
        assert!(wait < 100_000_000, "the server never ran out");
    }
    first.write_all(b"b").unwrap();
    first.read_exact(&mut [0]).unwrap();

    crowd.clear();
    // Until the server has seen the crowd go there may be no descriptor for us, or it sheds us; then it serves again.
    let patience = Instant::now() + Duration::from_secs(20);
    let mut served = false;
    while !served && Instant::now() < patience {
        std::thread::yield_now();
        served = TcpStream::connect(addr)
            .is_ok_and(|mut late| late.write_all(b"c").and_then(|()| late.read_exact(&mut [0])).is_ok());
    }
    assert!(served, "nobody is served after the shortage");
    let stats = server.handle().stats();
    assert!(stats.descriptors_exhausted < 100, "it pauses instead of spinning: {stats:?}");
}

#[test]
fn a_start_without_descriptors_says_how_many_there_may_be_and_who_allows_more() {
    for limit in [5, 6, 8, 10, 12] {
        alone("hardship::without_descriptors_to_start", &format!("ulimit -Sn {limit};"));
    }
}

/// Run by `a_start_without_descriptors_says_how_many_there_may_be_and_who_allows_more` with hardly any descriptors.
#[test]
#[ignore = "needs a process of its own"]
fn without_descriptors_to_start() {
    let (limit, _) = netpoll_core::open_files().unwrap();
    let words: &[&str] = &["epoll", "mio", "uring"];
    for backend in words.iter().filter_map(|word| word.parse::<Backend>().ok()) {
        let builder = Runtime::builder().workers(Workers::Count(4)).pin(false).backend(backend);
        let said = match builder.listen("127.0.0.1:0", |_worker| |_peer| Echo).unwrap().start() {
            // As a `main` that returns it shows it.
            Err(error) if error.kind() != std::io::ErrorKind::Unsupported => format!("{error:?}"),
            // Not in this build.
            Err(error) => {
                assert!(error.to_string().contains("feature"), "{error}");
                continue;
            }
            Ok(_) => panic!("{backend}: four workers take more than {limit} descriptors"),
        };
        assert!(said.contains(&format!("may have {limit}: `ulimit -n`")), "{backend}: {said}");
        assert!(!said.contains("6.1"), "it is not the kernel: {said}");
    }
    // What was refused is asked for again.
    netpoll_core::raise_open_files(500).unwrap();
    for backend in words.iter().filter_map(|word| word.parse::<Backend>().ok()) {
        let builder = Runtime::builder().workers(Workers::Count(4)).pin(false).backend(backend);
        if let Err(error) = builder.start() {
            assert!(!error.to_string().contains("open files"), "{backend}: {error}");
        }
    }
}

#[test]
fn after_shortages_with_two_workers_each_of_them_serves() {
    alone("hardship::with_few_descriptors_and_two_workers", "ulimit -n 64;");
}

/// Run by `after_shortages_with_two_workers_each_of_them_serves` with 64 descriptors.
#[test]
#[ignore = "needs a process of its own"]
fn with_few_descriptors_and_two_workers() {
    let server = Runtime::builder()
        .workers(Workers::Count(2))
        .listen("127.0.0.1:0", |_worker| |_peer| Echo)
        .unwrap()
        .start()
        .unwrap();
    let addr = server.local_addrs()[0].as_socket_addr().unwrap();
    let patience = Instant::now() + Duration::from_secs(60);
    let mut before = 0;
    for round in 0..4 {
        // Both workers want the descriptors that the other one, and the crowd, let go.
        let mut crowd = Vec::new();
        while let Ok(socket) = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None) {
            crowd.push(socket);
        }
        for socket in &crowd {
            socket.connect(&addr.into()).unwrap();
        }
        while (0..2).any(|worker| server.handle().worker_stats(worker).descriptors_exhausted <= before) {
            std::thread::yield_now();
            assert!(Instant::now() < patience, "round {round}: nobody ran out");
        }
        crowd.clear();
        let mut served = [false; 2];
        while served != [true; 2] {
            std::thread::yield_now();
            assert!(Instant::now() < patience, "round {round}: served by {served:?}");
            let accepted = |worker| server.handle().worker_stats(worker).accepted;
            let counts = [accepted(0), accepted(1)];
            let Ok(mut late) = TcpStream::connect(addr) else { continue };
            late.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            if late.write_all(b"c").and_then(|()| late.read_exact(&mut [0])).is_ok() {
                served = [served[0] || accepted(0) > counts[0], served[1] || accepted(1) > counts[1]];
            }
        }
        before =
            (0..2).map(|worker| server.handle().worker_stats(worker).descriptors_exhausted).max().unwrap();
    }
    let stats = server.handle().stats();
    assert!(stats.descriptors_exhausted < 400, "they pause instead of spinning: {stats:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn signals_that_rain_on_a_worker_cost_nobody_a_byte() {
    alone("hardship::under_a_rain_of_signals", "");
}

#[cfg(target_os = "linux")]
extern "C" fn do_nothing(_: libc::c_int) {}

/// Run by `signals_that_rain_on_a_worker_cost_nobody_a_byte`: what signals do, they do to the whole process.
#[test]
#[cfg(target_os = "linux")]
#[ignore = "needs a process of its own"]
fn under_a_rain_of_signals() {
    // A wait of epoll is interrupted by a handler whatever its flags are (signal(7)).
    #[expect(unsafe_code, reason = "signal(2) has no safe form")]
    // SAFETY: the handler is a static function that does nothing, which is async-signal-safe.
    unsafe {
        libc::signal(libc::SIGALRM, do_nothing as *const () as libc::sighandler_t)
    };
    let server = server_of_echo();
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let worker = tasks
        .into_iter()
        .find(|task| std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "netpoll-0"));
    let worker: libc::pid_t = worker.unwrap().file_name().unwrap().to_str().unwrap().parse().unwrap();

    let process = std::process::id() as libc::pid_t;
    let (stop, rain) = (std::sync::atomic::AtomicBool::new(false), std::sync::atomic::AtomicU64::new(0));
    let relaxed = std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(relaxed) {
                #[expect(unsafe_code, reason = "tgkill(2) has no safe form")]
                // SAFETY: tgkill takes numbers only, and the thread lives until the server is stopped.
                let sent = unsafe { libc::syscall(libc::SYS_tgkill, process, worker, libc::SIGALRM) };
                assert_eq!(sent, 0);
                rain.fetch_add(1, relaxed);
                std::thread::yield_now();
            }
        });
        let mut stream = connect(server.local_addrs()[0].as_socket_addr().unwrap());
        let mut rounds = 0;
        // Until many have come, and many bytes have passed, some of which did not fit into the socket.
        while rounds < 300 || rain.load(relaxed) < 3000 {
            let sent = vec![rounds as u8; 1 + rounds * 977 % 100_000];
            let mut writer = stream.try_clone().unwrap();
            let mut back = vec![0; sent.len()];
            std::thread::scope(|scope| {
                scope.spawn(|| writer.write_all(&sent).unwrap());
                stream.read_exact(&mut back).unwrap();
            });
            assert!(back == sent, "round {rounds}");
            rounds += 1;
        }
        stop.store(true, relaxed);
    });
    let stats = server.stop(Duration::from_secs(20)).unwrap().stats;
    assert_eq!((stats.accepted, stats.failed), (1, 0), "{stats:?}");
}

#[test]
fn a_listener_that_is_paused_lets_its_worker_sleep() {
    alone("hardship::with_no_descriptor_for_a_queued_peer", "ulimit -n 40;");
}

/// Run by `a_listener_that_is_paused_lets_its_worker_sleep` with 40 descriptors.
#[test]
#[ignore = "needs a process of its own"]
fn with_no_descriptor_for_a_queued_peer() {
    let server = server_of_echo();
    let addr = server.local_addrs()[0].as_socket_addr().unwrap();
    let mut crowd = Vec::new();
    while let Ok(socket) = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None) {
        crowd.push(socket);
    }
    for socket in &crowd {
        socket.connect(&addr.into()).unwrap();
    }
    let patience = Instant::now() + Duration::from_secs(20);
    while server.handle().stats().descriptors_exhausted < 4 {
        std::thread::yield_now();
        assert!(Instant::now() < patience, "the server never ran out");
    }
    let stats = server.handle().stats();
    assert!(stats.syscalls_wait < 100, "it sleeps through its pauses: {stats:?}");
    if server.handle().setup().backend == "uring" {
        return;
    }
    // Paused four times, told to go on three times.
    assert!((1 + 7..1 + 12).contains(&stats.syscalls_ctl), "what it costs is counted: {stats:?}");
}

#[test]
fn a_runtime_used_in_a_forked_child_panics_clearly() {
    alone("hardship::forks", "");
}

/// Run by `a_runtime_used_in_a_forked_child_panics_clearly`.
#[test]
#[ignore = "needs a process of its own"]
fn forks() {
    let server = server_of_echo();
    // The child only runs a closure that must panic; nothing in it touches the parent's sockets.
    let outcome = forked(|| {
        let used = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| server.handle().stats()));
        used.err().is_some_and(|panic| {
            panic.downcast_ref::<&str>().is_some_and(|text| text.contains("forked child"))
        })
    });
    assert!(outcome, "the child did not panic, or not clearly");
    assert_eq!(server.handle().stats().panics, 0);
}

#[test]
fn a_second_runtime_that_wants_the_stop_signals_is_told_who_has_them() {
    alone("hardship::wants_the_stop_signals_twice", "");
}

/// Run by `a_second_runtime_that_wants_the_stop_signals_is_told_who_has_them`.
#[test]
#[ignore = "needs a process of its own"]
fn wants_the_stop_signals_twice() {
    let one = || Runtime::builder().workers(Workers::Count(1)).stop_on_signals(true).start();
    let _first = one().unwrap();
    let error = one().err().expect("the signals are taken");
    assert_eq!(error.kind(), ErrorKind::ResourceBusy);
    assert!(error.to_string().contains("another runtime"), "{error}");
}

#[test]
fn a_worker_that_ends_by_an_error_tells_its_connections_and_is_named() {
    alone("hardship::loses_its_epoll", "");
}

/// Run by `a_worker_that_ends_by_an_error_tells_its_connections_and_is_named`.
#[test]
#[ignore = "needs a process of its own"]
fn loses_its_epoll() {
    let (reporter, reports) = Reporter::pair();
    let server = server(reporter.clone());
    if backend() == "uring" {
        // A ring is not waited for by its descriptor.
        return;
    }
    let mut client = connect(server.local_addrs()[0].as_socket_addr().unwrap());
    assert_eq!(reports.recv().unwrap(), "opened");
    // Behind its first words: by the next ones the worker has registered it.
    for _ in 0..2 {
        client.write_all(b"hello").unwrap();
        client.read_exact(&mut [0; 5]).unwrap();
    }
    let epoll = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| std::fs::read_link(path).is_ok_and(|to| to.ends_with("anon_inode:[eventpoll]")))
        .and_then(|path| path.file_name()?.to_str()?.parse::<i32>().ok())
        .expect("the worker has an epoll");
    let null = std::fs::File::open("/dev/null").unwrap();
    #[expect(unsafe_code, reason = "dup2(2) over a descriptor of somebody else has no safe form")]
    // SAFETY: dup2 takes no pointers. The number stays a valid descriptor, so that its owner closes one; that it is no
    // epoll any more is what this test is about.
    let replaced = unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&null), epoll) };
    assert_eq!(replaced, epoll);
    // The worker waits on the old one still; it wakes up, answers, and cannot wait again.
    client.write_all(b"hello").unwrap();
    assert_eq!(reports.recv_timeout(Duration::from_secs(20)).unwrap(), "Cut");
    let handle = server.handle().clone();
    let error = server.wait().expect_err("the worker has ended").to_string();
    assert!(error.starts_with("worker 0 ended:"), "{error}");
    assert_eq!(handle.stats().open(), 0);
    handle.connect(0, SocketAddr::from(([127, 0, 0, 1], 1)), ConnectOptions::default(), reporter);
    assert!(reports.recv_timeout(Duration::from_secs(20)).unwrap().contains("NotConnected"));
}

#[test]
fn each_stop_signal_drains() {
    alone("hardship::stops_by_signals", "");
}

/// Run by `each_stop_signal_drains`.
#[test]
#[ignore = "needs a process of its own"]
fn stops_by_signals() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        #[expect(unsafe_code, reason = "signal(2) has no safe form")]
        // SAFETY: signal takes no pointers but this constant. The signal may have been ignored when the test began.
        let was = unsafe { libc::signal(signal, libc::SIG_DFL) };
        assert_ne!(was, libc::SIG_ERR);
        let server = Runtime::builder()
            .workers(Workers::Count(1))
            .stop_on_signals(true)
            .listen("127.0.0.1:0", |_worker| |_peer| Echo)
            .unwrap()
            .start()
            .unwrap();
        let mut client = connect(server.local_addrs()[0].as_socket_addr().unwrap());
        client.write_all(b"hello").unwrap();
        #[expect(unsafe_code, reason = "kill(2) has no safe form")]
        // SAFETY: kill takes no pointers.
        let sent = unsafe { libc::kill(std::process::id() as i32, signal) };
        assert_eq!(sent, 0);
        let report = server.wait().unwrap();
        client.read_exact(&mut [0; 5]).unwrap();
        assert_eq!((report.stats.accepted, report.cut), (1, 0), "{signal}");
    }
}

#[test]
fn a_child_forked_in_a_callback_harms_nothing_of_its_parent() {
    alone("hardship::forks_in_a_callback", "");
}

/// Forks when it is told to, and goes on in both processes; sends back what it gets.
struct Forker {
    fork_in: &'static [u8],
    statuses: mpsc::Sender<i32>,
}

impl Forker {
    fn fork(&self) {
        #[expect(unsafe_code, reason = "fork(2) has no safe form")]
        // SAFETY: the child goes on in the loop of its worker, which has to stop it there.
        let child = unsafe { libc::fork() };
        if child > 0 {
            let mut status = 0;
            #[expect(unsafe_code, reason = "waitpid(2) has no safe form")]
            // SAFETY: waitpid writes one int, and `status` is one that outlives the call.
            unsafe {
                libc::waitpid(child, &raw mut status, 0)
            };
            self.statuses.send(status).unwrap();
        }
    }
}

impl Protocol for Forker {
    fn opened(&mut self, _conn: &mut Conn<'_>) -> Flow {
        if self.fork_in == b"opened" {
            self.fork();
        }
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        let bytes = input.bytes();
        input.advance_all();
        if bytes == self.fork_in {
            self.fork();
        }
        match bytes {
            b"reply" => conn.send_now(bytes),
            b"large" => conn.send(&[b'x'; 100_000]),
            b"reset" => return Flow::Reset,
            _ => conn.send(bytes),
        }
        Flow::Continue
    }

    fn eof(&mut self, conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        if self.fork_in == b"eof" {
            self.fork();
        }
        conn.send(b"bye");
        Flow::Close
    }

    fn lost(&mut self, _reason: Lost, _commands: &mut Commands) {
        if self.fork_in == b"lost" {
            self.fork();
        }
    }
}

/// Run by `a_child_forked_in_a_callback_harms_nothing_of_its_parent`.
#[test]
#[ignore = "needs a process of its own"]
fn forks_in_a_callback() {
    for fork_in in [&b"accept"[..], b"opened", b"plain", b"reply", b"large", b"reset", b"eof", b"lost"] {
        let name = String::from_utf8_lossy(fork_in).into_owned();
        let (statuses, ends) = mpsc::channel();
        let server = Runtime::builder()
            .workers(Workers::Count(1))
            .listen("127.0.0.1:0", move |_worker| {
                let statuses = statuses.clone();
                move |_peer| {
                    let forker = Forker { fork_in, statuses: statuses.clone() };
                    if fork_in == b"accept" {
                        forker.fork();
                    }
                    forker
                }
            })
            .unwrap()
            .start()
            .unwrap();
        // Several at once, so that the child has something to spoil behind the callback that it was born in.
        let mut clients: Vec<TcpStream> =
            (0..4).map(|_| connect(server.local_addrs()[0].as_socket_addr().unwrap())).collect();
        for client in &mut clients {
            client.write_all(if fork_in == b"accept" { b"plain" } else { fork_in }).unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
        }
        for client in &mut clients {
            let mut answer = Vec::new();
            let end = client.read_to_end(&mut answer);
            let expected: Vec<u8> = match fork_in {
                b"reset" => {
                    assert_eq!(
                        end.err().map(|error| error.kind()),
                        Some(ErrorKind::ConnectionReset),
                        "{name}"
                    );
                    continue;
                }
                b"large" => [&[b'x'; 100_000][..], b"bye"].concat(),
                b"accept" => b"plainbye".to_vec(),
                _ => [fork_in, b"bye"].concat(),
            };
            end.unwrap();
            assert!(answer == expected, "{name}: {} bytes instead of {}", answer.len(), expected.len());
        }
        for _ in 0..4 {
            let status = ends.recv_timeout(Duration::from_secs(20)).unwrap();
            assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 101, "{name}: {status}");
        }
        let report = server.stop(Duration::from_secs(5)).unwrap();
        assert_eq!((report.stats.accepted, report.stats.panics, report.cut), (4, 0, 0), "{name}");
    }
}

#[test]
fn a_child_forked_in_a_task_takes_no_input_of_its_parent() {
    alone("hardship::forks_in_a_task", "");
}

/// Run by `a_child_forked_in_a_task_takes_no_input_of_its_parent`.
#[test]
#[ignore = "needs a process of its own"]
fn forks_in_a_task() {
    let (statuses, ends) = mpsc::channel();
    let server = Runtime::builder()
        .workers(Workers::Count(1))
        .listen_tasks("127.0.0.1:0", move |mut stream, _peer| {
            let forker = Forker { fork_in: b"", statuses: statuses.clone() };
            async move {
                let (mut room, mut waits) = (vec![0; 64 << 10], 0);
                loop {
                    let read = poll_fn(|cx| {
                        // It is polled because input is there, which it takes out of the socket itself by now.
                        if waits == 3 {
                            waits += 1;
                            forker.fork();
                        }
                        let read = stream.poll_read(cx, &mut room);
                        waits += usize::from(read.is_pending());
                        read
                    });
                    let Ok(count @ 1..) = read.await else { return };
                    stream.write_all(&room[..count]).await.unwrap();
                }
            }
        })
        .unwrap()
        .start()
        .unwrap();
    let mut client = connect(server.local_addrs()[0].as_socket_addr().unwrap());
    for round in 0..6 {
        client.write_all(&[round; 10_000]).unwrap();
        let mut answer = [0; 10_000];
        client.read_exact(&mut answer).unwrap();
        assert!(answer == [round; 10_000]);
    }
    let status = ends.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 101, "{status}");
    drop(client);
    assert_eq!(server.stop(Duration::from_secs(5)).unwrap().stats.panics, 0);
}

#[test]
fn a_child_forked_in_a_job_that_blocks_ends_there_and_its_parent_goes_on() {
    alone("hardship::forks_in_a_job", "");
}

/// Run by `a_child_forked_in_a_job_that_blocks_ends_there_and_its_parent_goes_on`.
#[test]
#[ignore = "needs a process of its own"]
fn forks_in_a_job() {
    let (statuses, ends) = mpsc::channel();
    let forker = Forker { fork_in: b"", statuses };
    let then = Runtime::block_on(async move {
        netpoll_core::blocking::spawn_blocking(move || forker.fork()).await.unwrap();
        netpoll_core::blocking::spawn_blocking(|| 7).await.unwrap()
    });
    assert_eq!(then.unwrap(), 7);
    let status = ends.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 101, "{status}");
}

#[test]
fn a_child_forked_in_code_on_a_worker_harms_nothing_of_its_parent() {
    alone("hardship::forks_in_code_on_a_worker", "");
}

/// Run by `a_child_forked_in_code_on_a_worker_harms_nothing_of_its_parent`.
#[test]
#[ignore = "needs a process of its own"]
fn forks_in_code_on_a_worker() {
    for place in ["handed over", "handed on", "a timer", "a repeated timer"] {
        let (statuses, ends) = mpsc::channel();
        let server = server_of_echo();
        let mut client = connect(server.local_addrs()[0].as_socket_addr().unwrap());
        let forker = Forker { fork_in: b"", statuses };
        server.handle().run_on(0, move |local| match place {
            "handed over" => forker.fork(),
            "handed on" => local.commands().run_on(0, move |_local| forker.fork()),
            "a timer" => {
                local.commands().after(Duration::from_millis(1), move |_local| forker.fork());
            }
            _ => {
                let mut forker = Some(forker);
                local.commands().every(Duration::from_millis(1), move |_local| {
                    if let Some(forker) = forker.take() {
                        forker.fork();
                    }
                });
            }
        });
        let status = ends.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 101, "{place}: {status}");
        client.write_all(b"hello").unwrap();
        client.read_exact(&mut [0; 5]).unwrap();
        assert_eq!(server.stop(Duration::from_secs(5)).unwrap().stats.panics, 0);
    }
}

#[test]
fn a_child_forked_over_a_datagram_answers_nothing() {
    alone("hardship::forks_over_datagrams", "");
}

impl DatagramProtocol for Forker {
    fn received(&mut self, socket: &mut DatagramSocket<'_>, datagram: Datagram<'_>) {
        socket.send(datagram.path(), datagram.bytes());
        if datagram.bytes() == self.fork_in {
            self.fork();
        }
        // More than what is to leave before the child is stopped.
        socket.send(datagram.path(), b"behind");
    }
}

/// Run by `a_child_forked_over_a_datagram_answers_nothing`.
#[test]
#[ignore = "needs a process of its own"]
fn forks_over_datagrams() {
    let (statuses, ends) = mpsc::channel();
    let server = Runtime::builder()
        .workers(Workers::Count(1))
        .bind_udp("127.0.0.1:0", move |_worker| Forker { fork_in: b"fork", statuses: statuses.clone() })
        .unwrap()
        .start()
        .unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    for word in [&b"plain"[..], b"fork", b"plain", b"fork", b"plain"] {
        client.send_to(word, server.udp_addrs()[0]).unwrap();
        for expected in [word, b"behind"] {
            let mut answer = [0; 100];
            let len = client.recv(&mut answer).unwrap();
            assert_eq!(&answer[..len], expected, "once each");
        }
    }
    for _ in 0..2 {
        let status = ends.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 101, "{status}");
    }
    let stats = server.stop(Duration::from_secs(5)).unwrap().stats;
    assert_eq!((stats.datagrams_received, stats.datagrams_sent, stats.panics), (5, 10, 0));
}

#[test]
fn a_child_that_leaves_a_callback_does_not_stop_its_parent() {
    alone("hardship::forks_while_the_parent_waits", "");
}

/// Run by `a_child_that_leaves_a_callback_does_not_stop_its_parent`.
#[test]
#[ignore = "needs a process of its own"]
fn forks_while_the_parent_waits() {
    let (statuses, ends) = mpsc::channel();
    let server = Runtime::builder()
        .workers(Workers::Count(1))
        .listen("127.0.0.1:0", move |_worker| {
            let statuses = statuses.clone();
            move |_peer| Forker { fork_in: b"plain", statuses: statuses.clone() }
        })
        .unwrap()
        .start()
        .unwrap();
    let (addr, handle) = (server.local_addrs()[0].as_socket_addr().unwrap(), server.handle().clone());
    let (done, ended) = mpsc::channel();
    let waiting = std::thread::spawn(move || {
        let report = server.wait();
        done.send(()).unwrap();
        report
    });
    let mut client = connect(addr);
    client.write_all(b"plain").unwrap();
    client.read_exact(&mut [0; 5]).unwrap();
    ends.recv_timeout(Duration::from_secs(20)).unwrap();
    // Still there, and not draining.
    let mut other = connect(addr);
    other.write_all(b"hello").unwrap();
    other.read_exact(&mut [0; 5]).unwrap();
    assert_eq!(ended.try_recv(), Err(mpsc::TryRecvError::Empty), "it waits still");
    handle.drain(Duration::ZERO);
    waiting.join().unwrap().unwrap();
}

/// Whether `check` is true in a forked child.
fn forked(check: impl FnOnce() -> bool) -> bool {
    #[expect(unsafe_code, reason = "fork(2) has no safe form")]
    // SAFETY: the child runs `check`, which takes no lock that another thread may have held: it reads
    // atomics and panics. It ends with _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let code = i32::from(!check());
        #[expect(unsafe_code, reason = "_exit(2) has no safe form")]
        // SAFETY: _exit takes no memory of ours.
        unsafe {
            libc::_exit(code)
        }
    }
    let mut status = 0;
    #[expect(unsafe_code, reason = "waitpid(2) has no safe form")]
    // SAFETY: waitpid writes one int, and `status` is one that outlives the call.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    waited == child && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
}

#[test]
fn a_report_counts_the_drain_from_when_it_was_asked_for_first() {
    let (reporter, reports) = Reporter::pair();
    let server = server(reporter);
    let mut client = connect(server.local_addrs()[0].as_socket_addr().unwrap());
    client.write_all(b"pause").unwrap();
    assert_eq!(reports.recv().unwrap(), "opened");
    assert_eq!(reports.recv().unwrap(), "paused");
    server.handle().drain(Duration::from_millis(300));
    // It is cut in the end, and only then it is asked how that went.
    assert!(client.read(&mut [0; 1]).is_ok_and(|bytes| bytes == 0) || client.take_error().is_ok());
    let report = server.wait().unwrap();
    assert!(report.took >= Duration::from_millis(250), "{:?}", report.took);
    assert_eq!(report.open, 1);
}
