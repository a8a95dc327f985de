//! Outgoing connections, from the order to the driver's.

use std::cell::Cell;
use std::io;

use super::connect::{ConnectOptions, Start};
use super::slot::Slot;
use super::stream::{End, Phase, Stream};
use super::table::Connections;
use super::tables::Tables;
use super::target::Target;
use super::{Commands, Context, Lost, Protocol};
use crate::driver::Io;
use crate::mem::{self, Key};

impl<P: Protocol> Connections<P> {
    fn connect(&mut self, cx: &mut Context, io: &mut dyn Io, dial: Dial<P>) {
        let Dial { name, to, options, protocol } = dial;
        if self.slots.is_full() {
            return;
        }
        let slot = |_| Slot { stream: Stream::new(Phase::Connecting), protocol: protocol.take() };
        let Some(key) = self.slots.insert_with(slot) else { return };
        if let Some(slot) = self.slots.get_mut(key) {
            slot.stream.set_dialed();
            if slot.protocol.is_of_task() {
                slot.stream.set_in_task();
            }
        }
        cx.dialed.began(name, key);
        // Behind the end of a drain nobody would cut it.
        let is_too_late = cx.stopping && cx.agenda.clock.now() >= cx.drain_ends;
        let started = match options.complaint() {
            _ if is_too_late => Err(Lost::Cut),
            Some(complaint) => {
                Err(Lost::ConnectFailed(io::Error::new(io::ErrorKind::InvalidInput, complaint)))
            }
            None => self.begin(cx, io, key, to.into_place(), options),
        };
        self.goes_on(cx, io, key, started);
    }

    /// Ends an outgoing connection that has no other way to go.
    pub(super) fn goes_on(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, attempt: Result<(), Lost>) {
        if let Err(reason) = attempt {
            self.end(cx, io, key, End::reset(reason));
        }
    }
}

/// An outgoing connection that has not been started. Dropped, it tells its protocol that it never will be.
pub struct Dial<P: Protocol> {
    name: Key,
    to: Target,
    options: ConnectOptions,
    protocol: Unmade<P>,
}

impl<P: Protocol> Dial<P> {
    pub fn new(name: Key, to: Target, options: ConnectOptions, protocol: P) -> Self {
        Self { name, to, options, protocol: Unmade(Some(protocol)) }
    }
}

/// The protocol of a connection that was not made yet.
struct Unmade<P: Protocol>(Option<P>);

impl<P: Protocol> Unmade<P> {
    fn take(mut self) -> P {
        self.0.take().expect("it is taken once")
    }
}

thread_local! {
    /// A protocol on this thread is just hearing that it will not be connected.
    static REFUSING: Cell<bool> = const { Cell::new(false) };
}

impl<P: Protocol> Drop for Unmade<P> {
    fn drop(&mut self) {
        let Some(mut protocol) = self.0.take() else { return };
        // One that dials again whenever it is lost would do so for ever: its second is dropped without a call.
        if !REFUSING.replace(true) {
            let error = io::ErrorKind::NotConnected.into();
            // There may be no worker here that would carry them out.
            let mut nobodys = Commands::nobodys();
            mem::guarded(|| protocol.lost(Lost::ConnectFailed(error), &mut nobodys));
            // What it wants to dial now is refused without a call, too.
            drop(nobodys);
            REFUSING.set(false);
        }
        mem::discard(protocol);
    }
}

impl<P: Protocol> Start for Dial<P> {
    fn start(self: Box<Self>, tables: &mut Tables, cx: &mut Context, io: &mut dyn Io) {
        if let Some(table) = tables.of::<P>() {
            table.connect(cx, io, *self);
        }
    }
}
