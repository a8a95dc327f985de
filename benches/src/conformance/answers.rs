//! Answers, read back as a client has to: leniently, and with an eye on where each of them ends.
//!
//! Invariant: an [`Answer`] is complete. What cannot be one is left in `rest`.

/// A final answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Without chunked coding.
    pub body: Vec<u8>,
    /// It says that the connection ends behind it, or is of HTTP/1.0 and does not say that it stays.
    pub is_last: bool,
}

/// All that came back on a connection.
#[derive(Debug, Default)]
pub struct Answers {
    pub finals: Vec<Answer>,
    /// How many 1xx.
    pub interims: usize,
    /// What is no complete answer.
    pub rest: Vec<u8>,
}

struct Head {
    status: u16,
    is_1_0: bool,
    fields: Vec<(String, String)>,
    len: usize,
}

/// Reads the answers. `to_head` tells which final ones belong to HEAD; `is_ended`, that no more bytes will come.
pub fn read(bytes: &[u8], to_head: &[bool], is_ended: bool) -> Answers {
    let mut answers = Answers::default();
    let mut rest = bytes;
    while let Some(head) = head(rest) {
        let behind = &rest[head.len..];
        if (100..200).contains(&head.status) && head.status != 101 {
            answers.interims += 1;
            rest = behind;
            continue;
        }
        let is_to_head = to_head.get(answers.finals.len()).copied().unwrap_or(false);
        let Some((body, taken, to_the_end)) = body(&head, behind, is_to_head, is_ended) else { break };
        let is_last = to_the_end || head.ends_connection();
        answers.finals.push(Answer { status: head.status, body, is_last });
        rest = &behind[taken..];
    }
    answers.rest = rest.to_vec();
    answers
}

impl Head {
    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = move |(known, _): &&(String, String)| known.eq_ignore_ascii_case(name);
        self.fields.iter().filter(named).map(|(_, value)| value.as_str())
    }

    fn ends_connection(&self) -> bool {
        let says = |word: &str| {
            self.all("connection")
                .flat_map(|value| value.split(','))
                .any(|option| option.trim().eq_ignore_ascii_case(word))
        };
        says("close") || (self.is_1_0 && !says("keep-alive"))
    }
}

fn head(bytes: &[u8]) -> Option<Head> {
    let len = find(bytes, b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..len]);
    let mut lines = text.split("\r\n");
    let (version, rest) = lines.next()?.split_once(' ')?;
    let is_1_0 = match version {
        "HTTP/1.0" => true,
        "HTTP/1.1" => false,
        _ => return None,
    };
    let status = rest.get(..3)?.parse().ok()?;
    let field =
        |line: &str| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
    Some(Head { status, is_1_0, fields: lines.filter_map(field).collect(), len })
}

/// The body, how many bytes it has on the wire, and whether the end of the connection ends it.
fn body(head: &Head, bytes: &[u8], to_head: bool, is_ended: bool) -> Option<(Vec<u8>, usize, bool)> {
    if to_head || matches!(head.status, 101 | 204 | 304) {
        return Some((Vec::new(), 0, false));
    }
    if head.all("transfer-encoding").any(|coding| coding.to_ascii_lowercase().ends_with("chunked")) {
        return chunks(bytes).map(|(body, taken)| (body, taken, false));
    }
    match head.all("content-length").next() {
        Some(length) => {
            let length = length.parse().ok()?;
            Some((bytes.get(..length)?.to_vec(), length, false))
        }
        None => is_ended.then(|| (bytes.to_vec(), bytes.len(), true)),
    }
}

fn chunks(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let line = find(&bytes[at..], b"\r\n")?;
        let digits = std::str::from_utf8(&bytes[at..at + line]).ok()?;
        let size = usize::from_str_radix(digits.split(';').next()?.trim(), 16).ok()?;
        at += line + 2;
        if size == 0 {
            // Without trailers the empty line follows, else it ends them.
            let end = if bytes[at..].starts_with(b"\r\n") { 2 } else { find(&bytes[at..], b"\r\n\r\n")? + 4 };
            return Some((body, at + end));
        }
        body.extend_from_slice(bytes.get(at..at.checked_add(size)?)?);
        at += size + 2;
        bytes.get(..at)?;
    }
}

/// Where `needle` begins.
pub fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn each_framing_ends_where_it_says() {
        let bytes = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi\
            HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a\r\nho\r\n0\r\nX: y\r\n\r\n\
            HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nHTTP/1.0 404 Not Found\r\n\r\nnowhere";
        let answers = read(bytes, &[false, false, true], true);
        let bodies: Vec<&[u8]> = answers.finals.iter().map(|answer| answer.body.as_slice()).collect();
        assert_eq!(bodies, [&b"hi"[..], b"ho", b"", b"nowhere"]);
        let lasts: Vec<bool> = answers.finals.iter().map(|answer| answer.is_last).collect();
        assert_eq!((answers.interims, lasts), (1, vec![false, false, false, true]));
        assert!(answers.rest.is_empty());
    }

    #[test]
    fn what_is_not_complete_is_no_answer() {
        for bytes in [
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi",
            "HTTP/1.1 200 OK\r\n",
            "<html>",
        ] {
            let answers = read(bytes.as_bytes(), &[], true);
            assert_eq!((answers.finals.len(), answers.rest.as_slice()), (0, bytes.as_bytes()));
        }
    }
}
