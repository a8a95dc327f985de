//! Every way to wait, under load and at rest, on real sockets.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use netpoll_core::{Running, Runtime, Stats, WaitStrategy, Workers};

use crate::support::Echo;

#[test]
fn a_busy_poll_that_the_kernel_refuses_is_an_error_that_says_what_is_missing() {
    let error = start(WaitStrategy::KernelBusyPoll { usecs: u32::MAX, budget: 8, prefer: false }).err();
    let error = error.expect("more than the kernel takes").to_string();
    assert!(error.contains("busy polling") && error.contains("Linux 6.9"), "{error}");
}

const ROUNDS: usize = 300;

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
            let stream = TcpStream::connect(server.local_addrs()[0]).unwrap();
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
fn a_worker_that_spins_looks_again_before_it_sleeps_and_sleeps_when_nothing_comes() {
    let server = start(WaitStrategy::Spin(Duration::from_micros(10))).unwrap();
    if server.handle().setup().wait == WaitStrategy::Block {
        return; // no CPU to spare here
    }
    let stats = serve(server);
    assert!(stats.waits_spun > 0, "{stats:?}");
    assert!(stats.waits_blocked > 0, "it does not spin for ever: {stats:?}");
    assert!(stats.spins_unpaid <= stats.waits_blocked, "each of these ended in sleep: {stats:?}");
}

#[test]
fn a_hybrid_worker_looks_once_more_before_it_sleeps() {
    let server = start(WaitStrategy::Hybrid).unwrap();
    if server.handle().setup().wait == WaitStrategy::Block {
        return; // no CPU to spare here
    }
    let stats = serve(server);
    assert!(stats.waits_spun > 0 && stats.waits_blocked > 0, "{stats:?}");
}

#[test]
fn kernel_busy_polling_serves_or_says_that_the_kernel_lacks_it() {
    let wait = WaitStrategy::KernelBusyPoll { usecs: 20, budget: 8, prefer: true };
    match start(wait) {
        Ok(server) => {
            assert_eq!(server.handle().setup().wait, wait);
            let stats = serve(server);
            assert_eq!(stats.waits_spun, 0, "the kernel polls, the worker sleeps");
        }
        Err(error) => assert!(error.to_string().contains("Linux 6.9"), "{error}"),
    }
}
