//! Two real workers that talk to each other.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use netpoll_core::{Commands, Conn, ConnId, Flow, Input, Lost, Protocol, Running, Runtime, Workers};

use crate::chance::Watchdog;

const PATIENCE: Duration = Duration::from_secs(60);

/// One connection of each worker, and how they ended.
#[derive(Default)]
struct Pair {
    names: [Option<ConnId>; 2],
    ends: [Option<String>; 2],
}

/// Does to its counterpart on the other worker what it is told.
struct Told {
    pair: Arc<Mutex<Pair>>,
    id: Option<ConnId>,
}

impl Protocol for Told {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        let worker = conn.worker();
        let mut pair = self.pair.lock().unwrap();
        let other = pair.names[1 - worker];
        match input.bytes() {
            b"who" => {
                self.id = Some(conn.id());
                pair.names[worker] = self.id;
                conn.send(&[worker as u8]);
            }
            b"close" => conn.commands().close(other.expect("a counterpart")),
            b"reset" => conn.commands().reset(other.expect("a counterpart")),
            bytes => conn.commands().send(other.expect("a counterpart"), Bytes::copy_from_slice(bytes)),
        }
        input.advance_all();
        Flow::Continue
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        let mut pair = self.pair.lock().unwrap();
        let Some(id) = self.id else { return };
        if pair.names[id.worker()] == self.id {
            pair.ends[id.worker()] = Some(format!("{reason:?}"));
        }
    }
}

struct World {
    running: Running,
    pair: Arc<Mutex<Pair>>,
    /// One of each worker.
    clients: [TcpStream; 2],
}

impl World {
    fn new() -> Self {
        let pair = Arc::<Mutex<Pair>>::default();
        let running = Runtime::builder()
            .workers(Workers::Count(2))
            .listen("127.0.0.1:0", {
                let pair = Arc::clone(&pair);
                move |_worker| {
                    let pair = Arc::clone(&pair);
                    move |_peer| Told { pair: Arc::clone(&pair), id: None }
                }
            })
            .unwrap()
            .start()
            .unwrap();
        // The kernel chooses by a hash of the client's port; the last one of a worker counts.
        let mut clients = [None, None];
        for _ in 0..500 {
            let mut stream = TcpStream::connect(running.local_addrs()[0].as_socket_addr().unwrap()).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(b"who").unwrap();
            let mut worker = [0];
            stream.read_exact(&mut worker).unwrap();
            clients[usize::from(worker[0])] = Some(stream);
            if let [Some(_), Some(_)] = clients {
                break;
            }
        }
        Self { running, pair, clients: clients.map(|client| client.expect("both workers get somebody")) }
    }

    /// How the counted connection of a worker ended.
    fn end_of(&self, worker: usize) -> String {
        let watchdog = Watchdog::new(PATIENCE, || "waiting for an end that does not come".to_owned());
        loop {
            if let Some(end) = self.pair.lock().unwrap().ends[worker].take() {
                drop(watchdog);
                return end;
            }
            std::thread::yield_now();
        }
    }
}

#[test]
fn what_one_worker_sends_to_a_connection_of_another_arrives_in_order() {
    let mut world = World::new();
    let mut rounds = 0;
    for round in 0..300_usize {
        // Small ones are copied, large ones shared.
        let size = [1, 100, 4096, 20_000][round % 4];
        for from in [0, 1] {
            let sent = vec![b'a' + (round % 26) as u8; size];
            world.clients[from].write_all(&sent).unwrap();
            let mut back = vec![0; size];
            world.clients[1 - from].read_exact(&mut back).unwrap();
            assert!(back == sent, "round {round}");
            rounds += 1;
        }
    }
    let stats = world.running.stop(PATIENCE).unwrap().stats;
    assert!(stats.mailbox_messages >= rounds, "each took a letter at least: {stats:?}");
}

#[test]
fn a_worker_closes_and_resets_a_connection_of_another() {
    let mut world = World::new();
    world.clients[0].write_all(b"last words").unwrap();
    let mut back = [0; 10];
    world.clients[1].read_exact(&mut back).unwrap();
    world.clients[0].write_all(b"close").unwrap();
    assert_eq!(world.clients[1].read(&mut [0]).unwrap(), 0, "an orderly end");
    world.clients[1].shutdown(Shutdown::Write).unwrap();
    assert_eq!(world.end_of(1), "Closed");
    // It is gone: nothing happens, and the connection goes on.
    world.clients[0].write_all(b"to nobody").unwrap();
    world.clients[0].write_all(b"who").unwrap();

    let mut world = World::new();
    world.clients[1].write_all(b"reset").unwrap();
    let error = world.clients[0].read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(world.end_of(0), "Reset");
}
