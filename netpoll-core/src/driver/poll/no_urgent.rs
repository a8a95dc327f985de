//! Urgent data on mio, of a system that does not report it.

use mio::Interest;

/// Nothing is registered to hear of it.
pub const URGENT: Option<Interest> = None;
