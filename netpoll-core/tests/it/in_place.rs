//! Input that is changed where it lies.

use std::io::{Read, Write};
use std::net::TcpStream;

use netpoll_core::sim::{Faults, Options, Sim};
use netpoll_core::{Conn, Flow, Input, Protocol, Runtime, Workers};

/// Takes lines of bytes that are masked, unmasks what it is offered in place, once, and sends each whole line back.
struct Unmask {
    /// Bytes of the input that were unmasked, and not consumed.
    unmasked: usize,
    sends_now: bool,
}

const MASK: u8 = 0x55;

impl Unmask {
    fn new(sends_now: bool) -> Self {
        Self { unmasked: 0, sends_now }
    }
}

impl Protocol for Unmask {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        for byte in &mut input.bytes_mut()[self.unmasked..] {
            *byte ^= MASK;
        }
        let lines = input.bytes().iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        if self.sends_now {
            conn.send_now(&input.bytes()[..lines]);
        } else {
            conn.send(&input.bytes()[..lines]);
        }
        input.advance(lines);
        self.unmasked = input.len();
        Flow::Continue
    }
}

fn masked(text: &[u8]) -> Vec<u8> {
    text.iter().map(|byte| byte ^ MASK).collect()
}

#[test]
fn what_a_protocol_changes_in_its_input_goes_back_changed() {
    for sends_now in [false, true] {
        let running = Runtime::builder()
            .workers(Workers::Count(1))
            .listen("127.0.0.1:0", move |_worker| move |_peer| Unmask::new(sends_now))
            .unwrap()
            .start()
            .unwrap();
        let mut peer = TcpStream::connect(running.local_addrs()[0].as_socket_addr().unwrap()).unwrap();
        let text = "a line of thirty-two characters\n".repeat(8000).into_bytes();
        let mut writer = peer.try_clone().unwrap();
        let sent = masked(&text);
        let writing = std::thread::spawn(move || writer.write_all(&sent).unwrap());
        let mut back = vec![0; text.len()];
        peer.read_exact(&mut back).unwrap();
        writing.join().unwrap();
        assert!(back == text, "sends now: {sends_now}");
    }
}

#[test]
fn what_is_not_consumed_is_offered_again_as_it_was_left() {
    for seed in 0..200 {
        let mut sim = Sim::new(Options::default().seed(seed).faults(Faults::stormy()));
        let listener = sim.listen(move |_peer| Unmask::new(seed % 2 == 0));
        let peer = sim.connect(listener);
        let text = b"one\ntwo, which is longer\n\nthree\n".repeat(50);
        sim.send(peer, &masked(&text));
        sim.settle();
        assert_eq!(sim.take_received(peer), text, "seed {seed}");
    }
}

#[test]
fn input_that_was_looked_at_cannot_be_changed_in_the_same_callback() {
    struct Both;
    impl Protocol for Both {
        fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
            let held = input.bytes();
            input.bytes_mut().fill(0);
            conn.send(held);
            Flow::Continue
        }
    }
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen(|_peer| Both);
    let peer = sim.connect(listener);
    sim.send(peer, b"x");
    sim.settle();
    assert_eq!((sim.is_reset(peer), sim.stats().panics), (true, 1));
}
