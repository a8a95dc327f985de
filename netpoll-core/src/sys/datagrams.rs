//! UDP sockets, and what is said of a datagram beside its bytes. Batches of them are each system's own (`batch.rs`).

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};

use socket2::{Domain, Protocol, SockRef, Type};

use super::control::{Facts, LocalIp};
use super::socket::Sharing;
use super::sockopt::set_int;
use super::system;

/// The longest datagram that IP can carry, with room to spare for what the kernel may have joined.
pub const DATAGRAM_BYTES_MAX: usize = 65_535;

/// A UDP socket bound to `addr`; port 0 takes a free one.
///
/// Over several sockets that share the address the kernel spreads senders. There is no `SO_REUSEADDR`: of UDP sockets that share
/// an address by it the last one gets everything.
///
/// # Errors
/// The kernel's: `EADDRINUSE`, `EADDRNOTAVAIL`, `EACCES` for a port below 1024, `EAFNOSUPPORT`, `EMFILE`.
pub fn bind_datagrams(addr: SocketAddr, sharing: Sharing) -> io::Result<OwnedFd> {
    let socket = system::new_socket(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    sharing.bind(&socket, addr)?;
    Ok(socket.into())
}

/// Has the kernel say to which address of ours each datagram came. For sockets that are bound to all of them.
///
/// # Errors
/// The kernel's; none are known.
pub fn tell_local_ip(socket: BorrowedFd<'_>, is_v6: bool) -> io::Result<()> {
    if is_v6 {
        // Of IPv4 peers of such a socket it says the address in its IPv6 form.
        set_int(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)
    } else {
        set_int(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
    }
}

/// What can be set on a UDP socket that is bound.
#[derive(Clone, Copy, Debug)]
pub enum DatagramOption {
    /// `SO_BROADCAST`
    Broadcast(bool),
    /// `IP_TTL` or `IPV6_UNICAST_HOPS`, by the family of the socket.
    Ttl(u32),
    /// `IP_MULTICAST_TTL` or `IPV6_MULTICAST_HOPS`
    MulticastTtl(u32),
    /// `IP_MULTICAST_LOOP` or `IPV6_MULTICAST_LOOP`
    MulticastLoop(bool),
    /// `IP_ADD_MEMBERSHIP` at the interface that has this address.
    JoinV4(Ipv4Addr, Ipv4Addr),
    /// `IP_DROP_MEMBERSHIP`
    LeaveV4(Ipv4Addr, Ipv4Addr),
    /// `IPV6_ADD_MEMBERSHIP` at the interface of this number.
    JoinV6(Ipv6Addr, u32),
    /// `IPV6_DROP_MEMBERSHIP`
    LeaveV6(Ipv6Addr, u32),
}

/// Sets it. One system call, two where the family has to be asked for.
///
/// # Errors
/// The kernel's: `EINVAL` of a value out of range or an address that is no group, `ENODEV` without such an interface, `EADDRINUSE` of
/// a group that was joined, `EADDRNOTAVAIL` of one that was not, `ENOPROTOOPT` of the other family's.
pub fn set_datagram_option(socket: BorrowedFd<'_>, option: DatagramOption) -> io::Result<()> {
    let socket = SockRef::from(&socket);
    let is_v6 = || socket.local_addr().map(|addr| addr.is_ipv6());
    match option {
        DatagramOption::Broadcast(on) => socket.set_broadcast(on),
        DatagramOption::Ttl(hops) if is_v6()? => socket.set_unicast_hops_v6(hops),
        DatagramOption::Ttl(hops) => socket.set_ttl_v4(hops),
        DatagramOption::MulticastTtl(hops) if is_v6()? => socket.set_multicast_hops_v6(hops),
        DatagramOption::MulticastTtl(hops) => socket.set_multicast_ttl_v4(hops),
        DatagramOption::MulticastLoop(on) if is_v6()? => socket.set_multicast_loop_v6(on),
        DatagramOption::MulticastLoop(on) => socket.set_multicast_loop_v4(on),
        DatagramOption::JoinV4(group, at) => socket.join_multicast_v4(&group, &at),
        DatagramOption::LeaveV4(group, at) => socket.leave_multicast_v4(&group, &at),
        DatagramOption::JoinV6(group, at) => socket.join_multicast_v6(&group, at),
        DatagramOption::LeaveV6(group, at) => socket.leave_multicast_v6(&group, at),
    }
}

/// One datagram that was received, or several of one sender and one length, joined.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// Where its bytes begin in the block.
    pub start: usize,
    pub len: usize,
    /// It was longer, and the rest is lost.
    pub is_truncated: bool,
    /// `None` if the kernel gave an address that is not an IP address.
    pub peer: Option<SocketAddr>,
    pub facts: Facts,
}

/// One datagram to send, or several of one length to one peer, joined.
#[derive(Clone, Copy, Debug)]
pub struct Parcel<'a> {
    pub to: SocketAddr,
    pub from: Option<LocalIp>,
    pub bytes: &'a [u8],
    /// The length of each but the last.
    pub segment: Option<u16>,
}

#[cfg(test)]
mod tests;
