//! The channel of one thread, sentence by sentence; the channel between threads does the same (`models`).

use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering::SeqCst};
use std::task::Poll;

use futures::FutureExt;
use futures::executor::block_on;
use netpoll_core::sync::mpsc::{SendError, TryError, TrySendError, channel};

use crate::support::{Poller, Token, poll};

#[test]
fn values_arrive_in_the_order_in_which_they_were_sent() {
    let (sender, mut receiver) = channel(3);
    block_on(async {
        let send = async move {
            for number in 0..100 {
                sender.send(number).await.unwrap();
            }
        };
        let receive = async {
            let mut received = Vec::new();
            while let Some(number) = receiver.recv().await {
                received.push(number);
            }
            received
        };
        assert_eq!(futures::join!(send, receive).1, (0..100).collect::<Vec<_>>());
    });
}

#[test]
fn a_full_channel_gives_the_value_back() {
    let (sender, mut receiver) = channel(1);
    sender.try_send("first").unwrap();
    assert_eq!(sender.try_send("second"), Err(TrySendError::Full("second")));
    assert_eq!(receiver.try_recv(), Ok("first"));
    assert_eq!(receiver.try_recv(), Err(TryError::NotNow));
    drop(receiver);
    assert_eq!(sender.try_send("third"), Err(TrySendError::Closed("third")));
    assert_eq!(block_on(sender.send("fourth")), Err(SendError("fourth")));
}

#[test]
fn senders_that_wait_are_let_in_in_order_and_nobody_overtakes_them() {
    let (sender, mut receiver) = channel(1);
    sender.try_send(0).unwrap();
    let (mut first, mut second) = (sender.send(1), sender.send(2));
    let (one, two) = (Poller::new(), Poller::new());
    assert!(one.poll(&mut first).is_pending());
    assert!(two.poll(&mut second).is_pending());

    assert_eq!(receiver.try_recv(), Ok(0));

    assert_eq!((one.wakes(), two.wakes()), (1, 0), "there is room for one");
    assert_eq!(sender.try_send(3), Err(TrySendError::Full(3)), "two waits in front");
    assert_eq!(receiver.try_recv(), Ok(1), "also before its sender was polled");
    assert_eq!(receiver.try_recv(), Ok(2));
    assert_eq!(poll(&mut second), Poll::Ready(Ok(())));
    assert_eq!(poll(&mut first), Poll::Ready(Ok(())));
}

#[test]
fn a_send_that_is_dropped_takes_its_value_along_and_leaves_its_place_to_the_next() {
    let living = Arc::new(AtomicIsize::new(0));
    let (sender, mut receiver) = channel(1);
    sender.try_send(Token::new(0, &living)).unwrap();
    let mut first = sender.send(Token::new(1, &living));
    let mut second = sender.send(Token::new(2, &living));
    assert!(poll(&mut first).is_pending());
    assert!(poll(&mut second).is_pending());

    drop(first);

    assert_eq!(living.load(SeqCst), 2);
    assert_eq!(receiver.try_recv().unwrap().0, 0);
    assert_eq!(receiver.try_recv().unwrap().0, 2);
    assert!(matches!(poll(&mut second), Poll::Ready(Ok(()))));
}

#[test]
fn a_send_that_was_not_let_in_gives_its_value_back() {
    let (sender, mut receiver) = channel(1);
    assert_eq!(sender.send("never polled").into_value(), Some("never polled"));
    sender.try_send("first").unwrap();
    let mut second = sender.send("second");
    let mut third = sender.send("third");
    assert!(poll(&mut second).is_pending());
    assert!(poll(&mut third).is_pending());
    assert_eq!(receiver.try_recv(), Ok("first"));

    assert_eq!(third.into_value(), Some("third"));
    assert_eq!(second.into_value(), None, "it is in, although nobody has told its future");

    assert_eq!(receiver.try_recv(), Ok("second"));
    assert_eq!(receiver.try_recv(), Err(TryError::NotNow));
}

#[test]
fn a_select_that_has_chosen_another_branch_can_send_the_value_later() {
    let (sender, mut receiver) = channel(1);
    sender.try_send(1).unwrap();
    let mut sending = sender.send(2);
    block_on(async {
        futures::select_biased! {
            sent = (&mut sending).fuse() => panic!("there is no room: {sent:?}"),
            () = async {}.fuse() => {}
        }
    });
    let value = sending.into_value().unwrap();
    assert_eq!(receiver.try_recv(), Ok(1));
    block_on(sender.send(value)).unwrap();
    assert_eq!(receiver.try_recv(), Ok(2));
}

#[test]
fn a_receive_that_is_dropped_takes_nothing() {
    let (sender, mut receiver) = channel(4);
    let poller = Poller::new();
    let mut receiving = receiver.recv();
    assert!(poller.poll(&mut receiving).is_pending());
    sender.try_send(1).unwrap();
    assert_eq!(poller.wakes(), 1);

    drop(receiving);

    assert_eq!(poller.kept(), 0, "nobody will wake it any more");
    sender.try_send(2).unwrap();
    assert_eq!(poller.wakes(), 0);
    let mut values = Vec::new();
    assert_eq!(block_on(receiver.recv_many(&mut values, 10)), 2);
    assert_eq!(values, [1, 2]);
}

#[test]
fn recv_many_takes_no_more_than_its_limit_and_nothing_when_it_is_dropped() {
    let (sender, mut receiver) = channel(4);
    let mut values = vec![0];
    {
        let mut receiving = Box::pin(receiver.recv_many(&mut values, 2));
        assert!(poll(&mut receiving).is_pending());
        (1..=3).for_each(|number| sender.try_send(number).unwrap());
    }
    assert_eq!(block_on(receiver.recv_many(&mut values, 0)), 0);
    assert_eq!(block_on(receiver.recv_many(&mut values, 2)), 2);
    assert_eq!(values, [0, 1, 2]);
    drop(sender);
    assert_eq!(block_on(receiver.recv_many(&mut values, 2)), 1);
    assert_eq!(block_on(receiver.recv_many(&mut values, 2)), 0, "the end");
}

#[test]
fn a_burst_wakes_the_receiver_once() {
    let (sender, mut receiver) = channel(64);
    let poller = Poller::new();
    assert!(receiver.poll_recv(&mut poller.context()).is_pending());
    (0..64).for_each(|number| sender.try_send(number).unwrap());
    assert_eq!(poller.wakes(), 1);
}

#[test]
fn the_receiver_keeps_one_waker_and_clones_it_once() {
    let (sender, mut receiver) = channel(1);
    let poller = Poller::new();
    for number in 0..3 {
        assert!(receiver.poll_recv(&mut poller.context()).is_pending());
        assert_eq!(poller.kept(), 1);
        sender.try_send(number).unwrap();
        assert_eq!((poller.wakes(), poller.kept()), (1, 1), "it is kept for the next time");
        assert_eq!(receiver.poll_recv(&mut poller.context()), Poll::Ready(Some(number)));
    }
    drop(receiver);
    assert_eq!(poller.kept(), 0);
}

#[test]
fn the_channel_ends_when_the_last_sender_is_gone_and_all_is_received() {
    let (sender, mut receiver) = channel(2);
    let other = sender.clone();
    sender.try_send(1).unwrap();
    drop(sender);
    let poller = Poller::new();
    assert_eq!(receiver.poll_recv(&mut poller.context()), Poll::Ready(Some(1)));
    assert!(receiver.poll_recv(&mut poller.context()).is_pending());

    drop(other);

    assert_eq!(poller.wakes(), 1);
    assert_eq!(receiver.poll_recv(&mut poller.context()), Poll::Ready(None));
    assert_eq!(receiver.try_recv(), Err(TryError::Closed));
}

#[test]
fn closing_refuses_those_who_wait_and_keeps_what_is_there() {
    let (sender, mut receiver) = channel(1);
    sender.try_send(1).unwrap();
    let mut waiting = sender.send(2);
    let mut reserving = sender.reserve();
    let (one, two) = (Poller::new(), Poller::new());
    assert!(one.poll(&mut waiting).is_pending());
    assert!(two.poll(&mut reserving).is_pending());

    receiver.close();

    assert_eq!((one.wakes(), two.wakes()), (1, 1));
    assert_eq!(poll(&mut waiting), Poll::Ready(Err(SendError(2))));
    assert!(matches!(poll(&mut reserving), Poll::Ready(Err(_))));
    assert!(sender.is_closed());
    assert_eq!(receiver.try_recv(), Ok(1));
    assert_eq!(receiver.try_recv(), Err(TryError::Closed));
}

#[test]
fn a_permit_is_good_although_the_receiver_has_closed_and_bad_when_it_is_gone() {
    let (sender, mut receiver) = channel(2);
    let (first, second) = (sender.try_reserve().unwrap(), sender.try_reserve().unwrap());
    receiver.close();
    assert_eq!(receiver.try_recv(), Err(TryError::NotNow), "the permits are out");
    first.send(1).unwrap();
    assert_eq!(receiver.try_recv(), Ok(1));
    drop(receiver);
    assert_eq!(second.send(2), Err(SendError(2)));
}

#[test]
fn the_last_permit_that_goes_back_ends_a_closed_channel() {
    let (sender, mut receiver) = channel::<u8>(1);
    let permit = sender.try_reserve().unwrap();
    receiver.close();
    let poller = Poller::new();
    assert!(receiver.poll_recv(&mut poller.context()).is_pending());
    drop(permit);
    assert_eq!(poller.wakes(), 1);
    assert_eq!(receiver.poll_recv(&mut poller.context()), Poll::Ready(None));
}

#[test]
fn a_room_that_was_given_and_not_taken_goes_to_the_next() {
    let (sender, mut receiver) = channel(1);
    sender.try_send(1).unwrap();
    let (mut reserving, mut sending) = (sender.reserve(), sender.send(2));
    let (one, two) = (Poller::new(), Poller::new());
    assert!(one.poll(&mut reserving).is_pending());
    assert!(two.poll(&mut sending).is_pending());
    assert_eq!(receiver.try_recv(), Ok(1));
    assert_eq!((one.wakes(), two.wakes()), (1, 0));
    let listener = Poller::new();
    assert!(receiver.poll_recv(&mut listener.context()).is_pending(), "the room is promised");

    drop(reserving);

    assert_eq!((two.wakes(), listener.wakes()), (1, 1));
    assert_eq!(receiver.try_recv(), Ok(2));
}

#[test]
fn a_sender_hears_that_nothing_is_wanted_any_more() {
    for is_dropped in [false, true] {
        let (sender, mut receiver) = channel::<u8>(1);
        let poller = Poller::new();
        let mut closed = Box::pin(sender.closed());
        assert!(poller.poll(&mut closed).is_pending());
        if is_dropped {
            drop(receiver);
        } else {
            receiver.close();
        }
        assert_eq!(poller.wakes(), 1);
        assert!(poller.poll(&mut closed).is_ready());
        drop(closed);
        let mut again = Box::pin(sender.closed());
        assert!(poll(&mut again).is_ready());
    }
}

#[test]
fn waits_that_are_dropped_keep_no_waker() {
    let (sender, mut receiver) = channel(1);
    sender.try_send(1).unwrap();
    let poller = Poller::new();
    {
        let (mut sending, mut reserving) = (sender.send(2), sender.reserve());
        let mut closed = Box::pin(sender.closed());
        assert!(poller.poll(&mut sending).is_pending());
        assert!(poller.poll(&mut reserving).is_pending());
        assert!(poller.poll(&mut closed).is_pending());
        assert_eq!(poller.kept(), 3);
    }
    assert_eq!(poller.kept(), 0);
    receiver.close();
    assert_eq!(poller.wakes(), 0);
}

#[test]
fn without_a_capacity_a_send_is_done_when_its_value_was_received() {
    let (sender, mut receiver) = channel(0);
    assert_eq!(sender.try_send(0), Err(TrySendError::Full(0)), "nobody waits for it");
    let (mut first, mut second) = (sender.send(1), sender.send(2));
    let (one, two) = (Poller::new(), Poller::new());
    assert!(one.poll(&mut first).is_pending());
    assert!(two.poll(&mut second).is_pending());

    assert_eq!(receiver.try_recv(), Ok(1));

    assert_eq!((one.wakes(), two.wakes()), (1, 0));
    assert_eq!(poll(&mut first), Poll::Ready(Ok(())));
    assert!(poll(&mut second).is_pending());
    drop(second);
    assert_eq!(receiver.try_recv(), Err(TryError::NotNow));
}

#[test]
fn without_a_capacity_a_receiver_that_waits_can_be_handed_one_value() {
    let (sender, mut receiver) = channel(0);
    let poller = Poller::new();
    assert!(receiver.poll_recv(&mut poller.context()).is_pending());
    sender.try_send(1).unwrap();
    assert_eq!(sender.try_send(2), Err(TrySendError::Full(2)));
    assert_eq!(poller.wakes(), 1);
    assert_eq!(receiver.poll_recv(&mut poller.context()), Poll::Ready(Some(1)));

    let mut receiving = receiver.recv();
    assert!(poll(&mut receiving).is_pending());
    drop(receiving);
    assert_eq!(sender.try_send(3), Err(TrySendError::Full(3)), "it does not wait any more");
}

#[test]
fn without_a_capacity_a_room_is_there_while_the_receiver_waits() {
    let (sender, mut receiver) = channel(0);
    let mut reserving = sender.reserve();
    let (one, listener) = (Poller::new(), Poller::new());
    assert!(one.poll(&mut reserving).is_pending());
    assert!(receiver.poll_recv(&mut listener.context()).is_pending());
    assert_eq!(one.wakes(), 1);
    let Poll::Ready(Ok(permit)) = poll(&mut reserving) else { panic!("it was woken") };
    permit.send(1).unwrap();
    assert_eq!(listener.wakes(), 1);
    assert_eq!(receiver.try_recv(), Ok(1));
}

#[test]
fn what_was_not_received_is_dropped_with_the_receiver() {
    let living = Arc::new(AtomicIsize::new(0));
    let (sender, receiver) = channel(2);
    sender.try_send(Token::new(1, &living)).unwrap();
    sender.try_send(Token::new(2, &living)).unwrap();
    drop(receiver);
    assert_eq!(living.load(SeqCst), 0);
}

#[test]
fn ten_thousand_senders_are_served_in_turn() {
    let (sender, mut receiver) = channel(1);
    sender.try_send(0).unwrap();
    let mut waiting: Vec<_> = (1..=10_000).map(|number| sender.send(number)).collect();
    assert!(waiting.iter_mut().all(|sending| poll(sending).is_pending()));
    assert!((0..=10_000).all(|number| receiver.try_recv() == Ok(number)));
    assert!(waiting.iter_mut().all(|sending| poll(sending).is_ready()));
}
