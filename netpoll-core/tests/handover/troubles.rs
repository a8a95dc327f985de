//! A handover in bad company: somebody stops, is stuck, is slow, says nothing or has no descriptors, several come at once.

use std::time::Instant;

use super::*;

/// Answers each byte with its name, and may go on elsewhere at any time; at an `s` it waits until it is let go.
struct Sticky {
    name: u8,
    held: Arc<Barrier>,
}

impl Protocol for Sticky {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        if input.bytes().contains(&b's') {
            self.held.wait();
            self.held.wait();
        }
        conn.send(&[self.name]);
        input.advance_all();
        Flow::Continue
    }

    fn hand_over(&mut self, _conn: &mut Conn<'_>) -> Option<Vec<u8>> {
        Some(Vec::new())
    }

    fn taken_over(&mut self, conn: &mut Conn<'_>, _state: &[u8]) -> Flow {
        conn.unchanged_flow()
    }
}

fn barrier() -> Arc<Barrier> {
    Arc::new(Barrier::new(2))
}

fn until(mut holds: impl FnMut() -> bool) {
    let ends = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < ends, "it never holds");
        std::thread::yield_now();
    }
}

#[test]
fn what_was_handed_over_does_not_wake_the_one_that_goes() {
    let folder = Folder::new();
    let held = barrier();
    let start = |name| {
        let held = Arc::clone(&held);
        let builder = builder(1, &folder.socket())
            .listen("127.0.0.1:0", move |_worker| {
                let held = Arc::clone(&held);
                move |_peer| Sticky { name, held: Arc::clone(&held) }
            })
            .unwrap()
            .listen("127.0.0.1:0", |_worker| |_peer| Lines)
            .unwrap()
            .bind_udp("127.0.0.1:0", move |_worker| Named(name))
            .unwrap();
        builder.start().unwrap()
    };
    let old = start(b'1');
    let moves = old.handle().setup().backend != "uring";
    let addrs: Vec<_> = old.local_addrs().iter().map(|addr| addr.as_socket_addr().unwrap()).collect();
    let mut moved = client(addrs[0]);
    assert_eq!(asked(&mut moved), b'1');
    // Holds the drain up, as half a line was read.
    let mut busy = client(addrs[1]);
    busy.write_all(b"half").unwrap();
    until(|| old.handle().stats().received_bytes == 5);
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    datagrams.connect(old.udp_addrs()[0]).unwrap();
    datagrams.set_read_timeout(Some(PATIENCE)).unwrap();
    let (handle, old) = (old.handle().clone(), ending(old));
    let new = start(b'2');
    if moves {
        until(|| asked(&mut moved) == b'2');
    }
    until(|| datagram(&datagrams) == b'2');
    // It has closed its own by then.
    for _ in 0..20 {
        assert_eq!(datagram(&datagrams), b'2');
    }
    let before = handle.stats().events;
    for _ in 0..200 {
        if moves {
            assert_eq!(asked(&mut moved), b'2');
        }
        assert_eq!(datagram(&datagrams), b'2');
    }
    let events = handle.stats().events - before;
    assert!(events < 50, "{events} events of sockets that are the other one's");
    busy.write_all(b" a line\n").unwrap();
    assert_eq!(busy.read(&mut [0]).unwrap(), 1);
    drop(busy);
    old.join().unwrap();
    drop(new);
}
