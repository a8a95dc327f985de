//! What hooks and handlers tell each other about a request: one value of each type.
//!
//! A list to whose end values are added and from which none is taken, so that what is shown stays where it is while more is
//! added. Requests have few: a look goes through all of them.
//!
//! What this crate itself finds out about a request before anybody sees it, its name and its trace, is no part of the list: it lies beside it, so
//! that a server that names all its requests allocates nothing for it.
//!
//! Invariant: what can be seen is never changed, but for what follows it, once. With nothing in it, it has allocated nothing and
//! only says so; each value of the program is one allocation.

use std::any::Any;
use std::fmt;
use std::panic::resume_unwind;
use std::sync::{Arc, OnceLock};

use super::names::{Named, Names};
use super::{RequestId, dropped};
use crate::wire::Head;

/// Values that go with a request, by their types: what a `before` hook found out, for the handler and for `after` hooks.
///
/// Adding takes no `&mut`, because a request is shared by all who look at it. A value need not be `Clone`; it is `Send` and
/// `Sync`, because an owned request is. Costs an allocation for each value, and nothing without one.
///
/// ```
/// use netpoll_http::{App, Error, Request, Router, StatusCode};
///
/// struct User {
///     name: String,
/// }
///
/// fn sign_in(req: &Request) -> Result<(), Error> {
///     let name = req.header_str("x-user").ok_or(StatusCode::UNAUTHORIZED)?;
///     req.extensions().insert(User { name: name.to_owned() });
///     Ok(())
/// }
///
/// let router = |_: &_| Router::new().before(sign_in).get("/me", async |req: Request| {
///     let user = req.extensions().get::<User>().ok_or(StatusCode::UNAUTHORIZED)?;
///     Ok(format!("hello, {}", user.name))
/// });
/// let client = App::new(router).test();
/// assert_eq!(client.get("/me").status, StatusCode::UNAUTHORIZED);
/// let response = client.request(netpoll_http::Method::GET, "/me").header("X-User", "Ada").send();
/// assert_eq!(response.text(), "hello, Ada");
/// ```
#[derive(Clone, Default)]
pub struct Extensions {
    /// What was known from the start.
    named: Option<Named>,
    first: Next,
}

type Shared = Arc<Node<dyn Any + Send + Sync>>;
type Next = OnceLock<Shared>;

struct Node<T: ?Sized> {
    next: Next,
    value: T,
}

impl Extensions {
    #[inline]
    pub(crate) const fn new() -> Self {
        Self { named: None, first: OnceLock::new() }
    }

    /// Finds out what is known before anybody sees the request.
    #[inline]
    pub(crate) fn find_out(&mut self, names: Names, head: &Head<'_>) {
        if names.any() {
            // Where it stays: it is long.
            self.named.insert(Named::unknown(names)).find_in(head);
        }
    }

    /// The name of the request, if it is the one that was found out, and nobody has added anything.
    #[inline]
    pub(super) fn id_alone(&self) -> Option<&RequestId> {
        if self.is_untouched() { self.named.as_ref()?.id.as_ref() } else { None }
    }

    /// Whether all of this was looked for from the start.
    #[inline]
    pub(crate) fn are_known(&self, names: Names) -> bool {
        self.named.as_ref().is_some_and(|named| named.has_looked_for(names))
    }

    /// Adds a value. [`get`](Self::get) finds it from now on in the place of one of its type that was there; who has a reference to
    /// that keeps it, and it is dropped with the request.
    pub fn insert<T: Send + Sync + 'static>(&self, value: T) {
        let mut node: Shared = Arc::new(Node { next: Next::new(), value });
        let mut place = &self.first;
        // Another thread may be first at the end that was found.
        while let Err(back) = place.set(node) {
            node = back;
            match place.get() {
                Some(taken) => place = &taken.next,
                None => unreachable!("it was full"),
            }
        }
    }

    /// The value of this type that was added last.
    #[inline]
    pub fn get<T: 'static>(&self) -> Option<&T> {
        let mut found = self.named.as_ref().and_then(Named::get);
        let mut place = &self.first;
        while let Some(node) = place.get() {
            found = node.value.downcast_ref().or(found);
            place = &node.next;
        }
        found
    }

    /// Drops all values of the program. False if one of them panicked.
    #[inline]
    pub(crate) fn let_go(&mut self) -> bool {
        self.is_untouched() || drop_all(self.first.take())
    }

    /// Nobody has added a value, and what was found out has no memory of its own: there is nothing to drop.
    #[inline]
    pub(crate) fn is_flat(&self) -> bool {
        self.is_untouched() && self.named.as_ref().is_none_or(Named::is_flat)
    }

    /// Nobody has added a value.
    #[inline]
    pub(crate) fn is_untouched(&self) -> bool {
        self.first.get().is_none()
    }
}

/// Drops the values from here on, one after the other, each whatever the others do: a list that drops itself from node to node is as deep as it
/// is long. False if one of them panicked.
fn drop_all(mut next: Option<Shared>) -> bool {
    let mut is_well = true;
    while let Some(mut node) = next {
        // Whoever else has it drops what follows.
        next = Arc::get_mut(&mut node).and_then(|node| node.next.take());
        is_well &= dropped(node);
    }
    is_well
}

impl Drop for Extensions {
    #[inline]
    fn drop(&mut self) {
        // Two panics at once would end the process: there is one, behind all of them.
        if !self.let_go() && !std::thread::panicking() {
            resume_unwind(Box::new("a value of a request has panicked when it was dropped"));
        }
    }
}

/// Of one whose owners have let go of it at the same time.
impl<T: ?Sized> Drop for Node<T> {
    fn drop(&mut self) {
        // Its own value may panic behind this.
        drop_all(self.next.take());
    }
}

impl fmt::Debug for Extensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut values = self.named.as_ref().map_or(0, Named::len);
        let mut place = &self.first;
        while let Some(node) = place.get() {
            values += 1;
            place = &node.next;
        }
        write!(f, "Extensions({values} values)")
    }
}

#[cfg(test)]
mod tests {
    use super::super::TraceContext;
    use super::*;

    #[test]
    fn each_type_has_the_value_that_was_added_last() {
        let extensions = Extensions::new();
        assert!(extensions.get::<u8>().is_none() && extensions.is_untouched());
        extensions.insert(1_u8);
        extensions.insert("text");
        let before = extensions.get::<u8>();
        extensions.insert(2_u8);
        assert_eq!((before, extensions.get::<u8>()), (Some(&1), Some(&2)));
        assert_eq!((extensions.get::<&str>(), extensions.get::<u16>()), (Some(&"text"), None));
        assert_eq!(format!("{extensions:?}"), "Extensions(3 values)");
    }

    fn named(name: &[u8]) -> Extensions {
        let wanted = Names { id: true, trace: false };
        let named = Named { id: Some(RequestId::from_text(name)), ..Named::unknown(wanted) };
        Extensions { named: Some(named), first: Next::new() }
    }

    #[test]
    fn the_name_that_was_added_last_is_the_one_also_of_a_copy() {
        let extensions = named(b"first");
        let first = extensions.get::<RequestId>().expect("it was there");
        extensions.insert(RequestId::from_text(b"second"));
        extensions.insert(2_u8);
        let copy = extensions.clone();
        assert_eq!((first.as_str(), copy.get()), ("first", Some(&RequestId::from_text(b"second"))));
        assert_eq!((copy.get::<u8>(), copy.get::<TraceContext>()), (Some(&2), None));
        assert_eq!(format!("{copy:?}"), "Extensions(3 values)");
        drop(extensions);
        assert!(!copy.is_untouched() && { copy }.let_go());
    }

    #[test]
    fn what_follows_a_name_is_dropped_whatever_the_others_do() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("as it was told");
            }
        }
        let counted = Arc::new(());
        let mut extensions = named(b"name");
        extensions.insert(Bomb);
        extensions.insert(Arc::clone(&counted));
        assert!(!extensions.let_go(), "one of them has panicked");
        assert_eq!(Arc::strong_count(&counted), 1);
    }

    #[test]
    fn a_copy_has_what_was_there_and_both_see_what_comes_behind_it() {
        let extensions = Extensions::new();
        extensions.insert(1_u8);
        let copy = extensions.clone();
        copy.insert("text");
        assert_eq!((copy.get::<u8>(), extensions.get::<&str>()), (Some(&1), Some(&"text")));
    }

    #[test]
    fn a_million_values_are_dropped_one_after_the_other() {
        let counted = Arc::new(());
        let extensions = Extensions::new();
        let mut place = &extensions.first;
        for _ in 0..1_000_000 {
            let node: Shared = Arc::new(Node { next: Next::new(), value: Arc::clone(&counted) });
            assert!(place.set(node).is_ok());
            place = &place.get().expect("it was set").next;
        }
        drop(extensions);
        assert_eq!(Arc::strong_count(&counted), 1);
    }

    #[test]
    fn values_are_added_from_several_threads() {
        let extensions = Extensions::new();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..1000_u32).for_each(|value| extensions.insert(value)));
            scope.spawn(|| (0..1000_u64).for_each(|value| extensions.insert(value)));
        });
        assert_eq!((extensions.get::<u32>(), extensions.get::<u64>()), (Some(&999), Some(&999)));
        assert_eq!(format!("{extensions:?}"), "Extensions(2000 values)");
    }
}
