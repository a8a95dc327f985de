//! Two peers that both send much before they read, and what connections hold meanwhile.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use netpoll_core::sim::{Options, Sim};
use netpoll_core::{
    Commands, Conn, ConnLimits, ConnectOptions, Either, Flow, Input, Layered, Lost, Protocol, Running,
    Runtime, Workers,
};

use crate::cipher::Cipher;

const PATIENCE: Duration = Duration::from_secs(60);
/// More than the kernels between two sockets take.
const BYTES: usize = 24 << 20;

/// Sends all it has at once, and counts what comes.
struct Bulk {
    reads_on: bool,
    left: usize,
    ends: mpsc::Sender<Result<(), String>>,
}

impl Protocol for Bulk {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.read_while_backed_up(self.reads_on);
        conn.send(&vec![7; BYTES]);
        assert_eq!(conn.is_backed_up(), !self.reads_on);
        Flow::Continue
    }

    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.left -= input.len();
        input.advance_all();
        if self.left == 0 {
            self.ends.send(Ok(())).unwrap();
        }
        Flow::Continue
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        // The test may be over.
        let _ = self.ends.send(Err(format!("{reason:?}")));
    }
}

/// Two of them that are connected, each on a worker of its own, maybe with a layer; the ends of both.
fn pair(reads_on: bool, layered: bool) -> (Running, mpsc::Receiver<Result<(), String>>) {
    let (sender, ends) = mpsc::channel();
    let bulk = move || {
        let bulk = Bulk { reads_on, left: BYTES, ends: sender.clone() };
        if layered { Either::Left(Layered::new(Cipher::new(2), bulk)) } else { Either::Right(bulk) }
    };
    let limits = ConnLimits::default().write_grace(Duration::from_millis(500));
    let dialed = bulk();
    let server = Runtime::builder()
        .workers(Workers::Count(2))
        .pin(false)
        .limits(limits)
        .listen("127.0.0.1:0", move |_worker| {
            let bulk = bulk.clone();
            move |_peer| bulk()
        })
        .unwrap()
        .start()
        .unwrap();
    let to = server.local_addrs()[0].as_socket_addr().unwrap();
    let _ = server.handle().connect(1, to, ConnectOptions::default(), dialed);
    (server, ends)
}

#[test]
fn two_that_send_much_before_they_read_stand_still_until_one_is_cut_unless_they_are_read_all_the_same() {
    let (_server, ends) = pair(false, false);
    // Whoever is cut resets the other, who may be the first to say so.
    let both = [(); 2].map(|()| ends.recv_timeout(PATIENCE).unwrap());
    assert!(both.contains(&Err("Stalled".to_owned())), "who is not read is not read from: {both:?}");
    for layered in [false, true] {
        let (_server, ends) = pair(true, layered);
        for _ in 0..2 {
            assert_eq!(ends.recv_timeout(PATIENCE).unwrap(), Ok(()), "with a layer: {layered}");
        }
    }
}

/// Takes whole lines only, and answers each with as much as its peer does not take.
struct Lines;

impl Protocol for Lines {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        if input.bytes().ends_with(b"\n") {
            input.advance_all();
            conn.send(&[b'x'; 200_000]);
        }
        Flow::Continue
    }
}

#[test]
fn the_gauges_say_what_connections_hold_now() {
    let mut sim = Sim::new(Options::default().window(1000));
    let listener = sim.listen(|_peer| Lines);
    let peer = sim.connect(listener);
    let held = |sim: &mut Sim| {
        sim.turn();
        let stats = sim.stats();
        (stats.held_input_bytes, stats.held_output_bytes, stats.pool_blocks_in_use)
    };
    sim.settle();
    assert_eq!(held(&mut sim), (0, 0, 0), "idle");
    sim.send(peer, b"half a line");
    sim.settle();
    let (input, output, blocks) = held(&mut sim);
    assert!((11..=4096).contains(&input) && output == 0 && blocks == 1, "{input} {output} {blocks}");
    sim.stop_reading(peer);
    sim.send(peer, b", and the rest\n");
    sim.settle();
    let (input, output, blocks) = held(&mut sim);
    assert!(input == 0 && (100_000..400_000).contains(&output) && blocks >= 1, "{input} {output} {blocks}");
    sim.start_reading(peer);
    let began = Instant::now();
    while sim.take_received(peer).len() < 200_000 && held(&mut sim).1 > 0 {
        sim.settle();
        assert!(began.elapsed() < PATIENCE);
    }
    assert_eq!(held(&mut sim), (0, 0, 0), "all has left");
}
