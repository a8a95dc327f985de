//! What a wake costs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use netpoll_core::{Conn, Flow, Input, Protocol, Runtime, Workers};

/// Wakes itself, and answers when that has come.
struct SelfWaking;

impl Protocol for SelfWaking {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        conn.waker().wake();
        Flow::Pause
    }

    fn woken(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.send(b"awake");
        Flow::Continue
    }
}

#[test]
fn a_wake_during_a_turn_costs_no_system_call() {
    let server = Runtime::builder()
        .workers(Workers::Count(1))
        .listen("127.0.0.1:0", |_worker| |_peer| SelfWaking)
        .unwrap()
        .start()
        .unwrap();
    let mut client = TcpStream::connect(server.local_addrs()[0].as_socket_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    for _ in 0..100 {
        client.write_all(b"?").unwrap();
        client.read_exact(&mut [0; 5]).unwrap();
    }
    drop(client);
    let stats = server.stop(Duration::from_secs(10)).unwrap().stats;
    assert!(stats.mailbox_messages < 10, "a wake at home is no letter: {}", stats.mailbox_messages);
    // The order to stop may have found the worker asleep.
    assert!(stats.wakeups_sent <= 1, "{} of 100 wakes rang the bell", stats.wakeups_sent);
}
