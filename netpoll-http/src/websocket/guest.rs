//! What a floor above does with WebSockets whose handlers know nothing of it.

use std::any::Any;
use std::sync::Arc;

use netpoll_core::{Commands, Message};

use super::{Closed, WebSocket};

/// What a floor above keeps with a connection.
pub trait Guest: Any {
    /// The connection is over. Comes once, in front of the handler's last callback.
    fn closed(&mut self, how: &Closed, commands: &mut Commands);
}

/// Goes to connections by `Commands::tell` or `tell_many`, and acts there in place of their handlers.
#[derive(Clone)]
pub struct Visit(pub Arc<dyn Visitor>);

/// What acts.
pub trait Visitor: Send + Sync {
    /// Called while neither side has said goodbye. `tell` is the handler's [`told`](super::Handler::told).
    fn visit(&self, socket: &mut WebSocket<'_, '_>, tell: &mut dyn FnMut(&mut WebSocket<'_, '_>, Message));
}
