//! Descriptors that go from one process to another over a Unix socket, and who is at its other end.
//!
//! One descriptor at most goes with a piece of bytes (`SCM_RIGHTS`, unix(7)), and arrives with the first of them. Invariant: what has come
//! is owned by the caller or closed, also where more came than there was room for, and is close-on-exec: from the moment it is there, where
//! the system can do that.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::{offset_of, zeroed};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use libc::c_int;
use socket2::{Domain, SockRef, Type};

use super::signal::poll;
use super::socket::local_addr;
use super::system::{LOOKS_FIRST, RECEIVED, domain};
use super::timeout::Timeout;
use super::{checked_bytes, system};

/// Descriptors that there is room for: more than one is a mistake of the sender's, which is to be seen as one.
const ROOM: usize = 4;

/// One control message with room for descriptors, as cmsg(3) lays it out: the data follow the header without a gap where both are
/// aligned alike.
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    fds: [RawFd; ROOM],
}

const DATA: usize = offset_of!(Control, fds);
const _: () = assert!(DATA == size_of::<libc::cmsghdr>() && DATA.is_multiple_of(size_of::<RawFd>()));

/// Sends bytes, as far as there is room, and a descriptor with the first of them. The caller's stays open.
///
/// # Errors
/// The kernel's: `EAGAIN` if there is no room, `EPIPE` if nobody is there, `ETOOMANYREFS` if too many are on their way.
pub fn send_with_fd(socket: BorrowedFd<'_>, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<usize> {
    let slice = IoSlice::new(bytes);
    let mut control = empty();
    let mut message = plain();
    // `IoSlice` is laid out as an `iovec` (std promises it); sendmsg(2) does not write to it.
    message.msg_iov = (&raw const slice).cast_mut().cast();
    message.msg_iovlen = 1;
    if let Some(fd) = fd {
        let len = DATA + size_of::<RawFd>();
        control.header.cmsg_len = len as _;
        control.header.cmsg_level = libc::SOL_SOCKET;
        control.header.cmsg_type = libc::SCM_RIGHTS;
        control.fds[0] = fd.as_raw_fd();
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = len.next_multiple_of(align_of::<libc::cmsghdr>()) as _;
    }
    // SAFETY: sendmsg(2) reads one slice, which is borrowed, and a control message of the length said, which lies in `control`; both outlive
    // the call. (test: `a_descriptor_arrives_with_its_bytes`)
    checked_bytes(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) })
}

/// What has come with a piece of bytes.
#[derive(Debug)]
pub enum Passed {
    Nothing,
    Descriptor(OwnedFd),
    /// A descriptor for which this process had no room: it is closed. Where the system can look at it first, it stays where it is instead.
    Lost,
}

/// Receives the beginning of a message of two bytes at least, and what has come with it. Zero bytes are the end.
///
/// # Errors
/// The kernel's: `EAGAIN` if nothing has come; `EMFILE` if there is no room for the descriptor, and then nothing was received. `InvalidData` if
/// more descriptors have come than one.
pub fn recv_with_fd(socket: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<(usize, Passed)> {
    let Some(looking) = LOOKS_FIRST else { return receive(socket, into, RECEIVED) };
    // A look that goes to the end of a message finds what comes with the next one.
    match receive(socket, &mut [0; 1], RECEIVED | looking)? {
        (_, Passed::Lost) => Err(io::Error::from_raw_os_error(libc::EMFILE)),
        // The copy of the descriptor is ours, and the one in the message goes with it.
        (_, passed) => system::recv(socket, into).map(|len| (len, passed)),
    }
}

fn receive(socket: BorrowedFd<'_>, into: &mut [u8], flags: c_int) -> io::Result<(usize, Passed)> {
    let mut slice = IoSliceMut::new(into);
    let mut control = empty();
    let mut message = plain();
    message.msg_iov = (&raw mut slice).cast();
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<Control>() as _;
    // SAFETY: recvmsg(2) writes into one slice, which is borrowed mutably, and at most the length said into `control`; both outlive the call.
    // (test: `a_descriptor_arrives_with_its_bytes`)
    let len = checked_bytes(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) })?;
    let mut fds = Vec::new();
    // Wider or narrower than a `usize` in some C libraries.
    let (control_len, message_len): (usize, usize) =
        (message.msg_controllen as _, control.header.cmsg_len as _);
    let has_message = control_len >= DATA;
    if has_message
        && (control.header.cmsg_level, control.header.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS)
    {
        let count = message_len.saturating_sub(DATA) / size_of::<RawFd>();
        for raw in control.fds.into_iter().take(count) {
            // SAFETY: `from_raw_fd` wants an open descriptor that nobody else owns. By unix(7) the kernel has made it for this process in the
            // call above, and has written as many as the length of the message says. (test: `more_descriptors_than_one_are_refused_and_closed`)
            fds.push(unsafe { OwnedFd::from_raw_fd(raw) });
        }
    }
    let is_cut = message.msg_flags & libc::MSG_CTRUNC != 0;
    if fds.len() > 1 || fds.len() == 1 && is_cut {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "more descriptors have come than one"));
    }
    let passed = match fds.pop() {
        // Of more than there was room for as many have come as there was.
        None if is_cut => Passed::Lost,
        None => Passed::Nothing,
        // A copy is closed on exec.
        Some(fd) if RECEIVED == 0 => fd.try_clone().map_or(Passed::Lost, Passed::Descriptor),
        Some(fd) => Passed::Descriptor(fd),
    };
    Ok((len, passed))
}

fn empty() -> Control {
    // SAFETY: `Control` is plain integers; all zeroes is a valid one. (test: `a_descriptor_arrives_with_its_bytes`)
    unsafe { zeroed() }
}

fn plain() -> libc::msghdr {
    // SAFETY: `msghdr` is plain C data; all zeroes is a valid one, with no bytes and no control message.
    // (test: `a_descriptor_arrives_with_its_bytes`)
    unsafe { zeroed() }
}

/// The effective user of this process.
pub fn own_user() -> u32 {
    // SAFETY: geteuid(2) takes nothing and cannot fail. (test: `who_is_at_the_other_end_is_known`)
    unsafe { libc::geteuid() }
}

pub use system::peer_process;

/// What a wait has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The descriptor is ready, or has failed.
    Ready,
    /// The bell was rung.
    Bell,
    /// Neither, in that time.
    Nothing,
}

/// Waits until there is something to read, or room to write, or the bell was rung. A signal ends it as if the time were up.
///
/// # Errors
/// The kernel's: `ENOMEM`.
pub fn wait_for_fd(
    fd: BorrowedFd<'_>,
    to_write: bool,
    bell: BorrowedFd<'_>,
    timeout: Timeout,
) -> io::Result<Heard> {
    let events = if to_write { libc::POLLOUT } else { libc::POLLIN };
    let entry = |fd: BorrowedFd<'_>, events| libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    let mut fds = [entry(fd, events), entry(bell, libc::POLLIN)];
    match poll(&mut fds, timeout.as_millis_rounded_up()) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Heard::Nothing),
        Err(error) => return Err(error),
    }
    Ok(match fds {
        [_, bell] if bell.revents != 0 => Heard::Bell,
        [fd, _] if fd.revents != 0 => Heard::Ready,
        _ => Heard::Nothing,
    })
}

/// Where a datagram socket that somebody else has opened is bound.
///
/// # Errors
/// `InvalidInput`: it is no datagram socket of IP, or is not bound.
pub fn check_datagrams(socket: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    let asked = SockRef::from(&socket);
    let is_ip = [Domain::IPV4, Domain::IPV6].contains(&domain(socket)?);
    let addr = local_addr(socket)?.as_socket_addr().filter(|addr| addr.port() > 0);
    match addr {
        Some(addr) if is_ip && asked.r#type()? == Type::DGRAM => {
            asked.set_nonblocking(true)?;
            asked.set_cloexec(true)?;
            Ok(addr)
        }
        _ => {
            let message = format!("descriptor {} is no bound socket for datagrams", socket.as_raw_fd());
            Err(io::Error::new(io::ErrorKind::InvalidInput, message))
        }
    }
}

const _: () = assert!(size_of::<c_int>() == size_of::<RawFd>());

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::super::Doorbell;
    use super::super::limits::{open_files, set_open_files};
    use super::super::testing::{alone, open_flags};
    use super::*;

    #[test]
    fn a_descriptor_arrives_with_its_bytes() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut far, near) = UnixStream::pair().unwrap();
        assert_eq!(send_with_fd(ours.as_fd(), b"with", Some(near.as_fd())).unwrap(), 4);
        assert_eq!(send_with_fd(ours.as_fd(), b"without", None).unwrap(), 7);
        drop(near);
        let mut room = [0; 64];
        let (len, passed) = recv_with_fd(theirs.as_fd(), &mut room).unwrap();
        assert_eq!(&room[..len], b"with");
        let Passed::Descriptor(fd) = passed else { panic!("a descriptor has come: {passed:?}") };
        assert_ne!(open_flags(fd.as_fd()) & libc::O_CLOEXEC, 0);
        UnixStream::from(fd).write_all(b"hello").unwrap();
        let mut said = String::new();
        far.read_to_string(&mut said).unwrap();
        assert_eq!(said, "hello");

        let (len, passed) = recv_with_fd(theirs.as_fd(), &mut room).unwrap();
        assert_eq!(&room[..len], b"without");
        assert!(matches!(passed, Passed::Nothing));
        drop(ours);
        assert_eq!(recv_with_fd(theirs.as_fd(), &mut room).unwrap().0, 0);
    }

    #[test]
    fn more_descriptors_than_one_are_refused_and_closed() {
        for count in [2, ROOM + 1] {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let (mut far, near) = UnixStream::pair().unwrap();
            let block = [0_u8; 128];
            let mut control = vec![0_u64; 16];
            let fds = vec![near.as_raw_fd(); count];
            // SAFETY: `msghdr` is plain C data. (test: this one)
            let mut message: libc::msghdr = unsafe { zeroed() };
            let slice = IoSlice::new(&block[..1]);
            message.msg_iov = (&raw const slice).cast_mut().cast();
            message.msg_iovlen = 1;
            message.msg_control = control.as_mut_ptr().cast();
            let len = DATA + size_of_val(&fds[..]);
            message.msg_controllen = len.next_multiple_of(align_of::<libc::cmsghdr>()) as _;
            control[0] = len as u64;
            control[1] = u64::from(libc::SOL_SOCKET.cast_unsigned())
                | u64::from(libc::SCM_RIGHTS.cast_unsigned()) << 32;
            for (nth, fd) in fds.iter().enumerate() {
                control[2 + nth / 2] |= u64::from(fd.cast_unsigned()) << (32 * (nth % 2));
            }
            // SAFETY: as in `send_with_fd`. (test: this one)
            let sent = unsafe { libc::sendmsg(ours.as_raw_fd(), &raw const message, 0) };
            assert_eq!(sent, 1);
            let error = recv_with_fd(theirs.as_fd(), &mut [0; 8]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            drop((near, theirs));
            // Nobody has it any more: the end comes.
            assert_eq!(far.read(&mut [0; 8]).unwrap(), 0);
        }
    }

    #[test]
    fn a_descriptor_for_which_there_is_no_room_waits_or_is_seen_to_be_lost() {
        alone!(a_descriptor_for_which_there_is_no_room_waits_or_is_seen_to_be_lost);
        set_open_files(64, open_files().unwrap().1).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        send_with_fd(ours.as_fd(), b"with", Some(ours.as_fd())).unwrap();
        let held: Vec<_> = std::iter::from_fn(|| ours.try_clone().ok()).collect();
        let mut room = [0; 64];
        let received = recv_with_fd(theirs.as_fd(), &mut room);
        drop(held);
        if LOOKS_FIRST.is_none() {
            return assert!(matches!(received, Ok((4, Passed::Lost))));
        }
        assert_eq!(received.unwrap_err().raw_os_error(), Some(libc::EMFILE));
        assert!(matches!(recv_with_fd(theirs.as_fd(), &mut room), Ok((4, Passed::Descriptor(_)))));
    }

    #[test]
    fn who_is_at_the_other_end_is_known() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let found = peer_process(ours.as_fd()).unwrap();
        assert_eq!((found.pid, found.user), (std::process::id(), own_user()));
    }

    #[test]
    fn a_wait_ends_by_what_comes_or_by_the_bell_or_in_time() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let bell = Doorbell::new().unwrap();
        let wait =
            |to_write, time| wait_for_fd(ours.as_fd(), to_write, bell.as_fd(), Timeout::After(time)).unwrap();
        assert_eq!(wait(false, Duration::from_millis(1)), Heard::Nothing);
        assert_eq!(wait(true, Duration::from_secs(10)), Heard::Ready);
        theirs.write_all(b"x").unwrap();
        assert_eq!(wait(false, Duration::from_secs(10)), Heard::Ready);
        bell.signal().unwrap();
        assert_eq!(wait(false, Duration::from_secs(10)), Heard::Bell);
    }

    #[test]
    fn only_a_bound_datagram_socket_is_received_from() {
        let bound = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(check_datagrams(bound.as_fd()).unwrap(), bound.local_addr().unwrap());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(check_datagrams(listener.as_fd()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
