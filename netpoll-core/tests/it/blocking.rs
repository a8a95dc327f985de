//! Jobs that block, on the threads of a runtime, and in simulations.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use netpoll_core::blocking::{self, reserve, spawn_blocking};
use netpoll_core::sim::{Options, Sim};
use netpoll_core::sync::shared::oneshot;
use netpoll_core::task::{JoinError, spawn_local, yield_now};
use netpoll_core::time::{sleep, timeout};
use netpoll_core::{Affinity, Builder, Conn, Flow, Input, Protocol, Running, Runtime, Workers};

use crate::support::{Client, PanicsWhenDropped};

const PATIENCE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

fn one_worker() -> Builder {
    Runtime::builder().workers(Workers::Count(1))
}

/// A pool of one thread, which is busy until the sender says something or is dropped.
fn busy(runtime: &Running) -> mpsc::Sender<()> {
    let (go, going) = mpsc::channel();
    let (begin, begun) = mpsc::channel();
    runtime.handle().run_on(0, move |_local| {
        let job = move || {
            begin.send(()).unwrap();
            let _ = going.recv();
        };
        drop(spawn_blocking(job));
    });
    begun.recv_timeout(PATIENCE).unwrap();
    go
}

#[test]
fn a_job_runs_on_a_thread_that_is_no_worker_and_not_on_its_cpu_alone() {
    let before = Affinity::of_this_thread().unwrap();
    let runtime = one_worker().pin(true).start().unwrap();
    let job = runtime.handle().spawn_on(0, || {
        spawn_blocking(|| {
            let name = std::thread::current().name().unwrap_or_default().to_owned();
            // Panics on a worker.
            let (_, receiver) = oneshot::channel::<()>();
            let may_block = receiver.blocking_recv().is_err();
            (name, Affinity::of_this_thread().unwrap(), may_block)
        })
    });
    let (name, affinity, may_block) = job.join().unwrap().unwrap();
    assert_eq!(name, "netpoll-blocking-0");
    assert_eq!(affinity, before);
    assert!(may_block);
}

/// Answers each line with what a job has made of it.
struct Shouting(Option<blocking::JoinHandle<Vec<u8>>>);

impl Protocol for Shouting {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        let line = input.bytes().to_vec();
        input.advance_all();
        let waker = conn.waker();
        self.0 = Some(spawn_blocking(move || {
            let line = line.to_ascii_uppercase();
            waker.wake();
            line
        }));
        Flow::Continue
    }

    fn woken(&mut self, conn: &mut Conn<'_>) -> Flow {
        if let Some(job) = self.0.take_if(|job| job.is_finished()) {
            conn.send(&futures::executor::block_on(job).unwrap());
        } else if self.0.is_some() {
            // The job has woken it and is about to end.
            conn.waker().wake();
        }
        Flow::Continue
    }
}

#[test]
fn a_callback_hands_work_over_and_hears_of_its_end() {
    let runtime = one_worker().listen("127.0.0.1:0", |_worker| |_peer| Shouting(None)).unwrap();
    let runtime = runtime.start().unwrap();
    let mut client = Client::connect(runtime.local_addrs()[0].as_socket_addr().unwrap());
    client.send(b"hello");
    client.reads(b"HELLO");
}

#[test]
fn a_panic_of_a_job_is_handed_on_and_its_thread_goes_on() {
    let (panicked, then) = one_worker()
        .blocking_threads(1)
        .block_on(async {
            let panicked = spawn_blocking(|| -> u8 { panic!("asked to") }).await;
            (panicked, spawn_blocking(|| std::thread::current().name().map(str::to_owned)).await)
        })
        .unwrap();
    let error = panicked.unwrap_err();
    assert!(error.is_panic() && error.to_string().contains("asked to"), "{error}");
    assert_eq!(then.unwrap().as_deref(), Some("netpoll-blocking-0"));
}

#[test]
fn values_that_panic_when_they_are_dropped_cost_nothing() {
    let sum = one_worker().blocking_threads(1).block_on(async {
        drop(spawn_blocking(|| PanicsWhenDropped));
        drop(spawn_blocking(|| std::panic::panic_any(PanicsWhenDropped)));
        let held = PanicsWhenDropped;
        let aborted = spawn_blocking(move || std::mem::forget(held));
        aborted.abort();
        spawn_blocking(|| 1 + 1).await.unwrap()
    });
    assert_eq!(sum.unwrap(), 2);
}

#[test]
fn a_job_that_has_not_begun_can_be_aborted_and_one_that_has_goes_on() {
    let runtime = one_worker().blocking_threads(1).start().unwrap();
    let go = busy(&runtime);
    let (say, said) = mpsc::channel();
    let aborted = runtime.handle().spawn_on(0, move || async move {
        let job = spawn_blocking(move || say.send("it has begun"));
        let was_dropped = (job.abort(), job.is_finished());
        (was_dropped, job.await.unwrap_err().is_cancelled())
    });
    assert_eq!(aborted.join().unwrap(), ((true, true), true));
    assert_eq!(said.recv_timeout(PATIENCE), Err(mpsc::RecvTimeoutError::Disconnected));

    drop(go);
    let (begin, begun) = mpsc::channel();
    let (go, going) = mpsc::channel::<()>();
    let job = runtime.handle().spawn_on(0, || async move {
        let job = spawn_blocking(move || {
            begin.send(()).unwrap();
            going.recv().is_err()
        });
        (job,)
    });
    let (job,) = job.join().unwrap();
    begun.recv_timeout(PATIENCE).unwrap();
    assert!(!job.abort());
    drop(go);
    assert!(job.join().unwrap(), "its value came all the same");
}

#[test]
fn dropping_a_handle_lets_the_job_go_on() {
    let runtime = one_worker().start().unwrap();
    let (say, said) = mpsc::channel();
    runtime.handle().run_on(0, move |_local| drop(spawn_blocking(move || say.send(7))));
    assert_eq!(said.recv_timeout(PATIENCE), Ok(7));
}

#[test]
fn what_the_queue_has_no_room_for_is_refused_and_who_reserves_waits_for_room() {
    let runtime = one_worker().blocking_threads(1).blocking_jobs_max(2).start().unwrap();
    let go = busy(&runtime);
    let filled = runtime.handle().spawn_on(0, || async {
        let jobs = (spawn_blocking(|| 1), reserve().await);
        let refused = spawn_blocking(|| 2).await.unwrap_err();
        let waits = timeout(Duration::from_millis(20), reserve()).await.is_err();
        (jobs, refused, waits)
    });
    let ((first, permit), refused, waits) = filled.join().unwrap();
    assert!(refused.is_refused() && refused.to_string().contains("2 jobs wait"), "{refused}");
    assert!(waits, "a permit is a place");
    let second = permit.spawn(|| 2);
    let (say, said) = mpsc::channel();
    let third = runtime.handle().spawn_on(0, move || async move {
        let mut place = std::pin::pin!(reserve());
        say.send(futures::poll!(&mut place).is_pending()).unwrap();
        place.await.spawn(|| 3).await
    });
    assert_eq!(said.recv_timeout(PATIENCE), Ok(true));
    drop(go);
    let results = [first.join(), second.join(), third.join().unwrap()];
    assert_eq!(results.map(Result::unwrap), [1, 2, 3]);
}

#[test]
fn a_drain_waits_for_the_jobs_that_somebody_waits_for_and_for_no_other() {
    let runtime = one_worker().start().unwrap();
    let other = busy(&runtime);
    let (go, going) = mpsc::channel::<()>();
    let waits = runtime.handle().spawn_on(0, || async move {
        let job = spawn_blocking(move || going.recv().is_err());
        netpoll_core::task::stopping().await;
        drop(go);
        job.await
    });
    let report = runtime.stop(PATIENCE).unwrap();
    assert!(waits.join().unwrap().unwrap(), "it was waited for");
    assert!(report.took < PATIENCE / 2, "and the other was not");
    drop(other);
}

#[test]
fn at_the_end_of_the_runtime_jobs_that_have_not_begun_are_dropped_and_those_that_run_go_on() {
    let runtime = one_worker().blocking_threads(1).start().unwrap();
    let (go, going) = mpsc::channel::<()>();
    let (begin, begun) = mpsc::channel();
    let jobs = runtime.handle().spawn_on(0, || async move {
        let runs = spawn_blocking(move || {
            begin.send(()).unwrap();
            going.recv().is_err()
        });
        (runs, spawn_blocking(|| ()), reserve().await)
    });
    let (runs, waits, permit) = jobs.join().unwrap();
    begun.recv_timeout(PATIENCE).unwrap();
    runtime.stop(Duration::ZERO).unwrap();
    assert!(waits.join().unwrap_err().is_cancelled());
    assert!(permit.spawn(|| ()).join().unwrap_err().is_refused());
    assert!(!runs.is_finished(), "it still runs");
    drop(go);
    assert!(runs.join().unwrap());
}

#[test]
fn on_a_thread_that_is_no_worker_it_panics() {
    let panic = catch_unwind(AssertUnwindSafe(|| drop(spawn_blocking(|| ())))).unwrap_err();
    let text = panic.downcast_ref::<String>().unwrap();
    assert!(text.contains("`spawn_blocking` was called on a thread that is no worker"), "{text}");
}

#[test]
fn a_pool_without_threads_or_without_room_keeps_the_runtime_from_starting() {
    for (builder, name) in [
        (one_worker().blocking_threads(0), "blocking_threads"),
        (one_worker().blocking_jobs_max(0), "blocking_jobs_max"),
    ] {
        let error = builder.start().err().expect("an error");
        assert_eq!(
            (error.kind(), error.to_string()),
            (std::io::ErrorKind::InvalidInput, format!("{name} is zero"))
        );
    }
}

/// Tasks on two workers that step, and spawn jobs: what happened, in order.
fn story(seed: u64) -> Vec<String> {
    let mut sim = Sim::new(Options::default().seed(seed).workers(2));
    let log = Rc::new(RefCell::new(Vec::new()));
    let (say, said) = mpsc::channel();
    for worker in 0..2 {
        let say = say.clone();
        drop(sim.handle().spawn_on(worker, move || async move {
            for step in 0..3 {
                say.send(format!("{worker} steps {step}")).unwrap();
                let there = say.clone();
                let job = spawn_blocking(move || there.send(format!("job of {worker}, {step}")).unwrap());
                yield_now().await;
                say.send(format!("{worker} waits {step}")).unwrap();
                job.await.unwrap();
            }
        }));
    }
    sim.run();
    log.borrow_mut().extend(said.try_iter());
    log.take()
}

#[test]
fn a_seed_repeats_when_jobs_run_and_others_run_them_at_other_moments() {
    let stories: Vec<_> = (0..20).map(story).collect();
    assert_eq!(stories, (0..20).map(story).collect::<Vec<_>>());
    assert!(stories.iter().any(|other| *other != stories[0]));
    assert!(stories.iter().all(|story| story.len() == 18));
}

#[test]
fn in_a_simulation_a_job_is_on_no_worker_and_takes_no_time() {
    let mut sim = Sim::new(Options::default());
    sim.block_on(async {
        let began = netpoll_core::time::timeout(SECOND, async {
            let (answer, asked) = oneshot::channel();
            let listens = spawn_local(asked);
            let job = spawn_blocking(move || {
                answer.send(5).unwrap();
                let (_, receiver) = oneshot::channel::<()>();
                receiver.blocking_recv().is_err() // panics on a worker
            });
            assert!(!job.is_finished(), "not while a task runs");
            (listens.await.unwrap(), job.await.unwrap())
        });
        assert_eq!(began.await.unwrap(), (Ok(5), true));
        let aborted = spawn_blocking(|| ());
        assert!(aborted.abort());
        assert!(aborted.await.unwrap_err().is_cancelled());
        sleep(SECOND).await;
    });
}

#[test]
fn in_a_simulation_there_is_as_much_room_as_is_set() {
    let mut sim = Sim::new(Options::default().blocking_jobs_max(1));
    let results = sim.block_on(async {
        let first = spawn_blocking(|| 1);
        let refused = spawn_blocking(|| 2).await;
        let second = reserve().await.spawn(|| 3);
        (first.await, refused.map_err(|error: JoinError| error.is_refused()), second.await)
    });
    assert_eq!((results.0.unwrap(), results.1, results.2.unwrap()), (1, Err(true), 3));
}

#[test]
fn jobs_of_a_world_that_ends_are_dropped() {
    let (held, rest) = mpsc::channel::<()>();
    let mut sim = Sim::new(Options::default());
    sim.state(|_worker| {
        let held = held.clone();
        drop(spawn_blocking(move || held.send(())));
    });
    drop((sim, held));
    assert_eq!(rest.try_recv(), Err(mpsc::TryRecvError::Disconnected));
}
