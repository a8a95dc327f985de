//! WebSocket (RFC 6455) as bytes: what a connection is after its handshake, and the handshake itself.
//!
//! Nothing here reads a socket or a clock.

pub mod mask;
pub mod utf8;
