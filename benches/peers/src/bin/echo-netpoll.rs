//! Echo on netpoll, in each of its lanes.
//!
//! `--lane now` (default): callbacks on the worker's shared read buffer, from which `send_now` sends; no task per connection. `queue`: the
//! same with `send`, which copies, as a protocol that computes its answer does. `read`: a task per connection that reads into its own
//! 16 KiB and writes all of it back, word for word what it is with tokio. `fill`: a task that writes back what it was lent, and owns no buffer.
//!
//! Build it with `--profile unwind`: netpoll contains panics, and is measured as it is shipped.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use netpoll_core::net::Stream;
use netpoll_core::{Conn, Flow, Input, Protocol, Runtime, Workers};
use peers::{BACKLOG, Options, end};

const READ_BYTES: usize = 16 * 1024;

struct Now;

impl Protocol for Now {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        conn.send_now(input.bytes());
        input.advance_all();
        Flow::Continue
    }
}

struct Queue;

impl Protocol for Queue {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        conn.send(input.bytes());
        input.advance_all();
        Flow::Continue
    }
}

async fn read(mut stream: Stream) {
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

async fn fill(stream: Stream) {
    let (mut reader, mut writer) = stream.into_split();
    loop {
        let Ok(input @ [_, ..]) = reader.fill_buf().await else { return };
        let count = input.len();
        if writer.write_all(input).await.is_err() {
            return;
        }
        reader.consume(count);
    }
}

fn main() {
    let (options, lane) = Options::with_choice("--lane", &["now", "queue", "read", "fill"]);
    end(serve(&options, lane))
}

fn serve(options: &Options, lane: &str) -> io::Result<()> {
    let workers = match options.cpus.is_empty() {
        true => Workers::Count(options.workers),
        false => Workers::Cpus((0..options.workers).filter_map(|index| options.cpu(index)).collect()),
    };
    let builder = Runtime::builder()
        .workers(workers)
        .pin(false) // unless CPUs are named, as in the other peers
        // Under valgrind every turn is long.
        .long_turn(Duration::from_secs(3600))
        .backlog(BACKLOG);
    let address = (Ipv4Addr::LOCALHOST, options.port);
    let builder = match lane {
        "queue" => builder.listen(address, |_worker| |_peer| Queue)?,
        "read" => builder.listen_tasks(address, |stream, _peer| read(stream))?,
        "fill" => builder.listen_tasks(address, |stream, _peer| fill(stream))?,
        _ => builder.listen(address, |_worker| |_peer| Now)?,
    };
    builder.start()?.wait().map(drop)
}
