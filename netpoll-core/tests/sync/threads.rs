//! The channel between threads, with threads; each interleaving of small cases is in `tests/loom.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::Poll;
use std::thread;

use futures::executor::block_on;
use netpoll_core::sync::shared::mpsc::{Receiver, SendError, Sender, channel};

use crate::support::{Poller, poll};

#[test]
fn values_of_each_sender_arrive_in_order_whatever_the_capacity() {
    const EACH: usize = 2_000;
    for capacity in [0, 1, 2, 7, 64] {
        let (sender, mut receiver) = channel(capacity);
        let threads: Vec<_> = (0..3)
            .map(|who| {
                let sender = sender.clone();
                thread::spawn(move || {
                    for number in 0..EACH {
                        match number % 3 {
                            0 => sender.blocking_send((who, number)).unwrap(),
                            1 => block_on(sender.send((who, number))).unwrap(),
                            _ => block_on(sender.reserve()).unwrap().send((who, number)).unwrap(),
                        }
                    }
                })
            })
            .collect();
        drop(sender);
        let mut next = [0; 3];
        while let Some((who, number)) = receiver.blocking_recv() {
            assert_eq!(number, next[who], "capacity {capacity}");
            next[who] += 1;
        }
        assert_eq!(next, [EACH; 3]);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

#[test]
fn workers_that_send_to_each_other_through_full_queues_go_on() {
    const EACH: usize = 5_000;
    let (to_one, from_two) = channel(1);
    let (to_two, from_one) = channel(1);
    let worker = |sender: Sender<usize>, mut receiver: Receiver<usize>| {
        move || {
            // One thread that both sends and receives: it must never be the thread that waits.
            let send = async move {
                for number in 0..EACH {
                    sender.send(number).await.unwrap();
                }
            };
            let receive = async move {
                let mut sum = 0;
                while let Some(number) = receiver.recv().await {
                    sum += number;
                }
                sum
            };
            block_on(async { futures::join!(send, receive).1 })
        }
    };
    let (one, two) = (thread::spawn(worker(to_two, from_two)), thread::spawn(worker(to_one, from_one)));
    let sum = EACH * (EACH - 1) / 2;
    assert_eq!((one.join().unwrap(), two.join().unwrap()), (sum, sum));
}

#[test]
fn a_burst_from_another_thread_wakes_the_receiver_once() {
    let (sender, mut receiver) = channel(64);
    let poller = Poller::new();
    assert!(receiver.poll_recv(&mut poller.context()).is_pending());
    thread::spawn(move || (0..64).for_each(|number| sender.try_send(number).unwrap())).join().unwrap();
    assert_eq!(poller.wakes(), 1);
    assert!((0..64).all(|number| receiver.try_recv() == Ok(number)));
}

#[test]
fn values_that_the_receiver_has_taken_out_ahead_count_as_held() {
    let (sender, mut receiver) = channel(4);
    (0..4).for_each(|number| sender.try_send(number).unwrap());
    assert_eq!(receiver.try_recv(), Ok(0));
    assert_eq!((sender.len(), receiver.len()), (3, 3));
    sender.try_send(4).unwrap();
    assert!(sender.try_send(5).is_err(), "four are there");
    let mut waiting = sender.send(5);
    let poller = Poller::new();
    assert!(poller.poll(&mut waiting).is_pending());

    assert_eq!(receiver.try_recv(), Ok(1));

    assert_eq!(poller.wakes(), 1, "one received is one let in");
    assert_eq!(poll(&mut waiting), Poll::Ready(Ok(())));
    assert!(sender.try_send(6).is_err());
    assert!((2..=5).all(|number| receiver.try_recv() == Ok(number)));
    assert_eq!((sender.len(), receiver.len()), (0, 0));
}

#[test]
fn a_receiver_that_finds_values_again_and_again_gives_way() {
    let (sender, mut receiver) = channel(1);
    let poller = Poller::new();
    let mut found = 0;
    loop {
        sender.try_send(found).unwrap();
        match receiver.poll_recv(&mut poller.context()) {
            Poll::Ready(value) => assert_eq!(value, Some(found)),
            Poll::Pending => break,
        }
        found += 1;
        assert!(found <= 1000, "it never gave way");
    }
    assert_eq!((found, poller.wakes()), (128, 1), "it has woken itself");
    assert_eq!(receiver.poll_recv(&mut poller.context()), Poll::Ready(Some(found)));
}

#[test]
fn a_thread_that_waits_for_room_has_its_value_back_when_the_receiver_goes() {
    let (sender, receiver) = channel(1);
    sender.try_send(1).unwrap();
    let thread = thread::spawn(move || sender.blocking_send(2));
    // It may wait already or not yet.
    drop(receiver);
    assert_eq!(thread.join().unwrap(), Err(SendError(2)));
}

#[test]
fn sends_that_are_dropped_at_any_moment_lose_no_room_and_no_value() {
    const EACH: usize = 3_000;
    for capacity in [0, 1, 3] {
        let (sender, mut receiver) = channel(capacity);
        let sent = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (sender, sent) = (sender.clone(), Arc::clone(&sent));
                thread::spawn(move || {
                    for number in 0..EACH {
                        let mut sending = sender.send(number);
                        let mut reserving = sender.reserve();
                        let given = poll(&mut reserving);
                        match poll(&mut sending) {
                            Poll::Ready(outcome) => outcome.unwrap(),
                            Poll::Pending if number % 2 == 0 => {
                                if sending.into_value().is_some() {
                                    continue;
                                }
                            }
                            // It stands in the line while the one before gives its place up.
                            Poll::Pending => {
                                drop((given, reserving));
                                block_on(sending).unwrap();
                            }
                        }
                        sent.fetch_add(1, SeqCst);
                    }
                })
            })
            .collect();
        drop(sender);
        let mut received = 0;
        while receiver.blocking_recv().is_some() {
            received += 1;
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(received, sent.load(SeqCst), "capacity {capacity}");
    }
}
