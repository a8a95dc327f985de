//! WebSocket (RFC 6455) as bytes: what a connection is after its handshake, and the handshake itself.
//!
//! Nothing here reads a socket, a clock or chance: chunks come in as `&mut [u8]` and are unmasked where they lie, keys are given by the caller,
//! and what a peer did wrong comes back as a [`Violation`] with the close code it gets. When a frame is to be sent, to whom, and how often a
//! peer may ping is for the floors above.
//!
//! | | what there is |
//! |---|---|
//! | a server is asked | [`Opening::read`], then its [`answer`](Opening::answer), or a [`Refusal`] |
//! | a client asks | [`Key::new`], [`Asking`], then [`judge`](Asking::judge) |
//! | chunks come | [`Reader::next`] until it is `None`; an [`Event::Compressed`] goes through the worker's [`Inflater`] |
//! | a message leaves | [`frame::push`] into memory of one's own, [`frame::shared`] and [`frame::Builder`] for many; the worker's [`Deflater`] before that |
//! | it ends | [`Event::Close`] or [`Event::Failed`]; [`ClosePayload`] is what is answered |
//!
//! Invariant: how bytes were cut into chunks changes neither the messages nor the violation.

pub mod asking;
pub mod close;
pub mod deflate;
pub mod extension;
pub mod frame;
pub mod key;
pub mod mask;
pub mod opening;
pub mod reader;
pub mod utf8;
pub mod violation;

#[cfg(test)]
mod tests;

pub use asking::{Agreed, Asking, Mistrust};
pub use close::{Close, CloseCode, ClosePayload};
pub use deflate::{Deflater, Inflater};
pub use extension::Deflate;
pub use frame::{Kind, Opcode, Role};
pub use key::{Accept, Key};
pub use mask::Mask;
pub use opening::{Answer, Opening, Refusal, RequestLine};
pub use reader::{Event, Limits, Reader};
pub use utf8::Utf8;
pub use violation::Violation;
