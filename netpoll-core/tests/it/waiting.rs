//! Every way to wait, under load and at rest, on real sockets.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use netpoll_core::{Running, Runtime, Stats, WaitStrategy, Workers};

use crate::support::{Echo, is_on};

#[test]
fn a_busy_poll_that_the_kernel_refuses_is_an_error_that_says_what_is_missing() {
    if !is_on(&["epoll"], NO_BUSY_POLL) {
        return;
    }
    let error = start(WaitStrategy::KernelBusyPoll { usecs: u32::MAX, budget: 8, prefer: false }).err();
    let error = error.expect("more than the kernel takes").to_string();
    assert!(error.contains("busy polling") && error.contains("Linux 6.9"), "{error}");
}

const ROUNDS: usize = 300;

/// Why there is no kernel busy polling on mio: what that says instead is in `backends.rs`.
const NO_BUSY_POLL: &str = "the poller of mio has no such thing";

fn start(wait: WaitStrategy) -> std::io::Result<Running> {
    Runtime::builder()
        .workers(Workers::Count(1))
        .pin(false)
        .wait(wait)
        .listen("127.0.0.1:0", |_worker| |_peer| Echo)?
        .start()
}

/// Bursts from eight connections, each answered before the next; then a lonely one, and the counters.
fn serve(server: Running) -> Stats {
    let mut clients: Vec<TcpStream> = (0..8)
        .map(|_| {
            let stream = TcpStream::connect(server.local_addrs()[0].as_socket_addr().unwrap()).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream.set_nodelay(true).unwrap();
            stream
        })
        .collect();
    for round in 0..ROUNDS {
        let speaking = if round < ROUNDS / 2 { 8 } else { 1 };
        let word = round.to_le_bytes();
        for client in &mut clients[..speaking] {
            client.write_all(&word).unwrap();
        }
        for client in &mut clients[..speaking] {
            let mut echo = [0; 8];
            client.read_exact(&mut echo).unwrap();
            assert_eq!(echo, word);
        }
    }
    drop(clients);
    let report = server.stop(Duration::from_secs(10)).unwrap();
    assert_eq!(report.cut, 0);
    assert_eq!(report.stats.received_bytes, report.stats.sent_bytes);
    assert_eq!(report.stats.received_bytes, 8 * (ROUNDS as u64 / 2) * 9);
    report.stats
}

#[test]
fn a_worker_that_blocks_never_spins() {
    let stats = serve(start(WaitStrategy::Block).unwrap());
    assert_eq!((stats.waits_spun, stats.spins_paid, stats.spins_unpaid), (0, 0, 0));
    assert!(stats.waits_blocked > 0);
}

#[test]
fn a_strategy_that_spins_serves_whether_there_is_a_cpu_to_spare_or_not() {
    // The decision, and what follows from it, is tested on machines that are made up, in `runtime/placement.rs`.
    for strategy in [WaitStrategy::Hybrid, WaitStrategy::Spin(Duration::from_micros(10))] {
        let server = start(strategy).unwrap();
        let wait = server.handle().setup().wait;
        let cpus = std::thread::available_parallelism().unwrap().get();
        assert!(wait == WaitStrategy::Block || wait == strategy && cpus > 1, "{wait:?} with {cpus} CPUs");
        let stats = serve(server);
        assert_eq!(stats.waits_spun > 0, wait == strategy, "{stats:?}");
        assert!(stats.waits_blocked > 0, "it does not spin for ever: {stats:?}");
    }
}

/// Whether this kernel polls network cards for a waiting epoll or ring: since Linux 6.9, where it was built with that.
fn kernel_polls() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>());
    let version = (numbers.next().unwrap().unwrap(), numbers.next().unwrap().unwrap());
    version >= (6, 9) && std::fs::exists("/proc/sys/net/core/busy_poll").unwrap()
}

#[test]
fn kernel_busy_polling_serves_where_the_kernel_has_it_and_is_an_error_elsewhere() {
    if !is_on(&["epoll", "uring"], NO_BUSY_POLL) {
        return;
    }
    let wait = WaitStrategy::KernelBusyPoll { usecs: 20, budget: 8, prefer: true };
    match start(wait) {
        Ok(server) => {
            assert!(kernel_polls(), "where the kernel has no such thing, somebody has to say so");
            assert_eq!(server.handle().setup().wait, wait);
            let stats = serve(server);
            assert_eq!(stats.waits_spun, 0, "the kernel polls, the worker sleeps");
        }
        Err(error) => {
            assert!(!kernel_polls(), "{error}");
            assert!(error.to_string().contains("Linux 6.9"), "{error}");
        }
    }
}
