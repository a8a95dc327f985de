//! Parameter values of one matched path, as positions.
//!
//! A matched route leaves the names (known since the route was added) and where each value lies in
//! the path. So `Params` borrows nothing, allocates nothing, is `Copy`, and serves the borrowed
//! request and its owned copy alike, as long as both hand in the same path.
//!
//! Invariant: `values[..names.len()]` belong to the last match; what lies behind is left over.
//! Written by [`Tree`](crate::router::Tree) and [`Table`](crate::router::Table) only. Clearing is one store.

use std::fmt;
use std::sync::{Mutex, PoisonError};

/// Parameters that one pattern may have: 8.
///
/// Real APIs stay below 5; with 8 the list is 80 bytes and needs no allocation.
pub const PARAMS_MAX: usize = 8;

/// Longest path that is matched, in bytes. Positions are 32 bits; a request head is far below.
pub(crate) const PATH_BYTES_MAX: usize = u32::MAX as usize;

/// Where a value lies in the path: `start <= end <= path.len()`, in bytes.
#[derive(Clone, Copy)]
struct Span {
    start: u32,
    end: u32,
}

/// The parameters of a matched route: `{id}` and `{*rest}`, by name or in order.
///
/// Holds positions, not text: hand in the path that was matched. Values are raw, still
/// percent-encoded. 80 bytes, no allocation.
///
/// ```
/// use http::Method;
/// use netpoll_http::router::{Found, Params, Tree};
///
/// let mut tree = Tree::new();
/// tree.insert(Method::GET, "/rooms/{room}/seats/{seat}", "seat")?;
///
/// let path = "/rooms/blue/seats/7%20b";
/// let mut params = Params::new();
/// assert_eq!(tree.find("GET", path, &mut params), Found::Route(&"seat"));
/// assert_eq!(params.get("room", path), Some("blue"));
/// assert_eq!(params.get("seat", path), Some("7%20b"));
/// # Ok::<(), netpoll_http::router::RouteError>(())
/// ```
#[derive(Clone, Copy)]
pub struct Params {
    /// `names.len() <= PARAMS_MAX`.
    names: &'static [&'static str],
    values: [Span; PARAMS_MAX],
}

impl Params {
    /// No parameters.
    #[inline]
    pub const fn new() -> Params {
        Params { names: &[], values: [Span { start: 0, end: 0 }; PARAMS_MAX] }
    }

    /// The raw value of the parameter `name` in `path`.
    ///
    /// `None` when the route has no such parameter, or when `path` is too short to be the path that
    /// was matched. Looks through at most eight names.
    #[inline]
    pub fn get<'p>(&self, name: &str, path: &'p str) -> Option<&'p str> {
        let index = self.names.iter().position(|known| *known == name)?;
        self.value(index, path)
    }

    /// The raw value of the parameter at `index`, counted from the left of the pattern.
    #[inline]
    pub fn value<'p>(&self, index: usize, path: &'p str) -> Option<&'p str> {
        if index >= self.names.len() {
            return None;
        }
        let span = self.values[index];
        path.get(span.start as usize..span.end as usize)
    }

    /// Names and raw values, from the left of the pattern to the right.
    pub fn iter<'p>(&self, path: &'p str) -> impl Iterator<Item = (&'static str, &'p str)> {
        (0..self.names.len()).filter_map(move |index| Some((self.names[index], self.value(index, path)?)))
    }

    /// The names, from the left of the pattern to the right.
    #[inline]
    pub const fn names(&self) -> &'static [&'static str] {
        self.names
    }

    /// How many parameters there are.
    #[inline]
    pub const fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether the route has no parameters, or nothing was matched.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Forgets the parameters.
    #[inline]
    pub const fn clear(&mut self) {
        self.names = &[];
    }

    /// Puts down the value of parameter `index`; it shows once `name` was called.
    #[inline]
    pub(crate) fn set(&mut self, index: usize, start: usize, end: usize) {
        debug_assert!(start <= end && end <= PATH_BYTES_MAX);
        self.values[index] = Span { start: start as u32, end: end as u32 };
    }

    /// Makes the first `names.len()` values visible.
    #[inline]
    pub(crate) fn name(&mut self, names: &'static [&'static str]) {
        debug_assert!(names.len() <= PARAMS_MAX);
        self.names = names;
    }
}

impl Default for Params {
    fn default() -> Params {
        Params::new()
    }
}

impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.names.iter().zip(&self.values);
        f.debug_map().entries(values.map(|(name, span)| (name, span.start..span.end))).finish()
    }
}

/// Keeps a list of parameter names for the life of the process, once per distinct list.
///
/// This is what lets [`Params`] be `Copy` and free of lifetimes and reference counts. A program has
/// as many lists as it has kinds of routes, however many workers and trees it builds. Takes a lock;
/// called when a route is added, never when one is found.
pub(crate) fn intern(names: &[&str]) -> &'static [&'static str] {
    static KNOWN: Mutex<Vec<&'static [&'static str]>> = Mutex::new(Vec::new());
    if names.is_empty() {
        return &[];
    }
    // A panic cannot leave the list half changed, so a poisoned lock is as good as any.
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(list) = known.iter().find(|list| ***list == *names) {
        return list;
    }
    let list: Vec<&'static str> = names.iter().map(|name| &*Box::leak(Box::from(*name))).collect();
    let list: &'static [&'static str] = list.leak();
    known.push(list);
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_by_name_and_by_position() {
        let mut params = Params::new();
        params.set(0, 1, 3);
        params.set(1, 4, 5);
        params.name(&["a", "b"]);

        assert_eq!(params.get("a", "/xy/z"), Some("xy"));
        assert_eq!(params.get("b", "/xy/z"), Some("z"));
        assert_eq!(params.get("c", "/xy/z"), None);
        assert_eq!(params.value(2, "/xy/z"), None);
        assert_eq!(params.iter("/xy/z").collect::<Vec<_>>(), [("a", "xy"), ("b", "z")]);
    }

    #[test]
    fn a_path_that_was_not_matched_gives_nothing_instead_of_a_panic() {
        let mut params = Params::new();
        params.set(0, 1, 3);
        params.name(&["a"]);

        assert_eq!(params.get("a", "/"), None);
        assert_eq!(params.get("a", "/aä"), None, "would cut a character");
    }

    #[test]
    fn cleared_params_are_empty() {
        let mut params = Params::new();
        params.set(0, 1, 3);
        params.name(&["a"]);
        params.clear();

        assert!(params.is_empty());
        assert_eq!(params.get("a", "/xy"), None);
    }

    #[test]
    fn equal_name_lists_are_kept_once() {
        let (first, second) = (intern(&["id", "line"]), intern(&["id", "line"]));
        assert!(std::ptr::eq(first, second));
        assert_ne!(first, intern(&["id"]));
    }
}
