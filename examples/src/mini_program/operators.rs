//! What operators get on an address of their own, with a thread of its own, so that no worker keeps them waiting.

use netpoll_http::rooms::Rooms;
use netpoll_http::{Health, Metrics, Request, Router, Worker};

use crate::stats;

/// Health, readiness and figures. The worker is the operators' own; its handle leads to those of the program.
pub fn router(worker: &Worker, metrics: &Metrics, rooms: &Rooms) -> Router {
    let (workers, rooms) = (worker.handle().clone(), rooms.clone());
    Health::of(worker)
        .router()
        .get("/metrics", metrics.handler())
        .get("/stats.json", move |_: &Request| stats::json(&workers, &rooms))
}
