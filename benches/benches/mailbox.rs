//! Letters to a worker, sent and taken on one thread: the queue and the doorbell, without the system call.
//!
//! To a worker that is awake nobody rings. To one that sleeps the first letter of a burst does, once; the bell here
//! makes no sound. `std::sync::mpsc` stands beside it, which cannot wake anybody who waits in the kernel for sockets.

use std::hint::black_box;
use std::io;
use std::sync::mpsc;

use criterion::{Criterion, Throughput};
use netpoll_core::internals::{Bell, Mailbox};

const BURST: u64 = 64;

struct Silent;

impl Bell for Silent {
    fn ring(&self) -> io::Result<()> {
        Ok(())
    }
}

pub fn letters_are_sent_and_taken(criterion: &mut Criterion) {
    let mailbox = Mailbox::new(Silent);
    let sender = mailbox.sender();
    let (channel_sender, channel) = mpsc::channel();
    for (name, letters) in [("one letter", 1), ("a burst of 64", BURST)] {
        let mut group = criterion.benchmark_group(format!("mailbox/{name}"));
        group.throughput(Throughput::Elements(letters));
        group.bench_function("to a worker that is awake", |bencher| {
            bencher.iter(|| {
                (0..letters).for_each(|letter| sender.send(black_box(letter)));
                std::iter::from_fn(|| mailbox.take()).for_each(|letter| _ = black_box(letter));
            });
        });
        group.bench_function("to one that sleeps", |bencher| {
            bencher.iter(|| {
                assert!(mailbox.may_sleep());
                (0..letters).for_each(|letter| sender.send(black_box(letter)));
                mailbox.awake();
                std::iter::from_fn(|| mailbox.take()).for_each(|letter| _ = black_box(letter));
            });
        });
        group.bench_function("std::sync::mpsc", |bencher| {
            bencher.iter(|| {
                (0..letters).for_each(|letter| channel_sender.send(black_box(letter)).expect("a receiver"));
                channel.try_iter().for_each(|letter| _ = black_box(letter));
            });
        });
        group.finish();
    }
}
