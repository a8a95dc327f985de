//! The same on tokio: a current-thread runtime on each thread, and a listening socket each.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

const PATIENCE: Duration = Duration::from_secs(20);

async fn connection(stream: TcpStream, router: Router) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(PATIENCE);
    let service = TowerToHyperService::new(router);
    // A peer that leaves in the middle has nobody to tell.
    let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
}

fn bind(addr: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

fn run(listener: std::net::TcpListener, router: &Router) -> std::io::Result<()> {
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _peer) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(connection(stream, router.clone()));
        }
    })
}

pub fn serve(addr: SocketAddr, workers: usize, router: &Router) -> Result<(), Box<dyn std::error::Error>> {
    let mut listeners = vec![bind(addr)?];
    let addr = listeners[0].local_addr()?;
    for _ in 1..workers {
        listeners.push(bind(addr)?);
    }
    println!("axum_app on tokio listens on http://{addr}");
    thread::scope(|scope| {
        let threads: Vec<_> =
            listeners.into_iter().map(|listener| scope.spawn(|| run(listener, router))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a server does not panic"))
    })?;
    Ok(())
}
