//! Echo on monoio: one runtime per worker, a task and an owned 16 KiB buffer per connection.
//!
//! `--driver epoll` (default) is its "legacy" driver; `uring` is io_uring with the library's settings.

use std::io;

use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};
use peers::{Options, on_each_worker};

const READ_BYTES: usize = 16 * 1024;

fn main() {
    let (options, driver) = Options::with_choice("--driver", &["epoll", "uring"]);
    on_each_worker(&options, |listener| match driver {
        "uring" => RuntimeBuilder::<IoUringDriver>::new().build()?.block_on(serve(listener)),
        _ => RuntimeBuilder::<LegacyDriver>::new().build()?.block_on(serve(listener)),
    })
}

async fn serve(listener: std::net::TcpListener) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        monoio::spawn(echo(stream));
    }
}

async fn echo(mut stream: TcpStream) {
    let mut buffer = Vec::with_capacity(READ_BYTES);
    loop {
        let (read, filled) = stream.read(buffer).await;
        let Ok(1..) = read else { return };
        let (written, emptied) = stream.write_all(filled).await;
        if written.is_err() {
            return;
        }
        buffer = emptied;
        buffer.clear();
    }
}
