//! What the server does with raw bytes, through a layer: the whole suite of `../conformance`, in memory and over sockets, with
//! the toy cipher of the examples between client and server.
//!
//! Not one of its tests knows of it. `transport.rs` seals what they send and opens what comes back.

#[path = "../../../examples/src/cipher.rs"]
mod cipher;
#[path = "../conformance/conforms.rs"]
mod conforms;
mod transport;

#[path = "../conformance/answer.rs"]
mod answer;
#[expect(dead_code, reason = "whom a rule binds is not asked here")]
#[path = "../conformance/cases/mod.rs"]
mod cases;
#[path = "../conformance/chunked.rs"]
mod chunked;
#[path = "../conformance/cuts.rs"]
mod cuts;
#[path = "../conformance/drain.rs"]
mod drain;
#[path = "../conformance/expect.rs"]
mod expect;
#[path = "../conformance/fields.rs"]
mod fields;
#[path = "../conformance/files.rs"]
mod files;
#[path = "../conformance/fixture.rs"]
mod fixture;
#[path = "../conformance/framing.rs"]
mod framing;
#[path = "../conformance/handlers.rs"]
mod handlers;
#[path = "../conformance/headers.rs"]
mod headers;
#[path = "../conformance/persistence.rs"]
mod persistence;
#[path = "../conformance/pipelining.rs"]
mod pipelining;
#[path = "../conformance/request_line.rs"]
mod request_line;
#[path = "../conformance/responses.rs"]
mod responses;
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

use conforms::conforms;

/// Its handlers have bodies as a whole.
const READS_BODIES: bool = false;
