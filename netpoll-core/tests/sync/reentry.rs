//! Code of the program that runs in odd places: wakers that call back when they are woken or dropped, and values that do
//! when they are dropped. Nothing is borrowed or locked then, so they find a channel in order.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use netpoll_core::sync::{Notify, Semaphore, mpsc, oneshot, shared, watch};

use crate::support::poll;

thread_local! {
    /// What the wakers of this thread do when they are woken or dropped.
    static ON_WAKE: RefCell<Option<Rc<dyn Fn()>>> = const { RefCell::new(None) };
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

/// A waker that calls back.
struct Nasty;

fn call_back() {
    CALLS.set(CALLS.get() + 1);
    let call = ON_WAKE.with_borrow(Clone::clone);
    if let Some(call) = call {
        call();
    }
}

impl Wake for Nasty {
    fn wake(self: Arc<Self>) {
        call_back();
    }
}

impl Drop for Nasty {
    fn drop(&mut self) {
        call_back();
    }
}

/// Polls with a waker of which the channel then has the only clone.
fn poll_nastily<F: Future + Unpin>(future: &mut F) -> std::task::Poll<F::Output> {
    let waker = Waker::from(Arc::new(Nasty));
    std::pin::Pin::new(future).poll(&mut Context::from_waker(&waker))
}

/// Does something while all wakers call back with this. How often they did.
fn with_calls(call: impl Fn() + 'static, act: impl FnOnce()) -> usize {
    CALLS.set(0);
    ON_WAKE.set(Some(Rc::new(call)));
    act();
    ON_WAKE.set(None);
    CALLS.replace(0)
}

/// A value that calls back when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        call_back();
    }
}

macro_rules! nasty_channels {
    ($module:ident, $mpsc:path, $oneshot:path) => {
        mod $module {
            use $mpsc as mpsc;
            use $oneshot as oneshot;

            use super::*;

            #[test]
            fn a_waker_of_the_receiver_may_send() {
                let (sender, mut receiver) = mpsc::channel(8);
                let sender = Rc::new(sender);
                assert!(poll_nastily(&mut receiver.recv()).is_pending());
                {
                    let mut receiving = receiver.recv();
                    assert!(poll_nastily(&mut receiving).is_pending());
                    let again = Rc::clone(&sender);
                    let calls = with_calls(
                        move || _ = again.try_send(2),
                        || {
                            assert!(poll_nastily(&mut receiving).is_pending(), "replaces a waker");
                            sender.try_send(1).unwrap();
                        },
                    );
                    assert!(calls >= 2, "{calls}");
                }
                assert_eq!(receiver.try_recv(), Ok(2));
                assert!(receiver.len() >= 1);
            }

            #[test]
            fn a_waker_of_a_sender_may_use_the_channel() {
                let (sender, mut receiver) = mpsc::channel(1);
                let sender = Rc::new(sender);
                sender.try_send(0).unwrap();
                let (mut first, mut second, mut room) = (sender.send(1), sender.send(2), sender.reserve());
                assert!(poll_nastily(&mut first).is_pending());
                assert!(poll_nastily(&mut second).is_pending());
                assert!(poll_nastily(&mut room).is_pending());
                let again = Rc::clone(&sender);
                let calls = with_calls(
                    move || {
                        let _full = again.try_send(3);
                        let _clone = again.clone();
                        assert!(again.len() <= 1);
                    },
                    || {
                        assert!(poll_nastily(&mut first).is_pending(), "replaces a waker");
                        assert_eq!(receiver.try_recv(), Ok(0));
                        drop(second);
                        receiver.close();
                        drop(room);
                    },
                );
                assert!(calls >= 4, "{calls}");
            }

            #[test]
            fn a_value_may_use_its_channel_when_it_is_dropped() {
                let (sender, receiver) = mpsc::channel(2);
                let sender = Rc::new(sender);
                let again = Rc::clone(&sender);
                let calls = with_calls(
                    move || _ = (again.len(), again.is_closed(), again.capacity()),
                    || {
                        assert!(sender.try_send(Bomb).is_ok());
                        assert!(sender.try_send(Bomb).is_ok());
                        let mut waiting = sender.send(Bomb);
                        assert!(poll_nastily(&mut waiting).is_pending());
                        drop(waiting);
                        drop(receiver);
                    },
                );
                assert!(calls >= 4, "{calls}");
            }

            #[test]
            fn who_waits_for_the_end_may_look_back() {
                let (sender, receiver) = mpsc::channel::<u8>(2);
                let sender = Rc::new(sender);
                let mut closed = Box::pin(sender.closed());
                assert!(poll_nastily(&mut closed).is_pending());
                let again = Rc::clone(&sender);
                let calls = with_calls(
                    move || _ = again.is_closed(),
                    || {
                        assert!(poll_nastily(&mut closed).is_pending(), "replaces a waker");
                        drop(receiver);
                    },
                );
                assert!(calls >= 2, "{calls}");
            }

            #[test]
            fn a_oneshot_may_be_used_by_its_wakers_and_values() {
                let (sender, receiver) = oneshot::channel::<Bomb>();
                let receiver = Rc::new(RefCell::new(receiver));
                assert!(poll_nastily(&mut *receiver.borrow_mut()).is_pending());
                let again = Rc::clone(&receiver);
                let calls = with_calls(
                    move || {
                        if let Ok(mut receiver) = again.try_borrow_mut() {
                            let _value = receiver.try_recv().map(std::mem::forget);
                        }
                    },
                    || {
                        assert!(poll_nastily(&mut *receiver.borrow_mut()).is_pending(), "replaces a waker");
                        drop(sender.send(Bomb));
                    },
                );
                assert!(calls >= 2, "{calls}");

                let (sender, mut receiver) = oneshot::channel::<Bomb>();
                let sender = Rc::new(RefCell::new(Some(sender)));
                assert!(poll_nastily(&mut receiver).is_pending());
                let again = Rc::clone(&sender);
                let calls = with_calls(
                    move || {
                        if let Ok(sender) = again.try_borrow() {
                            assert!(sender.as_ref().is_none_or(|sender| sender.is_closed()));
                        }
                    },
                    || drop(receiver),
                );
                assert_eq!(calls, 1);
            }
        }
    };
}

nasty_channels!(local, netpoll_core::sync::mpsc, netpoll_core::sync::oneshot);
nasty_channels!(between_threads, netpoll_core::sync::shared::mpsc, netpoll_core::sync::shared::oneshot);

#[test]
fn a_waker_may_ring_the_bell_that_woke_it() {
    let bell = Notify::new();
    let mut waits: Vec<_> = (0..3).map(|_| bell.notified()).collect();
    assert!(waits.iter_mut().all(|notified| poll_nastily(notified).is_pending()));
    let again = bell.clone();
    let calls = with_calls(
        move || {
            again.notify_one();
            again.notify_all();
            let _pending = poll(&mut again.notified());
        },
        || {
            assert!(poll_nastily(&mut waits[1]).is_pending(), "replaces a waker");
            bell.notify_one();
            waits.clear();
        },
    );
    assert!(calls >= 3, "{calls}");
}

#[test]
fn a_waker_may_use_the_semaphore_that_woke_it() {
    let semaphore = Semaphore::new(0);
    let mut waits: Vec<_> = (0..4).map(|_| semaphore.acquire(1)).collect();
    assert!(waits.iter_mut().all(|acquiring| poll_nastily(acquiring).is_pending()));
    let again = semaphore.clone();
    let calls = with_calls(
        move || {
            again.add(1);
            drop(again.try_acquire(1));
        },
        || {
            semaphore.add(1);
            let _served = poll_nastily(&mut waits[0]);
            semaphore.close();
            waits.clear();
        },
    );
    assert!(calls >= 4, "{calls}");
}

#[test]
fn a_waker_and_a_value_may_use_the_watch_that_they_are_in() {
    let (sender, receiver) = watch::channel(Bomb);
    let mut receivers: Vec<_> = (0..3).map(|_| receiver.clone()).collect();
    let mut waits: Vec<_> = receivers.iter_mut().map(watch::Receiver::changed).collect();
    assert!(waits.iter_mut().all(|changed| poll_nastily(changed).is_pending()));
    let again = receiver.clone();
    let calls = with_calls(
        move || {
            let _latest = (again.latest(), again.has_changed(), again.clone());
        },
        || {
            assert!(poll_nastily(&mut waits[0]).is_pending(), "replaces a waker");
            sender.send(Bomb);
            waits.clear();
            drop(sender);
        },
    );
    assert!(calls >= 5, "{calls}");
}

#[test]
fn a_wake_that_panics_leaves_nobody_asleep() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a waker of the program");
        }
    }
    let semaphore = Semaphore::new(0);
    let poller = crate::support::Poller::new();
    let (mut first, mut second) = (semaphore.acquire(1), semaphore.acquire(1));
    let panics = Waker::from(Arc::new(Panics));
    assert!(std::pin::Pin::new(&mut first).poll(&mut Context::from_waker(&panics)).is_pending());
    assert!(poller.poll(&mut second).is_pending());
    let add = std::panic::AssertUnwindSafe(|| semaphore.add(2));
    assert!(std::panic::catch_unwind(add).is_err());
    assert_eq!(poller.wakes(), 1);
}

#[test]
fn a_destructor_that_panics_leaves_the_channel_in_order() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("a destructor of the program");
        }
    }
    let (sender, receiver) = shared::mpsc::channel(2);
    assert!(sender.try_send(Panics).is_ok());
    let end = std::panic::AssertUnwindSafe(|| drop(receiver));
    assert!(std::panic::catch_unwind(end).is_err());
    assert!(sender.is_closed());
    let (sender, receiver) = mpsc::channel(2);
    assert!(sender.try_send(Panics).is_ok());
    let end = std::panic::AssertUnwindSafe(|| drop(receiver));
    assert!(std::panic::catch_unwind(end).is_err());
    assert!(sender.is_closed());
    let _ = oneshot::channel::<u8>();
}
