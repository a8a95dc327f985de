//! What was found out about one head, as positions instead of references.
//!
//! An index borrows nothing, so a synchronous handler reads it together with the read block, and an
//! asynchronous one keeps a clone next to its own copy of the head.
//!
//! Invariant: an entry below `count` is a range of the head that was parsed last; entries from `count`
//! on are left over from earlier heads and never read. That is why a worker keeps one index for all
//! its heads: starting a new one writes a dozen bytes and does not clear a hundred entries, and what was found
//! out is written where it is read later, instead of being moved there.

use super::request::{HeadParts, Method, Span};

/// How many headers an index holds; the upper bound of [`Limits::headers_max`](super::Limits).
pub const HEADERS_MAX: usize = 100;

/// Headers whose position is noted while parsing, so that looking one up is a load instead of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Known {
    /// `Host`
    Host,
    /// `Connection`
    Connection,
    /// `Content-Length`
    ContentLength,
    /// `Transfer-Encoding`
    TransferEncoding,
    /// `Expect`
    Expect,
    /// `Upgrade`
    Upgrade,
    /// `Content-Type`
    ContentType,
    /// `Cookie`
    Cookie,
}

const KNOWN: usize = 8;
/// The slot of all other headers.
const OTHER: usize = KNOWN;
const ABSENT: u8 = u8::MAX;
const _: () = assert!(HEADERS_MAX < ABSENT as usize);

impl Known {
    /// The slot of the header whose name and colon `line` begins with, in any case, and the bytes of that
    /// name; `None` if it is not a known one.
    #[inline(always)]
    pub(super) fn of_line(line: &[u8]) -> Option<(Slot, usize)> {
        let known = |known: Known, name_len| Some((known.slot(), name_len));
        match line.first()? | 0x20 {
            b'h' if begins(line, b"host:") => known(Known::Host, 4),
            b'c' if begins(line, b"connection:") => known(Known::Connection, 10),
            b'c' if begins(line, b"content-length:") => known(Known::ContentLength, 14),
            b'c' if begins(line, b"content-type:") => known(Known::ContentType, 12),
            b'c' if begins(line, b"cookie:") => known(Known::Cookie, 6),
            b'e' if begins(line, b"expect:") => known(Known::Expect, 6),
            b'u' if begins(line, b"upgrade:") => known(Known::Upgrade, 7),
            b't' if begins(line, b"transfer-encoding:") => known(Known::TransferEncoding, 17),
            _ => None,
        }
    }

    /// Where in the index the header's first line is noted.
    #[inline]
    fn slot(self) -> Slot {
        Slot(self as u8)
    }
}

/// A known header, or all others together: `0..=OTHER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(u8);

impl Slot {
    pub(super) const OTHER: Slot = Slot(OTHER as u8);
    pub(super) const CONNECTION: Slot = Slot(Known::Connection as u8);

    #[inline(always)]
    fn at(self) -> usize {
        usize::from(self.0)
    }
}

/// True if `line` begins with a lower-case pattern, in any case.
///
/// Compares words; the last one may overlap. Exact for any bytes: a bit is ignored in place of letters only.
#[inline(always)]
pub(super) fn begins<const N: usize>(line: &[u8], pattern: &[u8; N]) -> bool {
    const { assert!(N >= 4 && N <= 24) };
    let Some(line) = line.first_chunk::<N>() else { return false };
    if N < 8 {
        return has_half_word(line, pattern, 0) && has_half_word(line, pattern, N - 4);
    }
    has_word(line, pattern, 0) && has_word(line, pattern, N - 8) && (N <= 16 || has_word(line, pattern, 8))
}

#[inline(always)]
fn has_word<const N: usize>(line: &[u8; N], pattern: &[u8; N], start: usize) -> bool {
    let word = line[start..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
    word | letters(pattern, start) == letter_word(pattern, start)
}

#[inline(always)]
fn has_half_word<const N: usize>(line: &[u8; N], pattern: &[u8; N], start: usize) -> bool {
    let word = line[start..].first_chunk().map_or(0, |word| u32::from_le_bytes(*word));
    word | letters(pattern, start) as u32 == letter_word(pattern, start) as u32
}

/// Up to eight bytes of a pattern.
#[inline(always)]
const fn letter_word<const N: usize>(pattern: &[u8; N], start: usize) -> u64 {
    let (mut word, mut at) = (0, 0);
    while at < 8 && start + at < N {
        word |= (pattern[start + at] as u64) << (8 * at);
        at += 1;
    }
    word
}

/// The bit that tells a lower-case letter from its upper-case one, for each letter of these.
#[inline(always)]
const fn letters<const N: usize>(pattern: &[u8; N], start: usize) -> u64 {
    let (mut word, mut at) = (0, 0);
    while at < 8 && start + at < N {
        if pattern[start + at].is_ascii_lowercase() {
            word |= 0x20 << (8 * at);
        }
        at += 1;
    }
    word
}

/// True if two names of one length are the same but for the case of their letters.
#[inline(always)]
fn is_same_name(name: &[u8], wanted: &[u8]) -> bool {
    let bytes = wanted.len();
    if let (Some(first), Some(wanted_first)) = (name.first_chunk(), wanted.first_chunk())
        && let (Some(last), Some(wanted_last)) = (name.last_chunk(), wanted.last_chunk())
    {
        let are_same = |name: &[u8; 8], wanted: &[u8; 8]| {
            are_same_letters(u64::from_le_bytes(*name), u64::from_le_bytes(*wanted))
        };
        return are_same(first, wanted_first)
            && are_same(last, wanted_last)
            && (bytes <= 16 || name[8..bytes - 8].eq_ignore_ascii_case(&wanted[8..bytes - 8]));
    }
    if let (Some(first), Some(wanted_first)) = (name.first_chunk(), wanted.first_chunk())
        && let (Some(last), Some(wanted_last)) = (name.last_chunk(), wanted.last_chunk())
    {
        let joined = |first: &[u8; 4], last: &[u8; 4]| {
            u64::from(u32::from_le_bytes(*last)) << 32 | u64::from(u32::from_le_bytes(*first))
        };
        return are_same_letters(joined(first, last), joined(wanted_first, wanted_last));
    }
    name.eq_ignore_ascii_case(wanted)
}

/// The same where the name that is wanted is not known when this is compiled.
#[inline(never)]
fn is_same_name_as(wanted: &str, name: &[u8]) -> bool {
    is_same_name(name, wanted.as_bytes())
}

/// The same of eight bytes of ASCII, at once.
#[inline(always)]
fn are_same_letters(name: u64, wanted: u64) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // The top bit of a byte of the wanted one that is a letter in any case, moved to the bit by which the cases differ. What is wanted is mostly known
    // when this is compiled, and so is this.
    let lower = (wanted | (ONES * 0x20)) & (ONES * 0x7f);
    let letters = (lower + ONES * (0x80 - b'a' as u64)) & !(lower + ONES * (0x7f - b'z' as u64)) & !wanted;
    (name ^ wanted) & !((letters & (ONES << 7)) >> 2) == 0
}

/// Ranges of one header line, relative to the start of the head.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Entry {
    name_start: u16,
    name_len: u16,
    value_start: u16,
    value_len: u16,
}

impl Entry {
    /// Notes where name and value are in a head, which is at most 65535 bytes long.
    #[inline(always)]
    pub(super) fn new(name_start: usize, name_len: usize, value_start: usize, value_len: usize) -> Entry {
        Entry {
            name_start: name_start as u16,
            name_len: name_len as u16,
            value_start: value_start as u16,
            value_len: value_len as u16,
        }
    }

    /// The entry of the same line so much further back.
    #[inline(always)]
    fn shifted(self, shift: u16) -> Entry {
        Entry {
            name_start: self.name_start.wrapping_add(shift),
            value_start: self.value_start.wrapping_add(shift),
            ..self
        }
    }

    #[inline]
    fn name<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        let start = usize::from(self.name_start);
        &head[start..start + usize::from(self.name_len)]
    }

    /// The line from its name on, with what follows it.
    fn line<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        &head[usize::from(self.name_start)..]
    }

    #[inline]
    fn value<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        let start = usize::from(self.value_start);
        &head[start..start + usize::from(self.value_len)]
    }
}

/// Positions of up to 100 headers in a head that is kept elsewhere.
///
/// About 900 bytes inline, no allocation. The methods take the head that the index was made for;
/// with other bytes they give nonsense or panic, so prefer [`Head`](super::Head), which keeps the two together.
#[derive(Clone, Debug)]
pub struct HeadIndex {
    parts: HeadParts,
    /// How much further back the lines are than when they were noted, or as much less as this is above a half of its range.
    shift: u16,
    count: u8,
    /// Bit of a slot: that header has more than one line.
    repeated: u16,
    /// The first line of each known header, or `ABSENT`; behind them, of the others.
    known: [u8; KNOWN + 1],
    entries: [Entry; HEADERS_MAX],
}

/// What a head says before its headers.
pub(super) struct RequestLine {
    pub(super) method: Method,
    pub(super) method_name: Span,
    pub(super) target: Span,
    pub(super) path: Span,
    pub(super) query: Option<Span>,
}

impl Default for HeadIndex {
    fn default() -> Self {
        HeadIndex::new()
    }
}

impl HeadIndex {
    /// An empty index. Clears most of a KiB: make one per worker, not one per request.
    pub fn new() -> HeadIndex {
        HeadIndex {
            parts: HeadParts::NONE,
            shift: 0,
            count: 0,
            repeated: 0,
            known: [ABSENT; KNOWN + 1],
            entries: [Entry::default(); HEADERS_MAX],
        }
    }

    /// The index of a head of which nothing is known: its bytes stand for the method.
    pub fn unread(bytes: &[u8]) -> HeadIndex {
        let parts = HeadParts { minor_version: 1, method_name: (0, bytes.len() as u16), ..HeadParts::NONE };
        HeadIndex { parts, ..HeadIndex::new() }
    }

    /// Forgets the previous head.
    #[inline]
    pub(super) fn clear(&mut self) {
        self.shift = 0;
        self.count = 0;
        self.repeated = 0;
        self.known = [ABSENT; KNOWN + 1];
    }

    /// Notes header `at`. The caller counts, and says so at the end.
    #[inline(always)]
    pub(super) fn note(&mut self, at: usize, slot: Slot, entry: Entry) {
        self.entries[at] = entry;
        let first = &mut self.known[slot.at()];
        if *first == ABSENT {
            *first = at as u8;
        } else {
            self.repeated |= 1 << slot.0;
        }
    }

    /// Makes the first `count` entries the headers of the head.
    #[inline(always)]
    pub(super) fn set_count(&mut self, count: usize) {
        debug_assert!(count <= HEADERS_MAX);
        self.count = count as u8;
    }

    /// The same lines, and the host that is among them, are so much further back than they were, behind a request line of these parts.
    #[inline(always)]
    pub(super) fn shift(&mut self, by: u16, line: RequestLine) {
        self.shift = self.shift.wrapping_add(by);
        let parts = &mut self.parts;
        // Without a host it is nowhere, and stays there.
        if let (1.., _) = parts.authority {
            let (start, end) = parts.authority;
            parts.authority = (start.wrapping_add(by), end.wrapping_add(by));
        }
        let RequestLine { method, method_name, target, path, query } = line;
        (parts.method, parts.method_name) = (method, method_name);
        (parts.target, parts.path, parts.query) = (target, path, query);
    }

    /// What the head says besides its headers.
    #[inline]
    pub(super) fn parts(&self) -> &HeadParts {
        &self.parts
    }

    #[inline(always)]
    pub(super) fn set_parts(&mut self, parts: HeadParts) {
        self.parts = parts;
    }

    /// How many header lines there are.
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// True when the head has no header line.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The value of the first line of a known header. O(1).
    #[inline]
    pub fn known<'a>(&self, head: &'a [u8], known: Known) -> Option<&'a [u8]> {
        match self.known[known.slot().at()] {
            ABSENT => None,
            at => Some(self.entry(at).value(head)),
        }
    }

    /// Where the value of the first line of a known header is.
    #[inline]
    pub(super) fn known_span(&self, known: Known) -> Option<Span> {
        match self.known[known.slot().at()] {
            ABSENT => None,
            at => {
                let entry = self.entry(at);
                Some((entry.value_start, entry.value_start + entry.value_len))
            }
        }
    }

    /// True when a known header is there.
    #[inline]
    pub fn has(&self, known: Known) -> bool {
        self.known[known.slot().at()] != ABSENT
    }

    /// True when a known header has more than one line.
    #[inline]
    pub fn is_repeated(&self, known: Known) -> bool {
        self.repeated & (1 << known.slot().0) != 0
    }

    /// Every line of a known header, in order.
    #[inline]
    pub fn known_lines<'a>(&self, head: &'a [u8], known: Known) -> impl Iterator<Item = &'a [u8]> {
        let first = self.known[known.slot().at()];
        let (first, rest) = if first == ABSENT {
            (0, 0)
        } else if self.is_repeated(known) {
            (usize::from(first), self.len())
        } else {
            (usize::from(first), usize::from(first) + 1)
        };
        let shift = self.shift;
        self.entries[first..rest.max(first)]
            .iter()
            .map(move |entry| entry.shifted(shift))
            .filter(move |entry| {
                Known::of_line(entry.line(head)).is_some_and(|(slot, _)| slot == known.slot())
            })
            .map(move |entry| entry.value(head))
    }

    /// The value of the first header with this name, in any case. O(headers).
    pub fn get<'a>(&self, head: &'a [u8], name: &str) -> Option<&'a [u8]> {
        let same = |entry: &Entry| {
            usize::from(entry.name_len) == name.len() && is_same_name_as(name, entry.name(head))
        };
        self.filled().find(same).map(|entry| entry.value(head))
    }

    /// Shows the value of each header with one of these names, in any case, and which of them it is. One walk for all of them.
    #[inline(always)]
    pub fn each_of<'a, const N: usize>(
        &self,
        head: &'a [u8],
        names: [&str; N],
        mut look: impl FnMut(usize, &'a [u8]),
    ) {
        let shortest = names.iter().map(|name| name.len()).min().unwrap_or(0);
        let longest = names.iter().map(|name| name.len()).max().unwrap_or(0);
        for entry in self.filled() {
            // Most are none of them, and of another length.
            if usize::from(entry.name_len).wrapping_sub(shortest) > longest - shortest {
                continue;
            }
            for (at, name) in names.iter().enumerate() {
                if usize::from(entry.name_len) == name.len()
                    && is_same_name(entry.name(head), name.as_bytes())
                {
                    look(at, entry.value(head));
                }
            }
        }
    }

    /// The values of all headers with this name, in any case and in order.
    pub fn all<'a>(&self, head: &'a [u8], name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.all_of(head, name)
    }

    /// The same of a name that is kept meanwhile.
    pub fn all_of<'a>(&self, head: &'a [u8], name: impl AsRef<str>) -> impl Iterator<Item = &'a [u8]> {
        self.filled()
            .filter(move |entry| {
                let name = name.as_ref();
                usize::from(entry.name_len) == name.len() && is_same_name_as(name, entry.name(head))
            })
            .map(move |entry| entry.value(head))
    }

    /// All headers in order: name as it was sent, value without white space around it.
    pub fn iter<'a>(&self, head: &'a [u8]) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.filled().map(move |entry| {
            // Names are tokens, hence ASCII: the default is for a head that the index was not made for.
            (std::str::from_utf8(entry.name(head)).unwrap_or_default(), entry.value(head))
        })
    }

    #[inline(always)]
    fn entry(&self, at: u8) -> Entry {
        self.entries[usize::from(at)].shifted(self.shift)
    }

    #[inline(always)]
    fn filled(&self) -> impl Iterator<Item = Entry> {
        self.entries[..self.len()].iter().map(|entry| entry.shifted(self.shift))
    }
}

#[cfg(test)]
mod tests;
