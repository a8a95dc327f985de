//! The latest value, and who follows it.

use std::rc::Rc;
use std::task::Poll;

use netpoll_core::sync::{Closed, watch};

use crate::support::{Poller, poll};

#[test]
fn a_slow_reader_misses_values_in_between_and_never_the_last() {
    let (sender, mut receiver) = watch::channel(0);
    assert!(!receiver.has_changed(), "the first one counts as seen");
    (1..=3).for_each(|number| sender.send(number));
    assert!(receiver.has_changed());
    assert_eq!(poll(&mut receiver.changed()), Poll::Ready(Ok(())));
    assert_eq!(*receiver.latest(), 3);
    assert!(poll(&mut receiver.changed()).is_pending());
}

#[test]
fn a_change_wakes_all_who_wait_for_it() {
    let (sender, mut first) = watch::channel("");
    let mut second = first.clone();
    let (one, two) = (Poller::new(), Poller::new());
    let (mut a, mut b) = (first.changed(), second.changed());
    assert!(one.poll(&mut a).is_pending());
    assert!(two.poll(&mut b).is_pending());
    sender.send("new");
    assert_eq!((one.wakes(), two.wakes()), (1, 1));
    assert_eq!(one.poll(&mut a), Poll::Ready(Ok(())));
    assert_eq!(two.poll(&mut b), Poll::Ready(Ok(())));
}

#[test]
fn a_wait_that_is_dropped_has_seen_nothing() {
    let (sender, mut receiver) = watch::channel(0);
    let poller = Poller::new();
    let mut changed = receiver.changed();
    assert!(poller.poll(&mut changed).is_pending());
    sender.send(1);
    drop(changed);
    assert_eq!(poller.kept(), 0);
    assert!(receiver.has_changed());
    assert_eq!(poll(&mut receiver.changed()), Poll::Ready(Ok(())));
}

#[test]
fn the_end_comes_behind_the_last_value() {
    let (sender, mut receiver) = watch::channel(0);
    let other = sender.clone();
    sender.send(1);
    drop(sender);
    assert_eq!(poll(&mut receiver.changed()), Poll::Ready(Ok(())));
    let poller = Poller::new();
    let mut changed = receiver.changed();
    assert!(poller.poll(&mut changed).is_pending());
    drop(other);
    assert_eq!(poller.wakes(), 1);
    assert_eq!(poller.poll(&mut changed), Poll::Ready(Err(Closed)));
    drop(changed);
    assert_eq!(*receiver.latest(), 1, "it stays");
}

#[test]
fn a_value_that_somebody_keeps_is_in_nobodys_way() {
    let (sender, mut receiver) = watch::channel(1);
    let kept: Rc<i32> = receiver.latest();
    assert_eq!(*sender.replace(2), 1);
    receiver.mark_seen();
    assert!(!receiver.has_changed());
    assert_eq!((*kept, *receiver.latest(), *sender.latest()), (1, 2, 2));
}

#[test]
fn who_subscribes_has_seen_what_is_there() {
    let (sender, receiver) = watch::channel(1);
    drop(receiver);
    assert_eq!(sender.receivers(), 0);
    sender.send(2);
    let mut receiver = sender.subscribe();
    assert_eq!(*receiver.latest(), 2);
    assert!(poll(&mut receiver.changed()).is_pending());
    assert_eq!(sender.receivers(), 1);
}

#[test]
fn the_sender_hears_that_nobody_follows() {
    let (sender, receiver) = watch::channel(1);
    let other = receiver.clone();
    let poller = Poller::new();
    let mut closed = Box::pin(sender.closed());
    assert!(poller.poll(&mut closed).is_pending());
    drop(receiver);
    assert_eq!(poller.wakes(), 0);
    drop(other);
    assert_eq!(poller.wakes(), 1);
    assert!(poller.poll(&mut closed).is_ready());
}
