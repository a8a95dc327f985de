//! Who the client of a request is, where proxies stand in front: what trusted ones have written into the head.
//!
//! Each proxy adds the address that it was connected from behind what was there. So the list is read from its end, and only for as long as
//! those who wrote it are trusted: what a client has put in front of it, and what cannot be read, counts for nothing.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use netpoll_core::Address;

use crate::message::{ClientAddr, Request};

/// Reads who the client is from what proxies in front have written: for a [`before`](crate::Router::before) hook that comes in front of
/// those which want to know, such as a [`RateLimit`](crate::RateLimit).
///
/// ```
/// use netpoll_http::{App, Forwarded, Request, Router};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let proxies = Forwarded::x_forwarded_for(["10.0.0.0/8", "127.0.0.1", "unix"])?;
/// let service = move |_: &_| {
///     let proxies = proxies.clone();
///     Router::new()
///         .before(move |req: &Request| proxies.note(req))
///         .get("/", |req: &Request| format!("{:?}", req.client_ip()))
/// };
/// # let _ = App::new(service).test();
/// # Ok(())
/// # }
/// ```
///
/// A request that does not come from a trusted address is its own client, whatever it says. Of one that does, the list in the head is read from its
/// end: addresses of trusted proxies are skipped, and the first that is not one is the client. If what stands there is no
/// address (`unknown`, a name of the proxy's own), the last proxy that was understood is. Name every proxy, and no network in which clients are;
/// and let the outermost proxy drop the field that is not read here.
///
/// [`Request::peer`] is the proxy all the same. Cost: a search of the head, and two allocations where
/// a trusted proxy has named a client; one more for what is quoted in `Forwarded`.
#[derive(Clone, Debug)]
pub struct Forwarded {
    trusted: Vec<Network>,
    trusts_unix: bool,
    field: Field,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    XForwardedFor,
    Forwarded,
}

impl Forwarded {
    /// Proxies that write `X-Forwarded-For`, as nearly all do. They are named by addresses (`10.0.0.7`, `2001:db8::7`), by networks
    /// (`10.0.0.0/8`), and `unix` for whoever connects over a Unix socket.
    ///
    /// # Errors
    /// One is no address and no network; of a network, bits behind its prefix are set.
    pub fn x_forwarded_for<'a>(
        proxies: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, ParseNetworkError> {
        Self::of(Field::XForwardedFor, proxies)
    }

    /// The same for proxies that write `Forwarded` (RFC 7239).
    ///
    /// # Errors
    /// As [`x_forwarded_for`](Self::x_forwarded_for).
    pub fn rfc_7239<'a>(proxies: impl IntoIterator<Item = &'a str>) -> Result<Self, ParseNetworkError> {
        Self::of(Field::Forwarded, proxies)
    }

    fn of<'a>(field: Field, proxies: impl IntoIterator<Item = &'a str>) -> Result<Self, ParseNetworkError> {
        let mut forwarded = Self { trusted: Vec::new(), trusts_unix: false, field };
        for proxy in proxies {
            match proxy {
                "unix" => forwarded.trusts_unix = true,
                network => forwarded.trusted.push(network.parse()?),
            }
        }
        Ok(forwarded)
    }

    /// Notes the client's address, if it is not the peer's: the hook.
    pub fn note(&self, request: &Request<'_>) {
        if let Some(client) = self.client(request)
            && request.peer().ip().map(|ip| ip.to_canonical()) != Some(client)
        {
            request.extensions().insert(ClientAddr(client));
        }
    }

    /// The client's address. `None` of a peer on a Unix socket that is not trusted, or has named nobody.
    #[must_use]
    pub fn client(&self, request: &Request<'_>) -> Option<IpAddr> {
        let peer = request.peer().ip().map(|ip| ip.to_canonical());
        let is_trusted = match peer {
            Some(ip) => self.trusts(ip),
            None => self.trusts_unix && matches!(request.peer(), Address::Unix(_)),
        };
        if !is_trusted {
            return peer;
        }
        let mut client = peer;
        match self.field {
            Field::XForwardedFor => {
                let lines: Vec<&[u8]> = request.header_lines("x-forwarded-for").collect();
                let words = lines.iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b','));
                self.walk(words.map(|word| ip_of(word.trim_ascii())), &mut client);
            }
            Field::Forwarded => {
                let lines: Vec<&[u8]> = request.header_lines("forwarded").collect();
                let hops = lines.iter().rev().flat_map(|line| hops(line));
                self.walk(hops, &mut client);
            }
        }
        client
    }

    /// From the last hop on.
    fn walk(&self, hops: impl Iterator<Item = Option<IpAddr>>, client: &mut Option<IpAddr>) {
        for hop in hops {
            let Some(ip) = hop else { return };
            *client = Some(ip);
            if !self.trusts(ip) {
                return;
            }
        }
    }

    fn trusts(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.trusted.iter().any(|network| network.has(ip))
    }
}

/// An address, as proxies write it: with a port or without, IPv6 in brackets or not. A port may be a name of the proxy's own (`_x`), and what
/// is behind a `%` says on which of its links the proxy has seen the address.
fn ip_of(word: &[u8]) -> Option<IpAddr> {
    let word = std::str::from_utf8(word).ok()?;
    let ip = match word.strip_prefix('[') {
        Some(bracketed) => {
            let (ip, port) = bracketed.split_once(']')?;
            if !port.is_empty() && !port.strip_prefix(':').is_some_and(is_port) {
                return None;
            }
            IpAddr::V6(without_zone(ip)?.parse().ok()?)
        }
        None => match word.split_once(':') {
            Some((ip, port)) if is_port(port) => IpAddr::V4(ip.parse().ok()?),
            _ => without_zone(word)?.parse().ok()?,
        },
    };
    Some(ip.to_canonical())
}

/// `None` of an address with a zone that has no name, or is not of IPv6.
fn without_zone(ip: &str) -> Option<&str> {
    match ip.split_once('%') {
        Some((ip, zone)) => (!zone.is_empty() && ip.contains(':')).then_some(ip),
        None => Some(ip),
    }
}

/// `node-port` of RFC 7239 section 6.
fn is_port(port: &str) -> bool {
    match port.strip_prefix('_') {
        Some(name) => {
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        }
        None => port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok(),
    }
}

/// Who each element of a `Forwarded` field is for, from the last one on. One that is not as RFC 7239 has it is nobody.
///
/// A proxy adds a whole element behind what was there, and that may be anything, a quote without an end as well. So where elements begin is
/// found out from the end: read from the front, what a client has opened would turn the quotes of the proxies behind it inside out.
fn hops(line: &[u8]) -> impl Iterator<Item = Option<IpAddr>> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest?;
        let comma = last_comma(line);
        rest = comma.map(|comma| &line[..comma]);
        Some(hop(&line[comma.map_or(0, |comma| comma + 1)..]))
    })
}

/// The last comma that is not within quotes.
fn last_comma(line: &[u8]) -> Option<usize> {
    let mut end = line.len();
    loop {
        end = memchr::memrchr2(b',', b'"', &line[..end])?;
        if line[end] == b',' {
            return Some(end);
        }
        // It ends a quoted string, which begins at a quote that is not escaped.
        loop {
            end = memchr::memrchr(b'"', &line[..end])?;
            let escapes = line[..end].iter().rev().take_while(|byte| **byte == b'\\').count();
            if escapes % 2 == 0 {
                break;
            }
        }
    }
}

/// Who an element is for.
fn hop(mut element: &[u8]) -> Option<IpAddr> {
    let mut found = None;
    loop {
        let end = element.iter().position(|byte| matches!(byte, b'=' | b';')).unwrap_or(element.len());
        let (name, behind) = element.split_at(end);
        let name = name.trim_ascii();
        let behind = match behind.strip_prefix(b"=") {
            Some(value) => {
                let (value, behind) = value_of(value.trim_ascii_start())?;
                if name.eq_ignore_ascii_case(b"for") {
                    // Twice is one time too many: which of them counts?
                    if found.is_some() {
                        return None;
                    }
                    found = Some(ip_of(&value)?);
                }
                behind.trim_ascii_start()
            }
            None if name.is_empty() => behind,
            None => return None,
        };
        match behind.split_first() {
            Some((b';', behind)) => element = behind,
            // Something stands behind a value.
            Some(_) => return None,
            None => return found,
        }
    }
}

/// A token or a quoted string, and what is behind it. `None` for a quote without an end, or within a token.
fn value_of(bytes: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let Some(quoted) = bytes.strip_prefix(b"\"") else {
        let end = bytes.iter().position(|byte| *byte == b';').unwrap_or(bytes.len());
        let (value, behind) = bytes.split_at(end);
        return (!value.contains(&b'"')).then(|| (Cow::Borrowed(value.trim_ascii()), behind));
    };
    let mut text = Vec::new();
    let mut bytes = quoted.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Some((Cow::Owned(text), &quoted[at + 1..])),
            b'\\' => text.push(*bytes.next()?.1),
            byte => text.push(*byte),
        }
    }
    None
}

/// Addresses that have their first bits in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    first: IpAddr,
    bits: u32,
}

impl Network {
    fn has(self, ip: IpAddr) -> bool {
        match (self.first, ip) {
            (IpAddr::V4(first), IpAddr::V4(ip)) => {
                (first.to_bits() ^ ip.to_bits()) & !u32::MAX.checked_shr(self.bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(first), IpAddr::V6(ip)) => {
                (first.to_bits() ^ ip.to_bits()) & !u128::MAX.checked_shr(self.bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }

    /// As addresses are looked at: one of IPv4 that was written as IPv6 (`::ffff:10.0.0.0/104`) is one of IPv4.
    fn canonical(self) -> Self {
        match (self.first.to_canonical(), self.bits.checked_sub(96)) {
            (first @ IpAddr::V4(_), Some(bits)) if self.first.is_ipv6() => Self { first, bits },
            _ => self,
        }
    }

    /// The same network with nothing behind its prefix.
    fn begin(self) -> IpAddr {
        match self.first {
            IpAddr::V4(ip) => {
                Ipv4Addr::from_bits(ip.to_bits() & !u32::MAX.checked_shr(self.bits).unwrap_or(0)).into()
            }
            IpAddr::V6(ip) => {
                Ipv6Addr::from_bits(ip.to_bits() & !u128::MAX.checked_shr(self.bits).unwrap_or(0)).into()
            }
        }
    }
}

/// What was to be a network, and is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseNetworkError(String);

impl fmt::Display for ParseNetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "neither an address nor a network, such as 10.0.0.0/8: {:?}", self.0)
    }
}

impl StdError for ParseNetworkError {}

impl FromStr for Network {
    type Err = ParseNetworkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (ip, bits) = text.split_once('/').map_or((text, None), |(ip, bits)| (ip, Some(bits)));
        let parsed = || {
            let first: IpAddr = ip.parse().ok()?;
            let most = if first.is_ipv4() { 32 } else { 128 };
            let bits = match bits {
                Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => bits.parse().ok()?,
                Some(_) => return None,
                None => most,
            };
            let network = Self { first, bits };
            (bits <= most && network.begin() == first).then(|| network.canonical())
        };
        parsed().ok_or_else(|| ParseNetworkError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_network_has_what_begins_as_it_does() {
        let has = |network: &str, ip: &str| network.parse::<Network>().unwrap().has(ip.parse().unwrap());
        assert!(has("10.0.0.0/8", "10.255.0.1") && !has("10.0.0.0/8", "11.0.0.1"));
        assert!(has("10.0.0.7", "10.0.0.7") && !has("10.0.0.7", "10.0.0.6"));
        assert!(has("0.0.0.0/0", "1.2.3.4") && !has("0.0.0.0/0", "::1") && has("::/0", "::1"));
        assert!(has("2001:db8::/33", "2001:db8:7fff::1") && !has("2001:db8::/33", "2001:db8:8000::1"));
        assert!(has("::ffff:10.0.0.0/104", "10.255.0.1") && !has("::ffff:10.0.0.7", "10.0.0.6"));
        for wrong in
            ["", "10.0.0.0/", "10.0.0.0/33", "10.0.0.1/8", "::/129", "10.0.0.0/+8", "localhost", "10/8"]
        {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_is_read_as_proxies_write_it() {
        for (word, ip) in [
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.7:4711", "192.0.2.7"),
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:db8::7]:4711", "2001:db8::7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("192.0.2.7:_x-1", "192.0.2.7"),
            ("[2001:db8::7]:_x", "2001:db8::7"),
            ("fe80::7%eth0", "fe80::7"),
            ("[fe80::7%25eth0]:4711", "fe80::7"),
        ] {
            assert_eq!(ip_of(word.as_bytes()), Some(ip.parse().unwrap()), "{word}");
        }
        for word in ["unknown", "_hidden", "", "192.0.2", "192.0.2.7:", "[192.0.2.7]", "192.0.2.7:x"] {
            assert_eq!(ip_of(word.as_bytes()), None, "{word}");
        }
        for word in
            ["192.0.2.7:+1", "192.0.2.7:65536", "192.0.2.7:_", "192.0.2.7%eth0", "fe80::7%", "[::1", "[::1]1"]
        {
            assert_eq!(ip_of(word.as_bytes()), None, "{word}");
        }
    }

    #[test]
    fn elements_of_a_forwarded_field_are_found_whatever_is_quoted() {
        let ips = |line: &str| -> Vec<String> {
            let mut ips: Vec<_> =
                hops(line.as_bytes()).map(|ip| ip.map_or("-".to_owned(), |ip| ip.to_string())).collect();
            ips.reverse();
            ips
        };
        assert_eq!(ips("for=192.0.2.7;proto=http;by=203.0.113.43"), ["192.0.2.7"]);
        assert_eq!(ips("For=\"[2001:db8::7]:4711\""), ["2001:db8::7"]);
        assert_eq!(ips("for=192.0.2.7, FOR=192.0.2.8 ;by=x,proto=https"), ["192.0.2.7", "192.0.2.8", "-"]);
        assert_eq!(ips("for=unknown, for=_x"), ["-", "-"]);
        assert_eq!(ips("host=\"a,for=1.2.3.4\";for=192.0.2.7"), ["192.0.2.7"]);
        assert_eq!(ips("host=\"a\\\",for=1.2.3.4\", for=192.0.2.7"), ["-", "192.0.2.7"]);
        // Which of two, and what behind a quote without an end: nobody.
        assert_eq!(ips("for=192.0.2.7;for=192.0.2.8"), ["-"]);
        assert_eq!(ips("for=192.0.2.7, for=\"192.0.2.8").last().map(String::as_str), Some("-"));
        assert_eq!(ips("for=192.0.2.7;junk"), ["-"]);
        assert_eq!(
            ips("for=\"192.0.2.7\";host=\"\\\\\", for=192.0.2.8;host=\"a\\\",b\""),
            ["192.0.2.7", "192.0.2.8"]
        );
        assert_eq!(ips("for=\"192.0.2.7\"x, for=192.0.2.8"), ["-", "192.0.2.8"]);
    }

    proptest! {
        #[test]
        fn the_last_element_is_what_a_proxy_has_added_whatever_stands_in_front(
            front in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            for (added, ip) in [
                ("for=192.0.2.7", "192.0.2.7"),
                ("for=\"[2001:db8::7]:80\";host=\"a,for=6.6.6.6;b\"", "2001:db8::7"),
                ("host=\"a\\\",for=6.6.6.6\\\\\";for=192.0.2.7", "192.0.2.7"),
            ] {
                let line = [&front[..], b", ", added.as_bytes()].concat();
                prop_assert_eq!(hops(&line).next(), Some(Some(ip.parse().unwrap())));
            }
        }
    }
}
