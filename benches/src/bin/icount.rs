//! Requests through everything above the driver contract, without a kernel: for counting instructions.
//!
//! `icount DEPTH ROUNDS` sends ROUNDS batches of DEPTH pipelined plaintext requests over the simulated network.
//! Instructions per request repeat to the digit; the difference of two runs leaves out the start:
//!
//! ```text
//! cargo build --release -p benches --bin icount
//! valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/icount 16 1000
//! valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/icount 16 3000
//! ```
//! (second - first) / 2000 / 16. The simulated network itself is part of the figure: it copies each batch in and
//! each answer out, and one turn in which nothing happens ends each batch.

use netpoll_http::{App, Reply, Request, Router, StatusCode};

/// What TechEmpower's plaintext test sends.
const REQUEST: &[u8] = b"GET /plaintext HTTP/1.1\r\nHost: server\r\n\
    Accept: text/plain,text/html;q=0.9,application/xhtml+xml;q=0.9,application/xml;q=0.8,*/*;q=0.7\r\n\
    Connection: keep-alive\r\n\r\n";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut numbers = std::env::args().skip(1).map(|arg| arg.parse::<usize>());
    let (Some(depth), Some(rounds)) = (numbers.next().transpose()?, numbers.next().transpose()?) else {
        return Err("usage: icount DEPTH ROUNDS".into());
    };
    let plaintext = |_: &Request, reply: Reply| reply.bytes(StatusCode::OK, "text/plain", b"Hello, World!");
    let client = App::new(move |_| Router::new().get("/plaintext", plaintext)).test();
    let mut connection = client.connect();
    let batch = REQUEST.repeat(depth);
    let mut answers = 0;
    for _ in 0..rounds {
        connection.send(&batch);
        answers += usize::from(connection.received().ends_with(b"Hello, World!")) * depth;
    }
    println!("{answers} answers");
    Ok(())
}
