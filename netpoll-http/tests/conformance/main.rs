//! What the server does with raw bytes, rule by rule.
//!
//! `cases` is the table: requests as bytes, and what has to come back. Every row of it is a test in
//! memory, where each request is also cut in two at every byte and sent byte by byte, and a test over a real socket. What
//! a table of single exchanges cannot say (time, volume, slow peers, broken handlers, drain) is written
//! out in the other files.

mod answer;
mod cases;
mod conforms;
mod fixture;
mod run;
mod target;
mod transport;
mod verdict;

mod chunked;
mod cuts;
mod drain;
mod expect;
mod fields;
mod files;
mod framing;
mod handlers;
mod headers;
mod persistence;
mod pipelining;
mod request_line;
mod responses;
mod storms;
mod time;
mod upgrade;
mod vanishing;
mod volume;

use conforms::conforms;

/// Its handlers have bodies as a whole.
const READS_BODIES: bool = false;

#[test]
fn every_row_has_cases_with_different_names() {
    for row in cases::all_rows() {
        let cases = (row.cases)();
        let mut names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert!(!names.is_empty() && names.len() == cases.len(), "{}", row.name);
        assert!(!row.basis.is_empty(), "{}", row.name);
    }
}

#[test]
fn an_alternative_is_not_what_we_do_and_binds_nobody_but_others() {
    for row in cases::all_rows() {
        for case in (row.cases)() {
            let (level, name) = (case.level.unwrap_or(row.level), &case.name);
            assert!(case.or.iter().all(|other| *other != case.expect), "{}: {name}", row.name);
            assert!(case.or.is_empty() || level != cases::Level::Fixture, "{}: {name}", row.name);
            assert_ne!(case.expect.then, cases::Then::Waits, "{}: {name}", row.name);
        }
    }
}
