//! Warnings, through `tracing`.

use std::io;
use std::time::Duration;

pub fn long_turn(turn: &dyn std::fmt::Display) {
    tracing::warn!("{turn}: something blocks or computes for too long");
}

pub fn stuck(turn: &dyn std::fmt::Display) {
    tracing::error!("{turn}");
}

pub fn manager_not_told(state: &str, error: &io::Error) {
    tracing::warn!(state, %error, "the service manager could not be told");
}

pub fn handover_failed(error: &io::Error) {
    tracing::warn!(%error, "no other process has taken over");
}

pub fn accept_paused(error: &io::Error, pause: Duration) {
    tracing::warn!(%error, ?pause, "accepting is paused");
}

pub fn panicked(connection: &dyn std::fmt::Debug) {
    tracing::error!(?connection, "a callback panicked; its connection was reset");
}

pub fn code_panicked() {
    tracing::error!("a timer, or code that was handed to a worker, panicked");
}

pub fn task_panicked() {
    tracing::error!("a task panicked; whoever joins it is told");
}

pub fn job_panicked() {
    tracing::error!("a job of the blocking pool panicked; whoever joins it is told");
}

pub fn destructor_panicked() {
    tracing::error!("a destructor of something that was handed over panicked");
}

pub fn leaked() {
    tracing::warn!("something that was bound to a worker was dropped elsewhere behind its end: it is leaked");
}

#[cfg(feature = "uring")]
#[allow(dead_code, reason = "there is a ring on Linux alone")]
pub fn ring_left(orders: usize) {
    tracing::error!(
        orders,
        "io_uring did not end what was cancelled; the memory of a ring is left to the kernel"
    );
}

pub fn pinning_failed(cpu: usize, error: &io::Error) {
    tracing::warn!(cpu, %error, "the worker could not be pinned");
}
