//! The lowest floors of netpoll-core: system calls, memory and time.

#[cfg_attr(
    not(feature = "internals"),
    allow(
        dead_code,
        unused_imports,
        reason = "whole data structures: the floors above and the fuzz models use all of them"
    )
)]
mod mem;
#[expect(unsafe_code, reason = "the system calls; see docs/UNSAFE.md")]
#[allow(dead_code, unused_imports, reason = "used by the floors above")]
mod sys;
#[cfg_attr(
    not(feature = "internals"),
    allow(
        dead_code,
        unused_imports,
        reason = "whole data structures: the floors above and the fuzz models use all of them"
    )
)]
mod time;

/// The inner rooms, for the fuzz targets and the benches. Not part of the public API.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::mem::*;
    pub use crate::time::*;
}
