//! actix-web's router on actix-http's HTTP/1 service, keep-alive without a timer and no head timeout, as in its
//! TechEmpower entry.
//!
//! One accept thread hands connections to the workers; its own listener is shared, so `--workers` needs no
//! `SO_REUSEPORT`.

use std::io;
use std::time::Duration;

use actix_http::{HttpService, KeepAlive};
use actix_server::Server;
use actix_service::map_config;
use actix_web::dev::AppConfig;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderValue, SERVER};
use actix_web::web::{self, Bytes, PayloadConfig};
use actix_web::{App, HttpResponse};
use peers::http::{BODY_BYTES_MAX, HELLO, Message};
use peers::{BACKLOG, Options, end};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    end(serve(&Options::from_args()))
}

fn serve(options: &Options) -> io::Result<()> {
    let listener = options.only_listener()?;
    actix_rt::System::new().block_on(async move {
        Server::build()
            .backlog(BACKLOG.cast_unsigned())
            .workers(options.workers)
            .disable_signals()
            .listen("http", listener, || {
                let app = App::new()
                    .app_data(PayloadConfig::new(BODY_BYTES_MAX))
                    .service(web::resource("/plaintext").route(web::get().to(plaintext)))
                    .service(web::resource("/json").route(web::get().to(json)))
                    .service(web::resource("/echo").route(web::post().to(echo)));
                HttpService::build()
                    .keep_alive(KeepAlive::Os)
                    .client_request_timeout(Duration::ZERO)
                    .h1(map_config(app, |_| AppConfig::default()))
                    .tcp()
            })?
            .run()
            .await
    })
}

async fn plaintext() -> HttpResponse<Bytes> {
    answer("text/plain", Bytes::from_static(HELLO.as_bytes()))
}

async fn json() -> HttpResponse<Bytes> {
    answer("application/json", Message::HELLO.to_json().into())
}

async fn echo(body: Bytes) -> HttpResponse<Bytes> {
    answer("application/octet-stream", body)
}

fn answer(kind: &'static str, body: Bytes) -> HttpResponse<Bytes> {
    let mut response = HttpResponse::with_body(StatusCode::OK, body);
    response.headers_mut().insert(SERVER, HeaderValue::from_static("actix"));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
