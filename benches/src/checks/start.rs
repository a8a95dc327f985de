//! Check 13: from starting the process to its first answer, and resident memory at rest.
//!
//! The time includes fork, exec, dynamic linking and our polling for the port every 0.1 ms. The first start of
//! all may have to read the program from disk and is not counted; the median of the others is judged.

use crate::Plan;
use crate::table::Row;
use benches::runner::resident_bytes;
use benches::runner::{Failure, Rounds, median, range};
use benches::runner::{Server, Template};
use std::time::Duration;

const STARTS: usize = 10;

pub fn check(plan: &Plan, template: &Template) -> Result<Vec<Row>, Failure> {
    drop(Server::start(template, "64", &plan.path)?);
    let mut times_ms = Vec::new();
    let mut rests_mb = Vec::new();
    for _ in 0..STARTS {
        let server = Server::start(template, "64", &plan.path)?;
        times_ms.push(server.first_answer.as_secs_f64() * 1e3);
        std::thread::sleep(Duration::from_millis(100));
        rests_mb.push(resident_bytes(server.pid())? as f64 / 1e6);
    }
    let rounds = Rounds { kept: STARTS, ..Rounds::default() };
    let row = |what, values: &[f64], unit, bound| Row {
        figure: median(values),
        range: range(values),
        rounds,
        ..Row::new(13, what, unit, bound)
    };
    Ok(vec![
        row("start to first answer", &times_ms, "ms", 20.0),
        row("resident memory at rest", &rests_mb, "MB", 5.0),
    ])
}
