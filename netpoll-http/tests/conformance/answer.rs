//! Answers, read back as strictly as requests are.
//!
//! Invariant: an [`Answer`] is well-formed and its framing fits its status, or [`read`] says why not.

use std::ops::Range;

/// One answer on the wire.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// In the order of the wire; names as they were sent.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Without chunked coding.
    pub body: Vec<u8>,
    /// Where it was found.
    pub range: Range<usize>,
}

impl Answer {
    /// The values of a header.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let named = move |(known, _): &&(String, Vec<u8>)| known.eq_ignore_ascii_case(name);
        self.headers.iter().filter(named).map(|(_, value)| value.as_slice())
    }

    /// The only value of a header, as text.
    pub fn one(&self, name: &str) -> Option<String> {
        let mut values = self.all(name);
        let value = values.next().map(|value| String::from_utf8_lossy(value).into_owned());
        assert!(values.next().is_none(), "two headers {name}");
        value
    }

    pub fn says_close(&self) -> bool {
        self.all("connection").any(|value| value.eq_ignore_ascii_case(b"close"))
    }

    pub fn is_interim(&self) -> bool {
        self.status < 200
    }
}

/// Reads all answers, the last of which may end with the connection. `to_head` tells which final answers have
/// no body because HEAD was asked.
pub fn read(bytes: &[u8], to_head: &[bool], is_closed: bool) -> Result<Vec<Answer>, String> {
    let mut answers: Vec<Answer> = Vec::new();
    let mut at = 0;
    let mut finals = 0;
    while at < bytes.len() {
        let is_to_head = to_head.get(finals).copied().unwrap_or(false);
        let answer = one(bytes, at, is_to_head, is_closed)
            .map_err(|error| format!("answer {}: {error}", answers.len()))?;
        finals += usize::from(!answer.is_interim());
        at = answer.range.end;
        answers.push(answer);
    }
    Ok(answers)
}

/// Reads the answer that begins there.
pub fn one(bytes: &[u8], start: usize, to_head: bool, is_closed: bool) -> Result<Answer, String> {
    let end = find(&bytes[start..], b"\r\n\r\n").ok_or("the head is not complete")? + start;
    let mut lines = Lines(&bytes[start..end + 2]);
    let line = lines.next().ok_or("no status line")??;
    let status = status(line).ok_or_else(|| format!("status line {}", line.escape_ascii()))?;
    let headers: Vec<_> = lines.map(|line| header(line?)).collect::<Result<_, String>>()?;
    let mut answer = Answer { status, headers, body: Vec::new(), range: start..end + 4 };
    let taken = body(&mut answer, &bytes[end + 4..], to_head, is_closed)?;
    answer.range.end += taken;
    Ok(answer)
}

/// Lines that end with exactly CRLF.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = Result<&'a [u8], String>;

    fn next(&mut self) -> Option<Self::Item> {
        let end = find(self.0, b"\r\n")?;
        let (line, rest) = (&self.0[..end], &self.0[end + 2..]);
        self.0 = rest;
        let is_clean = !line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0));
        Some(if is_clean {
            Ok(line)
        } else {
            Err(format!("a line with CR, LF or NUL: {}", line.escape_ascii()))
        })
    }
}

fn status(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.1 ")?;
    let (code, phrase) = rest.split_at_checked(3)?;
    let is_code = code.iter().all(u8::is_ascii_digit) && phrase.first() == Some(&b' ');
    is_code.then(|| std::str::from_utf8(code).ok()?.parse().ok())?
}

fn header(line: &[u8]) -> Result<(String, Vec<u8>), String> {
    let bad = || format!("header {}", line.escape_ascii());
    let colon = line.iter().position(|&byte| byte == b':').ok_or_else(bad)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let is_value = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    if name.is_empty() || !name.iter().all(is_token) || !value.iter().all(is_value) {
        return Err(bad());
    }
    Ok((String::from_utf8_lossy(name).into_owned(), value.trim_ascii().to_vec()))
}

/// Reads the body and says how many bytes it had on the wire.
fn body(answer: &mut Answer, rest: &[u8], to_head: bool, is_closed: bool) -> Result<usize, String> {
    let lengths: Vec<Vec<u8>> = answer.all("content-length").map(<[u8]>::to_vec).collect();
    let codings = answer.all("transfer-encoding").count();
    let status = answer.status;
    if lengths.len() + codings > 1 {
        return Err(format!("{} lengths and {codings} transfer codings", lengths.len()));
    }
    if (answer.is_interim() || status == 204) && lengths.len() + codings > 0 {
        return Err(format!("a {status} with a length or a transfer coding"));
    }
    if answer.is_interim() || matches!(status, 204 | 304) || to_head {
        return Ok(0);
    }
    if codings == 1 {
        let coding = answer.one("transfer-encoding").unwrap_or_default();
        if coding != "chunked" {
            return Err(format!("transfer coding {coding}"));
        }
        return chunks(&mut answer.body, rest);
    }
    let Some(length) = lengths.first() else {
        if !is_closed || !answer.says_close() {
            return Err("no length, and the connection is to stay open".into());
        }
        answer.body = rest.to_vec();
        return Ok(rest.len());
    };
    let digits = std::str::from_utf8(length).unwrap_or_default();
    let length: usize = digits.parse().map_err(|_| format!("content length {digits:?}"))?;
    let body = rest.get(..length).ok_or_else(|| format!("{} of {length} body bytes", rest.len()))?;
    answer.body = body.to_vec();
    Ok(length)
}

fn chunks(body: &mut Vec<u8>, all: &[u8]) -> Result<usize, String> {
    let mut rest = all;
    loop {
        let end = find(rest, b"\r\n").ok_or("a chunk size is not complete")?;
        let digits = std::str::from_utf8(&rest[..end]).unwrap_or_default();
        let size = usize::from_str_radix(digits, 16).map_err(|_| format!("chunk size {digits:?}"))?;
        rest = &rest[end + 2..];
        let data = rest.get(..size).ok_or("a chunk is not complete")?;
        body.extend_from_slice(data);
        rest = rest[size..].strip_prefix(b"\r\n").ok_or("no CRLF behind a chunk")?;
        if size == 0 {
            return Ok(all.len() - rest.len());
        }
    }
}

/// Where `needle` begins.
pub fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}
