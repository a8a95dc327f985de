//! What was measured, as data: the reports are made of nothing else.

use benches::runner::{Failure, Figure};
use serde_json::{Value, json};
use std::path::Path;

/// An interval that reaches further than this to either side of its median says too little.
pub const WIDE: f64 = 0.05;

/// What a run has written down in its directory.
pub fn read(directory: &Path) -> Result<Value, Failure> {
    let file = directory.join("results.json");
    let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?)
}

/// One contestant under one workload.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub contestant: String,
    /// `floor`, `ours` or `peer`: the first two are scales.
    pub role: &'static str,
    /// CPU time of the server per request, user and system, in µs.
    pub cpu_us: Figure,
    /// The same against the floor in the same round, where there is one.
    pub to_floor: Option<Figure>,
    /// The same against ours in the same round.
    pub to_ours: Option<Figure>,
    /// The part of `cpu_us` in user space, from all rounds together, and its standard error as a share.
    pub user_us: f64,
    pub user_error: f64,
    pub requests_per_second: Figure,
    pub switches_per_request: f64,
    /// Counted by a tracer in a run of its own.
    pub syscalls_per_request: Option<f64>,
    pub resident_bytes: u64,
    /// Percentiles in µs of all requests in the rounds used; in a closed loop they only compare servers under the same load.
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    /// Rounds that were quiet enough, all rounds, and the highest steal in one that was used, as a share of a core.
    pub kept: usize,
    pub rounds: usize,
    pub steal: f64,
    /// The client was busy all the time and the server was not: requests per second say nothing of the server.
    pub is_client_bound: bool,
}

/// What an idle connection costs.
#[derive(Clone, Debug)]
pub struct Memory {
    pub contestant: String,
    pub connections: u64,
    /// Resident bytes of the server with none, per connection before its first request, and after one.
    pub empty_bytes: u64,
    pub fresh_bytes: Option<f64>,
    pub idle_bytes: f64,
}

/// Raw-byte cases, passed and judged.
#[derive(Clone, Debug)]
pub struct Conformance {
    pub contestant: String,
    /// What the RFCs demand, and known ways to smuggle requests.
    pub must: (u64, u64),
    /// What netpoll-http chose where they leave a choice.
    pub ours: (u64, u64),
}

/// One worker against two.
#[derive(Clone, Debug)]
pub struct Scaling {
    pub contestant: String,
    pub one: Figure,
    pub two: Figure,
    /// Two against one in the same round.
    pub ratio: Figure,
}

/// Everything about one workload.
#[derive(Clone, Debug)]
pub struct Table {
    pub name: &'static str,
    pub title: &'static str,
    pub is_open_loop: bool,
    pub outcomes: Vec<Outcome>,
    /// Who could not do it, and why.
    pub failures: Vec<(String, String)>,
}

/// A run of the suite.
pub struct Results {
    pub machine: Vec<(String, String)>,
    pub command: String,
    pub tables: Vec<Table>,
    pub memory: Vec<Memory>,
    pub scaling: Vec<Scaling>,
    pub conformance: Vec<Conformance>,
    /// Contestants: name, version or configuration, what of HTTP they leave out.
    pub contestants: Vec<(String, String, String)>,
    pub skipped: Vec<(String, String)>,
}

impl Table {
    /// What ratios are against.
    pub fn scale(&self) -> &'static str {
        if self.outcomes.iter().any(|outcome| outcome.to_floor.is_some()) { "floor" } else { "netpoll" }
    }

    /// The outcomes, cheapest first.
    pub fn ranked(&self) -> Vec<&Outcome> {
        let mut ranked: Vec<_> = self.outcomes.iter().collect();
        ranked.sort_by(|a, b| a.order().total_cmp(&b.order()));
        ranked
    }
}

impl Outcome {
    /// CPU time against whoever is the scale of this workload: the floor where there is one, else ours.
    pub fn ratio(&self) -> Option<Figure> {
        self.to_floor.or(self.to_ours)
    }

    /// By the ratio within rounds where there is one, because it is what noise spares.
    fn order(&self) -> f64 {
        self.ratio().unwrap_or(self.cpu_us).median
    }

    /// Half of the rounds were disturbed, or the interval is wider than 5 % of the median to either side.
    pub fn is_unstable(&self) -> bool {
        2 * self.kept <= self.rounds || self.ratio().unwrap_or(self.cpu_us).is_wider_than(WIDE)
    }

    fn to_json(&self) -> Value {
        json!({
            "contestant": self.contestant, "role": self.role, "cpu_us": self.cpu_us.to_json(), "user_us": self.user_us,
            "user_error": self.user_error, "to_floor": self.to_floor.map(Figure::to_json),
            "to_ours": self.to_ours.map(Figure::to_json),
            "requests_per_second": self.requests_per_second.to_json(),
            "switches_per_request": self.switches_per_request, "syscalls_per_request": self.syscalls_per_request,
            "resident_bytes": self.resident_bytes, "p50_us": self.p50_us, "p99_us": self.p99_us,
            "p999_us": self.p999_us, "kept": self.kept, "rounds": self.rounds, "steal": self.steal,
            "client_bound": self.is_client_bound, "unstable": self.is_unstable(),
        })
    }
}

impl Results {
    pub fn to_json(&self) -> Value {
        let pairs = |pairs: &[(String, String)]| -> Value {
            pairs.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))).collect()
        };
        json!({
            "machine": pairs(&self.machine),
            "command": self.command,
            "skipped": pairs(&self.skipped),
            "contestants": self.contestants.iter().map(|(name, what, leaves_out)| {
                json!({ "name": name, "configuration": what, "leaves_out": leaves_out })
            }).collect::<Vec<_>>(),
            "workloads": self.tables.iter().map(|table| json!({
                "name": table.name, "title": table.title,
                "outcomes": table.outcomes.iter().map(Outcome::to_json).collect::<Vec<_>>(),
                "failures": pairs(&table.failures),
            })).collect::<Vec<_>>(),
            "memory": self.memory.iter().map(|memory| json!({
                "contestant": memory.contestant, "connections": memory.connections,
                "empty_bytes": memory.empty_bytes, "fresh_bytes": memory.fresh_bytes,
                "idle_bytes": memory.idle_bytes,
            })).collect::<Vec<_>>(),
            "conformance": self.conformance.iter().map(|one| json!({
                "contestant": one.contestant, "must_passed": one.must.0, "must_total": one.must.1,
                "ours_passed": one.ours.0, "ours_total": one.ours.1,
            })).collect::<Vec<_>>(),
            "scaling": self.scaling.iter().map(|scaling| json!({
                "contestant": scaling.contestant, "one_worker_us": scaling.one.to_json(),
                "two_workers_us": scaling.two.to_json(), "ratio": scaling.ratio.to_json(),
            })).collect::<Vec<_>>(),
        })
    }
}
