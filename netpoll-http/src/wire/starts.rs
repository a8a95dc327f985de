//! The beginnings of the usual answer heads, up to the digits of the length.
//!
//! From one second to the next only the date in them changes. So a worker keeps one per named content
//! type and puts the date in once a second; a head is then one copy of constant size, and its length.
//!
//! Invariant: `bytes[..len]` of a start is a status line and whole header lines, then the name of a length; or the start is
//! empty, because the server's name is too long for it, and its heads go the longer way.

use http::StatusCode;

use super::date::{DateBytes, imf_fixdate};
use super::response::ContentType;

/// The bytes of the longest start.
pub(super) const START_BYTES: usize = 128;

/// What each start ends with.
pub(super) const LENGTH_NAME: &[u8; 18] = b"\r\nContent-Length: ";

/// One beginning.
#[derive(Clone, Debug)]
pub(super) struct Start {
    /// Zeros behind `len`: copied as a whole, which is a few moves instead of a call.
    pub(super) bytes: [u8; START_BYTES],
    /// Zero for one that is longer than these.
    pub(super) len: usize,
}

/// The beginnings of answers of the current second. One per worker, about a KiB.
#[derive(Clone, Debug)]
pub struct HeadStarts {
    second: u64,
    /// `imf_fixdate(second)`, as in each start.
    date: DateBytes,
    /// The line that names the server, as in each start; empty for none.
    server: Box<str>,
    /// By content type, see [`HeadStarts::usual`].
    starts: [Start; 6],
}

impl Default for HeadStarts {
    fn default() -> Self {
        HeadStarts::new()
    }
}

/// The line that names the server, unless it is to be another.
pub const SERVER_LINE: &str = "Server: netpoll\r\n";

impl HeadStarts {
    /// Those of the start of 1970.
    pub fn new() -> HeadStarts {
        HeadStarts::of_server(SERVER_LINE)
    }

    /// The same with this line in the place of [`SERVER_LINE`]: a whole one, or none.
    pub fn of_server(server: &str) -> HeadStarts {
        let date = imf_fixdate(0);
        let content_types = [
            ContentType::None,
            ContentType::Plain,
            ContentType::Text,
            ContentType::Html,
            ContentType::Json,
            ContentType::Bytes,
        ];
        HeadStarts {
            second: 0,
            date,
            server: server.into(),
            starts: content_types.map(|content_type| Start::new(content_type, &date, server)),
        }
    }

    /// Those of a Unix time in seconds. A comparison, unless the second has changed.
    #[inline]
    pub fn at(&mut self, unix_seconds: u64) -> &HeadStarts {
        if self.second != unix_seconds {
            self.set(unix_seconds);
        }
        self
    }

    #[cold]
    fn set(&mut self, unix_seconds: u64) {
        self.second = unix_seconds;
        self.date = imf_fixdate(i64::try_from(unix_seconds).unwrap_or(i64::MAX));
        for start in &mut self.starts {
            start.set_date(&self.date);
        }
    }

    /// The time of these heads, in seconds since 1970.
    pub fn unix_seconds(&self) -> u64 {
        self.second
    }

    /// The date of these heads.
    pub(super) fn date(&self) -> &DateBytes {
        &self.date
    }

    /// The line that names the server.
    pub(super) fn server(&self) -> &str {
        &self.server
    }

    /// The start of a `200 OK` with a named content type, if there is one.
    #[inline(always)]
    pub(super) fn usual(&self, status: StatusCode, content_type: ContentType<'_>) -> Option<&Start> {
        if status != StatusCode::OK {
            return None;
        }
        let start = match content_type {
            ContentType::None => &self.starts[0],
            ContentType::Plain => &self.starts[1],
            ContentType::Text => &self.starts[2],
            ContentType::Html => &self.starts[3],
            ContentType::Json => &self.starts[4],
            ContentType::Bytes => &self.starts[5],
            ContentType::Other(_) => return None,
        };
        (start.len > 0).then_some(start)
    }
}

impl Start {
    fn new(content_type: ContentType<'_>, date: &DateBytes, server: &str) -> Start {
        let mut text = Vec::with_capacity(START_BYTES);
        super::response::start(&mut text, StatusCode::OK, server, content_type);
        text.extend_from_slice(date);
        text.extend_from_slice(LENGTH_NAME);
        let mut bytes = [0; START_BYTES];
        if text.len() > START_BYTES {
            return Start { bytes, len: 0 };
        }
        bytes[..text.len()].copy_from_slice(&text);
        Start { bytes, len: text.len() }
    }

    fn set_date(&mut self, date: &DateBytes) {
        let Some(end) = self.len.checked_sub(LENGTH_NAME.len()) else { return };
        self.bytes[end - date.len()..end].copy_from_slice(date);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_follows_the_clock_in_both_directions() {
        let mut starts = HeadStarts::new();
        for second in [0, 1, 1, 1_000_000_000, 5] {
            let date = imf_fixdate(second as i64);
            let now = starts.at(second);
            assert_eq!(*now.date(), date);
            for start in &now.starts {
                assert!(start.bytes[..start.len].windows(date.len()).any(|window| window == date));
            }
        }
    }
}
