//! Letters from other threads, and the doorbell that ends a worker's sleep.
//!
//! The doorbell has four states. The sleeper publishes SLEEPING, fences and looks into its mailbox once
//! more before it sleeps; the sender puts the letter in, fences and rings only if it finds SLEEPING and wins
//! the exchange for NOTIFIED. With both fences at least one side sees the other: no letter is slept over,
//! and a burst of letters costs one system call. `tests/loom.rs` checks every interleaving.
//!
//! A worker that ends stores CLOSED, fences and takes out what is there; a sender that finds CLOSED behind its fence takes
//! its letter out again, or somebody else's. So no letter outlives its worker: each is opened or dropped.

use std::io;

use super::sync::{Arc, AtomicU8, AtomicU64, Ordering, Queue, fence};

const AWAKE: u8 = 0;
const SLEEPING: u8 = 1;
const NOTIFIED: u8 = 2;
const CLOSED: u8 = 3;

/// What ends a wait from another thread. The eventfd of a driver, or a model of it.
pub trait Bell: Send + Sync + 'static {
    /// Makes the current or the next wait return.
    ///
    /// # Errors
    /// The kernel's, when it refuses the write.
    fn ring(&self) -> io::Result<()>;
}

struct Shared<T> {
    letters: Queue<T>,
    state: AtomicU8,
    rung: AtomicU64,
    suppressed: AtomicU64,
    bell: Box<dyn Bell>,
}

impl<T> Shared<T> {
    /// Drops what nobody will open. Letters must not panic when they are dropped.
    #[cold]
    #[inline(never)]
    fn discard_letters(&self) {
        while let Some(letter) = self.letters.pop() {
            drop(letter);
        }
    }
}

/// The sending side; any thread may hold one.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Sender<T> {
    /// They lead to the same mailbox.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Puts a letter in and wakes the worker if it sleeps. If it has ended, the letter is dropped.
    pub fn send(&self, letter: T) {
        self.shared.letters.push(letter);
        self.ring();
    }

    /// Wakes the worker if it sleeps.
    fn ring(&self) {
        // Pairs with the fence in `Mailbox::may_sleep`.
        fence(Ordering::SeqCst);
        let state = &self.shared.state;
        let found = state.load(Ordering::Relaxed);
        if found == AWAKE {
            self.shared.suppressed.fetch_add(1, Ordering::Relaxed);
        } else {
            self.rouse(found);
        }
    }

    /// To a worker that was found otherwise than awake.
    #[inline(never)]
    fn rouse(&self, mut found: u8) {
        if found == SLEEPING {
            let state = &self.shared.state;
            let won = state.compare_exchange(SLEEPING, NOTIFIED, Ordering::AcqRel, Ordering::Relaxed);
            found = won.unwrap_or_else(|other| other);
        }
        if found == CLOSED {
            return self.shared.discard_letters();
        }
        if found != SLEEPING {
            self.shared.suppressed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.shared.rung.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = self.shared.bell.ring() {
            // An eventfd write fails only if the descriptor is not one: an invariant of ours is broken.
            panic!("the doorbell cannot be rung: {error}");
        }
    }
}

/// The receiving side, owned by one worker.
pub struct Mailbox<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Mailbox<T> {
    /// An empty mailbox whose senders ring this bell.
    pub fn new(bell: impl Bell) -> Self {
        Self {
            shared: Arc::new(Shared {
                letters: Queue::new(),
                state: AtomicU8::new(AWAKE),
                rung: AtomicU64::new(0),
                suppressed: AtomicU64::new(0),
                bell: Box::new(bell),
            }),
        }
    }

    /// Another sending side.
    pub fn sender(&self) -> Sender<T> {
        Sender { shared: Arc::clone(&self.shared) }
    }

    /// The oldest letter.
    pub fn take(&self) -> Option<T> {
        self.shared.letters.pop()
    }

    /// No letter is there.
    pub fn is_empty(&self) -> bool {
        self.shared.letters.is_empty()
    }

    /// Announces sleep. False when a letter is there already: do not sleep then.
    #[must_use]
    pub fn may_sleep(&self) -> bool {
        self.shared.state.store(SLEEPING, Ordering::Relaxed);
        // Pairs with the fence in `Sender::ring`: either the sender sees SLEEPING, or we see its letter.
        fence(Ordering::SeqCst);
        self.shared.letters.is_empty()
    }

    /// Ends an announced sleep.
    pub fn awake(&self) {
        self.shared.state.store(AWAKE, Ordering::Relaxed);
    }

    /// Wake-ups that took a system call, and those that took none.
    pub fn wakeups(&self) -> (u64, u64) {
        (self.shared.rung.load(Ordering::Relaxed), self.shared.suppressed.load(Ordering::Relaxed))
    }
}

/// The worker has ended: letters that are there or come later are dropped.
impl<T> Drop for Mailbox<T> {
    fn drop(&mut self) {
        // Behind a NOTIFIED that a sender is about to store, never in front of it.
        self.shared.state.swap(CLOSED, Ordering::AcqRel);
        // Pairs with the fence in `Sender::ring`: either the sender sees CLOSED, or we see its letter.
        fence(Ordering::SeqCst);
        self.shared.discard_letters();
    }
}
