//! The contract about descriptors that belong to somebody else: they are watched, and nothing else is done to them.
//!
//! The one exception to "never *readable*". What such a descriptor brings is known only to whoever owns it, so a driver
//! says when it may be worth a try ([`Sink::ready`](super::Sink::ready)).
//!
//! A [`Watcher`] stands beside [`Io`](super::Io), which is lent out for a delivery at a time: a registration has to go before its
//! descriptor does, and that is closed wherever its owner likes.
//!
//! Invariants that every driver keeps:
//! - a change is reported once, in the next wait at the latest, and what is so when the watch begins is a change;
//! - behind [`Watcher::unwatch`] the kernel reports nothing more; what it had reported before may still come, under a key that is gone.

use std::io;
use std::ops::{BitOr, BitOrAssign};
use std::os::fd::BorrowedFd;

use crate::mem::Key;

/// Says when descriptors are ready.
pub trait Watcher {
    /// Reports under this key when the descriptor is ready, from now on.
    ///
    /// # Errors
    /// The kernel's: `EPERM` of what is always ready, as files on disk are; `EEXIST` of one that is watched already; `ENOSPC`.
    fn watch(&self, key: Key, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()>;

    /// Reports nothing about it any more. Before it is closed: a copy of it would keep the registration, under a number that
    /// nobody can name then.
    fn unwatch(&self, fd: BorrowedFd<'_>);
}

/// What to wait for: one of the constants, or several, joined by `|`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Interest(u8);

impl Interest {
    /// Input, or the end of it.
    pub const READABLE: Self = Self(1);
    /// Room for output.
    pub const WRITABLE: Self = Self(2);
    /// Urgent data of a socket, or what else a descriptor reports as `EPOLLPRI`.
    pub const PRIORITY: Self = Self(4);

    /// Whether all of `other` is in it.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Interest {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Interest {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// How a descriptor is ready: any number of the constants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Ready(u8);

impl Ready {
    /// Not at all.
    pub const EMPTY: Self = Self(0);
    /// There may be input.
    pub const READABLE: Self = Self(1);
    /// There may be room for output.
    pub const WRITABLE: Self = Self(1 << 1);
    /// There may be urgent data.
    pub const PRIORITY: Self = Self(1 << 2);
    /// The other side sends no more: reading comes to the end, and does not wait.
    pub const READ_CLOSED: Self = Self(1 << 3);
    /// The other side takes no more: writing fails, and does not wait.
    pub const WRITE_CLOSED: Self = Self(1 << 4);
    /// There is an error to be had. It ends waiting in both directions.
    pub const ERROR: Self = Self(1 << 5);

    /// What ends a wait with this interest.
    #[must_use]
    pub const fn ends(interest: Interest) -> Self {
        let mut bits = Self::ERROR.0;
        if interest.contains(Interest::READABLE) {
            bits |= Self::READABLE.0 | Self::READ_CLOSED.0;
        }
        if interest.contains(Interest::WRITABLE) {
            bits |= Self::WRITABLE.0 | Self::WRITE_CLOSED.0;
        }
        if interest.contains(Interest::PRIORITY) {
            bits |= Self::PRIORITY.0 | Self::READ_CLOSED.0;
        }
        Self(bits)
    }

    /// What is in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in this one and not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether it says nothing.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Reading is worth a try: there may be input, or the end of it.
    #[must_use]
    pub const fn is_readable(self) -> bool {
        self.0 & (Self::READABLE.0 | Self::READ_CLOSED.0) != 0
    }

    /// Writing is worth a try: there may be room, or it fails at once.
    #[must_use]
    pub const fn is_writable(self) -> bool {
        self.0 & (Self::WRITABLE.0 | Self::WRITE_CLOSED.0) != 0
    }

    /// There may be urgent data.
    #[must_use]
    pub const fn is_priority(self) -> bool {
        self.0 & Self::PRIORITY.0 != 0
    }

    /// The other side sends no more.
    #[must_use]
    pub const fn is_read_closed(self) -> bool {
        self.0 & Self::READ_CLOSED.0 != 0
    }

    /// The other side takes no more.
    #[must_use]
    pub const fn is_write_closed(self) -> bool {
        self.0 & Self::WRITE_CLOSED.0 != 0
    }

    /// There is an error to be had.
    #[must_use]
    pub const fn is_error(self) -> bool {
        self.0 & Self::ERROR.0 != 0
    }
}

impl BitOr for Ready {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Ready {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}
