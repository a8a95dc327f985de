//! Who gives way waits for something: a turn of others, or room for its output. It never spins.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use netpoll_core::sim::{Faults, ListenerId, Options, PeerId, Sim};
use netpoll_core::{
    Conn, ConnId, ConnLimits, Flow, Input, Layer, Layered, Lost, Message, Protocol, Running, Runtime, Upper,
    Workers,
};

const PATIENCE: Duration = Duration::from_secs(60);
/// More than high water, and more than a simulated peer takes at once.
const LARGE: usize = 400_000;

/// What it has taken, letter by letter, and its name.
#[derive(Default)]
struct Seen {
    taken: String,
    id: Option<ConnId>,
}

type Notes = Rc<RefCell<Seen>>;

/// Obeys letters one by one, and gives way while it is backed up, as the first page says.
struct Polite(Notes);

impl Protocol for Polite {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.0.borrow_mut().id = Some(conn.id());
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        while let Some(letter) = input.bytes().first().copied() {
            if conn.is_backed_up() {
                return Flow::Yield;
            }
            input.advance(1);
            self.0.borrow_mut().taken.push(letter.into());
            match letter {
                b'l' => conn.send(&[b'l'; LARGE]),
                b'f' => {
                    conn.send(&[b'l'; LARGE]);
                    conn.finish();
                }
                _ => {}
            }
        }
        Flow::Continue
    }

    fn told(&mut self, conn: &mut Conn<'_>, message: Message) -> Flow {
        drop(message);
        conn.send(&[b'l'; LARGE]);
        conn.finish();
        conn.unchanged_flow()
    }
}

/// A layer that changes nothing, and gives way while the wire is backed up.
struct Same;

impl Layer for Same {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>, upper: &mut Upper<'_>) -> Flow {
        if conn.is_backed_up() {
            return Flow::Yield;
        }
        if upper.takes_more(conn) {
            upper.received(conn, input.bytes_mut());
            input.advance_all();
        }
        Flow::Continue
    }

    fn send(&mut self, conn: &mut Conn<'_>, plain: &[u8]) -> Flow {
        conn.send(plain);
        Flow::Continue
    }
}

/// A world with a polite protocol, behind so many layers, and a peer that does not read.
fn world(layers: usize, options: Options) -> (Sim, ListenerId, PeerId, Notes) {
    let notes = Notes::default();
    let mut sim = Sim::new(options);
    let made = Rc::clone(&notes);
    let listener = match layers {
        0 => sim.listen(move |_peer| Polite(Rc::clone(&made))),
        1 => sim.listen(move |_peer| Layered::new(Same, Polite(Rc::clone(&made)))),
        _ => sim.listen(move |_peer| Layered::new(Same, Layered::new(Same, Polite(Rc::clone(&made))))),
    };
    let peer = sim.connect(listener);
    sim.settle();
    sim.stop_reading(peer);
    (sim, listener, peer, notes)
}

/// Every way to end our direction while more than high water waits: by itself, by others, and told to.
fn finish(sim: &mut Sim, peer: PeerId, notes: &Notes, way: usize) {
    let id = notes.borrow().id.unwrap();
    match way {
        0 => sim.send(peer, b"f"),
        1 => {
            sim.send(peer, b"l");
            sim.settle();
            sim.commands().finish(id);
        }
        2 => {
            sim.send(peer, b"l");
            sim.settle();
            sim.send(peer, b"m");
            sim.settle();
            sim.handle().finish(id);
        }
        _ => sim.commands().tell(id, ()),
    }
}

#[test]
fn who_has_finished_is_not_backed_up_and_takes_what_comes() {
    for layers in 0..3 {
        for way in 0..4 {
            let (mut sim, _, peer, notes) = world(layers, Options::default());
            finish(&mut sim, peer, &notes, way);
            // Settling panics where it spins.
            sim.settle();
            sim.send(peer, b"xyz");
            sim.settle();
            let taken = notes.borrow().taken.clone();
            assert!(taken.ends_with("xyz"), "{layers} layers, way {way}: {taken}");
            sim.start_reading(peer);
            sim.finish(peer);
            sim.settle();
            assert_eq!(sim.take_received(peer).len(), LARGE, "{layers} layers, way {way}");
            assert_eq!((sim.open(), sim.blocks_in_use()), (0, 0));
        }
    }
}

#[test]
fn who_gives_way_and_has_finished_comes_to_rest_in_a_storm() {
    for seed in 0..200 {
        for layers in 0..3 {
            let options = Options::default().seed(seed).faults(Faults::stormy());
            let (mut sim, _, peer, notes) = world(layers, options);
            finish(&mut sim, peer, &notes, usize::try_from(seed % 4).unwrap());
            sim.send(peer, b"lxlyz");
            sim.settle();
            sim.start_reading(peer);
            sim.finish(peer);
            sim.settle();
            assert_eq!((sim.open(), sim.blocks_in_use()), (0, 0), "{layers} layers, seed {seed}");
            let taken = notes.borrow().taken.clone();
            assert!(taken.ends_with("lxlyz"), "{layers} layers, seed {seed}: {taken}");
        }
    }
}

#[test]
fn who_was_filled_as_an_end_of_a_forward_and_gives_way_waits_for_room() {
    // Whether the driver takes all of it, or the rest stays in the queue, is a matter of chance.
    for seed in 0..20 {
        let (mut sim, listener, peer, notes) = world(0, Options::default().seed(seed));
        let one = notes.borrow().id.unwrap();
        let source = sim.connect(listener);
        sim.settle();
        let other = notes.borrow().id.unwrap();
        // An echo: what waits to leave does not hold its input back, for that is held by where it goes.
        sim.commands().forward(one, one);
        sim.settle();
        sim.commands().send(one, Bytes::from(vec![b'l'; LARGE]));
        sim.settle();
        // Another one takes its place, and it has its input itself again.
        sim.commands().forward(other, one);
        sim.settle();
        sim.send(peer, b"x");
        sim.settle();
        assert_eq!(notes.borrow().taken, "", "it is backed up");
        sim.start_reading(peer);
        sim.settle();
        assert_eq!(notes.borrow().taken, "x", "there is room");
        sim.send(source, b"behind");
        sim.settle();
        let received = sim.take_received(peer);
        assert!(received.len() == LARGE + 6 && received.ends_with(b"behind"));
    }
}

/// Takes a letter a turn, and pauses at the last one.
struct OneByOne(Notes);

impl Protocol for OneByOne {
    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance(1);
        if input.is_empty() { Flow::Pause } else { Flow::Yield }
    }

    fn peer_ended(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.0.borrow_mut().taken.push('.');
        conn.unchanged_flow()
    }
}

#[test]
fn who_gives_way_and_then_pauses_hears_that_its_peer_has_ended() {
    for seed in 0..20 {
        let notes = Notes::default();
        let made = Rc::clone(&notes);
        let mut sim = Sim::new(Options::default().seed(seed));
        let listener = sim.listen(move |_peer| OneByOne(Rc::clone(&made)));
        let peer = sim.connect(listener);
        sim.settle();
        sim.send(peer, b"abc");
        sim.finish(peer);
        sim.settle();
        assert_eq!(notes.borrow().taken, ".", "seed {seed}");
    }
}

/// The same on sockets: says what it has taken.
struct Reports(mpsc::Sender<Result<ConnId, u8>>);

impl Protocol for Reports {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.0.send(Ok(conn.id())).unwrap();
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        while let Some(letter) = input.bytes().first().copied() {
            if conn.is_backed_up() {
                return Flow::Yield;
            }
            input.advance(1);
            self.0.send(Err(letter)).unwrap();
            if letter == b'l' {
                // More than two kernels keep.
                conn.send(&vec![b'l'; 32 << 20]);
            }
        }
        Flow::Continue
    }
}

fn serve(layered: bool) -> (Running, mpsc::Receiver<Result<ConnId, u8>>) {
    let (sender, reports) = mpsc::channel();
    let builder = Runtime::builder().workers(Workers::Count(1));
    let builder = match layered {
        false => builder.listen("127.0.0.1:0", move |_worker| {
            let sender = sender.clone();
            move |_peer| Reports(sender.clone())
        }),
        true => builder.listen("127.0.0.1:0", move |_worker| {
            let sender = sender.clone();
            move |_peer| Layered::new(Same, Reports(sender.clone()))
        }),
    };
    (builder.unwrap().start().unwrap(), reports)
}

#[test]
fn on_sockets_a_worker_does_not_spin_for_who_has_finished_behind_output_that_waits() {
    for layered in [false, true] {
        let (server, reports) = serve(layered);
        let addr = server.local_addrs()[0].as_socket_addr().unwrap();
        let mut peer = TcpStream::connect(addr).unwrap();
        let id = reports.recv_timeout(PATIENCE).unwrap().unwrap();
        peer.write_all(b"lm").unwrap();
        assert_eq!(reports.recv_timeout(PATIENCE).unwrap(), Err(b'l'));
        server.handle().finish(id);
        peer.write_all(b"x").unwrap();
        for letter in [b'm', b'x'] {
            assert_eq!(reports.recv_timeout(PATIENCE).unwrap(), Err(letter), "layered {layered}");
        }
        let report = server.stop(Duration::ZERO).unwrap();
        assert!(report.stats.yields < 10, "{} times it gave way", report.stats.yields);
    }
}

/// Takes a little at a time, gives way, and says in the end how much it took and how much it was ever offered.
#[derive(Default)]
struct Nibbles {
    taken: usize,
    most: usize,
}

impl Nibbles {
    const BITE: usize = 1000;
}

impl Protocol for Nibbles {
    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.most = self.most.max(input.len());
        let bite = input.len().min(Self::BITE);
        input.advance(bite);
        self.taken += bite;
        if input.is_empty() { Flow::Continue } else { Flow::Yield }
    }

    fn eof(&mut self, conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        conn.send(format!("{} {}", self.taken, self.most).as_bytes());
        Flow::Close
    }
}

#[test]
fn who_gives_way_is_not_sent_more_than_a_share_and_never_cut_for_it() {
    const BYTES: usize = 4_000_000;
    // Less than a share: what was offered at once is not what counts.
    let limits = ConnLimits::default().input_bytes_max(10_000);
    for layers in 0..2 {
        let builder = Runtime::builder().workers(Workers::Count(1)).limits(limits);
        let server = if layers == 0 {
            builder.listen("127.0.0.1:0", |_worker| |_peer| Nibbles::default())
        } else {
            builder.listen("127.0.0.1:0", |_worker| |_peer| Layered::new(Same, Nibbles::default()))
        };
        let server = server.unwrap().start().unwrap();
        let addr = server.local_addrs()[0].as_socket_addr().unwrap();
        let mut peer = TcpStream::connect(addr).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        peer.write_all(&vec![b'x'; BYTES]).unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        let mut said = String::new();
        peer.read_to_string(&mut said).unwrap();
        let (taken, most) = said.split_once(' ').unwrap();
        assert_eq!(taken.parse(), Ok(BYTES), "{layers} layers");
        // A kernel that cannot be told how much may come has blocks for 2 MiB.
        assert!(most.parse::<usize>().unwrap() <= BYTES * 3 / 4, "{layers} layers: {most}");
    }
}

#[test]
fn who_gives_way_is_judged_when_it_asks_for_more() {
    struct Waits(Rc<RefCell<Vec<&'static str>>>);
    impl Protocol for Waits {
        fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
            let mut log = self.0.borrow_mut();
            log.push("received");
            assert_eq!(input.len(), 5000);
            match log.len() {
                1 => Flow::Yield,
                _ => Flow::Continue,
            }
        }
        fn lost(&mut self, reason: Lost, _commands: &mut netpoll_core::Commands) {
            let overflows = matches!(reason, Lost::InputOverflow);
            self.0.borrow_mut().push(if overflows { "cut" } else { "lost" });
        }
    }
    for layers in 0..2 {
        let log = Rc::<RefCell<Vec<_>>>::default();
        let mut sim = Sim::new(Options::default().limits(ConnLimits::default().input_bytes_max(4999)));
        let made = Rc::clone(&log);
        let listener = match layers {
            0 => sim.listen(move |_peer| Waits(Rc::clone(&made))),
            _ => sim.listen(move |_peer| Layered::new(Same, Waits(Rc::clone(&made)))),
        };
        let peer = sim.connect(listener);
        sim.settle();
        sim.send(peer, &[b'x'; 5000]);
        sim.settle();
        assert_eq!(*log.borrow(), ["received", "received", "cut"], "{layers} layers");
        assert_eq!((sim.stats().input_overflows, sim.blocks_in_use()), (1, 0));
    }
}
