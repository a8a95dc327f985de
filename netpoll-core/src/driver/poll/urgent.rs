//! Urgent data on mio, of a system that reports it.

use mio::Interest;

/// What is registered to hear of it.
pub const URGENT: Option<Interest> = Some(Interest::PRIORITY);
