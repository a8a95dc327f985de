//! Counts request ends in a byte stream, without parsing: the whole protocol work of the floor.
//!
//! Invariant: the count over a stream does not depend on how it was cut into chunks. Costs one vectorised
//! pass over the chunk (32 bytes at a time with AVX2) and one byte of state per stream. Allocates nothing.

/// How far the last bytes of a stream have matched the blank line that ends a request head: 0 to 3 bytes.
#[derive(Clone, Copy, Default, Debug)]
pub struct Tail(u8);

impl Tail {
    /// Request ends in `chunk`, the next bytes of the stream; remembers an end that is cut in two.
    pub fn count_ends(&mut self, chunk: &[u8]) -> usize {
        let mut count = 0;
        let mut matched = self.0;
        // Only the first three bytes can finish what an earlier chunk began.
        for &byte in chunk.iter().take(3) {
            let finished;
            (matched, finished) = step(matched, byte);
            count += usize::from(finished);
        }
        if chunk.len() > 3 {
            count += count_whole(chunk);
            matched = chunk[chunk.len() - 3..].iter().fold(0, |matched, &byte| step(matched, byte).0);
        }
        self.0 = matched;
        count
    }
}

/// One byte further: how much is matched now, and whether that was an end (whose last two bytes can begin another).
fn step(matched: u8, byte: u8) -> (u8, bool) {
    match (matched, byte) {
        (0 | 1 | 3, b'\r') => (1, false),
        (1, b'\n') => (2, false),
        (2, b'\r') => (3, false),
        (3, b'\n') => (2, true),
        _ => (0, false),
    }
}

#[cfg(target_arch = "x86_64")]
fn count_whole(chunk: &[u8]) -> usize {
    #[target_feature(enable = "avx2")]
    fn wide(chunk: &[u8]) -> usize {
        count_portable(chunk)
    }
    if std::arch::is_x86_feature_detected!("avx2") {
        #[expect(unsafe_code, reason = "a function compiled for AVX2 may only run where the CPU has it")]
        // SAFETY: `wide` needs AVX2 and nothing else; the line above has just asked the CPU for it.
        return unsafe { wide(chunk) };
    }
    count_portable(chunk)
}

#[cfg(not(target_arch = "x86_64"))]
fn count_whole(chunk: &[u8]) -> usize {
    count_portable(chunk)
}

#[inline(always)]
fn count_portable(chunk: &[u8]) -> usize {
    let Some(starts) = chunk.len().checked_sub(3) else { return 0 };
    let mut count = 0;
    let mut from = 0;
    // A byte counts to 255, and byte lanes are what makes the vector loop dense.
    while from < starts {
        let length = (starts - from).min(255);
        let [a, b, c, d] = [0, 1, 2, 3].map(|skip| &chunk[from + skip..from + skip + length]);
        let mut lanes = 0_u8;
        for at in 0..length {
            lanes += u8::from((a[at] == b'\r') & (b[at] == b'\n') & (c[at] == b'\r') & (d[at] == b'\n'));
        }
        count += usize::from(lanes);
        from += length;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_does_not_depend_on_where_the_stream_is_cut() {
        let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let stream: Vec<u8> = request.iter().copied().cycle().take(request.len() * 40 + 9).collect();
        for size in 1..stream.len() {
            let mut tail = Tail::default();
            let count: usize = stream.chunks(size).map(|chunk| tail.count_ends(chunk)).sum();
            assert_eq!(count, 40, "chunks of {size} bytes");
        }
    }

    #[test]
    fn blank_lines_in_a_row_count_the_same_in_any_chunks() {
        for size in 1..12 {
            let mut tail = Tail::default();
            let count: usize =
                b"a\r\n\r\n\r\n\r\n\n\r\n\r".chunks(size).map(|chunk| tail.count_ends(chunk)).sum();
            assert_eq!(count, 3, "chunks of {size} bytes");
        }
    }

    #[test]
    fn a_carriage_return_too_many_does_not_hide_the_end() {
        for size in 1..8 {
            let mut tail = Tail::default();
            let count: usize = b"a\r\r\n\r\nb\r\n\r".chunks(size).map(|chunk| tail.count_ends(chunk)).sum();
            assert_eq!(count, 1, "chunks of {size} bytes");
        }
    }
}
