//! The heads of all connections of a worker, and the header section that was read last.
//!
//! Clients of a kind send the same lines behind the request line, and one on a connection nearly always does: what is byte for byte the
//! section that was read last means what that meant, and its lines are where they were in it. Only the request line is read then.
//!
//! Invariant: while `section_len` is not zero, the index is that of a head with this section and version. What a section means may depend on the
//! version, which is compared as well, and in a few cases on the method: those are not remembered, see
//! [`means_the_same`](HeadReader::means_the_same).
//!
//! Costs a comparison of as many bytes as the section has. A miss costs less: sections that are not the same differ where others did, in their
//! length or a cookie, so there is looked first, and a section is copied when it is probably the same as the one before it.

use super::headers::{HeadIndex, Known, RequestLine};
use super::parse::{self, Refused, Spans, complete, head_bytes_max, host, read, request_line, span};
use super::request::{Limits, Progress, Scan};

/// The longest header section that is remembered: more than browsers send with some cookies.
const SECTION_BYTES_MAX: usize = 2048;
/// The shortest one: a shorter one is read in no time.
const SECTION_BYTES_MIN: usize = 16;

/// Reads heads, and knows the last one. One per worker, some KiB.
pub struct HeadReader {
    index: HeadIndex,
    /// The bytes that are remembered, zero if there are none.
    section_len: u16,
    /// Where they were in the last head.
    section_start: u16,
    /// Where a section was not what was remembered.
    differs_at: u16,
    /// The length of the section that was read last, and the word there.
    last: (usize, u64),
    minor_version: u8,
    section: [u8; SECTION_BYTES_MAX],
}

impl Default for HeadReader {
    fn default() -> Self {
        HeadReader::new()
    }
}

impl HeadReader {
    /// One that has read nothing. Clears some KiB: make one per worker.
    pub fn new() -> HeadReader {
        HeadReader {
            index: HeadIndex::new(),
            section_len: 0,
            section_start: 0,
            differs_at: 0,
            last: (0, 0),
            minor_version: 0,
            section: [0; SECTION_BYTES_MAX],
        }
    }

    /// The index of the head that was read last.
    #[inline]
    pub fn index(&self) -> &HeadIndex {
        &self.index
    }

    /// [`parse`](super::parse) for the usual head, which is whole and valid: its length. For all others `None`, and
    /// [`parse_slowly`](Self::parse_slowly) says what they are.
    #[inline(always)]
    pub fn parse_whole(&mut self, bytes: &[u8], scan: &Scan, limits: &Limits) -> Option<usize> {
        if !scan.is_fresh() {
            return None;
        }
        if self.section_len > 0 {
            if let Some(head_len) = self.recall(bytes, limits) {
                return Some(head_len);
            }
            self.section_len = 0;
        }
        let index = &mut self.index;
        let line = read(bytes, limits, index)?;
        if bytes[line.target_start] != b'/' {
            return None;
        }
        let authority = host(index, bytes, line.minor_version).ok()?;
        complete(&line, line.origin_form(authority), index, bytes).ok()?;
        let section = &bytes[line.end()..line.head_len];
        let this = (section.len(), word_at(section, self.differs_at));
        if std::mem::replace(&mut self.last, this) == this {
            self.remember(section, line.end(), line.minor_version);
        }
        Some(line.head_len)
    }

    /// The length of a head whose header section is the one that is remembered.
    #[inline(always)]
    fn recall(&mut self, bytes: &[u8], limits: &Limits) -> Option<usize> {
        let (line, behind) = request_line(bytes, limits)?;
        if bytes[line.target_start] != b'/' || !self.remembers(behind, line.minor_version) {
            return None;
        }
        let start = bytes.len() - behind.len();
        let head_len = start + usize::from(self.section_len);
        if head_len > head_bytes_max(limits) || self.index.len() > limits.headers_max {
            return None;
        }
        let Spans { path, query, .. } = line.origin_form((0, 0));
        let request_line = RequestLine {
            method: line.method,
            method_name: span(0, line.method_len),
            target: line.target(),
            path,
            query,
        };
        // Positions in a head have 16 bits.
        self.index.shift((start as u16).wrapping_sub(self.section_start), request_line);
        self.section_start = start as u16;
        Some(head_len)
    }

    /// [`parse`](super::parse) for heads that are incomplete, broken, behind empty lines, or of an unusual form.
    ///
    /// # Errors
    /// The first rule that the peer broke.
    #[cold]
    pub fn parse_slowly<'a>(
        &'a mut self,
        bytes: &'a [u8],
        scan: &mut Scan,
        limits: &Limits,
    ) -> Result<Progress<'a>, Refused> {
        self.section_len = 0;
        parse::parse_slowly(bytes, scan, limits, &mut self.index)
    }

    /// Whether the bytes behind a request line begin with the section that is remembered. It ends with an empty line, and no line
    /// before that is empty, so neither is any of theirs.
    #[inline(always)]
    fn remembers(&mut self, bytes: &[u8], minor_version: u8) -> bool {
        let len = usize::from(self.section_len);
        if len == 0
            || self.minor_version != minor_version
            || word_at(bytes, self.differs_at) != word_at(&self.section, self.differs_at)
        {
            return false;
        }
        let (Some(bytes), Some(section)) = (bytes.get(..len), self.section.get(..len)) else { return false };
        let is_same = are_same(bytes, section);
        if !is_same {
            self.differs_at = first_difference(bytes, section) as u16;
        }
        is_same
    }

    #[inline(never)]
    fn remember(&mut self, section: &[u8], start: usize, minor_version: u8) {
        let len = section.len();
        if (SECTION_BYTES_MIN..=SECTION_BYTES_MAX).contains(&len) && self.means_the_same() {
            self.section[..len].copy_from_slice(section);
            (self.section_len, self.section_start) = (len as u16, start as u16);
            self.minor_version = minor_version;
            if usize::from(self.differs_at) + 8 > len {
                self.differs_at = 0;
            }
        }
    }

    /// Whether the section of the index means the same behind every request line of its version. What a transfer coding, an expectation and an
    /// upgrade mean depends on more.
    fn means_the_same(&self) -> bool {
        let unusual = [Known::TransferEncoding, Known::Expect, Known::Upgrade];
        !unusual.into_iter().any(|known| self.index.has(known))
    }
}

/// The eight bytes from there on; zero if there are fewer.
#[inline(always)]
fn word_at(bytes: &[u8], at: u16) -> u64 {
    bytes.get(usize::from(at)..).and_then(<[u8]>::first_chunk).map_or(0, |word| u64::from_le_bytes(*word))
}

/// Whether two sections of one length, at least [`SECTION_BYTES_MIN`], are the same.
#[inline(always)]
fn are_same(one: &[u8], other: &[u8]) -> bool {
    if one.len() > 64 {
        return one == other;
    }
    // Short ones without a call. The last words lie over some that were compared before.
    let pieces = one.chunks_exact(16).zip(other.chunks_exact(16));
    pieces.fold(0, |differ, (one, other)| differ | (double(one) ^ double(other))) == 0
        && one.last_chunk::<16>() == other.last_chunk::<16>()
}

/// Sixteen bytes as a number; zero if there are fewer.
#[inline(always)]
fn double(bytes: &[u8]) -> u128 {
    bytes.first_chunk().map_or(0, |bytes| u128::from_le_bytes(*bytes))
}

/// Where sections of one length that are not the same differ first.
#[cold]
fn first_difference(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).position(|(one, other)| one != other).unwrap_or(0)
}
