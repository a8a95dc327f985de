//! Reads answers as a client does.

use http::StatusCode;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestResponse {
    /// The status.
    pub status: StatusCode,
    /// The headers in their order; names as they were sent.
    pub headers: Vec<(String, String)>,
    /// The body, with chunked coding removed.
    pub body: Vec<u8>,
}

impl TestResponse {
    /// The first header of that name, in any case of letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    ///
    /// # Panics
    /// When it is not UTF-8.
    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not JSON of that shape.
    #[cfg(feature = "json")]
    #[track_caller]
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> T {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("{error} in {:?}", String::from_utf8_lossy(&self.body)),
        }
    }

    /// Reads one final answer off the front and says how many bytes it had; `None` while it is incomplete, and an
    /// error if it is none. Informational answers before it are passed over.
    pub(super) fn parse(
        mut bytes: &[u8],
        to_head: bool,
        is_closed: bool,
    ) -> Result<Option<(Self, usize)>, String> {
        let all = bytes.len();
        loop {
            let Some(head_bytes) = bytes.windows(4).position(|end| end == b"\r\n\r\n") else {
                return Ok(None);
            };
            let head_bytes = head_bytes + 4;
            let head = String::from_utf8_lossy(&bytes[..head_bytes - 4]);
            let mut lines = head.split("\r\n");
            let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 "));
            let status = status.and_then(|line| StatusCode::from_bytes(line.as_bytes().get(..3)?).ok());
            let status = status.ok_or_else(|| format!("not an answer ({head:?})"))?;
            if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
                bytes = &bytes[head_bytes..];
                continue;
            }
            let header = |line: &str| match line.split_once(':') {
                Some((name, value)) => Ok((name.to_owned(), value.trim_matches([' ', '\t']).to_owned())),
                None => Err(format!("not a header ({line:?})")),
            };
            let headers = lines.map(header).collect::<Result<_, _>>()?;
            let mut response = Self { status, headers, body: Vec::new() };
            let rest = &bytes[head_bytes..];
            let body_bytes = response.read_body(rest, to_head, is_closed)?;
            return Ok(body_bytes.map(|bytes| (response, all - rest.len() + bytes)));
        }
    }

    fn read_body(&mut self, rest: &[u8], to_head: bool, is_closed: bool) -> Result<Option<usize>, String> {
        if to_head || matches!(self.status.as_u16(), 101 | 204 | 304) {
            return Ok(Some(0));
        }
        if self.header("transfer-encoding").is_some() {
            let mut decoder = crate::wire::Decoder::new();
            let decoded = decoder.decode(rest, &mut self.body, u64::MAX);
            let decoded = decoded.map_err(|error| format!("not chunks ({error:?})"))?;
            return Ok(decoded.done.then_some(decoded.consumed));
        }
        let length = match self.header("content-length") {
            Some(length) => length.trim().parse().map_err(|_| format!("not a length ({length:?})"))?,
            // Without a length the body ends with the connection.
            None if is_closed => rest.len(),
            None => return Ok(None),
        };
        let Some(body) = rest.get(..length) else { return Ok(None) };
        self.body = body.to_vec();
        Ok(Some(length))
    }
}
