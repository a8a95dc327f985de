//! Echo on glommio: one executor with its io_uring rings per worker, a task per connection.
//!
//! It does not spin before it parks, which is the default: a spin would show as CPU time. The library binds by
//! itself, always with `SO_REUSEPORT`.

use std::io;
use std::net::Ipv4Addr;
use std::thread;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutorBuilder, Placement};
use peers::{Options, end, tune_listeners};

const READ_BYTES: usize = 16 * 1024;

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
        glommio::spawn_local(echo(stream)).detach();
    }
}

async fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
