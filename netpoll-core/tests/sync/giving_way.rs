//! A loop over what is always ready gives way on a worker, and by that nothing is lost, and nobody overtakes anybody.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures::{FutureExt, select_biased};
use netpoll_core::sim::{Options, Sim};
use netpoll_core::sync::{Notify, Semaphore, mpsc, oneshot, shared, watch};
use netpoll_core::task::{spawn_local, yield_now};

/// What others may have to wait for, in results; the share of a poll is 128.
const MOST: usize = 128;
/// A loop that never gives way ends here, and not never.
const END: usize = 10_000;

type Step = Box<dyn FnMut() -> Pin<Box<dyn Future<Output = ()>>>>;
type MakeStep = Box<dyn FnOnce() -> Step>;

/// Results that a loop has had when another task has its turn.
fn results_before_others(step: impl FnOnce() -> Step + 'static) -> usize {
    let mut sim = Sim::new(Options::default());
    let mut step = sim.block_on(async { step() });
    sim.block_on(async move {
        let is_over = Rc::new(Cell::new(false));
        let over = Rc::clone(&is_over);
        let other = spawn_local(async move { over.set(true) });
        let mut results = 0;
        while !is_over.get() && results < END {
            step().await;
            results += 1;
        }
        other.await.unwrap();
        results
    })
}

/// Something that is ready whenever it is awaited.
fn step<F: Future<Output = ()> + 'static>(mut make: impl FnMut() -> F + 'static) -> Step {
    Box::new(move || Box::pin(make()))
}

fn loops() -> Vec<(&'static str, MakeStep)> {
    vec![
        ("mpsc", {
            Box::new(|| {
                let (sender, receiver) = mpsc::channel(1);
                let receiver = Rc::new(RefCell::new(receiver));
                step(move || {
                    let (sender, receiver) = (sender.clone(), Rc::clone(&receiver));
                    async move {
                        sender.send(1).await.unwrap();
                        assert_eq!(poll_fn(|cx| receiver.borrow_mut().poll_recv(cx)).await, Some(1));
                    }
                })
            })
        }),
        ("mpsc::reserve", {
            Box::new(|| {
                let (sender, receiver) = mpsc::channel::<()>(1);
                let kept = Rc::new(receiver);
                step(move || {
                    let (sender, kept) = (sender.clone(), Rc::clone(&kept));
                    async move {
                        drop(sender.reserve().await.unwrap());
                        drop(kept);
                    }
                })
            })
        }),
        ("shared::mpsc", {
            Box::new(|| {
                let (sender, receiver) = shared::mpsc::channel(1);
                let receiver = Rc::new(RefCell::new(receiver));
                step(move || {
                    let (sender, receiver) = (sender.clone(), Rc::clone(&receiver));
                    async move {
                        sender.send(1).await.unwrap();
                        assert_eq!(poll_fn(|cx| receiver.borrow_mut().poll_recv(cx)).await, Some(1));
                    }
                })
            })
        }),
        ("shared::mpsc, full", {
            Box::new(|| {
                let (sender, receiver) = shared::mpsc::channel(2 * END);
                (0..2 * END).for_each(|number| sender.try_send(number).unwrap());
                let receiver = Rc::new(RefCell::new(receiver));
                step(move || {
                    let receiver = Rc::clone(&receiver);
                    async move {
                        assert!(poll_fn(|cx| receiver.borrow_mut().poll_recv(cx)).await.is_some());
                    }
                })
            })
        }),
        ("shared::mpsc::reserve", {
            Box::new(|| {
                let (sender, receiver) = shared::mpsc::channel::<()>(1);
                let kept = Rc::new(receiver);
                step(move || {
                    let (sender, kept) = (sender.clone(), Rc::clone(&kept));
                    async move {
                        drop(sender.reserve().await.unwrap());
                        drop(kept);
                    }
                })
            })
        }),
        ("a closed channel", {
            Box::new(|| {
                let (sender, receiver) = mpsc::channel(1);
                drop(receiver);
                step(move || {
                    let sender = sender.clone();
                    async move { assert_eq!(sender.send(1).await.unwrap_err().0, 1) }
                })
            })
        }),
        ("a channel without senders", {
            Box::new(|| {
                let (_, receiver) = mpsc::channel::<()>(1);
                let receiver = Rc::new(RefCell::new(receiver));
                step(move || {
                    let receiver = Rc::clone(&receiver);
                    async move { assert_eq!(poll_fn(|cx| receiver.borrow_mut().poll_recv(cx)).await, None) }
                })
            })
        }),
        ("closed", {
            Box::new(|| {
                let (sender, _) = mpsc::channel::<()>(1);
                step(move || {
                    let sender = sender.clone();
                    async move { sender.closed().await }
                })
            })
        }),
        ("oneshot", {
            Box::new(|| {
                step(|| async {
                    let (sender, receiver) = oneshot::channel();
                    sender.send(1).unwrap();
                    assert_eq!(receiver.await, Ok(1));
                })
            })
        }),
        ("shared::oneshot", {
            Box::new(|| {
                step(|| async {
                    let (sender, receiver) = shared::oneshot::channel();
                    sender.send(1).unwrap();
                    assert_eq!(receiver.await, Ok(1));
                })
            })
        }),
        ("watch", {
            Box::new(|| {
                let (sender, receiver) = watch::channel(0);
                step(move || {
                    let mut receiver = receiver.clone();
                    sender.send(1);
                    async move { receiver.changed().await.unwrap() }
                })
            })
        }),
        ("Notify", {
            Box::new(|| {
                let bell = Notify::new();
                step(move || {
                    bell.notify_one();
                    bell.notified()
                })
            })
        }),
        ("Semaphore", {
            Box::new(|| {
                let permits = Semaphore::new(1);
                step(move || permits.acquire(1).map(drop))
            })
        }),
        ("a closed Semaphore", {
            Box::new(|| {
                let permits = Semaphore::new(1);
                permits.close();
                step(move || permits.acquire(1).map(drop))
            })
        }),
    ]
}

#[test]
fn a_loop_over_what_is_always_ready_lets_others_have_their_turn() {
    for (name, step) in loops() {
        let results = results_before_others(step);
        assert!((MOST / 2 - 1..=MOST + 1).contains(&results), "{name}: others came behind {results} results");
    }
}

#[test]
fn a_loop_that_selects_from_several_that_are_always_ready_lets_others_have_their_turn() {
    let channels = results_before_others(|| {
        let receivers = [(); 2].map(|()| {
            let (sender, receiver) = mpsc::channel(2 * END);
            (0..2 * END).for_each(|number| sender.try_send(number).unwrap());
            Rc::new(RefCell::new((sender, receiver)))
        });
        step(move || {
            let [one, other] = receivers.clone();
            async move {
                let mut first = poll_fn(|cx| one.borrow_mut().1.poll_recv(cx)).fuse();
                let mut second = poll_fn(|cx| other.borrow_mut().1.poll_recv(cx)).fuse();
                let value = select_biased! { value = first => value, value = second => value };
                assert!(value.is_some());
            }
        })
    });
    let all = results_before_others(|| {
        let (permits, bell) = (Semaphore::new(1), Notify::new());
        let (sender, _) = shared::mpsc::channel(1);
        step(move || {
            bell.notify_one();
            let (permits, bell, sender) = (permits.clone(), bell.clone(), sender.clone());
            async move {
                select_biased! {
                    permit = permits.acquire(1).fuse() => drop(permit),
                    refused = sender.send(1).fuse() => assert!(refused.is_err()),
                    () = bell.notified().fuse() => {}
                }
            }
        })
    });
    for results in [channels, all] {
        assert!((MOST / 2 - 1..=MOST + 1).contains(&results), "others came behind {results} results");
    }
}

/// Has so many results in this poll.
async fn spend(results: usize) {
    let permits = Semaphore::new(1);
    for _ in 0..results {
        drop(permits.acquire(1).await);
    }
}

#[test]
fn values_that_one_task_sends_stay_in_order_wherever_it_gives_way() {
    for spent in MOST - 4..=MOST + 1 {
        let mut sim = Sim::new(Options::default());
        for capacity in [0, 1, 3, 8] {
            let received = sim.block_on(async move {
                let (sender, mut receiver) = mpsc::channel(capacity);
                let all = async {
                    spend(spent).await;
                    let sent = futures::join!(sender.send(1), sender.send(2), sender.send(3), sender.send(4));
                    assert_eq!(sent, (Ok(()), Ok(()), Ok(()), Ok(())));
                    drop(sender);
                };
                let taken = async {
                    let mut taken = Vec::new();
                    while let Some(value) = receiver.recv().await {
                        taken.push(value);
                    }
                    taken
                };
                futures::join!(all, taken).1
            });
            assert_eq!(received, [1, 2, 3, 4], "behind {spent}, capacity {capacity}");
            let received = sim.block_on(async move {
                let (sender, mut receiver) = shared::mpsc::channel(capacity);
                let all = async {
                    spend(spent).await;
                    let sent = futures::join!(sender.send(1), sender.send(2), sender.send(3), sender.send(4));
                    assert_eq!(sent, (Ok(()), Ok(()), Ok(()), Ok(())));
                    drop(sender);
                };
                let taken = async {
                    let mut taken = Vec::new();
                    while let Some(value) = receiver.recv().await {
                        taken.push(value);
                    }
                    taken
                };
                futures::join!(all, taken).1
            });
            assert_eq!(received, [1, 2, 3, 4], "between threads, behind {spent}, capacity {capacity}");
        }
    }
}

/// Polls a future once, in a poll whose share is spent. It has given way.
async fn give_way<F: Future + Unpin>(future: &mut F) {
    yield_now().await;
    spend(MOST).await;
    let has_given_way = poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx).is_pending())).await;
    assert!(has_given_way);
}

#[test]
fn each_poll_has_its_share_however_many_there_were_before() {
    let mut sim = Sim::new(Options::default());
    sim.block_on(async {
        let (sender, mut receiver) = mpsc::channel(1);
        let (shared_sender, mut shared_receiver) = shared::mpsc::channel(1);
        for number in 0..4 * MOST {
            sender.try_send(number).unwrap();
            shared_sender.try_send(number).unwrap();
            yield_now().await;
            assert_eq!(receiver.recv().now_or_never(), Some(Some(number)));
            assert_eq!(shared_receiver.recv().now_or_never(), Some(Some(number)), "between threads");
        }
    });
}

#[test]
fn who_gives_way_keeps_its_turn() {
    let mut sim = Sim::new(Options::default());
    sim.block_on(async {
        let permits = Semaphore::new(2);
        let mut first = permits.acquire(2);
        give_way(&mut first).await;
        assert!(permits.try_acquire(1).is_err(), "they are the first one's");
        let permit = first.await.unwrap();
        assert_eq!(permit.permits(), 2);

        let bell = Notify::new();
        bell.notify_one();
        let mut first = bell.notified();
        give_way(&mut first).await;
        let second = bell.notified().now_or_never();
        assert!(second.is_none(), "it is the first one's");
        first.await;

        let (sender, mut receiver) = mpsc::channel(1);
        let mut first = sender.reserve();
        give_way(&mut first).await;
        assert!(sender.try_send(2).is_err(), "the room is the first one's");
        first.await.unwrap().send(1).unwrap();
        assert_eq!(receiver.recv().await, Some(1));

        let (sender, mut receiver) = shared::mpsc::channel(1);
        let mut first = sender.reserve();
        give_way(&mut first).await;
        assert!(sender.try_send(2).is_err(), "the room is the first one's");
        first.await.unwrap().send(1).unwrap();
        assert_eq!(receiver.recv().await, Some(1));
    });
}

#[test]
fn who_gives_way_and_is_given_up_loses_nothing() {
    let mut sim = Sim::new(Options::default());
    sim.block_on(async {
        let permits = Semaphore::new(2);
        let mut first = permits.acquire(2);
        give_way(&mut first).await;
        drop(first);
        assert_eq!(permits.available(), 2);

        let bell = Notify::new();
        bell.notify_one();
        let mut first = bell.notified();
        give_way(&mut first).await;
        drop(first);
        bell.notified().await;

        let (sender, mut receiver) = mpsc::channel(1);
        let mut first = sender.send(1);
        give_way(&mut first).await;
        assert_eq!(first.into_value(), None, "it is in");
        give_way(&mut receiver.recv()).await;
        assert_eq!(receiver.try_recv(), Ok(1));

        let (sender, mut receiver) = oneshot::channel();
        sender.send(1).unwrap();
        give_way(&mut receiver).await;
        assert_eq!(receiver.try_recv(), Ok(1));

        let (sender, mut receiver) = watch::channel(1);
        sender.send(2);
        give_way(&mut receiver.changed()).await;
        assert!(receiver.has_changed());
    });
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn nobody_gives_way_on_a_thread_that_is_no_worker() {
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let permits = Semaphore::new(1);
    let (sender, mut receiver) = mpsc::channel(1);
    let all = pin!(async {
        for number in 0..END {
            drop(permits.acquire(1).await);
            sender.send(number).await.unwrap();
            assert_eq!(receiver.recv().await, Some(number));
        }
    });
    assert!(all.poll(&mut Context::from_waker(&waker)).is_ready());
    assert_eq!(wakes.0.load(Ordering::Relaxed), 0);
}

#[test]
fn a_loop_that_is_polled_inside_a_task_by_another_executor_ends() {
    let mut sim = Sim::new(Options::default());
    sim.block_on(async { futures::executor::block_on(spend(END)) });
}
