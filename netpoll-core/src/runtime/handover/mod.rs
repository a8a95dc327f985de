//! A process takes over from the one that was there before: its listening sockets, with whoever stands in their queues.
//!
//! The one that serves listens on a Unix socket (`offering.rs`, `place.rs`). The one that follows connects there when it starts (`heir.rs`), gets a
//! descriptor of each socket, and makes everything that can fail. When it is ready it says so, is told to go ahead, and takes the other one's place at the path; when it serves it
//! says that as well, and only then the other one drains, and sends connections that are idle behind (`moving.rs`). Whichever ends before, and however: the sockets are open in both until
//! then, so the one that is left serves.

mod channel;
mod family;
mod heir;
mod moving;
mod offering;
mod place;
mod wire;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::Builder;
use crate::mem;

pub use family::{Family, Inherited};
pub use heir::Heir;
pub use offering::Offering;
pub use place::Place;
pub use wire::ManagerName;

/// What the file of the socket lets in: its owner.
const MODE: u32 = 0o600;

type OnEnd = Box<dyn Fn(Result<u32, &io::Error>) + Send + Sync>;

/// Where a process hands its listening sockets to the one that follows it, and takes them over from the one before it. For
/// [`Builder::handover`](crate::Builder::handover), which says what happens.
///
/// ```no_run
/// # use netpoll_core::{Conn, Flow, Input, Protocol};
/// use netpoll_core::{Handover, Runtime};
/// # struct Echo;
/// # impl Protocol for Echo {
/// #     fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
/// #         Flow::Close
/// #     }
/// # }
/// # fn main() -> std::io::Result<()> {
/// Runtime::builder()
///     .handover(Handover::at("/run/echo/handover.sock"))
///     .listen("0.0.0.0:7000", |_worker| |_peer| Echo)?
///     .run()?;
/// # Ok(())
/// # }
/// ```
///
/// Start the same program once more, and the first one drains and ends when the second serves.
pub struct Handover {
    path: PathBuf,
    ready_within: Duration,
    on_end: Option<OnEnd>,
}

impl Handover {
    /// By a Unix socket at this path, which both processes name. Its file is made for its owner only (`0600`), and is replaced by the process
    /// that follows; the directory has to be there, and to be writable for this user alone.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), ready_within: Duration::from_secs(60), on_end: None }
    }

    /// How long a process that follows may take until it is ready. Default 60 s: whoever fills caches or asks a database first takes
    /// some of it, and one that hangs does not keep the next one waiting for ever. When the time is up it is refused, and this process
    /// serves on. One that was ready is waited for as long as it lives: what stands [beside](crate::Builder::beside) it is started then.
    #[must_use]
    pub fn ready_within(mut self, time: Duration) -> Self {
        self.ready_within = time;
        self
    }

    /// Calls a function when a process that wanted to follow serves, with its number (0 if it has none in this namespace), or when it
    /// came to nothing, with the reason: for the log. That this process cannot come back to the path, where one that was to follow has taken its
    /// place and ended, is such a reason as well. On a thread of its own, and connections do not wait for it; whoever wants to follow behind one that has come to nothing does. A panic in it is
    /// caught.
    #[must_use]
    pub fn on_end(mut self, call: impl Fn(Result<u32, &io::Error>) + Send + Sync + 'static) -> Self {
        self.on_end = Some(Box::new(call));
        self
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn ended(&self, outcome: Result<u32, &io::Error>) {
        if let Err(error) = outcome {
            crate::log::handover_failed(error);
        }
        if let Some(call) = &self.on_end
            && mem::guarded(|| call(outcome)).is_none()
        {
            crate::log::code_panicked();
        }
    }

    fn named(&self, error: io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("handover at {}: {error}", self.path.display()))
    }
}

impl Builder {
    /// Gathers what was open before: of a service manager, and of the process that goes, if there is one. The way to that one, and
    /// where the next one is to find this.
    ///
    /// # Errors
    /// What was handed in makes no sense; the other process does not hand over.
    pub(super) fn inherit_all(
        &mut self,
        handover: Option<&Handover>,
    ) -> io::Result<(Option<Heir>, Option<Place>)> {
        let has_family = self.family.succession.is_some();
        if !has_family && (handover.is_some() || !self.inherited.is_empty()) {
            self.family = Arc::new(Family::new(handover.is_some()));
        }
        for fd in self.inherited.drain(..) {
            self.family.add_of_manager(fd)?;
        }
        let Some(handover) = handover else { return Ok((None, None)) };
        if self.is_beside {
            let message = "a runtime that stands beside another is handed over with it";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let heir = Heir::find(handover, &self.family)?;
        Ok((heir, Some(Place::new(handover)?)))
    }
}

impl fmt::Debug for Handover {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Handover")
            .field("path", &self.path)
            .field("ready_within", &self.ready_within)
            .finish_non_exhaustive()
    }
}
