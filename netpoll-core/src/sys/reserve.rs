//! A descriptor held back for the day there are none left.
//!
//! At `EMFILE` a connection that waits for `accept` can be neither served nor refused, and a level- or
//! edge-triggered listener spins or hangs. With one descriptor in reserve: let go of it, accept, close, take
//! it back. The peer sees a closed connection instead of silence.

use std::io;

use super::system::Spare;

/// One spare descriptor. It needs no file system, works in any sandbox that can run a reactor, and costs little memory of the
/// kernel: on Linux it is an eventfd, elsewhere a socket of the Unix domain.
pub struct ReserveFd {
    spare: Option<Spare>,
}

impl ReserveFd {
    /// Takes the spare descriptor.
    ///
    /// # Errors
    /// The kernel's: `EMFILE`, `ENFILE` or `ENOMEM`.
    pub fn new() -> io::Result<ReserveFd> {
        Ok(ReserveFd { spare: Some(Spare::new()?) })
    }

    /// Gives the descriptor back to the process; says whether there was one to give.
    pub fn release(&mut self) -> bool {
        self.spare.take().is_some()
    }

    /// Takes a spare descriptor again; does nothing while there is one.
    ///
    /// # Errors
    /// The kernel's: `EMFILE` when another thread was faster. Try again after something was closed.
    pub fn refill(&mut self) -> io::Result<()> {
        if self.spare.is_none() {
            self.spare = Some(Spare::new()?);
        }
        Ok(())
    }

    /// Whether there is a spare descriptor.
    #[cfg(test)]
    pub fn is_held(&self) -> bool {
        self.spare.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::super::limits::{open_files, set_open_files};
    use super::super::socket;
    use super::super::testing::{self, LOOPBACK, PLAIN, alone, recv, until};
    use super::*;

    /// Opens descriptors until the process may have no more.
    fn use_up() -> Vec<Spare> {
        let held = std::iter::from_fn(|| Spare::new().ok()).collect();
        assert_eq!(Spare::new().err().unwrap().raw_os_error(), Some(libc::EMFILE));
        held
    }

    #[test]
    fn a_connection_is_shed_with_the_reserve() {
        alone!(a_connection_is_shed_with_the_reserve);
        set_open_files(64, open_files().unwrap().1).unwrap();
        let mut reserve = ReserveFd::new().unwrap();
        let listener = socket::listen(LOOPBACK, &PLAIN).unwrap();
        let client = testing::connect(&socket::local_addr(listener.as_fd()).unwrap()).unwrap();
        until(listener.as_fd(), libc::POLLIN);
        let mut held = use_up();
        assert_eq!(socket::accept(listener.as_fd()).unwrap_err().raw_os_error(), Some(libc::EMFILE));

        assert!(reserve.release());
        let (shed, _) = socket::accept(listener.as_fd()).unwrap();
        assert_eq!(reserve.refill().unwrap_err().raw_os_error(), Some(libc::EMFILE), "not yet");
        drop(shed);
        reserve.refill().unwrap();

        assert!(reserve.is_held() && Spare::new().is_err(), "the spare one is taken again");
        held.pop(); // for the test's own epoll
        assert_eq!(recv(&client).unwrap(), b"", "the peer was told");
    }

    #[test]
    fn there_is_only_one_to_release() {
        let mut reserve = ReserveFd::new().unwrap();
        assert!(reserve.release());
        assert!(!reserve.release() && !reserve.is_held());
        reserve.refill().unwrap();
        reserve.refill().unwrap();
        assert!(reserve.is_held());
    }
}
