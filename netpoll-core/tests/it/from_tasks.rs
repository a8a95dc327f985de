//! What tasks, and futures inside of callbacks, reach of their worker.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use netpoll_core::sim::{Options, PeerId, Sim};
use netpoll_core::task::{self, spawn_daemon, spawn_local, yield_now};
use netpoll_core::time::sleep;
use netpoll_core::{Commands, Conn, ConnId, Flow, Handle, Input, Protocol, Runtime};

const SECOND: Duration = Duration::from_secs(1);

/// Tells everybody its name, and discards what it gets.
struct Named(Rc<RefCell<Vec<ConnId>>>);

impl Protocol for Named {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.0.borrow_mut().push(conn.id());
        Flow::Continue
    }

    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        Flow::Continue
    }
}

/// A world with one connection, its peer, and its name.
fn connected() -> (Sim, PeerId, ConnId) {
    let (mut sim, names) = (Sim::new(Options::default()), Rc::default());
    let for_peers = Rc::clone(&names);
    let listener = sim.listen(move |_peer| Named(Rc::clone(&for_peers)));
    let peer = sim.connect(listener);
    sim.run();
    let id = names.borrow()[0];
    (sim, peer, id)
}

fn send(id: ConnId, bytes: &'static [u8]) {
    Commands::with(|commands| commands.send(id, bytes.into()));
}

#[test]
fn what_tasks_command_is_carried_out_in_order() {
    let (mut sim, peer, id) = connected();
    sim.block_on(async move {
        let other = spawn_local(async move { send(id, b" third") });
        send(id, b"first");
        Commands::with(|commands| {
            commands.send(id, b" second".as_slice().into());
        });
        other.await.unwrap();
        yield_now().await;
        send(id, b" fourth");
    });
    assert_eq!(sim.take_received(peer), b"first second third fourth");
}

#[test]
fn what_a_task_commands_inside_of_a_command_comes_first() {
    let (mut sim, peer, id) = connected();
    sim.block_on(async move {
        Commands::with(|commands| {
            commands.send(id, b"outer".as_slice().into());
            send(id, b"inner ");
        });
    });
    assert_eq!(sim.take_received(peer), b"inner outer");
}

#[test]
fn what_a_task_has_commanded_before_it_panicked_is_carried_out() {
    let (mut sim, peer, id) = connected();
    sim.block_on(async move {
        let task = spawn_local(async move {
            Commands::with(|commands| {
                commands.send(id, b"so far".as_slice().into());
                panic!("in a command");
            });
        });
        assert!(task.await.unwrap_err().is_panic());
    });
    sim.run();
    assert_eq!(sim.take_received(peer), b"so far");
}

/// Polls a future in its callback, as a handler is.
struct Handling(ConnId);

impl Protocol for Handling {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        let (id, own) = (self.0, conn.id());
        let mut handler = Box::pin(async move {
            send(id, b"by a handler");
            assert_eq!((task::worker(), Handle::current().workers()), (0, 1));
            assert_eq!(task::state::<Cell<u32>>().get(), 7);
            send(own, b"to itself");
        });
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(Pin::new(&mut handler).poll(&mut cx), Poll::Ready(()));
        conn.send(b"answer, ");
        Flow::Continue
    }
}

#[test]
fn a_future_inside_of_a_callback_commands_too() {
    let (mut sim, peer, id) = connected();
    sim.state(|_worker| Cell::new(7_u32));
    let listener = sim.listen(move |_peer| Handling(id));
    let asking = sim.connect(listener);
    sim.send(asking, b"question");
    sim.run();
    assert_eq!(sim.take_received(peer), b"by a handler");
    assert_eq!(sim.take_received(asking), b"answer, to itself");
    assert_eq!(sim.stats().panics, 0);
}

#[test]
fn a_timer_of_a_task_is_cancelled_by_whom_it_is_told() {
    let mut sim = Sim::new(Options::default());
    let fired = Rc::new(Cell::new(0));
    let counted = Rc::clone(&fired);
    sim.block_on(async move {
        let count = Rc::clone(&counted);
        let kept =
            Commands::with(|commands| commands.every(SECOND, move |_local| count.set(count.get() + 1)));
        let count = Rc::clone(&counted);
        let other =
            Commands::with(|commands| commands.after(SECOND, move |_local| count.set(count.get() + 100)));
        sleep(SECOND / 2).await;
        assert!(Commands::with(|commands| commands.cancel(other)));
        sleep(SECOND * 2).await;
        Commands::with(|commands| {
            commands.after(Duration::ZERO, move |local| assert!(local.commands().cancel(kept)));
        });
    });
    sim.advance(SECOND * 10);
    assert_eq!((fired.get(), sim.stats().panics), (2, 0));
}

#[test]
fn what_the_last_task_of_a_drain_commands_is_carried_out() {
    let mut sim = Sim::new(Options::default().workers(2));
    sim.state(|_worker| Cell::new(false));
    let task = sim.handle().spawn_on(0, || async {
        task::stopping().await;
        Commands::with(|commands| commands.run_on(1, |local| local.state::<Cell<bool>>().set(true)));
    });
    sim.run();
    let done = sim.state_of::<Cell<bool>>(1);
    sim.begin_drain(SECOND);
    sim.run();
    assert!(task.is_finished() && sim.is_finished() && done.get());
}

#[test]
fn a_destructor_may_command_whenever_its_task_ends() {
    struct Last(ConnId);
    impl Drop for Last {
        fn drop(&mut self) {
            send(self.0, b"the end");
        }
    }
    let (mut sim, peer, id) = connected();
    sim.block_on(async move {
        for _ in 0..2 {
            let last = Last(id);
            let task = spawn_local(async move {
                let _last = last;
                std::future::pending::<()>().await;
            });
            yield_now().await;
            if task::worker() == 0 {
                task.abort();
            }
        }
        let last = Last(id);
        spawn_daemon(async move {
            let _last = last;
            std::future::pending::<()>().await;
        })
        .detach();
        yield_now().await;
    });
    assert_eq!(sim.take_received(peer), b"the endthe end");
    drop(sim);
}

#[test]
fn who_is_on_no_worker_is_told_so() {
    assert!(Handle::try_current().is_none());
    let text = |code: fn()| {
        let panic = catch_unwind(AssertUnwindSafe(code)).unwrap_err();
        *panic.downcast::<String>().unwrap()
    };
    assert!(text(|| drop(Handle::current())).contains("`Handle::current`"));
    assert!(text(|| Commands::with(|_commands| {})).contains("`Commands::with`"));
    assert!(text(|| _ = task::worker()).contains("`task::worker`"));
    assert!(text(|| drop(task::state::<u8>())).contains("`task::state`"));
}

#[test]
fn a_task_that_asks_for_state_that_is_not_there_is_told_how_to_make_it() {
    let mut sim = Sim::new(Options::default());
    let error = sim.block_on(async { spawn_local(async { drop(task::state::<u64>()) }).await.unwrap_err() });
    assert!(error.to_string().contains("Builder::state"), "{error}");
}

#[test]
fn tasks_of_a_real_worker_reach_it_as_well() {
    let workers = Runtime::block_on(async {
        Commands::with(|commands| assert_eq!(commands.worker(), Some(0)));
        let handle = Handle::current();
        handle.spawn_on(task::worker(), || async { Handle::try_current().unwrap().workers() }).await.unwrap()
    });
    assert_eq!(workers.unwrap(), 1);
}
