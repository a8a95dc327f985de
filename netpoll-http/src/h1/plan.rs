//! What is done with a request: decided from its head alone, before a byte of its body is read.
//!
//! Invariant: hooks have been asked before anything else is decided, and a route before that no handler is there.

use http::header::ALLOW;
use http::{HeaderValue, StatusCode};
use netpoll_core::Input;

use super::{Route, Service, Worker};
use crate::message::{Allow, Delivery, Error, Request, Response, RouteId};
use crate::wire::{Framing, Head, Method};

/// What is done with a request, once its head is there.
pub(crate) enum Plan {
    /// Answer without a handler and without the body, as a hook wants it.
    Answer(Result<Response, Error>),
    /// The same for an error, which hooks get to see.
    Refuse(Error),
    /// A hook panicked.
    Apologise,
    /// Hooks may have to wait.
    Ask,
    /// Call a handler with so many bytes of body.
    Call(RouteId, usize),
    /// Receive the body, at most so many bytes: first, or for a handler that takes it while it arrives.
    Receive(RouteId, usize, Delivery),
    /// The same, but the handler does not see it.
    Drop(RouteId, usize),
}

/// Asks the hooks before a handler: what they want done, if anything.
pub(crate) fn ask_hooks<S: Service>(
    worker: &Worker<S>,
    route: Option<RouteId>,
    request: &Request<'_>,
) -> Option<Plan> {
    match worker.service.before(route, request) {
        Some(answer) => Some(Plan::Answer(answer)),
        None => worker.service.has_before_async(route, request).then_some(Plan::Ask),
    }
}

/// Decides what to do with a request that hooks have let pass, from its head alone. So many bytes behind it are there.
pub(crate) fn plan<S: Service>(
    worker: &Worker<S>,
    found: Route<'_>,
    head: &Head<'_>,
    request: &Request<'_>,
    bytes_behind: usize,
) -> Plan {
    let route = match found {
        Route::To(route) => route,
        _ => match fallback(worker, found, head, request) {
            Some(route) => route,
            None => return without_route(worker, found, head),
        },
    };
    let length = match head.framing {
        Framing::None | Framing::Length(0) => return Plan::Call(route, 0),
        Framing::Length(length) => length,
        Framing::Chunked => 0,
    };
    let wanted = worker.body_bytes_max(route, head.method);
    let body_bytes_max = wanted.unwrap_or(worker.limits.skip_bytes_max);
    if length > body_bytes_max as u64 && body_bytes_max != usize::MAX {
        let message = match wanted {
            Some(_) => format!("the request body may have at most {body_bytes_max} bytes"),
            None => "this request takes no body".to_owned(),
        };
        return Plan::Refuse(Error::new(StatusCode::PAYLOAD_TOO_LARGE, message));
    }
    if wanted.is_none() {
        return Plan::Drop(route, body_bytes_max);
    }
    match head.framing {
        Framing::Length(length) if length <= bytes_behind as u64 => Plan::Call(route, length as usize),
        _ => Plan::Receive(route, body_bytes_max, worker.service.delivery(route)),
    }
}

/// The route that takes what finds none, if there is one.
#[cold]
fn fallback<S: Service>(
    worker: &Worker<S>,
    found: Route<'_>,
    head: &Head<'_>,
    request: &Request<'_>,
) -> Option<RouteId> {
    let is_for_it = match found {
        Route::MethodNotAllowed(_) => head.method != Method::Options && is_known(worker, head),
        _ => head.path_bytes() != b"*",
    };
    let route = if is_for_it { worker.service.fallback(head.path(), found)? } else { return None };
    if let Route::MethodNotAllowed(allow) = found {
        request.extensions().insert(Allow(allow_value(allow)));
    }
    Some(route)
}

/// The answer to a request that no handler is for.
#[cold]
fn without_route<S: Service>(worker: &Worker<S>, found: Route<'_>, head: &Head<'_>) -> Plan {
    let allow = match found {
        Route::MethodNotAllowed(allow) => allow,
        _ if head.path_bytes() == b"*" => worker.service.methods(),
        _ => "",
    };
    match head.method {
        Method::Other if !is_known(worker, head) => Plan::Refuse(Error::from(StatusCode::NOT_IMPLEMENTED)),
        Method::Options if !allow.is_empty() || head.path_bytes() == b"*" => {
            let mut options = Response::new(StatusCode::NO_CONTENT);
            options.headers.insert(ALLOW, allow_value(allow));
            Plan::Answer(Ok(options))
        }
        _ if !allow.is_empty() => {
            let refused = Error::from(StatusCode::METHOD_NOT_ALLOWED);
            Plan::Refuse(refused.with_header(ALLOW, allow_value(allow)))
        }
        _ => Plan::Refuse(Error::from(StatusCode::NOT_FOUND)),
    }
}

/// Whether a method is known: to HTTP, or because it has a route anywhere (RFC 9110 sections 15.5.6 and 15.6.2).
fn is_known<S: Service>(worker: &Worker<S>, head: &Head<'_>) -> bool {
    head.method != Method::Other
        || worker.service.methods().split(", ").any(|known| known == head.method_name())
}

fn allow_value(methods: &str) -> HeaderValue {
    // Names of methods are tokens, so they are a valid value.
    HeaderValue::from_str(methods).unwrap_or(HeaderValue::from_static(""))
}

/// Whether the body may be skipped to keep the connection: it is short, and the peer is sending it,
/// which it is not if it waits for a 100 that will not come.
pub(super) fn may_skip<S: Service>(worker: &Worker<S>, head: &Head<'_>, input: &Input<'_>) -> bool {
    let skip_bytes_max = worker.limits.skip_bytes_max as u64;
    let is_short = !matches!(head.framing, Framing::Length(length) if length > skip_bytes_max);
    is_short && !(head.expect_continue && input.is_empty())
}
