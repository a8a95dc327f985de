//! Tasks: spawned, woken, joined, aborted, drained and dropped.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use netpoll_core::sim::{Faults, Options, Sim};
use netpoll_core::task::{JoinHandle, Scope, ScopeError, spawn_daemon, spawn_local, stopping, yield_now};
use netpoll_core::time::{sleep, timeout};
use netpoll_core::{Conn, Flow, Input, Protocol, Runtime, Workers};

use crate::chance::{Chance, seeds};
use crate::support::PanicsWhenDropped;

const SECOND: Duration = Duration::from_secs(1);

/// What happened, in order.
type Notes = Rc<RefCell<Vec<String>>>;

fn note(notes: &Notes, what: impl Into<String>) {
    notes.borrow_mut().push(what.into());
}

/// Writes down that it was dropped.
struct Dropped(Notes, &'static str);

impl Drop for Dropped {
    fn drop(&mut self) {
        note(&self.0, format!("{} dropped", self.1));
    }
}

/// A flag to wait for, and the waker of who does.
#[derive(Default)]
struct Gate {
    open: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl Gate {
    fn open(&self) {
        self.open.set(true);
        if let Some(waker) = self.waiter.borrow_mut().take() {
            waker.wake();
        }
    }

    async fn wait(&self) {
        poll_fn(|cx| {
            if self.open.get() {
                return Poll::Ready(());
            }
            *self.waiter.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

#[test]
fn a_task_runs_after_the_code_that_spawned_it_and_its_handle_has_its_value() {
    let (mut sim, notes) = (Sim::new(Options::default()), Notes::default());
    let log = Rc::clone(&notes);
    let value = sim.block_on(async move {
        let inner = Rc::clone(&log);
        let task = spawn_local(async move {
            note(&inner, "task");
            7
        });
        note(&log, "spawned");
        task.await.unwrap()
    });
    assert_eq!((value, &notes.borrow()[..]), (7, &["spawned".to_owned(), "task".to_owned()][..]));
}

#[test]
fn tasks_that_yield_take_turns() {
    let (mut sim, notes) = (Sim::new(Options::default()), Notes::default());
    let log = Rc::clone(&notes);
    sim.block_on(async move {
        let tasks: Vec<JoinHandle<()>> = ["a", "b"]
            .into_iter()
            .map(|name| {
                let log = Rc::clone(&log);
                spawn_local(async move {
                    for _ in 0..3 {
                        note(&log, name);
                        yield_now().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert_eq!(notes.borrow().concat(), "ababab");
}

#[test]
fn a_task_that_yields_for_ever_starves_no_connection() {
    let mut sim = Sim::new(Options::default());
    let polls = Rc::new(Cell::new(0));
    let listener = sim.listen(|_peer| crate::support::Echo);
    let peer = sim.connect(listener);
    let counted = Rc::clone(&polls);
    let answered = Rc::new(Cell::new(false));
    let stop = Rc::clone(&answered);
    // The world would never come to rest: so it is turned by hand.
    sim.commands().after(Duration::ZERO, move |_local| {
        drop(spawn_local(async move {
            while !stop.get() {
                counted.set(counted.get() + 1);
                yield_now().await;
            }
        }));
    });
    for _ in 0..4 {
        sim.turn();
    }
    let before = polls.get();
    sim.send(peer, b"ping");
    for _ in 0..4 {
        sim.turn();
    }
    assert_eq!(sim.take_received(peer), b"ping");
    let in_between = polls.get() - before;
    assert!((4 * 100..=4 * 300).contains(&in_between), "{in_between} polls in four turns");
    answered.set(true);
    sim.run();
}

#[test]
fn a_wake_on_its_own_worker_sends_no_letter() {
    let mut sim = Sim::new(Options::default());
    sim.run();
    let before = sim.stats();
    sim.block_on(async {
        let gate = Rc::new(Gate::default());
        let waiting = Rc::clone(&gate);
        let task = spawn_local(async move {
            for _ in 0..1000 {
                yield_now().await;
            }
            waiting.wait().await;
        });
        yield_now().await;
        gate.open();
        task.await.unwrap();
    });
    let spent = sim.stats().since(&before);
    assert_eq!((spent.mailbox_messages, spent.wakeups_sent), (1, 1), "how the future came in");
}

#[test]
fn a_burst_of_wakes_from_another_worker_is_one_letter() {
    let mut sim = Sim::new(Options::default().workers(2));
    let polls = Arc::new(AtomicUsize::new(0));
    let (wakers, waker) = mpsc::channel();
    let counted = Arc::clone(&polls);
    let task = sim.handle().spawn_on(0, move || {
        poll_fn(move |cx| {
            // The receiver is gone when the test is over.
            let _ = wakers.send(cx.waker().clone());
            match counted.fetch_add(1, Ordering::Relaxed) {
                0 => Poll::Pending,
                _ => Poll::Ready(()),
            }
        })
    });
    sim.run();
    let before = sim.stats();
    let waker = waker.recv().unwrap();
    sim.handle().run_on(1, move |_local| {
        for _ in 0..100 {
            waker.wake_by_ref();
        }
    });
    sim.run();
    assert!(task.is_finished());
    let spent = sim.stats().since(&before);
    assert_eq!((spent.mailbox_messages, polls.load(Ordering::Relaxed)), (2, 2), "the code, and one wake");
}

#[test]
fn a_waker_may_be_dropped_and_woken_on_any_thread_after_its_task_has_ended() {
    let mut sim = Sim::new(Options::default());
    let kept = Rc::new(RefCell::new(Vec::new()));
    let wakers = Rc::clone(&kept);
    sim.block_on(poll_fn(move |cx| {
        wakers.borrow_mut().push(cx.waker().clone());
        Poll::Ready(())
    }));
    let waker = kept.borrow_mut().pop().unwrap();
    thread::spawn(move || waker.wake()).join().unwrap();
    sim.run();
    // Its place is used again, and the old waker does not reach who has it now.
    let old = Rc::clone(&kept);
    let polls = Rc::new(Cell::new(0));
    let counted = Rc::clone(&polls);
    sim.block_on(async move {
        let task = spawn_local(poll_fn(move |_cx| {
            counted.set(counted.get() + 1);
            Poll::<()>::Pending
        }));
        yield_now().await;
        old.borrow_mut().drain(..).for_each(Waker::wake);
        yield_now().await;
        task.abort();
    });
    assert_eq!(polls.get(), 1);
}

/// Runs a task on a real worker.
fn run_on_a_worker(future: impl Future<Output = ()> + 'static) {
    Runtime::builder().workers(Workers::Count(1)).block_on(future).unwrap();
}

#[test]
fn a_task_in_the_place_of_another_is_woken_by_wakers_of_its_own_alone() {
    let mut sim = Sim::new(Options::default());
    sim.block_on(async {
        let mut of_others: Vec<Waker> = Vec::new();
        for round in 0..20 {
            let (polls, waker) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(None::<Waker>)));
            let (counted, kept) = (Rc::clone(&polls), Rc::clone(&waker));
            let task = spawn_local(poll_fn(move |cx| {
                counted.set(counted.get() + 1);
                if counted.get() == 3 {
                    return Poll::Ready(round);
                }
                *kept.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }));
            yield_now().await;
            of_others.iter().for_each(Waker::wake_by_ref);
            yield_now().await;
            assert_eq!(polls.get(), 1, "round {round}");

            // By value and by reference, at home and from elsewhere.
            waker.take().unwrap().wake();
            yield_now().await;
            assert_eq!(polls.get(), 2, "round {round}");
            let own = waker.take().unwrap();
            // Somebody who has one keeps what it leads to; without one that goes to the next task.
            of_others.extend((round % 3 == 0).then(|| own.clone()));
            if round % 2 == 0 {
                thread::spawn(move || own.wake_by_ref()).join().unwrap();
            } else {
                own.wake();
            }
            assert_eq!(task.await.unwrap(), round);
        }
        assert_eq!(of_others.len(), 7);
    });
}

#[test]
fn a_waker_of_a_poll_may_be_cloned_and_woken_by_other_threads_meanwhile() {
    run_on_a_worker(async {
        // By reference, while the poll lasts.
        let mut polls = 0;
        poll_fn(|cx| {
            polls += 1;
            if polls == 1 {
                let waker = cx.waker();
                thread::scope(|scope| _ = scope.spawn(|| waker.wake_by_ref()));
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
        assert_eq!(polls, 2);
        // A clone that another thread has made, behind it; again and again.
        for wakes in 1..=3 {
            let mut waker = None;
            let mut left = wakes;
            poll_fn(|cx| {
                if left == 0 {
                    return Poll::Ready(());
                }
                left -= 1;
                let own = cx.waker();
                let clone = || thread::scope(|scope| scope.spawn(|| own.clone()).join().unwrap());
                let waker: Waker = waker.get_or_insert_with(clone).clone();
                thread::spawn(move || waker.wake());
                Poll::Pending
            })
            .await;
        }
    });
}

#[test]
fn a_waker_that_was_cloned_is_the_one_of_all_later_polls() {
    run_on_a_worker(async {
        let mut known: Option<Waker> = None;
        let mut polls = 0;
        poll_fn(|cx| {
            polls += 1;
            if let Some(known) = &known {
                assert!(known.will_wake(cx.waker()), "poll {polls}");
            }
            known = Some(cx.waker().clone());
            cx.waker().wake_by_ref();
            if polls == 4 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        // Of another task it is not, and what it wakes is this one still.
        let theirs = known.clone().unwrap();
        let other = spawn_local(poll_fn(move |cx| Poll::Ready(theirs.will_wake(cx.waker()))));
        assert_eq!(other.await.ok(), Some(false));
    });
}

#[test]
fn a_task_that_is_woken_in_many_ways_at_once_is_polled_once() {
    let mut sim = Sim::new(Options::default());
    let polls = Rc::new(Cell::new(0));
    let counted = Rc::clone(&polls);
    sim.block_on(async move {
        let waker: Rc<RefCell<Option<Waker>>> = Rc::default();
        let kept = Rc::clone(&waker);
        let task = spawn_local(async move {
            poll_fn(|cx| {
                counted.set(counted.get() + 1);
                if counted.get() == 1 {
                    // By the waker of the poll and by a clone of it.
                    cx.waker().wake_by_ref();
                    let clone = cx.waker().clone();
                    clone.wake_by_ref();
                    clone.wake_by_ref();
                    *kept.borrow_mut() = Some(clone);
                }
                if counted.get() == 3 { Poll::Ready(()) } else { Poll::<()>::Pending }
            })
            .await;
        });
        yield_now().await;
        yield_now().await;
        yield_now().await;
        assert_eq!(polls.get(), 2, "twice woken while it was polled, and polled once for it");
        let waker = waker.take().unwrap();
        waker.wake_by_ref();
        waker.wake();
        task.await.unwrap();
        assert_eq!(polls.get(), 3);
    });
}

#[test]
fn an_aborted_task_is_dropped_at_once_and_its_handle_says_so() {
    let (mut sim, notes) = (Sim::new(Options::default()), Notes::default());
    let log = Rc::clone(&notes);
    sim.block_on(async move {
        let inside = Dropped(Rc::clone(&log), "future");
        let task = spawn_local(async move {
            let _inside = inside;
            pending::<()>().await;
        });
        yield_now().await;
        assert!(!task.is_finished());
        task.abort();
        note(&log, "aborted");
        assert!(task.is_finished());
        let error = task.await.unwrap_err();
        assert!(error.is_cancelled() && !error.is_panic(), "{error}");
    });
    assert_eq!(notes.borrow()[..], ["future dropped", "aborted"]);
}

#[test]
fn a_task_may_abort_itself_and_ends_at_its_next_await() {
    let (mut sim, notes) = (Sim::new(Options::default()), Notes::default());
    let log = Rc::clone(&notes);
    sim.block_on(async move {
        let own: Rc<RefCell<Option<JoinHandle<()>>>> = Rc::default();
        let (mine, inner) = (Rc::clone(&own), Rc::clone(&log));
        let _inside = Dropped(Rc::clone(&log), "outer");
        let task = spawn_local(async move {
            let _inside = Dropped(Rc::clone(&inner), "task");
            mine.borrow().as_ref().unwrap().abort();
            note(&inner, "goes on");
            yield_now().await;
            note(&inner, "never");
        });
        *own.borrow_mut() = Some(task);
        yield_now().await;
        yield_now().await;
        let task = own.borrow_mut().take().unwrap();
        assert!(task.await.unwrap_err().is_cancelled());
    });
    assert_eq!(notes.borrow()[..], ["goes on", "task dropped", "outer dropped"]);
}

#[test]
fn a_detached_task_goes_on() {
    let mut sim = Sim::new(Options::default());
    let done = Rc::new(Cell::new(false));
    let mark = Rc::clone(&done);
    sim.block_on(async move {
        drop(spawn_local(async move {
            sleep(SECOND).await;
            mark.set(true);
        }));
    });
    assert!(!done.get());
    sim.advance(SECOND);
    assert!(done.get());
}

#[test]
fn a_panic_is_handed_on_and_counted_and_nobody_else_notices() {
    let mut sim = Sim::new(Options::default());
    let text = sim.block_on(async {
        let bystander = spawn_local(async {
            yield_now().await;
            yield_now().await;
            1
        });
        let what = "panic".to_owned();
        let task = spawn_local(async move { panic!("asked to {what}") });
        let error = JoinHandle::<()>::await_error(task).await;
        assert!(error.is_panic() && !error.is_cancelled());
        assert_eq!(bystander.await.unwrap(), 1);
        let text = error.to_string();
        assert_eq!(*error.into_panic().unwrap().downcast::<String>().unwrap(), "asked to panic");
        text
    });
    assert_eq!(text, "the task panicked: asked to panic");
    assert_eq!(sim.stats().panics, 1);
}

/// Waits for a task that goes wrong.
trait AwaitError {
    async fn await_error(self) -> netpoll_core::task::JoinError;
}

impl<T: 'static> AwaitError for JoinHandle<T> {
    async fn await_error(self) -> netpoll_core::task::JoinError {
        self.await.err().expect("it goes wrong")
    }
}

#[test]
fn destructors_that_panic_cost_nothing_else() {
    let mut sim = Sim::new(Options::default());
    sim.block_on(async {
        // Of the future, of the value that nobody wants, of the payload of a panic.
        drop(spawn_local(async {
            let _inside = PanicsWhenDropped;
            yield_now().await;
        }));
        drop(spawn_local(async { PanicsWhenDropped }));
        drop(spawn_local(async { std::panic::panic_any(PanicsWhenDropped) }));
        let task = spawn_local(async {
            let _inside = PanicsWhenDropped;
            pending::<()>().await;
        });
        yield_now().await;
        task.abort();
        for _ in 0..5 {
            yield_now().await;
        }
    });
    sim.run();
    assert_eq!(sim.stats().panics, 5);
}

#[test]
fn the_destructor_of_a_task_may_spawn_and_wake_and_abort() {
    let (mut sim, notes) = (Sim::new(Options::default()), Notes::default());

    struct Busy(Notes, Option<JoinHandle<()>>, Waker);
    impl Drop for Busy {
        fn drop(&mut self) {
            let notes = Rc::clone(&self.0);
            drop(spawn_local(async move { note(&notes, "spawned by a destructor") }));
            self.2.wake_by_ref();
            if let Some(other) = self.1.take() {
                other.abort();
            }
        }
    }

    let log = Rc::clone(&notes);
    sim.block_on(async move {
        let other_log = Dropped(Rc::clone(&log), "other");
        let other = spawn_local(async move {
            let _inside = other_log;
            pending::<()>().await;
        });
        let own = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        let busy = Busy(Rc::clone(&log), Some(other), own);
        let task = spawn_local(async move {
            let _busy = busy;
            pending::<()>().await;
        });
        yield_now().await;
        task.abort();
        yield_now().await;
    });
    sim.run();
    assert_eq!(notes.borrow()[..], ["other dropped", "spawned by a destructor"]);
}

#[test]
fn wakers_of_other_executors_may_do_anything() {
    // A join handle is polled with a waker whose wake and drop use the runtime again.
    struct Nasty(std::sync::Mutex<Vec<u8>>);
    impl Wake for Nasty {
        fn wake(self: Arc<Self>) {
            self.0.lock().unwrap().push(1);
            drop(spawn_local(async {}));
        }
    }
    impl Drop for Nasty {
        fn drop(&mut self) {
            drop(spawn_local(async {}));
        }
    }
    let mut sim = Sim::new(Options::default());
    sim.block_on(async {
        let gate = Rc::new(Gate::default());
        let waiting = Rc::clone(&gate);
        let mut task = spawn_local(async move { waiting.wait().await });
        for _ in 0..3 {
            let waker = Waker::from(Arc::new(Nasty(std::sync::Mutex::default())));
            let mut cx = std::task::Context::from_waker(&waker);
            assert!(pin!(&mut task).poll(&mut cx).is_pending());
        }
        gate.open();
        yield_now().await;
        yield_now().await;
        assert!(task.is_finished());
    });
    assert_eq!(sim.stats().panics, 0);
}

#[test]
fn a_scope_joins_all() {
    let mut sim = Sim::new(Options::default());
    let count = Rc::new(Cell::new(0));
    let counted = Rc::clone(&count);
    sim.block_on(async move {
        let scope = Rc::new(Scope::<()>::new());
        for number in 0..100_u64 {
            let counted = Rc::clone(&counted);
            scope.spawn(async move {
                sleep(Duration::from_millis(number)).await;
                counted.set(counted.get() + 1);
                Ok(())
            });
        }
        assert_eq!(scope.len(), 100);
        Rc::into_inner(scope).unwrap().join().await.unwrap();
    });
    assert_eq!((count.get(), sim.now().as_millis()), (100, 99));
}

#[test]
fn the_first_error_of_a_scope_cancels_the_others() {
    let (mut sim, notes) = (Sim::new(Options::default()), Notes::default());
    let log = Rc::clone(&notes);
    let error = sim.block_on(async move {
        let scope = Scope::new();
        for name in ["one", "two"] {
            let inside = Dropped(Rc::clone(&log), name);
            scope.spawn(async move {
                let _inside = inside;
                pending::<()>().await;
                Ok(())
            });
        }
        scope.spawn(async {
            sleep(SECOND).await;
            Err("failed")
        });
        let error = scope.join().await.unwrap_err();
        note(&log, "joined");
        error
    });
    assert_eq!(error.into_error(), Some("failed"));
    assert_eq!(notes.borrow()[..], ["one dropped", "two dropped", "joined"]);
    assert_eq!(sim.now().as_millis(), 1000);
}

#[test]
fn a_panic_in_a_scope_ends_it_too_and_dropping_it_drops_its_tasks() {
    let (mut sim, notes) = (Sim::new(Options::default()), Notes::default());
    let log = Rc::clone(&notes);
    sim.block_on(async move {
        let scope = Scope::<&str>::new();
        scope.spawn(async { panic!("in a scope") });
        scope.spawn(pending());
        let error = scope.join().await.unwrap_err();
        assert!(matches!(&error, ScopeError::Lost(lost) if lost.is_panic()), "{error}");

        let scope = Scope::<&str>::new();
        let inside = Dropped(Rc::clone(&log), "task");
        scope.spawn(async move {
            let _inside = inside;
            pending().await
        });
        yield_now().await;
        drop(scope);
        note(&log, "scope dropped");
    });
    assert_eq!(notes.borrow()[..], ["task dropped", "scope dropped"]);
}

#[test]
fn tasks_hear_of_a_drain_and_it_waits_for_them() {
    let (mut sim, notes) = (Sim::new(Options::default().workers(2)), Notes::default());
    for worker in 0..2 {
        let _task = sim.handle().spawn_on(worker, move || async move {
            stopping().await;
            sleep(SECOND * (1 + worker as u32)).await;
        });
    }
    let log = Rc::clone(&notes);
    sim.block_on(async move {
        let heard = Rc::clone(&log);
        drop(spawn_local(async move {
            stopping().await;
            note(&heard, "stopping");
            // And whoever asks again, or only now.
            stopping().await;
            note(&heard, "still");
        }));
        yield_now().await;
        // One that is given up leaves nothing behind.
        assert!(timeout(Duration::from_millis(1), stopping()).await.is_err());
    });
    sim.begin_drain(SECOND * 10);
    sim.run();
    assert_eq!(notes.borrow()[..], ["stopping", "still"]);
    assert!(!sim.is_finished());
    sim.advance(SECOND);
    assert!(!sim.is_finished(), "the other worker has a task");
    sim.advance(SECOND);
    assert!(sim.is_finished());
    assert_eq!(sim.now().as_millis(), 2001);
}

#[test]
fn what_is_left_at_the_deadline_of_a_drain_is_dropped_while_the_worker_still_works() {
    let (mut sim, notes) = (Sim::new(Options::default()), Notes::default());
    let log = Rc::clone(&notes);

    /// Uses its worker when it is dropped.
    struct Last(Notes);
    impl Drop for Last {
        fn drop(&mut self) {
            let task = spawn_local(async { unreachable!("it is too late") });
            note(&self.0, format!("dropped, and its task is over: {}", task.is_finished()));
        }
    }

    sim.block_on(async move {
        drop(spawn_local(async move {
            let _last = Last(log);
            pending::<()>().await;
        }));
        yield_now().await;
    });
    sim.begin_drain(SECOND);
    sim.advance(SECOND - Duration::from_millis(1));
    assert!(!sim.is_finished() && notes.borrow().is_empty());
    sim.advance(Duration::from_millis(1));
    assert!(sim.is_finished());
    assert_eq!(notes.borrow().len(), 1);
    // What its destructor has spawned had its turn, or had not: it is over in any case.
    assert!(notes.borrow()[0].starts_with("dropped"), "{:?}", notes.borrow());
}

#[test]
fn a_world_that_ends_drops_its_tasks_whoever_holds_their_handles() {
    let notes = Notes::default();
    let mut sim = Sim::new(Options::default());
    let log = Rc::clone(&notes);
    let handle: Rc<RefCell<Option<JoinHandle<()>>>> = Rc::default();
    let place = Rc::clone(&handle);
    sim.block_on(async move {
        let inside = Dropped(log, "task");
        let own = Rc::clone(&place);
        *place.borrow_mut() = Some(spawn_local(async move {
            // A circle: the task has its own handle.
            let _own = own;
            let _inside = inside;
            pending::<()>().await;
        }));
        yield_now().await;
    });
    drop(sim);
    assert_eq!(notes.borrow()[..], ["task dropped"]);
    let handle = handle.borrow_mut().take().unwrap();
    assert!(handle.is_finished());
    handle.abort();
}

#[test]
fn a_task_on_another_worker_is_awaited_there_or_here_and_by_threads() {
    let running = Runtime::builder().workers(Workers::Count(2)).start().unwrap();
    let handle = running.handle().clone();
    let other = handle.clone();
    let task = handle.spawn_on(0, move || async move {
        let here = Rc::new(20);
        yield_now().await;
        *here + other.spawn_on(1, || async { 22 }).await.unwrap()
    });
    assert_eq!(task.join().unwrap(), 42);

    let error = handle.spawn_on(0, || async { panic!("there") }).join().unwrap_err();
    assert_eq!(error.to_string(), "the task panicked: there");
    let late = handle.spawn_on(1, || async { pending::<()>().await });
    running.stop(Duration::ZERO).unwrap();
    assert!(late.join().unwrap_err().is_cancelled(), "its worker has ended");
    assert!(handle.spawn_on(0, || async {}).join().unwrap_err().is_cancelled(), "and so had this one's");
}

#[test]
fn a_worker_does_not_block_on_a_task() {
    let mut sim = Sim::new(Options::default());
    let handle = sim.handle().clone();
    let panicked = sim.block_on(async move {
        let task = handle.spawn_on(0, || async {});
        let join = catch_unwind(AssertUnwindSafe(|| task.join())).is_err();
        join && catch_unwind(|| Runtime::block_on(async {})).is_err()
    });
    assert!(panicked);
}

#[test]
fn who_spawns_on_a_thread_that_is_no_worker_is_told_what_to_do() {
    let panic = catch_unwind(|| spawn_local(async {})).unwrap_err();
    let text = panic.downcast::<String>().unwrap();
    assert!(text.contains("`spawn_local`") && text.contains("Handle::spawn_on"), "{text}");
}

#[test]
fn a_program_without_listeners_blocks_on_a_future() {
    let sum = Runtime::block_on(async {
        let tasks: Vec<_> = (0..100).map(|number| spawn_local(async move { number })).collect();
        let mut sum = 0;
        for task in tasks {
            sum += task.await.unwrap();
        }
        let begun = std::time::Instant::now();
        sleep(Duration::from_millis(20)).await;
        assert!(begun.elapsed() >= Duration::from_millis(20));
        // Nobody waits for this one.
        drop(spawn_local(pending::<()>()));
        sum
    });
    assert_eq!(sum.unwrap(), 4950);

    let panic = catch_unwind(|| Runtime::block_on(async { panic!("in the future") })).unwrap_err();
    assert_eq!(*panic.downcast::<&str>().unwrap(), "in the future");
}

/// A protocol whose callbacks spawn, and whose tasks wake it.
struct Slow(Option<JoinHandle<Vec<u8>>>);

impl Protocol for Slow {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        let bytes = input.bytes().to_vec();
        input.advance_all();
        let waker = conn.waker();
        self.0 = Some(spawn_local(async move {
            sleep(SECOND).await;
            waker.wake();
            bytes
        }));
        Flow::Pause
    }

    fn woken(&mut self, conn: &mut Conn<'_>) -> Flow {
        let Some(task) = &mut self.0 else { return Flow::Continue };
        let waker = conn.waker();
        match pin!(task).poll(&mut std::task::Context::from_waker(&waker)) {
            Poll::Ready(bytes) => {
                conn.send(&bytes.unwrap());
                self.0 = None;
                Flow::Continue
            }
            Poll::Pending => Flow::Pause,
        }
    }
}

#[test]
fn callbacks_spawn_tasks_and_are_woken_by_them() {
    for seed in seeds(20) {
        let mut sim = Sim::new(Options::default().seed(seed).faults(Faults::stormy()).workers(2));
        let listener = sim.listen(|_peer| Slow(None));
        let peers: Vec<_> = (0..10).map(|_| sim.connect(listener)).collect();
        sim.settle();
        for peer in &peers {
            sim.send(*peer, b"ping");
        }
        sim.settle();
        sim.advance(SECOND * 30);
        sim.settle();
        for peer in peers {
            // In pieces, if it arrived so.
            assert!(b"ping".starts_with(&sim.take_received(peer)[..]), "seed {seed}");
        }
        assert_eq!(sim.stats().panics, 0);
    }
}

#[test]
fn a_storm_of_tasks_loses_none_of_them() {
    for seed in seeds(50) {
        let mut sim = Sim::new(Options::default().seed(seed).faults(Faults::stormy()).workers(3));
        let ended = Arc::new(AtomicUsize::new(0));
        let handle = sim.handle().clone();
        let tasks: Vec<_> = (0..30)
            .map(|number| {
                let (handle, ended) = (handle.clone(), Arc::clone(&ended));
                sim.handle().spawn_on(number % 3, move || async move {
                    let mut chance = Chance::new(seed * 100 + number as u64);
                    for _ in 0..20 {
                        match chance.below(5) {
                            0 => yield_now().await,
                            1 => sleep(Duration::from_micros(chance.below(5000) as u64)).await,
                            2 => {
                                let task = spawn_local(async { 3 });
                                assert_eq!(task.await.unwrap(), 3);
                            }
                            3 => {
                                let task = spawn_local(pending::<()>());
                                yield_now().await;
                                task.abort();
                                assert!(task.await.unwrap_err().is_cancelled());
                            }
                            _ => {
                                let worker = chance.below(3);
                                let far = handle.spawn_on(worker, || async {
                                    yield_now().await;
                                    5
                                });
                                assert_eq!(far.await.unwrap(), 5);
                            }
                        }
                    }
                    ended.fetch_add(1, Ordering::Relaxed);
                })
            })
            .collect();
        sim.advance(SECOND * 10);
        assert_eq!(ended.load(Ordering::Relaxed), 30, "seed {seed}");
        assert!(tasks.into_iter().all(|task| task.join().is_ok()));
        sim.begin_drain(SECOND);
        sim.run();
        assert!(sim.is_finished(), "nothing is left");
    }
}

#[test]
fn many_tasks_that_yield_leave_sockets_their_turn() {
    let mut sim = Sim::new(Options::default());
    let (polls, stop) = (Rc::new(Cell::new(0_usize)), Rc::new(Cell::new(false)));
    let (counted, stopped) = (Rc::clone(&polls), Rc::clone(&stop));
    sim.commands().after(Duration::ZERO, move |_local| {
        for _ in 0..10_000 {
            let (counted, stopped) = (Rc::clone(&counted), Rc::clone(&stopped));
            drop(spawn_local(async move {
                while !stopped.get() {
                    counted.set(counted.get() + 1);
                    yield_now().await;
                }
            }));
        }
    });
    for _ in 0..4 {
        sim.turn();
    }
    let before = polls.get();
    sim.turn();
    let in_one_turn = polls.get() - before;
    assert!((128..=300).contains(&in_one_turn), "{in_one_turn} polls in one turn");
    stop.set(true);
    sim.run();
}

#[test]
fn a_task_that_its_own_end_starts_again_ends_with_its_worker() {
    struct Again;
    impl Drop for Again {
        fn drop(&mut self) {
            drop(spawn_local(run(Self)));
        }
    }
    async fn run(_again: Again) {
        pending::<()>().await;
    }
    let mut sim = Sim::new(Options::default());
    sim.block_on(async {
        drop(spawn_local(run(Again)));
        yield_now().await;
    });
    drop(sim);
}

#[test]
fn what_is_aborted_between_turns_is_dropped_on_its_worker() {
    struct Last(Rc<Cell<bool>>);
    impl Drop for Last {
        fn drop(&mut self) {
            let ran = Rc::clone(&self.0);
            drop(spawn_local(async move { ran.set(true) }));
        }
    }
    let (mut sim, ran) = (Sim::new(Options::default()), Rc::new(Cell::new(false)));
    let last = Last(Rc::clone(&ran));
    let place: Rc<RefCell<Option<JoinHandle<()>>>> = Rc::default();
    let kept = Rc::clone(&place);
    sim.block_on(async move {
        *kept.borrow_mut() = Some(spawn_local(async move {
            let _last = last;
            sleep(SECOND * 3600).await;
        }));
        yield_now().await;
        yield_now().await;
    });
    place.borrow_mut().take().unwrap().abort();
    sim.run();
    assert!(ran.get());
    assert_eq!(sim.stats().panics, 0);
}

#[test]
fn factories_of_a_simulation_may_spawn() {
    let (mut sim, ran) = (Sim::new(Options::default().workers(2)), Rc::new(Cell::new(0)));
    sim.run();
    let count = |ran: &Rc<Cell<u32>>| {
        let ran = Rc::clone(ran);
        drop(spawn_local(async move { ran.set(ran.get() + 1) }));
    };
    let set = Rc::clone(&ran);
    sim.state(move |_worker| {
        count(&set);
        7_u8
    });
    sim.run();
    assert_eq!(ran.get(), 2, "a worker that sleeps hears of it");
    let set = Rc::clone(&ran);
    sim.listen_each(move |_worker| {
        count(&set);
        |_peer| crate::support::Echo
    });
    let set = Rc::clone(&ran);
    sim.every(SECOND, move |_worker| {
        count(&set);
        |_local| {}
    });
    sim.run();
    assert_eq!(ran.get(), 6);
}

#[test]
fn every_destructor_that_panics_in_a_task_is_counted() {
    struct Done(PanicsWhenDropped);
    impl Future for Done {
        type Output = ();
        fn poll(self: std::pin::Pin<&mut Self>, _cx: &mut std::task::Context<'_>) -> Poll<()> {
            Poll::Ready(())
        }
    }
    let mut sim = Sim::new(Options::default());
    drop(sim.handle().spawn_on(0, || async { SendPanics(PanicsWhenDropped) }));
    drop(sim.handle().spawn_on(0, || Done(PanicsWhenDropped)));
    sim.run();
    assert_eq!(sim.stats().panics, 2);
}

/// May go to another thread, and panics when it is dropped.
struct SendPanics(PanicsWhenDropped);

#[test]
fn a_worker_does_not_block_on_a_channel() {
    let mut sim = Sim::new(Options::default());
    let panicked = sim.block_on(async {
        let (_sender, receiver) = netpoll_core::sync::shared::oneshot::channel::<()>();
        catch_unwind(AssertUnwindSafe(|| receiver.blocking_recv())).is_err()
    });
    assert!(panicked);
}

#[test]
fn a_thread_that_joins_a_task_keeps_its_token() {
    let running = Runtime::builder().workers(Workers::Count(1)).start().unwrap();
    let (go, going) = mpsc::channel::<()>();
    let task = running.handle().spawn_on(0, move || async move {
        while going.try_recv().is_err() {
            yield_now().await;
        }
    });
    thread::current().unpark();
    thread::spawn(move || go.send(()).unwrap()).join().unwrap();
    task.join().unwrap();
    let begun = std::time::Instant::now();
    thread::park_timeout(SECOND * 20);
    assert!(begun.elapsed() < SECOND * 10, "the token is still there");
    running.stop(Duration::ZERO).unwrap();
}

#[test]
fn a_sleep_in_a_thread_local_ends_with_its_thread() {
    thread_local!(static KEPT: RefCell<Option<netpoll_core::time::Sleep>> = const { RefCell::new(None) });
    let thread = thread::spawn(|| {
        // Registered first, so it is destroyed last.
        KEPT.with(|_kept| ());
        Sim::new(Options::default()).block_on(poll_fn(|cx| {
            let mut sleeping = sleep(SECOND * 3600);
            assert!(pin!(&mut sleeping).poll(cx).is_pending());
            KEPT.with(|kept| *kept.borrow_mut() = Some(sleeping));
            Poll::Ready(())
        }));
    });
    thread.join().unwrap();
}

#[test]
fn a_world_tells_where_the_tasks_were_spawned_that_are_left() {
    let mut sim = Sim::new(Options::default());
    let lines = sim.block_on(async {
        spawn_daemon(pending::<()>()).detach();
        spawn_local(pending::<()>()).detach();
        spawn_local(async {}).detach();
        line!()
    });
    sim.run();
    let places = sim.task_places();
    assert!(places.iter().all(|place| place.file() == file!()));
    let found: Vec<_> = places.iter().map(|place| place.line()).collect();
    assert_eq!(found, [lines - 2, lines - 3], "daemons come last, and who has ended is not there");
}
