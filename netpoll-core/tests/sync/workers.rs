//! Channels between tasks of workers, on the simulated network.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use netpoll_core::sim::{Faults, Options, Sim};
use netpoll_core::sync::{mpsc, shared};
use netpoll_core::task::spawn_local;

#[test]
fn a_burst_to_a_task_of_another_worker_is_one_letter() {
    let mut sim = Sim::new(Options::default().workers(2));
    let (sender, mut receiver) = shared::mpsc::channel(64);
    let task = sim.handle().spawn_on(0, move || async move {
        let mut sum = 0;
        while let Some(number) = receiver.recv().await {
            sum += number;
        }
        sum
    });
    sim.run();
    let before = sim.stats();
    sim.handle().run_on(1, move |_local| {
        for number in 1..=64 {
            assert!(sender.try_send(number).is_ok());
        }
    });
    sim.run();
    let spent = sim.stats().since(&before);
    assert_eq!(spent.mailbox_messages, 2, "the code, and one wake");
    assert_eq!(sim.block_on(task).unwrap(), 65 * 32);
}

#[test]
fn tasks_of_one_worker_talk_without_letters() {
    let mut sim = Sim::new(Options::default());
    let before = sim.stats();
    let sum = sim.block_on(async {
        let (sender, mut receiver) = mpsc::channel(1);
        let _task = spawn_local(async move {
            for number in 1..=100 {
                assert!(sender.send(number).await.is_ok());
            }
        });
        let mut sum = 0;
        while let Some(number) = receiver.recv().await {
            sum += number;
        }
        sum
    });
    assert_eq!(
        (sum, sim.stats().since(&before).mailbox_messages),
        (5050, 1),
        "the letter is how the future came in"
    );
}

#[test]
fn workers_whose_tasks_send_to_each_other_through_full_queues_go_on() {
    const EACH: usize = 200;
    for seed in 0..20 {
        for capacity in [0, 1, 3] {
            let mut sim = Sim::new(Options::default().seed(seed).faults(Faults::stormy()).workers(2));
            let (to_one, from_two) = shared::mpsc::channel(capacity);
            let (to_two, from_one) = shared::mpsc::channel(capacity);
            let received = Arc::new(AtomicUsize::new(0));
            for (worker, sender, mut receiver) in [(0, to_two, from_two), (1, to_one, from_one)] {
                let received = Arc::clone(&received);
                let _task = sim.handle().spawn_on(worker, move || async move {
                    let _sends = spawn_local(async move {
                        for number in 0..EACH {
                            assert!(sender.send(number).await.is_ok());
                        }
                    });
                    for number in 0..EACH {
                        assert_eq!(receiver.recv().await, Some(number));
                        received.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            sim.run();
            assert_eq!(received.load(Ordering::Relaxed), 2 * EACH, "seed {seed}, capacity {capacity}");
            assert_eq!(sim.stats().panics, 0);
        }
    }
}
