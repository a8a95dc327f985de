//! What this crate finds out about a request before a hook sees it, for a service that wants it of all of them.
//!
//! Invariant: it is what the hooks would have found, [`RequestId::take`] and [`TraceContext::take`], which then have nothing left to do.

use std::any::Any;

use super::{RequestId, TraceContext};
use crate::wire::Head;

/// What is to be found out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Names {
    pub(crate) id: bool,
    pub(crate) trace: bool,
}

/// What was found out.
#[derive(Clone)]
pub(crate) struct Named {
    /// What was looked for: a request without a trace has none also where that was.
    pub(crate) wanted: Names,
    pub(crate) id: Option<RequestId>,
    pub(crate) trace: Option<TraceContext>,
}

impl Names {
    /// Looks for it, in one walk through the headers. `None` if nothing is wanted.
    #[inline]
    pub(crate) fn of(self, head: &Head<'_>) -> Option<Named> {
        if !self.id && !self.trace { None } else { Some(self.found_in(head)) }
    }

    fn found_in(self, head: &Head<'_>) -> Named {
        let ((mut id, mut ids), (mut parent, mut parents), mut has_state) = ((None, 0), (None, 0), false);
        head.index().each_of(
            head.bytes,
            ["x-request-id", "traceparent", "tracestate"],
            |at, value| match at {
                0 => (id, ids) = (Some(value), ids + 1),
                1 => (parent, parents) = (Some(value), parents + 1),
                _ => has_state = true,
            },
        );
        Named {
            wanted: self,
            id: self.id.then(|| RequestId::found(id.filter(|_| ids == 1))),
            trace: match parent {
                Some(parent) if self.trace && parents == 1 => TraceContext::found(parent, || {
                    has_state.then(|| head.index().all(head.bytes, "tracestate"))
                }),
                _ => None,
            },
        }
    }
}

impl Named {
    /// All of this was looked for.
    #[inline]
    pub(super) fn has_looked_for(&self, names: Names) -> bool {
        (self.wanted.id || !names.id) && (self.wanted.trace || !names.trace)
    }

    #[inline]
    pub(super) fn get<T: 'static>(&self) -> Option<&T> {
        // Which of them it is is known when this is compiled.
        let id = self.id.as_ref().and_then(|id| (id as &dyn Any).downcast_ref());
        id.or_else(|| self.trace.as_ref().and_then(|trace| (trace as &dyn Any).downcast_ref()))
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.id.is_some()) + usize::from(self.trace.is_some())
    }
}
