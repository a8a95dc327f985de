//! xitca-http 0.8's "unreal" dispatcher: what its authors show as the effect of leaving HTTP's checks out.
//!
//! No method check, no request bodies (so no `/echo`), no limit on a head but 16 fields, no deadlines. A bound to
//! compare with rather than a server to use; 0.9 no longer has it.

use peers::http::{HELLO, Message};
use peers::{Options, on_each_worker};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::task::LocalSet;
use xitca_http_08::h1::dispatcher_unreal::{Dispatcher, Request, Response};
use xitca_http_08::http::StatusCode;
use xitca_service::Service;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    on_each_worker(&Options::from_args(), |listener| {
        // Its date service needs the timer.
        Builder::new_current_thread().enable_all().build()?.block_on(LocalSet::new().run_until(async {
            let listener = TcpListener::from_std(listener)?;
            let service = Dispatcher::new(answer, ());
            loop {
                let (stream, _) = listener.accept().await?;
                let service = service.clone();
                tokio::task::spawn_local(async move {
                    // A client that hangs up in the middle is no news here.
                    drop(service.call(stream.into()).await);
                });
            }
        }))
    })
}

async fn answer<'h>(request: Request<'h, ()>, response: Response<'h>) -> Response<'h, 3> {
    match request.path {
        "/plaintext" => response
            .status(StatusCode::OK)
            .header("content-type", "text/plain")
            .header("server", "xitca")
            .body(HELLO.as_bytes()),
        "/json" => response
            .status(StatusCode::OK)
            .header("content-type", "application/json")
            .header("server", "xitca")
            .body(&Message::HELLO.to_json()),
        _ => response.status(StatusCode::NOT_FOUND).header("server", "xitca").body(&[]),
    }
}
