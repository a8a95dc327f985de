//! Out of a queue: bytes as they are, and files by reading them.

use std::io;

use super::link::{Link, Travel};
use crate::driver::files::{FILE_BYTES_PER_FLUSH, read_part};
use crate::mem::{BLOCK_BYTES_MAX, Pool, WriteQueue};

/// Sends up to so many bytes out of a queue without files.
pub fn send_from(queue: &mut WriteQueue, link: &mut Link, travel: Travel, bytes_max: usize, pool: &mut Pool) {
    let mut left = bytes_max.min(queue.queued_bytes());
    while left > 0 {
        let front = queue.front();
        let part = front.len().min(left);
        link.send_bytes_to_peer(travel, &front[..part]);
        queue.consume(pool, part);
        left -= part;
    }
}

/// Sends so many bytes of what is in flight.
pub fn send_in_flight(link: &mut Link, travel: Travel, bytes: usize, pool: &mut Pool) {
    let mut in_flight = link.in_flight.take();
    send_from(&mut in_flight, link, travel, bytes, pool);
    link.in_flight = in_flight;
}

/// Takes out of a queue what one send is made of if there are files in it: its bytes in order, and of the files
/// one share, read into blocks. A file that fails is an error if nothing stands before it; else it comes first the
/// next time. The first read fails if it is to.
pub fn take_with_files(queue: &mut WriteQueue, pool: &mut Pool, fails: bool) -> io::Result<WriteQueue> {
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
            let read = match fails {
                true => Err(io::Error::from_raw_os_error(libc::EIO)),
                false => read_part(part, &mut out[start..]),
            };
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
