//! Stand-by: each line on standard input orders one window, and the end of the input ends the program.
//!
//! A worker must not wait for a file, so a thread of its own reads and wakes the metronome through its waker. It
//! sleeps but for the moment in which a line arrives. Orders are carried out one after the other.

use crate::options::SECONDS_MAX;
use std::io;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::task::Waker;
use std::time::Duration;

/// What standard input wants.
pub enum Order {
    /// A window of this length.
    Window(Duration),
    /// Nothing for now; `waker` is woken when that changes.
    Wait,
    /// No window any more.
    End,
}

/// Lines that have been read and not been carried out.
pub struct Orders(Receiver<Result<Duration, String>>);

impl Orders {
    /// Begins to read. An empty line stands for a window of `usual` length.
    pub fn listen(usual: Duration, waker: Waker) -> Self {
        let (sender, orders) = mpsc::channel();
        std::thread::spawn(move || {
            for line in io::stdin().lines() {
                let order = line.map_err(|error| error.to_string()).and_then(|line| length(&line, usual));
                // Nobody takes orders any more when the run has ended by itself.
                if sender.send(order).is_err() {
                    return;
                }
                waker.wake_by_ref();
            }
            // First the end, then the news of it.
            drop(sender);
            waker.wake_by_ref();
        });
        Self(orders)
    }

    /// The next order.
    ///
    /// # Errors
    /// A line that is no length, in words.
    pub fn next(&self) -> Result<Order, String> {
        match self.0.try_recv() {
            Ok(length) => Ok(Order::Window(length?)),
            Err(TryRecvError::Empty) => Ok(Order::Wait),
            Err(TryRecvError::Disconnected) => Ok(Order::End),
        }
    }
}

/// Seconds, or nothing for the usual length.
fn length(line: &str, usual: Duration) -> Result<Duration, String> {
    let text = line.trim();
    if text.is_empty() {
        return Ok(usual);
    }
    match text.parse() {
        Ok(seconds) if seconds > 0.0 && seconds <= SECONDS_MAX => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("standard input: {text} is not a number of seconds up to {SECONDS_MAX}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_number_of_seconds_or_empty() {
        let usual = Duration::from_secs(2);
        assert_eq!(length(" 0.25 ", usual), Ok(Duration::from_millis(250)));
        assert_eq!(length("", usual), Ok(usual));
        for wrong in ["0", "-1", "601", "nan", "soon"] {
            assert!(length(wrong, usual).is_err(), "{wrong}");
        }
    }
}
