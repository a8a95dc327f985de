//! Who the client of a request is, where proxies stand in front: what trusted ones have written into the head.
//!
//! Each proxy adds the address that it was connected from behind what was there. So the list is read from its end, and only for as long as
//! those who wrote it are trusted: what a client has put in front of it, and what cannot be read, counts for nothing.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
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
/// a trusted proxy has named a client; one more for each line of `Forwarded`, and for what is quoted in it.
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
            && request.peer().ip() != Some(client)
        {
            request.extensions().insert(ClientAddr(client));
        }
    }

    /// The client's address. `None` of a peer on a Unix socket that is not trusted, or has named nobody.
    #[must_use]
    pub fn client(&self, request: &Request<'_>) -> Option<IpAddr> {
        let peer = request.peer().ip();
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
                let hops = lines.iter().rev().flat_map(|line| hops(line).into_iter().rev());
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

/// An address, as proxies write it: with a port or without, IPv6 in brackets or not.
fn ip_of(word: &[u8]) -> Option<IpAddr> {
    let word = std::str::from_utf8(word).ok()?;
    let bare = word.strip_prefix('[').and_then(|word| word.strip_suffix(']'));
    if let Some(bare) = bare {
        return bare.parse::<Ipv6Addr>().ok().map(|ip| IpAddr::V6(ip).to_canonical());
    }
    let ip = word.parse().or_else(|_| word.parse::<SocketAddr>().map(|addr| addr.ip())).ok()?;
    Some(ip.to_canonical())
}

/// Who each element of a `Forwarded` field is for. One that cannot be read is nobody; a field that is torn apart by a quote without an end has
/// one last element that is nobody.
fn hops(line: &[u8]) -> Vec<Option<IpAddr>> {
    let mut hops = Vec::new();
    let mut rest = line;
    loop {
        let (hop, behind) = hop(rest);
        hops.push(hop);
        match behind {
            Some(behind) => rest = behind,
            None => return hops,
        }
    }
}

/// The first element, and what is behind its comma.
fn hop(mut rest: &[u8]) -> (Option<IpAddr>, Option<&[u8]>) {
    let (mut found, mut is_good) = (None, true);
    loop {
        let end = rest.iter().position(|byte| matches!(byte, b'=' | b';' | b',')).unwrap_or(rest.len());
        let name = rest[..end].trim_ascii();
        rest = &rest[end..];
        if let Some(value) = rest.strip_prefix(b"=") {
            let Some((value, behind)) = value_of(value) else { return (None, None) };
            if name.eq_ignore_ascii_case(b"for") {
                // Twice is one time too many: which of them counts?
                is_good &= found.is_none();
                found = ip_of(&value);
            }
            rest = behind.trim_ascii_start();
        }
        match rest.split_first() {
            Some((b';', behind)) => rest = behind,
            Some((b',', behind)) => return (found.filter(|_| is_good), Some(behind)),
            None => return (found.filter(|_| is_good), None),
            // Something stands behind a value.
            Some(_) => {
                is_good = false;
                let end = rest.iter().position(|byte| matches!(byte, b';' | b',')).unwrap_or(rest.len());
                rest = &rest[end..];
                match rest.split_first() {
                    Some((b';', behind)) => rest = behind,
                    Some((_, behind)) => return (None, Some(behind)),
                    None => return (None, None),
                }
            }
        }
    }
}

/// A token or a quoted string, and what is behind it. `None` for a quote without an end.
fn value_of(bytes: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let Some(quoted) = bytes.strip_prefix(b"\"") else {
        let end = bytes.iter().position(|byte| matches!(byte, b';' | b',')).unwrap_or(bytes.len());
        let (value, behind) = bytes.split_at(end);
        return Some((Cow::Borrowed(value.trim_ascii()), behind));
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
        ] {
            assert_eq!(ip_of(word.as_bytes()), Some(ip.parse().unwrap()), "{word}");
        }
        for word in ["unknown", "_hidden", "", "192.0.2", "192.0.2.7:", "[192.0.2.7]", "192.0.2.7:x"] {
            assert_eq!(ip_of(word.as_bytes()), None, "{word}");
        }
    }

    #[test]
    fn elements_of_a_forwarded_field_are_found_whatever_is_quoted() {
        let ips = |line: &str| -> Vec<String> {
            hops(line.as_bytes()).iter().map(|ip| ip.map_or("-".to_owned(), |ip| ip.to_string())).collect()
        };
        assert_eq!(ips("for=192.0.2.7;proto=http;by=203.0.113.43"), ["192.0.2.7"]);
        assert_eq!(ips("For=\"[2001:db8::7]:4711\""), ["2001:db8::7"]);
        assert_eq!(ips("for=192.0.2.7, FOR=192.0.2.8 ;by=x,proto=https"), ["192.0.2.7", "192.0.2.8", "-"]);
        assert_eq!(ips("for=unknown, for=_x"), ["-", "-"]);
        assert_eq!(ips("host=\"a,for=1.2.3.4\";for=192.0.2.7"), ["192.0.2.7"]);
        assert_eq!(ips("host=\"a\\\",for=1.2.3.4\", for=192.0.2.7"), ["-", "192.0.2.7"]);
        // Which of two, and what behind a quote without an end: nobody.
        assert_eq!(ips("for=192.0.2.7;for=192.0.2.8"), ["-"]);
        assert_eq!(ips("for=192.0.2.7, for=\"192.0.2.8"), ["192.0.2.7", "-"]);
        assert_eq!(ips("for=\"192.0.2.7\"x, for=192.0.2.8"), ["-", "192.0.2.8"]);
    }

    proptest! {
        #[test]
        fn the_last_element_is_what_a_proxy_has_added_whatever_stands_in_front(
            front in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            // A front that ends inside of quotes swallows what is behind, and then there is nobody.
            let line = [&front[..], b", for=192.0.2.7"].concat();
            let last = *hops(&line).last().unwrap();
            prop_assert!(last == Some("192.0.2.7".parse().unwrap()) || (last.is_none() && front.contains(&b'"')));
        }
    }
}
