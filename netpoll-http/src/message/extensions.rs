//! What hooks and handlers tell each other about a request: one value of each type.
//!
//! A list to whose end values are added and from which none is taken, so that what is shown stays where it is while more is
//! added. Requests have few: a look goes through all of them.
//!
//! What this crate itself finds out about requests, their names and traces, has a place of its own where the list begins, if nothing was
//! added before. So a server that names all its requests allocates nothing for it.
//!
//! Invariant: what can be seen is never changed, but for what follows it, once. With nothing in it, it has allocated nothing and
//! only says so; each value of the program is one allocation.

use std::any::Any;
use std::fmt;
use std::panic::resume_unwind;
use std::sync::{Arc, OnceLock};

use super::{RequestId, TraceContext, dropped};

/// Values that go with a request, by their types: what a `before` hook found out, for the handler and for `after` hooks.
///
/// Adding takes no `&mut`, because a request is shared by all who look at it. A value need not be `Clone`; it is `Send` and
/// `Sync`, because an owned request is. Costs an allocation for each value, and nothing without one; a [`RequestId`] and a [`TraceContext`] that
/// are there first take none.
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
    first: OnceLock<First>,
}

#[derive(Clone)]
enum First {
    Node(Shared),
    Own(Own),
}

/// Values of types that are known here, in place: the one that was first of all, and another one.
#[derive(Clone)]
struct Own {
    first: Known,
    second: OnceLock<Known>,
    next: Next,
}

#[derive(Clone)]
pub(crate) enum Known {
    Id(RequestId),
    Trace(TraceContext),
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
        Self { first: OnceLock::new() }
    }

    /// Adds a value. [`get`](Self::get) finds it from now on in the place of one of its type that was there; who has a reference to
    /// that keeps it, and it is dropped with the request.
    pub fn insert<T: Send + Sync + 'static>(&self, value: T) {
        let node: Shared = Arc::new(Node { next: Next::new(), value });
        if self.first.get().is_none() {
            match self.first.set(First::Node(node)) {
                Ok(()) => {}
                // Another thread was first.
                Err(First::Node(node)) => self.append(node),
                Err(First::Own(_)) => unreachable!("it is a node"),
            }
        } else {
            self.append(node);
        }
    }

    /// Adds it behind what is there.
    fn append(&self, mut node: Shared) {
        let Some(mut place) = self.behind_first() else { unreachable!("its callers have looked") };
        // Another thread may be first at the end that was found.
        while let Err(back) = place.set(node) {
            node = back;
            match place.get() {
                Some(taken) => place = &taken.next,
                None => unreachable!("it was full"),
            }
        }
    }

    /// The same of what has a place here, if that is free.
    pub(crate) fn insert_known(&self, mut known: Known) {
        if self.first.get().is_none() {
            match self.first.set(First::Own(Own { first: known, second: OnceLock::new(), next: Next::new() }))
            {
                Ok(()) => return,
                // Another thread was first.
                Err(First::Own(own)) => known = own.first,
                Err(First::Node(_)) => unreachable!("it is no node"),
            }
        }
        if let Some(First::Own(own)) = self.first.get()
            && own.second.get().is_none()
        {
            match own.second.set(known) {
                Ok(()) => return,
                Err(back) => known = back,
            }
        }
        match known {
            Known::Id(id) => self.insert(id),
            Known::Trace(trace) => self.insert(trace),
        }
    }

    #[inline]
    fn behind_first(&self) -> Option<&Next> {
        match self.first.get()? {
            First::Own(own) => Some(&own.next),
            First::Node(node) => Some(&node.next),
        }
    }

    /// The value of this type that was added last.
    #[inline]
    pub fn get<T: 'static>(&self) -> Option<&T> {
        let (mut found, mut place) = match self.first.get()? {
            First::Own(own) => (own.get(), &own.next),
            First::Node(node) => (node.value.downcast_ref(), &node.next),
        };
        while let Some(node) = place.get() {
            found = node.value.downcast_ref().or(found);
            place = &node.next;
        }
        found
    }

    /// Drops all values. False if one of them panicked.
    #[inline]
    pub(crate) fn let_go(&mut self) -> bool {
        match self.first.get_mut() {
            None => true,
            // Its own values do nothing of the program's when they are dropped.
            Some(First::Own(own)) if own.next.get().is_none() => true,
            Some(First::Own(own)) => drop_all(own.next.take()),
            Some(First::Node(_)) => match self.first.take() {
                Some(First::Node(node)) => drop_all(Some(node)),
                _ => true,
            },
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.first.get().is_none()
    }
}

impl Own {
    #[inline]
    fn get<T: 'static>(&self) -> Option<&T> {
        self.second.get().and_then(Known::get).or_else(|| self.first.get())
    }
}

impl Known {
    #[inline]
    fn get<T: 'static>(&self) -> Option<&T> {
        // Which of them it is is known when this is compiled.
        match self {
            Self::Id(id) => (id as &dyn Any).downcast_ref(),
            Self::Trace(trace) => (trace as &dyn Any).downcast_ref(),
        }
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
        let mut values = match self.first.get() {
            None => 0,
            Some(First::Node(_)) => 1,
            Some(First::Own(own)) => 1 + usize::from(own.second.get().is_some()),
        };
        let mut next = self.behind_first().and_then(OnceLock::get);
        while let Some(node) = next {
            values += 1;
            next = node.next.get();
        }
        write!(f, "Extensions({values} values)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_the_value_that_was_added_last() {
        let extensions = Extensions::new();
        assert!(extensions.get::<u8>().is_none() && extensions.is_empty());
        extensions.insert(1_u8);
        extensions.insert("text");
        let before = extensions.get::<u8>();
        extensions.insert(2_u8);
        assert_eq!((before, extensions.get::<u8>()), (Some(&1), Some(&2)));
        assert_eq!((extensions.get::<&str>(), extensions.get::<u16>()), (Some(&"text"), None));
        assert_eq!(format!("{extensions:?}"), "Extensions(3 values)");
    }

    fn id(name: &[u8]) -> Known {
        Known::Id(RequestId::from_text(name))
    }

    #[test]
    fn the_name_that_was_added_last_is_the_one_whatever_was_there_before_it() {
        for (begins, copies) in [(true, true), (true, false), (false, true), (false, false)] {
            let extensions = Extensions::new();
            if begins {
                extensions.insert(1_u8);
            }
            extensions.insert_known(id(b"first"));
            let first = extensions.get::<RequestId>().expect("it was added").clone();
            extensions.insert_known(id(b"second"));
            extensions.insert(2_u8);
            let copy = if copies { extensions.clone() } else { extensions };
            assert_eq!((first.as_str(), copy.get()), ("first", Some(&RequestId::from_text(b"second"))));
            assert_eq!((copy.get::<u8>(), copy.get::<TraceContext>()), (Some(&2), None));
            assert_eq!(format!("{copy:?}"), format!("Extensions({} values)", 3 + usize::from(begins)));
            assert!({ copy }.let_go());
        }
    }

    #[test]
    fn names_are_added_from_several_threads() {
        let extensions = Extensions::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100).for_each(|_| extensions.insert_known(id(b"name"))));
            }
        });
        assert_eq!(extensions.get::<RequestId>().map(RequestId::as_str), Some("name"));
        assert_eq!(format!("{extensions:?}"), "Extensions(400 values)");
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
        let mut extensions = Extensions::new();
        extensions.insert_known(id(b"name"));
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
        extensions.insert(());
        let mut place = extensions.behind_first().expect("it has one");
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
