//! Echo on smol: one `LocalExecutor` per worker, driven by `block_on`; the reactor is shared by all threads.

use std::net::{TcpListener, TcpStream};

use peers::{Options, on_each_worker};
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::{Async, LocalExecutor};

const READ_BYTES: usize = 16 * 1024;

fn main() {
    on_each_worker(&Options::from_args(), |listener| {
        let executor = LocalExecutor::new();
        smol::block_on(executor.run(async {
            let listener = Async::<TcpListener>::new_nonblocking(listener)?;
            loop {
                let (stream, _) = listener.accept().await?;
                executor.spawn(echo(stream)).detach();
            }
        }))
    })
}

async fn echo(mut stream: Async<TcpStream>) {
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
