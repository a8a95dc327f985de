//! The echo as a story instead of callbacks: a task for each client, which reads, answers, and waits for no client longer than a minute.
//!
//! Run it with `cargo run --bin task_echo` (or with an address: `127.0.0.1:9000`, `unix:/tmp/echo.sock`) and talk to it with `nc 127.0.0.1 7000`
//! (`nc -U /tmp/echo.sock`). Ctrl-C drains it: clients hear that it ends, and have five seconds for their last words.

use std::fmt::Display;
use std::io::{self, Write};
use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select};
use netpoll_core::net::Stream;
use netpoll_core::time::timeout;
use netpoll_core::{Runtime, task};

const PATIENCE: Duration = Duration::from_secs(60);

/// Serves one client until it ends, says nothing for too long, or the server ends.
async fn serve(stream: &mut Stream) -> io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    let mut stopping = pin!(task::stopping());
    loop {
        // What arrived is looked at where it lies. A branch of a `select` that is dropped has consumed nothing.
        let input = match select(pin!(timeout(PATIENCE, reader.fill_buf())), stopping.as_mut()).await {
            Either::Left((Ok(input), _)) => input?,
            Either::Left((Err(_elapsed), _)) => return writer.write_all(b"are you still there?\n").await,
            Either::Right(_) => return writer.write_all(b"the server ends\n").await,
        };
        if input.is_empty() {
            return Ok(());
        }
        let count = input.len();
        writer.write_all(input).await?;
        reader.consume(count);
    }
}

fn say(text: impl Display) {
    // Whoever closed our output (`| head -1`) does not want to read this, but may want the server.
    let _ = writeln!(io::stdout(), "{text}");
}

fn main() -> io::Result<()> {
    let (backend, mut words) = examples::words()?;
    let addr = words.next().unwrap_or("127.0.0.1:7000".to_owned());
    let server = Runtime::builder()
        .backend(backend)
        .stop_on_signals(true)
        .drain_within(Duration::from_secs(5))
        .listen_tasks(addr, |mut stream, peer| async move {
            if let Err(error) = serve(&mut stream).await {
                say(format_args!("{}: {error}", peer.addr));
            }
        })?
        .start()?;
    for addr in server.local_addrs() {
        say(format_args!("echo listens on {addr}"));
    }
    say(server.wait()?);
    Ok(())
}
