//! The workers of a runtime while it starts: all of them serve, or none does.

use std::io;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::seat::{Door, Farewell, Seat, Sockets};
use super::worker::Drained;
use crate::sys;

/// How long the others are waited for once one has failed to start. A factory that takes longer is left alone: its worker
/// ends when it returns.
const DISMISSAL: Duration = Duration::from_secs(1);

/// A worker's thread; what it returns is how its drain went.
pub type Thread = JoinHandle<io::Result<Drained>>;

struct Member {
    thread: Thread,
    gate: mpsc::Sender<()>,
    sockets: Sockets,
    has_reported: bool,
}

/// Workers that are starting.
pub struct Crew {
    name: &'static str,
    members: Vec<Member>,
    ready: mpsc::Sender<(usize, io::Result<()>)>,
    reports: mpsc::Receiver<(usize, io::Result<()>)>,
}

impl Crew {
    pub fn new(name: &'static str) -> Self {
        let (ready, reports) = mpsc::channel();
        Self { name, members: Vec::new(), ready, reports }
    }

    /// Starts all threads, and returns them when every worker is ready and `before` has returned.
    ///
    /// # Errors
    /// The first that a worker reported; that of `before`; no thread to be had. Then no worker serves, and the sockets are closed.
    pub fn start(
        mut self,
        seats: impl Iterator<Item = (Seat, Farewell)>,
        before: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<Vec<Thread>> {
        let started = self.spawn(seats).and_then(|()| self.wait()).and_then(|()| before());
        match started {
            Ok(()) => Ok(self.members.into_iter().map(Member::serve).collect()),
            Err(error) => {
                self.dismiss();
                Err(error)
            }
        }
    }

    fn spawn(&mut self, seats: impl Iterator<Item = (Seat, Farewell)>) -> io::Result<()> {
        for (index, (seat, farewell)) in seats.enumerate() {
            let (gate, opened) = mpsc::channel();
            let door = Door { ready: self.ready.clone(), gate: opened };
            let sockets = seat.sockets.clone();
            let name = format!("{}-{index}", self.name);
            let thread = std::thread::Builder::new().name(name.clone()).spawn(move || {
                let _farewell = farewell;
                seat.take(&door)
            });
            let thread = thread.map_err(|error| sys::no_thread(&name, error))?;
            self.members.push(Member { thread, gate, sockets, has_reported: false });
        }
        Ok(())
    }

    /// Until each has reported, or one has failed.
    fn wait(&mut self) -> io::Result<()> {
        for _ in 0..self.members.len() {
            // This crew holds a sender, so the channel lives; and no worker ends without a report.
            let Ok((index, outcome)) = self.reports.recv() else { break };
            self.members[index].has_reported = true;
            outcome?;
        }
        Ok(())
    }

    /// Closes the gates and the sockets, and waits for those who can end soon.
    fn dismiss(mut self) {
        while self.members.iter().any(|member| !member.has_reported) {
            let Ok((index, _)) = self.reports.recv_timeout(DISMISSAL) else { break };
            self.members[index].has_reported = true;
        }
        for Member { thread, gate, sockets, has_reported } in self.members {
            drop(gate);
            // Who has its sockets has left the code of the program.
            if sockets.take().is_none() || has_reported {
                // The error that matters is the one that dismissed it.
                let _ = thread.join();
            }
        }
    }
}

impl Member {
    fn serve(self) -> Thread {
        // A worker that is ready waits for nothing else.
        let _ = self.gate.send(());
        self.thread
    }
}
