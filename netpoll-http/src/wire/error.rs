//! What a peer can do wrong on the wire, and the answer it gets.
//!
//! Every entry is a framing error: one answer leaves, and nothing that the peer sent after it is
//! looked at. The table below is the only place that pairs a violation with a status.

use std::fmt;

/// A violation of HTTP/1.1 by the peer: a status and a sentence to answer with, then close.
///
/// One byte, `Copy`, made without allocating.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WireError {
    violation: Violation,
}

impl WireError {
    /// Which rule was broken.
    pub fn violation(self) -> Violation {
        self.violation
    }

    /// The status code to answer with; 4xx or 5xx.
    pub fn status(self) -> u16 {
        self.violation.answer().0
    }

    /// A short sentence that says what was wrong; the body of the answer.
    pub fn reason(self) -> &'static str {
        self.violation.answer().1
    }

    /// True when the peer does not speak HTTP at all, so that an answer would only be noise: close at once.
    pub fn is_silent(self) -> bool {
        self.violation == Violation::TlsOnPlainPort
    }
}

impl From<Violation> for WireError {
    fn from(violation: Violation) -> Self {
        WireError { violation }
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.reason(), self.status())
    }
}

impl std::error::Error for WireError {}

macro_rules! violations {
    ($($name:ident $status:literal $reason:literal)*) => {
        /// The rules that a peer can break, each with its status and sentence.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Violation {
            $(#[doc = $reason] $name,)*
        }

        impl Violation {
            fn answer(self) -> (u16, &'static str) {
                match self {
                    $(Violation::$name => ($status, $reason),)*
                }
            }

            /// Every violation, for tests and documentation.
            pub const ALL: &'static [Violation] = &[$(Violation::$name),*];
        }
    };
}

violations! {
    // The start of a head and its request line.
    TlsOnPlainPort 400 "This port speaks plain HTTP, and a TLS handshake arrived."
    TooManyEmptyLines 400 "Too many empty lines before the request line."
    BadRequestLine 400 "The request line is not: method, space, target, space, version."
    BadVersion 400 "The protocol version is not HTTP/digit.digit."
    VersionNotSupported 505 "This server speaks HTTP/1.x only."
    MethodTooLong 501 "The method is longer than any that this server knows."
    ConnectNotSupported 501 "CONNECT is not supported."
    TargetTooLong 414 "The request target is too long."
    BadTarget 400 "The request target is not a path, an http URL or an asterisk."
    AsteriskNotOptions 400 "The target * goes with OPTIONS only."
    // The header section.
    BareLf 400 "A line ends with LF instead of CRLF."
    BareCr 400 "A CR is not followed by LF."
    ControlByte 400 "The head contains a control character."
    LeadingSpace 400 "There is white space before the first header."
    FoldedHeader 400 "A header is folded over several lines."
    NoColon 400 "A header line has no colon."
    SpaceBeforeColon 400 "There is white space between a header name and its colon."
    BadHeaderName 400 "A header name is empty or not a token."
    BadHeaderValue 400 "A header value contains a control character."
    HeadTooLarge 431 "The request head is too large."
    TooManyHeaders 431 "The request has too many headers."
    NoHost 400 "The Host header is missing."
    TwoHosts 400 "There is more than one Host header."
    BadHost 400 "The host is not a valid name or address with an optional port."
    BadExpectation 417 "The only expectation that this server meets is 100-continue."
    // Where the body ends.
    LengthAndEncoding 400 "Content-Length and Transfer-Encoding exclude each other."
    BadContentLength 400 "Content-Length is not a decimal number."
    TwoContentLengths 400 "There is more than one Content-Length."
    BodyTooLarge 413 "The request body is too large."
    EncodingInHttp10 400 "Transfer-Encoding does not exist in HTTP/1.0."
    BadTransferEncoding 400 "Transfer-Encoding does not end with one plain chunked."
    UnknownTransferEncoding 501 "The only transfer encoding that this server knows is chunked."
    // The chunked body.
    BadChunkSize 400 "A chunk size is not 1 to 16 hexadecimal digits."
    BadChunkExtension 400 "A chunk extension is malformed."
    ChunkExtensionsTooLarge 400 "The chunk extensions are too large."
    BadChunkLineEnd 400 "A chunk size or its data is not followed by CRLF."
    TooMuchChunkOverhead 400 "The body consists of more chunk framing than data."
    BadTrailer 400 "A trailer line is malformed."
    TrailersTooLarge 431 "The trailer section is too large."
}

const _: () = assert!(size_of::<WireError>() == 1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_violation_has_an_error_status_and_a_sentence() {
        for &violation in Violation::ALL {
            let error = WireError::from(violation);
            assert!(matches!(error.status(), 400 | 413 | 414 | 417 | 431 | 501 | 505), "{violation:?}");
            assert!(error.reason().ends_with('.') && error.reason().is_ascii(), "{violation:?}");
        }
    }

    #[test]
    fn only_a_tls_handshake_gets_no_answer() {
        let silent = Violation::ALL.iter().filter(|&&violation| WireError::from(violation).is_silent());
        assert_eq!(silent.count(), 1);
    }
}
