//! ntex's web router on its HTTP/1 service, keep-alive without a timer, no head timeout and 64 KiB buffers, as in
//! its TechEmpower entry; tokio driver.
//!
//! One accept thread hands connections to the workers over one listener.

use std::io;

use ntex::SharedCfg;
use ntex::http::header::{CONTENT_TYPE, HeaderValue, SERVER};
use ntex::http::{HttpService, HttpServiceConfig, KeepAlive};
use ntex::io::IoConfig;
use ntex::rt::System;
use ntex::time::Seconds;
use ntex::util::Bytes;
use ntex::web::types::PayloadConfig;
use ntex::web::{self, App, HttpResponse};
use peers::http::{BODY_BYTES_MAX, HELLO, Message};
use peers::{Options, end};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    end(serve(&Options::from_args()))
}

fn serve(options: &Options) -> io::Result<()> {
    let listener = options.only_listener()?;
    let workers = options.workers;
    System::new("peers", ntex::rt::DefaultRuntime).block_on(async move {
        ntex::server::build()
            .workers(workers)
            .disable_signals()
            .listen("http", listener, async |_| {
                HttpService::h1(
                    App::new()
                        .state(PayloadConfig::new(BODY_BYTES_MAX))
                        .service(web::resource("/plaintext").route(web::get().to(plaintext)))
                        .service(web::resource("/json").route(web::get().to(json)))
                        .service(web::resource("/echo").route(web::post().to(echo))),
                )
            })?
            .config(
                "http",
                SharedCfg::new("http")
                    .add(HttpServiceConfig::new().set_keepalive(KeepAlive::Os).set_client_timeout(Seconds(0)))
                    .add(IoConfig::new().set_read_buf(65535, 1024, 128).set_write_buf(65535, 1024, 128)),
            )
            .run()
            .await
    })
}

async fn plaintext() -> HttpResponse {
    answer("text/plain", Bytes::from_static(HELLO.as_bytes()))
}

async fn json() -> HttpResponse {
    answer("application/json", Message::HELLO.to_json().into())
}

async fn echo(body: Bytes) -> HttpResponse {
    answer("application/octet-stream", body)
}

fn answer(kind: &'static str, body: Bytes) -> HttpResponse {
    HttpResponse::Ok()
        .header(SERVER, HeaderValue::from_static("ntex"))
        .header(CONTENT_TYPE, HeaderValue::from_static(kind))
        .body(body)
}
