//! The doorbell under the model checker: no letter is slept over, in any interleaving.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p netpoll-core --features internals --test loom`.
//! Removing either of the two fences in `reactor/mailbox.rs` makes these fail.
#![cfg(all(loom, feature = "internals"))]

use std::io;
use std::sync::Arc;

use loom::sync::{Condvar, Mutex};
use loom::thread;
use netpoll_core::internals::{Bell, Mailbox};

/// An eventfd, edge-triggered: once rung, the current or the next wait returns.
#[derive(Clone)]
struct ModelBell(Arc<(Mutex<bool>, Condvar)>);

impl ModelBell {
    fn new() -> Self {
        Self(Arc::new((Mutex::new(false), Condvar::new())))
    }

    fn wait(&self) {
        let mut rung = self.0.0.lock().unwrap();
        while !*rung {
            rung = self.0.1.wait(rung).unwrap();
        }
        *rung = false;
    }
}

impl Bell for ModelBell {
    fn ring(&self) -> io::Result<()> {
        *self.0.0.lock().unwrap() = true;
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

fn check(senders: u32, letters: u32) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
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
