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
    /// One for each of these CPUs, in this order. A CPU that may not be used or is named twice, or none at all, is an error of
    /// [`Builder::start`](crate::Builder::start), and so is any where threads cannot be kept on CPUs (macOS).
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
        let (allowed, quota) = machine()?;
        if !sys::PINS && matches!(workers, Workers::Cpus(_)) {
            let message = "Workers::Cpus: threads cannot be kept on CPUs on this system";
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        }
        Self::place(workers, pin && sys::PINS, &allowed, quota)
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
                if let Some((_, cpu)) = cpus.iter().enumerate().find(|(at, cpu)| cpus[..*at].contains(cpu)) {
                    return invalid(format!("CPU {cpu} is named twice in Workers::Cpus"));
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

/// The CPUs that this process may use, and how much of them.
#[cfg(not(test))]
fn machine() -> io::Result<(Vec<usize>, Option<f64>)> {
    Ok((sys::allowed_cpus()?, sys::quota()))
}

/// Those of a machine that a test of this thread has made up, else of this one.
#[cfg(test)]
fn machine() -> io::Result<(Vec<usize>, Option<f64>)> {
    match tests::MACHINE.take() {
        Some(machine) => Ok(machine),
        None => Ok((sys::allowed_cpus()?, sys::quota())),
    }
}

/// Workers on the allowed CPUs, pinned if there is one for each.
fn spread(count: usize, pin: bool, allowed: &[usize]) -> Vec<Option<usize>> {
    let pinned = pin && count <= allowed.len();
    (0..count).map(|worker| if pinned { allowed.get(worker).copied() } else { None }).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;
    use crate::{Conn, Flow, Input, Protocol, Runtime, Stats};

    /// CPUs and quota.
    type Machine = (Vec<usize>, Option<f64>);

    thread_local!(pub static MACHINE: Cell<Option<Machine>> = const { Cell::new(None) });

    struct Echo;

    impl Protocol for Echo {
        fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
            conn.send(input.bytes());
            input.advance_all();
            Flow::Continue
        }
    }

    /// What a worker with this strategy did for a client that speaks now and then, on a machine with these CPUs, whatever
    /// this one has.
    fn served(wait: WaitStrategy, machine: Machine) -> (WaitStrategy, Stats) {
        let may_spin = place(Workers::Count(1), &machine.0, machine.1).may_spin;
        MACHINE.set(Some(machine));
        let running = Runtime::builder()
            .workers(Workers::Count(1))
            .pin(false)
            .wait(wait)
            .listen("127.0.0.1:0", |_worker| |_peer| Echo)
            .unwrap()
            .start()
            .unwrap();
        let mut client = TcpStream::connect(running.local_addrs()[0].as_socket_addr().unwrap()).unwrap();
        let mut rounds = 0;
        // A turn that takes longer than a spin is not followed by one; on a busy machine most of them do.
        while rounds < 50 || rounds < 20_000 && running.handle().stats().waits_spun == 0 && may_spin {
            rounds += 1;
            client.write_all(b"x").unwrap();
            client.read_exact(&mut [0]).unwrap();
        }
        // Nothing comes until it has gone to sleep.
        while running.handle().stats().waits_blocked == 0 {
            std::thread::yield_now();
        }
        let wait = running.handle().setup().wait;
        drop(client);
        (wait, running.stop(Duration::from_secs(60)).unwrap().stats)
    }

    #[test]
    fn a_worker_with_a_cpu_to_spare_looks_again_before_it_sleeps_and_sleeps_when_nothing_comes() {
        for strategy in [WaitStrategy::Hybrid, WaitStrategy::Spin(Duration::from_micros(10))] {
            let (wait, stats) = served(strategy, (vec![0, 1], None));
            assert_eq!(wait, strategy);
            assert!(stats.waits_spun > 0 && stats.waits_blocked > 0, "{stats:?}");
            assert!(stats.spins_unpaid <= stats.waits_blocked, "each of these ended in sleep: {stats:?}");
        }
    }

    #[test]
    fn a_worker_without_a_cpu_to_spare_sleeps_at_once_whatever_was_asked_for() {
        for strategy in [WaitStrategy::Hybrid, WaitStrategy::Spin(Duration::from_micros(10))] {
            for machine in [(vec![0], None), (vec![0, 1], Some(1.5))] {
                let (wait, stats) = served(strategy, machine);
                assert_eq!((wait, stats.waits_spun), (WaitStrategy::Block, 0), "{stats:?}");
            }
        }
    }

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
