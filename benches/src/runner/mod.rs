//! What runners share: servers and clients as processes, what the kernel says about them, and rounds.

mod backend;
mod build;
mod callgrind;
mod client;
mod contest;
mod figures;
mod interval;
mod metered;
mod order;
mod proc;
mod process;
mod rounds;
mod tracer;
mod watch;

use std::error::Error;

pub use backend::{arguments, backend, feature, with_backend};
pub use build::{build, build_peers};
pub use callgrind::collected;
pub use client::{Held, Load, StandBy, number};
pub use contest::{Contestant, UserTime, Window, percentiles};
pub use figures::{digits, median, range};
pub use interval::Figure;
pub use metered::{Metered, Spent};
pub use order::order;
pub use proc::{CpuTime, Machine, Switches, peak_resident_bytes, resident_bytes};
pub use process::{LOAD_CPU, SERVER_CPU, Server, Template, end, free_port, get};
pub use rounds::{Conditions, Rounds, Sample, run};
pub use tracer::{traced, traced_by};
pub use watch::{Others, Watch};

/// Why something could not be measured, for people.
pub type Failure = Box<dyn Error>;
