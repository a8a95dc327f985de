//! A table of connections as the worker sees it: whatever their protocol is.

use std::any::Any;
use std::io;
use std::sync::mpsc::Sender;

use bytes::Bytes;

use super::connect::Order;
use super::ending::CutPeer;
use super::stream::{End, Stream};
use super::{Context, Message, Moved, Succession};
use crate::clockwork::Instant;
use crate::driver::{HangUp, Io, Verdict};
use crate::mem::{Guarded, Key};
use crate::reactor::Due;
use crate::sys::Address;
use crate::task::Came;

/// A table, whatever its protocol.
pub trait Table: Any {
    fn opened(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, result: io::Result<()>);
    /// The addresses of a name that an outgoing connection has asked for.
    fn found(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, found: io::Result<Vec<Address>>);
    fn received(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, chunk: &mut [u8]) -> Verdict;
    /// Input lies in the socket. `None` if nobody takes it from there.
    fn announced(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) -> Option<Verdict>;
    /// What a reply left goes in front of the queue.
    fn unsent(&mut self, cx: &mut Context, key: Key, bytes: &[u8]);
    fn sent(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, bytes: usize);
    fn hung_up(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, how: HangUp);
    /// The peer has ended, behind input that is held back.
    fn ending(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key);
    fn unfinished(&mut self, cx: &mut Context, key: Key);
    /// Goes on with a connection from the ready list; true when the driver should read more of it.
    fn resume(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) -> bool;
    fn flush(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key);
    /// The connection's entry in the wheel came up.
    fn came_up(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) -> Due;
    /// Carries out the deadline that has passed, if it still stands.
    fn expired(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key);
    fn woken(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, came: Came);
    fn send(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, bytes: Guarded<Bytes>);
    fn tell(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, message: Message);
    /// A connection, whatever its protocol.
    fn stream(&mut self, key: Key) -> Option<&mut Stream>;
    /// Takes a connection out, closes it and tells its protocol.
    fn end_by(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, end: End);
    /// What others want of a connection.
    fn order(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, order: Order);
    fn stop_all(&mut self, cx: &mut Context, io: &mut dyn Io);
    /// Sends all that can go on in the process that follows there, and returns how many that were.
    fn move_idle(
        &mut self,
        cx: &mut Context,
        io: &mut dyn Io,
        succession: &Succession,
        to: &Sender<Moved>,
    ) -> u64;
    /// A connection has come from the process before.
    fn has_arrived(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, state: &[u8]);
    /// Resets what is still open, names some of it, and returns how many that were.
    fn cut_all(&mut self, cx: &mut Context, io: &mut dyn Io, peers: &mut Vec<CutPeer>) -> usize;
    /// Whether a drain has to wait for a connection of these. Quick where it has.
    fn holds_drain(&self) -> bool;
    /// Closes those that no drain waits for.
    fn close_quiet(&mut self, cx: &mut Context, io: &mut dyn Io);
    fn keys(&self) -> Vec<Key>;
    /// The longest idle of some connections that can be closed without a reset, and since when it is; the next call looks at others.
    fn longest_idle(&mut self, cx: &mut Context, io: &mut dyn Io) -> Option<(Key, Instant)>;
    /// Closes an idle connection.
    fn evict(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key);
    fn reclaim(&mut self);
    fn shrink(&mut self);
    fn len(&self) -> usize;
}
