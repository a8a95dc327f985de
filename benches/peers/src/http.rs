//! What the HTTP peers share: the answers, and a date for those that have none.

use std::cell::RefCell;
use std::time::SystemTime;

use serde::Serialize;

/// Body of `GET /plaintext`.
pub const HELLO: &str = "Hello, World!";

/// Bytes of a body that `POST /echo` takes, in the peers that want a limit.
pub const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Body of `GET /json`.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Message {
    message: &'static str,
}

impl Message {
    /// `{"message":"Hello, World!"}`.
    pub const HELLO: Self = Self { message: HELLO };

    /// Serialised anew at each call, as TechEmpower's rules ask for. One allocation.
    #[must_use]
    pub fn to_json(self) -> Vec<u8> {
        let mut json = Vec::with_capacity(32);
        self.write_json(&mut json);
        json
    }

    /// Appends to `into`.
    pub fn write_json(self, into: &mut Vec<u8>) {
        let written = serde_json::to_writer(into, &self);
        debug_assert!(written.is_ok(), "a string into memory");
    }
}

/// Appends the current HTTP date. Formatted once a second and thread; the usual call is a clock read and a copy.
pub fn append_date(into: &mut Vec<u8>) {
    thread_local! {
        static DATE: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
    }
    let now = SystemTime::now();
    let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    DATE.with_borrow_mut(|(formatted, date)| {
        if *formatted != second {
            (*formatted, *date) = (second, httpdate::fmt_http_date(now));
        }
        into.extend_from_slice(date.as_bytes());
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_those_of_techempower() {
        assert_eq!(Message::HELLO.to_json(), br#"{"message":"Hello, World!"}"#);
        let mut date = Vec::new();
        append_date(&mut date);
        assert_eq!(date.len(), 29, "the fixed length of an HTTP date");
        assert!(date.ends_with(b" GMT"));
    }
}
