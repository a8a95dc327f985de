//! Wakers that count, and polls by hand.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};

/// Counts how often it was woken.
#[derive(Default)]
pub struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// Somebody who polls, and knows how often it was woken.
pub struct Poller {
    count: Arc<Count>,
    pub waker: Waker,
}

impl Poller {
    pub fn new() -> Self {
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        Self { count, waker }
    }

    pub fn context(&self) -> Context<'_> {
        Context::from_waker(&self.waker)
    }

    pub fn poll<F: Future + Unpin>(&self, future: &mut F) -> Poll<F::Output> {
        Pin::new(future).poll(&mut self.context())
    }

    /// How often it was woken since the last time.
    pub fn wakes(&self) -> usize {
        self.count.0.swap(0, SeqCst)
    }

    /// Clones of the waker that somebody keeps.
    pub fn kept(&self) -> usize {
        Arc::strong_count(&self.count) - 2
    }
}

/// Polls once, with a waker that nobody hears.
pub fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// A value that is counted while it lives.
#[derive(Debug)]
pub struct Token(pub u32, Arc<AtomicIsize>);

impl Token {
    pub fn new(number: u32, living: &Arc<AtomicIsize>) -> Self {
        living.fetch_add(1, SeqCst);
        Self(number, Arc::clone(living))
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.1.fetch_sub(1, SeqCst);
    }
}
