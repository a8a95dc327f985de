//! The bytes of HTTP/1.1, without I/O.

#![forbid(unsafe_code)]

#[allow(dead_code, unused_imports, reason = "used by the floors above")]
mod wire;

/// Opens the inner rooms to the fuzz targets and the benches. Not part of the public API.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    /// The bytes of HTTP/1.1, without I/O.
    pub mod wire {
        pub use crate::wire::*;
    }
}
