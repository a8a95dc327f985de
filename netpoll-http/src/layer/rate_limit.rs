//! A limit on how often one address, or whatever else has a name, may ask, shared by all workers.
//!
//! One word per address: the time at which its bucket would be full again (the generic cell rate
//! algorithm). Addresses are hashed into sets of a few places, so memory is bounded whoever asks. A place has the
//! name of its address; who finds none takes over the one that is fullest again, and its last owner is forgotten. That is
//! the lax side, on purpose: whoever has a network of many addresses passes a limit of each address anyway, and must
//! not be able to use up the limits of strangers. No lock: a request costs one hash and one exchange on a word that
//! only its own address touches.
//!
//! Invariant: a place never lies further ahead of now than the burst is long.

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};

use crate::message::{Error, Request};

/// Sets of places: 16 384, which are 65 536 places in 768 KiB. With ten thousand addresses active at once, one set in
/// three hundred has more than it has places for.
const SETS: usize = 1 << 14;
const PLACES_IN_A_SET: usize = 4;

/// Places of addresses that have one hash.
#[derive(Default)]
struct Set {
    /// Whose places they are: a part of the hash that is not zero. Zero is nobody.
    names: [AtomicU32; PLACES_IN_A_SET],
    /// Nanoseconds on the runtime's clock at which the bucket is full again.
    full_again: [AtomicU64; PLACES_IN_A_SET],
}

/// A limit per client address or key of the program, for a [`before`](crate::Router::before) hook: 429 with `Retry-After` beyond it.
///
/// Make one for the whole server and clone it into the router of each worker: all clones count together.
/// IPv6 addresses are taken by their /64 network, which is what one client gets.
///
/// ```
/// use netpoll_http::{App, RateLimit, Request, Router};
///
/// let limit = RateLimit::per_address(100, 2); // a hundred a second, two at once
/// let client = App::new(move |_worker| {
///     let limit = limit.clone();
///     Router::new().get("/", |_: &Request| "hello").before(move |req: &Request| limit.check(req))
/// })
/// .test();
/// assert_eq!(client.get("/").status, 200);
/// assert_eq!(client.get("/").status, 200);
/// assert_eq!(client.get("/").status, 429);
/// ```
///
/// Behind a proxy every request has the proxy's address, unless a [`Forwarded`](crate::Forwarded) hook in front has found the client's. Requests
/// over a Unix socket, which come from a neighbour such as a proxy and have no IP address, are not limited else.
#[derive(Clone)]
pub struct RateLimit {
    shared: Arc<Shared>,
}

struct Shared {
    sets: Box<[Set]>,
    hasher: RandomState,
    /// Time that one request uses up.
    step_nanos: u64,
    /// How far ahead of now a bucket may be.
    burst_nanos: u64,
}

impl RateLimit {
    /// So many requests per second of each address in the long run, and `burst` at once.
    ///
    /// # Panics
    /// If one of them is zero, or the rate is above a thousand million, where a request would take no time.
    #[must_use]
    #[track_caller]
    pub fn per_address(requests_per_second: u32, burst: u32) -> Self {
        assert!(requests_per_second > 0 && burst > 0, "a limit of zero lets nobody in");
        assert!(requests_per_second <= 1_000_000_000, "a rate is at most one request per nanosecond");
        let step_nanos = 1_000_000_000 / u64::from(requests_per_second);
        let sets = (0..SETS).map(|_| Set::default()).collect();
        let burst_nanos = step_nanos * u64::from(burst);
        Self { shared: Arc::new(Shared { sets, hasher: RandomState::new(), step_nanos, burst_nanos }) }
    }

    /// The same by keys of the program: see [`check_key`](Self::check_key).
    ///
    /// # Panics
    /// As [`per_address`](Self::per_address).
    #[must_use]
    #[track_caller]
    pub fn per_key(requests_per_second: u32, burst: u32) -> Self {
        Self::per_address(requests_per_second, burst)
    }

    /// Counts a request for the address of its client ([`Request::client_ip`]).
    ///
    /// # Errors
    /// 429 with `Retry-After` if its address is over the limit; the request is not counted then.
    pub fn check(&self, request: &Request<'_>) -> Result<(), Error> {
        let Some(ip) = request.client_ip() else { return Ok(()) };
        let wait = self.shared.take(&network(ip), request.arrived().as_nanos());
        wait.map_or(Ok(()), |wait| Err(too_many(wait, "too many requests from this address")))
    }

    /// Counts a request for whatever it is to be counted by: a user, a key of an interface, a route.
    ///
    /// ```
    /// use netpoll_http::{App, Method, RateLimit, Request, Router, StatusCode};
    ///
    /// let limit = RateLimit::per_key(10, 1);
    /// let client = App::new(move |_worker| {
    ///     let limit = limit.clone();
    ///     Router::new().get("/", |_: &Request| "hello").before(move |req: &Request| {
    ///         let key = req.header_str("x-api-key").ok_or(StatusCode::UNAUTHORIZED)?;
    ///         limit.check_key(key, req)
    ///     })
    /// })
    /// .test();
    /// let ask = |key: &str| client.request(Method::GET, "/").header("X-Api-Key", key).send().status;
    /// assert_eq!([ask("a"), ask("a"), ask("b")].map(|status| status.as_u16()), [200, 429, 200]);
    /// ```
    ///
    /// # Errors
    /// 429 with `Retry-After` if the key is over the limit; the request is not counted then.
    pub fn check_key<K: Hash + ?Sized>(&self, key: &K, request: &Request<'_>) -> Result<(), Error> {
        let wait = self.shared.take(key, request.arrived().as_nanos());
        wait.map_or(Ok(()), |wait| Err(too_many(wait, "too many requests")))
    }
}

impl Shared {
    /// How long to wait if there is no room now.
    fn take<K: Hash + ?Sized>(&self, key: &K, now: u64) -> Option<Duration> {
        let hash = self.hasher.hash_one(key);
        let place = self.sets[hash as usize % SETS].place((hash >> 32) as u32 | 1);
        // Only this word is decided upon, and nothing else is published with it: relaxed is enough.
        let taken = place.fetch_update(Relaxed, Relaxed, |full_again| {
            let next = full_again.max(now) + self.step_nanos;
            (next - now <= self.burst_nanos).then_some(next)
        });
        let full_again = taken.err()?;
        Some(Duration::from_nanos(full_again + self.step_nanos - self.burst_nanos - now))
    }
}

impl Set {
    /// The place with this name. Two that take one over at the same time share it until one of them asks again.
    fn place(&self, name: u32) -> &AtomicU64 {
        if let Some(own) = self.names.iter().position(|known| known.load(Relaxed) == name) {
            return &self.full_again[own];
        }
        let fullest =
            (0..PLACES_IN_A_SET).min_by_key(|place| self.full_again[*place].load(Relaxed)).unwrap_or(0);
        self.names[fullest].store(name, Relaxed);
        self.full_again[fullest].store(0, Relaxed);
        &self.full_again[fullest]
    }
}

/// What one client has: an IPv4 address, or an IPv6 network.
fn network(address: IpAddr) -> [u8; 8] {
    match address.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            [0, 0, 0, 0, a, b, c, d]
        }
        IpAddr::V6(ip) => ip.octets().first_chunk().copied().unwrap_or_default(),
    }
}

#[cold]
fn too_many(wait: Duration, text: &'static str) -> Error {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    Error::new(StatusCode::TOO_MANY_REQUESTS, text).with_header(RETRY_AFTER, HeaderValue::from(seconds))
}

impl fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { step_nanos, burst_nanos, .. } = *self.shared;
        let (rate, burst) = (1_000_000_000 / step_nanos, burst_nanos / step_nanos);
        write!(f, "RateLimit({rate}/s, {burst} at once)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn allowed(limit: &RateLimit, address: &str, now: u64) -> bool {
        limit.shared.take(&network(address.parse().unwrap()), now).is_none()
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let limit = RateLimit::per_address(10, 5);
        let at_once = (0..20).filter(|_| allowed(&limit, "10.0.0.1", SECOND)).count();
        assert_eq!(at_once, 5);
        let in_ten_seconds =
            (0..1000).filter(|step| allowed(&limit, "10.0.0.1", SECOND + step * SECOND / 100)).count();
        assert_eq!(in_ten_seconds, 99, "ten a second from the first tenth on");
    }

    #[test]
    fn addresses_have_limits_of_their_own_and_ipv6_networks_share_one() {
        let limit = RateLimit::per_address(1, 1);
        assert!(allowed(&limit, "2001:db8::1", 0) && !allowed(&limit, "2001:db8::2", 0));
        assert!(allowed(&limit, "2001:db8:0:1::1", 0));
        assert!(allowed(&limit, "10.0.0.1", 0) && !allowed(&limit, "::ffff:10.0.0.1", 0));
    }

    #[test]
    fn strangers_are_let_in_whatever_one_network_of_many_addresses_asks() {
        let limit = RateLimit::per_address(1, 1);
        for network in 0..=u16::MAX {
            for _ in 0..2 {
                let _ = allowed(&limit, &format!("2001:db8:1:{network:x}::1"), SECOND);
            }
        }
        for stranger in 0..1000 {
            assert!(
                allowed(&limit, &format!("10.0.{}.{}", stranger / 250, stranger % 250), SECOND),
                "{stranger}"
            );
        }
    }

    #[test]
    fn addresses_of_one_set_have_limits_of_their_own() {
        let set = Set::default();
        for name in 1..=4 {
            set.place(name).store(u64::from(name) * SECOND, Relaxed);
        }
        assert!((1..=4).all(|name| set.place(name).load(Relaxed) == u64::from(name) * SECOND));
        assert_eq!(set.place(5).load(Relaxed), 0, "in the place of the first");
        assert_eq!(set.place(4).load(Relaxed), 4 * SECOND);
    }

    #[test]
    fn whoever_is_refused_is_told_when_to_come_back() {
        let limit = RateLimit::per_address(1, 2);
        let address = "10.0.0.1";
        assert_eq!(limit.shared.take(address, 0), None);
        assert_eq!(limit.shared.take(address, 0), None);
        assert_eq!(limit.shared.take(address, 0), Some(Duration::from_secs(1)));
        assert_eq!(limit.shared.take(address, SECOND / 4), Some(Duration::from_millis(750)));
        assert_eq!(limit.shared.take(address, SECOND), None);
    }
}
