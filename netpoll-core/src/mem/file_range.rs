//! A part of an open file, on its way into a queue.
//!
//! Invariant: `offset + length` is at most `i64::MAX`, so positions can be added up without a check. Nothing
//! here reads, seeks or asks about the file: it is a handle with two numbers, and only a driver looks inside
//! (`docs/decisions/0004`). The last owner closes the file, which is a system call.

use std::fmt;
use std::fs::File;
use std::sync::Arc;

/// So many bytes of an open file from an offset on, for [`Conn::send_file`](crate::Conn::send_file).
///
/// The file is shared: any number of answers can send different parts of one open file at a time, because its
/// cursor is not used. It stays open until the last of them has left. 24 bytes; cloning counts a reference.
///
/// The length is a promise that the sender makes before the bytes are read. If the file turns out to be
/// shorter when its turn comes, the connection is reset; what it has beyond the length is not sent.
///
/// ```
/// use std::fs::File;
/// use netpoll_core::FileRange;
///
/// # fn main() -> std::io::Result<()> {
/// let file = File::open("Cargo.toml")?;
/// let length = file.metadata()?.len();
/// let whole = FileRange::new(file, 0, length);
/// let first_line = FileRange::new(whole.file().clone(), 0, 10);
/// assert_eq!((whole.length(), first_line.length()), (length, 10));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct FileRange {
    file: Arc<File>,
    offset: u64,
    length: u64,
}

impl FileRange {
    /// `length` bytes of `file` from `offset` on. The file is not looked at.
    ///
    /// # Panics
    /// If the range ends beyond `i64::MAX`, where no file can have bytes.
    #[must_use]
    pub fn new(file: impl Into<Arc<File>>, offset: u64, length: u64) -> Self {
        let end = offset.checked_add(length);
        assert!(end.is_some_and(|end| i64::try_from(end).is_ok()), "a range ends beyond every file");
        Self { file: file.into(), offset, length }
    }

    /// The open file, to be shared with other ranges.
    #[must_use]
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Where the range begins, in bytes from the start of the file.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How many bytes it has.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }
}

impl fmt::Debug for FileRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileRange({} bytes from {})", self.length, self.offset)
    }
}
