//! Check 3: system calls per request, as the server itself counts them, and as a tracer sees them.
//!
//! The server's counters come from `GET /stats`: a JSON object with `requests`, `syscalls_total` and, for the
//! note, `syscalls` (a count for each kind). The difference over a load run is what counts, so neither start-up
//! nor the question itself matters. Where a server has no /stats, the tracer's figure is judged instead.
//! `perf` is preferred as the tracer, `strace` is the other.

use crate::Plan;
use crate::table::Row;
use benches::runner::{Failure, Load, Server, Template, digits, get, number, traced};
use serde_json::Value;

/// Of each run: how often the server is asked and how it was warmed up hardly show in it.
const SECONDS: f64 = 1.0;

const WORKLOADS: [(&str, &str, f64); 2] =
    [("64 connections", "--connections 64", 2.25), ("64 x16 pipelined", "--connections 64 --depth 16", 0.15)];

pub fn check(plan: &Plan, template: &Template) -> Result<Vec<Row>, Failure> {
    let server = Server::start(template, "64", &plan.path)?;
    let load = plan.load();
    let mut rows = Vec::new();
    for (name, options, bound) in WORKLOADS {
        let options = format!("{options} --seconds {SECONDS}");
        load.run(server.port, &options)?;
        let own = own_count(&server, &load, &options);
        let traced =
            ["perf", "strace"].into_iter().find_map(|tracer| traced(tracer, &server, &load, &options).ok());
        let (figure, mut note) = match (own, &traced) {
            (Ok((figure, kinds)), _) => (Some(figure), kinds),
            (Err(error), Some((_, figure))) => (Some(*figure), format!("no counters of its own ({error})")),
            (Err(error), None) => (None, format!("no counters of its own ({error}), no tracer")),
        };
        if let Some((tracer, figure)) = traced {
            note += &format!("; {tracer}: {}", digits(figure));
        }
        rows.push(Row { figure, note, ..Row::new(3, format!("system calls/request, {name}"), "", bound) });
    }
    Ok(rows)
}

fn own_count(server: &Server, load: &Load<'_>, options: &str) -> Result<(f64, String), Failure> {
    let stats = || -> Result<Value, Failure> { Ok(serde_json::from_slice(&get(server.port, "/stats")?)?) };
    let before = stats()?;
    load.run(server.port, options)?;
    let after = stats()?;
    let grown = |key: &str| -> Result<f64, Failure> { Ok(number(&after, key)? - number(&before, key)?) };
    let requests = grown("requests")?;
    let mut kinds = Vec::new();
    if let (Some(before), Some(after)) = (before["syscalls"].as_object(), after["syscalls"].as_object()) {
        for (kind, count) in after {
            let earlier = before.get(kind).and_then(Value::as_f64).unwrap_or(0.0);
            let each = (count.as_f64().unwrap_or(0.0) - earlier) / requests;
            if each >= 0.0005 {
                kinds.push(format!("{kind} {}", digits(each)));
            }
        }
    }
    Ok((grown("syscalls_total")? / requests, kinds.join(", ")))
}
