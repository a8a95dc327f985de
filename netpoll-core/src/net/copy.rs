//! Everything of one stream to another.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use super::stream::{ReadHalf, Stream, WriteHalf};

/// Copies from each stream to the other until both have ended, and passes each end on when all before it was written. How many
/// bytes went from `one` to `other`, and how many back.
///
/// The blocks that were received are handed on as they are. A stream whose peer reads slowly holds the other one back.
/// Between connections that no task has to see it is [`Commands::forward`](crate::Commands::forward), which lets the kernel move bulk.
///
/// Cancel-safe: what was read was written; what was not is still there.
///
/// ```
/// use netpoll_core::net::{Listener, Stream, copy_bidirectional};
/// use netpoll_core::sim::{Options, Sim};
/// use netpoll_core::task::spawn_local;
///
/// let mut sim = Sim::new(Options::default());
/// let heard = sim.block_on(async {
///     let mut backend = Listener::bind("10.0.0.1:80").await.unwrap();
///     let serves = async move {
///         let (mut stream, _) = backend.accept().await.unwrap();
///         stream.write_all(b"hello").await.unwrap();
///     };
///     spawn_local(serves).detach();
///     let mut front = Listener::bind("10.0.0.2:80").await.unwrap();
///     let relays = async move {
///         let (mut client, _) = front.accept().await.unwrap();
///         let mut backend = Stream::connect("10.0.0.1:80").await.unwrap();
///         let _ = copy_bidirectional(&mut client, &mut backend).await;
///     };
///     spawn_local(relays).detach();
///     let mut client = Stream::connect("10.0.0.2:80").await.unwrap();
///     client.shutdown();
///     let mut heard = Vec::new();
///     client.read_to_end(&mut heard, 100).await.unwrap();
///     heard
/// });
/// assert_eq!(heard, b"hello");
/// ```
///
/// # Errors
/// The first of either stream, in either direction. The other direction stops where it is.
pub async fn copy_bidirectional(one: &mut Stream, other: &mut Stream) -> io::Result<(u64, u64)> {
    let (one_reads, one_writes) = one.split();
    let (other_reads, other_writes) = other.split();
    let mut there = pin!(copy(one_reads, other_writes));
    let mut back = pin!(copy(other_reads, one_writes));
    let (mut there_done, mut back_done) = (None, None);
    poll_fn(|cx| {
        poll_one(there.as_mut(), &mut there_done, cx)?;
        poll_one(back.as_mut(), &mut back_done, cx)?;
        match (there_done, back_done) {
            (Some(there), Some(back)) => Poll::Ready(Ok((there, back))),
            _ => Poll::Pending,
        }
    })
    .await
}

fn poll_one(
    direction: Pin<&mut impl Future<Output = io::Result<u64>>>,
    done: &mut Option<u64>,
    cx: &mut Context<'_>,
) -> io::Result<()> {
    if done.is_none()
        && let Poll::Ready(copied) = direction.poll(cx)
    {
        *done = Some(copied?);
    }
    Ok(())
}

/// One direction, with its end.
async fn copy(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> io::Result<u64> {
    let mut copied = 0;
    loop {
        if from.fill_buf().await?.is_empty() {
            // Called again behind an end that was passed on, it finds it once more.
            to.shutdown();
            return Ok(copied);
        }
        to.writable().await?;
        copied += from.move_to(&mut to) as u64;
    }
}
