//! A value on its way to a protocol, whatever its type.

use std::any::Any;
use std::fmt;

use crate::mem::{Guarded, guarded};

/// A value that somebody has sent to a connection; see [`Protocol::told`](crate::Protocol::told).
///
/// A protocol that knows one type of message takes it out and is done; one that knows several tries them in turn:
///
/// ```
/// use netpoll_core::Message;
///
/// fn read(message: Message) -> String {
///     match message.downcast::<u64>() {
///         Ok(number) => format!("the number {number}"),
///         Err(message) => match message.downcast::<String>() {
///             Ok(text) => text,
///             Err(other) => format!("{other:?}"),
///         },
///     }
/// }
///
/// assert_eq!(read(Message::new(7_u64)), "the number 7");
/// assert_eq!(read(Message::new("a text".to_owned())), "a text");
/// ```
///
/// One allocation. A message that nobody takes is dropped where it is; a panic of its destructor is caught and counted.
pub struct Message(Guarded<Box<dyn Any + Send>>);

impl Message {
    /// Wraps a value. [`Handle::tell`](crate::Handle::tell) and [`Commands::tell`](crate::Commands::tell) do it themselves;
    /// this is for tests of a protocol, and for protocols that hand on to an inner one.
    pub fn new<T: Any + Send>(value: T) -> Self {
        Self(Guarded::new(Box::new(value)))
    }

    /// Whether it is of this type.
    #[must_use]
    pub fn is<T: Any>(&self) -> bool {
        self.0.is::<T>()
    }

    /// The value inside, if it is of this type.
    #[must_use]
    pub fn downcast_ref<T: Any>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }

    /// Takes the value out.
    ///
    /// # Errors
    /// The message itself, if its value is of another type.
    pub fn downcast<T: Any>(self) -> Result<T, Self> {
        self.0.into_inner().downcast().map(|value| *value).map_err(|other| Self(Guarded::new(other)))
    }
}

/// Makes the same message for each of many.
pub trait Template: Send {
    /// One of them. `None` if the copy panicked, which is counted.
    fn message(&self) -> Option<Message>;
    /// The same for another worker.
    fn another(&self) -> Option<Box<dyn Template>>;
}

impl<T: Any + Send + Clone> Template for Guarded<T> {
    fn message(&self) -> Option<Message> {
        guarded(|| Message::new(T::clone(self)))
    }

    fn another(&self) -> Option<Box<dyn Template>> {
        guarded(|| -> Box<dyn Template> { Box::new(Guarded::new(T::clone(self))) })
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Message").finish_non_exhaustive()
    }
}
