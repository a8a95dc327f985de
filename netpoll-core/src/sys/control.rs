//! Control messages of a datagram: what the kernel says beside its bytes, and what it is told.
//!
//! They lie one behind the other in a block: a header of length, level and kind, the data, and padding (cmsg(3)). Both
//! directions are plain bytes here, cut and joined without a pointer, in the kernel's layout (`struct cmsghdr` of
//! `include/linux/socket.h`, which does not depend on the C library; of `sys/socket.h` on macOS).
//!
//! Invariant: whatever the bytes are, reading them ends, stays inside of them and panics never.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libc::c_int;

use super::system;

/// Bytes of a length, and what every part is padded to (`CMSG_ALIGN`): a word on Linux, four on macOS.
const WORD: usize = std::mem::offset_of!(libc::cmsghdr, cmsg_level);
const INT: usize = size_of::<c_int>();
const HEADER_BYTES: usize = WORD + 2 * INT;

/// Where `in_pktinfo` has the address that a datagram is to leave from.
const SPEC_DST: usize = 4;

/// Where the addresses are that `in_pktinfo` and `in6_pktinfo` say.
const _: () = {
    use std::mem::offset_of;
    assert!(offset_of!(libc::in_pktinfo, ipi_ifindex) == 0);
    assert!(offset_of!(libc::in_pktinfo, ipi_spec_dst) == SPEC_DST);
    assert!(offset_of!(libc::in_pktinfo, ipi_addr) == 8);
    assert!(size_of::<libc::in_pktinfo>() == 12);
    assert!(offset_of!(libc::in6_pktinfo, ipi6_addr) == 0);
    assert!(offset_of!(libc::in6_pktinfo, ipi6_ifindex) == 16);
    assert!(size_of::<libc::in6_pktinfo>() == 20);
    assert!(WORD == size_of::<usize>() || WORD == size_of::<u32>());
    assert!(HEADER_BYTES.is_multiple_of(WORD) && HEADER_BYTES <= size_of::<libc::cmsghdr>());
};

/// The address of ours that a datagram came to, or is to leave from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalIp {
    pub ip: IpAddr,
    /// The interface's number. It matters for addresses that each link has (IPv6, `fe80::/10`).
    pub interface: u32,
}

/// What the kernel says about a datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// None for a group's or a broadcast address of IPv6: nothing can leave from there.
    pub local: Option<LocalIp>,
    /// It is several datagrams of one sender, of this length each but for the last, which may be shorter.
    pub segment: Option<usize>,
}

/// Room for the control messages of one datagram.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub struct Control {
    bytes: [u8; Control::BYTES],
}

const _: () = assert!(align_of::<Control>() >= align_of::<libc::cmsghdr>());

impl Control {
    /// Both kinds of packet information, the length of segments, and as much again.
    pub const BYTES: usize = 192;

    pub const fn new() -> Self {
        Self { bytes: [0; Self::BYTES] }
    }

    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.bytes.as_mut_ptr()
    }

    /// What the first so many bytes say, as the kernel has written them.
    pub fn facts(&self, len: usize) -> Facts {
        let mut facts = Facts::default();
        for Message { level, kind, data } in messages(&self.bytes[..len.min(Self::BYTES)]) {
            match (level, kind) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => facts.local = local_v4(data).or(facts.local),
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => facts.local = local_v6(data).or(facts.local),
                of if Some(of) == system::JOINED => {
                    facts.segment =
                        int(data, 0).and_then(|bytes| usize::try_from(bytes).ok()).filter(|bytes| *bytes > 0);
                }
                _ => {}
            }
        }
        facts
    }

    /// Says where a datagram is to leave from, and that it is to be cut into datagrams of so many bytes. How many bytes
    /// of the block that takes.
    pub fn write(&mut self, local: Option<LocalIp>, segment: Option<u16>) -> usize {
        let mut end = 0;
        match local {
            Some(LocalIp { ip: IpAddr::V4(ip), .. }) => {
                let mut info = [0; size_of::<libc::in_pktinfo>()];
                // Without an interface: the routes decide, and the answer need not leave where the question came in.
                info[SPEC_DST..SPEC_DST + 4].copy_from_slice(&ip.octets());
                end = self.push(end, libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            Some(LocalIp { ip: IpAddr::V6(ip), interface }) => {
                let mut info = [0; size_of::<libc::in6_pktinfo>()];
                info[..16].copy_from_slice(&ip.octets());
                if ip.is_unicast_link_local() {
                    info[16..].copy_from_slice(&interface.to_ne_bytes());
                }
                end = self.push(end, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
            None => {}
        }
        if let (Some(bytes), Some((level, kind))) = (segment, system::CUT) {
            end = self.push(end, level, kind, &bytes.to_ne_bytes());
        }
        end
    }

    /// Appends a message at `start`, padded; returns the end.
    fn push(&mut self, start: usize, level: c_int, kind: c_int, data: &[u8]) -> usize {
        let len = HEADER_BYTES + data.len();
        let end = start + len.next_multiple_of(WORD);
        let place = &mut self.bytes[start..end];
        place.fill(0);
        match WORD == size_of::<usize>() {
            true => place[..WORD].copy_from_slice(&len.to_ne_bytes()),
            false => place[..WORD].copy_from_slice(&(len as u32).to_ne_bytes()),
        }
        place[WORD..WORD + INT].copy_from_slice(&level.to_ne_bytes());
        place[WORD + INT..HEADER_BYTES].copy_from_slice(&kind.to_ne_bytes());
        place[HEADER_BYTES..len].copy_from_slice(data);
        end
    }
}

/// One control message.
#[derive(Debug, PartialEq, Eq)]
struct Message<'a> {
    level: c_int,
    kind: c_int,
    data: &'a [u8],
}

/// Cuts a block into its messages; ends at the first one that is not whole.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let len = match WORD == size_of::<usize>() {
            true => usize::from_ne_bytes(*bytes.first_chunk()?),
            false => usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?,
        };
        let (level, kind) = (int(bytes, WORD)?, int(bytes, WORD + INT)?);
        // A length that does not cover its header would not get us on.
        let data = bytes.get(HEADER_BYTES..len)?;
        bytes = bytes.get(len.checked_next_multiple_of(WORD)?..).unwrap_or_default();
        Some(Message { level, kind, data })
    })
}

fn int(bytes: &[u8], start: usize) -> Option<c_int> {
    Some(c_int::from_ne_bytes(*bytes.get(start..)?.first_chunk()?))
}

/// `in_pktinfo`: the interface, the address of ours to answer from, and the destination in the header.
fn local_v4(data: &[u8]) -> Option<LocalIp> {
    let octets: [u8; 4] = *data.get(system::LOCAL_V4_AT..)?.first_chunk()?;
    let ip = Ipv4Addr::from(octets);
    if system::LOCAL_V4_AT != SPEC_DST && (ip.is_multicast() || ip.is_broadcast()) {
        return None;
    }
    Some(LocalIp { ip: ip.into(), interface: int(data, 0)?.cast_unsigned() })
}

/// `in6_pktinfo`: the destination in the header, and the interface.
fn local_v6(data: &[u8]) -> Option<LocalIp> {
    let octets: [u8; 16] = *data.first_chunk()?;
    let ip = Ipv6Addr::from(octets);
    let local = LocalIp { ip: ip.into(), interface: int(data, 16)?.cast_unsigned() };
    let is_of_many = match ip.to_ipv4_mapped() {
        Some(ip) => ip.is_multicast() || ip.is_broadcast(),
        None => ip.is_multicast(),
    };
    (!is_of_many).then_some(local)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_local() -> impl Strategy<Value = Option<LocalIp>> {
        let v4 = any::<[u8; 4]>().prop_map(IpAddr::from);
        let v6 = any::<[u8; 16]>().prop_map(IpAddr::from);
        proptest::option::of(
            (prop_oneof![v4, v6], any::<u32>()).prop_map(|(ip, interface)| LocalIp { ip, interface }),
        )
    }

    /// The messages as the C library's macros find them.
    fn by_libc(control: &mut Control, len: usize) -> Vec<(c_int, c_int, Vec<u8>)> {
        // SAFETY: `msghdr` is plain C data; all zeroes is a valid one.
        // (test: `what_is_written_is_what_the_c_library_reads`)
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = len as _;
        let mut found = Vec::new();
        // SAFETY: cmsg(3): the header names a block of `len` bytes that is aligned for `cmsghdr` and outlives it.
        // (test: `what_is_written_is_what_the_c_library_reads`)
        let mut next = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
        while !next.is_null() {
            // SAFETY: the macros return pointers to whole headers inside the block only.
            // (test: `what_is_written_is_what_the_c_library_reads`)
            let message = unsafe { next.read() };
            // SAFETY: the same pointer, into the same block. (test: `what_is_written_is_what_the_c_library_reads`)
            let data = unsafe { libc::CMSG_DATA(next) };
            let bytes = message.cmsg_len as usize - HEADER_BYTES;
            // SAFETY: the block was written by `Control::write`, whose lengths are true.
            // (test: `what_is_written_is_what_the_c_library_reads`)
            let data = unsafe { std::slice::from_raw_parts(data, bytes) };
            found.push((message.cmsg_level, message.cmsg_type, data.to_vec()));
            // SAFETY: as the first one. (test: `what_is_written_is_what_the_c_library_reads`)
            next = unsafe { libc::CMSG_NXTHDR(&raw const header, next) };
        }
        found
    }

    #[test]
    fn what_is_written_is_what_the_c_library_reads() {
        proptest!(|(local in any_local(), segment: Option<u16>)| {
            let mut control = Control::new();
            let len = control.write(local, segment);
            let ours: Vec<_> = messages(&control.bytes[..len])
                .map(|message| (message.level, message.kind, message.data.to_vec()))
                .collect();
            prop_assert_eq!(ours.len(), usize::from(local.is_some()) + usize::from(segment.and(system::CUT).is_some()));
            prop_assert_eq!(ours, by_libc(&mut control, len));
        });
    }

    fn is_of_many(ip: Ipv6Addr) -> bool {
        ip.is_multicast() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_multicast() || ip.is_broadcast())
    }

    #[test]
    fn nothing_leaves_from_a_mapped_address_of_many() {
        for ip in ["::ffff:224.0.0.251", "::ffff:255.255.255.255"] {
            let mut control = Control::new();
            let len = control.write(Some(LocalIp { ip: ip.parse().unwrap(), interface: 2 }), None);
            assert_eq!(control.facts(len).local, None, "{ip}");
        }
    }

    proptest! {
        #[test]
        fn an_address_that_is_written_is_read_again(local in any_local()) {
            let mut control = Control::new();
            let len = control.write(local, None);
            let read = control.facts(len).local;
            match local.map(|local| local.ip) {
                Some(IpAddr::V6(ip)) if is_of_many(ip) => prop_assert_eq!(read, None),
                ip => prop_assert_eq!(read.map(|local| local.ip), ip),
            }
        }

        #[test]
        fn any_bytes_are_read_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..=Control::BYTES)) {
            let mut control = Control::new();
            control.bytes[..bytes.len()].copy_from_slice(&bytes);
            control.facts(bytes.len());
            let data: usize = messages(&bytes).map(|message| HEADER_BYTES + message.data.len()).sum();
            prop_assert!(data <= bytes.len());
        }

        #[test]
        fn a_damaged_length_is_read_to_an_end(local in any_local(), segment: u16, len: usize, cut in 0..64_usize) {
            let mut control = Control::new();
            let end = control.write(local, Some(segment));
            control.bytes[..WORD].copy_from_slice(&len.to_ne_bytes()[..WORD]);
            control.facts(end.saturating_sub(cut));
        }
    }

    #[test]
    fn lengths_at_the_edges_of_the_address_space_end_the_reading() {
        let mut control = Control::new();
        for len in [0, 1, HEADER_BYTES - 1, usize::MAX, usize::MAX - 7, usize::MAX / 2] {
            let end = control.write(Some(LocalIp { ip: Ipv4Addr::LOCALHOST.into(), interface: 0 }), None);
            control.bytes[..WORD].copy_from_slice(&len.to_ne_bytes()[..WORD]);
            assert_eq!(messages(&control.bytes[..end]).count(), 0, "{len}");
        }
        assert_eq!(messages(&[]).count(), 0);
    }
}
