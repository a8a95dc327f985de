//! What a server calls itself, in every answer.
//!
//! Invariant: what connections are told was checked when the server started, so it is one whole header line, or none.

use std::borrow::Cow;

use crate::wire::SERVER_LINE;

/// The longest name: room for a product, a version and a comment.
const BYTES_MAX: usize = 128;

/// The value of the `Server` header of every answer, or that there is none: what
/// [`Server::server_header`](crate::Server::server_header) takes. Made of a `&'static str`, a `String`, or `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerHeader(Name);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Name {
    #[default]
    Netpoll,
    Other(Cow<'static, str>),
    None,
}

impl ServerHeader {
    /// Why it cannot be sent.
    pub(crate) fn check(&self) -> Result<(), String> {
        let Name::Other(name) = &self.0 else { return Ok(()) };
        let is_visible = |byte: u8| matches!(byte, b'!'..=b'~');
        let is_value = name.bytes().all(|byte| is_visible(byte) || byte == b' ')
            && name.bytes().next().is_some_and(is_visible)
            && name.bytes().last().is_some_and(is_visible);
        if !is_value {
            return Err(format!(
                "server_header is {name:?}, which is not visible ASCII, with spaces inside at most"
            ));
        }
        if name.len() > BYTES_MAX {
            return Err(format!("server_header has {} bytes, and may have {BYTES_MAX}", name.len()));
        }
        Ok(())
    }

    /// Its line in a head, with its end; empty if there is none.
    pub(crate) fn line(&self) -> Cow<'static, str> {
        match &self.0 {
            Name::Netpoll => SERVER_LINE.into(),
            Name::Other(name) => format!("Server: {name}\r\n").into(),
            Name::None => "".into(),
        }
    }
}

impl From<&'static str> for ServerHeader {
    fn from(name: &'static str) -> Self {
        Self(Name::Other(name.into()))
    }
}

impl From<String> for ServerHeader {
    fn from(name: String) -> Self {
        Self(Name::Other(name.into()))
    }
}

/// `None` leaves the header out.
impl From<Option<&'static str>> for ServerHeader {
    fn from(name: Option<&'static str>) -> Self {
        name.map_or(Self(Name::None), Self::from)
    }
}
