//! A chat of lines in tasks: whoever says one is heard by all, on whatever worker they are.
//!
//! Run it with `cargo run --bin task_chat` (or with an address) and join it with several `nc 127.0.0.1 7000`. Who is silent for five minutes
//! is let go, and so is who does not read what others say. Ctrl-C ends it: who is between two lines goes at once, and nobody holds it up.

use std::cell::RefCell;
use std::io;
use std::time::Duration;

use futures::{FutureExt, select_biased};
use netpoll_core::net::Stream;
use netpoll_core::sync::mpsc;
use netpoll_core::time::{now, timeout, timeout_at};
use netpoll_core::{Bytes, Handle, Runtime, task};

/// How long one may say nothing.
const SILENCE: Duration = Duration::from_secs(300);
/// How long it may take to write a line to a member, which waits for room.
const WRITE: Duration = Duration::from_secs(5);
/// Longer lines end the connection.
const LINE_BYTES_MAX: usize = 1000;
/// Lines that wait for one member.
const LINES_MAX: usize = 64;

/// The members that this worker serves: nothing of it is shared, so there is no lock.
#[derive(Default)]
struct Room(RefCell<Vec<mpsc::Sender<Bytes>>>);

impl Room {
    /// Who has left, or does not keep up, is let go: without its sender its task hears of the end.
    fn tell(&self, line: &Bytes) {
        self.0.borrow_mut().retain(|member| member.try_send(line.clone()).is_ok());
    }
}

/// One letter for each worker, this one included, and from there a place in the channel of each member.
fn tell_all(line: Bytes) {
    let handle = Handle::current();
    for worker in 0..handle.workers() {
        let line = line.clone();
        handle.run_on(worker, move |local| local.state::<Room>().tell(&line));
    }
}

async fn serve(stream: &mut Stream) -> io::Result<()> {
    let (sender, mut news) = mpsc::channel(LINES_MAX);
    task::state::<Room>().0.borrow_mut().push(sender);
    let (mut line, mut until) = (Vec::new(), now() + SILENCE);
    loop {
        // Between two lines: a drain closes it behind a second, and the read fails. With half a line there it says nothing.
        stream.set_idle(true);
        select_biased! {
            heard = news.recv().fuse() => match heard {
                Some(news) => timeout(WRITE, stream.send(news)).await??,
                None => return Err(io::Error::other("it does not keep up")),
            },
            // Given up for news, it has read nothing.
            read = timeout_at(until, stream.read_until(b'\n', &mut line, LINE_BYTES_MAX)).fuse() => {
                if read?? == 0 {
                    return Ok(());
                }
                tell_all(Bytes::from(std::mem::take(&mut line)));
                until = now() + SILENCE;
            }
        }
    }
}

fn main() -> io::Result<()> {
    let (backend, mut words) = examples::words()?;
    let addr = words.next().unwrap_or("127.0.0.1:7000".to_owned());
    let server = Runtime::builder()
        .backend(backend)
        .stop_on_signals(true)
        .drain_within(Duration::from_secs(10))
        .state(|_worker| Room::default())
        .listen_tasks(addr, |mut stream, peer| async move {
            if let Err(error) = serve(&mut stream).await {
                eprintln!("{}: {error}", peer.addr);
            }
        })?
        .start()?;
    for addr in server.local_addrs() {
        println!("chat at {addr}");
    }
    println!("{}", server.wait()?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use netpoll_core::sim::{Options, Sim};

    use super::*;

    #[test]
    fn all_hear_a_line_on_every_worker_and_the_silent_and_the_idle_go() {
        let mut sim = Sim::new(Options::default().workers(2));
        sim.state(|_| Room::default());
        let listener = sim.listen_tasks(|mut stream, _| async move {
            // What it ends with is for the log.
            let _ = serve(&mut stream).await;
        });
        let peers = [0, 1, 0].map(|worker| sim.connect_to(listener, worker));
        sim.settle();
        sim.send(peers[0], b"hello\nun");
        sim.settle();
        sim.advance(SILENCE / 2);
        for peer in peers {
            assert_eq!(sim.take_received(peer), b"hello\n");
        }
        sim.send(peers[1], b"still here\n");
        sim.advance(SILENCE / 2 + WRITE);
        assert_eq!(sim.stats().open(), 1, "the other two were silent");
        sim.begin_drain(Duration::from_secs(3600));
        sim.advance(Duration::from_secs(4)); // a grace of 1 s, and 2 s for a peer that does not close
        assert!(sim.is_finished());
    }
}
