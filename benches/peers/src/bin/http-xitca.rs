//! xitca-http's HTTP/1 service with its router, as in its TechEmpower entry; epoll through tokio.
//!
//! 16 header fields per request instead of the entry's 8, so that a browser's request passes. One thread accepts
//! and hands connections to the workers over one listener.

use std::convert::Infallible;

use peers::http::{HELLO, Message};
use peers::{Options, end};
use xitca_http::HttpServiceBuilder;
use xitca_http::body::{BodyExt, Full, RequestBody};
use xitca_http::bytes::{Bytes, BytesMut};
use xitca_http::config::HttpServiceConfig;
use xitca_http::http::header::{CONTENT_TYPE, HeaderValue, SERVER};
use xitca_http::http::{IntoResponse, Request, RequestExt, Response, StatusCode};
use xitca_http::util::service::route::{get, post};
use xitca_http::util::service::router::Router;
use xitca_service::{Service, ServiceExt, fn_service};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type In = Request<RequestExt<RequestBody>>;
type Out = Result<Response<Full<Bytes>>, Infallible>;

fn main() {
    let options = Options::from_args();
    let listener = match options.only_listener() {
        Ok(listener) => listener,
        Err(error) => end::<()>(Err(error)),
    };
    let service = Router::new()
        .insert("/plaintext", get(fn_service(plaintext)))
        .insert("/json", get(fn_service(json)))
        .insert("/echo", post(fn_service(echo)))
        .enclosed_fn(not_found)
        .enclosed(HttpServiceBuilder::h1().config(HttpServiceConfig::new().max_request_headers::<16>()));
    let server = xitca_server::Builder::new()
        .worker_threads(options.workers)
        .disable_signal()
        .listen("http", listener, service)
        .build();
    end(server.wait())
}

/// The router's only errors are a path or a method that it does not know.
async fn not_found<S: Service<In, Response = Response<Full<Bytes>>>>(routes: &S, request: In) -> Out {
    Ok(routes.call(request).await.unwrap_or_else(|_unknown| {
        let mut response = Response::new(Full::new(Bytes::new()));
        *response.status_mut() = StatusCode::NOT_FOUND;
        response
    }))
}

async fn plaintext(request: In) -> Out {
    Ok(answer(request, "text/plain", Bytes::from_static(HELLO.as_bytes())))
}

async fn json(request: In) -> Out {
    Ok(answer(request, "application/json", Message::HELLO.to_json().into()))
}

async fn echo(mut request: In) -> Out {
    let mut body = BytesMut::new();
    while let Some(data) = request.body_mut().data().await {
        let Ok(data) = data else {
            let mut response = answer(request, "text/plain", Bytes::new());
            *response.status_mut() = StatusCode::BAD_REQUEST;
            return Ok(response);
        };
        body.extend_from_slice(&data);
    }
    Ok(answer(request, "application/octet-stream", body.freeze()))
}

fn answer(request: In, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = request.into_response(Full::new(body));
    response.headers_mut().append(SERVER, HeaderValue::from_static("xitca"));
    response.headers_mut().append(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
