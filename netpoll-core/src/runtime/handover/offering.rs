//! The process that serves: waits on a thread of its own for one that follows, gives it the sockets, and drains when that one serves.
//!
//! Invariant: until then nothing of this process changes but whose the queues are (`conn/succession.rs`), and that is taken back
//! whenever it comes to nothing. One that was told to go ahead is waited for as long as it lives: refused later, it would serve as well.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Handover;
use super::channel::{Channel, HELLO_WITHIN, LONG};
use super::family::Family;
use super::moving::{Arriving, send_all};
use super::place::Taken;
use super::wire::{ManagerName, Message, VERSION};
use crate::conn::{Handle, Moved, SharedSocket, Stage, Succession};
use crate::runtime::service_manager::ServiceManager;
use crate::sys::{self, Address, Doorbell, Heard, Timeout};

/// How long it rests when there is no descriptor for the one that follows, or the way to it is somebody else's.
const REST: Duration = Duration::from_millis(100);

/// How long a manager that has no room for it is told that another process serves: it ends the service with this one otherwise.
const TELL_WITHIN: Duration = Duration::from_secs(10);

/// From one try to the next.
const TELL_AGAIN: Duration = Duration::from_millis(10);

/// The threads, until it is dropped or another process has followed.
pub struct Offering {
    bell: Arc<Doorbell>,
    threads: Vec<JoinHandle<()>>,
}

impl Offering {
    /// Waits for one that follows, and takes in the connections of the process before, which come by `before` to listeners at these
    /// addresses.
    pub fn start(
        handover: Handover,
        place: Taken,
        before: Option<(Channel, Vec<Address>)>,
        handle: &Handle,
        family: Arc<Family>,
        manager: Option<ServiceManager>,
        drain_within: Duration,
    ) -> Option<Self> {
        let succession = Arc::clone(&handle.succession.as_ref()?.shared);
        let handover = Arc::new(handover);
        let bell = Arc::clone(place.bell());
        let mut offering = Self { bell: Arc::clone(&bell), threads: Vec::new() };
        if let Some((mut channel, at)) = before {
            channel.hears(&bell);
            succession.expect_arrivals();
            let (handle, family, succession) = (handle.clone(), Arc::clone(&family), Arc::clone(&succession));
            let arriving = Arriving { channel, handle, family, succession, at };
            offering.spawn(&handover, "netpoll-arrivals", move || arriving.take_in());
        }
        let handle = handle.clone();
        let named = Arc::clone(&handover);
        let host = Host { handover, place, handle, family, succession, manager, drain_within, bell };
        offering.spawn(&named, "netpoll-handover", move || host.wait());
        Some(offering)
    }

    fn spawn(&mut self, handover: &Handover, name: &str, run: impl FnOnce() + Send + 'static) {
        match std::thread::Builder::new().name(name.to_owned()).spawn(run) {
            Ok(thread) => self.threads.push(thread),
            Err(error) => handover.ended(Err(&handover.named(sys::no_thread(name, error)))),
        }
    }
}

impl Drop for Offering {
    fn drop(&mut self) {
        if sys::is_child() {
            // The threads are the parent's.
            return self.threads.clear();
        }
        // The only error is a full counter, and then it has been rung.
        let _ = self.bell.signal();
        for thread in self.threads.drain(..) {
            // What they call is guarded.
            let _ = thread.join();
        }
    }
}

/// What the thread knows.
struct Host {
    handover: Arc<Handover>,
    place: Taken,
    handle: Handle,
    family: Arc<Family>,
    succession: Arc<Succession>,
    manager: Option<ServiceManager>,
    drain_within: Duration,
    bell: Arc<Doorbell>,
}

impl Host {
    fn wait(mut self) {
        loop {
            let timeout = if self.place.is_there() { Timeout::Never } else { Timeout::After(REST) };
            match sys::wait_for_fd(self.place.socket(), false, self.bell.as_fd(), timeout) {
                Ok(Heard::Ready) => {}
                Ok(Heard::Nothing) => {
                    self.return_to_place();
                    continue;
                }
                Ok(Heard::Bell) | Err(_) => return,
            }
            let socket = match self.place.accept() {
                Ok(socket) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(_) => match self.bell.wait_for(Timeout::After(REST)) {
                    Ok(false) => continue,
                    Ok(true) | Err(_) => return,
                },
            };
            match self.attend(socket) {
                Ok((channel, moved)) => return self.follow(channel, &moved),
                Err(error) => {
                    self.handover.ended(Err(&error));
                    self.return_to_place();
                }
            }
        }
    }

    /// Another process serves: its connections are sent to it, while the program hears of it.
    fn follow(self, channel: Channel, moved: &Receiver<Moved>) {
        let Self { handover, place, succession, bell, .. } = self;
        // Whoever waits here finds the other one at the path.
        drop(place);
        let watch = || {
            handover.ended(Ok(channel.peer()));
            // A worker that is stuck is not waited for any longer: what it has is drained.
            channel.wait_for_end(&bell);
            succession.stop_moving();
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("netpoll-handed-over".to_owned());
            let watches = thread.spawn_scoped(scope, watch);
            if let Err(error) = send_all(&channel, moved) {
                crate::log::handover_failed(&error);
            }
            succession.stop_moving();
            if let Err(error) = watches {
                crate::log::handover_failed(&error);
                watch();
            }
        });
    }

    /// One that had taken this one's place has ended.
    fn return_to_place(&mut self) {
        if let Err(error) = self.place.take_again() {
            self.handover.ended(Err(&self.handover.named(error)));
        }
    }

    /// Attends to one that wants to follow. When it serves: the way to it, and what is to go there.
    fn attend(&self, socket: OwnedFd) -> io::Result<(Channel, Receiver<Moved>)> {
        let mut channel = Channel::new(socket, self.handle.clock.clone(), Arc::clone(&self.bell))?;
        let outcome = self.hand_over(&channel);
        if let Err(error) = &outcome
            && error.kind() != io::ErrorKind::Interrupted
        {
            // Whoever has ended does not hear it.
            let _ = channel.send(&Message::Refused(error.to_string()), None);
        }
        let moved = outcome?;
        // What is sent from here on is somebody's connection.
        channel.hears(self.place.silence());
        Ok((channel, moved))
    }

    fn hand_over(&self, channel: &Channel) -> io::Result<Receiver<Moved>> {
        channel.expect_hello(HELLO_WITHIN)?;
        channel.send(&Message::Hello { version: VERSION }, None)?;
        if self.handle.life.stage() >= Stage::Draining {
            return Err(io::Error::other("this process drains"));
        }
        let lent = self.succession.lend()?;
        self.tell(|| format!("RELOADING=1\nMONOTONIC_USEC={}", sys::monotonic_nanos() / 1000));
        match self.pass(channel, lent) {
            Ok(claimed) => {
                // Before that process says anything: only the main one is listened to, by default.
                self.tell_who_serves(channel.peer());
                let (way, moved) = mpsc::channel();
                self.succession.hand_over(&claimed, &way, self.handle.workers());
                self.handle.drain(self.drain_within);
                self.family.drain_companions(self.drain_within);
                Ok(moved)
            }
            // This process ends: whoever wanted to follow goes on with the sockets, and with their files.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                self.succession.take_back();
                // Who was served for a moment may have been told of a newcomer, and not have accepted it.
                self.family.look_at_listeners(&self.handle);
                self.tell(|| "READY=1".to_owned());
                Err(error)
            }
        }
    }

    /// Sends the sockets, and waits until they are served.
    fn pass(&self, channel: &Channel, lent: Vec<SharedSocket>) -> io::Result<Vec<u16>> {
        let manager = self.manager.as_ref().map(|manager| {
            let watchdog_usec =
                manager.watchdog_every().and_then(|every| u64::try_from(every.as_micros()).ok());
            ManagerName { address: manager.address().to_vec(), watchdog_usec }
        });
        // There are at most `SOCKETS_MAX`.
        channel.send(&Message::Offer { sockets: lent.len() as u16, manager }, None)?;
        for SharedSocket { number, name, socket } in lent {
            channel.send(&Message::Socket { number: number as u16, name }, Some(socket.as_fd()))?;
        }
        let within = self.handover.ready_within;
        channel.expect("being ready", within, |message, _fd| (message == Message::Ready).then_some(()))?;
        channel.send(&Message::GoAhead, None)?;
        channel.expect("beginning to serve", LONG, |message, _fd| match message {
            Message::Serving { claimed } => Some(claimed),
            _ => None,
        })
    }

    fn tell(&self, state: impl FnOnce() -> String) {
        let Some(manager) = &self.manager else { return };
        let state = state();
        if let Err(error) = manager.tell(&state) {
            crate::log::manager_not_told(&state, &error);
        }
    }

    /// Says which process is the service from here on, and that it lives: when the manager hears that next, by the other one, is that one's
    /// to say, and it has begun to count.
    fn tell_who_serves(&self, pid: u32) {
        let Some(manager) = &self.manager else { return };
        let lives = if manager.watchdog_every().is_some() { "\nWATCHDOG=1" } else { "" };
        let state = match pid {
            0 => format!("READY=1{lives}"),
            pid => format!("MAINPID={pid}\nREADY=1{lives}"),
        };
        let ends = self.handle.clock.now().saturating_add(TELL_WITHIN);
        while let Err(error) = manager.tell(&state) {
            let goes_on = error.kind() == io::ErrorKind::WouldBlock && self.handle.clock.now() < ends;
            if !goes_on || !matches!(self.bell.wait_for(Timeout::After(TELL_AGAIN)), Ok(false)) {
                return crate::log::manager_not_told(&state, &error);
            }
        }
    }
}
