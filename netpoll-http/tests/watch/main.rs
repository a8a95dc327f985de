//! What is told of requests to those who watch: ends, logs, figures and ids, through the front door.

mod access_log;
#[allow(dead_code, reason = "storms on sockets want more of it")]
#[path = "../../../netpoll-core/tests/it/chance.rs"]
mod chance;
mod completed;
mod ids;
mod metrics;
mod storms;
