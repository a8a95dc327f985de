//! The opening handshake of a client, and its answer judged (RFC 6455 section 4.1).
//!
//! Invariant: what a client goes on with is an answer to its own key, and agrees to nothing that it has not offered.

use std::fmt;
use std::str;

use super::extension::{Deflate, Element, elements};
use super::key::Key;
use crate::wire::framing::lists;

/// What a client asks for. Its request is a GET with Host, `Upgrade: websocket`, `Connection: Upgrade`, `Sec-WebSocket-Version: 13` and
/// what is here.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// `Sec-WebSocket-Key`
    pub key: Key,
    /// `Sec-WebSocket-Protocol`, if any: what it would like best first.
    pub protocols: &'a [&'a str],
    /// Whether `Sec-WebSocket-Extensions` has the [offer](super::extension::OFFER) of compression.
    pub compression: bool,
}

/// What both sides have agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed<'f> {
    /// One of the subprotocols, if there is one.
    pub protocol: Option<&'f str>,
    /// Compression. A [`Reader`](super::Reader) has to know.
    pub deflate: Option<Deflate>,
}

macro_rules! mistrusts {
    ($($name:ident $reason:literal)*) => {
        /// Why an answer opens no WebSocket. The connection is to be closed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Mistrust {
            $(#[doc = $reason] $name,)*
        }

        impl Mistrust {
            /// A short sentence that says what is wrong.
            pub fn reason(self) -> &'static str {
                match self {
                    $(Mistrust::$name => $reason,)*
                }
            }
        }
    };
}

mistrusts! {
    NotSwitching "The answer is not 101, and may be read as what it is."
    NotUpgraded "The answer lacks Upgrade: websocket."
    NoConnectionOption "The answer's Connection does not list upgrade."
    BadAccept "The answer's Sec-WebSocket-Accept is not there once, or not of our key."
    BadProtocol "The answer names a subprotocol that we did not, or several."
    BadExtension "The answer agrees to an extension that we did not offer, or to another form of it."
}

impl fmt::Display for Mistrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for Mistrust {}

impl Asking<'_> {
    /// Judges an answer by its status and its fields, in order and as often as they came.
    ///
    /// # Errors
    /// The first thing that is missing or was not asked for.
    pub fn judge<'f>(
        &self,
        status: u16,
        fields: impl IntoIterator<Item = (&'f str, &'f [u8])>,
    ) -> Result<Agreed<'f>, Mistrust> {
        let accept = self.key.accept();
        let (mut upgrade, mut connection) = (false, false);
        let mut accepts: Option<bool> = None;
        let (mut protocols, mut protocol) = (0, None);
        let (mut extensions, mut extension) = (0, Element::default());
        let mut is_malformed = false;
        for (name, value) in fields {
            let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
            match name.len() {
                7 if is("upgrade") => upgrade |= value.eq_ignore_ascii_case(b"websocket"),
                10 if is("connection") => connection |= lists(value, "upgrade"),
                20 if is("sec-websocket-accept") => {
                    accepts = Some(accepts.is_none() && value == accept.as_str().as_bytes());
                }
                22 if is("sec-websocket-protocol") => {
                    protocols += 1;
                    protocol = str::from_utf8(value).ok().filter(|name| self.protocols.contains(name));
                }
                24 if is("sec-websocket-extensions") => {
                    let counted = elements(value, |element| extension = element);
                    is_malformed |= counted.is_err();
                    extensions += counted.unwrap_or(0);
                }
                _ => {}
            }
        }
        let deflate = match extensions {
            0 => Ok(None),
            1 if self.compression => extension.confirmed().map(Some).ok_or(Mistrust::BadExtension),
            _ => Err(Mistrust::BadExtension),
        };
        match () {
            () if status != 101 => Err(Mistrust::NotSwitching),
            () if !upgrade => Err(Mistrust::NotUpgraded),
            () if !connection => Err(Mistrust::NoConnectionOption),
            () if accepts != Some(true) => Err(Mistrust::BadAccept),
            () if protocols > 1 || protocols == 1 && protocol.is_none() => Err(Mistrust::BadProtocol),
            () if is_malformed => Err(Mistrust::BadExtension),
            () => Ok(Agreed { protocol, deflate: deflate? }),
        }
    }
}
