//! The runtime of hyper: `hyper::rt`.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant as StdInstant};

use hyper::body::{Body, Frame, SizeHint};
use hyper::rt::{Executor, Read, ReadBufCursor, Sleep as HyperSleep, Timer, Write};

use super::{SendWrapper, on_each};
use crate::net::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, Stream, WriteHalf};
use crate::task;
use crate::time::{Sleep, sleep, sleep_until};

macro_rules! read {
    ($kind:ty) => {
        impl Read for $kind {
            #[inline]
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                mut into: ReadBufCursor<'_>,
            ) -> Poll<io::Result<()>> {
                let room = into.remaining();
                self.get_mut().poll_copy(cx, room, |bytes| into.put_slice(bytes)).map_ok(drop)
            }
        }
    };
}

macro_rules! write {
    ($kind:ty) => {
        impl Write for $kind {
            #[inline]
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                self.get_mut().poll_write(cx, bytes)
            }

            fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }

            fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.get_mut().shutdown();
                Poll::Ready(Ok(()))
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            #[inline]
            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                slices: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                self.get_mut().poll_write_vectored(cx, slices)
            }
        }
    };
}

on_each!(read: Stream, OwnedReadHalf, ReadHalf<'_>);
on_each!(write: Stream, OwnedWriteHalf, WriteHalf<'_>);

impl<T: Read + Unpin> Read for SendWrapper<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut **self).poll_read(cx, into)
    }
}

impl<T: Write + Unpin> Write for SendWrapper<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut **self).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut **self).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut **self).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        (**self).is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut **self).poll_write_vectored(cx, slices)
    }
}

/// A body that is not [`Send`], where one is demanded.
impl<B: Body + Unpin> Body for SendWrapper<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut **self).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        (**self).is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        (**self).size_hint()
    }
}

impl HyperSleep for Sleep {}

/// The timers of hyper are sleeps of the worker: what `header_read_timeout`, `keep_alive_interval` and their like need.
///
/// In a [simulation](crate::sim) they wait for its time.
///
/// ```
/// use std::time::Duration;
///
/// use hyper::server::conn::http1;
/// use netpoll_core::bridge::HyperTimer;
///
/// let mut builder = http1::Builder::new();
/// builder.timer(HyperTimer).header_read_timeout(Duration::from_secs(10));
/// ```
///
/// # Panics
/// Its methods, on a thread that is no worker.
#[derive(Clone, Copy, Debug, Default)]
pub struct HyperTimer;

impl Timer for HyperTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn HyperSleep>> {
        Box::pin(sleep(duration))
    }

    fn sleep_until(&self, deadline: StdInstant) -> Pin<Box<dyn HyperSleep>> {
        Box::pin(sleep_until(task::current("`HyperTimer`").clock().of_std(deadline)))
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn HyperSleep>>, deadline: StdInstant) {
        // One of another timer is replaced.
        match sleep.as_mut().downcast_mut_pin::<Sleep>() {
            Some(ours) => ours.get_mut().reset(task::current("`HyperTimer`").clock().of_std(deadline)),
            None => *sleep = self.sleep_until(deadline),
        }
    }

    fn now(&self) -> StdInstant {
        task::current("`HyperTimer`").clock().std_now()
    }
}

/// Spawns what hyper spawns as tasks of the worker, so none of it has to be [`Send`]: HTTP/2 does, for each request of a server and for each connection of a
/// client.
///
/// ```
/// use std::convert::Infallible;
/// use std::rc::Rc;
///
/// use http_body_util::{BodyExt, Full};
/// use hyper::body::Bytes;
/// use hyper::service::service_fn;
/// use hyper::{Request, Response, client, server};
/// use netpoll_core::bridge::HyperExecutor;
/// use netpoll_core::net::Stream;
/// use netpoll_core::task::spawn_local;
/// use netpoll_core::Runtime;
///
/// let answer = Runtime::block_on(async {
///     let (ours, theirs) = Stream::pair()?;
///     let greeting = Rc::new("hello"); // neither this nor the future of the service is `Send`
///     let _serves = spawn_local(async move {
///         let service = service_fn(move |_request| {
///             let greeting = Rc::clone(&greeting);
///             async move { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(*greeting)))) }
///         });
///         server::conn::http2::Builder::new(HyperExecutor).serve_connection(theirs, service).await
///     });
///     let (mut requests, connection) = client::conn::http2::handshake(HyperExecutor, ours).await?;
///     let _connection = spawn_local(connection);
///     let response = requests.send_request(Request::get("http://a/").body(Full::<Bytes>::default())?).await?;
///     let body = response.into_body().collect().await?.to_bytes();
///     Ok::<_, Box<dyn std::error::Error>>(body)
/// });
/// assert_eq!(answer.unwrap().unwrap(), "hello");
/// ```
///
/// # Panics
/// `execute`, on a thread that is no worker.
#[derive(Clone, Copy, Debug, Default)]
pub struct HyperExecutor;

impl<F> Executor<F> for HyperExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        drop(task::spawn_local(future));
    }
}
