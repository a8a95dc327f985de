//! Where the run is, and how long it still takes.

use std::io::{IsTerminal, Write};
use std::time::Instant;

/// Steps done and to do; a step is one window of one contestant.
pub struct Progress {
    done: usize,
    all: usize,
    begin: Instant,
}

impl Progress {
    pub fn new(all: usize) -> Self {
        Self { done: 0, all, begin: Instant::now() }
    }

    /// One step is done. On a terminal the line is written over, elsewhere one comes every twentieth of the way.
    pub fn step(&mut self, title: &str, contestant: &str) {
        self.done += 1;
        let left =
            self.begin.elapsed().mul_f64((self.all.saturating_sub(self.done)) as f64 / self.done as f64);
        let line = format!(
            "{:3} %, about {} min {:02} s left: {title}, {contestant}",
            100 * self.done / self.all.max(1),
            left.as_secs() / 60,
            left.as_secs() % 60
        );
        let mut out = std::io::stderr();
        // Nobody is told when even that fails.
        let _ = if out.is_terminal() {
            write!(out, "\r\x1b[K{line}").and_then(|()| out.flush())
        } else if self.done.is_multiple_of((self.all / 20).max(1)) {
            writeln!(out, "{line}")
        } else {
            Ok(())
        };
    }

    /// Ends the line.
    pub fn finish(self) {
        if std::io::stderr().is_terminal() {
            eprintln!();
        }
    }
}
