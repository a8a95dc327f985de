//! The traits of other runtimes on sockets of this one: each in a simulation that cuts and delays as it likes, and over TCP.

#[path = "../it/chance.rs"]
#[allow(dead_code, reason = "the other tests use all of it")]
mod chance;
mod conversation;
mod http1;
mod http2;
mod send_wrapper;
mod traits;
