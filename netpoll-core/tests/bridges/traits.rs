//! `tokio::io` and `futures_io`: the same tests of both.

use std::cell::Cell;
use std::io::{IoSlice, Read};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use netpoll_core::bridge::SendWrapper;
use netpoll_core::net::Stream;
use netpoll_core::sim::{Options, Sim};
use netpoll_core::time::timeout;
use netpoll_core::{Runtime, Workers};

use crate::conversation::Step::{Finishes, Hears, HearsTheEnd, Says};
use crate::conversation::{Serving, converse};

const MILLISECOND: Duration = Duration::from_millis(1);

/// More than socket buffers, queues and limits hold together.
const FLOOD_BYTES: usize = 32 << 20;

/// Counts what was written.
trait Count: 'static {
    fn add(&self, bytes: usize);
}

impl Count for Rc<Cell<usize>> {
    fn add(&self, bytes: usize) {
        self.set(self.get() + bytes);
    }
}

impl Count for Arc<AtomicUsize> {
    fn add(&self, bytes: usize) {
        self.fetch_add(bytes, Ordering::Relaxed);
    }
}

macro_rules! tests_of {
    ($name:ident, $close:ident, $copy:path, $($import:tt)*) => {
        mod $name {
            use $($import)*;

            use super::*;

            async fn echo(mut reader: impl AsyncRead + Unpin, mut writer: impl AsyncWrite + Unpin) {
                let mut buffer = [0; 7];
                while let Ok(count @ 1..) = reader.read(&mut buffer).await {
                    writer.write_all(&buffer[..count]).await.unwrap();
                    writer.flush().await.unwrap();
                }
                writer.write_all(b"the end").await.unwrap();
                writer.$close().await.unwrap();
                assert!(writer.write_all(b"too late").await.is_err());
            }

            fn echo_by_halves(stream: Stream) -> Serving {
                let (reader, writer) = stream.into_split();
                Box::pin(echo(reader, writer))
            }

            fn echo_by_borrowed_halves(mut stream: Stream) -> Serving {
                Box::pin(async move {
                    let (reader, writer) = Stream::split(&mut stream);
                    echo(reader, writer).await;
                })
            }

            #[test]
            fn what_was_written_and_flushed_arrives_though_the_stream_is_dropped_at_once() {
                for seed in 0..10 {
                    for length in [1, 5000, 70_000, 1 << 20] {
                        let mut sim = Sim::new(Options::default().seed(seed).window(20_000));
                        let all: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
                        let (accepted, dialed) = (all.clone(), all.clone());
                        let listener = sim.listen_tasks(move |mut stream, _peer| {
                            let all = accepted.clone();
                            async move {
                                AsyncWriteExt::write_all(&mut stream, &all).await.unwrap();
                                assert!(AsyncWriteExt::flush(&mut stream).now_or_never().is_some());
                            }
                        });
                        let peer = sim.connect(listener);
                        sim.settle();
                        assert!(sim.take_received(peer) == all, "{length} bytes, seed {seed}");
                        sim.block_on(async move {
                            let mut stream = Stream::connect("10.0.0.1:7").await.unwrap();
                            AsyncWriteExt::write_all(&mut stream, &dialed).await.unwrap();
                            assert!(AsyncWriteExt::flush(&mut stream).now_or_never().is_some());
                        });
                        let (peer, _) = sim.take_dialed().pop().unwrap();
                        sim.settle();
                        assert!(sim.take_received(peer) == all, "{length} bytes, seed {seed}, dialed");
                        assert!(!sim.is_reset(peer));
                    }
                }
            }

            #[test]
            fn what_was_written_leaves_while_its_task_waits_for_something_else() {
                let mut sim = Sim::new(Options::default());
                let listener = sim.listen_tasks(|mut stream, _peer| async move {
                    AsyncWriteExt::write_all(&mut stream, b"hello").await.unwrap();
                    std::future::pending::<()>().await;
                });
                let peer = sim.connect(listener);
                sim.settle();
                assert_eq!(sim.take_received(peer), b"hello");
            }

            #[test]
            fn what_arrives_in_pieces_is_read_and_ends_with_the_peers_direction() {
                let steps = [
                    Says(b"hello, "),
                    Hears(b"hello, "),
                    Says(b"and this is long enough for several reads"),
                    Finishes,
                    Hears(b"and this is long enough for several readsthe end"),
                    HearsTheEnd,
                ];
                converse(echo_by_halves, &steps);
                converse(echo_by_borrowed_halves, &steps);
            }

            fn lengths_of_lines(stream: Stream) -> Serving {
                async fn serve(mut stream: impl AsyncBufRead + AsyncWrite + Unpin) {
                    loop {
                        let mut line = String::new();
                        match stream.read_line(&mut line).await.unwrap() {
                            0 => return stream.$close().await.unwrap(),
                            length => stream.write_all(format!("{length}\n").as_bytes()).await.unwrap(),
                        }
                    }
                }
                Box::pin(serve(stream))
            }

            fn lengths_of_lines_wrapped(stream: Stream) -> Serving {
                async fn serve(mut stream: impl AsyncBufRead + AsyncWrite + Unpin + Send) {
                    let mut line = String::new();
                    while stream.read_line(&mut line).await.unwrap() > 0 {
                        stream.write_all(format!("{}\n", line.len()).as_bytes()).await.unwrap();
                        line.clear();
                    }
                    stream.flush().await.unwrap();
                    stream.$close().await.unwrap();
                }
                Box::pin(serve(SendWrapper::new(stream)))
            }

            #[test]
            fn lines_are_read_where_they_lie() {
                let long = format!("{}\n", "x".repeat(3000));
                let steps = [
                    Says(b"a\nbc"),
                    Hears(b"2\n"),
                    Says(b"d\n\n"),
                    Hears(b"4\n1\n"),
                    Says(long.as_bytes()),
                    Says(b"last"),
                    Finishes,
                    Hears(b"3001\n4\n"),
                    HearsTheEnd,
                ];
                converse(lengths_of_lines, &steps);
                converse(lengths_of_lines_wrapped, &steps);
            }

            /// Writes the same slices again and again, as far as they are taken.
            async fn write_slices(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
                // Whether something is there or not.
                let nothing = stream.read(&mut []).now_or_never();
                assert_eq!(nothing.expect("it does not wait").unwrap(), 0);
                while let Ok(1..) = stream.read(&mut [0]).await {
                    let (head, body) = (*b"head,", vec![b'x'; 70_000]);
                    let slices = [IoSlice::new(&head), IoSlice::new(b""), IoSlice::new(&body)];
                    let count = stream.write_vectored(&slices).await.unwrap();
                    stream.write_all(&body[count - head.len()..]).await.unwrap();
                }
            }

            #[test]
            fn slices_are_written_in_order_up_to_64_kib_at_once() {
                let wanted = format!("head,{}", "x".repeat(70_000));
                let steps = [Says(b"1"), Hears(wanted.as_bytes()), Says(b"2"), Hears(wanted.as_bytes()), Finishes, HearsTheEnd];
                converse(|stream| Box::pin(write_slices(stream)), &steps);
                converse(|stream| Box::pin(write_slices(SendWrapper::new(stream))), &steps);
            }

            /// Every read and write is given up again and again, before it has read or written anything.
            async fn echo_impatiently(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
                let mut buffer = [0; 500];
                loop {
                    let Ok(read) = timeout(MILLISECOND, stream.read(&mut buffer)).await else { continue };
                    let Ok(count @ 1..) = read else { return };
                    let mut left = &buffer[..count];
                    while !left.is_empty() {
                        if let Ok(written) = timeout(MILLISECOND, stream.write(left)).await {
                            left = &left[written.unwrap()..];
                        }
                    }
                }
            }

            #[test]
            fn what_is_given_up_has_read_and_written_nothing() {
                let said: Vec<u8> = (0..30_000_u32).map(|number| b'a' + (number % 23) as u8).collect();
                let (one, other) = said.split_at(20_000);
                let steps = [Says(one), Hears(&one[..10]), Says(other), Finishes, Hears(&said[10..]), HearsTheEnd];
                converse(|stream| Box::pin(echo_impatiently(stream)), &steps);
            }

            async fn flood(mut stream: impl AsyncWrite + Unpin, count: impl Count) {
                let piece = vec![b'x'; 10_000];
                let mut left = FLOOD_BYTES;
                while left > 0 {
                    let written = stream.write(&piece[..left.min(piece.len())]).await.unwrap();
                    count.add(written);
                    left -= written;
                }
                stream.$close().await.unwrap();
            }

            #[test]
            fn a_peer_that_does_not_read_holds_its_writer_back() {
                let count = Rc::new(Cell::new(0));
                let mut sim = Sim::new(Options::default());
                let counted = Rc::clone(&count);
                let listener = sim.listen_tasks(move |stream, _peer| flood(stream, Rc::clone(&counted)));
                let peer = sim.connect(listener);
                sim.stop_reading(peer);
                sim.settle();
                assert!((1..1 << 20).contains(&count.get()), "{}", count.get());
                sim.start_reading(peer);
                sim.settle();
                assert_eq!((sim.take_received(peer).len(), count.get()), (FLOOD_BYTES, FLOOD_BYTES));
                assert!(sim.is_closed(peer));
            }

            #[test]
            fn a_peer_that_does_not_read_holds_its_writer_back_over_tcp() {
                let count = Arc::new(AtomicUsize::new(0));
                let counted = Arc::clone(&count);
                let builder = Runtime::builder().workers(Workers::Count(1)).pin(false);
                let server = builder
                    .listen_tasks("127.0.0.1:0", move |stream, _peer| flood(stream, Arc::clone(&counted)))
                    .unwrap()
                    .start()
                    .unwrap();
                let mut peer = TcpStream::connect(server.local_addrs()[0].as_socket_addr().unwrap()).unwrap();
                peer.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
                // As soon as something is there the writer is at work; what it gets done without a reader is less than all.
                peer.read_exact(&mut [0; 1]).unwrap();
                let mut read = 1;
                let mut buffer = vec![0; 1 << 16];
                loop {
                    let ahead = count.load(Ordering::Relaxed).saturating_sub(read);
                    assert!(ahead < FLOOD_BYTES / 2, "{ahead} bytes ahead");
                    match peer.read(&mut buffer).unwrap() {
                        0 => break,
                        more => read += more,
                    }
                }
                assert_eq!(read, FLOOD_BYTES);
                server.stop(Duration::from_secs(60)).unwrap();
            }

            #[test]
            fn a_reset_is_an_error_behind_what_had_arrived() {
                let mut sim = Sim::new(Options::default());
                let seen = Rc::new(Cell::new(None));
                let place = Rc::clone(&seen);
                async fn read_all(mut stream: impl AsyncRead + Unpin) -> (usize, Option<std::io::ErrorKind>) {
                    let mut all = Vec::new();
                    let outcome = stream.read_to_end(&mut all).await;
                    (all.len(), outcome.err().map(|error| error.kind()))
                }
                let listener = sim.listen_tasks(move |stream, _peer| {
                    let place = Rc::clone(&place);
                    async move { place.set(Some(read_all(stream).await)) }
                });
                let peer = sim.connect(listener);
                sim.send(peer, b"12345");
                sim.settle();
                sim.reset(peer);
                sim.settle();
                assert_eq!(seen.get(), Some((5, Some(std::io::ErrorKind::ConnectionReset))));
            }

            #[test]
            fn what_is_copied_by_the_crate_arrives_whole() {
                let bytes = Runtime::block_on(async {
                    let (one, mut other) = Stream::pair().unwrap();
                    let (mut from, mut to) = Stream::pair().unwrap();
                    let copied = netpoll_core::task::spawn_local(async move { $copy(one, &mut to).await.unwrap() });
                    other.write_all(&[7; 200_000]).await.unwrap();
                    other.shutdown();
                    let mut all = Vec::new();
                    from.read_to_end(&mut all, usize::MAX).await.unwrap();
                    (all.len() as u64, copied.await.unwrap())
                });
                assert_eq!(bytes.unwrap(), (200_000, 200_000));
            }
        }
    };
}

async fn copy_tokio(from: impl tokio::io::AsyncRead + Unpin, to: &mut Stream) -> std::io::Result<u64> {
    let mut from = from;
    let copied = tokio::io::copy(&mut from, to).await?;
    tokio::io::AsyncWriteExt::shutdown(to).await?;
    Ok(copied)
}

async fn copy_futures(from: impl futures::AsyncRead, to: &mut Stream) -> std::io::Result<u64> {
    let copied = futures::io::copy(from, to).await?;
    futures::AsyncWriteExt::close(to).await?;
    Ok(copied)
}

tests_of!(
    tokio_io,
    shutdown,
    copy_tokio,
    tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt}
);
tests_of!(
    futures_io,
    close,
    copy_futures,
    futures::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt}
);
