//! How a request has ended, for whoever wants to know: what the hook of [`Server::on_complete`](crate::Server::on_complete) sees.
//!
//! Invariant: made once for each request, when nothing more is going to happen to it.

use std::fmt;
use std::time::Duration;

use http::StatusCode;

use crate::message::{Request, RouteId};

/// A request that is over: what it was, what became of it, and how long that took.
///
/// Shown to the hook of [`Server::on_complete`](crate::Server::on_complete), once for each request, in whatever way it ends. It
/// is shown when its answer has been handed to the kernel, or has come to nothing; see [`send`](Self::send) for when that is.
///
/// Times are those of the worker's clock, which is read once a turn: what happens within one turn takes no time. A turn is as
/// long as the callbacks of all connections in it, which is some hundred microseconds on a busy worker. So a synchronous handler
/// takes none by this clock, and one that computes for long is found in [`Stats::long_turns`](netpoll_core::Stats::long_turns).
#[derive(Debug)]
#[non_exhaustive]
pub struct Completed<'a> {
    /// The request: method, target, version, headers, peer, extensions. Its body is there or not. One whose head could not be
    /// read [says so](Request::is_unread).
    pub request: &'a Request<'a>,
    /// The pattern that it was routed by, `/orders/{id}`: one of a fixed set, whatever paths are asked for. `None` where no
    /// route was found, with a fallback as well, and for a [`Service`](crate::Service) that has none.
    pub route: Option<&'a str>,
    /// The same as a number of the service.
    pub route_id: Option<RouteId>,
    /// The status of the answer. `None` if there was none: who asked had left, or the connection was cut.
    pub status: Option<StatusCode>,
    /// What became of it.
    pub outcome: Outcome,
    /// What went wrong, where the answer is a 5xx that was made of an [`Error`](crate::Error): its message, unless that only says the
    /// status in words, and its [sources](std::error::Error::source), with `: ` between them. Of a handler or a stream that panicked what
    /// it said. Clients are told none of the sources. At most 1024 bytes; a text of the program, which may quote a peer and have line ends in
    /// it: write it with `{:?}`, or as JSON, to a log of your own. It is made where somebody watches, for these answers only.
    pub error: Option<&'a str>,
    /// Bytes that were received: head, and body with its framing. Not those of a body that nobody wanted and that was skipped
    /// behind the answer.
    pub bytes_in: u64,
    /// Bytes of the answer, head and body with its framing, that were made. Of one that was not [sent](Outcome::is_sent) fewer arrived.
    pub bytes_out: u64,
    /// Of those the head.
    pub head_bytes_out: u64,
    /// When the request began to arrive, in seconds since 1970.
    pub unix_seconds: u64,
    /// From its first byte to the call of its handler: until its head and body were there, and asynchronous hooks were done.
    /// Without a handler until it was answered; of one that reads its body while it arrives until the head was there. What lies in the socket while others have their turn is not in it.
    pub queue: Duration,
    /// From the call of the handler until the head of its answer was made, or it came to nothing.
    pub handler: Duration,
    /// From then until the last byte was handed to the kernel, or the answer broken off. Zero if it is at most 16 KiB, no file, and nothing
    /// was waiting before it: it leaves in the same turn, and is taken as sent. Of a longer one it is until the end of the turn;
    /// if the kernel did not take it at once, until the client's side has acknowledged it. If the connection ends behind it,
    /// a longer one counts until the connection is closed, which waits for the client.
    pub send: Duration,
    /// These are all zero.
    pub(crate) took_no_time: bool,
}

impl Completed<'_> {
    /// From the first byte of the request to the last of its answer.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.queue + self.handler + self.send
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// A handler or a hook has answered, with whatever status.
    Answered,
    /// It was answered by this crate, which did not serve it; or by a handler that has read its body while it arrived, of which something was
    /// wrong.
    Refused(Refusal),
    /// A handler, a hook or a stream panicked. It was answered with 500, if its answer had not begun.
    Panicked,
    /// The connection was handed to another protocol. Told when the 101 is queued.
    Upgraded,
    /// The client left before it was answered, before its body had arrived, or before it had all of its answer, or did not
    /// take it in time.
    Abandoned,
    /// The answer was broken off from our side: its stream failed, its file was shorter than promised, or the connection was ended by
    /// a command.
    BrokenOff,
    /// The deadline of a drain has cut it.
    Cut,
}

impl Outcome {
    /// All of them, each refusal by itself.
    pub const ALL: [Self; 6 + Refusal::ALL.len()] = {
        let mut all = [Self::Answered; 6 + Refusal::ALL.len()];
        all[1] = Self::Panicked;
        all[2] = Self::Upgraded;
        all[3] = Self::Abandoned;
        all[4] = Self::BrokenOff;
        all[5] = Self::Cut;
        let mut next = 0;
        while next < Refusal::ALL.len() {
            all[6 + next] = Self::Refused(Refusal::ALL[next]);
            next += 1;
        }
        all
    };

    /// Whether a whole answer was sent.
    #[must_use]
    pub fn is_sent(self) -> bool {
        matches!(self, Self::Answered | Self::Refused(_) | Self::Upgraded)
    }

    /// A word for logs and metrics: `answered`, `abandoned`; of a refusal that of its reason.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Refused(refusal) => refusal.name(),
            Self::Panicked => "panicked",
            Self::Upgraded => "upgraded",
            Self::Abandoned => "abandoned",
            Self::BrokenOff => "broken_off",
            Self::Cut => "cut",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

macro_rules! refusals {
    ($($(#[doc = $doc:expr])+ $variant:ident $name:literal,)*) => {
        /// Why a request was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Refusal {
            $($(#[doc = $doc])+ $variant,)*
        }

        impl Refusal {
            /// All of them.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// A word for logs and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

refusals! {
    /// It is no request of HTTP/1.1, or could be read in two ways: 400.
    Malformed "malformed",
    /// No route has its path: 404.
    NotFound "not_found",
    /// Its path has no route for its method: 405.
    MethodNotAllowed "method_not_allowed",
    /// Its head, or its body, took too long to arrive: 408.
    Late "late",
    /// Its body is larger than the route or the limits allow: 413.
    BodyTooLarge "body_too_large",
    /// Its target is longer than the limits allow: 414.
    TargetTooLong "target_too_long",
    /// It expects what this server does not do: 417.
    Expectation "expectation",
    /// Its head is larger than the limits allow: 431.
    HeadTooLarge "head_too_large",
    /// Its method or transfer coding is not known: 501.
    NotImplemented "not_implemented",
    /// The worker's connections hold all the memory they may: 503.
    ShortOfMemory "short_of_memory",
    /// Its handler, or a hook, took too long: 503.
    HandlerLate "handler_late",
    /// It asks for an upgrade that cannot be any more: 503.
    UpgradeTooLate "upgrade_too_late",
    /// It is of another version of HTTP: 505.
    Version "version",
}

impl Refusal {
    /// That with a status. Of 503 the lack of memory.
    pub(crate) fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            404 => Self::NotFound,
            405 => Self::MethodNotAllowed,
            408 => Self::Late,
            413 => Self::BodyTooLarge,
            414 => Self::TargetTooLong,
            417 => Self::Expectation,
            431 => Self::HeadTooLarge,
            501 => Self::NotImplemented,
            503 => Self::ShortOfMemory,
            505 => Self::Version,
            _ => Self::Malformed,
        }
    }
}
