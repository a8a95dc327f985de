//! How many CPUs there are. Threads run where the system likes.

use std::io;
use std::num::NonZero;
use std::thread;

use super::unsupported;

/// Threads cannot be kept on CPUs.
pub const PINS: bool = false;

/// The CPUs that a thread may run on, to be given to others: here all of them, always.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// let affinity = netpoll_core::Affinity::of_this_thread()?;
/// affinity.apply()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Affinity(());

impl Affinity {
    /// That of the calling thread.
    ///
    /// # Errors
    /// None.
    pub fn of_this_thread() -> io::Result<Self> {
        Ok(Self(()))
    }

    /// Does nothing.
    ///
    /// # Errors
    /// None.
    pub fn apply(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The CPUs of this machine, ascending; never empty.
///
/// # Errors
/// None.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    let count = thread::available_parallelism().map_or(1, NonZero::get);
    Ok((0..count).collect())
}

/// # Errors
/// `Unsupported`.
pub fn pin_current_thread(_cpu: usize) -> io::Result<()> {
    Err(unsupported("threads cannot be kept on CPUs here"))
}

/// Nothing sets one.
pub fn quota() -> Option<f64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_counted_from_zero_and_none_is_pinned_to() {
        let cpus = allowed_cpus().unwrap();
        assert!(!cpus.is_empty() && cpus.iter().enumerate().all(|(at, cpu)| at == *cpu));
        assert_eq!(pin_current_thread(0).unwrap_err().kind(), io::ErrorKind::Unsupported);
        Affinity::of_this_thread().unwrap().apply().unwrap();
        assert_eq!(quota(), None);
    }
}
