//! One value, on one thread and between threads.

use std::task::Poll;

use netpoll_core::sync::{Closed, SendError, TryError, oneshot, shared};

use crate::support::{Poller, poll};

macro_rules! oneshots {
    ($module:ident, $channel:path) => {
        mod $module {
            use $channel as channel;

            use super::*;

            #[test]
            fn the_value_wakes_the_receiver() {
                let (sender, mut receiver) = channel();
                let poller = Poller::new();
                assert!(poller.poll(&mut receiver).is_pending());
                sender.send(7).unwrap();
                assert_eq!((poller.wakes(), poller.kept()), (1, 0));
                assert_eq!(poller.poll(&mut receiver), Poll::Ready(Ok(7)));
                assert_eq!(poller.poll(&mut receiver), Poll::Ready(Err(Closed)), "it was taken");
            }

            #[test]
            fn a_sender_that_is_dropped_wakes_the_receiver() {
                let (sender, mut receiver) = channel::<u8>();
                let poller = Poller::new();
                assert!(poller.poll(&mut receiver).is_pending());
                assert_eq!(receiver.try_recv(), Err(TryError::NotNow));
                drop(sender);
                assert_eq!(poller.wakes(), 1);
                assert_eq!(poller.poll(&mut receiver), Poll::Ready(Err(Closed)));
                assert_eq!(receiver.try_recv(), Err(TryError::Closed));
            }

            #[test]
            fn a_value_for_nobody_comes_back() {
                let (sender, receiver) = channel();
                drop(receiver);
                assert!(sender.is_closed());
                assert_eq!(sender.send(7), Err(SendError(7)));
            }

            #[test]
            fn a_value_that_was_sent_before_the_close_can_be_taken_out() {
                let (sender, mut receiver) = channel();
                sender.send(7).unwrap();
                receiver.close();
                assert_eq!(receiver.try_recv(), Ok(7));
                let (sender, mut receiver) = channel();
                receiver.close();
                assert_eq!(sender.send(7), Err(SendError(7)));
                assert_eq!(poll(&mut receiver), Poll::Ready(Err(Closed)));
            }

            #[test]
            fn the_sender_hears_that_nobody_waits_any_more() {
                let (mut sender, receiver) = channel::<u8>();
                let poller = Poller::new();
                assert!(sender.poll_closed(&mut poller.context()).is_pending());
                drop(receiver);
                assert_eq!(poller.wakes(), 1);
                assert!(poll(&mut Box::pin(sender.closed())).is_ready());
            }

            #[test]
            fn a_wait_that_is_dropped_loses_no_value() {
                let (sender, mut receiver) = channel();
                assert!(poll(&mut &mut receiver).is_pending());
                sender.send(7).unwrap();
                assert_eq!(receiver.try_recv(), Ok(7));
            }
        }
    };
}

oneshots!(local, oneshot::channel);
oneshots!(between_threads, shared::oneshot::channel);

#[test]
fn a_thread_waits_for_the_answer_of_another() {
    let (sender, receiver) = shared::oneshot::channel();
    let thread = std::thread::spawn(move || sender.send("answer").unwrap());
    assert_eq!(receiver.blocking_recv(), Ok("answer"));
    thread.join().unwrap();
    let (sender, receiver) = shared::oneshot::channel::<u8>();
    let thread = std::thread::spawn(move || drop(sender));
    assert_eq!(receiver.blocking_recv(), Err(Closed));
    thread.join().unwrap();
}
