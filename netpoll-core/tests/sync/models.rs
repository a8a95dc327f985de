//! Channels, semaphores and bells beside naive models of them: any calls in any order, futures dropped at any time.
//!
//! Behind each step everybody who waits and was not woken is polled once more, with the same waker, and must still have to
//! wait: so no wake-up is ever missing.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering::SeqCst};
use std::task::Poll;

use netpoll_core::sync::{Notified, Notify, Semaphore, SemaphorePermit, TryError, TrySendError};
use proptest::prelude::*;

use crate::support::{Poller, Token};

#[derive(Debug, Clone, Copy)]
enum Call {
    Send,
    Reserve,
    /// Polls a future again, with the waker that it had or a new one.
    Poll(usize, bool),
    Drop(usize),
    IntoValue(usize),
    TrySend,
    TryReserve,
    Fill(usize),
    GiveBack(usize),
    Receive,
    TryReceive,
    Close,
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let call = prop_oneof![
        20 => Just(Call::Send),
        10 => Just(Call::Reserve),
        16 => any::<(usize, bool)>().prop_map(|(which, anew)| Call::Poll(which, anew)),
        8 => any::<usize>().prop_map(Call::Drop),
        4 => any::<usize>().prop_map(Call::IntoValue),
        8 => Just(Call::TrySend),
        8 => Just(Call::TryReserve),
        8 => any::<usize>().prop_map(Call::Fill),
        6 => any::<usize>().prop_map(Call::GiveBack),
        20 => Just(Call::Receive),
        10 => Just(Call::TryReceive),
        1 => Just(Call::Close),
    ];
    prop::collection::vec(call, 0..120)
}

/// What a sender in line wants: to send this number, or a room.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Want {
    Value(u32),
    Room,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Waits,
    Met,
    Refused,
}

/// A channel as its documentation has it.
#[derive(Default)]
struct Model {
    capacity: usize,
    values: VecDeque<u32>,
    reserved: usize,
    /// By the number of who waits.
    line: VecDeque<(usize, Want)>,
    met: Vec<usize>,
    listens: bool,
    is_closed: bool,
}

impl Model {
    fn has_room(&self) -> bool {
        let rooms = if self.capacity == 0 { usize::from(self.listens) } else { self.capacity };
        self.values.len() + self.reserved < rooms
    }

    /// Would not have to wait.
    fn is_free(&self) -> bool {
        self.has_room() && self.line.is_empty()
    }

    /// Lets in whoever has room.
    fn settle(&mut self) {
        while self.has_room() {
            match self.line.front() {
                None => break,
                Some((_, Want::Value(_))) if self.capacity == 0 => {
                    self.listens = false; // it is woken, and takes the value from the line
                }
                Some(&(who, want)) => {
                    self.line.pop_front();
                    self.met.push(who);
                    match want {
                        Want::Value(value) => self.values.push_back(value),
                        Want::Room => self.reserved += 1,
                    }
                }
            }
        }
        if !self.values.is_empty() || self.is_over() {
            self.listens = false;
        }
    }

    fn is_over(&self) -> bool {
        self.is_closed && self.reserved == 0
    }

    fn join(&mut self, who: usize, want: Want) {
        self.line.push_back((who, want));
        if self.capacity == 0 && want != Want::Room {
            self.listens = false;
        }
    }

    fn fate(&self, who: usize) -> Fate {
        if self.met.contains(&who) {
            Fate::Met
        } else if self.is_closed {
            Fate::Refused
        } else {
            Fate::Waits
        }
    }

    fn leave(&mut self, who: usize) {
        self.line.retain(|(other, _)| *other != who);
        self.met.retain(|other| *other != who);
    }

    fn take(&mut self) -> Option<u32> {
        if let Some(value) = self.values.pop_front() {
            self.settle();
            return Some(value);
        }
        if self.capacity == 0
            && self.reserved == 0
            && let Some(&(who, Want::Value(value))) = self.line.front()
        {
            self.line.pop_front();
            self.met.push(who);
            return Some(value);
        }
        None
    }

    fn close(&mut self) {
        if !self.is_closed {
            self.is_closed = true;
            self.line.clear();
            self.listens = false;
        }
    }
}

macro_rules! channel_model {
    ($name:ident, $module:ident, $mpsc:path) => {
        mod $module {
            use $mpsc as mpsc;

            use super::*;

            enum Waiting<'a> {
                Send(mpsc::Sending<'a, Token>, u32),
                Reserve(mpsc::Reserving<'a, Token>),
            }

            struct Waiter<'a> {
                who: usize,
                poller: Poller,
                waiting: Waiting<'a>,
            }

            /// Polls one that waits. It is still there if it has to wait on.
            fn poll<'a>(
                mut waiter: Waiter<'a>,
                model: &mut Model,
                permits: &mut Vec<mpsc::Permit<'a, Token>>,
            ) -> Option<Waiter<'a>> {
                let fate = model.fate(waiter.who);
                let context = &mut waiter.poller.context();
                match &mut waiter.waiting {
                    Waiting::Send(sending, number) => match std::pin::Pin::new(sending).poll(context) {
                        Poll::Pending => assert_eq!(fate, Fate::Waits),
                        Poll::Ready(Ok(())) => assert_eq!(fate, Fate::Met),
                        Poll::Ready(Err(error)) => {
                            assert_eq!((fate, error.0.0), (Fate::Refused, *number));
                        }
                    },
                    Waiting::Reserve(reserving) => match std::pin::Pin::new(reserving).poll(context) {
                        Poll::Pending => assert_eq!(fate, Fate::Waits),
                        Poll::Ready(Ok(permit)) => {
                            assert_eq!(fate, Fate::Met);
                            permits.push(permit);
                        }
                        Poll::Ready(Err(_)) => assert_eq!(fate, Fate::Refused),
                    },
                }
                if fate == Fate::Waits {
                    return Some(waiter);
                }
                model.leave(waiter.who);
                None
            }

            pub fn check(capacity: usize, calls: Vec<Call>) {
                let living = Arc::new(AtomicIsize::new(0));
                let token = |number| Token::new(number, &living);
                {
                    let (sender, mut receiver) = mpsc::channel::<Token>(capacity);
                    let mut model = Model { capacity, ..Model::default() };
                    let mut waiters: Vec<Waiter<'_>> = Vec::new();
                    let mut permits = Vec::new();
                    let (mut numbers, mut polls_pending) = (0.., false);
                    let mut listener = Poller::new();

                    for (who, call) in calls.into_iter().enumerate() {
                        match call {
                            Call::Send => {
                                let number = numbers.next().unwrap();
                                let (mut sending, poller) = (sender.send(token(number)), Poller::new());
                                match poller.poll(&mut sending) {
                                    Poll::Ready(Ok(())) => {
                                        assert!(!model.is_closed && model.is_free());
                                        model.values.push_back(number);
                                    }
                                    Poll::Ready(Err(error)) => {
                                        assert!(model.is_closed);
                                        assert_eq!(error.0.0, number);
                                    }
                                    Poll::Pending => {
                                        assert!(!model.is_closed && !model.is_free());
                                        model.join(who, Want::Value(number));
                                        let waiting = Waiting::Send(sending, number);
                                        waiters.push(Waiter { who, poller, waiting });
                                    }
                                }
                            }
                            Call::Reserve => {
                                let (mut reserving, poller) = (sender.reserve(), Poller::new());
                                match poller.poll(&mut reserving) {
                                    Poll::Ready(Ok(permit)) => {
                                        assert!(!model.is_closed && model.is_free());
                                        model.reserved += 1;
                                        permits.push(permit);
                                    }
                                    Poll::Ready(Err(_)) => assert!(model.is_closed),
                                    Poll::Pending => {
                                        assert!(!model.is_closed && !model.is_free());
                                        model.join(who, Want::Room);
                                        waiters.push(Waiter {
                                            who,
                                            poller,
                                            waiting: Waiting::Reserve(reserving),
                                        });
                                    }
                                }
                            }
                            Call::Poll(which, anew) if !waiters.is_empty() => {
                                let at = which % waiters.len();
                                let mut waiter = waiters.swap_remove(at);
                                if anew {
                                    let before = std::mem::replace(&mut waiter.poller, Poller::new());
                                    waiters.extend(poll(waiter, &mut model, &mut permits));
                                    assert_eq!(before.kept(), 0, "a waker that was replaced is dropped");
                                } else {
                                    waiters.extend(poll(waiter, &mut model, &mut permits));
                                }
                            }
                            Call::Drop(which) if !waiters.is_empty() => {
                                let Waiter { who, waiting, .. } = waiters.swap_remove(which % waiters.len());
                                if let (Waiting::Reserve(_), Fate::Met) = (&waiting, model.fate(who)) {
                                    model.reserved -= 1;
                                }
                                model.leave(who);
                                drop(waiting);
                            }
                            Call::IntoValue(which) if !waiters.is_empty() => {
                                let at = which % waiters.len();
                                if let Waiting::Send(..) = waiters[at].waiting {
                                    let Waiter { who, waiting, .. } = waiters.swap_remove(at);
                                    let Waiting::Send(sending, number) = waiting else { unreachable!() };
                                    let value = sending.into_value().map(|token| token.0);
                                    let was_sent = model.fate(who) == Fate::Met;
                                    assert_eq!(value, (!was_sent).then_some(number));
                                    model.leave(who);
                                }
                            }
                            Call::TrySend => {
                                let number = numbers.next().unwrap();
                                match sender.try_send(token(number)) {
                                    Ok(()) => {
                                        assert!(!model.is_closed && model.is_free());
                                        model.values.push_back(number);
                                    }
                                    Err(TrySendError::Closed(token)) => {
                                        assert!(model.is_closed);
                                        assert_eq!(token.0, number);
                                    }
                                    Err(TrySendError::Full(token)) => {
                                        assert!(!model.is_closed && !model.is_free());
                                        assert_eq!(token.0, number);
                                    }
                                }
                            }
                            Call::TryReserve => match sender.try_reserve() {
                                Ok(permit) => {
                                    assert!(!model.is_closed && model.is_free());
                                    model.reserved += 1;
                                    permits.push(permit);
                                }
                                Err(TryError::Closed) => assert!(model.is_closed),
                                Err(TryError::NotNow) => assert!(!model.is_closed && !model.is_free()),
                            },
                            Call::Fill(which) if !permits.is_empty() => {
                                let number = numbers.next().unwrap();
                                let permit = permits.swap_remove(which % permits.len());
                                permit.send(token(number)).unwrap();
                                model.reserved -= 1;
                                model.values.push_back(number);
                            }
                            Call::GiveBack(which) if !permits.is_empty() => {
                                drop(permits.swap_remove(which % permits.len()));
                                model.reserved -= 1;
                            }
                            Call::Receive => {
                                listener = Poller::new();
                                let polled = receiver.poll_recv(&mut listener.context());
                                match polled {
                                    Poll::Ready(Some(value)) => assert_eq!(Some(value.0), model.take()),
                                    Poll::Ready(None) => {
                                        assert!(model.take().is_none() && model.is_over());
                                    }
                                    Poll::Pending => {
                                        assert!(model.take().is_none() && !model.is_over());
                                        model.listens = true;
                                    }
                                }
                                polls_pending = model.listens;
                            }
                            Call::TryReceive => match receiver.try_recv() {
                                Ok(value) => assert_eq!(Some(value.0), model.take()),
                                Err(TryError::Closed) => {
                                    assert!(model.take().is_none() && model.is_over());
                                }
                                Err(TryError::NotNow) => {
                                    assert!(model.take().is_none() && !model.is_over());
                                }
                            },
                            Call::Close => {
                                receiver.close();
                                model.close();
                            }
                            Call::Poll(..)
                            | Call::Drop(_)
                            | Call::IntoValue(_)
                            | Call::Fill(_)
                            | Call::GiveBack(_) => {}
                        }
                        model.settle();

                        assert_eq!(receiver.len(), model.values.len());
                        assert_eq!(sender.len(), model.values.len());
                        if capacity > 0 {
                            assert!(model.values.len() + model.reserved <= capacity);
                        }
                        for waiter in std::mem::take(&mut waiters) {
                            if waiter.poller.wakes() > 0 {
                                // It will be polled at some time; the count says that it may.
                                waiter.poller.waker.wake_by_ref();
                                waiters.push(waiter);
                            } else {
                                assert_eq!(model.fate(waiter.who), Fate::Waits, "{who}: it was not woken");
                                waiters.extend(poll(waiter, &mut model, &mut permits));
                            }
                        }
                        if polls_pending && listener.wakes() > 0 {
                            listener.waker.wake_by_ref();
                        } else if polls_pending {
                            let polled = receiver.poll_recv(&mut listener.context());
                            assert!(polled.is_pending(), "{who}: the receiver was not woken");
                        }
                    }

                    while let Some(Waiter { who, waiting, .. }) = waiters.pop() {
                        if let (Waiting::Reserve(_), Fate::Met) = (&waiting, model.fate(who)) {
                            model.reserved -= 1;
                        }
                        model.leave(who);
                        drop(waiting);
                        model.settle();
                    }
                    drop(permits);
                    receiver.close();
                    let left: VecDeque<u32> =
                        std::iter::from_fn(|| receiver.try_recv().ok()).map(|value| value.0).collect();
                    assert_eq!(left, model.values);
                    assert_eq!(receiver.try_recv().err(), Some(TryError::Closed));
                }
                assert_eq!(living.load(SeqCst), 0, "nothing is left");
            }
        }

        proptest! {
            #![proptest_config(ProptestConfig::with_cases(600))]

            #[test]
            fn $name(capacity in 0_usize..4, calls in calls()) {
                $module::check(capacity, calls);
            }
        }
    };
}

channel_model!(a_channel_of_one_thread_does_what_its_model_does, local, netpoll_core::sync::mpsc);
channel_model!(
    a_channel_between_threads_does_what_its_model_does,
    between_threads,
    netpoll_core::sync::shared::mpsc
);

#[derive(Debug, Clone, Copy)]
enum Use {
    Acquire(usize),
    Poll(usize),
    Drop(usize),
    TryAcquire(usize),
    Release(usize),
    Split(usize),
    Forget(usize),
    Add(usize),
    Close,
}

fn uses() -> impl Strategy<Value = Vec<Use>> {
    let one = prop_oneof![
        20 => (0_usize..4).prop_map(Use::Acquire),
        12 => any::<usize>().prop_map(Use::Poll),
        10 => any::<usize>().prop_map(Use::Drop),
        10 => (0_usize..4).prop_map(Use::TryAcquire),
        16 => any::<usize>().prop_map(Use::Release),
        4 => any::<usize>().prop_map(Use::Split),
        2 => any::<usize>().prop_map(Use::Forget),
        4 => (0_usize..3).prop_map(Use::Add),
        1 => Just(Use::Close),
    ];
    prop::collection::vec(one, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_semaphore_serves_in_order_and_loses_no_permit(permits in 0_usize..5, uses in uses()) {
        let semaphore = Semaphore::new(permits);
        let (mut free, mut total, mut is_closed) = (permits, permits, false);
        let mut line: VecDeque<(usize, usize)> = VecDeque::new();
        let mut granted: Vec<usize> = Vec::new();
        let mut waiters = Vec::new();
        let mut held: Vec<SemaphorePermit> = Vec::new();
        for (who, one) in uses.into_iter().enumerate() {
            match one {
                Use::Acquire(wanted) => {
                    let (mut acquiring, poller) = (semaphore.acquire(wanted), Poller::new());
                    match poller.poll(&mut acquiring) {
                        Poll::Ready(Ok(permit)) => {
                            prop_assert!(!is_closed && line.is_empty() && free >= wanted);
                            free -= wanted;
                            held.push(permit);
                        }
                        Poll::Ready(Err(_)) => prop_assert!(is_closed),
                        Poll::Pending => {
                            prop_assert!(!is_closed && (!line.is_empty() || free < wanted));
                            line.push_back((who, wanted));
                            waiters.push((who, wanted, poller, acquiring));
                        }
                    }
                }
                Use::Poll(which) if !waiters.is_empty() => {
                    let at = which % waiters.len();
                    let (who, wanted, poller, acquiring) = &mut waiters[at];
                    match poller.poll(acquiring) {
                        Poll::Ready(Ok(permit)) => {
                            prop_assert!(granted.contains(who));
                            prop_assert_eq!(permit.permits(), *wanted);
                            held.push(permit);
                            let _done = waiters.swap_remove(at);
                        }
                        Poll::Ready(Err(_)) => {
                            prop_assert!(is_closed && !granted.contains(who));
                            let _done = waiters.swap_remove(at);
                        }
                        Poll::Pending => prop_assert!(line.iter().any(|(other, _)| other == who)),
                    }
                }
                Use::Drop(which) if !waiters.is_empty() => {
                    let (who, wanted, ..) = waiters.swap_remove(which % waiters.len());
                    line.retain(|(other, _)| *other != who);
                    if granted.contains(&who) {
                        free += wanted;
                    }
                }
                Use::TryAcquire(wanted) => match semaphore.try_acquire(wanted) {
                    Ok(permit) => {
                        prop_assert!(!is_closed && line.is_empty() && free >= wanted);
                        free -= wanted;
                        held.push(permit);
                    }
                    Err(TryError::Closed) => prop_assert!(is_closed),
                    Err(TryError::NotNow) => prop_assert!(!line.is_empty() || free < wanted),
                },
                Use::Release(which) if !held.is_empty() => {
                    let permit = held.swap_remove(which % held.len());
                    free += permit.permits();
                }
                Use::Split(which) if !held.is_empty() => {
                    let at = which % held.len();
                    let (before, part) = (held[at].permits(), which % 3);
                    let split = held[at].split(part);
                    prop_assert_eq!(split.is_some(), part <= before);
                    held.extend(split);
                }
                Use::Forget(which) if !held.is_empty() => {
                    let permit = held.swap_remove(which % held.len());
                    total -= permit.permits();
                    permit.forget();
                }
                Use::Add(more) => {
                    semaphore.add(more);
                    (free, total) = (free + more, total + more);
                }
                Use::Close => {
                    semaphore.close();
                    is_closed = true;
                    line.clear();
                }
                _ => {}
            }
            while let Some(&(who, wanted)) = line.front() && wanted <= free {
                line.pop_front();
                granted.push(who);
                free -= wanted;
            }
            prop_assert_eq!(semaphore.available(), free);
            for (who, _, poller, acquiring) in &mut waiters {
                if poller.wakes() > 0 {
                    poller.waker.wake_by_ref();
                } else {
                    prop_assert!(poller.poll(acquiring).is_pending(), "{} was not woken", who);
                }
            }
        }
        drop(waiters);
        drop(held);
        prop_assert_eq!(semaphore.available(), total, "all are back");
    }
}

#[derive(Debug, Clone, Copy)]
enum Ring {
    Listen,
    Poll(usize),
    Drop(usize),
    One,
    All,
}

fn rings() -> impl Strategy<Value = Vec<Ring>> {
    let ring = prop_oneof![
        6 => Just(Ring::Listen),
        8 => any::<usize>().prop_map(Ring::Poll),
        4 => any::<usize>().prop_map(Ring::Drop),
        5 => Just(Ring::One),
        1 => Just(Ring::All),
    ];
    prop::collection::vec(ring, 0..120)
}

#[derive(Clone, Copy, PartialEq)]
enum Heard {
    /// Not polled yet.
    Fresh,
    Waits,
    One,
    All,
}

struct Listener {
    heard: Heard,
    poller: Poller,
    notified: Notified,
}

/// `notify_one`, in the model.
fn ring_one(line: &mut VecDeque<usize>, listeners: &mut [(usize, Listener)], has_permit: &mut bool) {
    match line.pop_front() {
        None => *has_permit = true,
        Some(first) => {
            let (_, listener) = listeners.iter_mut().find(|(who, _)| *who == first).unwrap();
            listener.heard = Heard::One;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_bell_wakes_in_order_and_loses_no_notification(rings in rings()) {
        let bell = Notify::new();
        let mut has_permit = false;
        let mut line: VecDeque<usize> = VecDeque::new();
        let mut listeners: Vec<(usize, Listener)> = Vec::new();
        for (who, ring) in rings.into_iter().enumerate() {
            match ring {
                Ring::Listen => {
                    let listener =
                        Listener { heard: Heard::Fresh, poller: Poller::new(), notified: bell.notified() };
                    listeners.push((who, listener));
                }
                Ring::Poll(which) if !listeners.is_empty() => {
                    let at = which % listeners.len();
                    let (who, listener) = &mut listeners[at];
                    let is_ready = listener.poller.poll(&mut listener.notified).is_ready();
                    match listener.heard {
                        Heard::Fresh if has_permit => {
                            prop_assert!(is_ready);
                            has_permit = false;
                        }
                        Heard::Fresh => {
                            prop_assert!(!is_ready);
                            listener.heard = Heard::Waits;
                            line.push_back(*who);
                        }
                        heard => prop_assert_eq!(is_ready, heard != Heard::Waits),
                    }
                    if is_ready {
                        listeners.swap_remove(at);
                    }
                }
                Ring::Drop(which) if !listeners.is_empty() => {
                    let (who, listener) = listeners.swap_remove(which % listeners.len());
                    line.retain(|other| *other != who);
                    let heard = listener.heard;
                    drop(listener);
                    if heard == Heard::One {
                        ring_one(&mut line, &mut listeners, &mut has_permit);
                    }
                }
                Ring::One => {
                    bell.notify_one();
                    ring_one(&mut line, &mut listeners, &mut has_permit);
                }
                Ring::All => {
                    bell.notify_all();
                    line.clear();
                    for (_, listener) in &mut listeners {
                        if let Heard::Fresh | Heard::Waits = listener.heard {
                            listener.heard = Heard::All;
                        }
                    }
                }
                _ => {}
            }
            for (who, Listener { heard, poller, notified }) in &mut listeners {
                if *heard == Heard::Waits {
                    prop_assert!(poller.poll(notified).is_pending(), "{} was notified twice", who);
                } else if line.contains(who) || (*heard == Heard::One && poller.wakes() == 0) {
                    prop_assert!(false, "{} was not woken", who);
                } else if *heard == Heard::One {
                    poller.waker.wake_by_ref();
                }
            }
        }
        while let Some((who, listener)) = listeners.pop() {
            line.retain(|other| *other != who);
            let heard = listener.heard;
            drop(listener);
            if heard == Heard::One {
                ring_one(&mut line, &mut listeners, &mut has_permit);
            }
        }
        prop_assert_eq!(Poller::new().poll(&mut bell.notified()).is_ready(), has_permit, "it is kept");
    }
}
