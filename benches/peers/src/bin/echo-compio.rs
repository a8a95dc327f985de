//! Echo on compio: one io_uring per worker, a task and an owned 16 KiB buffer per connection.
//!
//! `COOP_TASKRUN`, `TASKRUN_FLAG`, `SINGLE_ISSUER` and `DEFER_TASKRUN`, which fit a runtime of one thread.

use compio::buf::BufResult;
use compio::driver::ProactorBuilder;
use compio::io::{AsyncRead, AsyncWriteExt};
use compio::net::{TcpListener, TcpStream};
use compio::runtime::RuntimeBuilder;
use peers::{Options, on_each_worker};

const READ_BYTES: usize = 16 * 1024;

fn main() {
    on_each_worker(&Options::from_args(), |listener| {
        let mut proactor = ProactorBuilder::new();
        proactor.coop_taskrun(true).taskrun_flag(true).single_issuer(true).defer_taskrun(true);
        RuntimeBuilder::new().with_proactor(proactor).build()?.block_on(async {
            let listener = TcpListener::from_std(listener)?;
            loop {
                let (stream, _) = listener.accept().await?;
                compio::runtime::spawn(echo(stream)).detach();
            }
        })
    })
}

async fn echo(mut stream: TcpStream) {
    let mut buffer = Vec::with_capacity(READ_BYTES);
    loop {
        let BufResult(read, filled) = stream.read(buffer).await;
        let Ok(1..) = read else { return };
        let BufResult(written, emptied) = stream.write_all(filled).await;
        if written.is_err() {
            return;
        }
        buffer = emptied;
        buffer.clear();
    }
}
