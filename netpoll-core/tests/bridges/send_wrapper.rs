//! What is bound to its worker is used there and dropped there, and nowhere else.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::mpsc;
use std::task::{Context, Waker};
use std::thread::{self, ThreadId};
use std::time::Duration;

use netpoll_core::bridge::{HyperExecutor, HyperTimer, SendWrapper};
use netpoll_core::sim::{Options, Sim};
use netpoll_core::task::{spawn_local, yield_now};
use netpoll_core::time::timeout;
use netpoll_core::{Runtime, Workers};

const PATIENCE: Duration = Duration::from_secs(60);

/// Says where it was dropped.
#[derive(Debug)]
struct Last(mpsc::Sender<ThreadId>);

impl Drop for Last {
    fn drop(&mut self) {
        // Whoever does not listen any more does not want to know.
        let _ = self.0.send(thread::current().id());
    }
}

fn said(panicked: Result<(), Box<dyn std::any::Any + Send>>) -> String {
    let payload = panicked.expect_err("no panic");
    payload.downcast_ref::<&str>().map(|text| (*text).to_owned()).expect("a sentence")
}

#[test]
fn it_is_send_and_sync_whatever_is_in_it() {
    fn check<T: Send + Sync + Unpin + 'static>() {}
    check::<SendWrapper<Rc<RefCell<u8>>>>();
    check::<SendWrapper<netpoll_core::net::Stream>>();
    check::<SendWrapper<*const u8>>();
    check::<HyperTimer>();
    check::<HyperExecutor>();
}

#[test]
fn at_home_it_is_what_is_in_it() {
    let mut sim = Sim::new(Options::default());
    let text = sim.block_on(async {
        let mut wrapper = SendWrapper::new(Rc::new(RefCell::new(1)));
        *wrapper.borrow_mut() += 1;
        let other = wrapper.clone();
        assert!(Rc::ptr_eq(&wrapper, &other) && wrapper.is_here());
        *wrapper = Rc::new(RefCell::new(7));
        let future = SendWrapper::pin(async move {
            yield_now().await;
            *other.borrow()
        });
        let waited = spawn_local(future).await.unwrap();
        format!("{wrapper:?} {waited} {}", wrapper.clone().into_inner().borrow())
    });
    assert_eq!(text, "SendWrapper(RefCell { value: 7 }) 2 7");
}

#[test]
fn it_is_made_on_a_worker() {
    let panicked = catch_unwind(|| drop(SendWrapper::new(1)));
    let text = panicked.expect_err("no panic").downcast::<String>().unwrap();
    assert!(text.contains("`SendWrapper::new` was called on a thread that is no worker"), "{text}");
}

#[test]
fn on_another_thread_every_use_panics_and_uses_nothing() {
    let outcome = Runtime::block_on(async {
        let (sender, dropped) = mpsc::channel();
        let here = thread::current().id();
        let make = || SendWrapper::new(Rc::new(Last(sender.clone())));
        let wrappers = [make(), make(), make(), make()];
        let future = SendWrapper::pin(async { unreachable!("it is not polled elsewhere") });
        let texts = thread::spawn(move || {
            let [shared, mut changed, taken, cloned] = wrappers;
            assert_eq!(
                (shared.is_here(), format!("{shared:?}")),
                (false, "SendWrapper(elsewhere)".to_owned())
            );
            let uses: [Box<dyn FnOnce()>; 5] = [
                Box::new(move || assert_eq!(Rc::strong_count(&shared), 0)),
                Box::new(move || assert!(Rc::get_mut(&mut changed).is_none())),
                Box::new(move || drop(taken.into_inner())),
                Box::new(move || drop(cloned.clone())),
                Box::new(move || {
                    let _: std::task::Poll<()> = pin!(future).poll(&mut Context::from_waker(Waker::noop()));
                }),
            ];
            uses.map(|each| said(catch_unwind(AssertUnwindSafe(each))))
        });
        let texts = texts.join().unwrap();
        assert!(texts.iter().all(|text| text.starts_with("a `SendWrapper` was used elsewhere")), "{texts:?}");
        // All of them come home, to be dropped here.
        let mut home = Vec::new();
        let come_home = async {
            while home.len() < 4 {
                home.extend(dropped.try_iter());
                yield_now().await;
            }
        };
        timeout(PATIENCE, come_home).await.expect("one did not");
        assert_eq!(home, [here; 4]);
    });
    outcome.unwrap();
}

#[test]
fn dropped_on_another_thread_it_goes_home_and_is_dropped_there() {
    let (sender, dropped) = mpsc::channel();
    let (give, given) = mpsc::channel();
    let builder = Runtime::builder().workers(Workers::Count(2)).pin(false);
    let running = builder.start().unwrap();
    let worker = running.handle().spawn_on(1, move || async move {
        let last = SendWrapper::new(Rc::new(Last(sender)));
        give.send(last).unwrap();
        thread::current().id()
    });
    let worker = worker.join().unwrap();
    let last = given.recv_timeout(PATIENCE).unwrap();
    assert!(!last.is_here());
    drop(last);
    assert_eq!(dropped.recv_timeout(PATIENCE).unwrap(), worker, "not {:?}", thread::current().id());
    running.stop(PATIENCE).unwrap();
}

#[test]
fn dropped_behind_the_end_of_its_worker_it_is_leaked() {
    let (sender, dropped) = mpsc::channel();
    let (give, given) = mpsc::channel();
    let running = Runtime::builder().workers(Workers::Count(1)).pin(false).start().unwrap();
    let made = running.handle().spawn_on(0, move || async move {
        give.send(SendWrapper::new(Last(sender))).unwrap();
    });
    made.join().unwrap();
    running.stop(PATIENCE).unwrap();
    drop(given.recv_timeout(PATIENCE).unwrap());
    assert!(dropped.recv_timeout(Duration::ZERO).is_err(), "no thread may touch it");
}

#[test]
fn a_destructor_that_panics_at_home_is_counted() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("as the test wants it");
        }
    }
    let running = Runtime::builder().workers(Workers::Count(1)).pin(false).start().unwrap();
    let made = running.handle().spawn_on(0, || async { SendWrapper::new(Panics) });
    drop(made.join().unwrap());
    assert_eq!(running.stop(PATIENCE).unwrap().stats.panics, 1);
}

/// Workers of a simulation share a thread: the thread alone would not tell.
#[test]
fn another_worker_of_the_same_thread_is_elsewhere() {
    let mut sim = Sim::new(Options::default().workers(2));
    let made = sim.handle().spawn_on(1, || async { SendWrapper::new(Rc::new(7)) });
    sim.run();
    let wrapper = made.join().unwrap();
    assert!(!wrapper.is_here(), "between the turns this thread is no worker");
    let counted = sim.handle().spawn_on(1, || async { thread::current().id() });
    sim.run();
    assert_eq!(counted.join().unwrap(), thread::current().id());

    let used = sim.handle().spawn_on(0, move || async move {
        let is_here = wrapper.is_here();
        let text = said(catch_unwind(AssertUnwindSafe(|| assert_eq!(Rc::strong_count(&wrapper), 0))));
        (is_here, text, wrapper)
    });
    sim.run();
    let (is_here, text, wrapper) = used.join().unwrap();
    assert!(!is_here && text.starts_with("a `SendWrapper` was used elsewhere"), "{text}");

    let used = sim.handle().spawn_on(1, move || async move { **wrapper });
    sim.run();
    assert_eq!(used.join().unwrap(), 7);
}

#[test]
fn dropped_by_another_worker_of_its_thread_it_finds_its_own() {
    thread_local! {
        static SPAWNED: Cell<bool> = const { Cell::new(false) };
    }
    /// Starts a task, where it is dropped.
    struct Spawns;
    impl Drop for Spawns {
        fn drop(&mut self) {
            let _goes_on = spawn_local(async { SPAWNED.set(true) });
        }
    }
    let mut sim = Sim::new(Options::default().workers(2));
    let made = sim.handle().spawn_on(1, || async { SendWrapper::new(Spawns) });
    sim.run();
    // On no worker at all.
    drop(made.join().unwrap());
    sim.run();
    assert!(SPAWNED.replace(false));

    let made = sim.handle().spawn_on(1, || async { SendWrapper::new(Spawns) });
    sim.run();
    let wrapper = made.join().unwrap();
    let dropped = sim.handle().spawn_on(0, move || async move { drop(wrapper) });
    sim.run();
    dropped.join().unwrap();
    assert!(SPAWNED.get());
}
