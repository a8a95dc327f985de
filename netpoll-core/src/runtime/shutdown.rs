//! The end of a runtime, and what it reports.

use std::fmt;
use std::time::Duration;

use crate::conn::CutPeer;
use crate::reactor::Stats;

/// How a runtime ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Report {
    /// How long the drain took, from when the first order to drain reached a worker.
    pub took: Duration,
    /// Connections that were open when it began, or being made.
    pub open: u64,
    /// Connections that were idle and went over to another process, which go on there. They are not among those that were open.
    pub moved: u64,
    /// Connections that the drain deadline cut, dials included.
    pub cut: u64,
    /// Who was at the other end of some of these, eight at most: who holds up a drain is often the same.
    pub cut_peers: Vec<CutPeer>,
    /// Tasks that it dropped, [daemons](crate::task::spawn_daemon) not counted.
    pub tasks_cut: u64,
    /// Another process has taken over its listeners ([`Builder::handover`](crate::Builder::handover)).
    pub handed_over: bool,
    /// The counters of the whole run.
    pub stats: Stats,
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "drained {} connections in {:.1?}, {} of them cut by the deadline",
            self.open, self.took, self.cut
        )?;
        for (index, peer) in self.cut_peers.iter().enumerate() {
            write!(out, "{}{peer}", if index == 0 { " (" } else { ", " })?;
        }
        match self.cut.saturating_sub(self.cut_peers.len() as u64) {
            _ if self.cut_peers.is_empty() => {}
            0 => out.write_str(")")?,
            others => write!(out, " and {others} more)")?,
        }
        match self.tasks_cut {
            0 => {}
            1 => out.write_str("; a task was dropped")?,
            tasks => write!(out, "; {tasks} tasks were dropped")?,
        }
        match (self.handed_over, self.moved) {
            (false, _) => Ok(()),
            (true, 0) => out.write_str("; its listeners were handed over"),
            (true, 1) => out.write_str("; its listeners were handed over, and a connection"),
            (true, moved) => write!(out, "; its listeners were handed over, and {moved} connections"),
        }
    }
}
