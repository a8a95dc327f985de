//! Echo on tokio: a task per connection that reads into its own 16 KiB and writes all of it back.
//!
//! `--runtime current` (default) is one current-thread runtime per worker, as in the TechEmpower entries built on
//! tokio; `multi` is one work-stealing runtime with so many threads.

use std::io;

use peers::{Options, end, on_each_worker};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::task::LocalSet;

const READ_BYTES: usize = 16 * 1024;

fn main() {
    let (options, runtime) = Options::with_choice("--runtime", &["current", "multi"]);
    if runtime == "multi" {
        end(multi(&options));
    }
    on_each_worker(&options, |listener| {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        runtime.block_on(LocalSet::new().run_until(async {
            let listener = TcpListener::from_std(listener)?;
            loop {
                let (stream, _) = listener.accept().await?;
                tokio::task::spawn_local(echo(stream));
            }
        }))
    })
}

fn multi(options: &Options) -> io::Result<()> {
    let listener = options.only_listener()?;
    let runtime = Builder::new_multi_thread().worker_threads(options.workers).enable_io().build()?;
    // The accept loop is a task, so that it runs on a worker and not beside them.
    let accept = runtime.spawn(async {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(echo(stream));
        }
    });
    runtime.block_on(accept).map_err(io::Error::other)?
}

async fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
