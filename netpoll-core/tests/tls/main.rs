//! TLS as a layer: what a peer that speaks it, or pretends to, gets.

mod agreements;
mod clients;
mod ends;
mod foreign;
mod support;
mod traffic;
