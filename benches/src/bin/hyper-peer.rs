//! hyper 1 as it is used when it has to be fast: the peer for user-space CPU per request.
//!
//! HTTP/1 with `pipeline_flush`, a tokio current-thread runtime and mimalloc, as in hyper's own TechEmpower
//! entry. Date comes from hyper's cached clock. One thread. Needs feature `peers`.
//! With `--plain` it is hyper as it is by default, without `pipeline_flush`.
//! Use: `hyper-peer --port 8080 [--cpu 0] [--plain]`.

use benches::{known_options, option, sys};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue, SERVER};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, server::conn::http1};
use hyper_util::rt::TokioIo;
use std::error::Error;
use std::net::Ipv4Addr;
use tokio::net::{TcpListener, TcpStream};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn Error>> {
    let args = benches::arguments(include_str!("hyper-peer.rs"));
    known_options(&args, &["--port", "--cpu"], &["--plain"])?;
    if args.iter().any(|arg| arg == "--cpu") {
        sys::pin_current_thread(&[option(&args, "--cpu", 0)?])?;
    }
    sys::raise_open_files(20_100)?;
    let port = option(&args, "--port", 8080)?;
    let pipeline_flush = !args.iter().any(|arg| arg == "--plain");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(tokio::task::LocalSet::new().run_until(serve(port, pipeline_flush)))
}

async fn serve(port: u16, pipeline_flush: bool) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    sys::set_backlog(&listener, 4096)?;
    let mut http = http1::Builder::new();
    http.pipeline_flush(pipeline_flush);
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::task::spawn_local(connection(http.clone(), stream));
    }
}

async fn connection(http: http1::Builder, stream: TcpStream) {
    if stream.set_nodelay(true).is_ok() {
        // A client that hangs up in the middle is no news here.
        drop(http.serve_connection(TokioIo::new(stream), service_fn(answer)).await);
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    if request.uri().path() == "/echo" && request.method() == Method::POST {
        return Ok(Response::new(Full::new(request.into_body().collect().await?.to_bytes())));
    }
    let (status, kind, body) = match request.uri().path() {
        "/plaintext" => (StatusCode::OK, "text/plain", "Hello, World!"),
        "/json" => (StatusCode::OK, "application/json", "{\"message\":\"Hello, World!\"}"),
        _ => (StatusCode::NOT_FOUND, "text/plain", ""),
    };
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(SERVER, HeaderValue::from_static("hyper"));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}
