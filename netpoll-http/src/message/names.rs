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
    #[inline]
    pub(super) fn any(self) -> bool {
        self.id || self.trace
    }
}

impl Named {
    /// Nothing was found yet.
    #[inline]
    pub(super) fn unknown(wanted: Names) -> Self {
        Self { wanted, id: None, trace: None }
    }

    /// Looks for what is wanted, in one walk through the headers.
    pub(super) fn find_in(&mut self, head: &Head<'_>) {
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
        if self.wanted.id {
            self.id = Some(RequestId::found(id.filter(|_| ids == 1)));
        }
        if self.wanted.trace
            && let Some(parent) = parent.filter(|_| parents == 1)
        {
            TraceContext::find(&mut self.trace, parent);
            if has_state && let Some(trace) = &mut self.trace {
                trace.find_state(head.index().all(head.bytes, "tracestate"));
            }
        }
    }

    /// What was found lies where this does.
    #[inline]
    pub(super) fn is_flat(&self) -> bool {
        self.id.as_ref().is_none_or(RequestId::is_flat)
            && self.trace.as_ref().is_none_or(TraceContext::is_flat)
    }

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
