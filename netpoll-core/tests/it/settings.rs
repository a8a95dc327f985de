//! Settings of the builder, seen from outside: who gets a connection, who is accepted, who is probed, what zero means.

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use netpoll_core::sim::{Options, PeerId, Sim};
use netpoll_core::{
    Budget, Builder, Commands, Conn, ConnLimits, ConnectOptions, Flow, Input, Keepalive, Lost, Protocol,
    Running, Runtime, UdpOptions, WaitStrategy, Workers,
};

use crate::support::{Echo, is_on_linux};

const PATIENCE: Duration = Duration::from_secs(60);

/// Answers each piece with the number of its worker.
struct WhoAreYou;

impl Protocol for WhoAreYou {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        conn.send(&[conn.worker() as u8]);
        Flow::Continue
    }
}

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// The answer of one byte to one byte.
fn ask(stream: &mut TcpStream) -> u8 {
    stream.write_all(b"?").unwrap();
    let mut answer = [0];
    stream.read_exact(&mut answer).unwrap();
    answer[0]
}

fn listening(builder: Builder, addr: &str) -> Builder {
    builder.listen(addr, |_worker| |_peer| WhoAreYou).unwrap()
}

#[cfg(target_os = "linux")]
fn pin_to(cpu: usize) {
    #[expect(unsafe_code, reason = "sched_setaffinity(2) has no safe form")]
    // SAFETY: a cpu_set_t is a plain bit mask, for which all zeroes is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    #[expect(unsafe_code, reason = "sched_setaffinity(2) has no safe form")]
    // SAFETY: CPU_SET writes one bit of `set`, which has more than the CPUs of this machine.
    unsafe {
        libc::CPU_SET(cpu, &mut set);
    }
    #[expect(unsafe_code, reason = "sched_setaffinity(2) has no safe form")]
    // SAFETY: sched_setaffinity reads a mask of this size; zero is the calling thread.
    let pinned = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    assert_eq!(pinned, 0);
}

#[test]
#[cfg(target_os = "linux")]
fn with_steering_a_connection_goes_to_the_worker_on_the_cpu_that_it_came_in_on() {
    let running = match listening(Runtime::builder().steer_by_cpu(true), "127.0.0.1:0").start() {
        Ok(running) => running,
        // Here not each CPU has a worker of its own, in order; then this is what has to be said.
        Err(error) => {
            let cpus = Runtime::builder().start().unwrap().handle().setup().cpus.clone();
            let all = std::thread::available_parallelism().unwrap().get();
            let in_order = cpus.iter().enumerate().all(|(worker, cpu)| *cpu == Some(worker));
            assert!(!in_order || cpus.len() < all, "{cpus:?}: {error}");
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains("steering by CPU needs a pinned worker on each CPU"));
            return;
        }
    };
    let addr = running.local_addrs()[0].as_socket_addr().unwrap();
    let workers = running.handle().workers();
    // On loopback a connection comes in on the CPU that its client runs on.
    let client = std::thread::spawn(move || {
        for cpu in 0..workers {
            pin_to(cpu);
            for _ in 0..8 {
                assert_eq!(usize::from(ask(&mut connect(addr))), cpu);
            }
        }
    });
    client.join().unwrap();
}

#[test]
fn steering_without_a_worker_for_each_cpu_is_an_error_that_says_so() {
    let more = std::thread::available_parallelism().unwrap().get() + 1;
    let builder = Runtime::builder().workers(Workers::Count(more)).steer_by_cpu(true);
    let error = listening(builder, "127.0.0.1:0").start().err().expect("more workers than CPUs");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(error.to_string(), "steering by CPU needs a pinned worker on each CPU, in order");
}

#[test]
fn a_shared_port_is_served_by_both_until_one_of_them_stops() {
    let start = |addr: &str, share| {
        listening(Runtime::builder().workers(Workers::Count(1)).share_port(share), addr).start()
    };
    let older = start("127.0.0.1:0", true).unwrap();
    let addr = older.local_addrs()[0].as_socket_addr().unwrap();
    let alone = start(&addr.to_string(), false).err().expect("sharing takes two");
    assert_eq!(alone.kind(), ErrorKind::AddrInUse);
    let newer = start(&addr.to_string(), true).unwrap();

    // The kernel chooses by a hash of the client's port.
    let mut clients = Vec::new();
    while older.handle().stats().accepted == 0 || newer.handle().stats().accepted == 0 {
        let mut client = connect(addr);
        ask(&mut client);
        clients.push(client);
        assert!(clients.len() < 500, "one of them gets nobody");
    }
    drop(clients);
    older.stop(PATIENCE).unwrap();
    for _ in 0..20 {
        ask(&mut connect(addr));
    }
    newer.stop(PATIENCE).unwrap();
}

#[test]
fn with_defer_accept_a_silent_client_is_not_accepted_until_it_speaks() {
    if !is_on_linux("there is no defer_accept") {
        return;
    }
    let builder = Runtime::builder().workers(Workers::Count(1)).defer_accept(Duration::from_secs(100));
    let running = listening(builder, "127.0.0.1:0").start().unwrap();
    let addr = running.local_addrs()[0].as_socket_addr().unwrap();
    let mut silent = connect(addr);
    for nth in 1..=3 {
        // Who comes later and speaks is accepted before it.
        ask(&mut connect(addr));
        while running.handle().stats().closed < nth {
            std::thread::yield_now();
        }
        assert_eq!(running.handle().stats().accepted, nth);
    }
    ask(&mut silent);
    drop(silent);
    assert_eq!(running.stop(PATIENCE).unwrap().stats.accepted, 4);
}

/// Of our end of this connection: which timer runs, and in how many hundredths of a second it is due (proc(5), `net/tcp`).
fn timer(ours: SocketAddr, theirs: SocketAddr) -> (u8, u64) {
    let hex = |addr: SocketAddr| match addr {
        SocketAddr::V4(addr) => {
            format!("{:08X}:{:04X}", u32::from_ne_bytes(addr.ip().octets()), addr.port())
        }
        SocketAddr::V6(_) => unreachable!("127.0.0.1"),
    };
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let row = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = row.into_iter().find(|row| row[1] == hex(ours) && row[2] == hex(theirs)).expect("a row");
    let (which, due) = row[5].split_once(':').unwrap();
    (which.parse().unwrap(), u64::from_str_radix(due, 16).unwrap())
}

#[test]
fn a_silent_peer_of_an_accepted_connection_is_probed_as_the_builder_says() {
    let keepalive =
        Keepalive { idle: Duration::from_secs(5000), interval: Duration::from_secs(7), probes: 3 };
    let builder = Runtime::builder().workers(Workers::Count(1)).keepalive(keepalive);
    let running = listening(builder, "127.0.0.1:0").start().unwrap();
    let addr = running.local_addrs()[0].as_socket_addr().unwrap();
    let mut client = connect(addr);
    ask(&mut client);
    let (which, due) = timer(addr, client.local_addr().unwrap());
    assert_eq!(which, 2, "the keepalive timer");
    assert!((400_000..=500_000).contains(&due), "{due}");
}

#[test]
fn keepalive_out_of_range_is_an_error_that_names_it() {
    for (idle, interval, probes) in [(40_000, 1, 1), (1, 40_000, 1), (1, 1, 200), (0, 1, 1)] {
        let (idle, interval) = (Duration::from_secs(idle), Duration::from_secs(interval));
        let builder = Runtime::builder().keepalive(Keepalive { idle, interval, probes });
        let error = listening(builder, "127.0.0.1:0").start().err().expect("out of range");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().starts_with("keepalive: "), "{error}");
    }
}

#[test]
fn a_budget_of_zero_is_the_least_that_works() {
    let budget = Budget::fixed(0).read_bytes(0).turn_target(Duration::ZERO);
    assert_eq!(budget, Budget::fixed(1).read_bytes(1024));
    let builder = Runtime::builder().workers(Workers::Count(1)).budget(budget);
    let running = builder.listen("127.0.0.1:0", |_worker| |_peer| Echo).unwrap().start().unwrap();
    let mut clients: Vec<_> =
        (0..4).map(|_| connect(running.local_addrs()[0].as_socket_addr().unwrap())).collect();
    let sent: Vec<u8> = (0..20_000_u32).map(|nth| (nth % 251) as u8).collect();
    for client in &mut clients {
        client.write_all(&sent).unwrap();
    }
    for client in &mut clients {
        let mut back = vec![0; sent.len()];
        client.read_exact(&mut back).unwrap();
        assert!(back == sent);
    }
}

/// In a perfect world with these limits, one peer of this protocol.
fn world<P: Protocol>(limits: ConnLimits, mut protocol: impl FnMut() -> P + 'static) -> (Sim, PeerId) {
    let mut options = Options::default();
    options.limits = limits;
    let mut sim = Sim::new(options);
    let listener = sim.listen(move |_peer| protocol());
    let peer = sim.connect(listener);
    sim.run();
    (sim, peer)
}

#[test]
fn a_runtime_for_no_connection_at_all_is_an_error() {
    let limits = ConnLimits::default().connections_max(0);
    let error = listening(Runtime::builder().limits(limits), "127.0.0.1:0").start().err().unwrap();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (ErrorKind::InvalidInput, "connections_max is zero")
    );
}

#[test]
fn high_and_low_water_at_zero_hold_a_connection_for_as_long_as_anything_is_queued() {
    let limits = ConnLimits::default().write_high_bytes(0).write_low_bytes(0);
    let (mut sim, peer) = world(limits, || Echo);
    for _ in 0..3 {
        sim.send(peer, b"hello");
        sim.run();
        assert_eq!(sim.take_received(peer), b"hello");
    }
}

/// Leaves all input where it is, and keeps why it was lost.
struct Hoards(Rc<Cell<Option<Lost>>>);

impl Protocol for Hoards {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        if input.bytes().starts_with(b"refuse") {
            conn.send(b"no");
            return Flow::Linger;
        }
        Flow::Continue
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        self.0.set(Some(reason));
    }
}

#[test]
fn with_no_room_for_input_a_byte_that_is_left_costs_the_connection() {
    let lost = Rc::new(Cell::new(None));
    let limits = ConnLimits::default().input_bytes_max(0);
    let (mut sim, peer) = world(limits, {
        let lost = Rc::clone(&lost);
        move || Hoards(Rc::clone(&lost))
    });
    sim.send(peer, b"x");
    sim.run();
    assert!(matches!(lost.take(), Some(Lost::InputOverflow)));
    assert!(sim.is_reset(peer));
}

#[test]
fn lingering_for_no_time_ends_at_once_and_for_no_byte_discards_none() {
    let usual = ConnLimits::default();
    let no_time = usual.linger_time_max(Duration::ZERO);
    let no_silence = usual.linger_silence_max(Duration::ZERO);
    let no_byte = usual.linger_bytes_max(0);
    for (limits, after) in [
        (no_time, Duration::from_millis(1)),
        (no_silence, Duration::from_millis(1)),
        (no_byte, usual.linger_time_max),
        (usual, usual.linger_silence_max * 2),
    ] {
        let lost = Rc::new(Cell::new(None));
        let (mut sim, peer) = world(limits, {
            let lost = Rc::clone(&lost);
            move || Hoards(Rc::clone(&lost))
        });
        sim.send(peer, b"refuse");
        sim.run();
        assert_eq!(sim.take_received(peer), b"no");
        sim.send(peer, b"and more");
        sim.run();
        sim.advance(after);
        assert!(matches!(lost.take(), Some(Lost::Closed)), "{limits:?}");
        assert_eq!(sim.open(), 0);
    }
}

/// Sends more than the peer takes, and tells why it was lost.
struct Floods(mpsc::Sender<Lost>);

impl Protocol for Floods {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.send(&vec![b'x'; 1 << 20]);
        Flow::Continue
    }

    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        Flow::Continue
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        self.0.send(reason).expect("the test looks at it");
    }
}

#[test]
fn a_write_rate_of_zero_cuts_nobody() {
    for (write_rate_min, cut) in [(0, false), (256, true)] {
        let (sender, lost) = mpsc::channel();
        let mut options = Options::default();
        options.limits.write_rate_min = write_rate_min;
        let mut sim = Sim::new(options);
        let listener = sim.listen(move |_peer| Floods(sender.clone()));
        let peer = sim.connect(listener);
        sim.stop_reading(peer);
        sim.run();
        sim.advance(Duration::from_secs(3600));
        assert_eq!(matches!(lost.try_recv(), Ok(Lost::Stalled)), cut, "{write_rate_min}");
        assert_eq!(sim.open(), usize::from(!cut));
    }
}

/// Hands its worker's number on, and waits.
#[derive(Clone)]
struct Stuck {
    held: mpsc::Sender<()>,
    release: std::sync::Arc<std::sync::Mutex<mpsc::Receiver<()>>>,
}

impl Protocol for Stuck {
    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        self.held.send(()).unwrap();
        self.release.lock().unwrap().recv().unwrap();
        Flow::Continue
    }

    fn stopping(&mut self, _conn: &mut Conn<'_>) -> Flow {
        Flow::Continue
    }
}

#[test]
fn a_stop_waits_for_a_callback_that_blocks_and_cuts_its_connection_then() {
    let ((held_sender, held), (release, released)) = (mpsc::channel(), mpsc::channel());
    let stuck = Stuck { held: held_sender, release: std::sync::Arc::new(std::sync::Mutex::new(released)) };
    let running: Running = Runtime::builder()
        .workers(Workers::Count(1))
        .listen("127.0.0.1:0", move |_worker| {
            let stuck = stuck.clone();
            move |_peer| stuck.clone()
        })
        .unwrap()
        .start()
        .unwrap();
    let mut client = connect(running.local_addrs()[0].as_socket_addr().unwrap());
    client.write_all(b"x").unwrap();
    held.recv().unwrap();
    let (sender, report) = mpsc::channel();
    let stopping = std::thread::spawn(move || sender.send(running.stop(Duration::ZERO)).unwrap());
    // A worker is a thread: nothing can take it out of a callback, so the time of the drain is no bound on it.
    assert!(report.recv_timeout(Duration::from_millis(100)).is_err());
    release.send(()).unwrap();
    let report = report.recv_timeout(PATIENCE).unwrap().unwrap();
    assert_eq!((report.cut, report.stats.open()), (1, 0));
    stopping.join().unwrap();
}

#[test]
fn a_limit_of_zero_that_would_let_nothing_through_is_an_error_with_its_name() {
    type Change = fn(&mut ConnLimits);
    let of = |change: Change| {
        let mut limits = ConnLimits::default();
        change(&mut limits);
        Runtime::builder()
            .workers(Workers::Count(1))
            .limits(limits)
            .start()
            .err()
            .map(|error| error.to_string())
    };
    assert_eq!(of(|_| ()), None);
    let zeros: [(&str, Change); 4] = [
        ("connections_max", |limits| limits.connections_max = 0),
        ("connections_per_address_max", |limits| limits.connections_per_address_max = Some(0)),
        ("memory_bytes_max", |limits| limits.memory_bytes_max = Some(0)),
        ("write_grace", |limits| limits.write_grace = Duration::ZERO),
    ];
    for (name, change) in zeros {
        assert_eq!(of(change), Some(format!("{name} is zero")));
    }
    let error = Runtime::builder().backlog(0).start().err().expect("nobody can get in line");
    assert_eq!(error.to_string(), "backlog is not above zero");
}

#[test]
fn a_setting_that_cannot_be_meant_is_an_error_with_its_name() {
    type Change = fn(Builder) -> Builder;
    let changes: [(Change, &str); 16] = [
        (|builder| builder.workers(Workers::Cpus(vec![0, 0])), "CPU 0 is named twice in Workers::Cpus"),
        (|builder| builder.defer_accept(Duration::ZERO), "defer_accept is zero"),
        (|builder| builder.user_timeout(Duration::ZERO), "user_timeout is below a millisecond"),
        (|builder| builder.user_timeout(Duration::from_micros(999)), "user_timeout is below a millisecond"),
        (|builder| builder.unsent_bytes_max(0), "unsent_bytes_max is zero"),
        (|builder| builder.send_buffer_bytes(0), "send_buffer_bytes is not between 1 and 2147483647"),
        (|builder| builder.send_buffer_bytes(1 << 32), "send_buffer_bytes is not between 1 and 2147483647"),
        (|builder| builder.receive_buffer_bytes(0), "receive_buffer_bytes is not between 1 and 2147483647"),
        (|builder| builder.socket_mode(660), "socket_mode is 0o1224, and permissions are at most 0o777"),
        (|builder| builder.socket_mode(0o444), "socket_mode is 0o444, with which nobody may connect"),
        (|builder| builder.long_turn(Duration::ZERO), "long_turn is zero"),
        (
            |builder| builder.wait(WaitStrategy::KernelBusyPoll { usecs: 0, budget: 8, prefer: false }),
            "usecs of KernelBusyPoll is zero",
        ),
        (
            |builder| builder.wait(WaitStrategy::KernelBusyPoll { usecs: 50, budget: 0, prefer: false }),
            "budget of KernelBusyPoll is zero",
        ),
        (
            |builder| builder.udp_options(UdpOptions::default().send_buffer_bytes(0)),
            "send_buffer_bytes of UDP is not between 1 and 2147483647",
        ),
        (
            |builder| builder.udp_options(UdpOptions::default().receive_buffer_bytes(usize::MAX)),
            "receive_buffer_bytes of UDP is not between 1 and 2147483647",
        ),
        (
            |builder| {
                builder.keepalive(Keepalive {
                    idle: Duration::ZERO,
                    interval: Duration::from_secs(1),
                    probes: 1,
                })
            },
            "keepalive",
        ),
    ];
    for (change, text) in changes {
        // Whether anything listens that it concerns or not.
        let error = change(Runtime::builder().workers(Workers::Count(1))).start().err().expect(text);
        if error.kind() == ErrorKind::Unsupported && !is_on_linux("no worker is kept on a CPU") {
            assert!(error.to_string().starts_with("Workers::Cpus: "), "{error}");
            continue;
        }
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().starts_with(text), "{error}");
    }
}

#[test]
fn an_option_of_a_dial_that_cannot_be_meant_fails_it_with_its_name() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let running = Runtime::builder().workers(Workers::Count(1)).start().unwrap();
    let options = ConnectOptions::default();
    for (options, text) in [
        (options.timeout(Duration::ZERO), "timeout is zero"),
        (options.user_timeout(Duration::from_micros(1)), "user_timeout is below a millisecond"),
        (options.unsent_bytes_max(0), "unsent_bytes_max is zero"),
        (options.send_buffer_bytes(0), "send_buffer_bytes is not between 1 and 2147483647"),
        (options.receive_buffer_bytes(1 << 31), "receive_buffer_bytes is not between 1 and 2147483647"),
        (options.from("[::1]:0".parse::<SocketAddr>().unwrap()), "from [::1]:0 leads to no 127.0.0.1"),
    ] {
        let (sender, lost) = mpsc::channel();
        running.handle().connect(0, listener.local_addr().unwrap(), options, Floods(sender));
        match lost.recv_timeout(PATIENCE).unwrap() {
            Lost::ConnectFailed(error) => {
                assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
                assert!(error.to_string().starts_with(text), "{error}");
            }
            other => panic!("{text}: {other}"),
        }
    }
}

#[test]
fn a_port_that_the_kernel_chooses_is_not_one_that_a_stranger_shares() {
    let sharing = || {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(1).unwrap();
        std::net::TcpListener::from(socket)
    };
    let strangers: Vec<_> = (0..300).map(|_| sharing()).collect();
    let taken: Vec<u16> = strangers.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
    let mut builder = Runtime::builder().workers(Workers::Count(2)).pin(false);
    for _ in 0..100 {
        builder = listening(builder, "127.0.0.1:0");
    }
    let running = builder.start().unwrap();
    for addr in running.local_addrs() {
        assert!(!taken.contains(&addr.port().unwrap()));
    }
}
