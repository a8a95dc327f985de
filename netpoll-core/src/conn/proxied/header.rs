//! The header of the PROXY protocol, versions 1 and 2: who the client of a proxy is.
//!
//! The specification is HAProxy's ("The PROXY protocol, versions 1 & 2"). Invariants: nothing is allocated but the path of a Unix socket; how
//! long a header is can be said from its first bytes, so that an incomplete one costs no second look at what is there; what is not
//! exactly a header is none.

use std::net::IpAddr;

use crate::sys::{Address, UnixAddress};

/// How version 2 begins.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// How version 1 begins.
const WORD: &[u8; 6] = b"PROXY ";
/// The longest line of version 1, with its end.
const LINE_BYTES_MAX: usize = 107;
/// What may follow the first 16 bytes of version 2: addresses, and what proxies say about TLS, which is hardly ever more than a few hundred bytes.
const REST_BYTES_MAX: usize = 4096;

/// What the first bytes of a connection are.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a header.
    Partial,
    /// A header of so many bytes.
    Header {
        /// Where the connection's own bytes begin.
        bytes: usize,
        /// Who the client is. `None` where the proxy speaks for itself, or does not know.
        client: Option<Address>,
    },
    /// No header.
    Not,
}

/// What these bytes are.
pub fn parse(bytes: &[u8]) -> Parsed {
    if bytes.starts_with(SIGNATURE) {
        return version_2(bytes);
    }
    if bytes.starts_with(WORD) {
        return version_1(bytes);
    }
    let is_beginning = SIGNATURE.starts_with(bytes) || WORD.starts_with(bytes);
    if is_beginning { Parsed::Partial } else { Parsed::Not }
}

fn version_1(bytes: &[u8]) -> Parsed {
    let within = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = within.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < LINE_BYTES_MAX { Parsed::Partial } else { Parsed::Not };
    };
    let client = std::str::from_utf8(&bytes[WORD.len()..end]).ok().and_then(client_of_line);
    client.map_or(Parsed::Not, |client| Parsed::Header { bytes: end + 2, client })
}

/// What follows the first word of a line. `None` if it is none; `Some(None)` if it names nobody.
fn client_of_line(line: &str) -> Option<Option<Address>> {
    let mut words = line.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        // What follows is to be ignored.
        return Some(None);
    }
    let is_ip: fn(&IpAddr) -> bool = match family {
        "TCP4" => IpAddr::is_ipv4,
        "TCP6" => IpAddr::is_ipv6,
        _ => return None,
    };
    let [from, to] = [words.next()?, words.next()?].map(|word| word.parse::<IpAddr>().ok().filter(is_ip));
    let [from_port, to_port] = [words.next()?, words.next()?].map(port);
    let is_whole = words.next().is_none() && to.is_some() && to_port.is_some();
    is_whole.then(|| Some(Some(Address::from((from?, from_port?)))))?
}

/// Digits, without a sign and without zeros in front.
fn port(word: &str) -> Option<u16> {
    let is_plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    if is_plain { word.parse().ok() } else { None }
}

fn version_2(bytes: &[u8]) -> Parsed {
    let Some((&[version_and_command, family, high, low], rest)) =
        bytes[SIGNATURE.len()..].split_first_chunk()
    else {
        return Parsed::Partial;
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if !matches!(version_and_command, 0x20 | 0x21) || length > REST_BYTES_MAX {
        return Parsed::Not;
    }
    let Some(addresses) = rest.get(..length) else { return Parsed::Partial };
    let speaks_for_itself = version_and_command == 0x20;
    let client = match family {
        _ if speaks_for_itself => Some(None),
        0x00 => Some(None),
        0x11 => inet::<4>(addresses),
        0x21 => inet::<16>(addresses),
        0x31 => unix(addresses),
        // Of datagrams a connection is told by mistake. What is defined and not understood counts as unknown (section 2.2).
        0x12 | 0x22 | 0x32 => Some(None),
        // What nobody has defined.
        _ => None,
    };
    let bytes = SIGNATURE.len() + 4 + length;
    client.map_or(Parsed::Not, |client| Parsed::Header { bytes, client })
}

/// Both addresses, then both ports.
fn inet<const N: usize>(addresses: &[u8]) -> Option<Option<Address>>
where
    IpAddr: From<[u8; N]>,
{
    let ip: [u8; N] = *addresses.first_chunk()?;
    let port = *addresses.get(2 * N..2 * N + 4)?.first_chunk()?;
    Some(Some(Address::from((IpAddr::from(ip), u16::from_be_bytes(port)))))
}

/// Two names of 108 bytes, filled up with NULs.
fn unix(addresses: &[u8]) -> Option<Option<Address>> {
    let name = addresses.get(..216)?.first_chunk::<108>()?;
    let name = match name.iter().position(|byte| *byte == 0) {
        Some(0) | None => UnixAddress::UNNAMED,
        Some(end) => path(&name[..end]),
    };
    Some(Some(Address::Unix(name)))
}

fn path(bytes: &[u8]) -> UnixAddress {
    use std::os::unix::ffi::OsStrExt;

    UnixAddress::from_path(std::ffi::OsStr::from_bytes(bytes)).unwrap_or(UnixAddress::UNNAMED)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(bytes: usize, client: &str) -> Parsed {
        let client = client.parse::<std::net::SocketAddr>().unwrap();
        Parsed::Header { bytes, client: Some(Address::from(client)) }
    }

    fn version_2_of(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[0x20 | command, family], &length, rest].concat()
    }

    #[test]
    fn a_line_names_the_client() {
        let line = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\nGET";
        assert_eq!(parse(line), header(line.len() - 3, "192.0.2.7:4711"));
        let line = b"PROXY TCP6 2001:db8::7 2001:db8::1 65535 0\r\n";
        assert_eq!(parse(line), header(line.len(), "[2001:db8::7]:65535"));
        let longest =
            format!("PROXY TCP6 {0} {0} 65535 65535\r\n", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
        assert_eq!(longest.len(), 104);
        assert!(matches!(parse(longest.as_bytes()), Parsed::Header { bytes: 104, client: Some(_) }));
        let nobody = b"PROXY UNKNOWN whatever it says\r\n";
        assert_eq!(parse(nobody), Parsed::Header { bytes: nobody.len(), client: None });
        assert_eq!(parse(b"PROXY UNKNOWN\r\n"), Parsed::Header { bytes: 15, client: None });
    }

    #[test]
    fn what_is_not_exactly_a_line_is_none() {
        for line in [
            "PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443 1\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443 \r\n",
            "PROXY TCP4  192.0.2.7 198.51.100.1 4711 443\r\n",
            "PROXY TCP4 192.0.2.07 198.51.100.1 4711 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 +4711 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 04711 443\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n",
            "PROXY TCP4 2001:db8::7 2001:db8::1 4711 443\r\n",
            "PROXY TCP6 192.0.2.7 198.51.100.1 4711 443\r\n",
            "PROXY UDP4 192.0.2.7 198.51.100.1 4711 443\r\n",
            "PROXY tcp4 192.0.2.7 198.51.100.1 4711 443\r\n",
            "PROXY \r\n",
            "PROXY UNKNOWN2\r\n",
            "GET / HTTP/1.1\r\n",
            "\r\n\r\nGET",
        ] {
            assert_eq!(parse(line.as_bytes()), Parsed::Not, "{line:?}");
        }
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE_BYTES_MAX - 15));
        assert_eq!(parse(long.as_bytes()), Parsed::Not);
    }

    #[test]
    fn the_binary_form_names_the_client_whatever_follows() {
        let four = [192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 1, 187];
        let bytes = version_2_of(1, 0x11, &[&four[..], b"\x20\0\x02xx"].concat());
        assert_eq!(parse(&[&bytes[..], b"GET"].concat()), header(bytes.len(), "192.0.2.7:4711"));
        let six: Vec<u8> = [[7_u8; 16], [1; 16]].concat().into_iter().chain([0, 80, 0, 1]).collect();
        let bytes = version_2_of(1, 0x21, &six);
        assert_eq!(parse(&bytes), header(bytes.len(), "[707:707:707:707:707:707:707:707]:80"));
        let mut names = [0; 216];
        names[..5].copy_from_slice(b"/a/b.");
        let named = version_2_of(1, 0x31, &names);
        let client = Some(Address::unix("/a/b.").unwrap());
        assert_eq!(parse(&named), Parsed::Header { bytes: named.len(), client });
        for (command, family, rest) in [
            (0, 0x11, &four[..]),
            (0, 0, &[]),
            (1, 0, b"tlvs"),
            (1, 0x12, &four),
            (1, 0x22, &[1; 36]),
            (1, 0x32, &[1; 216]),
        ] {
            let bytes = version_2_of(command, family, rest);
            assert_eq!(parse(&bytes), Parsed::Header { bytes: bytes.len(), client: None });
        }
    }

    #[test]
    fn what_the_binary_form_does_not_define_is_none() {
        let four = [0; 12];
        for (command, family, rest) in [
            (2, 0x11, &four[..]),
            (1, 0x13, &four[..]),
            (1, 0x41, &four[..]),
            (1, 0x11, &four[..11]),
            (1, 0x21, &four[..]),
            (1, 0x31, &four[..]),
            (1, 0x00, &[0; REST_BYTES_MAX + 1]),
        ] {
            assert_eq!(parse(&version_2_of(command, family, rest)), Parsed::Not, "{command} {family:x}");
        }
        let mut version_3 = version_2_of(1, 0x11, &four);
        version_3[12] = 0x31;
        assert_eq!(parse(&version_3), Parsed::Not);
    }

    proptest! {
        #[test]
        fn every_beginning_of_a_header_is_partial(rest in prop::collection::vec(any::<u8>(), 36..300), port in 0..=u16::MAX) {
            let line = format!("PROXY TCP4 192.0.2.7 198.51.100.1 {port} 443\r\n");
            for whole in [version_2_of(1, 0x21, &rest), version_2_of(0, 0x00, &rest), line.into_bytes()] {
                for end in 0..whole.len() {
                    prop_assert_eq!(parse(&whole[..end]), Parsed::Partial);
                }
                let is_whole = matches!(parse(&whole), Parsed::Header { bytes, .. } if bytes == whole.len());
                prop_assert!(is_whole);
            }
        }

        #[test]
        fn whatever_comes_is_judged_the_same_when_more_is_behind(
            bytes in prop::collection::vec(any::<u8>(), 0..64), start in 0..3_usize, more in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let bytes = [[&SIGNATURE[..], WORD, b""][start], &bytes].concat();
            let longer = [&bytes[..], &more].concat();
            match parse(&bytes) {
                Parsed::Partial => {}
                judged => prop_assert_eq!(parse(&longer), judged),
            }
        }
    }
}
