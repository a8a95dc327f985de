//! What may go to another thread, and what may not, is decided by the compiler, and as documented.

use std::rc::Rc;

use netpoll_core::sync::{self, mpsc, oneshot, shared, watch};

/// Fails to compile if a type is `Send`: then two implementations fit.
macro_rules! stays {
    ($($type:ty),* $(,)?) => {$({
        trait Either<Which> {
            fn is_not_send() {}
        }
        struct Sendable;
        impl<T: ?Sized> Either<()> for T {}
        impl<T: ?Sized + Send> Either<Sendable> for T {}
        <$type as Either<_>>::is_not_send();
    })*};
}

fn travels<T: Send>() {}

#[test]
fn what_is_of_one_thread_stays_there() {
    stays! {
        mpsc::Sender<u8>, mpsc::Receiver<u8>, mpsc::Sending<'_, u8>, mpsc::Reserving<'_, u8>,
        mpsc::Receiving<'_, u8>, mpsc::Permit<'_, u8>,
        oneshot::Sender<u8>, oneshot::Receiver<u8>,
        watch::Sender<u8>, watch::Receiver<u8>, watch::Changed<'_, u8>,
        sync::Notify, sync::Notified, sync::Semaphore, sync::Acquiring, sync::SemaphorePermit,
    }
}

#[test]
fn what_is_between_threads_travels_if_its_values_do() {
    travels::<shared::mpsc::Sender<u8>>();
    travels::<&shared::mpsc::Sender<u8>>();
    travels::<shared::mpsc::Receiver<u8>>();
    travels::<shared::mpsc::Sending<'_, u8>>();
    travels::<shared::mpsc::Reserving<'_, u8>>();
    travels::<shared::mpsc::Receiving<'_, u8>>();
    travels::<shared::mpsc::Permit<'_, u8>>();
    travels::<shared::oneshot::Sender<u8>>();
    travels::<shared::oneshot::Receiver<u8>>();
    stays! {
        shared::mpsc::Sender<Rc<u8>>, shared::mpsc::Receiver<Rc<u8>>, shared::mpsc::Sending<'_, Rc<u8>>,
        shared::oneshot::Sender<Rc<u8>>, shared::oneshot::Receiver<Rc<u8>>,
    }
}

#[test]
fn the_futures_of_async_functions_travel_too() {
    fn check(_: impl Send) {}
    let (sender, mut receiver) = shared::mpsc::channel::<u8>(1);
    check(sender.closed());
    check(receiver.recv_many(&mut Vec::new(), 1));
    let (mut sender, _receiver) = shared::oneshot::channel::<u8>();
    check(sender.closed());
}
