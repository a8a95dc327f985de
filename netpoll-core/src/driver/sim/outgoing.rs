//! Out of a queue: bytes as they are, and files by reading them.

use std::io;

use super::super::files::{FILE_BYTES_PER_FLUSH, read_part};
use crate::mem::{BLOCK_BYTES_MAX, Pool, WriteQueue};

/// Moves up to so many bytes out of a queue without files.
pub fn move_bytes(from: &mut WriteQueue, into: &mut Vec<u8>, bytes_max: usize, pool: &mut Pool) {
    let mut left = bytes_max.min(from.queued_bytes());
    while left > 0 {
        let front = from.front();
        let part = front.len().min(left);
        into.extend_from_slice(&front[..part]);
        from.consume(pool, part);
        left -= part;
    }
}

/// Takes out of a queue what one send is made of if there are files in it: its bytes in order, and of the files
/// one share, read into blocks. A file that fails is an error if nothing stands before it; else it comes first the
/// next time.
pub fn take_with_files(queue: &mut WriteQueue, pool: &mut Pool) -> io::Result<WriteQueue> {
    let mut taken = WriteQueue::new();
    let mut file_bytes_left = FILE_BYTES_PER_FLUSH;
    while !queue.is_empty() {
        let Some(part) = queue.front_file() else {
            let bytes = queue.front().len();
            taken.write(pool, queue.front());
            queue.consume(pool, bytes);
            continue;
        };
        let piece = file_bytes_left.min(part.length).min(BLOCK_BYTES_MAX);
        if piece == 0 {
            break;
        }
        let read = taken.append(pool, piece, |out| {
            let start = out.len();
            out.resize(start + piece, 0);
            let read = read_part(part, &mut out[start..]);
            out.truncate(start + read.as_ref().map_or(0, |bytes| *bytes));
            read
        });
        match read {
            Ok(bytes) => {
                queue.consume(pool, bytes);
                file_bytes_left -= bytes;
            }
            Err(error) if taken.is_empty() => return Err(error),
            Err(_) => break,
        }
    }
    Ok(taken)
}
