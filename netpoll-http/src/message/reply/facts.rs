//! What an answer has to fit, and who is above it.
//!
//! Invariant: made once for each answer, before it is written, and not changed by it.

use std::cell::Cell;

use super::super::{Body, Error, Parts, Request, Response, RouteId};
use crate::log;
use crate::wire::{Connection, HeadStarts, Length};

/// What an answer has to fit.
pub(crate) struct Facts<'a> {
    /// The request was HEAD: a head with the length of a body, and no body.
    pub(crate) head_only: bool,
    /// The request was HTTP/1.0: no chunks, and keep-alive has to be said.
    pub(crate) is_http10: bool,
    /// The connection stays open after this answer.
    pub(crate) keep_alive: bool,
    /// What is said of a connection that stays open.
    pub(crate) stays: Connection,
    pub(crate) starts: &'a HeadStarts,
    /// Neither HEAD nor HTTP/1.0, nothing to be said of the connection, no hooks and no stamp.
    pub(super) is_usual: bool,
    pub(super) context: Context<'a>,
    /// Where the head ends that was written last: how much had been written by then.
    pub(super) head_end: Cell<usize>,
}

/// Who is above, and what they are asked about.
pub(crate) struct Context<'a> {
    pub(crate) above: &'a dyn Above,
    pub(crate) route: Option<RouteId>,
    pub(crate) request: Option<&'a Request<'a>>,
    /// Hooks see the head before it leaves; then the request is there.
    pub(crate) has_after: bool,
    /// A line that each head gets.
    pub(crate) stamp: Option<&'a Stamp<'a>>,
}

/// A header line that an answer gets without a hook that sees it: the name in lower case, and a value that was checked.
pub(crate) type Stamp<'a> = (&'static str, &'a [u8]);

/// Implemented above: what changes an answer before it leaves, and what writes errors.
pub(crate) trait Above {
    fn after(&self, route: Option<RouteId>, request: &Request<'_>, parts: &mut Parts);

    /// Whether requests are asked for behind their handlers.
    fn needs_requests(&self) -> bool;

    /// So many bytes of content were coded or decoded, which has taken a while.
    fn coded(&self, bytes: usize);

    /// An error is about to leave.
    fn fails(&self, error: &Error);

    /// An error as the program has it.
    fn render(&self, error: &Error, request: &Request<'_>) -> Option<Response>;
}

impl<'a> Facts<'a> {
    #[inline]
    pub(crate) fn new(
        head_only: bool,
        is_http10: bool,
        keep_alive: bool,
        stays: Connection,
        starts: &'a HeadStarts,
        context: Context<'a>,
    ) -> Self {
        // HTTP/1.0 is always told that its connection stays.
        let is_usual = !head_only
            && matches!(stays, Connection::Unsaid)
            && !context.has_after
            && context.stamp.is_none();
        Self { head_only, is_http10, keep_alive, stays, starts, is_usual, context, head_end: Cell::new(0) }
    }

    /// The same of an answer that has a stamp.
    #[inline]
    pub(super) fn is_usual_but_for_stamp(&self) -> bool {
        !self.head_only && matches!(self.stays, Connection::Unsaid) && !self.context.has_after
    }

    /// What an answer says of the connection.
    #[inline]
    pub(super) fn connection(&self, keep_alive: bool) -> Connection {
        if keep_alive { self.stays } else { Connection::Close }
    }

    /// How the end of a body is marked, and whether that takes the end of the connection.
    pub(super) fn length(&self, body: &Body) -> (Length, bool) {
        match body.length() {
            Some(length) => (Length::Known(length), false),
            None if self.head_only => (Length::Unsaid, false),
            None if self.is_http10 => (Length::Unsaid, true),
            None => (Length::Chunked, false),
        }
    }

    /// Shows the head to the hooks.
    pub(super) fn after(&self, parts: &mut Parts) {
        if let Context { above, route, request: Some(request), has_after: true, .. } = self.context {
            above.after(route, request, parts);
        }
    }

    /// Where the head ends of an answer that was written at once.
    #[inline]
    pub(crate) fn head_end(&self) -> usize {
        self.head_end.get()
    }

    /// Whether hooks see the head before it leaves.
    #[inline]
    pub(crate) fn has_after(&self) -> bool {
        self.context.has_after
    }

    /// Whether somebody is going to need the request after the handler has consumed it.
    pub(super) fn needs_request(&self) -> bool {
        self.context.has_after
            || self.context.stamp.is_some()
            || log::IS_ON
            || self.context.above.needs_requests()
    }

    /// An error as the program has it; `None` if it is to be text.
    pub(super) fn render(&self, error: &Error) -> Option<Response> {
        self.context.above.render(error, self.context.request?)
    }

    /// Tells of an error, and logs it if it is a failure of ours.
    pub(super) fn note(&self, error: &Error) {
        self.context.above.fails(error);
        if log::IS_ON && error.is_ours() {
            let request = self.context.request;
            let (method, path) = request.map_or(("-", ""), |request| (request.method_str(), request.path()));
            log::failed(method, path, error);
        }
    }
}
