//! The load generator through its front door: a command line, a server in this process, and a JSON report. Of the other
//! programs what needs no quiet machine.

mod backends;
mod compare;
mod floors;
mod help;
mod open_loop;
mod results;
mod rings;
mod server;
mod stand_by;
mod truth;
