//! HTTP/2: the same service for connections whose requests come in frames, many at a time.
//!
//! Frames, header compression and flow control are hyper's. What is here is what stands between it and the rest of this crate: bytes in and
//! out without a socket (`pipe.rs`, `session.rs`), what bounds frames that bring nothing (`meter.rs`), heads from fields and fields from
//! heads (`head.rs`), a request from its head to the end of its answer (`answering.rs`, `tale.rs`), its body (`intake.rs`) and that of the
//! answer (`outgoing.rs`). See `docs/decisions/0038`.
//!
//! Invariant: a request is read by the parser of HTTP/1.1 and answered by its encoder, so neither a rule nor a hook knows which version it was.

mod answering;
mod head;
mod intake;
mod line;
mod meter;
mod outgoing;
mod pipe;
mod session;
mod settings;
mod tale;
mod tasks;

use std::rc::Rc;

use self::line::Line;
use self::session::Session;
use crate::h1::shared::Next;
use crate::h1::{Second, Service};

pub use settings::Http2;

/// What connections go on as that speak HTTP/2.
pub(crate) fn second<S: Service>(settings: &Http2) -> Second<S> {
    let settings = Rc::new(settings.clone());
    Box::new(move |worker, peer, conn| -> Next {
        let line = Line::new(worker, &settings, peer, conn);
        Box::new(Session::new(line, conn))
    })
}
