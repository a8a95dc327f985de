//! What may go to another thread, and what stays on its worker: checked when this is compiled.

use std::rc::Rc;
use std::time::Duration;

use netpoll_core::bridge::SendWrapper;
use netpoll_core::net::{
    AsyncFd, Listener, OwnedReadHalf, OwnedSocket, OwnedWriteHalf, Stream, UdpSocket, UnixDatagram,
};
use netpoll_core::sync::{Notify, Semaphore, mpsc, oneshot, shared, watch};
use netpoll_core::task::{JoinError, JoinHandle, RemoteHandle, Scope, Stopping, Yield};
use netpoll_core::time::{Elapsed, Interval, Sleep, Timeout};
use netpoll_core::{Address, Commands, ConnId, Handle, Lost, blocking, signal};

/// Does not compile for a type that is `Send`: then both implementations fit.
macro_rules! stays {
    ($($kind:ty),* $(,)?) => {$({
        trait Ambiguous<A> {
            fn check() {}
        }
        impl<T: ?Sized> Ambiguous<()> for T {}
        struct Sends;
        impl<T: ?Sized + Send> Ambiguous<Sends> for T {}
        <$kind as Ambiguous<_>>::check();
    })*};
}

fn sends<T: Send>() {}

fn is_shared<T: Send + Sync>() {}

#[test]
fn what_belongs_to_a_worker_stays_there() {
    stays!(
        Stream,
        OwnedReadHalf,
        OwnedWriteHalf,
        Listener,
        UdpSocket,
        UnixDatagram,
        AsyncFd<std::fs::File>,
        JoinHandle<()>,
        Scope<()>,
        Stopping,
        mpsc::Sender<u8>,
        mpsc::Receiver<u8>,
        oneshot::Sender<u8>,
        oneshot::Receiver<u8>,
        watch::Sender<u8>,
        watch::Receiver<u8>,
        Notify,
        Semaphore,
        Commands,
        Timeout<std::future::Ready<Rc<u8>>>,
    );
}

#[test]
fn what_crosses_threads_may() {
    is_shared::<Sleep>();
    is_shared::<Interval>();
    is_shared::<Elapsed>();
    is_shared::<JoinError>();
    is_shared::<Handle>();
    is_shared::<ConnId>();
    is_shared::<Address>();
    is_shared::<Yield>();
    sends::<Lost>();
    sends::<Timeout<std::future::Ready<u8>>>();
    sends::<RemoteHandle<u8>>();
    sends::<blocking::JoinHandle<u8>>();
    sends::<blocking::Permit>();
    sends::<shared::mpsc::Sender<u8>>();
    sends::<shared::mpsc::Receiver<u8>>();
    sends::<shared::oneshot::Sender<u8>>();
    sends::<shared::oneshot::Receiver<u8>>();
    sends::<OwnedSocket>();
    sends::<signal::Signal>();
    // A stream stays where it is, but what demands `Send` may have it in this.
    is_shared::<SendWrapper<Stream>>();
    // Futures of what may cross do as well.
    let sleeps = async {
        netpoll_core::time::sleep(Duration::ZERO).await;
    };
    fn future_sends<T: Send>(_future: T) {}
    future_sends(sleeps);
}
