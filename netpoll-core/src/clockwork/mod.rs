//! Time of one worker: a clock that is read once a turn, and a wheel of deadlines.
//!
//! No other place asks the system for the time. A simulation hands in a clock that it moves by hand and
//! everything above repeats to the digit.

mod clock;
mod wheel;

pub use clock::{Clock, ClockReader, Instant};
pub use wheel::{TimerKey, Wheel};
