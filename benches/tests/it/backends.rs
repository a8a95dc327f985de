//! What is measured, and what measures, may run on another driver.

use crate::server::{Act, GOOD, load, serve};
use std::process::Command;

#[test]
fn a_driver_that_there_is_not_is_refused_before_anything_is_built_or_started() {
    for program in [
        env!("CARGO_BIN_EXE_load"),
        env!("CARGO_BIN_EXE_checks"),
        env!("CARGO_BIN_EXE_suite"),
        env!("CARGO_BIN_EXE_ends"),
        env!("CARGO_BIN_EXE_stores"),
        env!("CARGO_BIN_EXE_claims"),
    ] {
        let output = Command::new(program).args(["--backend", "kqueue"]).output().expect("it starts");
        let said = String::from_utf8(output.stderr).expect("a text");
        assert!(!output.status.success() && said.contains("--backend kqueue: "), "{program}: {said}");
    }
}

#[test]
fn the_generator_runs_on_the_driver_that_it_is_told() {
    let to = serve(|_| Act::Answer(GOOD.to_vec()));
    let report = load(to, "--connections 2 --requests 20 --backend epoll");
    assert_eq!(report["requests"], 20, "{report}");
}
