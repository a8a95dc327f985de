//! A turn of the loop above the driver contract: on the simulated network, so without a system call.
//!
//! Each event brings one byte to a connection that throws it away, and the peer's sending is part of the figure: it
//! is a copy of a byte.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use netpoll_core::sim::{Options, PeerId, Sim};
use netpoll_core::{Conn, Flow, Input, Protocol};

struct Discard;

impl Protocol for Discard {
    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        Flow::Continue
    }
}

pub fn a_turn_with_events(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("turn");
    for events in [0, 1, 64] {
        let mut sim = Sim::new(Options::default());
        let listener = sim.listen(|_peer| Discard);
        let peers: Vec<PeerId> = (0..events).map(|_| sim.connect(listener)).collect();
        sim.run();
        assert_eq!(sim.open(), events);
        group.throughput(Throughput::Elements(events.max(1) as u64));
        group.bench_function(format!("{events} events"), |bencher| {
            bencher.iter(|| {
                for peer in &peers {
                    sim.send(*peer, black_box(b"x"));
                }
                assert_eq!(sim.turn(), events);
            });
        });
    }
    group.finish();
}
