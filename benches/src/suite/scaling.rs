//! What a second worker costs the first: one server with one worker and one with two, window by window next to each other.
//!
//! The second worker shares its core with the client, which therefore sleeps when it has nothing to do. Client options are
//! the same for both.

use crate::contestants::Spec;
use crate::measure::{Plan, WARMUP, start};
use crate::results::Scaling;
use crate::workloads::WORKLOADS;
use benches::runner::{Contestant, Failure, Figure, LOAD_CPU, Load, SERVER_CPU, order};

/// One worker on one core against two on both.
pub fn of(plan: &Plan<'_>, spec: &Spec) -> Result<Scaling, Failure> {
    let workload = &WORKLOADS[0];
    let load = Load { programs: plan.programs, path: workload.path };
    let mut pair = Vec::new();
    for (workers, cpus) in [(1, &[SERVER_CPU][..]), (2, &[SERVER_CPU, LOAD_CPU])] {
        let server = start(spec, workload.kind, workload.path, cpus, workers)?;
        pair.push(Contestant::new(server, &load, &format!("--connections 64 {WARMUP}"), false)?);
    }
    let mut us = [Vec::new(), Vec::new()];
    for round in 0..plan.rounds {
        for nth in order(round, pair.len()) {
            us[nth].push(pair[nth].window(plan.seconds)?.total_us());
        }
    }
    let [one, two] = &us;
    let ratios: Vec<f64> = one.iter().zip(two).map(|(one, two)| two / one).collect();
    let figure = |values: &[f64]| Figure::of(values).ok_or_else(|| Failure::from("no window"));
    Ok(Scaling {
        contestant: spec.name.clone(),
        one: figure(one)?,
        two: figure(two)?,
        ratio: figure(&ratios)?,
    })
}
