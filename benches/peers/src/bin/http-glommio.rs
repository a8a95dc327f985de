//! HTTP/1 on glommio, by [`peers::http1`]: one executor with its io_uring rings per worker, a task and two buffers per connection.
//!
//! It does not spin before it parks, which is the default: a spin would show as CPU time. The library binds by
//! itself, always with `SO_REUSEPORT`.

use std::io;
use std::net::Ipv4Addr;
use std::thread;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutorBuilder, Placement};
use peers::http1::{Exchange, READ_BYTES};
use peers::{Options, end, tune_listeners};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let options = Options::from_args();
    let run = |index| {
        let placement = options.cpu(index).map_or(Placement::Unbound, Placement::Fixed);
        let executor = LocalExecutorBuilder::new(placement).make().map_err(io::Error::from)?;
        executor.run(serve(options.port))
    };
    thread::scope(|scope| {
        for index in 1..options.workers {
            scope.spawn(move || end(run(index)));
        }
        end(run(0))
    })
}

async fn serve(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    tune_listeners()?;
    loop {
        let stream = listener.accept().await?;
        glommio::spawn_local(connection(stream)).detach();
    }
}

async fn connection(mut stream: TcpStream) {
    let mut exchange = Exchange::new("glommio");
    let mut buffer = vec![0; READ_BYTES];
    let mut answers = Vec::with_capacity(READ_BYTES);
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        let goes_on = exchange.received(&buffer[..read], &mut answers);
        if stream.write_all(&answers).await.is_err() || !goes_on {
            return;
        }
        answers.clear();
    }
}
