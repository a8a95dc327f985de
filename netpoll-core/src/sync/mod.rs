//! Channels and locks for tasks: they wait by [`Waker`](std::task::Waker) alone, so any executor will do, the workers' own or
//! another.
//!
//! Tasks that share a worker share it with nobody else, so what they talk through needs no lock and no atomic operation.
//! Everything here but [`shared`] is made of an `Rc`, costs some instructions and is not [`Send`]; the compiler says so if it is
//! taken to another thread. What threads talk through is in [`shared`].
//!
//! | | for |
//! |---|---|
//! | [`mpsc`] | a stream of values to one receiver, bounded; with capacity 0 they are handed over |
//! | [`oneshot`] | one answer |
//! | [`watch`] | the latest value, for many |
//! | [`Notify`] | "look again" |
//! | [`Semaphore`] | so many at a time |
//! | [`shared::mpsc`], [`shared::oneshot`] | the first two between threads |
//!
//! A mutex is not here. What tasks of one worker share is a `Cell` or a `RefCell`; to keep others out over an `await` takes a
//! `Semaphore` of one permit. Between threads it is [`std::sync::Mutex`], never held over an `await`.
//!
//! # Several at once
//!
//! `select!` and `join!` come from the `futures` crates and work with all of this. Every future here may be dropped at any
//! time and says what becomes of what it waited for: values stay in the channel or come back, permits and notifications
//! that it was given and did not take go to the next in line. So the branch of a `select!` that lost has lost nothing:
//!
//! ```
//! use futures::{FutureExt, select_biased};
//! use netpoll_core::sync::{Notify, mpsc};
//!
//! # futures::executor::block_on(async {
//! let (sender, mut receiver) = mpsc::channel(8);
//! let stop = Notify::new();
//! let work = async {
//!     let mut done = Vec::new();
//!     loop {
//!         select_biased! {
//!             job = receiver.recv().fuse() => match job {
//!                 Some(job) => done.push(job),
//!                 None => return done,
//!             },
//!             () = stop.notified().fuse() => {
//!                 receiver.close(); // what is there is done yet, and nothing new comes in
//!             }
//!         }
//!     }
//! };
//! let feed = async {
//!     for job in 1..=3 {
//!         sender.send(job).await?;
//!     }
//!     stop.notify_one();
//!     sender.closed().await;
//!     sender.send(4).await // refused, and given back
//! };
//! let (done, refused) = futures::join!(work, feed);
//! assert_eq!(done, [1, 2, 3]);
//! assert_eq!(refused.unwrap_err().0, 4);
//! # });
//! ```
//!
//! # Giving way
//!
//! On a worker, a poll of a task or of a handler has 128 results that are there when they are awaited, of all that is in here and of descriptors
//! and datagrams. Then each further wait says once that it is not ready, and wakes itself: others come first, also where a `select!` has several
//! that are ready. Behind 32 that have said so the poll has 128 results again, as it may be one of another executor inside the task.
//!
//! What a wait is for stays where it is; who waits in a line for it is in that line by then, and nobody overtakes it. So a wait that is polled once
//! (`now_or_never`) may be not ready with something there: `try_recv`, `try_acquire` and their like say what there is, and count for nothing. On
//! threads that are no workers nothing of this is so; there only a receiver of [`shared::mpsc`] gives way.
//!
//! # What tokio has, and what is here
//!
//! | `tokio::sync` | here |
//! |---|---|
//! | `mpsc::channel` | [`mpsc::channel`] on one thread, [`shared::mpsc::channel`] between threads; capacity 0 is allowed |
//! | `mpsc::unbounded_channel` | not here: what has no bound grows until memory ends. A large capacity costs nothing until it is used |
//! | `Sender::reserve`, `Permit` | [`mpsc::Sender::reserve`], [`mpsc::Permit`]; its `send` gives the value back if the receiver is gone |
//! | a `send` that was cancelled has lost its value | [`mpsc::Sending::into_value`] |
//! | `blocking_send`, `blocking_recv`, `recv_many` | [`shared::mpsc`] has them, and [`mpsc::Receiver::recv_many`] |
//! | `WeakSender`, `OwnedPermit`, `send_timeout` | not here; a `select!` with a timer is the last |
//! | `oneshot` | [`oneshot`], [`shared::oneshot`] |
//! | `watch`, `borrow`, `borrow_and_update` | [`watch`]; [`watch::Receiver::latest`] returns an `Rc`, [`watch::Receiver::mark_seen`] |
//! | `broadcast` | not here: a [`watch`], or an [`mpsc`] for each |
//! | `Notify`: `notify_one`, `notify_waiters`, `notify_last` | [`Notify`]: `notify_one`, `notify_all` |
//! | `Semaphore`, `acquire_many_owned`, `add_permits` | [`Semaphore::acquire`] (its permits borrow nothing), [`Semaphore::add`] |
//! | `Mutex`, `RwLock` | see above |
//! | `Barrier`, `OnceCell` | not here |

mod errors;
mod line;
pub mod mpsc;
mod notify;
pub mod oneshot;
mod queue;
mod semaphore;
pub mod shared;
mod slot;
mod wakers;
pub mod watch;

pub(crate) use wakers::{Crowd, Step, drive, wake_each};

pub use errors::{Closed, SendError, TryError, TrySendError};
pub use notify::{Notified, Notify};
pub use semaphore::{Acquiring, Semaphore, SemaphorePermit};
