//! The bell, sentence by sentence; in any order in `models`.

use netpoll_core::sync::Notify;

use crate::support::{Poller, poll};

#[test]
fn one_notification_is_kept_and_not_two() {
    let bell = Notify::new();
    bell.notify_one();
    bell.notify_one();
    assert!(poll(&mut bell.notified()).is_ready());
    assert!(poll(&mut bell.notified()).is_pending());
}

#[test]
fn who_waits_longest_is_woken_first() {
    let bell = Notify::new();
    let (one, two) = (Poller::new(), Poller::new());
    let (mut first, mut second) = (bell.notified(), bell.notified());
    assert!(two.poll(&mut second).is_pending());
    assert!(one.poll(&mut first).is_pending());
    bell.notify_one();
    assert_eq!((one.wakes(), two.wakes()), (0, 1), "in line from the first poll on");
    assert!(poll(&mut second).is_ready());
}

#[test]
fn a_notification_that_was_given_and_not_taken_goes_to_the_next() {
    let bell = Notify::new();
    let (one, two) = (Poller::new(), Poller::new());
    let (mut first, mut second) = (bell.notified(), bell.notified());
    assert!(one.poll(&mut first).is_pending());
    assert!(two.poll(&mut second).is_pending());
    bell.notify_one();
    drop(first);
    assert_eq!(two.wakes(), 1);
    drop(second);
    assert!(poll(&mut bell.notified()).is_ready(), "and is kept when nobody is left");
}

#[test]
fn all_are_woken_who_wait_and_those_whose_wait_was_made_before() {
    let bell = Notify::new();
    let poller = Poller::new();
    let (mut waits, mut fresh) = (bell.notified(), bell.notified());
    assert!(poller.poll(&mut waits).is_pending());
    bell.notify_all();
    assert_eq!(poller.wakes(), 1);
    assert!(poll(&mut waits).is_ready());
    assert!(poll(&mut fresh).is_ready());
    assert!(poll(&mut bell.notified()).is_pending(), "nothing is kept");
    drop((waits, fresh));
    assert!(poll(&mut bell.notified()).is_pending(), "and nothing is passed on");
}

#[test]
fn a_wait_that_is_done_can_be_polled_for_the_next_time() {
    let bell = Notify::new();
    let mut notified = bell.notified();
    bell.notify_all();
    assert!(poll(&mut notified).is_ready());
    assert!(poll(&mut notified).is_pending());
    bell.notify_one();
    assert!(poll(&mut notified).is_ready());
    assert!(poll(&mut notified).is_pending());
}
