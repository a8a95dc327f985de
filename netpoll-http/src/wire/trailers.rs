//! The fields behind a chunked body, kept apart from the headers.
//!
//! Invariant: nothing here ever becomes a header, and a field that would change how the message is read
//! (framing, routing, credentials) does not come out at all, as RFC 9110 section 6.5.1 asks
//! (CVE-2025-53643 and CVE-2025-59822 were servers that merged them).

use super::framing::trim;

/// The fields of one trailer section that passed the [`Decoder`](super::Decoder); usually none.
#[derive(Clone, Debug, Default)]
pub struct Trailers {
    /// The lines as they came, each with its line end.
    section: Vec<u8>,
}

impl Trailers {
    pub(super) fn new(section: Vec<u8>) -> Trailers {
        Trailers { section }
    }

    /// Those that have come in a frame of HTTP/2, whose values are no less strict than ours; `None` if they are longer than so many bytes.
    #[cfg_attr(not(feature = "http2"), allow(dead_code))]
    pub fn of_fields<'f>(
        fields: impl Iterator<Item = (&'f str, &'f [u8])>,
        bytes_max: usize,
    ) -> Option<Trailers> {
        let mut section = Vec::new();
        for (name, value) in fields {
            if section.len() + name.len() + value.len() + 4 > bytes_max {
                return None;
            }
            section.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        Some(Trailers { section })
    }

    /// The fields in order: name as it was sent, value without white space around it.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.section.split(|&byte| byte == b'\n').filter_map(|line| {
            let colon = memchr::memchr(b':', line)?;
            let name = std::str::from_utf8(&line[..colon]).ok()?;
            let value = trim(line[colon + 1..].strip_suffix(b"\r")?);
            let is_forbidden = FORBIDDEN.iter().any(|forbidden| forbidden.eq_ignore_ascii_case(name));
            (!is_forbidden).then_some((name, value))
        })
    }
}

/// Framing, routing, request modifiers, authentication, and how the content is to be read.
const FORBIDDEN: [&str; 24] = [
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "max-forwards",
    "proxy-authorization",
    "range",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
