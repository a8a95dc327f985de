//! TLS as a layer: what a peer that speaks it, or pretends to, gets.

mod agreements;
#[expect(dead_code, reason = "nothing gets stuck in a simulated world")]
#[path = "../it/chance.rs"]
mod chance;
mod clients;
mod ends;
mod foreign;
mod hostile;
mod settings;
mod storms;
mod support;
mod traffic;
