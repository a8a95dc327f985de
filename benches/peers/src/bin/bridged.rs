//! hyper 1 and axum 0.8, each on netpoll and on current-thread tokio: the same service, the same settings, HTTP/1.1 or HTTP/2 as the
//! client begins.
//!
//! `--lane` says which: `hyper-netpoll`, `hyper-tokio`, `axum-netpoll`, `axum-tokio`. Both take their timers from the runtime, as a server
//! that faces strangers does, and both use the system's allocator.
//!
//! Build it with `--profile unwind`: netpoll contains panics, tokio those of tasks, and both are measured so.

use std::convert::Infallible;
use std::future::Ready;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use netpoll_core::bridge::{HyperExecutor, HyperTimer};
use netpoll_core::{Runtime, Workers};
use peers::{BACKLOG, Options, end, on_each_worker};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

const HELLO: &str = "Hello, World!";
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);

/// hyper alone: every path is answered.
#[derive(Clone)]
struct Bare;

impl hyper::service::Service<Request<Incoming>> for Bare {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn call(&self, _request: Request<Incoming>) -> Self::Future {
        std::future::ready(Ok(Response::new(Full::new(Bytes::from_static(HELLO.as_bytes())))))
    }
}

fn router() -> TowerToHyperService<Router> {
    TowerToHyperService::new(Router::new().route("/plaintext", get(async || HELLO)))
}

/// One connection to its end. The bounds of a function that could serve either on either have no names outside of hyper.
macro_rules! serve {
    ($executor:expr, $timer:expr, $io:expr, $service:expr) => {{
        let mut builder = auto::Builder::new($executor);
        builder.http1().timer($timer).header_read_timeout(HEAD_TIMEOUT);
        builder.http2().timer($timer);
        let (io, service) = ($io, $service);
        async move {
            // A client that hangs up in the middle is no news here.
            let _ = builder.serve_connection(io, service).await;
        }
    }};
}

macro_rules! on_netpoll {
    ($stream:expr, $service:expr) => {
        serve!(HyperExecutor, HyperTimer, $stream, $service)
    };
}

macro_rules! on_tokio {
    ($stream:expr, $service:expr) => {
        serve!(TokioExecutor::new(), TokioTimer::new(), TokioIo::new($stream), $service)
    };
}

fn main() {
    let lanes = ["hyper-netpoll", "hyper-tokio", "axum-netpoll", "axum-tokio"];
    let (options, lane) = Options::with_choice("--lane", &lanes);
    match lane {
        "hyper-tokio" => tokio_workers(&options, || |stream| on_tokio!(stream, Bare)),
        "axum-tokio" => tokio_workers(&options, || {
            let router = router();
            move |stream| on_tokio!(stream, router.clone())
        }),
        lane => end(netpoll_workers(&options, lane)),
    }
}

fn tokio_workers<F, T>(options: &Options, factory: impl Fn() -> F + Sync) -> !
where
    F: Fn(TcpStream) -> T,
    T: Future<Output = ()> + Send + 'static,
{
    on_each_worker(options, |listener| {
        let serve = factory();
        Builder::new_current_thread().enable_all().build()?.block_on(async {
            let listener = TcpListener::from_std(listener)?;
            loop {
                let (stream, _) = listener.accept().await?;
                tokio::spawn(serve(stream));
            }
        })
    })
}

fn netpoll_workers(options: &Options, lane: &str) -> io::Result<()> {
    let workers = match options.cpus.is_empty() {
        true => Workers::Count(options.workers),
        false => Workers::Cpus((0..options.workers).filter_map(|index| options.cpu(index)).collect()),
    };
    let builder = Runtime::builder()
        .workers(workers)
        .pin(false) // unless CPUs are named, as in the other peers
        // Under valgrind every turn is long.
        .long_turn(Duration::from_secs(3600))
        .backlog(BACKLOG);
    let address = (Ipv4Addr::LOCALHOST, options.port);
    let builder = match lane {
        "axum-netpoll" => {
            let router = router();
            builder.listen_tasks(address, move |stream, _peer| on_netpoll!(stream, router.clone()))?
        }
        _ => builder.listen_tasks(address, |stream, _peer| on_netpoll!(stream, Bare))?,
    };
    builder.start()?.wait().map(drop)
}
