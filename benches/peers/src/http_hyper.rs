//! hyper 1 with `pipeline_flush`, as in its TechEmpower entry; no router, no timer.
//! Date comes from hyper's cached clock.

use std::io;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue, SERVER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::task::LocalSet;

use crate::http::{HELLO, Message};
use crate::{Options, on_each_worker};

/// On one current-thread runtime for each worker.
pub fn current(options: &Options) -> ! {
    on_each_worker(options, |listener| {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        runtime.block_on(LocalSet::new().run_until(async {
            let listener = TcpListener::from_std(listener)?;
            let http = http();
            loop {
                let (stream, _) = listener.accept().await?;
                tokio::task::spawn_local(connection(http.clone(), stream));
            }
        }))
    })
}

/// On one work-stealing runtime with a thread for each worker. Returns when it cannot go on.
///
/// # Errors
/// The kernel's: the port is taken.
pub fn multi(options: &Options) -> io::Result<()> {
    let listener = options.only_listener()?;
    let runtime = Builder::new_multi_thread().worker_threads(options.workers).enable_io().build()?;
    // The accept loop is a task, so that it runs on a worker and not beside them.
    let accept = runtime.spawn(async {
        let listener = TcpListener::from_std(listener)?;
        let http = http();
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(connection(http.clone(), stream));
        }
    });
    runtime.block_on(accept).map_err(io::Error::other)?
}

fn http() -> http1::Builder {
    let mut http = http1::Builder::new();
    http.pipeline_flush(true);
    http
}

async fn connection(http: http1::Builder, stream: TcpStream) {
    // A client that hangs up in the middle is no news here.
    drop(http.serve_connection(TokioIo::new(stream), service_fn(answer)).await);
}

/// The same on any other stream.
pub async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin) {
    drop(http().serve_connection(TokioIo::new(stream), service_fn(answer)).await);
}

async fn answer(request: Request<Incoming>) -> hyper::Result<Response<Full<Bytes>>> {
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/plaintext") => (StatusCode::OK, "text/plain", Bytes::from_static(HELLO.as_bytes())),
        (&Method::GET, "/json") => (StatusCode::OK, "application/json", Message::HELLO.to_json().into()),
        (&Method::POST, "/echo") => {
            let body = request.into_body().collect().await?.to_bytes();
            (StatusCode::OK, "application/octet-stream", body)
        }
        _ => (StatusCode::NOT_FOUND, "text/plain", Bytes::new()),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(SERVER, HeaderValue::from_static("hyper"));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}
