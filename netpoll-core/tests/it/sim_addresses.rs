//! Where peers of a simulated world come from, whether anybody says so or not, and how their queue ends.

use std::time::Duration;

use netpoll_core::sim::{Faults, Options, Sim};
use netpoll_core::{Address, Commands, Conn, ConnLimits, Flow, Input, Lost, Protocol};

use crate::support::{Echo, Log};

/// Writes down what it is told of its peer, what it finds out, and how it ends.
struct Curious(Log);

impl Protocol for Curious {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.0.borrow_mut().push(format!("{:?}", conn.peer_addr()));
        Flow::Continue
    }

    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        Flow::Continue
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        self.0.borrow_mut().push(format!("{reason:?}"));
    }
}

fn world(options: Options) -> (Sim, netpoll_core::sim::ListenerId, Log) {
    let (mut sim, log) = (Sim::new(options), Log::default());
    let told = log.clone();
    let listener = sim.listen(move |peer| {
        told.borrow_mut().push(peer.addr.to_string());
        Curious(told.clone())
    });
    (sim, listener, log)
}

#[test]
fn a_peer_may_come_from_a_unix_socket() {
    let (mut sim, listener, log) = world(Options::default());
    sim.connect_from(listener, "unix:@me".parse::<Address>().unwrap());
    sim.run();
    assert_eq!(*log.borrow(), ["unix:@me", "Some(unix:@me)"]);
}

#[test]
fn an_address_that_was_not_said_can_be_asked_for() {
    let faults = Faults::none().unsaid_addresses(1000);
    let (mut sim, listener, log) = world(Options::default().faults(faults));
    sim.connect_from(listener, "10.0.0.1:7".parse::<Address>().unwrap());
    sim.connect_from(listener, Address::Unknown);
    sim.run();
    let mut log = log.borrow().clone();
    log.sort();
    assert_eq!(log, ["None", "Some(10.0.0.1:7)", "unknown", "unknown"]);
}

#[test]
fn a_limit_by_address_holds_for_peers_whose_address_is_asked_for_later() {
    for per_mille in [0, 500, 1000] {
        let limits = ConnLimits::default().connections_per_address_max(Some(2));
        let faults = Faults::none().unsaid_addresses(per_mille);
        let (mut sim, listener, log) = world(Options::default().faults(faults).limits(limits));
        for port in 0..5 {
            sim.connect_from(
                listener,
                "10.0.0.1:7"
                    .parse::<std::net::SocketAddr>()
                    .map(|mut addr| {
                        addr.set_port(port);
                        addr
                    })
                    .unwrap(),
            );
        }
        sim.connect_from(listener, "unix:@me".parse::<Address>().unwrap());
        sim.run();
        assert_eq!((sim.open(), sim.stats().shed_by_address), (3, 3), "{per_mille}: {log:?}");
    }
}

#[test]
fn a_drain_takes_in_who_stands_in_the_queue_however_late_the_driver_brings_them() {
    for seed in 0..200 {
        let faults = match seed % 4 {
            0 => Faults::none(),
            1 => Faults::none().late_accepts(1000),
            2 => Faults::none().late_accepts(1000).delays(500).descriptor_shortages(300),
            _ => Faults::stormy(),
        };
        let mut sim = Sim::new(Options::default().seed(seed).workers(2).faults(faults));
        let listener = sim.listen(|_peer| Echo);
        let peers: Vec<_> = (0..30).map(|_| sim.connect(listener)).collect();
        for peer in &peers {
            sim.send(*peer, b"hello");
        }
        sim.begin_drain(Duration::from_secs(30));
        sim.advance(Duration::from_secs(20));
        for peer in &peers {
            assert_eq!(sim.take_received(*peer), b"hello", "seed {seed}");
            assert!(!sim.is_reset(*peer), "seed {seed}");
        }
        assert!(sim.is_finished(), "seed {seed}");
    }
}
