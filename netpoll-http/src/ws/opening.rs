//! A client's opening handshake, judged by a server (RFC 6455 section 4.2).
//!
//! Invariant: an [`Opening`] is of a request that asks for this protocol in this version with a valid key, once each, and for nothing in an invalid form. What
//! it does not check is what the parser of heads has: that Host is there once and is one, and that fields have no white space at their ends. Whether the
//! origin is welcome is the program's to say.
//!
//! Borrows from the head, and allocates nothing. Costs a look at each field, and for the answer a hash of 60 bytes.

use std::fmt;
use std::str;

use super::extension::{self, Deflate};
use super::key::{Accept, Key};
use crate::wire::framing::{elements, is_token_byte, lists};

/// Subprotocols that a client may name. More than anybody has, and few enough to compare each with all.
pub const PROTOCOLS_MAX: usize = 32;

/// What a request says in front of its fields, and whether anything is behind them.
#[derive(Clone, Copy, Debug)]
pub struct RequestLine<'a> {
    /// As it was sent.
    pub method: &'a str,
    /// 0 for HTTP/1.0, 1 for HTTP/1.1.
    pub minor_version: u8,
    /// Chunked, or of a length above zero.
    pub has_body: bool,
}

macro_rules! refusals {
    ($($name:ident $status:literal $reason:literal)*) => {
        /// Why a request is no opening handshake, each with its status and sentence.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Refusal {
            $(#[doc = $reason] $name,)*
        }

        impl Refusal {
            /// The status code to answer with.
            pub fn status(self) -> u16 {
                match self {
                    $(Refusal::$name => $status,)*
                }
            }

            /// A short sentence that says what was wrong; the body of the answer.
            pub fn reason(self) -> &'static str {
                match self {
                    $(Refusal::$name => $reason,)*
                }
            }

            /// Every refusal, for tests and documentation.
            pub const ALL: &'static [Refusal] = &[$(Refusal::$name),*];
        }
    };
}

refusals! {
    NotGet 405 "A WebSocket is opened by GET."
    NotHttp11 426 "A WebSocket is opened by HTTP/1.1."
    NoUpgrade 426 "A WebSocket is spoken here, and Upgrade does not list websocket."
    NoConnectionOption 426 "A WebSocket is spoken here, and Connection does not list upgrade."
    HasBody 400 "A request that opens a WebSocket has no body."
    BadVersion 426 "The only Sec-WebSocket-Version that this server speaks is 13, named once."
    NoKey 400 "Sec-WebSocket-Key is missing."
    TwoKeys 400 "There is more than one Sec-WebSocket-Key."
    BadKey 400 "Sec-WebSocket-Key is not 16 bytes in base64."
    TwoOrigins 400 "There is more than one Origin."
    BadProtocols 400 "Sec-WebSocket-Protocol is not a list of tokens, each of them once."
    TooManyProtocols 400 "Sec-WebSocket-Protocol lists too many."
    BadExtensions 400 "Sec-WebSocket-Extensions is not a list of extensions with parameters."
}

impl Refusal {
    /// Fields of the answer. One that has Upgrade has `Connection: upgrade` as well, from whoever writes heads (RFC 9110 section 7.8).
    pub fn fields(self) -> &'static [(&'static str, &'static str)] {
        match self.status() {
            405 => &[("Allow", "GET")],
            426 => &[("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")],
            _ => &[],
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.reason(), self.status())
    }
}

impl std::error::Error for Refusal {}

/// A valid opening handshake.
#[derive(Clone, Debug)]
pub struct Opening<'a> {
    key: Key,
    origin: Option<&'a [u8]>,
    deflate: Option<Deflate>,
    protocols: Protocols<'a>,
}

impl<'a> Opening<'a> {
    /// Judges a request by its fields, in order and as often as they came.
    ///
    /// # Errors
    /// What is missing or wrong; of several, what a client that speaks another version or no WebSocket has to hear first.
    pub fn read(
        line: RequestLine<'_>,
        fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<Opening<'a>, Refusal> {
        let mut found = Found::default();
        for (name, value) in fields {
            found.note(name, value);
        }
        let is_list_empty = found.protocols.lines && found.protocols.count == 0;
        let judgement = [
            (line.method != "GET", Refusal::NotGet),
            (line.minor_version == 0, Refusal::NotHttp11),
            (!found.upgrade, Refusal::NoUpgrade),
            (!found.connection, Refusal::NoConnectionOption),
            (line.has_body, Refusal::HasBody),
            (!found.version.is_some_and(|is_ours| is_ours), Refusal::BadVersion),
            (found.is_key_repeated, Refusal::TwoKeys),
            (found.key.is_none(), Refusal::NoKey),
            (found.is_origin_repeated, Refusal::TwoOrigins),
            (is_list_empty, Refusal::BadProtocols),
            (found.is_extension_malformed || found.extensions == Some(0), Refusal::BadExtensions),
        ];
        if let Some((_, refusal)) = judgement.into_iter().find(|(is_so, _)| *is_so) {
            return Err(refusal);
        }
        if let Some(refusal) = found.protocols_fault {
            return Err(refusal);
        }
        let key = found.key.and_then(Key::parse).ok_or(Refusal::BadKey)?;
        Ok(Opening { key, origin: found.origin, deflate: found.deflate, protocols: found.protocols })
    }

    /// The origin of the page that has opened it, as it was sent. Browsers always say it, and say the truth; others may say anything. To compare
    /// with whom the program lets in, or any page in the world acts in the name of its visitors.
    pub fn origin(&self) -> Option<&'a [u8]> {
        self.origin
    }

    /// The subprotocols that the client speaks, the one that it likes best first; each once.
    pub fn protocols(&self) -> &[&'a str] {
        self.protocols.listed()
    }

    /// The first of the client's subprotocols that is one of these.
    pub fn choose(&self, spoken: &[&str]) -> Option<&'a str> {
        self.protocols().iter().copied().find(|offered| spoken.contains(offered))
    }

    /// The first offer of permessage-deflate that can be taken.
    pub fn deflate(&self) -> Option<Deflate> {
        self.deflate
    }

    /// The fields of the 101, with one of the client's subprotocols, or none, and with compression if that is wanted and was offered.
    ///
    /// # Panics
    /// If the client has not named the subprotocol.
    pub fn answer(&self, protocol: Option<&'a str>, compression: bool) -> Answer<'a> {
        assert!(
            protocol.is_none_or(|protocol| self.protocols().contains(&protocol)),
            "nobody has offered {protocol:?}"
        );
        Answer { accept: self.key.accept(), protocol, deflate: self.deflate.filter(|_| compression) }
    }
}

/// What a 101 says besides `Upgrade: websocket` and `Connection: upgrade`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// `Sec-WebSocket-Accept`
    pub accept: Accept,
    /// `Sec-WebSocket-Protocol`, if there is one.
    pub protocol: Option<&'a str>,
    /// `Sec-WebSocket-Extensions` by its `Display`, if there is one. A [`Reader`](super::Reader) has to know.
    pub deflate: Option<Deflate>,
}

#[derive(Default)]
struct Found<'a> {
    upgrade: bool,
    connection: bool,
    /// Of the only line there is whether it is ours; false of several.
    version: Option<bool>,
    key: Option<&'a [u8]>,
    is_key_repeated: bool,
    origin: Option<&'a [u8]>,
    is_origin_repeated: bool,
    protocols: Protocols<'a>,
    protocols_fault: Option<Refusal>,
    /// How many there are, if there is a line.
    extensions: Option<usize>,
    is_extension_malformed: bool,
    deflate: Option<Deflate>,
}

impl<'a> Found<'a> {
    #[inline]
    fn note(&mut self, name: &'a str, value: &'a [u8]) {
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
        match name.len() {
            6 if is("origin") => self.is_origin_repeated |= self.origin.replace(value).is_some(),
            7 if is("upgrade") => self.upgrade |= lists(value, "websocket"),
            10 if is("connection") => self.connection |= lists(value, "upgrade"),
            17 if is("sec-websocket-key") => self.is_key_repeated |= self.key.replace(value).is_some(),
            21 if is("sec-websocket-version") => {
                self.version = Some(self.version.is_none() && value == b"13");
            }
            22 if is("sec-websocket-protocol") => {
                self.protocols.lines = true;
                let fault = elements(value).find_map(|element| self.protocols.note(element).err());
                self.protocols_fault = self.protocols_fault.or(fault);
            }
            24 if is("sec-websocket-extensions") => {
                let deflate = &mut self.deflate;
                let counted = extension::elements(value, |element| *deflate = deflate.or(element.accepted()));
                self.is_extension_malformed |= counted.is_err();
                self.extensions = Some(self.extensions.unwrap_or(0) + counted.unwrap_or(0));
            }
            _ => {}
        }
    }
}

/// Subprotocols, of all lines together.
#[derive(Clone, Debug)]
struct Protocols<'a> {
    listed: [&'a str; PROTOCOLS_MAX],
    count: usize,
    /// There is a line at all.
    lines: bool,
}

impl Default for Protocols<'_> {
    fn default() -> Self {
        Protocols { listed: [""; PROTOCOLS_MAX], count: 0, lines: false }
    }
}

impl<'a> Protocols<'a> {
    fn listed(&self) -> &[&'a str] {
        &self.listed[..self.count]
    }

    fn note(&mut self, element: &'a [u8]) -> Result<(), Refusal> {
        // Empty elements are none (RFC 9110 section 5.6.1.2).
        if element.is_empty() {
            return Ok(());
        }
        let is_token = element.iter().copied().all(is_token_byte);
        let name = str::from_utf8(element).ok().filter(|name| is_token && !self.listed().contains(name));
        let name = name.ok_or(Refusal::BadProtocols)?;
        *self.listed.get_mut(self.count).ok_or(Refusal::TooManyProtocols)? = name;
        self.count += 1;
        Ok(())
    }
}
