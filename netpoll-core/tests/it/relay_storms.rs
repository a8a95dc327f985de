//! Relays on real sockets, while others meddle with their connections: every byte arrives, and nobody stays. A failure names its
//! seed.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use netpoll_core::{
    Conn, ConnId, ConnLimits, ConnectOptions, Flow, Input, Protocol, Runtime, Target, Workers,
};

use crate::chance::{Chance, Watchdog, seeds};

/// A relay to a Unix or a TCP backend whose connections others meddle with.
struct RealHalf {
    to: Option<Target>,
    ids: Arc<Mutex<Vec<ConnId>>>,
}

impl Protocol for RealHalf {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        let me = conn.id();
        self.ids.lock().unwrap().push(me);
        if let Some(to) = self.to.take() {
            let half = Self { to: None, ids: Arc::clone(&self.ids) };
            let backend = conn.commands().connect(to, ConnectOptions::default(), half);
            conn.commands().forward(me, backend);
            conn.commands().forward(backend, me);
        }
        Flow::Continue
    }

    fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        panic!("all is forwarded");
    }

    fn peer_ended(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.unchanged_flow()
    }
}

fn noise(chance: &mut Chance, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|_| chance.below(256) as u8).collect()
}

/// Writes in pieces, half-closes, and reads to the end at the same time.
fn talk<S: Read + Write + Send + 'static>(
    mut reads: S,
    mut writes: S,
    end: impl FnOnce(&S) + Send + 'static,
    says: Vec<u8>,
    mut chance: Chance,
) -> JoinHandle<Vec<u8>> {
    let mut slow = chance.fork();
    let writer = std::thread::spawn(move || {
        let mut rest = &says[..];
        while !rest.is_empty() {
            let part = (1 + chance.below(100_000)).min(rest.len());
            writes.write_all(&rest[..part]).unwrap();
            rest = &rest[part..];
            if chance.below(10) == 0 {
                std::thread::sleep(Duration::from_millis(chance.below(3) as u64));
            }
        }
        end(&writes);
    });
    std::thread::spawn(move || {
        let (mut heard, mut block) = (Vec::new(), vec![0; 100_000]);
        loop {
            let part = 1 + slow.below(block.len());
            let count = reads.read(&mut block[..part]).unwrap();
            if count == 0 {
                break;
            }
            heard.extend_from_slice(&block[..count]);
            if slow.below(20) == 0 {
                std::thread::sleep(Duration::from_millis(slow.below(5) as u64));
            }
        }
        writer.join().unwrap();
        heard
    })
}

#[test]
fn on_real_sockets_a_relay_moves_every_byte_whatever_others_order() {
    let _watchdog = Watchdog::new(Duration::from_secs(300), || "the real relay".to_owned());
    for seed in seeds(1) {
        let mut chance = Chance::new(seed);
        let backend = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = Target::from(backend.local_addr().unwrap());
        let ids = Arc::<Mutex<Vec<ConnId>>>::default();
        let server = Runtime::builder()
            .workers(Workers::Count(2))
            .limits(ConnLimits::default().write_high_bytes(100_000).write_low_bytes(20_000))
            .listen("127.0.0.1:0", {
                let ids = Arc::clone(&ids);
                move |_worker| {
                    let (ids, to) = (Arc::clone(&ids), to.clone());
                    move |_peer| RealHalf { to: Some(to.clone()), ids: Arc::clone(&ids) }
                }
            })
            .unwrap()
            .start()
            .unwrap();
        let addr = server.local_addrs()[0].as_socket_addr().unwrap();
        let mut talks = Vec::new();
        for _ in 0..6 {
            let client = TcpStream::connect(addr).unwrap();
            let (other, _) = backend.accept().unwrap();
            let mut sides = Vec::new();
            for stream in [client, other] {
                let bytes = if chance.below(2) == 0 { chance.below(3_000_000) } else { chance.below(3000) };
                let says = noise(&mut chance, bytes);
                let reads = stream.try_clone().unwrap();
                let end = |stream: &TcpStream| stream.shutdown(Shutdown::Write).unwrap();
                sides.push((says.clone(), talk(reads, stream, end, says, chance.fork())));
            }
            talks.push(sides);
        }
        let handle = server.handle().clone();
        for _ in 0..2000 {
            let all = ids.lock().unwrap().clone();
            let id = all[chance.below(all.len())];
            let what = chance.below(5);
            handle.run_on(id.worker(), move |local| {
                let commands = local.commands();
                match what {
                    0 => commands.pause(id),
                    1 | 2 => commands.resume(id),
                    3 => commands.wake(id),
                    _ => commands.queued_bytes(id, move |_, commands| commands.resume(id)),
                }
            });
            if chance.below(4) == 0 {
                std::thread::sleep(Duration::from_micros(chance.below(1000) as u64));
            }
        }
        for id in ids.lock().unwrap().clone() {
            handle.run_on(id.worker(), move |local| local.commands().resume(id));
        }
        for sides in talks {
            let [(one, hears_other), (other, hears_one)] = <[_; 2]>::try_from(sides).ok().unwrap();
            assert!(hears_other.join().unwrap() == other, "seed {seed}: to the client");
            assert!(hears_one.join().unwrap() == one, "seed {seed}: to the backend");
        }
        let report = server.stop(Duration::from_secs(10)).unwrap();
        assert_eq!((report.stats.panics, report.cut), (0, 0), "seed {seed}");
    }
}

#[test]
fn on_real_sockets_relays_may_end_in_all_ways_and_nobody_stays() {
    let _watchdog = Watchdog::new(Duration::from_secs(300), || "the real relays".to_owned());
    for seed in seeds(1) {
        let mut chance = Chance::new(seed);
        let backend = TcpListener::bind("127.0.0.1:0").unwrap();
        backend.set_nonblocking(true).unwrap();
        let to = Target::from(backend.local_addr().unwrap());
        let ids = Arc::<Mutex<Vec<ConnId>>>::default();
        let server = Runtime::builder()
            .workers(Workers::Count(2))
            .listen("127.0.0.1:0", {
                let ids = Arc::clone(&ids);
                move |_worker| {
                    let (ids, to) = (Arc::clone(&ids), to.clone());
                    move |_peer| RealHalf { to: Some(to.clone()), ids: Arc::clone(&ids) }
                }
            })
            .unwrap()
            .start()
            .unwrap();
        let addr = server.local_addrs()[0].as_socket_addr().unwrap();
        let mut streams: Vec<TcpStream> = Vec::new();
        for round in 0..600 {
            if round < 500 && chance.below(3) == 0 {
                streams.push(TcpStream::connect(addr).unwrap());
            }
            if let Ok((stream, _)) = backend.accept() {
                streams.push(stream);
            }
            if streams.is_empty() {
                continue;
            }
            let index = chance.below(streams.len());
            streams[index].set_nonblocking(true).unwrap();
            match chance.below(14) {
                0 => drop(streams.swap_remove(index)),
                1 => {
                    let stream = streams.swap_remove(index);
                    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                }
                2 => _ = streams[index].shutdown(Shutdown::Write),
                3 => _ = streams[index].shutdown(Shutdown::Read),
                4 | 5 => _ = Read::read(&mut &streams[index], &mut vec![0; 100_000]),
                6 => _ = Write::write(&mut &streams[index], &vec![0; chance.below(1 << 20)]),
                7 => {
                    let id = {
                        let ids = ids.lock().unwrap();
                        ids.get(chance.below(ids.len().max(1))).copied()
                    };
                    let what = chance.below(5);
                    // A worker may not have got to the first of them yet.
                    let Some(id) = id else { continue };
                    server.handle().run_on(id.worker(), move |local| match what {
                        0 => local.commands().close(id),
                        1 => local.commands().reset(id),
                        2 => local.commands().finish(id),
                        3 => local.commands().pause(id),
                        _ => local.commands().resume(id),
                    });
                }
                8..=10 => _ = Write::write(&mut &streams[index], b"a few bytes"),
                _ => std::thread::sleep(Duration::from_micros(chance.below(300) as u64)),
            }
        }
        drop(streams);
        // Whoever still stands in the backend's queue.
        let until = Instant::now() + Duration::from_secs(60);
        while server.handle().stats().open() > 0 {
            drop(backend.accept());
            std::thread::sleep(Duration::from_millis(20));
            for id in ids.lock().unwrap().iter().copied() {
                server.handle().run_on(id.worker(), move |local| local.commands().resume(id));
            }
            assert!(Instant::now() < until, "seed {seed}: {:?}", server.handle().stats());
        }
        let report = server.stop(Duration::from_secs(10)).unwrap();
        assert_eq!((report.stats.panics, report.cut), (0, 0), "seed {seed}");
    }
}

/// Reads a header of ten bytes, then relays the rest to a Unix backend, or to itself.
struct Heady {
    to: Option<Target>,
    echoes: bool,
    pauses: bool,
}

impl Protocol for Heady {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        assert!(self.to.is_some(), "all else is forwarded");
        if input.len() < 10 {
            return Flow::Continue;
        }
        input.advance(10);
        let (me, to) = (conn.id(), self.to.take().unwrap());
        if self.echoes {
            conn.commands().forward(me, me);
        } else {
            let half = Self { to: None, echoes: false, pauses: false };
            let backend = conn.commands().connect(to, ConnectOptions::default(), half);
            conn.commands().forward(me, backend);
            conn.commands().forward(backend, me);
        }
        if self.pauses { Flow::Pause } else { Flow::Continue }
    }
}

#[test]
fn on_real_sockets_a_relay_that_begins_behind_a_header_moves_every_byte() {
    let _watchdog = Watchdog::new(Duration::from_secs(300), || "the heady relay".to_owned());
    let path = std::env::temp_dir().join(format!("core-relay-storm-{}.sock", std::process::id()));
    let backend = UnixListener::bind(&path).unwrap();
    for seed in seeds(4) {
        let mut chance = Chance::new(seed);
        let (echoes, pauses) = (seed % 3 == 0, seed % 2 == 0);
        let to = Target::from(path.as_path());
        let server = Runtime::builder()
            .workers(Workers::Count(1))
            .listen("127.0.0.1:0", move |_worker| {
                let to = to.clone();
                move |_peer| Heady { to: Some(to.clone()), echoes, pauses }
            })
            .unwrap()
            .start()
            .unwrap();
        let addr = server.local_addrs()[0].as_socket_addr().unwrap();
        let mut talks = Vec::new();
        for _ in 0..4 {
            let client = TcpStream::connect(addr).unwrap();
            let bytes = if chance.below(2) == 0 { chance.below(5_000_000) } else { chance.below(3000) };
            let says = noise(&mut chance, bytes);
            let heads = [noise(&mut chance, 10), says.clone()].concat();
            let reads = client.try_clone().unwrap();
            let end = |stream: &TcpStream| stream.shutdown(Shutdown::Write).unwrap();
            let hears = talk(reads, client, end, heads, chance.fork());
            if echoes {
                talks.push((says, hears));
            } else {
                let (other, _) = backend.accept().unwrap();
                let answer = noise(&mut chance, bytes / 2);
                let reads = other.try_clone().unwrap();
                let end = |stream: &UnixStream| stream.shutdown(Shutdown::Write).unwrap();
                talks.push((says, talk(reads, other, end, answer.clone(), chance.fork())));
                talks.push((answer, hears));
            }
        }
        for (said, hears) in talks {
            assert!(hears.join().unwrap() == said, "seed {seed}");
        }
        let report = server.stop(Duration::from_secs(10)).unwrap();
        assert_eq!((report.stats.panics, report.cut), (0, 0), "seed {seed}");
    }
    std::fs::remove_file(path).unwrap();
}
