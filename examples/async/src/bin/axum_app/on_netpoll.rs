//! On netpoll: a task for each connection, on the worker that has accepted it.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use netpoll_core::bridge::{HyperExecutor, HyperTimer, SendWrapper};
use netpoll_core::net::Stream;
use netpoll_core::{Backend, Runtime, Workers, task};

/// How long the head of a request may take, and a peer of HTTP/2 may be silent before it is asked whether it lives.
const PATIENCE: Duration = Duration::from_secs(20);

/// HTTP/1.1, or HTTP/2 for who begins with its preface.
async fn connection(stream: Stream, router: Router) {
    let mut builder = auto::Builder::new(HyperExecutor);
    builder.http1().timer(HyperTimer).header_read_timeout(PATIENCE);
    builder.http2().timer(HyperTimer).keep_alive_interval(PATIENCE);
    // `Send`, because an upgrade hands it to whoever waits for it; here that is a task of the same worker.
    let stream = SendWrapper::new(stream);
    let connection = builder.serve_connection_with_upgrades(stream, TowerToHyperService::new(router));
    let (mut connection, mut stopping) = (pin!(connection), pin!(task::stopping()));
    let mut is_stopping = false;
    let served = poll_fn(|cx| {
        if !is_stopping && stopping.as_mut().poll(cx).is_ready() {
            is_stopping = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx)
    });
    // A peer that leaves in the middle has nobody to tell.
    let _ = served.await;
}

pub fn serve(
    addr: SocketAddr,
    workers: Option<usize>,
    backend: Backend,
    router: Router,
) -> Result<(), Box<dyn std::error::Error>> {
    let running = Runtime::builder()
        .workers(workers.map_or(Workers::Auto, Workers::Count))
        .backend(backend)
        .stop_on_signals(true)
        .listen_tasks(addr, move |stream, _peer| connection(stream, router.clone()))?
        .start()?;
    println!("axum_app on netpoll listens on http://{}", running.local_addrs()[0]);
    println!("{}", running.wait()?);
    Ok(())
}
