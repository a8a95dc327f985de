//! Signals that tasks listen to. Those of the process come in processes of their own.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use netpoll_core::signal::{self, Signal, SignalKind};
use netpoll_core::sim::{Options, Sim};
use netpoll_core::task::{spawn_local, yield_now};
use netpoll_core::time::timeout;
use netpoll_core::{Runtime, StopSignal, Workers};

use crate::support::alone;

const PATIENCE: Duration = Duration::from_secs(60);
const MOMENT: Duration = Duration::from_millis(20);

/// Sends this process a signal.
fn raise(signal: libc::c_int) {
    #[expect(unsafe_code, reason = "kill(2) has no safe form")]
    // SAFETY: kill(2) and getpid(2) take no pointers.
    let sent = unsafe { libc::kill(std::process::id().cast_signed(), signal) };
    assert_eq!(sent, 0);
}

/// Gives a signal its usual action: a test that runs in the background of a shell begins with some ignored.
fn by_default(signal: libc::c_int) {
    set(signal, libc::SIG_DFL);
}

fn set(signal: libc::c_int, action: libc::sighandler_t) {
    #[expect(unsafe_code, reason = "signal(2) has no safe form")]
    // SAFETY: SIG_DFL and SIG_IGN are numbers.
    let before = unsafe { libc::signal(signal, action) };
    assert_ne!(before, libc::SIG_ERR);
}

async fn hears(signal: &mut Signal) -> bool {
    timeout(PATIENCE, signal.recv()).await.is_ok()
}

async fn hears_nothing(signal: &mut Signal) -> bool {
    timeout(MOMENT, signal.recv()).await.is_err()
}

#[test]
fn everybody_who_listens_hears_a_signal_and_none_is_lost_between_two_waits() {
    assert!(alone(module_path!(), "listens").success());
}

/// Run by `everybody_who_listens_hears_a_signal_and_none_is_lost_between_two_waits`.
#[test]
#[ignore = "needs a process of its own"]
fn listens() {
    let numbers = [
        libc::SIGINT,
        libc::SIGTERM,
        libc::SIGHUP,
        libc::SIGQUIT,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGCHLD,
    ];
    numbers.into_iter().for_each(by_default);
    Runtime::block_on(async move {
        for (number, kind) in numbers.into_iter().zip(SignalKind::ALL) {
            let mut all = [signal::on(kind).unwrap(), signal::on(kind).unwrap()];
            let mut third = signal::on(kind).unwrap();
            let waits = spawn_local(async move { hears(&mut third).await });
            yield_now().await;
            raise(number);
            for signal in &mut all {
                assert!(hears(signal).await, "{kind:?}");
            }
            assert!(waits.await.unwrap());
            // A wait that is given up takes nothing along, and one that comes meanwhile is there.
            assert!(hears_nothing(&mut all[0]).await, "one is heard once");
            raise(number);
            assert!(hears(&mut all[1]).await && hears(&mut all[0]).await);
            let mut late = signal::on(kind).unwrap();
            assert!(hears_nothing(&mut late).await, "what came before is not heard");
        }
    })
    .unwrap();
}

#[test]
fn a_signal_has_its_usual_action_again_when_nobody_listens_any_more() {
    assert_eq!(alone(module_path!(), "listens_no_more").signal(), Some(libc::SIGTERM));
}

/// Run by `a_signal_has_its_usual_action_again_when_nobody_listens_any_more`.
#[test]
#[ignore = "needs a process of its own"]
fn listens_no_more() {
    by_default(libc::SIGTERM);
    Runtime::block_on(async {
        let (mut one, other) = (signal::terminate().unwrap(), signal::terminate().unwrap());
        drop(other);
        raise(libc::SIGTERM);
        assert!(hears(&mut one).await);
        drop(one);
        let mut again = signal::terminate().unwrap();
        raise(libc::SIGTERM);
        assert!(hears(&mut again).await);
    })
    .unwrap();
    raise(libc::SIGTERM);
}

#[test]
fn a_signal_that_was_ignored_before_stays_ignored() {
    assert!(alone(module_path!(), "ignores").success());
}

/// Run by `a_signal_that_was_ignored_before_stays_ignored`.
#[test]
#[ignore = "needs a process of its own"]
fn ignores() {
    set(libc::SIGHUP, libc::SIG_IGN);
    Runtime::block_on(async {
        let mut hangups = signal::hangup().unwrap();
        raise(libc::SIGHUP);
        assert!(hears_nothing(&mut hangups).await);
        drop(hangups);
        raise(libc::SIGHUP);
    })
    .unwrap();
}

#[test]
fn a_signal_that_stops_the_runtime_does_so_and_is_heard_and_the_second_kills() {
    assert_eq!(alone(module_path!(), "stops_and_listens").signal(), Some(libc::SIGINT));
}

/// Run by `a_signal_that_stops_the_runtime_does_so_and_is_heard_and_the_second_kills`.
#[test]
#[ignore = "needs a process of its own"]
fn stops_and_listens() {
    [libc::SIGINT, libc::SIGHUP].into_iter().for_each(by_default);
    let runtime = Runtime::builder().workers(Workers::Count(1)).stop_on_signals(true);
    let runtime = runtime.stop_signals([StopSignal::Interrupt]).start().unwrap();
    let heard = runtime.handle().spawn_on(0, || async {
        let (mut stops, mut reloads) = (signal::ctrl_c().unwrap(), signal::hangup().unwrap());
        for _ in 0..3 {
            raise(libc::SIGHUP);
            assert!(hears(&mut reloads).await, "it does not stop, however often it comes");
        }
        assert!(!netpoll_core::task::stopping().now_or_never());
        raise(libc::SIGINT);
        netpoll_core::task::stopping().await;
        hears(&mut stops).await
    });
    runtime.wait().unwrap();
    assert!(heard.join().unwrap());

    by_default(libc::SIGINT);
    let runtime = Runtime::builder().workers(Workers::Count(1)).stop_on_signals(true).start().unwrap();
    let mut listens = signal::ctrl_c().unwrap();
    raise(libc::SIGINT);
    // On this thread as well: it is only a future. Two that are under way at once would be one.
    futures::executor::block_on(listens.recv());
    raise(libc::SIGINT);
    futures::executor::block_on(listens.recv());
    drop(runtime);
}

/// Whether a future is done.
trait NowOrNever {
    fn now_or_never(self) -> bool;
}

impl<F: Future> NowOrNever for F {
    fn now_or_never(self) -> bool {
        futures::FutureExt::now_or_never(self).is_some()
    }
}

#[test]
fn a_world_has_signals_of_its_own() {
    let mut sim = Sim::new(Options::default().workers(2));
    let heard = [0, 1].map(|worker| {
        sim.handle().spawn_on(worker, || async {
            let mut signals = signal::on(SignalKind::User1).unwrap();
            signals.recv().await;
            signals.recv().await;
            signals.kind()
        })
    });
    sim.run();
    for wanted in [false, true] {
        sim.signal(SignalKind::User2);
        sim.signal(SignalKind::User1);
        sim.run();
        assert!(heard.iter().all(|heard| heard.is_finished() == wanted));
    }
    assert!(heard.into_iter().all(|heard| heard.join().unwrap() == SignalKind::User1));
}
