//! axum's router on hyper 1 with `pipeline_flush` and one current-thread tokio runtime per worker, as in its
//! TechEmpower entry.

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_TYPE, SERVER};
use axum::response::{IntoResponse, Json};
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use peers::http::{BODY_BYTES_MAX, HELLO, Message};
use peers::{Options, on_each_worker};
use tokio::net::TcpListener;
use tokio::runtime::Builder;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const AXUM: HeaderValue = HeaderValue::from_static("axum");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain");

fn main() {
    on_each_worker(&Options::from_args(), |listener| {
        Builder::new_current_thread().enable_io().build()?.block_on(async {
            let listener = TcpListener::from_std(listener)?;
            let routes = Router::new()
                .route("/plaintext", get(plaintext))
                .route("/json", get(json))
                .route("/echo", post(echo))
                .layer(DefaultBodyLimit::max(BODY_BYTES_MAX));
            let mut http = http1::Builder::new();
            http.pipeline_flush(true);
            loop {
                let (stream, _) = listener.accept().await?;
                let service = TowerToHyperService::new(routes.clone());
                let connection = http.serve_connection(TokioIo::new(stream), service);
                tokio::spawn(async move {
                    // A client that hangs up in the middle is no news here.
                    drop(connection.await);
                });
            }
        })
    })
}

async fn plaintext() -> impl IntoResponse {
    ([(SERVER, AXUM), (CONTENT_TYPE, TEXT)], Bytes::from_static(HELLO.as_bytes()))
}

async fn json() -> impl IntoResponse {
    ([(SERVER, AXUM)], Json(Message::HELLO))
}

async fn echo(body: Bytes) -> impl IntoResponse {
    ([(SERVER, AXUM)], body)
}
