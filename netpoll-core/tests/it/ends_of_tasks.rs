//! Tasks that are let go, aborted from elsewhere, cut by a drain or not waited for; their memory, and who took a long turn.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use netpoll_core::sim::{Options, Sim};
use netpoll_core::sync::oneshot;
use netpoll_core::task::{JoinHandle, Scope, spawn_daemon, spawn_local, stopping, yield_now};
use netpoll_core::time::{interval, sleep};
use netpoll_core::{
    Callee, Commands, Conn, ConnectOptions, Flow, Handle, Input, LongTurn, Lost, Protocol, Runtime, Workers,
};

use crate::support::{Client, PanicsWhenDropped};

const SECOND: Duration = Duration::from_secs(1);

/// Says that it was dropped, and where.
struct Dropped(mpsc::Sender<thread::ThreadId>);

impl Drop for Dropped {
    fn drop(&mut self) {
        // The test may be over.
        let _ = self.0.send(thread::current().id());
    }
}

#[test]
fn a_task_is_aborted_from_another_thread_and_dropped_on_its_worker() {
    let running = Runtime::builder().workers(Workers::Count(1)).start().unwrap();
    let (dropped, drops) = mpsc::channel();
    let (began, begins) = mpsc::channel();
    let inside = Dropped(dropped);
    let task = running.handle().spawn_on(0, move || async move {
        let _inside = inside;
        began.send(thread::current().id()).unwrap();
        pending::<()>().await;
    });
    let worker = begins.recv().unwrap();
    assert!(!task.is_finished());
    task.abort();
    assert_eq!(drops.recv().unwrap(), worker);
    assert!(task.join().unwrap_err().is_cancelled());
    running.stop(SECOND).unwrap();
}

#[test]
fn a_task_that_is_aborted_before_it_begins_never_does() {
    let mut sim = Sim::new(Options::default());
    let made = Arc::new(AtomicBool::new(false));
    let mark = Arc::clone(&made);
    let task = sim.handle().spawn_on(0, move || {
        mark.store(true, Ordering::Relaxed);
        async {}
    });
    task.abort();
    sim.run();
    assert!(!made.load(Ordering::Relaxed));
    assert!(task.join().unwrap_err().is_cancelled());
}

#[test]
fn a_task_that_has_ended_keeps_its_result_whoever_aborts_it() {
    let mut sim = Sim::new(Options::default());
    let far = sim.handle().spawn_on(0, || async { 7 });
    sim.run();
    far.abort();
    sim.run();
    assert_eq!(far.join().unwrap(), 7);
    let near = sim.block_on(async {
        let task = spawn_local(async { 7 });
        yield_now().await;
        task.abort();
        task.await.unwrap()
    });
    assert_eq!(near, 7);
}

#[test]
fn a_result_outlives_its_worker_with_its_handle() {
    let place: Rc<RefCell<Option<JoinHandle<u8>>>> = Rc::default();
    let kept = Rc::clone(&place);
    let mut sim = Sim::new(Options::default());
    sim.block_on(async move {
        *kept.borrow_mut() = Some(spawn_local(async { 7 }));
        yield_now().await;
    });
    drop(sim);
    let task = place.borrow_mut().take().unwrap();
    assert!(task.is_finished());
    assert_eq!(futures::executor::block_on(task).unwrap(), 7);
}

#[test]
fn a_task_that_waits_for_itself_waits() {
    let mut sim = Sim::new(Options::default());
    sim.block_on(async {
        let own: Rc<RefCell<Option<JoinHandle<()>>>> = Rc::default();
        let mine = Rc::clone(&own);
        *own.borrow_mut() = Some(spawn_local(async move {
            let mut handle = mine.borrow_mut().take().unwrap();
            let waits = std::future::poll_fn(|cx| {
                std::task::Poll::Ready(std::pin::Pin::new(&mut handle).poll(cx).is_pending())
            });
            assert!(waits.await);
            *mine.borrow_mut() = Some(handle);
        }));
        yield_now().await;
        let task = own.borrow_mut().take().unwrap();
        task.await.unwrap();
    });
    assert_eq!(sim.stats().panics, 0);
}

#[test]
fn results_that_nobody_wants_are_dropped_with_the_handle_or_the_task_whichever_is_later() {
    let mut sim = Sim::new(Options::default());
    let count = Rc::new(Cell::new(0));
    struct Counts(Rc<Cell<u32>>);
    impl Drop for Counts {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    let counted = Rc::clone(&count);
    sim.block_on(async move {
        let value = Counts(Rc::clone(&counted));
        let task = spawn_local(async move { value });
        yield_now().await;
        assert_eq!(counted.get(), 0, "the handle is there");
        task.detach();
        assert_eq!(counted.get(), 1);
        let value = Counts(Rc::clone(&counted));
        spawn_local(async move { value }).detach();
        yield_now().await;
        assert_eq!(counted.get(), 2);
        // With a destructor that panics, in either.
        let task = spawn_local(async { PanicsWhenDropped });
        yield_now().await;
        task.detach();
    });
    assert_eq!((count.get(), sim.stats().panics), (2, 1));
}

type Notes = Rc<RefCell<Vec<&'static str>>>;

/// Notes that it was dropped, or lost.
struct Note(Notes, &'static str);

impl Drop for Note {
    fn drop(&mut self) {
        self.0.borrow_mut().push(self.1);
    }
}

impl Protocol for Note {
    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        Flow::Continue
    }

    fn stopping(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.unchanged_flow()
    }
}

#[test]
fn a_drain_does_not_wait_for_daemons_and_drops_them_last() {
    let mut sim = Sim::new(Options::default());
    let notes = Notes::default();
    let (daemon, task) = (Note(Rc::clone(&notes), "daemon"), Note(Rc::clone(&notes), "task"));
    let ticks = Rc::new(Cell::new(0));
    let counted = Rc::clone(&ticks);
    sim.block_on(async move {
        spawn_daemon(async move {
            let _note = daemon;
            let mut every_second = interval(SECOND);
            loop {
                every_second.tick().await;
                counted.set(counted.get() + 1);
            }
        })
        .detach();
        spawn_local(async move {
            let _note = task;
            stopping().await;
            sleep(SECOND * 5).await;
        })
        .detach();
        yield_now().await;
    });
    sim.begin_drain(SECOND * 60);
    sim.advance(SECOND * 4);
    assert!(!sim.is_finished() && ticks.get() >= 4, "it serves to the end");
    sim.advance(SECOND);
    assert!(sim.is_finished());
    drop(sim);
    assert_eq!(notes.borrow()[..], ["task", "daemon"]);
}

/// Leaves a daemon, and behind it a task.
fn leave_both(notes: &Notes) {
    let (daemon, task) = (Note(Rc::clone(notes), "daemon"), Note(Rc::clone(notes), "task"));
    spawn_daemon(async move {
        let _note = daemon;
        pending::<()>().await;
    })
    .detach();
    spawn_local(async move {
        let _note = task;
        pending::<()>().await;
    })
    .detach();
}

#[test]
fn a_daemon_is_dropped_last_at_the_deadline_of_a_drain_and_wherever_a_worker_ends() {
    for drains in [true, false] {
        let notes = Notes::default();
        let mut sim = Sim::new(Options::default());
        let of_daemon = Rc::clone(&notes);
        sim.block_on(async move {
            leave_both(&of_daemon);
            yield_now().await;
        });
        let of_connection = Rc::clone(&notes);
        let listener = sim.listen(move |_peer| Note(Rc::clone(&of_connection), "connection"));
        sim.connect(listener);
        sim.run();
        if drains {
            sim.begin_drain(SECOND);
            sim.advance(SECOND * 2);
            assert!(sim.is_finished());
        }
        drop(sim);
        assert_eq!(notes.borrow()[..], ["task", "connection", "daemon"]);
    }
}

#[test]
fn a_daemon_outlives_the_future_that_a_thread_waits_for() {
    // A future is made on this thread and stays on it.
    let notes = Notes::default();
    let inside = Rc::clone(&notes);
    Runtime::block_on(async move {
        leave_both(&inside);
        yield_now().await;
        let _note = Note(inside, "main");
    })
    .unwrap();
    assert_eq!(notes.borrow()[..], ["main", "task", "daemon"]);
}

#[test]
fn a_task_that_is_spawned_in_a_scope_between_turns_runs() {
    let mut sim = Sim::new(Options::default());
    let scope = sim.block_on(async { Scope::<()>::new() });
    let ran = Rc::new(Cell::new(false));
    let runs = Rc::clone(&ran);
    scope.spawn(async move {
        runs.set(true);
        Ok(())
    });
    sim.run();
    assert!(ran.get());
}

#[test]
fn a_daemon_that_never_rests_keeps_no_worker() {
    let running = Runtime::builder().workers(Workers::Count(1)).start().unwrap();
    let (began, begins) = mpsc::channel();
    running
        .handle()
        .spawn_on(0, move || async move {
            spawn_daemon(async move {
                began.send(()).unwrap();
                loop {
                    yield_now().await;
                }
            })
            .detach();
        })
        .detach();
    begins.recv().unwrap();
    let report = running.stop(SECOND * 60).unwrap();
    assert!(report.took < SECOND * 30, "{report}");
    assert_eq!(report.tasks_cut, 0);
}

#[test]
fn a_report_counts_the_tasks_that_the_deadline_has_cut() {
    let running = Runtime::builder().workers(Workers::Count(2)).start().unwrap();
    let (began, begins) = mpsc::channel();
    for number in 0..3 {
        let began = began.clone();
        let task = running.handle().spawn_on(number % 2, move || async move {
            spawn_daemon(pending::<()>()).detach();
            began.send(()).unwrap();
            pending::<()>().await;
        });
        task.detach();
    }
    for _ in 0..3 {
        begins.recv().unwrap();
    }
    let report = running.stop(Duration::from_millis(1)).unwrap();
    assert_eq!(report.tasks_cut, 3);
    assert!(report.to_string().ends_with("; 3 tasks were dropped"), "{report}");
}

#[test]
fn the_memory_of_many_tasks_goes_back_when_they_have_ended() {
    let mut sim = Sim::new(Options::default());
    sim.block_on(async {
        for _ in 0..100_000 {
            spawn_local(sleep(SECOND)).detach();
        }
    });
    assert_eq!(sim.stats().spikes, 0);
    sim.advance(SECOND * 4);
    assert!(sim.stats().spikes >= 1);
}

/// Sleeps in its callback if it is told to.
struct Sleeper;

impl Protocol for Sleeper {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        if input.bytes() == b"sleep" {
            thread::sleep(LONG);
        }
        input.advance_all();
        conn.send(format!("{:?}", conn.id()).as_bytes());
        Flow::Continue
    }
}

/// Twice as long as what counts as long.
const LONG: Duration = Duration::from_millis(40);

fn wait_for_long_turn(handle: &Handle, before: u64) -> LongTurn {
    while handle.worker_stats(0).long_turns == before {
        thread::yield_now();
    }
    handle.last_long_turn(0).expect("it was counted behind it")
}

#[test]
fn a_turn_that_takes_long_again_names_the_task_or_the_connection() {
    let builder = Runtime::builder().workers(Workers::Count(1)).long_turn(LONG / 2);
    let running = builder.listen("127.0.0.1:0", |_worker| |_peer| Sleeper).unwrap().start().unwrap();
    let handle = running.handle().clone();
    assert!(handle.last_long_turn(0).is_none());
    let block = || async { thread::sleep(LONG) };

    let long_turns = handle.worker_stats(0).long_turns;
    handle.spawn_on(0, block).detach();
    let turn = wait_for_long_turn(&handle, long_turns);
    assert!(turn.took >= LONG && turn.longest.is_none(), "{turn}");

    let long_turns = handle.worker_stats(0).long_turns;
    let (task, line) = (handle.spawn_on(0, block), line!());
    let turn = wait_for_long_turn(&handle, long_turns);
    let Some(Callee::Task(place)) = turn.longest.map(|call| call.callee) else { panic!("{turn}") };
    assert_eq!((place.file(), place.line()), (file!(), line));
    assert!(turn.to_string().contains("ends_of_tasks.rs"), "{turn}");
    task.join().unwrap();

    let addr = running.local_addrs()[0].as_socket_addr().unwrap();
    let mut client = Client::connect(addr);
    let long_turns = handle.worker_stats(0).long_turns;
    client.send(b"sleep");
    let turn = wait_for_long_turn(&handle, long_turns);
    let Some(Callee::Connection(id)) = turn.longest.map(|call| call.callee) else { panic!("{turn}") };
    client.reads(format!("{id:?}").as_bytes());

    let long_turns = handle.worker_stats(0).long_turns;
    handle.run_on(0, |_local| thread::sleep(LONG));
    let turn = wait_for_long_turn(&handle, long_turns);
    assert_eq!(turn.longest.map(|call| call.callee), Some(Callee::Code));
    drop(client);
    running.stop(SECOND).unwrap();
}

#[test]
fn an_accept_function_that_takes_long_is_named_as_code_and_not_as_the_connection_that_it_makes() {
    let accept = |_peer| {
        thread::sleep(LONG);
        Sleeper
    };
    let builder = Runtime::builder().workers(Workers::Count(1)).long_turn(LONG / 2);
    let running = builder.listen("127.0.0.1:0", move |_worker| accept).unwrap().start().unwrap();
    let (handle, addr) = (running.handle().clone(), running.local_addrs()[0].as_socket_addr().unwrap());
    let long_turns = handle.worker_stats(0).long_turns;
    let _first = Client::connect(addr);
    wait_for_long_turn(&handle, long_turns);
    let long_turns = handle.worker_stats(0).long_turns;
    let _second = Client::connect(addr);
    let turn = wait_for_long_turn(&handle, long_turns);
    assert_eq!(turn.longest.map(|call| call.callee), Some(Callee::Code), "{turn}");
    running.stop(SECOND).unwrap();
}

/// Tells a task when it is lost.
struct Tells(Option<oneshot::Sender<()>>);

impl Protocol for Tells {
    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        Flow::Continue
    }

    fn stopping(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.unchanged_flow()
    }

    fn lost(&mut self, _reason: Lost, _commands: &mut Commands) {
        if let Some(tell) = self.0.take() {
            let _ = tell.send(());
        }
    }
}

#[test]
fn a_daemon_hears_what_the_last_task_tells_it() {
    let mut sim = Sim::new(Options::default());
    let (tell, told) = oneshot::channel();
    let place = RefCell::new(Some(tell));
    let listener = sim.listen(move |_peer| Tells(place.borrow_mut().take()));
    let peer = sim.connect(listener);
    let heard = Rc::new(Cell::new(false));
    let hears = Rc::clone(&heard);
    sim.block_on(async move {
        let (line, lines) = oneshot::channel();
        spawn_daemon(async move {
            lines.await.unwrap();
            hears.set(true);
        })
        .detach();
        spawn_local(async move {
            told.await.unwrap();
            let _ = line.send(());
        })
        .detach();
        yield_now().await;
    });
    sim.begin_drain(SECOND * 60);
    // Its listener is gone by then: the task that the end of this connection wakes is all that is left.
    sim.advance(SECOND);
    assert!(!sim.is_finished());
    sim.close(peer);
    sim.run();
    assert_eq!((sim.is_finished(), heard.get()), (true, true));
}

/// Dials again whenever it is lost, by way of its thread.
struct Again;

impl Protocol for Again {
    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        Flow::Continue
    }

    fn lost(&mut self, _reason: Lost, _commands: &mut Commands) {
        if Handle::try_current().is_some() {
            Commands::with(|commands| {
                commands.connect("10.0.0.1:80", ConnectOptions::default(), Again);
            });
        }
    }
}

#[test]
fn who_dials_again_by_way_of_its_thread_holds_no_drain_beyond_its_deadline() {
    let mut sim = Sim::new(Options::default());
    sim.commands().connect("10.0.0.1:80", ConnectOptions::default(), Again);
    sim.settle();
    sim.begin_drain(SECOND);
    sim.turn();
    sim.stand_still(SECOND * 2);
    // A `run` would go on for a million.
    for _ in 0..1000 {
        sim.turn();
    }
    assert!(sim.is_finished());
}
