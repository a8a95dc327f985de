//! Calls that only Linux has.

pub(super) mod broken_pipe;
pub(super) mod cpu;
pub(super) mod epoll;
pub(super) mod eventfd;
pub(super) mod kernel;
pub(super) mod memory;
pub(super) mod sendfile;
pub(super) mod splice;
#[cfg(feature = "uring")]
pub(super) mod uring;
