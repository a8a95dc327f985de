//! Content codings (RFC 9110 section 8.4): what a client accepts, and what codes and decodes.
//!
//! Invariant: a coder appends to the memory that it is given and holds no more than its own state; a decoder stops at the
//! bytes that it may make. What a client accepts is read without the features, because [`Files`](crate::Files) needs no coder.

mod accept;
#[cfg(feature = "br")]
mod brotli;
#[cfg(feature = "compression")]
mod decode;
#[cfg(feature = "compression")]
mod encode;
#[cfg(feature = "compression")]
mod gzip;
#[cfg(feature = "zstd")]
mod zstandard;

pub use accept::Accepted;
#[cfg(feature = "compression")]
pub use decode::{Bounds, Undecoded, decode};
#[cfg(feature = "compression")]
pub use encode::{Encoder, Levels, Stuck};

/// A content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Coding {
    /// `gzip`, RFC 1952.
    Gzip,
    /// `br`, RFC 7932.
    Br,
    /// `zstd`, RFC 8878 with a window of at most 8 MiB (RFC 9659).
    Zstd,
}

impl Coding {
    pub(crate) const ALL: [Self; 3] = [Self::Gzip, Self::Br, Self::Zstd];

    /// As `Content-Encoding` has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Br => "br",
            Self::Zstd => "zstd",
        }
    }

    /// What is behind the name of a file that is coded so.
    pub(crate) const fn ending(self) -> &'static str {
        match self {
            Self::Gzip => ".gz",
            Self::Br => ".br",
            Self::Zstd => ".zst",
        }
    }

    /// Whether this build has its coder and decoder.
    #[cfg(feature = "compression")]
    pub(crate) const fn is_built_in(self) -> bool {
        match self {
            Self::Gzip => true,
            Self::Br => cfg!(feature = "br"),
            Self::Zstd => cfg!(feature = "zstd"),
        }
    }

    /// The one with this name, in any case. Senders of `x-gzip` mean `gzip` (RFC 9110 section 8.4.1.3).
    pub(crate) fn named(name: &[u8]) -> Option<Self> {
        if name.eq_ignore_ascii_case(b"x-gzip") {
            return Some(Self::Gzip);
        }
        Self::ALL.into_iter().find(|coding| name.eq_ignore_ascii_case(coding.name().as_bytes()))
    }
}
