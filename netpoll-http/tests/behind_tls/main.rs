//! What the server does with raw bytes behind TLS: the suite of `../conformance`, in memory and over sockets, with the client's half of rustls
//! between. Of the table each case is there, on stormy networks; cut at every byte it is behind the toy cipher (`../layered`), which shakes hands in no time.
//!
//! Not one of its tests knows of it. `transport.rs` seals what they send and opens what comes back.

mod transport;

#[path = "../conformance/answer.rs"]
mod answer;
#[expect(dead_code, reason = "whom a rule binds is not asked here")]
#[path = "../conformance/cases/mod.rs"]
mod cases;
#[path = "../conformance/cuts.rs"]
mod cuts;
#[path = "../conformance/drain.rs"]
mod drain;
#[path = "../conformance/expect.rs"]
mod expect;
#[path = "../conformance/fields.rs"]
mod fields;
#[path = "../conformance/fixture.rs"]
mod fixture;
#[path = "../conformance/handlers.rs"]
mod handlers;
#[path = "../conformance/pipelining.rs"]
mod pipelining;
#[path = "../conformance/responses.rs"]
mod responses;
#[expect(dead_code, reason = "who runs the table cut at every byte is elsewhere")]
#[path = "../conformance/run.rs"]
mod run;
#[path = "../conformance/storms.rs"]
mod storms;
#[path = "../conformance/target.rs"]
mod target;
#[path = "../conformance/time.rs"]
mod time;
#[path = "../conformance/upgrade.rs"]
mod upgrade;
#[path = "../conformance/vanishing.rs"]
mod vanishing;
#[path = "../conformance/verdict.rs"]
mod verdict;
#[path = "../conformance/volume.rs"]
mod volume;

/// Its handlers have bodies as a whole.
const READS_BODIES: bool = false;
