//! Which CPU each worker runs on, and whether workers may spin there.

use std::io;
use std::time::Duration;

use crate::reactor::WaitStrategy;
use crate::sys;

/// How many workers there are, and where.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Workers {
    /// One for each CPU that this process may use: those in its affinity mask, and no more than its cgroup quota
    /// rounded up.
    #[default]
    Auto,
    /// So many; zero is taken as one. More than there are CPUs are not pinned.
    Count(usize),
    /// One for each of these CPUs, in this order. A CPU that may not be used, or none at all, is an error of
    /// [`Builder::start`](crate::Builder::start).
    Cpus(Vec<usize>),
}

/// The CPUs of one process as workers see them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// For each worker the CPU that it is pinned to, if it is.
    pub cpus: Vec<Option<usize>>,
    /// A worker may keep a CPU busy without taking it from another one.
    pub may_spin: bool,
    /// Worker and CPU numbers are the same.
    pub matches_cpus: bool,
}

impl Placement {
    /// Looks at this machine.
    ///
    /// # Errors
    /// A CPU that this process may not use, or a kernel that does not tell which those are.
    pub fn find(workers: &Workers, pin: bool) -> io::Result<Self> {
        Self::place(workers, pin, &sys::allowed_cpus()?, sys::quota())
    }

    fn place(workers: &Workers, pin: bool, allowed: &[usize], quota: Option<f64>) -> io::Result<Self> {
        let invalid = |message: String| Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        let cpus = match workers {
            Workers::Cpus(cpus) if cpus.is_empty() => {
                return invalid("the list of CPUs is empty".to_owned());
            }
            Workers::Cpus(cpus) => {
                if let Some(cpu) = cpus.iter().find(|cpu| !allowed.contains(cpu)) {
                    return invalid(format!("CPU {cpu} is not among those that may be used: {allowed:?}"));
                }
                cpus.iter().copied().map(Some).collect()
            }
            Workers::Count(count) => spread((*count).max(1), pin, allowed),
            Workers::Auto => {
                let quota = quota.map_or(usize::MAX, |cpus| cpus.ceil().max(1.0) as usize);
                spread(allowed.len().clamp(1, quota), pin, allowed)
            }
        };
        let count = cpus.len();
        Ok(Self {
            may_spin: count <= allowed.len() && allowed.len() > 1 && quota.is_none(),
            matches_cpus: cpus.iter().enumerate().all(|(worker, cpu)| *cpu == Some(worker))
                && count == allowed.len(),
            cpus,
        })
    }

    /// The strategy that workers get: spinning needs a CPU to spare.
    pub fn wait(&self, wanted: WaitStrategy) -> WaitStrategy {
        match wanted {
            WaitStrategy::Hybrid => self.or_block(wanted),
            WaitStrategy::Spin(time) if time > Duration::ZERO => self.or_block(wanted),
            other => other,
        }
    }

    fn or_block(&self, wanted: WaitStrategy) -> WaitStrategy {
        if self.may_spin { wanted } else { WaitStrategy::Block }
    }
}

/// Workers on the allowed CPUs, pinned if there is one for each.
fn spread(count: usize, pin: bool, allowed: &[usize]) -> Vec<Option<usize>> {
    let pinned = pin && count <= allowed.len();
    (0..count).map(|worker| if pinned { allowed.get(worker).copied() } else { None }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(workers: Workers, allowed: &[usize], quota: Option<f64>) -> Placement {
        Placement::place(&workers, true, allowed, quota).unwrap()
    }

    #[test]
    fn there_is_a_worker_for_each_cpu_that_may_be_used() {
        assert_eq!(place(Workers::Auto, &[1, 3], None).cpus, [Some(1), Some(3)]);
    }

    #[test]
    fn a_quota_of_one_and_a_half_cpus_gets_two_workers_that_do_not_spin() {
        let placement = place(Workers::Auto, &[0, 1, 2, 3], Some(1.5));
        assert_eq!(placement.cpus, [Some(0), Some(1)]);
        assert_eq!(placement.wait(WaitStrategy::Hybrid), WaitStrategy::Block);
    }

    #[test]
    fn more_workers_than_cpus_are_neither_pinned_nor_spinning() {
        let placement = place(Workers::Count(3), &[0, 1], None);
        assert_eq!(placement.cpus, [None, None, None]);
        assert!(!placement.may_spin);
    }

    #[test]
    fn workers_with_a_core_each_may_spin() {
        let placement = place(Workers::Count(1), &[0, 1], None);
        assert_eq!(placement.wait(WaitStrategy::Hybrid), WaitStrategy::Hybrid);
    }

    #[test]
    fn one_cpu_never_spins() {
        let placement = place(Workers::Auto, &[0], None);
        assert_eq!(placement.wait(WaitStrategy::Spin(Duration::from_micros(5))), WaitStrategy::Block);
    }

    #[test]
    fn a_cpu_that_may_not_be_used_is_named() {
        let error = Placement::place(&Workers::Cpus(vec![0, 9]), true, &[0, 1], None).unwrap_err();
        assert_eq!(error.to_string(), "CPU 9 is not among those that may be used: [0, 1]");
    }

    #[test]
    fn steering_by_cpu_wants_every_cpu_to_have_its_worker() {
        assert!(place(Workers::Auto, &[0, 1], None).matches_cpus);
        assert!(!place(Workers::Auto, &[1, 2], None).matches_cpus);
        assert!(!place(Workers::Count(1), &[0, 1], None).matches_cpus);
    }
}
