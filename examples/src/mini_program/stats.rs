//! The ledger, `GET /stats`: every counter of the runtime and of the rooms, as JSON for programs and as a page for people, which draws that
//! JSON.
//!
//! Reading it costs the workers nothing: they publish their counters once a turn. So the figures are those
//! of the last turn that is over, and the request that asks is not in them.

use std::time::Duration;

use netpoll_core::{Handle, Stats};
use netpoll_http::rooms::{self, Rooms};
use netpoll_http::{Error, IntoResponse, Json, Request, Response};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::page;

/// `GET /stats`: for a browser the page that asks for `/stats.json`.
pub fn show(workers: &Handle, rooms: &Rooms, req: &Request<'_>) -> Result<Response, Error> {
    // Several lines are one list.
    let accept: Vec<_> = req.header_lines("accept").map(String::from_utf8_lossy).collect();
    let response =
        if prefers_html(&accept.join(",")) { page::STATS.answer(req) } else { json(workers, rooms) };
    response?.header("vary", "accept")
}

/// `GET /stats.json`
pub fn json(workers: &Handle, rooms: &Rooms) -> Result<Response, Error> {
    let ledger = Ledger::read(workers, rooms);
    Json(ledger).into_response().header("cache-control", "no-store")
}

/// The counters of all workers, and of each.
struct Ledger {
    total: Stats,
    per_worker: Vec<Stats>,
    rooms: rooms::Stats,
    /// What the workers run on.
    backend: &'static str,
    /// Since its runtime was made, by the clock of that: a simulated world repeats it.
    uptime: Duration,
}

impl Ledger {
    fn read(handle: &Handle, rooms: &Rooms) -> Self {
        let uptime = Duration::from_nanos(handle.now().as_nanos());
        let per_worker: Vec<Stats> =
            (0..handle.workers()).map(|worker| handle.worker_stats(worker)).collect();
        let mut total = Stats::default();
        for stats in &per_worker {
            total.merge(stats);
        }
        Self { total, per_worker, rooms: rooms.stats(), backend: handle.setup().backend, uptime }
    }
}

/// Every counter, and what follows from several of them.
fn figures(stats: &Stats) -> impl Iterator<Item = (&'static str, u64)> {
    stats.fields().chain([("open", stats.open()), ("syscalls_total", stats.syscalls())])
}

/// What is counted of rooms, which all workers share.
pub fn figures_of_rooms(stats: &rooms::Stats) -> [(&'static str, u64); 7] {
    let level = |figure: usize| u64::try_from(figure).unwrap_or(u64::MAX);
    [
        ("rooms", level(stats.rooms)),
        ("rooms_members", level(stats.members)),
        ("rooms_sessions", level(stats.sessions)),
        ("rooms_lingering", level(stats.lingering)),
        ("rooms_history_bytes", level(stats.bytes)),
        ("rooms_dropped", stats.dropped),
        ("rooms_gaps", stats.gaps),
    ]
}

impl Serialize for Ledger {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, figure) in figures(&self.total).chain(figures_of_rooms(&self.rooms)) {
            map.serialize_entry(name, &figure)?;
        }
        map.serialize_entry("syscalls_per_request", &self.total.per_request(self.total.syscalls()))?;
        map.serialize_entry("backend", self.backend)?;
        // To the millisecond: what rates are counted by.
        map.serialize_entry("uptime_seconds", &(self.uptime.as_millis() as f64 / 1e3))?;
        let workers: Vec<Worker<'_>> = self.per_worker.iter().map(Worker).collect();
        map.serialize_entry("per_worker", &workers)?;
        map.end()
    }
}

struct Worker<'a>(&'a Stats);

impl Serialize for Worker<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(figures(self.0))
    }
}

/// Whether an `Accept` value likes HTML better than JSON (RFC 9110, 12.5.1). Browsers do.
fn prefers_html(accept: &str) -> bool {
    quality(accept, "text/html") > quality(accept, "application/json")
}

/// The weight of a media type in thousandths: that of the most specific range that has it.
fn quality(accept: &str, media_type: &str) -> u16 {
    let group = media_type.split_once('/').map_or("", |(group, _)| group);
    let mut best = (0, 0);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let specific = match name.split_once('/') {
            Some(("*", "*")) => 1,
            Some((named, "*")) if named.eq_ignore_ascii_case(group) => 2,
            Some(_) if name.eq_ignore_ascii_case(media_type) => 3,
            _ => continue,
        };
        let named = parts.filter_map(|part| part.split_once('='));
        let mut weights = named.filter(|(name, _)| name.eq_ignore_ascii_case("q")).map(|(_, weight)| weight);
        let weight = weights.next().map_or(1000, thousandths);
        if specific > best.0 {
            best = (specific, weight);
        }
    }
    best.1
}

/// A weight from `0` to `1` with three digits at most behind the point, in thousandths. What is none counts as zero.
fn thousandths(weight: &str) -> u16 {
    let (whole, part) = weight.split_once('.').unwrap_or((weight, ""));
    let is_weight =
        matches!(whole, "0" | "1") && part.len() <= 3 && part.bytes().all(|digit| digit.is_ascii_digit());
    if !is_weight {
        return 0;
    }
    let part = format!("{part:0<3}").parse().unwrap_or(0);
    if whole == "1" { 1000 } else { part }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_read_in_any_case_and_as_they_are_written() {
        assert!(
            !prefers_html("text/html;Q=0, application/json;Q=0.001") && prefers_html("text/html; q=0.001")
        );
        assert!(
            prefers_html("application/json ;Q=0.5, TEXT/HTML ; Q=0.51")
                && prefers_html("text/html;level=1;Q=1.000")
        );
        let read = [
            "0", "1", "0.", "1.0", "0.5", "0.25", "0.125", "0.1234", "1.5", "-1", "+1", "nan", "", "2", "1e0",
        ];
        assert_eq!(read.map(thousandths), [0, 1000, 0, 1000, 500, 250, 125, 0, 1000, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn browsers_get_the_page_and_programs_get_json() {
        assert!(prefers_html("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"));
        assert!(prefers_html("application/json;q=0.5, text/*"));
        for json in
            ["", "*/*", "application/json", "text/html;q=0.1,application/json;q=0.2", "text/html;q=x,*/*"]
        {
            assert!(!prefers_html(json), "{json}");
        }
    }

    #[test]
    fn the_ledger_is_flat_json_with_one_object_for_each_worker() {
        let mut worker = Stats::default();
        (worker.requests, worker.syscalls_recv, worker.syscalls_ctl) = (4, 6, 2);
        let (per_worker, uptime) = (vec![worker], Duration::from_millis(1500));
        let rooms = crate::chat::rooms().stats();
        let ledger = Ledger { total: worker, per_worker, rooms, backend: "epoll", uptime };
        let json = serde_json::to_value(&ledger).unwrap();
        assert_eq!((json["requests"].as_u64(), json["syscalls_total"].as_u64()), (Some(4), Some(8)));
        assert_eq!(json["syscalls_per_request"].as_f64(), Some(2.0));
        assert_eq!(json["per_worker"][0]["syscalls_ctl"].as_u64(), Some(2));
        assert_eq!((json["rooms"].as_u64(), json["rooms_members"].as_u64()), (Some(0), Some(0)));
        assert_eq!((json["uptime_seconds"].as_f64(), json["backend"].as_str()), (Some(1.5), Some("epoll")));
    }
}
