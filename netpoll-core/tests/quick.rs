//! x
#[path = "it/chance.rs"]
#[allow(dead_code)]
mod chance;
#[path = "it/net_ends.rs"]
mod net_ends;
#[path = "it/net_storms.rs"]
mod net_storms;
