//! HTTP/1 on monoio, by [`http1`](crate::http1): monoio has no HTTP of its own in the same repository.
//!
//! One runtime per worker, a task and two owned buffers per connection. All requests that one read brought are
//! answered by one write.

use std::io;

use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

use crate::http1::{Exchange, READ_BYTES};
use crate::{Options, on_each_worker};

/// On one runtime for each worker, with io_uring or with epoll, which it calls its legacy driver.
pub fn on(options: &Options, has_uring: bool) -> ! {
    on_each_worker(options, |listener| match has_uring {
        true => RuntimeBuilder::<IoUringDriver>::new().build()?.block_on(serve(listener)),
        false => RuntimeBuilder::<LegacyDriver>::new().build()?.block_on(serve(listener)),
    })
}

async fn serve(listener: std::net::TcpListener) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        monoio::spawn(connection(stream));
    }
}

async fn connection(mut stream: TcpStream) {
    let mut exchange = Exchange::new("monoio");
    let mut buffer = Vec::with_capacity(READ_BYTES);
    let mut answers = Vec::with_capacity(READ_BYTES);
    let mut goes_on = true;
    while goes_on {
        let (read, filled) = stream.read(buffer).await;
        let Ok(1..) = read else { return };
        goes_on = exchange.received(&filled, &mut answers);
        buffer = filled;
        buffer.clear();
        if !answers.is_empty() {
            let (written, emptied) = stream.write_all(answers).await;
            if written.is_err() {
                return;
            }
            answers = emptied;
            answers.clear();
        }
    }
}
