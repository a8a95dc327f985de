//! A chat in tasks: whoever says a line is heard by all others, on whatever worker they are.
//!
//! Run it with `cargo run --bin task_chat` (or with an address) and join it with several `nc 127.0.0.1 7000`.
//!
//! Each worker keeps the members that it serves, a bounded channel to each; nothing of that is shared with another worker. A line goes to
//! every worker once, and there to each member. A member who does not keep up misses lines instead of holding up the others, and is told how many.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;

use netpoll_core::net::{OwnedReadHalf, OwnedWriteHalf, Stream};
use netpoll_core::sync::mpsc;
use netpoll_core::{Bytes, Handle, Runtime, task};

/// Lines that wait for one member.
const LINES_MAX: usize = 64;
/// Longer lines end the connection.
const LINE_BYTES_MAX: usize = 1000;

/// The members of one worker.
#[derive(Default)]
struct Room {
    members: RefCell<HashMap<u64, Member>>,
    names: Cell<u64>,
}

struct Member {
    lines: mpsc::Sender<Bytes>,
    missed: Rc<Cell<u64>>,
}

impl Room {
    fn tell(&self, line: &Bytes, except: Option<u64>) {
        for (_, member) in self.members.borrow().iter().filter(|(name, _)| Some(**name) != except) {
            if member.lines.try_send(line.clone()).is_err() {
                member.missed.set(member.missed.get() + 1);
            }
        }
    }
}

/// Tells all workers, this one included.
fn tell_all(line: Bytes, here: &Room, name: u64) {
    here.tell(&line, Some(name));
    let handle = Handle::current();
    for worker in (0..handle.workers()).filter(|worker| *worker != task::worker()) {
        let line = line.clone();
        handle.run_on(worker, move |local| local.state::<Room>().tell(&line, None));
    }
}

/// The next line, with its end.
async fn line(reader: &mut OwnedReadHalf) -> io::Result<Option<Bytes>> {
    let mut line = Vec::new();
    loop {
        let input = reader.fill_buf().await?;
        if input.is_empty() {
            return Ok(None);
        }
        let end = input.iter().position(|byte| *byte == b'\n').map(|end| end + 1);
        let count = end.unwrap_or(input.len());
        line.extend_from_slice(&input[..count]);
        reader.consume(count);
        if line.len() > LINE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long"));
        }
        if end.is_some() {
            return Ok(Some(line.into()));
        }
    }
}

/// What a member hears.
async fn speak(
    mut writer: OwnedWriteHalf,
    mut lines: mpsc::Receiver<Bytes>,
    missed: Rc<Cell<u64>>,
) -> io::Result<()> {
    while let Some(line) = lines.recv().await {
        writer.send(line).await?;
        match missed.take() {
            0 => {}
            count => writer.write_all(format!("* you missed {count} lines\n").as_bytes()).await?,
        }
    }
    Ok(())
}

async fn serve(stream: Stream) -> io::Result<()> {
    let room = task::state::<Room>();
    let name = room.names.get();
    room.names.set(name + 1);
    let (lines, receiver) = mpsc::channel(LINES_MAX);
    let missed = Rc::new(Cell::new(0));
    room.members.borrow_mut().insert(name, Member { lines, missed: Rc::clone(&missed) });

    let (mut reader, writer) = stream.into_split();
    let speaker = task::spawn_local(speak(writer, receiver, missed));
    let heard = loop {
        match line(&mut reader).await {
            Ok(Some(line)) => tell_all(line, &room, name),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    // Its channel ends with it, and the speaker behind what is in there.
    room.members.borrow_mut().remove(&name);
    let _ = speaker.await;
    heard
}

fn main() -> io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or("127.0.0.1:7000".to_owned());
    let server = Runtime::builder()
        .stop_on_signals(true)
        .state(|_worker| Room::default())
        .listen_tasks(addr, |stream, peer| async move {
            if let Err(error) = serve(stream).await {
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
