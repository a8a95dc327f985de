//! Check 7: resident memory per idle keep-alive connection that has had one answer.
//!
//! All connections are opened, then each makes its request; the difference in resident memory to before, when
//! the server had already served a short load, is divided by their number. What is counted is the process's own
//! memory: sockets live in the kernel. 20 000 connections where the limit on open files allows it, else as many as it does.

use crate::Plan;
use crate::table::Row;
use benches::runner::Failure;
use benches::runner::resident_bytes;
use benches::runner::{Server, Template};
use benches::sys;
use std::time::Duration;

const CONNECTIONS: u64 = 20_000;
/// Descriptors that are no connections, in the server or in the client.
const SPARE_FILES: u64 = 64;

pub fn check(plan: &Plan, template: &Template) -> Result<Vec<Row>, Failure> {
    let limit = sys::raise_open_files(CONNECTIONS + SPARE_FILES)?;
    let connections = CONNECTIONS.min(limit.saturating_sub(SPARE_FILES));
    let server = Server::start(template, "64", &plan.path)?;
    let load = plan.load();
    load.run(server.port, "--connections 64 --seconds 0.3")?;
    settle();
    let before = resident_bytes(server.pid())?;
    let (held, opened) =
        load.hold(server.port, &format!("--connections {connections} --sources 4 --seconds 60"))?;
    settle();
    let during = resident_bytes(server.pid())?;
    drop(held);
    let mut note =
        format!("{opened} connections, {} KiB before, {} KiB with them", before / 1024, during / 1024);
    if opened < CONNECTIONS {
        note += &format!("; limit of {limit} open files");
    }
    let figure = (during as f64 - before as f64) / opened as f64;
    Ok(vec![Row { figure: Some(figure), note, ..Row::new(7, "resident memory/idle connection", "B", 256.0) }])
}

/// Long enough for a server to see that nothing is left to do.
fn settle() {
    std::thread::sleep(Duration::from_millis(500));
}
