//! Tasks that are polled where the input of their stream arrives: what they read there, and how what they write leaves.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use netpoll_core::net::Stream;
use netpoll_core::sim::{ListenerId, Options, Sim};
use netpoll_core::task::yield_now;
use netpoll_core::time::sleep;
use netpoll_core::{Bytes, Conn, Flow, Input, Protocol};

use crate::chance::Chance;

fn noise(length: usize) -> Vec<u8> {
    let mut chance = Chance::new(length as u64);
    (0..length).map(|_| chance.below(256) as u8).collect()
}

fn listen<F, T>(sim: &mut Sim, serve: F) -> ListenerId
where
    F: Fn(Stream) -> T + Clone + 'static,
    T: Future<Output = ()> + 'static,
{
    sim.listen_tasks(move |stream, _peer| serve(stream))
}

/// Waits for input as a task does that is polled where it arrives.
async fn is_asked(stream: &mut Stream) -> bool {
    matches!(stream.read(&mut [0; 16]).await, Ok(1..))
}

#[test]
fn pieces_of_all_kinds_that_one_poll_writes_arrive_in_order() {
    let pieces: Rc<Vec<Vec<u8>>> =
        Rc::new([1, 5000, 1, 4096, 3000, 3000, 3000, 3000, 3000, 3000, 7, 70_000, 1].map(noise).into());
    let own = Rc::clone(&pieces);
    let mut sim = Sim::new(Options::default());
    let listener = listen(&mut sim, move |mut stream| {
        let pieces = Rc::clone(&own);
        async move {
            while is_asked(&mut stream).await {
                for (nth, piece) in pieces.iter().enumerate() {
                    let written = match nth % 2 {
                        0 => stream.write_all(piece).await,
                        _ => stream.send(Bytes::from(piece.clone())).await,
                    };
                    if written.is_err() {
                        return;
                    }
                }
            }
        }
    });
    let peer = sim.connect(listener);
    sim.run();
    for window in [1 << 20, 1 << 20, 1000] {
        sim.set_window(peer, window);
        sim.send(peer, b"?");
        sim.settle();
        assert!(sim.take_received(peer) == pieces.concat(), "with a window of {window}");
    }
}

#[test]
fn input_that_a_poll_has_left_is_read_later_in_whatever_way() {
    let (said, heard) = (noise(10_000), Rc::new(RefCell::new(Vec::new())));
    let own = Rc::clone(&heard);
    let mut sim = Sim::new(Options::default());
    let listener = listen(&mut sim, move |mut stream| {
        let heard = Rc::clone(&own);
        async move {
            let mut some = [0; 10];
            while let Ok(count @ 1..) = stream.read(&mut some).await {
                heard.borrow_mut().extend_from_slice(&some[..count]);
                let Ok(peeked) = stream.peek(&mut some).await else { return };
                let (peeked, next) = (some[..peeked].to_vec(), heard.borrow().len());
                let Ok(input) = stream.fill_buf().await else { return };
                assert!(input.starts_with(&peeked));
                let count = input.len().min(7);
                heard.borrow_mut().extend_from_slice(&input[..count]);
                stream.consume(count);
                yield_now().await;
                let mut more = [0; 33];
                if stream.read_exact(&mut more).await.is_err() {
                    break;
                }
                heard.borrow_mut().extend_from_slice(&more);
                assert!(heard.borrow()[next..].starts_with(&peeked));
                sleep(Duration::from_millis(1)).await;
            }
            let mut rest = Vec::new();
            assert!(stream.read_to_end(&mut rest, 100).await.is_ok());
            heard.borrow_mut().extend_from_slice(&rest);
        }
    });
    let peer = sim.connect(listener);
    sim.run();
    for (nth, piece) in said.chunks(777).enumerate() {
        sim.send(peer, piece);
        if nth % 3 == 0 {
            sim.advance(Duration::from_millis(2));
        }
    }
    sim.finish(peer);
    sim.advance(Duration::from_secs(1));
    assert!(*heard.borrow() == said);
}

#[test]
fn what_was_written_before_a_reset_or_a_panic_reaches_nobody() {
    let mut sim = Sim::new(Options::default());
    let listener = listen(&mut sim, async |mut stream| {
        let mut question = [0; 1];
        while let Ok(1) = stream.read(&mut question).await {
            match question[0] {
                b'r' => {
                    let _ = stream.write_all(b"secret").await;
                    return stream.reset();
                }
                b'p' => {
                    let _ = stream.write_all(b"secret").await;
                    panic!("in the middle of an answer");
                }
                _ => _ = stream.write_all(b"answer").await,
            }
        }
    });
    let peers = [(); 3].map(|()| sim.connect(listener));
    sim.run();
    for (peer, question) in peers.into_iter().zip([b"r", b"p", b"?"]) {
        sim.send(peer, question);
    }
    sim.settle();
    assert!(sim.is_reset(peers[0]) && sim.is_reset(peers[1]));
    assert_eq!(peers.map(|peer| sim.take_received(peer)), [&b""[..], b"", b"answer"]);
}

/// Notes that it was called.
struct Noting(Rc<RefCell<Vec<&'static str>>>);

impl Protocol for Noting {
    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        self.0.borrow_mut().push("callback");
        Flow::Continue
    }
}

#[test]
fn a_task_that_waits_for_input_has_its_turn_among_the_callbacks() {
    let notes = Rc::new(RefCell::new(Vec::new()));
    let mut sim = Sim::new(Options::default());
    let own = Rc::clone(&notes);
    let tasks = listen(&mut sim, move |mut stream| {
        let notes = Rc::clone(&own);
        async move {
            while is_asked(&mut stream).await {
                notes.borrow_mut().push("task");
            }
        }
    });
    let own = Rc::clone(&notes);
    let callbacks = sim.listen(move |_peer| Noting(Rc::clone(&own)));
    let peers = [tasks, callbacks, tasks].map(|listener| sim.connect(listener));
    sim.run();
    for peer in peers {
        sim.send(peer, b"!");
    }
    sim.run();
    assert_eq!(*notes.borrow(), ["task", "callback", "task"]);
}

thread_local! {
    static READS: RefCell<Option<Pin<Box<dyn Future<Output = ()>>>>> = const { RefCell::new(None) };
}

/// An executor of one future on its thread, which polls it where it is woken.
struct AtOnce;

impl Wake for AtOnce {
    fn wake(self: Arc<Self>) {
        let Some(mut reads) = READS.take() else { return };
        if reads.as_mut().poll(&mut Context::from_waker(&Waker::from(self))).is_pending() {
            READS.set(Some(reads));
        }
    }
}

#[test]
fn input_of_whatever_length_goes_on_to_a_future_that_is_polled_where_it_is_woken() {
    for length in [1000, 64 * 1024, 100_000] {
        let (heard, mut sim) = (Rc::new(RefCell::new(Vec::new())), Sim::new(Options::default()));
        let own = Rc::clone(&heard);
        let listener = listen(&mut sim, move |mut stream| {
            let heard = Rc::clone(&own);
            async move {
                let mut some = vec![0; length];
                READS.set(Some(Box::pin(async move {
                    while let Ok(count @ 1..) = stream.read(&mut some).await {
                        heard.borrow_mut().extend_from_slice(&some[..count]);
                    }
                })));
                Arc::new(AtOnce).wake();
            }
        });
        let (peer, said) = (sim.connect(listener), noise(length));
        for nth in 1..=5 {
            sim.send(peer, &said);
            sim.run();
            assert_eq!(heard.borrow().len(), nth * length, "in pieces of {length}");
        }
        assert!(*heard.borrow() == said.repeat(5));
        sim.close(peer);
        sim.run();
        assert!(READS.take().is_none(), "it has read the end");
    }
}
