//! Bodies in pieces, through the front door: read while they arrive, handed over by callbacks, forms part by part, and events one by one.

mod bodies;
#[allow(dead_code, reason = "storms on sockets want more of it")]
#[path = "../../../netpoll-core/tests/it/chance.rs"]
mod chance;
mod events;
mod multipart;
mod sinks;
mod storms;
#[path = "../it/weather.rs"]
mod weather;

/// What came back, as text.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the answer is ASCII")
}
