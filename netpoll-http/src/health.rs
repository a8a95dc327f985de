//! Answers for those who ask whether this process lives, and whether it wants work.
//!
//! Two questions: who is alive and not ready is left alone, who is not alive is restarted. Neither looks further than this process: a
//! database that is down is no reason to restart everybody who uses it.

use std::fmt::Write;

use http::{HeaderValue, StatusCode, header};
use netpoll_core::{Handle, Stage};

use crate::message::{Request, Response};
use crate::router::Router;
use crate::server::Worker;

/// Handlers for health checks: of Kubernetes, of load balancers, of people. Best on an address of their own
/// ([`Server::admin`](crate::Server::admin)), whose thread no worker keeps waiting.
///
/// | | 200 | 503 |
/// |---|---|---|
/// | [`healthz`](Self::healthz), is it alive | every worker turns, or waits for something to do | a worker has been in one turn for [`Builder::stuck_turn`](netpoll_core::Builder::stuck_turn), 10 s by default: which, and for how long |
/// | [`readyz`](Self::readyz), should it be sent work | it serves, and the program is ready | it starts, the program says that it is not ready ([`Readiness::set_ready`](netpoll_core::Readiness::set_ready)), it is about to drain ([`Server::lame_duck`](crate::Server::lame_duck)), or it drains: which of them |
///
/// ```
/// use netpoll_http::{App, Health, Router, StatusCode};
///
/// let client = App::new(|worker| {
///     worker.handle().readiness().set_ready(false); // until the cache is warm
///     Health::of(worker).router()
/// })
/// .test();
/// assert_eq!(client.get("/healthz").status, StatusCode::OK);
/// let answer = client.get("/readyz");
/// assert_eq!((answer.status, answer.text()), (StatusCode::SERVICE_UNAVAILABLE, "not ready: the program says so\n"));
/// ```
///
/// One that drains because another process serves in its place ([`Handle::is_handed_over`](netpoll_core::Handle::is_handed_over)), and is still asked
/// on a connection that it has kept, answers both with 200: what is asked about is the service.
///
/// An answer reads a few words that workers have published, and asks none of them. Nobody may keep it (`Cache-Control: no-store`).
#[derive(Clone)]
pub struct Health {
    handle: Handle,
}

impl Health {
    /// Of the server that a factory is called for, whose workers those of [`Server::admin`](crate::Server::admin) see as well.
    #[must_use]
    pub fn of(worker: &Worker) -> Self {
        Self { handle: worker.handle().clone() }
    }

    /// `GET /healthz` and `GET /readyz`, to which others can be added.
    #[must_use]
    pub fn router(&self) -> Router {
        Router::new().get("/healthz", self.healthz()).get("/readyz", self.readyz())
    }

    /// Whether it is alive: 503 while a worker is stuck in one turn.
    pub fn healthz(&self) -> impl Fn(&Request<'_>) -> Response + 'static {
        let handle = self.handle.clone();
        move |_| {
            let mut said = String::new();
            // Nobody waits any more for a worker of one that was followed, and who is restarted would be the other one as well.
            for (worker, age) in handle.stuck().into_iter().filter(|_| !handle.is_handed_over()) {
                // Writing to memory does not fail.
                let _ = writeln!(said, "worker {worker} has been in one turn for {age:.1?}");
            }
            if said.is_empty() {
                answer(StatusCode::OK, "ok\n")
            } else {
                answer(StatusCode::SERVICE_UNAVAILABLE, said)
            }
        }
    }

    /// Whether it should be sent work.
    pub fn readyz(&self) -> impl Fn(&Request<'_>) -> Response + 'static {
        let (handle, readiness) = (self.handle.clone(), self.handle.readiness());
        move |_| match readiness.stage() {
            Stage::Serving if readiness.says_ready() => answer(StatusCode::OK, "ready\n"),
            // Whoever is sent to this address comes to the process that has followed.
            Stage::Draining | Stage::Ended if handle.is_handed_over() => answer(StatusCode::OK, "ready\n"),
            Stage::Serving => answer(StatusCode::SERVICE_UNAVAILABLE, "not ready: the program says so\n"),
            stage => answer(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {stage}\n")),
        }
    }
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Health").field("readiness", &self.handle.readiness()).finish_non_exhaustive()
    }
}

fn answer(status: StatusCode, text: impl Into<String>) -> Response {
    let mut answer = Response::text(text.into()).status(status);
    answer.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
