//! What all connections of a worker may hold together, and what becomes of it.

use std::time::Duration;

use bytes::Bytes;
use netpoll_core::sim::{ListenerId, Options, PeerId, Sim};
use netpoll_core::{Commands, Conn, Flow, Input, Lost, Protocol};

const KIB: usize = 1024;

/// Lines: `k` is kept with all that follows, `l` is answered with 128 KiB, `v` with a vector that takes the place of a block, `p`
/// panics behind a MiB of an answer, all else is answered with itself.
struct Lines(std::sync::mpsc::Sender<String>);

impl Protocol for Lines {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        match input.bytes()[0] {
            b'k' => {}
            b'l' => {
                input.advance_all();
                conn.send_shared(Bytes::from(vec![b'x'; 128 * KIB]));
            }
            b'v' => {
                input.advance_all();
                conn.append(60 * KIB, |out| *out = b"hello".to_vec());
            }
            b'p' => {
                input.advance_all();
                conn.append(1, |out| {
                    out.resize(1024 * KIB, b'x');
                    panic!("behind a MiB")
                });
            }
            _ => {
                conn.send(input.bytes());
                input.advance_all();
            }
        }
        Flow::Continue
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        // The test may be over.
        let _ = self.0.send(format!("{reason:?}"));
    }
}

fn world(memory_bytes_max: usize) -> (Sim, ListenerId, std::sync::mpsc::Receiver<String>) {
    let (said, says) = std::sync::mpsc::channel();
    let mut options = Options::default();
    options.limits.memory_bytes_max = Some(memory_bytes_max);
    let mut sim = Sim::new(options);
    let listener = sim.listen(move |_peer| Lines(said.clone()));
    (sim, listener, says)
}

fn is_served(sim: &mut Sim, peer: PeerId) -> bool {
    sim.send(peer, b"hello");
    sim.run();
    sim.take_received(peer) == b"hello"
}

#[test]
fn unconsumed_input_of_all_together_is_bounded_and_who_holds_none_is_served() {
    let (mut sim, listener, says) = world(1024 * KIB);
    let polite = sim.connect(listener);
    let greedy: Vec<PeerId> = (0..100).map(|_| sim.connect(listener)).collect();
    for peer in &greedy {
        sim.send(*peer, &[b'k'; 60 * KIB]);
        sim.run();
        assert!(is_served(&mut sim, polite));
    }
    let cut = greedy.iter().filter(|peer| sim.is_reset(**peer)).count();
    // Sixteen blocks of 64 KiB are a MiB; the one behind them is too much.
    assert_eq!((cut, sim.stats().memory_overflows), (84, 84));
    assert!(says.try_iter().all(|reason| reason == "MemoryOverflow"));

    // What they held is free again.
    for peer in &greedy {
        sim.reset(*peer);
    }
    sim.run();
    let late = sim.connect(listener);
    sim.send(late, &[b'k'; 60 * KIB]);
    sim.run();
    assert!(!sim.is_reset(late));
}

#[test]
fn queued_output_of_all_together_is_bounded_and_who_reads_is_served() {
    let (mut sim, listener, _says) = world(1024 * KIB);
    let reading = sim.connect(listener);
    let slow: Vec<PeerId> = (0..100).map(|_| sim.connect(listener)).collect();
    for peer in &slow {
        sim.stop_reading(*peer);
        sim.send(*peer, b"l");
        sim.run();
        sim.send(reading, b"l");
        sim.run();
        assert_eq!(sim.take_received(reading).len(), 128 * KIB);
    }
    let kept = slow.iter().filter(|peer| !sim.is_reset(**peer)).count();
    assert!((8..=9).contains(&kept), "{kept} times 128 KiB");
    assert_eq!(sim.stats().memory_overflows as usize, 100 - kept);
}

#[test]
fn bytes_that_are_sent_to_many_count_for_none_of_them() {
    let (mut sim, listener, _says) = world(256 * KIB);
    let (told, tells) = std::sync::mpsc::channel();
    struct Naming(std::sync::mpsc::Sender<netpoll_core::ConnId>);
    impl Protocol for Naming {
        fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
            self.0.send(conn.id()).unwrap();
            Flow::Continue
        }
        fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
            Flow::Continue
        }
    }
    let room = sim.listen(move |_peer| Naming(told.clone()));
    let members: Vec<PeerId> = (0..100).map(|_| sim.connect(room)).collect();
    for member in &members {
        sim.stop_reading(*member);
    }
    sim.run();
    let news = Bytes::from(vec![b'x'; 128 * KIB]);
    for id in tells.try_iter() {
        sim.commands().send(id, news.clone());
    }
    sim.run();
    assert_eq!(sim.stats().memory_overflows, 0, "they hold the same bytes");
    let polite = sim.connect(listener);
    assert!(is_served(&mut sim, polite));
}

#[test]
fn what_a_protocol_says_that_it_holds_counts_until_it_is_dropped() {
    struct Holding(Option<netpoll_core::Held>);
    impl Protocol for Holding {
        fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
            let word = input.bytes();
            input.advance_all();
            if word == b"hold" {
                let mut held = conn.hold_memory();
                held.grow(2048 * KIB);
                self.0 = Some(held);
            }
            conn.send(if conn.is_short_of_memory() { b"short" } else { b"plenty" });
            Flow::Continue
        }
    }
    let (mut sim, _listener, _says) = world(1024 * KIB);
    let listener = sim.listen(|_peer| Holding(None));
    let (one, other) = (sim.connect(listener), sim.connect(listener));
    for (peer, word, answer) in [(one, "hold", "short"), (other, "ask", "short")] {
        sim.send(peer, word.as_bytes());
        sim.run();
        assert_eq!(sim.take_received(peer), answer.as_bytes());
    }
    sim.reset(one);
    sim.run();
    sim.send(other, b"ask");
    sim.run();
    assert_eq!(sim.take_received(other), b"plenty");
}

#[test]
fn memory_goes_back_when_a_spike_is_over() {
    let (mut sim, listener, _says) = world(64 * 1024 * KIB);
    let greedy: Vec<PeerId> = (0..500).map(|_| sim.connect(listener)).collect();
    for peer in &greedy {
        sim.send(*peer, &[b'k'; 60 * KIB]);
    }
    sim.run();
    assert_eq!(sim.stats().spikes, 0);
    for peer in &greedy {
        sim.reset(*peer);
    }
    sim.advance(Duration::from_secs(2));
    assert_eq!(sim.stats().spikes, 1);
}

#[test]
fn what_is_left_of_a_spike_goes_back_too_although_nothing_happens_any_more() {
    let (mut sim, listener, _says) = world(256 * 1024 * KIB);
    let greedy: Vec<PeerId> = (0..1000).map(|_| sim.connect(listener)).collect();
    for peer in &greedy {
        sim.send(*peer, &[b'k'; 60 * KIB]);
    }
    sim.run();
    let (most, rest) = greedy.split_at(800);
    for peers in [most, rest] {
        for peer in peers {
            sim.reset(*peer);
        }
        sim.run();
    }
    assert_eq!(sim.stats().spikes, 1, "a fifth of it was still held then, and it rests now");
    sim.advance(Duration::from_secs(2));
    assert_eq!(sim.stats().spikes, 2);
}

#[test]
fn a_vector_that_takes_the_place_of_a_block_counts_for_what_it_is() {
    let (mut sim, listener, says) = world(1024 * KIB);
    let peer = sim.connect(listener);
    for _ in 0..100 {
        sim.send(peer, b"v");
        sim.run();
        assert_eq!(sim.take_received(peer), b"hello");
    }
    sim.send(peer, b"k");
    sim.run();
    assert_eq!(says.try_iter().collect::<Vec<_>>(), [""; 0], "nothing is held but one byte");
}

#[test]
fn what_a_panic_leaves_of_an_answer_does_not_make_room_for_others() {
    let (mut sim, listener, says) = world(1024 * KIB);
    let keep = |sim: &mut Sim, times| {
        for _ in 0..times {
            let peer = sim.connect(listener);
            sim.send(peer, &[b'k'; 60 * KIB]);
            sim.run();
        }
    };
    keep(&mut sim, 12);
    let peer = sim.connect(listener);
    sim.send(peer, b"p");
    sim.run();
    assert_eq!(says.try_iter().collect::<Vec<_>>(), ["Panicked"]);
    keep(&mut sim, 8);
    assert!(says.try_iter().count() >= 3, "there is room for 16 of them");
}
