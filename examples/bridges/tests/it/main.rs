//! What tokio drives, in handlers that tokio does not run.

#[allow(dead_code, reason = "the tests of the other examples use all of it")]
#[path = "../../../tests/it/support.rs"]
mod support;

mod program;
mod traps;
