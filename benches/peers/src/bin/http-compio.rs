//! HTTP/1 on compio, by [`peers::http1`]: one io_uring per worker, a task and two owned buffers per connection.
//!
//! `COOP_TASKRUN`, `TASKRUN_FLAG`, `SINGLE_ISSUER` and `DEFER_TASKRUN`, which fit a runtime of one thread.

use compio::buf::BufResult;
use compio::driver::ProactorBuilder;
use compio::io::{AsyncRead, AsyncWriteExt};
use compio::net::{TcpListener, TcpStream};
use compio::runtime::RuntimeBuilder;
use peers::http1::{Exchange, READ_BYTES};
use peers::{Options, on_each_worker};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    on_each_worker(&Options::from_args(), |listener| {
        let mut proactor = ProactorBuilder::new();
        proactor.coop_taskrun(true).taskrun_flag(true).single_issuer(true).defer_taskrun(true);
        RuntimeBuilder::new().with_proactor(proactor).build()?.block_on(async {
            let listener = TcpListener::from_std(listener)?;
            loop {
                let (stream, _) = listener.accept().await?;
                compio::runtime::spawn(connection(stream)).detach();
            }
        })
    })
}

async fn connection(mut stream: TcpStream) {
    let mut exchange = Exchange::new("compio");
    let mut buffer = Vec::with_capacity(READ_BYTES);
    let mut answers = Vec::with_capacity(READ_BYTES);
    let mut goes_on = true;
    while goes_on {
        let BufResult(read, filled) = stream.read(buffer).await;
        let Ok(1..) = read else { return };
        goes_on = exchange.received(&filled, &mut answers);
        buffer = filled;
        buffer.clear();
        if !answers.is_empty() {
            let BufResult(written, emptied) = stream.write_all(answers).await;
            if written.is_err() {
                return;
            }
            answers = emptied;
            answers.clear();
        }
    }
}
