//! What the requests of all workers come to, for Prometheus and whatever reads its format.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use http::{HeaderValue, StatusCode};
use netpoll_core::Handle;

use super::access_log::AccessLog;
use super::counters::{BOUNDS, CLASSES, Counting, OfRoute, Shard};
use super::exposition::{Dialect, Page};
use super::process;
use crate::h1::{Completed, Outcome, Refusal};
use crate::message::{Replied, Reply, Request, Response};
use crate::server::Worker;

/// Figures of the ledger that are no counters.
const GAUGES: [&str; 4] = ["budget_events", "held_input_bytes", "held_output_bytes", "pool_blocks_in_use"];

/// Figures of a server and its requests, and a handler that shows them in the text format of Prometheus, or as OpenMetrics to who
/// accepts that and likes the other no better (`Accept`). Clones have the same figures.
///
/// | metric | labels | |
/// |---|---|---|
/// | `netpoll_http_requests_total` | `route`, `class` | requests that are over; `class` is `2xx` and so on, `none` without an answer |
/// | `netpoll_http_request_duration_seconds` | `route` | a histogram of [`Completed::total`], of those that were answered |
/// | `netpoll_http_received_bytes_total`, `netpoll_http_sent_bytes_total` | `route` | heads and bodies |
/// | `netpoll_http_outcomes_total` | `outcome` | [`Outcome::name`]; refusals are apart |
/// | `netpoll_http_refused_total` | `reason` | [`Refusal::name`] |
/// | `netpoll_worker_turn_age_seconds` | `worker` | how long its present turn has lasted, zero while it waits ([`Handle::turn_age`]) |
/// | `netpoll_worker_..` | `worker` | each figure of [`Stats`](netpoll_core::Stats); times in seconds |
/// | `netpoll_log_lines_lost_total` | `level` | [`LostLines`](crate::LostLines) of the logs that were [added](Self::log) |
/// | `netpoll_log_lines_sampled_out_total` | | [`AccessLog::sampled_out`](crate::AccessLog::sampled_out) of the same |
/// | `process_..` | | CPU, memory, descriptors, threads, start, by the names that all exporters have |
///
/// `route` is the pattern, `/orders/{id}`, and `-` where none was found: there are as many series as routes, whatever paths are asked for. Of
/// a service with more than 4096 routes the others count as `-`. Times are those of the worker's clock, see [`Completed`].
///
/// A worker counts in memory of its own: five loads and stores for each request, six for one that took time, and no lock; the first request of each route allocates
/// 250 bytes. Showing them adds up those of all workers and reads seven files in `/proc`: half a millisecond of its worker.
///
/// ```
/// use netpoll_http::{App, Metrics, Request, Router};
///
/// let metrics = Metrics::new();
/// let shown = metrics.clone();
/// let client = App::new(move |_worker| {
///     Router::new().get("/orders/{id}", |_: &Request| "an order").get("/metrics", shown.handler())
/// })
/// .on_complete(metrics.hook())
/// .test();
/// client.get("/orders/7");
/// client.get("/orders/8");
/// let page = client.get("/metrics");
/// assert!(page.text().contains("netpoll_http_requests_total{route=\"/orders/{id}\",class=\"2xx\"} 2\n"));
/// ```
///
/// Whoever reaches the handler sees what the server does: give it a route on an address of its own, or a hook before it.
#[derive(Clone, Default)]
pub struct Metrics {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    shards: Mutex<Vec<Arc<Shard>>>,
    logs: Mutex<Vec<AccessLog>>,
    /// Of the server whose workers count.
    handle: OnceLock<Handle>,
}

impl Metrics {
    /// Nothing was counted yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Shows the lines that a log has lost as well, and those that are left out of it on purpose.
    #[must_use]
    pub fn log(self, log: &AccessLog) -> Self {
        self.shared.logs.lock().unwrap_or_else(PoisonError::into_inner).push(log.clone());
        self
    }

    /// What [`Server::on_complete`](crate::Server::on_complete) takes. The figures of workers are those of the first server that it is
    /// given to.
    pub fn hook(&self) -> impl Fn(&Worker) -> Box<dyn Fn(&Completed<'_>)> + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move |worker| {
            let shard = Arc::new(Shard::default());
            shared.shards.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&shard));
            // All workers have the same.
            let _ = shared.handle.set(worker.handle().clone());
            let counting = Counting::new(shard);
            Box::new(move |done| counting.count(done))
        }
    }

    /// A handler that shows them: `Router::new().get("/metrics", metrics.handler())`.
    pub fn handler(&self) -> impl Fn(&Request<'_>, Reply<'_>) -> Replied + 'static {
        let metrics = self.clone();
        move |request, reply| {
            let dialect = Dialect::of(request.header_lines("accept"));
            let page = Response::new(StatusCode::OK)
                .content_type(HeaderValue::from_static(dialect.media_type()))
                .body(metrics.page(dialect));
            reply.send(page)
        }
    }

    /// The same as text, in the classic format (0.0.4), for who serves it otherwise.
    #[must_use]
    pub fn text(&self) -> String {
        self.page(Dialect::Classic)
    }

    fn page(&self, dialect: Dialect) -> String {
        let mut page = Page::new(dialect);
        let shards = self.shared.shards.lock().unwrap_or_else(PoisonError::into_inner).clone();
        requests(&mut page, &shards);
        if let Some(handle) = self.shared.handle.get() {
            workers(&mut page, handle);
        }
        self.lost_lines(&mut page);
        for figure in process::figures() {
            if figure.is_counter {
                page.counter(figure.name, figure.help);
            } else {
                page.gauge(figure.name, figure.help);
            }
            page.sample(&[], figure.value);
        }
        page.finish()
    }

    fn lost_lines(&self, page: &mut Page) {
        let logs = self.shared.logs.lock().unwrap_or_else(PoisonError::into_inner);
        if logs.is_empty() {
            return;
        }
        page.counter("netpoll_log_lines_lost", "Lines that the access log lacks, by what they were of.");
        let lost: Vec<_> = logs.iter().map(AccessLog::lost).collect();
        let sum = |of: fn(&super::LostLines) -> u64| lost.iter().map(of).sum::<u64>();
        page.sample(&[("level", "usual")], sum(|lost| lost.usual));
        page.sample(&[("level", "client")], sum(|lost| lost.client));
        page.sample(&[("level", "failure")], sum(|lost| lost.failure));
        page.sample(&[("level", "unwritten")], sum(|lost| lost.unwritten));
        page.counter(
            "netpoll_log_lines_sampled_out",
            "Requests that are left out of the access log on purpose.",
        );
        page.sample(&[], logs.iter().map(AccessLog::sampled_out).sum::<u64>());
    }
}

/// The figures of one route, of all workers.
#[derive(Clone, Copy, Default)]
struct Sums {
    classes: [u64; CLASSES.len()],
    bytes_in: u64,
    bytes_out: u64,
    buckets: [u64; BOUNDS.len() + 1],
    nanos: u64,
}

impl Sums {
    fn add(&mut self, figures: &OfRoute) {
        let add = |sum: &mut u64, figure: &AtomicU64| *sum = sum.wrapping_add(figure.load(Relaxed));
        self.classes.iter_mut().zip(&figures.classes).for_each(|(sum, figure)| add(sum, figure));
        self.buckets.iter_mut().zip(&figures.buckets).for_each(|(sum, figure)| add(sum, figure));
        add(&mut self.bytes_in, &figures.bytes_in);
        add(&mut self.bytes_out, &figures.bytes_out);
        add(&mut self.nanos, &figures.nanos);
    }
}

fn requests(page: &mut Page, shards: &[Arc<Shard>]) {
    let mut routes: BTreeMap<String, Sums> = BTreeMap::new();
    for shard in shards {
        shard.each_route(|pattern, figures| {
            let label = if pattern.is_empty() { "-" } else { pattern };
            routes.entry(label.to_owned()).or_default().add(figures);
        });
    }
    page.counter(
        "netpoll_http_requests",
        "Requests that are over, by the route and the class of the status.",
    );
    for (route, sums) in &routes {
        for (class, count) in CLASSES.iter().zip(sums.classes).filter(|(_, count)| *count > 0) {
            page.sample(&[("route", route), ("class", class)], count);
        }
    }
    page.histogram(
        "netpoll_http_request_duration_seconds",
        "From the first byte of a request to the last of its answer, by the worker's clock.",
    );
    for (route, sums) in &routes {
        duration(page, route, sums);
    }
    page.counter("netpoll_http_received_bytes", "Bytes of requests, heads and bodies.");
    for (route, sums) in &routes {
        page.sample(&[("route", route)], sums.bytes_in);
    }
    page.counter("netpoll_http_sent_bytes", "Bytes of answers, heads and bodies.");
    for (route, sums) in &routes {
        page.sample(&[("route", route)], sums.bytes_out);
    }
    let with = |outcome: Outcome| shards.iter().map(|shard| shard.with(outcome)).sum::<u64>();
    page.counter(
        "netpoll_http_outcomes",
        "Requests by how they have ended, but for those that were refused.",
    );
    for outcome in Outcome::ALL.into_iter().filter(|outcome| !matches!(outcome, Outcome::Refused(_))) {
        page.sample(&[("outcome", outcome.name())], with(outcome));
    }
    page.counter("netpoll_http_refused", "Requests that were not served, by the reason.");
    for refusal in Refusal::ALL {
        page.sample(&[("reason", refusal.name())], with(Outcome::Refused(refusal)));
    }
}

fn duration(page: &mut Page, route: &str, sums: &Sums) {
    let mut count = 0;
    for (bound, bucket) in BOUNDS.iter().zip(sums.buckets) {
        count += bucket;
        page.sample_of("_bucket", &[("route", route), ("le", &format!("{bound:?}"))], count);
    }
    count += sums.buckets[BOUNDS.len()];
    page.sample_of("_bucket", &[("route", route), ("le", "+Inf")], count);
    page.sample_of("_sum", &[("route", route)], sums.nanos as f64 / 1e9);
    page.sample_of("_count", &[("route", route)], count);
}

/// What each worker is doing, and its ledger.
fn workers(page: &mut Page, handle: &Handle) {
    page.gauge("netpoll_worker_turn_age_seconds", "How long the present turn of a worker has lasted.");
    for worker in 0..handle.workers() {
        let age = handle.turn_age(worker).unwrap_or_default();
        page.sample(&[("worker", &worker.to_string())], age.as_secs_f64());
    }
    let all: Vec<Vec<_>> =
        (0..handle.workers()).map(|worker| handle.worker_stats(worker).fields().collect()).collect();
    let Some(first) = all.first() else { return };
    for (number, (field, _)) in first.iter().enumerate() {
        let nanos = field.strip_suffix("_nanos");
        let name = nanos.map_or_else(
            || format!("netpoll_worker_{field}"),
            |what| format!("netpoll_worker_{what}_seconds"),
        );
        let help = format!("The figure {field} of the ledger of a worker (netpoll_core::Stats).");
        if GAUGES.contains(field) {
            page.gauge(&name, &help);
        } else {
            page.counter(&name, &help);
        }
        for (worker, fields) in all.iter().enumerate() {
            let (label, value) = (worker.to_string(), fields[number].1);
            match nanos {
                Some(_) => page.sample(&[("worker", &label)], value as f64 / 1e9),
                None => page.sample(&[("worker", &label)], value),
            }
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shards = self.shared.shards.lock().unwrap_or_else(PoisonError::into_inner).len();
        f.debug_struct("Metrics").field("workers", &shards).finish_non_exhaustive()
    }
}
