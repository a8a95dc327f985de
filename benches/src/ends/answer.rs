//! Where an answer ends and what it says, for clients that take any status.
//!
//! Framed by Content-Length, as all answers are that are asked for here; anything else is no answer. Allocates
//! nothing.

/// A head beyond this is no answer.
const HEAD_BYTES_MAX: usize = 8192;

/// An answer that is there as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    pub status: u16,
    pub body: &'a [u8],
    /// It is the last one on its connection.
    pub closes: bool,
    /// How many bytes it takes, head included.
    pub bytes: usize,
}

/// What cannot become an answer any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoAnswer;

impl<'a> Answer<'a> {
    /// The final answer at the front of `bytes`; `None` while a part is missing.
    ///
    /// # Errors
    /// Not HTTP, or not framed by a Content-Length.
    pub fn read(bytes: &'a [u8]) -> Result<Option<Self>, NoAnswer> {
        let Some(end) = bytes.windows(4).take(HEAD_BYTES_MAX).position(|window| window == b"\r\n\r\n") else {
            return if bytes.len() < HEAD_BYTES_MAX { Ok(None) } else { Err(NoAnswer) };
        };
        let head = str::from_utf8(&bytes[..end]).map_err(|_| NoAnswer)?;
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| {
            let (version, rest) = line.split_once(' ')?;
            version.starts_with("HTTP/1.").then_some(rest.get(..3)?.parse::<u16>().ok()?)
        });
        let status = status.ok_or(NoAnswer)?;
        let (mut length, mut closes) = (None, head.starts_with("HTTP/1.0"));
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(value.trim().parse::<usize>().map_err(|_| NoAnswer)?);
            } else if name.eq_ignore_ascii_case("connection") {
                closes |= value.split(',').any(|option| option.trim().eq_ignore_ascii_case("close"));
            }
        }
        let from = end + 4;
        if status < 200 {
            // An interim answer; the one that counts is behind it.
            let rest = Self::read(&bytes[from..])?;
            return Ok(rest.map(|answer| Self { bytes: answer.bytes + from, ..answer }));
        }
        let bytes_total = from + length.ok_or(NoAnswer)?;
        Ok(bytes.get(from..bytes_total).map(|body| Self { status, body, closes, bytes: bytes_total }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_there_when_its_last_byte_is() {
        let text = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 413 Too Large\r\nConnection: Close\r\nContent-Length: 2\r\n\r\nno";
        for cut in 0..text.len() {
            assert_eq!(Answer::read(&text[..cut]), Ok(None), "{cut} bytes");
        }
        let whole = Answer { status: 413, body: b"no", closes: true, bytes: text.len() };
        assert_eq!(Answer::read(text), Ok(Some(whole)));
    }

    #[test]
    fn a_connection_stays_open_unless_the_answer_says_otherwise() {
        let closes = |head: &str| {
            let text = format!("{head}Content-Length: 0\r\n\r\n");
            Answer::read(text.as_bytes()).unwrap().unwrap().closes
        };
        assert!(!closes("HTTP/1.1 200 OK\r\n") && !closes("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n"));
        assert!(closes("HTTP/1.0 200 OK\r\n") && closes("HTTP/1.1 200 OK\r\nconnection: upgrade, close\r\n"));
    }

    #[test]
    fn what_has_no_length_is_no_answer() {
        for text in ["HTTP/1.1 200 OK\r\n\r\n", "SSH-2.0\r\n\r\n", "HTTP/1.1 20\r\nContent-Length: 0\r\n\r\n"]
        {
            assert_eq!(Answer::read(text.as_bytes()), Err(NoAnswer), "{text}");
        }
    }
}
