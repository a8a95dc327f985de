//! Which handler a request goes to: method and path in, a route and its parameters out.
//!
//! Two routers share one pattern language ([`pattern`]), one parameter list ([`Params`]) and one set
//! of rules: [`Tree`] is built at run time, [`route_table!`](crate::route_table) at compile time.
//!
//! # Rules
//!
//! * The **raw** path is matched: nothing is decoded, normalised or case-folded, so `/a%2Fb` is one
//!   segment, `/a//b` is not `/a/b`, and `/a/` is not `/a`. Parameter values are raw, too.
//! * `{id}` takes one whole segment that is not empty; `{*rest}` takes all that follows, which may
//!   hold slashes and must not be empty: `/files/{*rest}` serves neither `/files` nor `/files/`.
//! * Segment by segment from the left, a literal beats `{id}`, and `{id}` beats `{*rest}`. A choice
//!   that leads nowhere is taken back. The order in which routes were added never matters.
//! * The path chooses first, then the method: `GET /a/b` is answered 405 when the best pattern for
//!   the path is a `POST /a/b`, even if there is a `GET /a/{id}`. So `Allow` is a fixed string.
//! * A route for any method takes those for which its paths have no other.
//! * HEAD is served by GET unless it has a route of its own. `Allow` names HEAD wherever GET is, and
//!   OPTIONS only where somebody added it: answering OPTIONS is the caller's.
//!
//! Invariant: after a [`Found::Route`], and only then, [`Params`] holds that route's parameters.
//! Nothing here knows sockets or handlers, and finding a route never allocates.

pub mod pattern;
pub mod table;

mod nest;
mod routes;
mod scan;
mod serving;
mod texts;
mod tree;
mod wiring;

#[cfg(test)]
mod tests;

pub use crate::message::{PARAMS_MAX, Params};
pub use pattern::{Flaw, Pattern};
pub use routes::{Endpoints, TableRouter, Then};
pub use table::Table;
pub use tree::{RouteError, Tree};
pub use wiring::Router;

/// What a router says about a method and a path.
///
/// `R` is `&T` from a [`Tree`] and the route's number from a [`Table`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a, R> {
    /// The route to take; the caller's [`Params`] are filled in.
    Route(R),
    /// The path is known, the method is not (405). Carries the ready-made value of the `Allow`
    /// field, such as `GET, HEAD, POST`; methods stand in the order in which they were added.
    MethodNotAllowed(&'a str),
    /// No pattern matches the path (404).
    NotFound,
}
