//! The semaphore, sentence by sentence; in any order in `models`.

use std::task::Poll;

use netpoll_core::sync::{Closed, Semaphore, TryError};

use crate::support::{Poller, poll};

#[test]
fn permits_go_back_when_they_are_dropped() {
    let semaphore = Semaphore::new(3);
    let mut two = semaphore.try_acquire(2).unwrap();
    assert_eq!(semaphore.try_acquire(2).err(), Some(TryError::NotNow));
    let one = two.split(1).unwrap();
    assert!(two.split(2).is_none());
    drop(one);
    assert_eq!(semaphore.available(), 2);
    two.forget();
    assert_eq!(semaphore.available(), 2);
}

#[test]
fn nobody_overtakes_who_wants_many() {
    let semaphore = Semaphore::new(2);
    let held = semaphore.try_acquire(1).unwrap();
    let (one, two) = (Poller::new(), Poller::new());
    let (mut many, mut few) = (semaphore.acquire(2), semaphore.acquire(1));
    assert!(one.poll(&mut many).is_pending());
    assert!(two.poll(&mut few).is_pending());
    assert_eq!(semaphore.try_acquire(1).err(), Some(TryError::NotNow));
    drop(held);
    assert_eq!((one.wakes(), two.wakes()), (1, 0));
    let Poll::Ready(Ok(permit)) = poll(&mut many) else { panic!("it was woken") };
    drop(permit);
    assert_eq!(two.wakes(), 1);
}

#[test]
fn a_place_that_is_given_up_lets_those_behind_go_on() {
    let semaphore = Semaphore::new(1);
    let (mut many, mut few) = (semaphore.acquire(2), semaphore.acquire(1));
    let poller = Poller::new();
    assert!(poll(&mut many).is_pending());
    assert!(poller.poll(&mut few).is_pending());
    drop(many);
    assert_eq!(poller.wakes(), 1);
    assert!(matches!(poll(&mut few), Poll::Ready(Ok(_))));
}

#[test]
fn permits_that_were_given_and_not_taken_go_to_the_next() {
    let semaphore = Semaphore::new(1);
    let held = semaphore.try_acquire(1).unwrap();
    let (mut first, mut second) = (semaphore.acquire(1), semaphore.acquire(1));
    let poller = Poller::new();
    assert!(poll(&mut first).is_pending());
    assert!(poller.poll(&mut second).is_pending());
    drop(held);
    assert_eq!(poller.wakes(), 0);
    drop(first);
    assert_eq!(poller.wakes(), 1);
    drop(second);
    assert_eq!(semaphore.available(), 1);
}

#[test]
fn closing_refuses_those_who_wait_but_not_those_who_were_served() {
    let semaphore = Semaphore::new(0);
    let (mut served, mut waits, mut none) =
        (semaphore.acquire(1), semaphore.acquire(1), semaphore.acquire(0));
    assert!(poll(&mut served).is_pending());
    assert!(poll(&mut waits).is_pending());
    assert!(poll(&mut none).is_pending(), "also none are acquired in turn");
    semaphore.add(1);
    semaphore.close();
    assert!(matches!(poll(&mut served), Poll::Ready(Ok(_))));
    assert_eq!(poll(&mut waits).map(Result::err), Poll::Ready(Some(Closed)));
    assert_eq!(poll(&mut none).map(Result::err), Poll::Ready(Some(Closed)));
    assert_eq!(semaphore.try_acquire(0).err(), Some(TryError::Closed));
    assert!(semaphore.is_closed());
}
