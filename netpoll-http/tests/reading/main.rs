//! Bodies in pieces, through the front door: read while they arrive, handed over by callbacks, forms part by part, and events one by one.
//!
//! The part of `../conformance` that is about bodies is run with handlers that read them while they arrive; its tests do not know of it.

mod bodies;
mod body_storms;
#[allow(dead_code, reason = "storms on sockets want more of it")]
#[path = "../../../netpoll-core/tests/it/chance.rs"]
mod chance;
#[path = "../conformance/conforms.rs"]
mod conforms;
mod events;
mod gigabytes;
mod multipart;
mod sinks;
mod sockets;
#[path = "../it/weather.rs"]
mod weather;

#[path = "../conformance/answer.rs"]
mod answer;
#[expect(dead_code, reason = "whom a rule binds is not asked here")]
#[path = "../conformance/cases/mod.rs"]
mod cases;
#[path = "../conformance/chunked.rs"]
mod chunked;
#[path = "../conformance/cuts.rs"]
mod cuts;
#[path = "../conformance/expect.rs"]
mod expect;
#[allow(dead_code, reason = "the other parts of the suite want more of it")]
#[path = "../conformance/fixture.rs"]
mod fixture;
#[path = "../conformance/framing.rs"]
mod framing;
#[path = "../conformance/persistence.rs"]
mod persistence;
#[path = "../conformance/run.rs"]
mod run;
#[path = "../conformance/storms.rs"]
mod storms;
#[path = "../conformance/target.rs"]
mod target;
#[path = "../conformance/time.rs"]
mod time;
#[path = "../conformance/transport.rs"]
mod transport;
#[path = "../conformance/vanishing.rs"]
mod vanishing;
#[path = "../conformance/verdict.rs"]
mod verdict;
#[path = "../conformance/volume.rs"]
mod volume;

use conforms::conforms;

/// Its handlers read bodies while they arrive.
const READS_BODIES: bool = true;

/// What came back, as text.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the answer is ASCII")
}
