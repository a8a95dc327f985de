//! The routes, and what all workers share behind them.
//!
//! Each worker has a router of its own; what they share is behind one `Arc` and locked in small pieces.
//! The plain endpoints (`/plaintext`, `/json`, `/echo`) touch none of it.

use std::sync::{Arc, LazyLock};

use netpoll_http::rooms::Rooms;
use netpoll_http::{
    BodyReader, Handler, Health, Json, Method, RateLimit, Replied, Reply, Request, RouteLimits, Router,
    StatusCode, Worker,
};
use serde::Serialize;

use crate::chat;
use crate::events::{self, Bells};
use crate::login::{self, Platform};
use crate::orders::{self, Orders};
use crate::page;
use crate::session::{self, Sessions};
use crate::stats;
use crate::uploads;

/// What the workers share.
pub struct App<P> {
    pub platform: P,
    pub sessions: Sessions,
    pub orders: Orders,
    /// Who is told when orders change.
    pub bells: Bells,
    pub rooms: Rooms,
}

impl<P: Platform> App<P> {
    pub fn new(platform: P) -> Self {
        // Made here, and not while the first who asks for one waits. That of the room is made for whoever asks for it.
        LazyLock::force(&page::TRY);
        LazyLock::force(&page::STATS);
        let (sessions, orders, bells) = (Sessions::new(), Orders::new(), Bells::new());
        Self { platform, sessions, orders, bells, rooms: chat::rooms() }
    }
}

#[derive(Serialize)]
struct Message {
    message: &'static str,
}

/// Bytes of a body.
#[derive(Clone, Copy)]
pub struct BodyLimits {
    /// Of one that is echoed, whatever the method.
    pub echo_bytes_max: usize,
    /// Of a form with files.
    pub upload_bytes_max: usize,
}

/// The routes of one worker.
pub fn router<P: Platform>(
    app: &Arc<App<P>>,
    worker: &Worker,
    limit: Option<&RateLimit>,
    limits: BodyLimits,
) -> Router {
    let (logged_in, listening) = (Arc::clone(app), Arc::clone(app));
    let (health, rooms) = (Health::of(worker), app.rooms.on(worker));
    let (workers, same_workers) = (worker.handle().clone(), worker.handle().clone());
    let same_rooms = rooms.clone();
    let router = Router::new()
        .get("/", |req: &Request| page::TRY.answer(req))
        .get("/plaintext", |_: &Request, reply: Reply| {
            reply.bytes(StatusCode::OK, "text/plain", b"Hello, World!")
        })
        .get("/json", |_: &Request| Json(Message { message: "Hello, World!" }))
        .get("/healthz", health.healthz())
        .get("/readyz", health.readyz())
        .get("/stats", move |req: &Request| stats::show(&workers, &rooms, req))
        .get("/stats.json", move |_: &Request| stats::json(&same_workers, &same_rooms))
        .post("/login", async move |req: Request| login::login(&logged_in, &req).await)
        .get("/me", with(app, session::me))
        .post("/orders", with(app, orders::create))
        .get("/orders", with(app, orders::list))
        .get("/orders/{id}", with(app, orders::show))
        .post("/orders/{id}/cancel", with(app, orders::cancel))
        .get("/events", move |req: &Request| events::listen(&listening, req))
        .get("/chat", |req: &Request| page::CHAT.answer(req))
        .get("/chat/{room}", with(app, chat::join));
    let uploading = Arc::clone(app);
    let upload = async move |req: Request, body: BodyReader| uploads::upload(&uploading, &req, body).await;
    let limits_of_upload = RouteLimits::default().body_bytes_max(limits.upload_bytes_max);
    let router = router.post("/upload", upload.limits(limits_of_upload));
    let methods = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];
    // A limit of its own, or GET and DELETE would take no body.
    let router = router.route(
        "/echo",
        methods,
        echo.limits(RouteLimits::default().body_bytes_max(limits.echo_bytes_max)),
    );
    match limit.cloned() {
        Some(limit) => router.before(move |req: &Request| limit.check(req)),
        None => router,
    }
}

/// A handler together with what it needs of the app.
fn with<P: Platform, R: 'static>(
    app: &Arc<App<P>>,
    handler: fn(&App<P>, &Request<'_>) -> R,
) -> impl Fn(&Request<'_>) -> R + 'static {
    let app = Arc::clone(app);
    move |request: &Request<'_>| handler(&app, request)
}

/// From the read block straight into the write queue.
fn echo(req: &Request<'_>, reply: Reply<'_>) -> Replied {
    reply.bytes(StatusCode::OK, "application/octet-stream", req.body())
}
