//! How many of the raw-byte conformance cases each HTTP contestant passes.

use crate::contestants::Spec;
use crate::measure::start;
use crate::results::Conformance;
use crate::workloads::Kind;
use benches::runner::{Failure, SERVER_CPU};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs the cases against one contestant; see `benches/src/conformance/main.rs` for what they are.
pub fn of(spec: &Spec, programs: &Path) -> Result<Conformance, Failure> {
    let server = start(spec, Kind::Http, "/plaintext", &[SERVER_CPU], 1)?;
    let output = Command::new(programs.join("conformance"))
        .args(["--to", &format!("127.0.0.1:{}", server.port), "--json"])
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned().into());
    }
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let sections = report["sections"].as_array().ok_or("no sections in the report")?;
    let all = sections.iter().find(|section| section["section"] == "all").ok_or("no sum in the report")?;
    let pair = |key: &str| {
        let count = |what: &str| all[key][what].as_u64().unwrap_or(0);
        (count("passed"), count("total"))
    };
    Ok(Conformance { contestant: spec.name.clone(), must: pair("must"), ours: pair("ours") })
}
