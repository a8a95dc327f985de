//! One measuring window: what is counted from its first request to its last answer, and the report of it.
//!
//! Counts of requests, errors and latencies live in the [`Run`], where connections reach them; here is what has to
//! be read at both ends: clocks and counters of the kernel and of the worker. `begin`, `end` and `finish` are called
//! once each, in this order, for every window. Touched by the metronome only; nothing here runs per request.

use crate::options::Options;
use crate::run::{Fault, Run, nanos};
use benches::sys;
use netpoll_core::Stats;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;

/// A turn without work takes less; what is above it was spent by others on this CPU.
const EMPTY_TURN_NS: u64 = 20_000;

/// The measured window, and what is reported of it.
#[derive(Default)]
pub struct Window {
    pub seconds: f64,
    /// From its end until the last answer was here, or was given up.
    pub drain_seconds: f64,
    /// CPU time without turns that found nothing to do, as a share of the window.
    pub busy_share: f64,
    /// Of all threads: since the program was started, or on stand-by since the window began.
    pub cpu_seconds: f64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub requests: u64,
    pub flood_requests: u64,
    pub unanswered: u64,
    /// Requests of the open loop that nobody had room for.
    pub unsent: u64,
    pub least_answers: u64,
    pub connections_opened: u64,
    /// Stand-by: connections that were gone and were made anew before the window began.
    pub reconnected: u64,
    pub errors: Vec<u64>,
    pub p50_us: u64,
    pub p90_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub max_us: u64,
    /// Latency in us and how often it occurred.
    pub histogram: Vec<(u64, u64)>,
}

/// Reads the clocks at both ends of a window.
#[derive(Default)]
pub struct Meter {
    window: Window,
    length: Duration,
    /// On the run's clock.
    began: u64,
    ended: u64,
    stats_at_begin: Stats,
    thread_at_begin: Duration,
    process_at_begin: Duration,
    idle_ns: u64,
}

impl Meter {
    /// Everything that is counted per window starts at zero.
    pub fn begin(&mut self, run: &mut Run, now: u64, length: Duration, stats: &Stats) {
        let options = Arc::clone(&run.options);
        run.asks_left = if options.hold { options.connections as u64 } else { options.requests };
        run.latency.clear();
        run.answers = 0;
        run.flood.asked -= std::mem::take(&mut run.flood.answered);
        run.abandoned = 0;
        self.window = Window::default();
        if options.stand_by {
            self.window.reconnected = run.connections_opened;
            self.process_at_begin = sys::process_cpu_time().unwrap_or_default();
        } else {
            // On stand-by the last window took its own, and a lie told since belongs to this one.
            run.errors = Default::default();
        }
        if options.stand_by || options.churn {
            run.connections_opened = 0;
        }
        run.slots.iter_mut().for_each(|slot| slot.answers = 0);
        self.length = length;
        self.began = now;
        self.stats_at_begin = *stats;
        self.thread_at_begin = sys::thread_cpu_time().unwrap_or_default();
        self.idle_ns = 0;
    }

    /// When its time is up, on the run's clock.
    pub fn ends_at(&self) -> u64 {
        self.began + nanos(self.length)
    }

    /// When answers that are still owed are given up.
    pub fn drained_at(&self, drain: Duration) -> u64 {
        self.ended + nanos(drain)
    }

    /// A turn between two ticks found nothing to do.
    pub fn was_idle(&mut self, ns: u64) {
        self.idle_ns += ns.min(EMPTY_TURN_NS);
    }

    /// Nobody asks any more.
    pub fn end(&mut self, run: &mut Run, now: u64, stats: &Stats) {
        self.ended = now;
        let cpu = sys::thread_cpu_time().unwrap_or_default().saturating_sub(self.thread_at_begin);
        let stats = stats.since(&self.stats_at_begin);
        let window = &mut self.window;
        window.seconds = (now - self.began) as f64 / 1e9;
        let busy = cpu.saturating_sub(Duration::from_nanos(self.idle_ns));
        window.busy_share = (busy.as_secs_f64() / window.seconds).min(1.0);
        (window.bytes_in, window.bytes_out) = (stats.received_bytes, stats.sent_bytes);
        // What was due before the end and could not be sent counts with its age.
        let end = now.min(self.began + nanos(self.length));
        while let Some(interval_ns) = run.options.interval_ns
            && run.asks_left > window.unsent
            && run.due(window.unsent, interval_ns) < end
        {
            run.record(run.due(window.unsent, interval_ns), now, 1);
            window.unsent += 1;
        }
    }

    /// All answers are here, or are not waited for any longer: those count with their age.
    pub fn finish(&mut self, run: &mut Run, now: u64) -> Window {
        for nth in 0..run.slots.len() {
            run.record_of(nth, now, run.slots[nth].outstanding);
        }
        let cpu = sys::process_cpu_time().unwrap_or_default().saturating_sub(self.process_at_begin);
        let latency = &run.latency;
        let at = |part| latency.value_at_quantile(part);
        let occurred = latency.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value()));
        Window {
            drain_seconds: (now - self.ended) as f64 / 1e9,
            cpu_seconds: cpu.as_secs_f64(),
            requests: run.answers,
            flood_requests: run.flood.answered,
            unanswered: run.owed as u64 + run.abandoned,
            least_answers: run.slots.iter().map(|slot| slot.answers).min().unwrap_or(0),
            connections_opened: run.connections_opened,
            errors: std::mem::take(&mut run.errors).to_vec(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: latency.max(),
            histogram: if run.options.histogram { occurred.collect() } else { Vec::new() },
            ..std::mem::take(&mut self.window)
        }
    }
}

impl Window {
    /// What is printed of it.
    pub fn to_json(&self, options: &Options) -> Value {
        let errors = Fault::NAMES.iter().zip(&self.errors);
        let errors: Map<String, Value> =
            errors.map(|(name, &count)| ((*name).to_owned(), count.into())).collect();
        let mut report = json!({
            "connections": options.connections, "depth": options.depth, "seconds": self.seconds,
            "drain_seconds": self.drain_seconds, "rate": options.interval_ns.map(|interval| 1e9 / interval),
            "requests": self.requests, "requests_per_second": self.requests as f64 / self.seconds,
            "flood_requests": self.flood_requests, "unanswered": self.unanswered, "unsent": self.unsent,
            "least_answers_of_a_connection": self.least_answers,
            "connections_opened": self.connections_opened, "errors": errors,
            "bytes_in": self.bytes_in, "bytes_out": self.bytes_out,
            "cpu_seconds": self.cpu_seconds, "busy_share": self.busy_share,
            "p50_us": self.p50_us, "p90_us": self.p90_us, "p99_us": self.p99_us,
            "p999_us": self.p999_us, "max_us": self.max_us,
        });
        if options.stand_by {
            report["reconnected"] = self.reconnected.into();
        }
        if options.histogram {
            report["histogram"] = json!(self.histogram);
        }
        report
    }
}
