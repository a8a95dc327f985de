//! What a peer can do wrong on an open connection, and the close code that it gets.
//!
//! Every entry fails the connection (RFC 6455 section 7.1.7): one Close leaves, and nothing that the peer sends
//! after it is looked at. The table below is the only place that pairs a violation with a code.

use std::fmt;

use super::close::CloseCode;

macro_rules! violations {
    ($($name:ident $code:ident $reason:literal)*) => {
        /// The rules that a peer can break, each with its close code and sentence.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Violation {
            $(#[doc = $reason] $name,)*
        }

        impl Violation {
            /// The code of the Close that is to be sent.
            pub fn close_code(self) -> CloseCode {
                match self {
                    $(Violation::$name => CloseCode::$code,)*
                }
            }

            /// A short sentence that says what was wrong; it fits into a Close.
            pub fn reason(self) -> &'static str {
                match self {
                    $(Violation::$name => $reason,)*
                }
            }

            /// Every violation, for tests and documentation.
            pub const ALL: &'static [Violation] = &[$(Violation::$name),*];
        }
    };
}

violations! {
    // The header of a frame.
    ReservedBits PROTOCOL_ERROR "A reserved bit is set, and no extension was agreed on that uses it there."
    ReservedOpcode PROTOCOL_ERROR "The opcode is a reserved one."
    NotMasked PROTOCOL_ERROR "A frame of a client is not masked."
    Masked PROTOCOL_ERROR "A frame of a server is masked."
    LengthNotMinimal PROTOCOL_ERROR "A length is written in more bytes than it needs."
    LengthTooLarge PROTOCOL_ERROR "A length has more than 63 bits."
    ControlTooLong PROTOCOL_ERROR "The payload of a control frame is longer than 125 bytes."
    ControlFragmented PROTOCOL_ERROR "A control frame is fragmented."
    // The order of frames.
    NothingToContinue PROTOCOL_ERROR "A continuation follows no first fragment."
    MessageInMessage PROTOCOL_ERROR "A message begins inside another one."
    // What is in them.
    BadText INVALID_PAYLOAD "A text is not UTF-8."
    BadCompression INVALID_PAYLOAD "A compressed message is none that can be inflated by itself."
    BadClosePayload PROTOCOL_ERROR "The payload of a Close has one byte."
    BadCloseCode PROTOCOL_ERROR "A close code is not one that may be sent."
    BadCloseReason INVALID_PAYLOAD "The reason of a Close is not UTF-8."
    // What is too much.
    MessageTooLarge TOO_BIG "The message is too large."
    TooManyFragments TOO_BIG "The message has too many fragments."
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.reason(), self.close_code().get())
    }
}

impl std::error::Error for Violation {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_violation_has_a_code_for_the_wire_and_a_reason_that_fits_a_close() {
        for &violation in Violation::ALL {
            assert!(matches!(violation.close_code().get(), 1002 | 1007 | 1009), "{violation:?}");
            assert!(violation.reason().len() <= 123 && violation.reason().ends_with('.'), "{violation:?}");
        }
    }
}
