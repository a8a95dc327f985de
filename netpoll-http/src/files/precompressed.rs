//! Files that lie compressed beside others.
//!
//! Invariant: what is sent in a file's place was not made before it, as far as a second tells.

use std::os::unix::fs::MetadataExt;

use super::{Files, Found};
use crate::coding::{Accepted, Coding};
use crate::message::Request;

/// The order in which they are looked for, where the client does not care: what is compressed once is compressed hard, and Brotli makes the most of that.
const ORDER: [Coding; 3] = [Coding::Br, Coding::Zstd, Coding::Gzip];

impl Files {
    /// The file that is sent in place of this one, and its coding; or this one.
    pub(super) fn coded(&self, request: &Request<'_>, path: &str, found: Found) -> (Found, Option<Coding>) {
        let accepted = Accepted::read(request.header_lines("accept-encoding"));
        let mut left = ORDER.map(Some);
        while let Some(coding) = accepted.best(left.iter().copied().flatten()) {
            // What cannot be opened is not there.
            if let Ok(Some(coded)) = self.open(&format!("{path}{}", coding.ending()))
                && coded.metadata.mtime() >= found.metadata.mtime()
            {
                return (coded, Some(coding));
            }
            left.iter_mut().filter(|other| **other == Some(coding)).for_each(|place| *place = None);
        }
        (found, None)
    }
}
