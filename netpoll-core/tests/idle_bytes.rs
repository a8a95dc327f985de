//! What an idle connection costs that a task has, counted by the allocator: in pieces as the C library cuts them.

#[path = "idle/counting.rs"]
mod counting;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use netpoll_core::net::Stream;
use netpoll_core::{Runtime, Workers};

use counting::BYTES;

/// Of the future of one connection.
static FUTURE: AtomicUsize = AtomicUsize::new(0);

async fn echo(mut stream: Stream) {
    while let Ok(input @ [_, ..]) = stream.fill_buf().await {
        let answer = [input[0]];
        stream.consume(1);
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

/// Connects so many clients that have each had an answer.
fn connect(count: usize, addr: std::net::SocketAddr) -> Vec<TcpStream> {
    let one = |_| {
        let mut client = TcpStream::connect(addr).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        for _ in 0..3 {
            client.write_all(b"?").unwrap();
            client.read_exact(&mut [0]).unwrap();
        }
        client
    };
    (0..count).map(one).collect()
}

#[test]
fn an_idle_connection_of_a_task_takes_250_bytes_beside_its_future_and_no_buffer() {
    // Tables double: between two powers of two each has grown by one place for each.
    const COUNT: usize = 512;
    netpoll_core::raise_open_files(4096).unwrap();
    let serve = |stream, _peer| {
        let future = echo(stream);
        FUTURE.store(size_of_val(&future), Ordering::Relaxed);
        future
    };
    let builder = Runtime::builder().workers(Workers::Count(1)).pin(false);
    let server = builder.listen_tasks("127.0.0.1:0", serve).unwrap().start().unwrap();
    let addr = server.local_addrs()[0].as_socket_addr().unwrap();

    let first = connect(COUNT, addr);
    let before = BYTES.load(Ordering::Relaxed);
    let others = connect(COUNT, addr);
    let after = BYTES.load(Ordering::Relaxed);
    let each = (after - before) as f64 / COUNT as f64;
    let future = FUTURE.load(Ordering::Relaxed);
    // What the clients are kept in here is reserved at once, 4 bytes each, and counted.
    println!("{each:.1} bytes for each, of which its future {future}");
    assert!(each - (future as f64) < 250.0, "{each} bytes for each, of which its future {future}");
    drop((first, others));
    server.stop(Duration::from_secs(20)).unwrap();
}
