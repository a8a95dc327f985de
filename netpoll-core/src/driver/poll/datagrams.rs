//! Datagram sockets of a poller: received from and sent to in batches.
//!
//! A socket is registered edge-triggered and for input only: in the kernel each datagram that has left makes room, which
//! would be an event for each. Room is asked for when a send was cut short, and no longer than that.
//!
//! Invariant: a socket whose `readable` is clear has been drained, and the poller will report the next datagram; one where it
//! is set is being received from or was reported unfinished. It is cleared when fewer came than were asked for, unless an
//! error was reported as well, and behind so many errors in a row that waiting for the next report is all that is left.
//!
//! Cost per batch: one `recvmmsg` and one `sendmmsg`, and a share of one wait. The block and the headers are made for
//! the first socket of a worker, and all of them share them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use super::super::{DatagramBind, DatagramSetup, Datagrams, DatagramsFlushed, IoCounts, Place, Sink};
use super::accept::is_exhaustion;
use super::source::Readiness;
use super::streams::{Register, Streams};
use crate::mem::{DatagramPath, DatagramQueue, Joining, Key, KeyMap, Run};
use crate::sys::{self, DatagramOption, Incoming, LocalIp, Outgoing, Parcel, Sharing};

/// Places that are offered at least, though only one datagram is expected.
const OFFERED_MIN: usize = 4;

/// Errors in a row at which a delivery gives up. An ICMP error is told once, so these are different ones, or one that stays.
const ERRORS_MAX: usize = 16;

/// What the kernel cuts at once: `UDP_MAX_SEGMENTS` was 64 before Linux 6.9, and the whole has to fit an IPv4 packet.
const JOINING: Joining = Joining { datagrams_max: 64, bytes_max: 65_507, segment_max: usize::MAX };

struct Socket {
    fd: OwnedFd,
    setup: DatagramSetup,
    joining: Joining,
    /// How many places to offer next.
    likely: usize,
    readable: bool,
    /// An error was reported: fewer datagrams than asked for are no proof that none is left.
    has_error: bool,
    awaits_room: bool,
}

/// What one receive came to.
enum Came {
    Datagrams,
    Nothing,
    Error,
}

impl Socket {
    fn receive(
        &mut self,
        incoming: &mut Incoming,
        places: &mut Vec<Place>,
        most: usize,
        counts: &mut IoCounts,
    ) -> Came {
        let offered = self.likely.min(most);
        counts.syscalls_recvmmsg += 1;
        let count = match incoming.receive(self.fd.as_fd(), offered) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                (self.readable, self.has_error) = (false, false);
                counts.receives_empty += 1;
                return Came::Nothing;
            }
            // An ICMP message about something that was sent, or no memory.
            Err(_) => {
                counts.datagram_errors += 1;
                return Came::Error;
            }
        };
        self.readable = count == offered || self.has_error;
        self.likely =
            (count + 1).next_power_of_two().clamp(OFFERED_MIN.min(self.setup.batch), self.setup.batch);
        places.clear();
        for index in 0..count {
            let message = incoming.message(index);
            // UDP over something else than IP does not exist.
            let Some(peer) = message.peer else { continue };
            let local = message.facts.local.map(|local| (local.ip, local.interface));
            let place = Place {
                path: DatagramPath::new(peer, local),
                start: message.start,
                len: message.len,
                segment: message.facts.segment,
                is_truncated: message.is_truncated,
            };
            counts.datagrams_received += place.datagrams() as u64;
            counts.datagrams_truncated += place.truncated(self.setup.bytes_max) as u64;
            counts.received_bytes += place.len as u64;
            places.push(place);
        }
        Came::Datagrams
    }

    /// Sends until the queue is empty or the socket full.
    fn send(
        &mut self,
        outgoing: &mut Outgoing,
        queue: &mut DatagramQueue,
        counts: &mut IoCounts,
    ) -> DatagramsFlushed {
        // Datagrams that are not to be joined, because the kernel has refused it, and the length that it may be about; and whether
        // it has refused the first one.
        let (mut alone, mut suspect, mut refused) = (0_usize, None, false);
        while !queue.is_empty() {
            let joining = if alone > 0 { Joining::NONE } else { self.joining };
            counts.syscalls_sendmmsg += 1;
            let error = match outgoing.send(self.fd.as_fd(), queue.front(joining).map(parcel)) {
                Ok(parcels) => {
                    let sent = queue.front(joining).take(parcels);
                    let (datagrams, bytes) =
                        sent.fold((0, 0), |(count, len), run| (count + run.datagrams, len + run.bytes.len()));
                    counts.datagrams_sent += datagrams as u64;
                    counts.sent_bytes += bytes as u64;
                    queue.pop(datagrams);
                    (alone, refused) = (alone.saturating_sub(datagrams), false);
                    if let Some(segment) = suspect.take() {
                        // Alone it has left: as segments they do not fit a packet of this link.
                        self.joining.segment_max = self.joining.segment_max.min(segment - 1);
                    }
                    continue;
                }
                Err(error) => error,
            };
            match error.kind() {
                io::ErrorKind::WouldBlock => {
                    counts.sends_blocked += 1;
                    return DatagramsFlushed::Blocked;
                }
                io::ErrorKind::Interrupted => continue,
                _ => {}
            }
            if may_be_pending(&error) && !std::mem::replace(&mut refused, true) {
                counts.datagram_errors += 1;
                continue;
            }
            refused = false;
            let first = queue.front(joining).next().map(|run| (run.datagrams, run.segment));
            if let Some((datagrams, segment)) = first.filter(|(datagrams, _)| *datagrams > 1) {
                alone = datagrams;
                match error.raw_os_error() {
                    // The card cannot sum up, or the way is encrypted.
                    Some(libc::EIO) => self.joining = Joining::NONE,
                    Some(libc::EINVAL | libc::EMSGSIZE) => suspect = Some(segment),
                    // It is about the peer, and may be about the first one of them only.
                    _ => {}
                }
            } else {
                // It was not the joining.
                suspect = None;
                counts.datagrams_refused += 1;
                queue.pop(1);
                alone = alone.saturating_sub(1);
            }
        }
        DatagramsFlushed::Done
    }
}

/// Whether an error may tell of something that was sent before, by ICMP, and so is no longer there for the next try. Those are told
/// of the call itself: something about it is wrong, or a filter forbids it.
fn may_be_pending(error: &io::Error) -> bool {
    !matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::EIO | libc::EPERM | libc::ENOBUFS | libc::ENOMEM)
    )
}

fn parcel(run: Run<'_>) -> Parcel<'_> {
    Parcel {
        to: run.path.peer(),
        from: run.path.local().map(|(ip, interface)| LocalIp { ip, interface }),
        bytes: run.bytes,
        // Runs of several are no longer than a packet, and so are their parts.
        segment: (run.datagrams > 1).then_some(run.segment as u16),
    }
}

/// All datagram sockets of a worker.
pub struct DatagramSockets {
    sockets: KeyMap<Socket>,
    /// Away while what is in it is delivered.
    incoming: Option<Incoming>,
    places: Vec<Place>,
    outgoing: Option<Outgoing>,
}

impl DatagramSockets {
    pub const fn new() -> Self {
        Self { sockets: KeyMap::new(), incoming: None, places: Vec::new(), outgoing: None }
    }

    pub fn has(&self, key: Key) -> bool {
        self.sockets.get(key).is_some()
    }

    /// And whether others have it open as well.
    pub fn remove(&mut self, key: Key) -> Option<(OwnedFd, bool)> {
        self.sockets.remove(key).map(|socket| (socket.fd, socket.setup.is_shared))
    }

    /// For a poller that asks for it.
    #[cfg(feature = "uring")]
    #[allow(dead_code, reason = "there is no such poller where there is no io_uring")]
    pub fn socket(&self, key: Key) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.sockets.get(key).map(|socket| socket.fd.as_fd())
    }

    /// What has come to a socket is to be looked for, whatever the poller has said.
    pub fn look(&mut self, key: Key) {
        if let Some(socket) = self.sockets.get_mut(key) {
            socket.readable = true;
        }
    }
}

impl<R: Register> Streams<R> {
    pub(super) fn bind_datagrams(&mut self, key: Key, fd: OwnedFd, setup: &DatagramSetup) -> io::Result<()> {
        let mut setup = *setup;
        self.counts.syscalls_other += u64::from(setup.join_received) + u64::from(setup.join_sent);
        setup.join_received = setup.join_received && sys::join_datagrams(fd.as_fd());
        let joins = setup.join_sent && sys::cuts_datagrams(fd.as_fd());
        self.counts.syscalls_ctl += R::CALLS;
        self.poller.register_datagrams(fd.as_fd(), key)?;
        let Self { datagrams, .. } = self;
        // Of joined datagrams nothing may be cut off, or it would be some of them.
        let place_bytes = if setup.join_received { sys::DATAGRAM_BYTES_MAX } else { setup.bytes_max };
        let fits =
            |incoming: &Incoming| incoming.places() >= setup.batch && incoming.place_bytes() >= place_bytes;
        if !datagrams.incoming.as_ref().is_some_and(fits) {
            datagrams.incoming = Some(Incoming::new(setup.batch, place_bytes));
        }
        datagrams.outgoing.get_or_insert_with(Outgoing::new);
        let joining = if joins { JOINING } else { Joining::NONE };
        let likely = OFFERED_MIN.min(setup.batch);
        let socket =
            Socket { fd, setup, joining, likely, readable: false, has_error: false, awaits_room: false };
        let replaced = datagrams.sockets.insert(key, socket);
        assert!(replaced.is_none(), "a key names one socket at a time");
        Ok(())
    }

    pub(super) fn open_datagram_socket(&mut self, key: Key, bind: &DatagramBind) -> io::Result<SocketAddr> {
        self.counts.syscalls_other += 3;
        let socket = match sys::bind_datagrams(bind.addr, Sharing::Alone) {
            Err(error) if is_exhaustion(&error) && self.poller.closes_now() => {
                sys::bind_datagrams(bind.addr, Sharing::Alone)?
            }
            outcome => outcome?,
        };
        let addr = sys::local_addr(socket.as_fd())?.as_socket_addr().unwrap_or(bind.addr);
        sys::set_buffers(socket.as_fd(), bind.send_buffer_bytes, bind.receive_buffer_bytes)?;
        if addr.ip().is_unspecified() {
            sys::tell_local_ip(socket.as_fd(), addr.is_ipv6())?;
        }
        self.bind_datagrams(key, socket, &bind.setup)?;
        Ok(addr)
    }

    pub(super) fn set_option_of_datagrams(&mut self, key: Key, option: DatagramOption) -> io::Result<()> {
        let socket = self.datagrams.sockets.get(key).ok_or(io::ErrorKind::NotConnected)?;
        self.counts.syscalls_other += 1;
        sys::set_datagram_option(socket.fd.as_fd(), option)
    }

    /// Handles what the poller reported about a datagram socket.
    pub(in crate::driver) fn datagrams_ready<S: Sink>(&mut self, sink: &mut S, key: Key, now: Readiness) {
        let Some(socket) = self.datagrams.sockets.get_mut(key) else { return };
        socket.readable |= now.readable || now.failed;
        socket.has_error |= now.failed;
        if now.writable && std::mem::take(&mut socket.awaits_room) {
            self.await_room(key, false);
            sink.sent(self, key, 0);
        }
        self.receive_datagrams(sink, key);
    }

    /// Delivers one share of what has come.
    pub(in crate::driver) fn receive_datagrams<S: Sink>(&mut self, sink: &mut S, key: Key) {
        let Some(mut left) = self.datagrams.sockets.get(key).map(|socket| socket.setup.per_turn) else {
            return;
        };
        let mut incoming = self.datagrams.incoming.take().expect("made for the first socket");
        let mut places = std::mem::take(&mut self.datagrams.places);
        let mut errors = 0;
        // Looked up again after every delivery: the receiver may have closed the socket.
        while let Some(socket) = self.datagrams.sockets.get_mut(key).filter(|socket| socket.readable) {
            if left == 0 {
                self.counts.quantum_hits += 1;
                sink.unfinished(key);
                break;
            }
            let bytes_max = socket.setup.bytes_max;
            match socket.receive(&mut incoming, &mut places, left, &mut self.counts) {
                Came::Datagrams => {
                    let mut batch = Datagrams::new(incoming.bytes(), &places, bytes_max);
                    left = left.saturating_sub(batch.len().max(1));
                    sink.datagrams(self, key, &mut batch);
                    sys::assert_not_forked();
                }
                Came::Nothing => break,
                Came::Error => {
                    errors += 1;
                    if errors == ERRORS_MAX {
                        (socket.readable, socket.has_error) = (false, false);
                    }
                }
            }
        }
        // A socket that was bound meanwhile may have needed a larger one.
        self.datagrams.incoming.get_or_insert(incoming);
        self.datagrams.places = places;
    }

    pub(super) fn send_datagrams(&mut self, key: Key, queue: &mut DatagramQueue) -> DatagramsFlushed {
        let Self { datagrams, counts, .. } = self;
        let (Some(socket), Some(outgoing)) = (datagrams.sockets.get_mut(key), &mut datagrams.outgoing) else {
            return DatagramsFlushed::Done;
        };
        let flushed = socket.send(outgoing, queue, counts);
        if flushed == DatagramsFlushed::Blocked && !std::mem::replace(&mut socket.awaits_room, true) {
            self.await_room(key, true);
        }
        flushed
    }

    fn await_room(&mut self, key: Key, awaits: bool) {
        let Some(socket) = self.datagrams.sockets.get(key) else { return };
        self.counts.syscalls_ctl += R::CALLS;
        let told = self.poller.await_room(socket.fd.as_fd(), key, awaits);
        told.expect("a socket is registered until it is closed");
    }
}

#[cfg(all(test, target_os = "linux", not(netpoll_portable)))]
mod tests;
