//! Connections that are idle go from the process that drains to the one that serves, one message each.
//!
//! The workers take them out of their drivers when they hear of the drain; a thread of the runtime sends them. On the other side a thread
//! receives them and deals them out to the workers by turns, each for the `listen` call whose socket leads to where it was accepted. The
//! way is as long as what the kernel buffers of a Unix socket; behind that the sender waits.

use std::io;
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::channel::Channel;
use super::wire::Message;
use crate::conn::{Arrived, Handle, Letter, Moved, leads_to};
use crate::sys::{self, Address, Doorbell, Timeout};

/// How often the sender looks whether the workers have ended, in which case there is nobody to wait for: one that was stuck.
const LOOK: Duration = Duration::from_millis(100);

/// Longer than any drain.
const LONG: Duration = Duration::from_secs(24 * 60 * 60);

/// Sends what the workers hand out, until all have; `bell` says that they have ended.
///
/// # Errors
/// The other process has gone, and with it what was sent: what is left is closed.
pub fn send_all(channel: &Channel, moved: &Receiver<Moved>, bell: &Doorbell) -> io::Result<()> {
    let send = |Moved { socket, state }| channel.send(&Message::Connection(state), Some(socket.as_fd()));
    loop {
        match moved.recv_timeout(LOOK) {
            Ok(one) => send(one)?,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) if bell.wait_for(Timeout::Now)? => {
                moved.try_iter().try_for_each(send)?;
                break;
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
    channel.send(&Message::End, None)
}

/// Receives connections until there are no more, and deals them out; `at` is where the `listen` calls have led to.
///
/// # Errors
/// The other process has gone in the middle, or says something else; this one ends.
pub fn receive_all(channel: &Channel, handle: &Handle, at: &[Address]) -> io::Result<()> {
    for turn in 0_usize.. {
        let (state, socket) = match channel.receive(LONG)? {
            (Message::Connection(state), Some(socket)) => (state, socket),
            (Message::End, None) => break,
            (other, _) => {
                let message = format!("in place of a connection it says {}", other.name());
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
        };
        let Ok(local) = sys::local_addr(socket.as_fd()) else { continue };
        let exact = at.iter().position(|listener| *listener == local);
        let Some(of) = exact.or_else(|| at.iter().position(|listener| leads_to(listener, &local))) else {
            continue;
        };
        let worker = &handle.workers[turn % handle.workers.len()];
        worker.send(Letter::Arrived(Box::new(Arrived { of, socket, state })));
    }
    Ok(())
}
