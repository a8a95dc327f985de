//! Channels between threads: workers among each other, and any thread that is none.
//!
//! | | for |
//! |---|---|
//! | [`mpsc`] | a stream of values to one receiver, bounded |
//! | [`oneshot`] | one answer |
//!
//! They wait by [`Waker`](std::task::Waker), so a receiver on a worker is woken as anything else there is: a burst of values
//! wakes it once, which is one letter, and rings its doorbell once if it sleeps. No thread ever waits for room or for a value in
//! an `async` call; [`mpsc::Sender::blocking_send`] and the like do, and are for threads that are no workers.

pub mod mpsc;
pub mod oneshot;
#[cfg(not(loom))]
mod primitives;
#[cfg(loom)]
#[path = "primitives_loom.rs"]
mod primitives;
