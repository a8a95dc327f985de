//! Datagrams: the callbacks of a socket, what they may do, and all sockets of a worker.
//!
//! A datagram socket is no connection: it has no peer, no order, no end of input and no back-pressure but loss. So it has a
//! room, a trait and a table of its own; with connections it shares the turn, deadlines, wakers and commands.

mod options;
mod protocol;
mod socket;
mod spares;
mod table;

pub use options::UdpOptions;
pub use protocol::DatagramProtocol;
pub use socket::{DatagramId, DatagramSocket};
pub use spares::Spares;
pub use table::Sockets;
