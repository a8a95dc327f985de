//! What is told of requests to those who watch: ends, logs, figures and ids, through the front door.

mod access_log;
mod completed;
mod ids;
mod metrics;
