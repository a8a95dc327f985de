//! All datagram sockets of one worker, and the way from an event to a callback.
//!
//! Every callback goes through [`Slot::call`], so a panic in one costs that call and nothing else. Callbacks never nest:
//! effects on others are commands.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use super::socket::{Core, Phase};
use super::{DatagramProtocol, DatagramSocket, Spares, UdpOptions};
use crate::conn::deadline::Passed;
use crate::conn::{Context, Tables};
use crate::driver::{Close, DatagramBind, Datagrams, DatagramsFlushed, Io};
use crate::mem::{self, DatagramPath, Guarded, Key, KeySlab};
use crate::reactor::{Agenda, Due};
use crate::sys;
use crate::task::Came;

struct Slot {
    core: Core,
    protocol: Guarded<Box<dyn DatagramProtocol>>,
}

impl Slot {
    /// One callback. `None` if it panicked.
    #[inline]
    fn call<R>(
        &mut self,
        cx: &mut Context,
        key: Key,
        callback: impl FnOnce(&mut dyn DatagramProtocol, &mut DatagramSocket<'_>) -> R,
    ) -> Option<R> {
        let Self { core, protocol } = self;
        let protocol: &mut dyn DatagramProtocol = &mut ***protocol;
        let mut socket = DatagramSocket { core, cx, key };
        let called = catch_unwind(AssertUnwindSafe(|| callback(protocol, &mut socket)));
        sys::assert_not_forked();
        called.map_err(|payload| panicked(cx, key, payload)).ok()
    }
}

#[cold]
fn panicked(cx: &mut Context, key: Key, payload: Box<dyn std::any::Any + Send>) {
    cx.agenda.stats.panics += 1;
    crate::log::panicked(&key);
    mem::discard_payload(payload);
}

impl Core {
    fn push_ready(&mut self, agenda: &mut Agenda, key: Key) {
        if !std::mem::replace(&mut self.on_ready_list, true) {
            agenda.ready.push(key);
        }
    }

    /// What is queued leaves before the worker waits.
    fn push_dirty(&mut self, agenda: &mut Agenda, key: Key) {
        if !self.queue.is_empty() && !self.blocked && !std::mem::replace(&mut self.on_dirty_list, true) {
            agenda.dirty.push_back(key);
        }
    }

    fn set_phase(&mut self, agenda: &mut Agenda, key: Key, phase: Phase) {
        self.phase = phase;
        if let Some(at) = self.guard() {
            let now = agenda.clock.now();
            self.deadlines.set_guard(&mut agenda.timers, now, key, at);
        }
    }
}

/// The datagram sockets of one worker.
pub struct Sockets {
    slots: KeySlab<Slot>,
    /// Bound before their worker serves.
    unopened: Vec<Key>,
    /// How many belong to tasks, see [`Core::is_of_task`].
    of_tasks: usize,
    /// Memory for the queues of those.
    spares: Rc<Spares>,
}

impl Sockets {
    /// Keys of this table name datagram sockets.
    pub const TABLE: u8 = Tables::DATAGRAMS;

    pub fn new() -> Self {
        Self { slots: KeySlab::new(Self::TABLE), unopened: Vec::new(), of_tasks: 0, spares: Rc::default() }
    }

    /// Makes room for a socket that is bound to this address. `None` when the table is full.
    pub fn add(
        &mut self,
        addr: SocketAddr,
        options: &UdpOptions,
        protocol: Box<dyn DatagramProtocol>,
    ) -> Option<Key> {
        let slot = Slot { core: Core::new(addr, options), protocol: Guarded::new(protocol) };
        let key = self.slots.insert_with(|_| slot)?;
        self.unopened.push(key);
        Some(key)
    }

    /// Opens a socket for a task, now. Its name, and where it is bound.
    ///
    /// # Errors
    /// The driver's; the table is full.
    pub fn open(
        &mut self,
        io: &mut dyn Io,
        addr: SocketAddr,
        options: &UdpOptions,
        protocol: Box<dyn DatagramProtocol>,
    ) -> io::Result<(Key, SocketAddr)> {
        let mut core = Core::new((Ipv4Addr::UNSPECIFIED, 0).into(), options);
        (core.spares, core.phase) = (Some(Rc::clone(&self.spares)), Phase::Open);
        let slot = Slot { core, protocol: Guarded::new(protocol) };
        let full = || io::Error::other("a worker has at most 16 million datagram sockets");
        let key = self.slots.insert_with(|_| slot).ok_or_else(full)?;
        let bind = DatagramBind {
            addr,
            send_buffer_bytes: options.send_buffer_bytes,
            receive_buffer_bytes: options.receive_buffer_bytes,
            setup: options.setup(),
        };
        match io.open_datagrams(key, &bind) {
            Ok(addr) => {
                self.of_tasks += 1;
                if let Some(slot) = self.slots.get_mut(key) {
                    slot.core.addr = addr;
                }
                Ok((key, addr))
            }
            Err(error) => {
                drop(self.slots.remove(key));
                Err(error)
            }
        }
    }

    /// Memory for what comes to sockets of tasks, and what they send.
    pub fn spares(&self) -> &Rc<Spares> {
        &self.spares
    }

    /// Nothing is left that a drain waits for.
    pub fn is_empty(&self) -> bool {
        self.slots.len() == self.of_tasks
    }

    pub fn keys(&self) -> impl Iterator<Item = Key> {
        self.slots.keys()
    }

    /// The worker serves: tells those that do not know it yet.
    #[inline]
    pub fn open_all(&mut self, cx: &mut Context, io: &mut dyn Io) {
        if self.unopened.is_empty() {
            return;
        }
        for key in std::mem::take(&mut self.unopened) {
            if let Some(slot) = self.slots.get_mut(key) {
                slot.core.phase = Phase::Open;
                slot.call(cx, key, |protocol, socket| protocol.opened(socket));
                self.settle(cx, io, key, false);
            }
        }
    }

    /// Datagrams have come.
    pub fn received(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, batch: &mut Datagrams<'_>) {
        let Some(slot) = self.slots.get_mut(key).filter(|slot| slot.core.is_served()) else { return };
        slot.core.has_come = true;
        while batch.len() > 0 && !slot.core.wants_close {
            let before = batch.len();
            if slot.call(cx, key, |protocol, socket| protocol.received_batch(socket, batch)).is_some() {
                break;
            }
            if batch.len() == before {
                // It panicked before it had taken one, and would again.
                batch.next();
            }
        }
        self.settle(cx, io, key, true);
    }

    /// What a callback has left: its output leaves now or soon, and the socket closes if it said so.
    fn settle(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, now: bool) {
        let Some(Slot { core, .. }) = self.slots.get_mut(key) else { return };
        if core.wants_close {
            return self.close(cx, io, key);
        }
        if now {
            self.send_queued(cx, io, key);
        } else {
            core.push_dirty(&mut cx.agenda, key);
        }
    }

    /// Sends what is queued, unless the kernel has yet to say that there is room.
    fn send_queued(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) {
        let Some(Slot { core, .. }) = self.slots.get_mut(key) else { return };
        if core.blocked || core.queue.is_empty() {
            return;
        }
        core.blocked = io.send_to(key, &mut core.queue) == DatagramsFlushed::Blocked;
        if let Some(spares) = core.spares.as_ref().filter(|_| core.queue.is_empty()) {
            spares.put(&mut core.queue);
        }
        if !core.blocked && matches!(core.phase, Phase::Closing(_)) {
            self.end(cx, io, key);
        }
    }

    /// Taken off the dirty list.
    pub fn flush(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) {
        if let Some(Slot { core, .. }) = self.slots.get_mut(key) {
            core.on_dirty_list = false;
            self.send_queued(cx, io, key);
        }
    }

    /// There is room again.
    pub fn sent(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) {
        let Some(Slot { core, .. }) = self.slots.get_mut(key) else { return };
        if !std::mem::take(&mut core.blocked) {
            return;
        }
        self.send_queued(cx, io, key);
        let Some(slot) = self.slots.get_mut(key) else { return };
        if !slot.core.blocked && slot.core.is_served() {
            slot.call(cx, key, |protocol, socket| protocol.drained(socket));
            self.settle(cx, io, key, true);
        }
    }

    /// More has come than one turn takes.
    pub fn unfinished(&mut self, cx: &mut Context, key: Key) {
        if let Some(Slot { core, .. }) = self.slots.get_mut(key) {
            core.push_ready(&mut cx.agenda, key);
        }
    }

    /// Left the ready list. True when the driver should deliver more.
    pub fn resume(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) -> bool {
        let Some(Slot { core, .. }) = self.slots.get_mut(key) else { return false };
        core.on_ready_list = false;
        if !matches!(core.phase, Phase::Finishing(_)) {
            return core.is_served();
        }
        if !std::mem::take(&mut core.has_come) {
            self.close(cx, io, key);
            return false;
        }
        core.push_ready(&mut cx.agenda, key);
        true
    }

    /// The socket's entry in the wheel came up.
    pub fn came_up(&mut self, cx: &mut Context, key: Key) -> Due {
        let Some(Slot { core, .. }) = self.slots.get_mut(key) else { return Due::Not };
        let agenda = &mut cx.agenda;
        let now = agenda.clock.now();
        core.deadlines.left_wheel();
        match core.deadlines.passed(now, core.guard()) {
            Passed::Neither => {
                agenda.stats.timers_moved += 1;
                core.deadlines.take_passed(&mut agenda.timers, now, key, core.guard());
                Due::Not
            }
            Passed::Protocol => Due::LookFirst,
            Passed::Guard => Due::Now,
        }
    }

    /// Carries out the deadline that has passed, if it still stands.
    pub fn expired(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let (core, agenda) = (&mut slot.core, &mut cx.agenda);
        let now = agenda.clock.now();
        let passed = core.deadlines.take_passed(&mut agenda.timers, now, key, core.guard());
        agenda.stats.timers_fired += u64::from(passed != Passed::Neither);
        match (passed, core.phase) {
            (Passed::Neither, _) => {}
            (Passed::Protocol, _) if core.is_served() => {
                slot.call(cx, key, |protocol, socket| protocol.deadline(socket));
                self.settle(cx, io, key, false);
            }
            (Passed::Protocol, _) => {}
            (Passed::Guard, Phase::Stopping(_)) => self.finish(cx, key),
            (Passed::Guard, _) => self.end(cx, io, key),
        }
    }

    pub fn woken(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key, came: Came) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        if let Some(wake) = &slot.core.wake {
            wake.arrived(came);
        }
        if slot.core.is_served() {
            slot.call(cx, key, |protocol, socket| protocol.woken(socket));
            self.settle(cx, io, key, false);
        }
    }

    /// Queues a datagram for somebody else.
    pub fn send(&mut self, cx: &mut Context, key: Key, path: DatagramPath, bytes: &[u8]) {
        match self.slots.get_mut(key) {
            Some(Slot { core, .. }) => {
                core.send(cx, path, bytes);
                core.push_dirty(&mut cx.agenda, key);
            }
            None => cx.agenda.stats.datagrams_dropped += 1,
        }
    }

    /// A drain has begun.
    pub fn stop_all(&mut self, cx: &mut Context, io: &mut dyn Io) {
        let keys: Vec<Key> = self.slots.keys().collect();
        for key in keys {
            let Some(slot) = self.slots.get_mut(key) else { continue };
            if matches!(slot.core.phase, Phase::Closing(_)) || slot.core.is_of_task() {
                continue;
            }
            // One that cannot say how long it goes on does not.
            let longer = slot.call(cx, key, |protocol, socket| protocol.stopping(socket));
            let longer = longer.unwrap_or_default();
            if slot.core.wants_close {
                // Done below.
            } else if longer.is_zero() {
                self.finish(cx, key);
            } else {
                let ends = cx.agenda.clock.now().saturating_add(longer).min(cx.drain_ends);
                slot.core.set_phase(&mut cx.agenda, key, Phase::Stopping(ends));
            }
            self.settle(cx, io, key, false);
        }
    }

    /// Hands over what has come, and closes then.
    fn finish(&mut self, cx: &mut Context, key: Key) {
        let Some(Slot { core, .. }) = self.slots.get_mut(key) else { return };
        let now = cx.agenda.clock.now();
        let ends = now.saturating_add(cx.limits.drain_grace).min(cx.drain_ends);
        core.set_phase(&mut cx.agenda, key, Phase::Finishing(ends));
        // The first round looks in any case; the one that finds nothing is the last.
        core.has_come = true;
        core.push_ready(&mut cx.agenda, key);
    }

    /// Closes as soon as what is queued has left; what the kernel does not take within the grace of a drain is lost.
    fn close(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) {
        let Some(Slot { core, .. }) = self.slots.get_mut(key) else { return };
        let ends = cx.agenda.clock.now().saturating_add(cx.limits.drain_grace);
        self.of_tasks -= usize::from(core.is_of_task());
        if !matches!(core.phase, Phase::Closing(_)) {
            core.set_phase(&mut cx.agenda, key, Phase::Closing(ends));
        }
        if core.queue.is_empty() {
            self.end(cx, io, key);
        } else {
            self.send_queued(cx, io, key);
        }
    }

    /// Closes all at once, with what is queued.
    pub fn cut_all(&mut self, cx: &mut Context, io: &mut dyn Io) {
        let keys: Vec<Key> = self.slots.keys().collect();
        for key in keys {
            self.end(cx, io, key);
        }
    }

    #[cold]
    fn end(&mut self, cx: &mut Context, io: &mut dyn Io, key: Key) {
        io.close(key, Close::Now);
        let Some(Slot { mut core, protocol }) = self.slots.remove(key) else { return };
        self.of_tasks -= usize::from(core.is_of_task());
        core.deadlines.disarm(&mut cx.agenda.timers);
        cx.agenda.stats.datagrams_dropped += core.queue.clear() as u64;
        drop(protocol);
        sys::assert_not_forked();
    }

    pub fn reclaim(&mut self) {
        self.slots.reclaim();
    }

    /// Gives back what a burst has left in the queues.
    pub fn shrink(&mut self) {
        let keys: Vec<Key> = self.slots.keys().collect();
        for key in keys {
            if let Some(Slot { core, .. }) = self.slots.get_mut(key) {
                core.queue.shrink();
            }
        }
        self.unopened.shrink_to_fit();
        self.spares.shrink();
    }
}
