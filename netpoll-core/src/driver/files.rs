//! Files on their way out, for every driver: how much at a time, and what their end means.

use std::io;
use std::os::unix::fs::FileExt;

use crate::mem::FilePart;

/// Bytes of files that one flush sends at most: about 100 us of copying in the kernel.
pub const FILE_BYTES_PER_FLUSH: usize = 512 * 1024;

/// Reads the beginning of a part of a file, as much as there is room for or as one read brings.
///
/// # Errors
/// The kernel's; `UnexpectedEof` if the file ends before the part begins.
pub fn read_part(part: FilePart<'_>, into: &mut [u8]) -> io::Result<usize> {
    let length = part.length.min(into.len());
    loop {
        match part.file.read_at(&mut into[..length], part.offset) {
            Ok(0) => return Err(ended()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

#[cold]
pub fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "a file is shorter than what was to be sent of it")
}
