//! Where an answer ends, and whether it is a good one: checked for every single answer.
//!
//! A server's answers almost always begin with the very head of its last one, so that head is compared first; only
//! another one is parsed. Invariant: nothing is accepted by comparison that the parser has not accepted, byte for
//! byte. The body is compared with the expected one, if there is one. No allocation but for a new head.

use crate::options::Options;
use crate::run::Fault;

const VERSION: &[u8] = b"HTTP/1.1 ";
const STATUS: &[u8] = b"HTTP/1.1 200 ";
const HEAD_BYTES_MAX: usize = 4096;
const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What a good answer is.
pub enum Check {
    /// Status 200, framed by one Content-Length, and this body if it is known.
    Http { head: Vec<u8>, body_bytes: usize, body: Option<Vec<u8>> },
    /// The same bytes again.
    Echo(Vec<u8>),
}

impl Check {
    /// As the options say.
    pub fn new(options: &Options) -> Self {
        match options.echo {
            true => Self::Echo(options.request.clone()),
            false => Self::http(options.expect.clone()),
        }
    }

    /// Any status-200 answer, with this body if given.
    pub fn http(body: Option<Vec<u8>>) -> Self {
        Self::Http { head: Vec::new(), body_bytes: 0, body }
    }

    /// How many bytes the answer at the front of `bytes` takes; `None` while some are missing.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn answer(&mut self, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        let (head, body_bytes, body) = match self {
            Self::Http { head, body_bytes, body } => (head, body_bytes, body),
            Self::Echo(sent) => {
                let same = bytes.len().min(sent.len());
                return match bytes[..same] == sent[..same] {
                    false => Err(Fault::WrongBody),
                    true => Ok((same == sent.len()).then_some(same)),
                };
            }
        };
        if head.is_empty() || !bytes.starts_with(head) {
            let Some((head_bytes, length)) = parse(bytes)? else { return Ok(None) };
            if body.as_ref().is_some_and(|body| body.len() != length) {
                return Err(Fault::WrongBody);
            }
            head.clear();
            head.extend_from_slice(&bytes[..head_bytes]);
            *body_bytes = length;
        }
        let total_bytes = head.len() + *body_bytes;
        if bytes.len() < total_bytes {
            return Ok(None);
        }
        match body {
            Some(body) if bytes[head.len()..total_bytes] != **body => Err(Fault::WrongBody),
            _ => Ok(Some(total_bytes)),
        }
    }
}

/// Bytes of the head and of the body, once the head is there.
fn parse(bytes: &[u8]) -> Result<Option<(usize, usize)>, Fault> {
    let known = bytes.len().min(STATUS.len());
    if bytes[..known] != STATUS[..known] {
        let other_status = bytes.starts_with(VERSION) || VERSION.starts_with(bytes);
        return Err(if other_status { Fault::WrongStatus } else { Fault::Framing });
    }
    let Some(end) = bytes.windows(4).take(HEAD_BYTES_MAX).position(|window| window == b"\r\n\r\n") else {
        return if bytes.len() < HEAD_BYTES_MAX { Ok(None) } else { Err(Fault::Framing) };
    };
    let head = &bytes[..end + 4];
    let length = content_length(head).filter(|&length| length <= BODY_BYTES_MAX).ok_or(Fault::Framing)?;
    Ok(Some((head.len(), length)))
}

/// The one length that a head gives.
fn content_length(head: &[u8]) -> Option<usize> {
    let lines = head.strip_suffix(b"\r\n\r\n")?;
    let mut found = None;
    for line in lines.split(|&byte| byte == b'\n').skip(1) {
        let colon = line.iter().position(|&byte| byte == b':')?;
        if line[..colon].eq_ignore_ascii_case(b"transfer-encoding") {
            return None;
        }
        if line[..colon].eq_ignore_ascii_case(b"content-length") {
            let length: usize = str::from_utf8(&line[colon + 1..]).ok()?.trim().parse().ok()?;
            // Two of them are an invitation to misunderstandings.
            if found.replace(length).is_some() {
                return None;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-length: 2\r\n\r\nokHTTP/1.1";

    #[test]
    fn an_answer_is_complete_when_its_body_is() {
        let whole = GOOD.len() - 8;
        for length in 0..GOOD.len() {
            let mut check = Check::http(Some(b"ok".to_vec()));
            let expected = (length >= whole).then_some(whole);
            assert_eq!(check.answer(&GOOD[..length]), Ok(expected));
            assert_eq!(check.answer(&GOOD[..length]), Ok(expected), "by comparison");
        }
    }

    #[test]
    fn an_answer_of_another_length_is_noticed_after_a_good_one() {
        let mut check = Check::http(None);
        check.answer(GOOD).expect("a good answer");
        let longer = b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-length: 3\r\n\r\nokk";
        assert_eq!(check.answer(longer), Ok(Some(longer.len())));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (bad, fault) in [
            ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", Fault::WrongStatus),
            ("HTTP/1.1 200 OK\r\nServer: x\r\n\r\n", Fault::Framing),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", Fault::Framing),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok", Fault::Framing),
            ("HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok", Fault::Framing),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nko", Fault::WrongBody),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", Fault::WrongBody),
            ("okHTTP/1.1 200 OK\r\n", Fault::Framing),
        ] {
            let mut check = Check::http(Some(b"ok".to_vec()));
            check.answer(GOOD).expect("a good answer");
            assert_eq!(check.answer(bad.as_bytes()), Err(fault), "{bad}");
        }
    }

    #[test]
    fn an_echo_is_wrong_at_its_first_wrong_byte() {
        let mut check = Check::Echo(b"abc".to_vec());
        assert_eq!(check.answer(b"ab"), Ok(None));
        assert_eq!(check.answer(b"abca"), Ok(Some(3)));
        assert_eq!(check.answer(b"ax"), Err(Fault::WrongBody));
    }
}
