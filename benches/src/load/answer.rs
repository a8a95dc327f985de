//! Where an answer ends, and whether it is a good one: checked for every single answer.
//!
//! A server's answers almost always look like its last one, so the last head's shape is tried first: status
//! line, Content-Length line and blank line where they were. That is three short comparisons; only an answer of
//! another shape is parsed. Invariant: nothing is accepted by shape that the parser would not accept.

use std::fmt;

const STATUS: &[u8] = b"HTTP/1.1 200 OK\r\n";
const HEAD_BYTES_MAX: usize = 4096;

/// The shape of the latest answer.
#[derive(Default)]
pub struct Layout {
    head_bytes: usize,
    total_bytes: usize,
    length_at: usize,
    /// The header line that gave the length, with both of its line ends.
    length_line: Vec<u8>,
}

/// Not an answer that a correct server gives to a simple GET.
#[derive(Debug)]
pub struct BadAnswer(String);

impl fmt::Display for BadAnswer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "bad answer: {:?}", self.0)
    }
}

impl std::error::Error for BadAnswer {}

impl Layout {
    /// Length of an answer, once one has been seen. All answers to the same request have it.
    pub fn total_bytes(&self) -> Option<usize> {
        (self.total_bytes > 0).then_some(self.total_bytes)
    }

    /// How many bytes the answer at the front of `bytes` takes; `None` while some are missing.
    ///
    /// # Errors
    /// The status is not 200, or the head gives no single usable Content-Length.
    pub fn answer(&mut self, bytes: &[u8]) -> Result<Option<usize>, BadAnswer> {
        if self.fits(bytes) {
            return Ok((bytes.len() >= self.total_bytes).then_some(self.total_bytes));
        }
        let known = bytes.len().min(STATUS.len());
        let Some(end) = bytes.windows(4).take(HEAD_BYTES_MAX).position(|window| window == b"\r\n\r\n") else {
            let good = bytes[..known] == STATUS[..known] && bytes.len() < HEAD_BYTES_MAX;
            return if good { Ok(None) } else { Err(BadAnswer::from(bytes)) };
        };
        let head = &bytes[..end + 4];
        self.learn(head).ok_or_else(|| BadAnswer::from(head))?;
        Ok((bytes.len() >= self.total_bytes).then_some(self.total_bytes))
    }

    fn fits(&self, bytes: &[u8]) -> bool {
        self.head_bytes > 0
            && bytes.len() >= self.head_bytes
            && bytes.starts_with(STATUS)
            && bytes[self.length_at..].starts_with(&self.length_line)
            && bytes[..self.head_bytes].ends_with(b"\r\n\r\n")
    }

    fn learn(&mut self, head: &[u8]) -> Option<()> {
        if !head.starts_with(STATUS) {
            return None;
        }
        let mut found = None;
        let mut at = STATUS.len();
        while head[at..] != *b"\r\n" {
            let end = at + head[at..].windows(2).position(|window| window == b"\r\n")?;
            let colon = head[at..end].iter().position(|&byte| byte == b':')?;
            if head[at..at + colon].eq_ignore_ascii_case(b"content-length") {
                let length: usize = str::from_utf8(&head[at + colon + 1..end]).ok()?.trim().parse().ok()?;
                // Two of them are an invitation to misunderstandings.
                if found.replace((at, end, length)).is_some() {
                    return None;
                }
            }
            at = end + 2;
        }
        let (start, end, length) = found?;
        // Line ends on both sides, so that the same bytes inside another header do not pass for it.
        self.length_at = start - 2;
        self.length_line = head[start - 2..end + 2].to_vec();
        self.head_bytes = head.len();
        self.total_bytes = head.len() + length;
        Some(())
    }
}

impl From<&[u8]> for BadAnswer {
    fn from(bytes: &[u8]) -> Self {
        Self(String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-length: 2\r\n\r\nokHTTP/1.1";

    #[test]
    fn an_answer_is_complete_when_its_body_is() {
        let whole = GOOD.len() - 8;
        for length in 0..GOOD.len() {
            let mut layout = Layout::default();
            let expected = (length >= whole).then_some(whole);
            assert_eq!(layout.answer(&GOOD[..length]).expect("a good answer"), expected);
            assert_eq!(layout.answer(&GOOD[..length]).expect("a good answer"), expected, "by its shape");
        }
    }

    #[test]
    fn an_answer_of_another_length_is_noticed_after_a_good_one() {
        let mut layout = Layout::default();
        layout.answer(GOOD).expect("a good answer");
        let longer = b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-length: 3\r\n\r\nokk";
        assert_eq!(layout.answer(longer).expect("a good answer"), Some(longer.len()));
    }

    #[test]
    fn other_statuses_and_missing_or_double_lengths_are_refused() {
        for bad in [
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nServer: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok",
            "okHTTP/1.1 200 OK\r\n",
        ] {
            let mut layout = Layout::default();
            layout.answer(GOOD).expect("a good answer");
            assert!(layout.answer(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
