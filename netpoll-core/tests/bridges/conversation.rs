//! What a peer says, and what it is to hear: the same in a simulation and over TCP.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::pin::Pin;
use std::time::Duration;

use netpoll_core::net::Stream;
use netpoll_core::sim::{Faults, Options, Sim};
use netpoll_core::{Runtime, Workers};

use crate::chance::{Chance, seeds};

/// What a task does with a stream.
pub type Serving = Pin<Box<dyn Future<Output = ()>>>;

pub enum Step<'a> {
    Says(&'a [u8]),
    /// Ends its direction.
    Finishes,
    Hears(&'a [u8]),
    /// The end of the other direction, and nothing before it.
    HearsTheEnd,
}

/// What happens to a connection, but for its end.
pub fn faults() -> Faults {
    Faults::default()
        .partial_receives(300)
        .partial_sends(300)
        .interrupted_receives(200)
        .delays(200)
        .short_waits(200)
        .spurious_sent(200)
        .late_receives(300)
}

/// Has a peer converse with what serves it: in forty simulated worlds and over TCP.
pub fn converse(serve: fn(Stream) -> Serving, steps: &[Step<'_>]) {
    for seed in seeds(40) {
        simulate(seed, serve, steps);
    }
    converse_over_tcp(serve, steps);
}

fn simulate(seed: u64, serve: fn(Stream) -> Serving, steps: &[Step<'_>]) {
    let mut chance = Chance::new(seed);
    let millis = Duration::from_millis;
    let mut options = Options::default().seed(seed);
    if !seed.is_multiple_of(4) {
        options = options.faults(faults()).latency(millis(1)..=millis(20)).window(700);
    }
    let mut sim = Sim::new(options);
    let listener = sim.listen_tasks(move |stream, _peer| serve(stream));
    let peer = sim.connect(listener);
    let mut heard = Vec::new();
    for step in steps {
        match step {
            Step::Says(bytes) => {
                let mut bytes = *bytes;
                while !bytes.is_empty() {
                    let (now, later) = bytes.split_at(1 + chance.below(bytes.len()));
                    sim.send(peer, now);
                    if chance.below(2) == 0 {
                        sim.run();
                    }
                    bytes = later;
                }
            }
            Step::Finishes => sim.finish(peer),
            Step::Hears(bytes) => {
                sim.settle();
                sim.drain_received(peer, &mut heard);
                assert!(heard.len() >= bytes.len(), "seed {seed}: {}", String::from_utf8_lossy(&heard));
                let first: Vec<u8> = heard.drain(..bytes.len()).collect();
                assert_eq!(String::from_utf8_lossy(&first), String::from_utf8_lossy(bytes), "seed {seed}");
            }
            Step::HearsTheEnd => {
                sim.settle();
                sim.drain_received(peer, &mut heard);
                assert_eq!(String::from_utf8_lossy(&heard), "", "seed {seed}");
                assert!(sim.is_closed(peer) && !sim.is_reset(peer), "seed {seed}");
            }
        }
    }
    sim.close(peer);
    sim.advance(Duration::from_secs(60));
    assert_eq!((sim.open(), sim.blocks_in_use(), sim.stats().panics), (0, 0, 0), "seed {seed}");
}

fn converse_over_tcp(serve: fn(Stream) -> Serving, steps: &[Step<'_>]) {
    let builder = Runtime::builder().workers(Workers::Count(1)).pin(false);
    let server = builder.listen_tasks("127.0.0.1:0", move |stream, _peer| serve(stream)).unwrap();
    let server = server.start().unwrap();
    let mut peer = TcpStream::connect(server.local_addrs()[0].as_socket_addr().unwrap()).unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    for step in steps {
        match step {
            Step::Says(bytes) => peer.write_all(bytes).unwrap(),
            Step::Finishes => peer.shutdown(Shutdown::Write).unwrap(),
            Step::Hears(bytes) => {
                let mut heard = vec![0; bytes.len()];
                peer.read_exact(&mut heard).unwrap();
                assert_eq!(String::from_utf8_lossy(&heard), String::from_utf8_lossy(bytes));
            }
            Step::HearsTheEnd => assert_eq!(peer.read(&mut [0; 10]).unwrap(), 0),
        }
    }
    drop(peer);
    assert_eq!(server.stop(Duration::from_secs(60)).unwrap().stats.panics, 0);
}
