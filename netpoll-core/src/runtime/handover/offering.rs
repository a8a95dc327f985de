//! The process that serves: waits on a thread of its own for one that follows, gives it the sockets, and drains when that one serves.
//!
//! Invariant: until then nothing of this process changes but whose the queues are (`conn/succession.rs`), and that is taken back
//! whenever it comes to nothing.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread::JoinHandle;
use std::time::Duration;

use super::channel::{ANSWER_WITHIN, Channel};
use super::moving::{receive_all, send_all};
use super::wire::{ManagerName, Message, VERSION};
use super::{Handover, MODE};
use crate::conn::{Handle, Moved, SocketName, Stage, Succession};
use crate::runtime::service_manager::ServiceManager;
use crate::sys::{self, Address, Doorbell, Heard, SocketFile, Timeout, UnixAddress, UnixListenOptions};

/// Processes that may wait to follow, while one is attended to.
const BACKLOG: i32 = 4;

/// How long it rests when there is no descriptor for the one that follows.
const REST: Duration = Duration::from_millis(100);

/// The socket that it listens on, which stands beside its place as long as that is somebody else's.
pub struct Place {
    socket: OwnedFd,
    file: Option<SocketFile>,
    path: PathBuf,
    is_beside: bool,
}

impl Place {
    /// Listens at the path; where another process still does, beside it.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn take(handover: &Handover, is_taken: bool) -> io::Result<Self> {
        let mut at = handover.path.clone().into_os_string();
        if is_taken {
            at.push(format!(".{}", std::process::id()));
        }
        let options = UnixListenOptions { backlog: BACKLOG, mode: Some(MODE), takes_over: false };
        let listen = || sys::listen_unix(&UnixAddress::from_path(&at)?, &options);
        let (socket, file) = listen().map_err(|error| handover.named(error))?;
        Ok(Self { socket, file, path: handover.path.clone(), is_beside: is_taken })
    }

    /// Takes the place of the process that goes.
    fn put(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.is_beside) {
            self.file = self.file.take().map(|file| file.put_at(&self.path)).transpose()?;
        }
        Ok(())
    }
}

/// The thread, until it is dropped or another process has followed.
pub struct Offering {
    bell: Arc<Doorbell>,
    thread: Option<JoinHandle<()>>,
}

impl Offering {
    /// Takes the place of the process that goes, takes in its connections, which come by `before` to listeners at these addresses, and
    /// waits then for one that follows. `None` where that cannot be: this process serves, and is told so.
    pub fn start(
        handover: Handover,
        mut place: Place,
        before: Option<(Channel, Vec<Address>)>,
        handle: &Handle,
        manager: Option<ServiceManager>,
        drain_within: Duration,
    ) -> Option<Self> {
        let succession = Arc::clone(&handle.succession.as_ref()?.shared);
        let handover = Arc::new(handover);
        let failed = |error| handover.ended(Err(&handover.named(error)));
        let is_there = place.put().map_err(failed).is_ok();
        if !is_there && before.is_none() {
            return None;
        }
        let bell = match &before {
            Some((channel, _)) => channel.bell(),
            None => Arc::new(Doorbell::new().map_err(failed).ok()?),
        };
        let host = Host {
            handover: Arc::clone(&handover),
            place,
            handle: handle.clone(),
            succession,
            manager,
            drain_within,
            bell: Arc::clone(&bell),
        };
        let name = "netpoll-handover";
        let thread = std::thread::Builder::new().name(name.to_owned());
        let run = move || {
            if let Some((channel, at)) = before
                && let Err(error) = receive_all(&channel, &host.handle, &at)
            {
                crate::log::handover_failed(&error);
            }
            if is_there {
                host.wait();
            }
        };
        match thread.spawn(run) {
            Ok(thread) => Some(Self { bell, thread: Some(thread) }),
            Err(error) => {
                failed(sys::no_thread(name, error));
                None
            }
        }
    }
}

impl Drop for Offering {
    fn drop(&mut self) {
        if sys::is_child() {
            // The thread is the parent's.
            return drop(self.thread.take());
        }
        // The only error is a full counter, and then it has been rung.
        let _ = self.bell.signal();
        if let Some(thread) = self.thread.take() {
            // What it calls is guarded.
            let _ = thread.join();
        }
    }
}

/// What the thread knows.
struct Host {
    handover: Arc<Handover>,
    place: Place,
    handle: Handle,
    succession: Arc<Succession>,
    manager: Option<ServiceManager>,
    drain_within: Duration,
    bell: Arc<Doorbell>,
}

impl Host {
    fn wait(self) {
        loop {
            match sys::wait_for_fd(self.place.socket.as_fd(), false, self.bell.as_fd(), Timeout::Never) {
                Ok(Heard::Ready) => {}
                Ok(Heard::Nothing) => continue,
                Ok(Heard::Bell) | Err(_) => return,
            }
            let socket = match sys::accept(self.place.socket.as_fd()) {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(_) => match self.bell.wait_for(Timeout::After(REST)) {
                    Ok(false) => continue,
                    Ok(true) | Err(_) => return,
                },
            };
            match self.attend(socket) {
                Ok((channel, moved)) => {
                    self.handover.ended(Ok(channel.peer()));
                    // The next process may be on its way to the path already.
                    drop(self.place);
                    if let Err(error) = send_all(&channel, &moved, &self.bell) {
                        crate::log::handover_failed(&error);
                    }
                    return;
                }
                Err(error) => self.handover.ended(Err(&error)),
            }
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
        channel.hears_no_bell()?;
        Ok((channel, moved))
    }

    fn hand_over(&self, channel: &Channel) -> io::Result<Receiver<Moved>> {
        channel.expect_hello()?;
        channel.send(&Message::Hello { version: VERSION }, None)?;
        if self.handle.life.stage() >= Stage::Draining {
            return Err(io::Error::other("this process drains"));
        }
        let lent = self.succession.lend()?;
        self.tell(|| format!("RELOADING=1\nMONOTONIC_USEC={}", sys::monotonic_nanos() / 1000));
        match self.pass(channel, lent) {
            Ok(claimed) => {
                let pid = channel.peer();
                // Before that process says anything: only the main one is listened to, by default.
                self.tell(|| if pid == 0 { "READY=1".to_owned() } else { format!("MAINPID={pid}\nREADY=1") });
                let (way, moved) = mpsc::channel();
                self.succession.hand_over(&claimed, vec![way; self.handle.workers()]);
                self.handle.drain(self.drain_within);
                Ok(moved)
            }
            Err(error) => {
                self.succession.take_back();
                self.tell(|| "READY=1".to_owned());
                Err(error)
            }
        }
    }

    /// Sends the sockets, and waits until they are served.
    fn pass(&self, channel: &Channel, lent: Vec<(usize, SocketName, OwnedFd)>) -> io::Result<Vec<u16>> {
        let manager = self.manager.as_ref().map(|manager| {
            let watchdog_usec =
                manager.watchdog_every().and_then(|every| u64::try_from(every.as_micros()).ok());
            ManagerName { address: manager.address().to_vec(), watchdog_usec }
        });
        // There are at most `SOCKETS_MAX`.
        channel.send(&Message::Offer { sockets: lent.len() as u16, manager }, None)?;
        for (number, name, socket) in lent {
            channel.send(&Message::Socket { number: number as u16, name }, Some(socket.as_fd()))?;
        }
        let within = self.handover.ready_within;
        channel.expect("being ready", within, |message, _fd| (message == Message::Ready).then_some(()))?;
        channel.send(&Message::GoAhead, None)?;
        channel.expect("beginning to serve", ANSWER_WITHIN, |message, _fd| match message {
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
}
