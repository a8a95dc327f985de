//! The doorbell, the wakers and the channels between threads under the model checker, in any interleaving: no letter is slept
//! over, none outlives its worker, and no wake, value or room is lost.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p netpoll-core --features internals --test loom`.
//! Removing any of the three fences in `reactor/mailbox.rs` makes these fail, and so does a plain load in place of the
//! `fetch_or` of `sync/shared/mpsc.rs`.
#![cfg(all(loom, feature = "internals"))]

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize as Count, Ordering::SeqCst};
use std::task::{Context, Waker};

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Condvar, Mutex};
use loom::thread;
use netpoll_core::internals::{Bell, Came, Clock, Deliver, Key, Lane, Mailbox, Sender, WakeTarget};
use netpoll_core::sync::shared::{mpsc, oneshot};

/// What a wait waits for: an eventfd, edge-triggered (once rung, the current or the next wait returns), and a socket.
#[derive(Clone)]
struct ModelBell(Arc<(Mutex<Reports>, Condvar)>);

#[derive(Default)]
struct Reports {
    rung: bool,
    arrived: bool,
}

impl ModelBell {
    fn new() -> Self {
        Self(Arc::new((Mutex::new(Reports::default()), Condvar::new())))
    }

    /// Sleeps until there is a report. True if the socket is in it.
    fn wait(&self) -> bool {
        let mut reports = self.0.0.lock().unwrap();
        while !reports.rung && !reports.arrived {
            reports = self.0.1.wait(reports).unwrap();
        }
        std::mem::take(&mut *reports).arrived
    }

    /// Looks for reports without sleeping.
    fn look(&self) -> bool {
        std::mem::take(&mut *self.0.0.lock().unwrap()).arrived
    }

    /// Bytes arrive at the socket.
    fn arrive(&self) {
        self.0.0.lock().unwrap().arrived = true;
        self.0.1.notify_one();
    }
}

impl Bell for ModelBell {
    fn ring(&self) -> io::Result<()> {
        self.0.0.lock().unwrap().rung = true;
        self.0.1.notify_one();
        Ok(())
    }
}

/// Receives so many letters and sleeps in between. A letter that is slept over leaves every thread
/// waiting, which the model checker reports as a deadlock.
fn receive(mailbox: &Mailbox<u32>, bell: &ModelBell, count: u32) {
    let mut received = 0;
    while received < count {
        while mailbox.take().is_some() {
            received += 1;
        }
        if received < count && mailbox.may_sleep() {
            bell.wait();
        }
        mailbox.awake();
    }
}

fn model(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

fn check(senders: u32, letters: u32) {
    model(move || {
        let bell = ModelBell::new();
        let mailbox = Mailbox::new(bell.clone());
        let threads: Vec<_> = (0..senders)
            .map(|_| {
                let sender = mailbox.sender();
                thread::spawn(move || {
                    for letter in 0..letters {
                        sender.send(letter);
                    }
                })
            })
            .collect();
        receive(&mailbox, &bell, senders * letters);
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn one_letter_always_wakes_the_sleeper() {
    check(1, 1);
}

#[test]
fn two_letters_of_one_sender_always_arrive() {
    check(1, 2);
}

#[test]
fn letters_of_two_senders_always_arrive() {
    check(2, 1);
}

/// One turn of a worker: opens its letters, waits as its mailbox allows, and says that it is awake before it delivers. How
/// many letters it opened, and whether the socket was reported.
fn turn(mailbox: &Mailbox<u32>, bell: &ModelBell) -> (u32, bool) {
    let mut letters = 0;
    while mailbox.take().is_some() {
        letters += 1;
    }
    // With work behind it, it only looks.
    let may_sleep = letters == 0 && mailbox.may_sleep();
    let arrived = if may_sleep { bell.wait() } else { bell.look() };
    mailbox.awake();
    (letters, arrived)
}

#[test]
fn letters_arrive_although_the_wait_ends_for_another_reason() {
    for letters in [1, 2] {
        model(move || {
            let bell = ModelBell::new();
            let mailbox = Mailbox::new(bell.clone());
            let sender = mailbox.sender();
            let socket = bell.clone();
            let peer = thread::spawn(move || socket.arrive());
            let writer = thread::spawn(move || (0..letters).for_each(|letter| sender.send(letter)));
            let (mut opened, mut arrived) = (0, false);
            while opened < letters || !arrived {
                let (more, now) = turn(&mailbox, &bell);
                opened += more;
                arrived |= now;
            }
            peer.join().unwrap();
            writer.join().unwrap();
        });
    }
}

#[test]
fn a_letter_to_a_worker_that_is_awake_rings_nothing() {
    model(|| {
        let bell = ModelBell::new();
        let mailbox = Mailbox::new(bell.clone());
        let (early, late) = (mailbox.sender(), mailbox.sender());
        let socket = bell.clone();
        let peer = thread::spawn(move || socket.arrive());
        // Before, while and after the worker wakes up.
        let writer = thread::spawn(move || early.send(0));
        let (mut opened, mut arrived) = (0, false);
        while !arrived {
            let (more, now) = turn(&mailbox, &bell);
            opened += more;
            arrived = now;
        }
        // A callback hands work to another thread, and has its answer before it returns.
        thread::spawn(move || late.send(1)).join().unwrap();
        writer.join().unwrap();
        while opened < 2 {
            opened += turn(&mailbox, &bell).0;
        }
        peer.join().unwrap();
        assert!(mailbox.wakeups().0 <= 1, "the second found it awake");
    });
}

/// Counts itself when it is dropped.
struct Counted(Arc<Count>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// A worker that ends, asleep or awake, while others write to it.
fn check_end(senders: usize, letters: usize, asleep: bool) {
    model(move || {
        let bell = ModelBell::new();
        let mailbox = Mailbox::new(bell);
        // A handle that outlives all of it.
        let _kept = mailbox.sender();
        let dropped = Arc::new(Count::new(0));
        let threads: Vec<_> = (0..senders)
            .map(|_| {
                let (sender, dropped) = (mailbox.sender(), Arc::clone(&dropped));
                thread::spawn(move || {
                    for _ in 0..letters {
                        sender.send(Counted(Arc::clone(&dropped)));
                    }
                })
            })
            .collect();
        if asleep {
            let _ = mailbox.may_sleep();
        }
        drop(mailbox);
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(dropped.load(SeqCst), senders * letters, "none is left");
    });
}

#[test]
fn no_letter_outlives_a_worker_that_ends_awake() {
    check_end(1, 2, false);
    check_end(2, 1, false);
}

#[test]
fn no_letter_outlives_a_worker_whose_wait_fails() {
    check_end(1, 2, true);
    check_end(2, 1, true);
}

/// Wakes go into a mailbox.
struct To(Sender<Key>);

impl Deliver for To {
    fn deliver(&self, key: Key) {
        self.0.send(key);
    }
}

/// A worker polls something when it is woken, until it has seen all that was done.
fn check_wakes(wakers: usize, wakes: usize) {
    model(move || {
        let bell = ModelBell::new();
        let mailbox = Mailbox::new(bell.clone());
        let target = WakeTarget::new(Key::from_bits(7), u64::MAX, Arc::new(To(mailbox.sender())));
        let done = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..wakers)
            .map(|_| {
                let (waker, done) = (target.waker(), Arc::clone(&done));
                thread::spawn(move || {
                    for _ in 0..wakes {
                        done.fetch_add(1, Ordering::Relaxed);
                        waker.wake_by_ref();
                    }
                })
            })
            .collect();
        let mut seen = 0;
        while seen < wakers * wakes {
            while mailbox.take().is_some() {
                target.arrived(Came::ByLetter);
                // Nothing but the wake orders this load behind what was done.
                seen = done.load(Ordering::Relaxed);
            }
            if seen < wakers * wakes && mailbox.may_sleep() {
                bell.wait();
            }
            mailbox.awake();
        }
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_wake_shows_what_was_done_before_it() {
    check_wakes(1, 1);
}

#[test]
fn a_wake_while_another_is_under_way_is_not_lost() {
    check_wakes(1, 2);
    check_wakes(2, 1);
}

/// The same with a worker that wakes itself as well, so often, while it is at home.
fn check_wakes_at_home(wakes: usize, own: usize) {
    model(move || {
        let bell = ModelBell::new();
        let mailbox = Mailbox::new(bell.clone());
        let to: Arc<dyn Deliver> = Arc::new(To(mailbox.sender()));
        let lane = Lane::new(Clock::manual(0).reader(), Arc::clone(&to));
        let target = WakeTarget::new(Key::from_bits(7), lane.number(), to);
        let done = Arc::new(AtomicUsize::new(0));
        let (waker, theirs) = (target.waker(), Arc::clone(&done));
        let thread = thread::spawn(move || {
            for _ in 0..wakes {
                theirs.fetch_add(1, Ordering::Relaxed);
                waker.wake_by_ref();
            }
        });
        let entered = lane.enter();
        let (mut seen, mut left) = (0, own);
        while seen < wakes || left > 0 {
            while mailbox.take().is_some() {
                target.arrived(Came::ByLetter);
                seen = done.load(Ordering::Relaxed);
            }
            if left > 0 {
                left -= 1;
                target.waker().wake();
            }
            if lane.take_woken().is_some() {
                target.arrived(Came::Here);
                assert!(lane.take_woken().is_none(), "one entry for a burst");
                continue;
            }
            if seen < wakes && mailbox.may_sleep() {
                bell.wait();
            }
            mailbox.awake();
        }
        drop(entered);
        thread.join().unwrap();
    });
}

#[test]
fn a_wake_at_home_hides_none_from_elsewhere() {
    check_wakes_at_home(1, 1);
    check_wakes_at_home(2, 1);
    check_wakes_at_home(1, 2);
}

/// So many senders with so many values each, and a receiver: who waits for a value or for room that is there leaves every
/// thread waiting.
fn check_channel(capacity: usize, senders: usize, values: usize) {
    model(move || {
        let (sender, mut receiver) = mpsc::channel(capacity);
        let threads: Vec<_> = (0..senders)
            .map(|who| {
                let sender = sender.clone();
                thread::spawn(move || {
                    for number in 0..values {
                        sender.blocking_send((who, number)).unwrap();
                    }
                })
            })
            .collect();
        drop(sender);
        let mut next = vec![0; senders];
        while let Some((who, number)) = receiver.blocking_recv() {
            assert_eq!(number, next[who], "in order");
            next[who] += 1;
        }
        assert_eq!(next, vec![values; senders]);
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_sender_that_waits_for_room_is_let_in() {
    check_channel(1, 1, 2);
    check_channel(1, 1, 3);
}

#[test]
fn a_sender_that_waits_for_the_room_of_a_value_in_hand_is_let_in() {
    check_channel(2, 1, 4);
}

#[test]
fn two_senders_that_wait_for_room_are_let_in() {
    check_channel(1, 2, 1);
    check_channel(1, 2, 2);
}

#[test]
fn without_a_capacity_each_value_is_handed_over() {
    check_channel(0, 1, 2);
    check_channel(0, 2, 1);
}

/// The room of a value that is in the receiver's hand, while a sender looks for it: it is filled by the receiver's next
/// step, or the sender has seen it.
#[test]
fn a_room_that_is_made_while_a_sender_joins_the_line_is_its() {
    model(|| {
        let (sender, mut receiver) = mpsc::channel(2);
        sender.try_send(0).unwrap();
        sender.try_send(1).unwrap();
        // One is received, the other in hand.
        assert_eq!(receiver.try_recv(), Ok(0));
        sender.try_send(2).unwrap();
        let thread = thread::spawn(move || sender.blocking_send(3).unwrap());
        assert_eq!(receiver.try_recv(), Ok(1));
        // The receiver does nothing more until the sender is through.
        thread.join().unwrap();
        assert_eq!((receiver.try_recv(), receiver.try_recv()), (Ok(2), Ok(3)));
    });
}

#[test]
fn a_send_that_is_given_up_is_sent_or_comes_back() {
    model(|| {
        let (sender, mut receiver) = mpsc::channel(1);
        sender.try_send(0).unwrap();
        let other = sender.clone();
        let thread = thread::spawn(move || {
            let mut sending = other.send(1);
            let polled = Pin::new(&mut sending).poll(&mut Context::from_waker(Waker::noop()));
            polled.is_ready() || sending.into_value().is_none()
        });
        let next = thread::spawn(move || sender.blocking_send(2).unwrap());
        let mut received = Vec::new();
        while let Some(value) = receiver.blocking_recv() {
            received.push(value);
        }
        next.join().unwrap();
        let was_sent = thread.join().unwrap();
        received.sort_unstable();
        assert_eq!(received, if was_sent { vec![0, 1, 2] } else { vec![0, 2] });
    });
}

#[test]
fn a_room_that_is_given_up_goes_to_the_next() {
    model(|| {
        let (sender, mut receiver) = mpsc::channel(1);
        sender.try_send(0).unwrap();
        let other = sender.clone();
        let thread = thread::spawn(move || {
            let mut reserving = other.reserve();
            let _maybe = Pin::new(&mut reserving).poll(&mut Context::from_waker(Waker::noop()));
        });
        let next = thread::spawn(move || sender.blocking_send(1).unwrap());
        assert_eq!(receiver.blocking_recv(), Some(0));
        assert_eq!(receiver.blocking_recv(), Some(1));
        next.join().unwrap();
        thread.join().unwrap();
        assert_eq!(receiver.blocking_recv(), None);
    });
}

#[test]
fn a_sender_that_waits_hears_that_the_receiver_is_gone() {
    model(|| {
        let (sender, receiver) = mpsc::channel(1);
        sender.try_send(0).unwrap();
        let thread = thread::spawn(move || sender.blocking_send(1));
        drop(receiver);
        assert_eq!(thread.join().unwrap(), Err(mpsc::SendError(1)));
    });
}

#[test]
fn two_threads_that_send_to_each_other_through_full_queues_go_on() {
    model(|| {
        let (to_one, mut from_two) = mpsc::channel(1);
        let (to_two, mut from_one) = mpsc::channel(1);
        to_one.try_send(0).unwrap();
        to_two.try_send(0).unwrap();
        let exchange = |sender: mpsc::Sender<i32>, receiver: &mut mpsc::Receiver<i32>| {
            // Both queues are full: one waits in line while it receives.
            let mut sending = sender.send(1);
            let _pending = Pin::new(&mut sending).poll(&mut Context::from_waker(Waker::noop()));
            assert_eq!(receiver.blocking_recv(), Some(0));
            assert_eq!(receiver.blocking_recv(), Some(1));
            if let Some(not_let_in) = sending.into_value() {
                sender.blocking_send(not_let_in).unwrap();
            }
        };
        let thread = thread::spawn(move || exchange(to_one, &mut from_one));
        exchange(to_two, &mut from_two);
        thread.join().unwrap();
    });
}

#[test]
fn a_oneshot_always_answers() {
    for is_sent in [true, false] {
        model(move || {
            let (sender, receiver) = oneshot::channel();
            let thread = thread::spawn(move || if is_sent { sender.send(7).unwrap() } else { drop(sender) });
            assert_eq!(receiver.blocking_recv().ok(), is_sent.then_some(7));
            thread.join().unwrap();
        });
    }
}
