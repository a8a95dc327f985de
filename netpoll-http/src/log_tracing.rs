//! What is logged, through `tracing`: failures of the program, which their peers are not told.

use std::error::Error;

/// Whether anything is.
pub const IS_ON: bool = true;

pub fn failed(method: &str, path: &str, error: &dyn Error) {
    let mut sources = String::new();
    let mut next = error.source();
    while let Some(source) = next {
        if !sources.is_empty() {
            sources.push_str(": ");
        }
        sources.push_str(&source.to_string());
        next = source.source();
    }
    // What came from the peer is written as a literal: no line of its own can get into a log.
    tracing::error!(?method, ?path, answer = ?error.to_string(), source = ?sources, "a request failed");
}
