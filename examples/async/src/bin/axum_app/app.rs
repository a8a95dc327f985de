//! The application: axum as its own book has it.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures::{SinkExt, StreamExt, stream};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::On;

/// What handlers share, on all workers.
#[derive(Clone)]
struct Shared {
    on: On,
    visits: Arc<AtomicU64>,
}

/// The routes.
pub fn router(on: On) -> Router {
    Router::new()
        .route("/", get(|| async { "Hello, World!" }))
        .route("/hello/{name}", get(|Path(name): Path<String>| async move { format!("hello, {name}\n") }))
        .route("/sum", post(sum))
        .route("/visits", get(visits))
        .route("/slow", get(slow))
        .route("/ticks", get(ticks))
        .route("/upload", post(upload))
        .route("/echo", any(echo))
        .with_state(Shared { on, visits: Arc::default() })
}

#[derive(Deserialize)]
struct Numbers {
    numbers: Vec<i64>,
}

#[derive(Serialize)]
struct Sum {
    sum: i64,
}

async fn sum(Json(Numbers { numbers }): Json<Numbers>) -> Result<Json<Sum>, StatusCode> {
    let sum = numbers.iter().try_fold(0_i64, |sum, number| sum.checked_add(*number));
    sum.map(|sum| Json(Sum { sum })).ok_or(StatusCode::UNPROCESSABLE_ENTITY)
}

async fn visits(State(shared): State<Shared>) -> String {
    format!("{}\n", shared.visits.fetch_add(1, Ordering::Relaxed) + 1)
}

#[derive(Deserialize)]
struct Wait {
    ms: u64,
}

async fn slow(State(shared): State<Shared>, Query(Wait { ms }): Query<Wait>) -> String {
    shared.on.sleep(Duration::from_millis(ms)).await;
    format!("waited {ms} ms\n")
}

#[derive(Deserialize)]
struct Ticks {
    count: u32,
}

/// A body that comes in time.
async fn ticks(State(shared): State<Shared>, Query(Ticks { count }): Query<Ticks>) -> Body {
    let lines = stream::iter(1..=count).then(move |tick| async move {
        shared.on.sleep(Duration::from_millis(100)).await;
        Ok::<_, Infallible>(format!("tick {tick}\n"))
    });
    Body::from_stream(lines)
}

/// A body that is counted as it comes.
async fn upload(request: Request) -> Result<String, StatusCode> {
    let (mut body, mut bytes) = (request.into_body(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| StatusCode::BAD_REQUEST)?;
        bytes += frame.data_ref().map_or(0, Bytes::len);
    }
    Ok(format!("{bytes} bytes\n"))
}

/// A WebSocket, by hand: that of axum itself spawns on tokio, wherever it runs.
async fn echo(State(shared): State<Shared>, headers: HeaderMap, mut request: Request) -> Response {
    let Some(key) = headers.get(SEC_WEBSOCKET_KEY) else {
        return (StatusCode::UPGRADE_REQUIRED, [(UPGRADE, "websocket")]).into_response();
    };
    let accept = derive_accept_key(key.as_bytes());
    let upgrade = hyper::upgrade::on(&mut request);
    shared.on.spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            let upgraded = TokioIo::new(upgraded);
            let mut socket = WebSocketStream::from_raw_socket(upgraded, Role::Server, None).await;
            while let Some(Ok(message)) = socket.next().await {
                // Whoever has closed it in the meantime hears no more.
                if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                    return;
                }
            }
        }
    });
    let headers = [(CONNECTION, "upgrade"), (UPGRADE, "websocket"), (SEC_WEBSOCKET_ACCEPT, &accept)];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}
