//! What went wrong, as text for those who hear of the end of a request.
//!
//! Made for answers of 5xx and for panics only, and only where somebody watches: no other answer pays for it.
//!
//! Invariant: no longer than [`CAUSE_BYTES_MAX`]. It is the program's text, and may quote a peer: whoever writes it to a log escapes it.

use std::error::Error as _;
use std::fmt::{self, Write};

use super::Error;
use super::response_error::INTERNAL;
use crate::wire::response::reason;

/// The most that is kept of what went wrong, in bytes: a request whose answer waits to leave holds it, and a line of a log has it.
const CAUSE_BYTES_MAX: usize = 1024;

/// What went wrong.
pub(crate) type Cause = Box<str>;

/// Of an error of 5xx its message, unless that only says the status in words, and its sources, with `: ` between them.
pub(crate) fn of_error(error: &Error) -> Option<Cause> {
    if !error.status().is_server_error() {
        return None;
    }
    let mut text = Bounded::default();
    let message = error.message().trim_end();
    let says_more = message != INTERNAL && Some(message) != reason(error.status());
    let told = says_more.then_some(message).filter(|message| !message.is_empty());
    // What does not fit is left out.
    let _ = text.write_str(told.unwrap_or(""));
    let mut next = error.source();
    while let Some(source) = next
        && write!(text, "{}{source}", if text.0.is_empty() { "" } else { ": " }).is_ok()
    {
        next = source.source();
    }
    text.kept()
}

/// Of a panic what it said.
pub(crate) fn of_panic(said: &str) -> Option<Cause> {
    let mut text = Bounded::default();
    let _ = text.write_str(said);
    text.kept()
}

/// Ends where there is room for no more.
#[derive(Default)]
struct Bounded(String);

impl Bounded {
    fn kept(self) -> Option<Cause> {
        (!self.0.is_empty()).then(|| self.0.into_boxed_str())
    }
}

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = CAUSE_BYTES_MAX - self.0.len();
        if text.len() <= room {
            self.0.push_str(text);
            return Ok(());
        }
        let whole = (0..=room).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        self.0.push_str(&text[..whole]);
        Err(fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn a_long_cause_is_cut_between_two_characters() {
        let long = Error::internal("ä".repeat(CAUSE_BYTES_MAX))
            .with_source(format!("a{}", "ä".repeat(CAUSE_BYTES_MAX)));
        let cause = of_error(&long).expect("a source");
        assert_eq!((cause.len(), cause.ends_with('ä')), (CAUSE_BYTES_MAX - 1, true));
        assert_eq!(of_panic("").as_deref(), None);
    }

    #[test]
    fn a_message_that_says_the_status_is_no_cause_and_4xx_have_none() {
        assert_eq!(of_error(&StatusCode::INTERNAL_SERVER_ERROR.into()), None);
        assert_eq!(of_error(&Error::bad_request("no").with_source("why")), None);
        let away = Error::new(StatusCode::SERVICE_UNAVAILABLE, "try later\n").with_source("refused");
        assert_eq!(of_error(&away).as_deref(), Some("try later: refused"));
    }
}
