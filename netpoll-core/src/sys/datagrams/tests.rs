use std::os::fd::AsFd;

use proptest::prelude::*;

use super::super::socket::{RawAddress, local_addr};
use super::super::testing::LOOPBACK;
use super::*;

#[test]
fn two_sockets_share_an_address_only_if_both_ask_for_it() {
    let first = bind_datagrams(LOOPBACK, Sharing::Joins).unwrap();
    let addr = local_addr(first.as_fd()).unwrap().as_socket_addr().unwrap();
    assert!(bind_datagrams(addr, Sharing::Joins).is_ok());
    for sharing in [Sharing::Alone, Sharing::Begins] {
        assert_eq!(bind_datagrams(addr, sharing).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
    let begun = bind_datagrams(LOOPBACK, Sharing::Begins).unwrap();
    let addr = local_addr(begun.as_fd()).unwrap().as_socket_addr().unwrap();
    assert!(bind_datagrams(addr, Sharing::Joins).is_ok());
    assert_eq!(bind_datagrams(addr, Sharing::Begins).unwrap_err().kind(), io::ErrorKind::AddrInUse);
}

proptest! {
    #[test]
    fn an_address_that_is_encoded_is_decoded(addr: SocketAddr) {
        let mut raw = RawAddress::new();
        let len = raw.encode(addr);
        prop_assert_eq!(len, if addr.is_ipv4() { size_of::<libc::sockaddr_in>() } else { RawAddress::BYTES });
        prop_assert_eq!(raw.decode(), Some(addr));
    }
}
