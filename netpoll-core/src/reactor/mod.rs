//! The loop of one worker: what a turn does, how much of it, and how it waits.
//!
//! Everything here is owned by one thread; the mailbox's sending side and the published counters are the
//! only things that other threads touch.

mod budget;
mod mailbox;
mod ready_list;
mod setting;
mod spike;
mod stats;
#[cfg(not(loom))]
mod sync;
#[cfg(loom)]
#[path = "sync_loom.rs"]
mod sync;
mod turn;
mod wait;

pub use budget::Budget;
#[allow(unused_imports, reason = "for drivers whose list of events does not grow")]
pub use budget::EVENTS_MAX;
pub use mailbox::{Bell, Mailbox, Sender};
pub use ready_list::ReadyList;
pub use setting::ParseSettingError;
pub use spike::Spike;
pub use stats::{Published, Stats};
pub use turn::{Agenda, Due, Halfway, Host, LAST_TURNS_MAX, Reactor};
pub use wait::{SPIN_MAX, WaitStrategy};
