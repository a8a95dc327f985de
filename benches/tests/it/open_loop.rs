//! An open loop sees what a server's pause does to those who would have asked meanwhile.

use crate::server::{Act, GOOD, load, serve};
use std::net::SocketAddr;
use std::sync::RwLock;
use std::thread;
use std::time::Duration;

const STALL: Duration = Duration::from_millis(200);

/// Stops all connections once for 200 ms, in the middle.
fn stalls_once(at: usize) -> SocketAddr {
    let gate = RwLock::new(());
    serve(move |nth| {
        if nth == at {
            let _closed = gate.write().unwrap();
            thread::sleep(STALL); // this is what the server does, nobody waits for it to be over
        } else {
            drop(gate.read().unwrap());
        }
        Act::Answer(GOOD.to_vec())
    })
}

#[test]
fn an_open_loop_sees_a_pause_that_a_closed_loop_does_not() {
    let open = load(stalls_once(1500), "--connections 4 --requests 4000 --rate 2000");
    let closed = load(stalls_once(1500), "--connections 4 --requests 40000");

    let p999_us = |report: &serde_json::Value| report["p999_us"].as_u64().unwrap();
    assert!(p999_us(&open) > 150_000, "about 400 of 4000 were due during the pause: {open}");
    assert!(open["p90_us"].as_u64().unwrap() > 1_000, "a tenth of all");
    assert!(p999_us(&closed) < 150_000, "4 of 40000 were on the way: {closed}");
    assert_eq!(open["requests"], 4000);
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let report = load(serve(|_| Act::Answer(GOOD.to_vec())), "--connections 16 --requests 1000 --rate 1000");
    let seconds = report["seconds"].as_f64().unwrap();
    assert!(seconds >= 0.999, "the last of 1000 is due after 999 ms: {seconds}");
    assert_eq!((&report["requests"], &report["unsent"]), (&1000.into(), &0.into()));
}

#[test]
fn what_could_not_be_sent_in_time_counts_with_its_age() {
    let options = "--connections 2 --rate 1000 --seconds 0.5 --drain-ms 10";
    let report = load(serve(|_| Act::Ignore), options);
    assert_eq!((&report["requests"], &report["unanswered"]), (&0.into(), &2.into()));
    let unsent = report["unsent"].as_u64().unwrap();
    assert!(unsent >= 498, "two of 500 were sent: {unsent}");
    assert!(report["p50_us"].as_u64().unwrap() >= 240_000, "half of them are older than half the time");
}

#[test]
fn the_histogram_has_every_answer_and_the_warm_up_is_dropped() {
    let to = serve(|_| Act::Answer(GOOD.to_vec()));
    let report = load(to, "--connections 2 --requests 500 --warmup 0.1 --histogram");
    let counts = report["histogram"].as_array().unwrap().iter().map(|pair| pair[1].as_u64().unwrap());
    let requests = report["requests"].as_u64().unwrap();
    assert_eq!(counts.sum::<u64>(), requests);
    assert!((500..=502).contains(&requests), "two may have been asked in the warm-up");
    assert!(report["connections_opened"] == 2 && report["bytes_in"].as_u64().unwrap() > 0, "{report}");
}
