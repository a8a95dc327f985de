//! What `route_table!` has the compiler do: check the routes, group them, sort them.
//!
//! Invariant: a `Checked` exists only for patterns without flaw and without conflict, and is what
//! [`Routes`] promises. Runs in constant evaluation only, so it is written in loops that `const`
//! allows. Routes of one shape are found by sorting, so that a thousand take the compiler no minute; shapes with
//! parameters are sorted by insertion, which is quadratic in their number.

use super::{Bucket, Candidate, Route, Routes};
use crate::router::pattern::{Pattern, same};

/// The work of constant evaluation; only `route_table!` touches it.
#[doc(hidden)]
#[derive(Debug)]
pub struct Checked<const N: usize> {
    routes: [Route; N],
    by_shape: [usize; N],
    buckets: [Bucket; N],
    bucket_count: usize,
    candidates: [Candidate; N],
    candidate_count: usize,
    allow_bytes: usize,
}

impl<const N: usize> Checked<N> {
    /// Checks all patterns, finds those of one shape, and sorts the shapes.
    ///
    /// # Panics
    /// On a flaw or a conflict, with a sentence that names the patterns.
    pub const fn new(list: [(&'static str, &'static str); N]) -> Checked<N> {
        let mut checked = Checked {
            routes: [Route::NONE; N],
            by_shape: [0; N],
            buckets: [Bucket { prefix_bytes: 0, start: 0, end: 0 }; N],
            bucket_count: 0,
            candidates: [Candidate { key: 0, group: 0 }; N],
            candidate_count: 0,
            allow_bytes: 0,
        };
        let mut number = 0;
        while number < N {
            let (method, text) = list[number];
            check_method(method);
            let pattern = match Pattern::parse(text) {
                Ok(pattern) => pattern,
                Err(flaw) => fail(&["route pattern \"", text, "\": ", flaw.sentence()]),
            };
            checked.routes[number] = Route { method, pattern, group: number, ..Route::NONE };
            number += 1;
        }
        checked.join_groups();
        number = 0;
        while number < N {
            if checked.routes[number].group == number && !checked.routes[number].pattern.is_literal() {
                checked.place_candidate(number);
            }
            number += 1;
        }
        checked.fill_buckets();
        checked.measure_allow();
        checked
    }

    /// Links the routes of each shape, in their order.
    const fn join_groups(&mut self) {
        let sorted = self.sorted_by_shape();
        let mut at = 1;
        while at < N {
            self.join_group(&sorted, at);
            at += 1;
        }
        self.by_shape = sorted;
    }

    /// The numbers of the routes, sorted by the hash of their shape and then by number: a merge sort.
    const fn sorted_by_shape(&self) -> [usize; N] {
        let (mut sorted, mut merged) = ([0; N], [0; N]);
        let mut at = 0;
        while at < N {
            sorted[at] = at;
            at += 1;
        }
        let mut run = 1;
        while run < N {
            let mut start = 0;
            while start < N {
                let middle = if start + run < N { start + run } else { N };
                let end = if middle + run < N { middle + run } else { N };
                let (mut left, mut right, mut to) = (start, middle, start);
                while to < end {
                    let takes_left = right == end
                        || left < middle
                            && self.routes[sorted[left]].pattern.shape()
                                <= self.routes[sorted[right]].pattern.shape();
                    if takes_left {
                        merged[to] = sorted[left];
                        left += 1;
                    } else {
                        merged[to] = sorted[right];
                        right += 1;
                    }
                    to += 1;
                }
                start = end;
            }
            sorted = merged;
            run *= 2;
        }
        sorted
    }

    /// Links a route to earlier ones of the same shape, which stand right before it.
    const fn join_group(&mut self, sorted: &[usize; N], at: usize) {
        let (routes, mut last) = (&self.routes, usize::MAX);
        let number = sorted[at];
        let route = &routes[number];
        let mut before = at;
        while before > 0 && routes[sorted[before - 1]].pattern.shape() == route.pattern.shape() {
            before -= 1;
            let existing = &routes[sorted[before]];
            // Equal hashes nearly always mean equal shapes.
            if existing.pattern.has_same_shape(&route.pattern) {
                if same(existing.method, route.method) {
                    let (new, old) = (route.pattern.text(), existing.pattern.text());
                    let (method, middle) = (route.method, "\" matches the same paths as ");
                    fail(&["route ", method, " \"", new, middle, method, " \"", old, "\""])
                }
                if last == usize::MAX {
                    last = sorted[before];
                }
            }
        }
        if last != usize::MAX {
            self.routes[last].next = number;
            self.routes[number].group = self.routes[last].group;
        }
    }

    /// Sorts a shape in by falling length of its prefix, then key, then order.
    const fn place_candidate(&mut self, group: usize) {
        let pattern = &self.routes[group].pattern;
        let (length, key) = (pattern.prefix().len(), key(pattern.prefix()));
        let mut place = self.candidate_count;
        while place > 0 {
            let other = self.candidates[place - 1];
            let other_pattern = &self.routes[other.group].pattern;
            let other_length = other_pattern.prefix().len();
            let is_behind = other_length < length
                || other_length == length
                    && (other.key > key || other.key == key && other_pattern.order() > pattern.order());
            if !is_behind {
                break;
            }
            self.candidates[place] = other;
            place -= 1;
        }
        self.candidates[place] = Candidate { key, group };
        self.candidate_count += 1;
    }

    const fn fill_buckets(&mut self) {
        let mut place = 0;
        while place < self.candidate_count {
            let prefix_bytes = self.routes[self.candidates[place].group].pattern.prefix().len();
            if self.bucket_count == 0 || self.buckets[self.bucket_count - 1].prefix_bytes != prefix_bytes {
                self.buckets[self.bucket_count] = Bucket { prefix_bytes, start: place, end: place };
                self.bucket_count += 1;
            }
            place += 1;
            self.buckets[self.bucket_count - 1].end = place;
        }
    }

    const fn measure_allow(&mut self) {
        let mut number = 0;
        while number < N {
            if self.routes[number].group == number {
                self.routes[number].allow_start = self.allow_bytes;
                self.allow_bytes += write_allow(&self.routes, number, &mut []);
                self.routes[number].allow_end = self.allow_bytes;
            }
            number += 1;
        }
    }

    /// Length of all `Allow` values together.
    pub const fn allow_bytes(&self) -> usize {
        self.allow_bytes
    }

    /// All `Allow` values, one after the other. `BYTES` is [`Checked::allow_bytes`].
    pub const fn allow<const BYTES: usize>(&self) -> [u8; BYTES] {
        let mut text = [0; BYTES];
        let mut number = 0;
        while number < N {
            if self.routes[number].group == number {
                let own = text.split_at_mut(self.routes[number].allow_start).1;
                write_allow(&self.routes, number, own);
            }
            number += 1;
        }
        text
    }

    /// The finished table. `allow` is [`Checked::allow`].
    ///
    /// # Panics
    /// If `allow` is anything else, and not UTF-8.
    pub const fn routes(&'static self, allow: &'static [u8]) -> Routes {
        let buckets = self.buckets.split_at(self.bucket_count).0;
        let candidates = self.candidates.split_at(self.candidate_count).0;
        match std::str::from_utf8(allow) {
            Ok(allow) => {
                Routes { routes: &self.routes, by_shape: &self.by_shape, buckets, candidates, allow }
            }
            Err(_) => panic!("method names are ASCII"),
        }
    }
}

/// The last eight bytes of a prefix, or all of a shorter one; the first byte lowest.
const fn key(prefix: &str) -> u64 {
    let bytes = prefix.as_bytes();
    let mut key = 0;
    let mut at = bytes.len();
    while at > 0 && bytes.len() - at < 8 {
        at -= 1;
        key = key << 8 | bytes[at] as u64;
    }
    key
}

const fn check_method(method: &str) {
    let bytes = method.as_bytes();
    if bytes.is_empty() {
        fail(&["route method ``: a method has a name"])
    }
    let mut at = 0;
    while at < bytes.len() {
        if !matches!(bytes[at], b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'^' | b'`' | b'|' | b'~')
        {
            fail(&[
                "route method `",
                method,
                "`: methods are tokens and case-sensitive, write it in capitals",
            ])
        }
        at += 1;
    }
}

/// Writes the methods of a group as far as `out` has room; returns how many bytes they need.
const fn write_allow(routes: &[Route], group: usize, out: &mut [u8]) -> usize {
    let mut needs_head = true;
    let mut number = group;
    // `next` of the last one is out of range.
    while number < routes.len() {
        if same(routes[number].method, "HEAD") {
            needs_head = false;
        }
        number = routes[number].next;
    }
    let mut len = 0;
    number = group;
    while number < routes.len() {
        let route = &routes[number];
        len = append(out, len, if len == 0 { "" } else { ", " });
        len = append(out, len, route.method);
        if needs_head && same(route.method, "GET") {
            len = append(out, len, ", HEAD");
        }
        number = route.next;
    }
    len
}

/// Puts `text` at `out[at..]`, as far as there is room; returns where it would end.
const fn append(out: &mut [u8], at: usize, text: &str) -> usize {
    let text = text.as_bytes();
    let mut index = 0;
    while index < text.len() {
        if at + index < out.len() {
            out[at + index] = text[index];
        }
        index += 1;
    }
    at + text.len()
}

/// Ends constant evaluation with a sentence put together from `parts`.
const fn fail(parts: &[&str]) -> ! {
    let mut sentence = [0; 1024];
    let mut len = 0;
    let mut part = 0;
    while part < parts.len() {
        len = append(&mut sentence, len, parts[part]);
        part += 1;
    }
    let len = if len < sentence.len() { len } else { sentence.len() };
    match std::str::from_utf8(sentence.split_at(len).0) {
        Ok(sentence) => panic!("{}", sentence),
        Err(_) => panic!("a route pattern is flawed, and too long to be shown"),
    }
}
