//! What can go wrong: the other side is gone, or it is not ready. A value that could not be delivered comes back.

use std::error::Error;
use std::fmt;

/// The other side is gone, or has closed: what was waited for will never come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("closed by the other side")
    }
}

impl Error for Closed {}

/// Nobody will receive this value any more; here it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SendError<T>(pub T);

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendError").finish_non_exhaustive()
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the receiver is gone, or has closed")
    }
}

impl<T> Error for SendError<T> {}

/// The value was not taken, and here it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrySendError<T> {
    /// There is no room now, or others wait for it.
    Full(T),
    /// Nobody will receive it any more.
    Closed(T),
}

impl<T> TrySendError<T> {
    /// The value.
    pub fn into_inner(self) -> T {
        match self {
            Self::Full(value) | Self::Closed(value) => value,
        }
    }
}

impl<T> fmt::Debug for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full(..)",
            Self::Closed(_) => "Closed(..)",
        })
    }
}

impl<T> fmt::Display for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "there is no room",
            Self::Closed(_) => "the receiver is gone, or has closed",
        })
    }
}

impl<T> Error for TrySendError<T> {}

/// Why there is none to be had without waiting: a value, a room, a permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TryError {
    /// Not now; later perhaps.
    NotNow,
    /// Never again: the other side is gone, or it was closed.
    Closed,
}

impl fmt::Display for TryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotNow => "not without waiting",
            Self::Closed => "closed by the other side",
        })
    }
}

impl Error for TryError {}
