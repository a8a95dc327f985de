//! Connections that are idle go from the process that drains to the one that serves, one message each.
//!
//! The workers take them out of their drivers when they hear of the drain; a thread of the runtime sends them. On the other side a thread
//! receives them and deals them out to the workers by turns, each for the `listen` call whose socket leads to where it was accepted. The
//! way is as long as what the kernel buffers of a Unix socket; behind that the sender waits, and so it does while the receiver has no
//! descriptor left.
//!
//! A worker that is stuck sends its own when it comes back. Meanwhile the receiver may have been followed itself: what comes then goes
//! straight on.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::channel::{ANSWER_WITHIN, Channel, LONG, is_gone, is_no_room};
use super::family::Family;
use super::wire::Message;
use crate::conn::{Arrived, Handle, Letter, Moved, Succession, leads_to};
use crate::driver::is_exhaustion;
use crate::sys::{self, Address};

/// How long the receiver waits for a descriptor, before it looks for one again.
const REST: Duration = Duration::from_millis(10);

/// Sends what the workers hand out, until all have.
///
/// # Errors
/// The other process has gone, and with it what was sent: what is left is closed.
pub fn send_all(channel: &Channel, moved: &Receiver<Moved>) -> io::Result<()> {
    for Moved { socket, state } in moved {
        channel.send(&Message::Connection(state), Some(socket.as_fd()))?;
    }
    channel.send(&Message::End, None)
}

/// What receives them.
pub struct Arriving {
    pub channel: Channel,
    pub handle: Handle,
    pub family: Arc<Family>,
    pub succession: Arc<Succession>,
    /// Where the `listen` calls have led to.
    pub at: Vec<Address>,
}

impl Arriving {
    /// Receives connections until there are no more, and deals them out. Then waits for the end of the other process.
    pub fn take_in(&self) {
        let outcome = self.receive_all();
        self.succession.end_arrivals();
        // Of those who share a queue the kernel wakes one, which may have been the other process, on its way out.
        self.family.look_at_listeners(&self.handle);
        match outcome {
            Ok(()) => {
                // What stands beside it may have gone on for longer.
                if self.channel.receive(LONG).is_err_and(|error| is_gone(&error)) {
                    self.family.look_at_listeners(&self.handle);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => crate::log::handover_failed(&error),
        }
    }

    /// # Errors
    /// The other process has gone in the middle, or says something else; this one ends.
    fn receive_all(&self) -> io::Result<()> {
        for turn in 0_usize.. {
            self.channel.wait_for_more(LONG)?;
            let (state, socket) = match self.channel.receive(ANSWER_WITHIN) {
                Ok((Message::Connection(state), Some(socket))) => (state, socket),
                Ok((Message::End, None)) => return Ok(()),
                Ok((other, _)) => {
                    let message = format!("in place of a connection it says {}", other.name());
                    return Err(io::Error::new(io::ErrorKind::InvalidData, message));
                }
                // It waits where it is.
                Err(error) if is_exhaustion(&error) => {
                    self.channel.rest(REST)?;
                    continue;
                }
                Err(error) if is_no_room(&error) => {
                    crate::log::handover_failed(&error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.deal(Moved { socket, state }, turn);
        }
        Ok(())
    }

    /// Gives it to a worker, or to the process that has followed this one.
    fn deal(&self, moved: Moved, turn: usize) {
        let Ok(local) = sys::local_addr(moved.socket.as_fd()) else { return };
        let give = |Moved { socket, state }| {
            let exact = self.at.iter().position(|listener| *listener == local);
            let leading = || self.at.iter().position(|listener| leads_to(listener, &local));
            let Some(of) = exact.or_else(leading) else { return };
            let worker = &self.handle.workers[turn % self.handle.workers.len()];
            worker.send(Letter::Arrived(Box::new(Arrived { of, socket, state })));
        };
        if let Some((moved, way)) = self.succession.deal(moved, give)
            && self.succession.goes_on_at(&local)
        {
            // Whoever has gone does not want it.
            drop(way.send(moved));
        }
    }
}

#[cfg(all(test, target_os = "linux", not(netpoll_portable)))]
mod tests {
    use std::fs::read_to_string;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::clockwork::Clock;
    use crate::conn::{SocketKind, SocketName};
    use crate::runtime::handover::wire::VERSION;
    use crate::sys::{Doorbell, Timeout};
    use crate::{Backend, Conn, Flow, Handover, Input, Protocol, Runtime, Workers};

    struct Echo;

    impl Protocol for Echo {
        fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
            conn.send(input.bytes());
            input.advance_all();
            Flow::Continue
        }
    }

    #[test]
    fn a_newcomer_whom_only_the_process_that_goes_was_told_of_is_accepted() {
        let path = std::env::temp_dir().join(format!("netpoll-moving-{}.sock", std::process::id()));
        let offers = UnixListener::bind(&path).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        // One of two workers of the process that goes, which waits, and was the first to do so. Those of the other one are two as well, so that
        // not all are told.
        let epoll = sys::Epoll::new().unwrap();
        epoll.add(listener.as_fd(), sys::LEVEL_IN_SHARED, 1).unwrap();
        let builder = Runtime::builder().backend(Backend::Epoll).workers(Workers::Count(2)).pin(false);
        let builder = builder.handover(Handover::at(&path)).listen(at, |_worker| |_peer| Echo).unwrap();
        let new = std::thread::spawn(|| builder.start().unwrap());
        let (socket, _) = offers.accept().unwrap();
        let clock = Clock::monotonic().reader();
        let old = Channel::new(socket.into(), clock, Arc::new(Doorbell::new().unwrap())).unwrap();
        old.expect_hello(ANSWER_WITHIN).unwrap();
        old.send(&Message::Hello { version: VERSION }, None).unwrap();
        old.send(&Message::Offer { sockets: 1, manager: None }, None).unwrap();
        let (asked, bound) = (at.to_string(), at.to_string());
        let name = SocketName { kind: SocketKind::Stream, asked, bound, is_foreign: false };
        old.send(&Message::Socket { number: 0, name }, Some(listener.as_fd())).unwrap();
        old.expect("ready", ANSWER_WITHIN, |message, _| (message == Message::Ready).then_some(())).unwrap();
        old.send(&Message::GoAhead, None).unwrap();
        let new = new.join().unwrap();
        old.expect("serving", ANSWER_WITHIN, |message, _| {
            matches!(message, Message::Serving { .. }).then_some(())
        })
        .unwrap();

        let (tell, told) = std::sync::mpsc::channel();
        let waits = std::thread::spawn(move || {
            tell.send(std::fs::canonicalize("/proc/thread-self").unwrap()).unwrap();
            let mut events = sys::Events::with_capacity(1);
            assert_eq!(epoll.wait(&mut events, 1, Timeout::After(ANSWER_WITHIN)).unwrap(), 1);
            epoll.delete(listener.as_fd()).unwrap();
        });
        let waiting = told.recv().unwrap().join("stat");
        while !read_to_string(&waiting).unwrap().contains(") S ") {
            std::thread::yield_now();
        }
        let mut client = TcpStream::connect(at).unwrap();
        client.set_read_timeout(Some(ANSWER_WITHIN)).unwrap();
        client.write_all(b"?").unwrap();
        waits.join().unwrap();
        old.send(&Message::End, None).unwrap();
        let mut answer = [0];
        client.read_exact(&mut answer).unwrap();
        drop(new);
    }
}
