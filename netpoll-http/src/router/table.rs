//! The compile-time router: [`route_table!`](crate::route_table).
//!
//! The compiler checks the patterns and sorts them. Literal paths become comparisons with constants, first of
//! a tag of eight bytes and the length, then of the rest, so a route's number is a constant wherever it is found
//! and the caller's dispatch on it folds into them. Shapes with parameters are looked up by the text before
//! the first parameter, its *prefix*; those with the same prefix are tried one after the other.
//!
//! Invariant: `candidates` hold every shape with parameters once, best first, so the first that
//! matches is the answer; literal shapes are found by the comparisons only. Longest prefix first is right:
//! where the shorter one ends, the longer one has a literal and the other a parameter.
//! Built by constant evaluation, never changed. Nothing allocates.

mod checked;

use super::Found;
use super::pattern::{Pattern, same};
use super::scan::head;
use crate::message::{PATH_BYTES_MAX, Params};

pub use super::pattern::is_literal;
pub use super::scan::tag;
pub use checked::Checked;

/// A table that [`route_table!`](crate::route_table) made: method and path in, the route's number out.
pub trait Table {
    /// What the compiler found out about the routes.
    fn routes() -> &'static Routes;

    /// Finds the number of the route: its place in the list that the macro was given, from 0.
    ///
    /// Takes the method (case-sensitive) and the raw path (without the query). `params` is
    /// overwritten, as by [`Tree::find`](super::Tree::find), with the same rules.
    #[inline(always)]
    fn find(method: &str, path: &str, params: &mut Params) -> Found<'static, usize> {
        Self::find_bytes(method, path.as_bytes(), params)
    }

    /// The same for a path that is not known to be text.
    fn find_bytes(method: &str, path: &[u8], params: &mut Params) -> Found<'static, usize>;
}

/// Makes a compile-time route table: a type that implements [`Table`](crate::router::Table).
///
/// A pattern that is flawed, or that matches the same paths as another one of the same method, does
/// not compile. Methods are written in capitals; one that is no identifier as text, such as `"M-SEARCH"`. Routes have the numbers 0, 1, 2, … in the order
/// written; the order has no other meaning.
///
/// ```
/// use netpoll_http::router::{Found, Params, Table};
///
/// netpoll_http::route_table! {
///     struct Shop {
///         GET "/plaintext",
///         GET "/orders/{id}",
///         POST "/orders",
///     }
/// }
///
/// let mut params = Params::new();
/// assert_eq!(Shop::find("GET", "/plaintext", &mut params), Found::Route(0));
/// assert_eq!(Shop::find("HEAD", "/orders/7", &mut params), Found::Route(1));
/// assert_eq!(params.get("id", "/orders/7"), Some("7"));
/// assert_eq!(Shop::find("GET", "/orders", &mut params), Found::MethodNotAllowed("POST"));
/// assert_eq!(Shop::find("GET", "/", &mut params), Found::NotFound);
/// ```
///
/// A conflict: `route GET "/orders/{number}" matches the same paths as GET "/orders/{id}"`.
///
/// ```compile_fail,E0080
/// netpoll_http::route_table! {
///     struct Shop { GET "/orders/{id}", GET "/orders/{number}" }
/// }
/// ```
///
/// A flaw: `route pattern "/orders/{}": a parameter needs a name: `{name}` or `{*name}``.
///
/// ```compile_fail,E0080
/// netpoll_http::route_table! {
///     struct Shop { GET "/orders/{}" }
/// }
/// ```
#[macro_export]
macro_rules! route_table {
    (@method $method:ident) => { ::core::stringify!($method) };
    (@method $method:literal) => { $method };
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($method:tt $pattern:literal),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug)]
        $vis struct $name;

        const _: () = {
            use $crate::router::table as t;

            // A thousand routes take a while, as the compiler would rather warn of.
            #[allow(long_running_const_eval)]
            static CHECKED: t::Checked<{ <[&str]>::len(&[$($pattern),*]) }> =
                t::Checked::new([$(($crate::route_table!(@method $method), $pattern)),*]);
            #[allow(long_running_const_eval)]
            static ALLOW: [u8; CHECKED.allow_bytes()] = CHECKED.allow();
            #[allow(long_running_const_eval)]
            static ROUTES: t::Routes = CHECKED.routes(&ALLOW);

            impl t::Table for $name {
                #[inline]
                fn routes() -> &'static t::Routes {
                    &ROUTES
                }

                #[inline(always)]
                fn find_bytes(
                    method: &str,
                    path: &[u8],
                    params: &mut $crate::router::Params,
                ) -> $crate::router::Found<'static, usize> {
                    params.clear();
                    // A switch over numbers, and one comparison of a known length.
                    #[allow(unused_variables, reason = "a table may have no literal path")]
                    let tag = t::tag(path);
                    // Items and no `const { .. }`: with a thousand of those in one function the compiler takes minutes.
                    $({
                        const PATH: &[u8] = $pattern.as_bytes();
                        const IS_LITERAL: bool = t::is_literal($pattern);
                        const TAG: u64 = t::tag(PATH);
                        if IS_LITERAL && tag == TAG && path == PATH {
                            const METHOD: &str = $crate::route_table!(@method $method);
                            const NUMBER: usize = ROUTES.number(METHOD, $pattern);
                            return if method == METHOD {
                                $crate::router::Found::Route(NUMBER)
                            } else {
                                ROUTES.find_method(NUMBER, method)
                            };
                        }
                    })*
                    ROUTES.find_with_params(method, path, params)
                }
            }
        };
    };
}

/// The routes of a [`Table`], for dispatch, listings and messages.
#[derive(Debug)]
pub struct Routes {
    routes: &'static [Route],
    /// Indexes into `routes`, sorted by the hash of the shape.
    by_shape: &'static [usize],
    buckets: &'static [Bucket],
    candidates: &'static [Candidate],
    /// All `Allow` values, one after the other.
    allow: &'static str,
}

/// One route of a [`Table`].
#[derive(Clone, Copy, Debug)]
pub struct Route {
    method: &'static str,
    pattern: Pattern<'static>,
    /// The first route of the same shape.
    group: usize,
    /// The next route of the same shape, or `usize::MAX`.
    next: usize,
    /// Where this shape's `Allow` value lies; set for the first of a group only.
    allow_start: usize,
    allow_end: usize,
}

impl Route {
    const NONE: Route = Route {
        method: "",
        pattern: Pattern::NONE,
        group: 0,
        next: usize::MAX,
        allow_start: 0,
        allow_end: 0,
    };

    /// The method.
    pub const fn method(&self) -> &'static str {
        self.method
    }

    /// The pattern as it was written.
    pub const fn pattern(&self) -> &'static str {
        self.pattern.text()
    }
}

/// Shapes whose prefixes have one length. Buckets stand by falling length.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    prefix_bytes: usize,
    /// Into `candidates`.
    start: usize,
    end: usize,
}

/// A shape with parameters. In a bucket, sorted by key, then by [`Pattern::order`].
#[derive(Clone, Copy, Debug)]
struct Candidate {
    /// The last eight bytes of the prefix, or all of a shorter one; the first byte lowest.
    key: u64,
    /// The first route of the shape.
    group: usize,
}

impl Bucket {
    /// What the key of a matching candidate must be; `None` if the path is too short for any.
    #[inline]
    fn key(&self, path: &[u8], head: u64) -> Option<u64> {
        if path.len() <= self.prefix_bytes {
            return None;
        }
        match self.prefix_bytes.checked_sub(8) {
            Some(start) => path[start..].first_chunk::<8>().map(|chunk| u64::from_le_bytes(*chunk)),
            None => Some(head & !(u64::MAX << (8 * self.prefix_bytes))),
        }
    }
}

impl Routes {
    /// All routes; the index is the number.
    pub const fn list(&self) -> &'static [Route] {
        self.routes
    }

    /// The number of the route that was written as `method "pattern"`. A binary search.
    ///
    /// # Panics
    /// If there is none; in a constant, that is a compile error.
    pub const fn number(&self, method: &str, pattern: &str) -> usize {
        let Ok(wanted) = Pattern::parse(pattern) else { panic!("no such route") };
        let (mut start, mut end) = (0, self.by_shape.len());
        while start < end {
            let middle = usize::midpoint(start, end);
            if self.routes[self.by_shape[middle]].pattern.shape() < wanted.shape() {
                start = middle + 1;
            } else {
                end = middle;
            }
        }
        while start < self.by_shape.len() {
            let route = &self.routes[self.by_shape[start]];
            if route.pattern.shape() != wanted.shape() {
                break;
            }
            if same(route.pattern.text(), pattern) && same(route.method, method) {
                return self.by_shape[start];
            }
            start += 1;
        }
        panic!("no such route")
    }

    /// Looks for `method` among the routes that have the shape of route `number`.
    #[doc(hidden)]
    #[inline(never)]
    pub fn find_method(&self, number: usize, method: &str) -> Found<'static, usize> {
        let group = self.routes[number].group;
        let found = self.number_in(group, method).or_else(|| match method {
            "HEAD" => self.number_in(group, "GET"),
            _ => None,
        });
        found.map_or_else(|| self.not_allowed(group), Found::Route)
    }

    /// Looks for a shape with parameters.
    #[doc(hidden)]
    #[inline(never)]
    pub fn find_with_params(&self, method: &str, path: &[u8], params: &mut Params) -> Found<'static, usize> {
        match self.group(path, params) {
            Some(group) => {
                let found = self.find_method(group, method);
                if let Found::Route(number) = found {
                    params.name(self.routes[number].pattern.names());
                }
                found
            }
            None => Found::NotFound,
        }
    }

    #[inline]
    fn group(&self, path: &[u8], params: &mut Params) -> Option<usize> {
        if path.len() > PATH_BYTES_MAX {
            return None;
        }
        let head = head(path);
        for bucket in self.buckets {
            let Some(key) = bucket.key(path, head) else { continue };
            let candidates = &self.candidates[bucket.start..bucket.end];
            let first = candidates.partition_point(|candidate| candidate.key < key);
            for candidate in &candidates[first..] {
                if candidate.key != key {
                    break;
                }
                let pattern = &self.routes[candidate.group].pattern;
                // The key vouches for the last eight bytes of the prefix.
                let front = &pattern.prefix().as_bytes()[..bucket.prefix_bytes.saturating_sub(8)];
                if (front.is_empty() || path.starts_with(front))
                    && pattern.matches_behind_prefix(path, params)
                {
                    return Some(candidate.group);
                }
            }
        }
        None
    }

    #[inline]
    fn number_in(&self, group: usize, method: &str) -> Option<usize> {
        let mut number = group;
        // `next` of the last one is out of range.
        while let Some(route) = self.routes.get(number) {
            if route.method == method {
                return Some(number);
            }
            number = route.next;
        }
        None
    }

    fn not_allowed(&self, group: usize) -> Found<'static, usize> {
        let route = &self.routes[group];
        Found::MethodNotAllowed(&self.allow[route.allow_start..route.allow_end])
    }
}
