//! Warnings, in a build without the `tracing` feature: none. The facts are in the counters.

use std::io;
use std::time::Duration;

pub fn long_turn(_turn: &dyn std::fmt::Display) {}
pub fn stuck(_turn: &dyn std::fmt::Display) {}
pub fn handover_failed(_error: &io::Error) {}
pub fn manager_not_told(_state: &str, _error: &io::Error) {}
pub fn accept_paused(_error: &io::Error, _pause: Duration) {}
pub fn panicked(_connection: &dyn std::fmt::Debug) {}
pub fn code_panicked() {}
pub fn task_panicked() {}
pub fn job_panicked() {}
pub fn destructor_panicked() {}
pub fn leaked() {}
#[cfg(feature = "uring")]
#[allow(dead_code, reason = "there is a ring on Linux alone")]
pub fn ring_left(_orders: usize) {}
pub fn pinning_failed(_cpu: usize, _error: &io::Error) {}
