//! The CPUs that this process may use, in two halves that share no core.
//!
//! Two CPUs of one core slow each other down, so a core belongs to one half with all of its CPUs. Within a half the first CPU of each core
//! comes before any second one: with half as many workers as CPUs each has a core to itself.

use std::fs;

use rustix::thread::{CpuSet, sched_getaffinity};

use crate::Failure;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Halves {
    /// In the order in which workers are given them.
    pub servers: Vec<usize>,
    pub client: Vec<usize>,
}

impl Halves {
    /// # Errors
    /// There is one CPU only, or the kernel does not say.
    pub fn of_this_machine() -> Result<Self, Failure> {
        let set = sched_getaffinity(None)?;
        let cpus = (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu));
        let with_core = cpus.map(|cpu| {
            let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
            let siblings = fs::read_to_string(path).unwrap_or_else(|_| cpu.to_string());
            (cpu, siblings)
        });
        Self::of(with_core).ok_or_else(|| "a server and a client want a CPU each, and there is one".into())
    }

    /// Each CPU with the name of its core. `None` where there are not two CPUs.
    fn of(cpus: impl Iterator<Item = (usize, String)>) -> Option<Self> {
        let mut cores: Vec<(String, Vec<usize>)> = Vec::new();
        for (cpu, core) in cpus {
            match cores.iter_mut().find(|(known, _)| *known == core) {
                Some((_, cpus)) => cpus.push(cpu),
                None => cores.push((core, vec![cpu])),
            }
        }
        let mut cores: Vec<Vec<usize>> = cores.into_iter().map(|(_, cpus)| cpus).collect();
        if let [only] = &mut cores[..] {
            // One core of two CPUs is all there is: each half has one of them.
            let second = only.split_off(only.len().div_ceil(2));
            cores.push(second);
        }
        let client = cores.split_off(cores.len() / 2);
        let halves = Self { servers: by_turns(&cores), client: by_turns(&client) };
        (!halves.servers.is_empty() && !halves.client.is_empty()).then_some(halves)
    }

    /// Numbers of workers: powers of two, and as many as there are CPUs.
    pub fn steps(&self) -> Vec<usize> {
        let most = self.servers.len();
        let powers = std::iter::successors(Some(1), |workers| Some(workers * 2));
        powers.take_while(|&workers| workers < most).chain([most]).collect()
    }
}

/// The first of each, then the second of each, and so on.
fn by_turns(cores: &[Vec<usize>]) -> Vec<usize> {
    let most = cores.iter().map(Vec::len).max().unwrap_or(0);
    (0..most).flat_map(|nth| cores.iter().filter_map(move |cpus| cpus.get(nth).copied())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn halves(cores: &[&str]) -> Option<Halves> {
        Halves::of(cores.iter().enumerate().map(|(cpu, core)| (cpu, (*core).to_owned())))
    }

    #[test]
    fn no_core_is_in_both_halves() {
        let halves = halves(&["0,4", "1,5", "2,6", "3,7", "0,4", "1,5", "2,6", "3,7"]).expect("eight");
        assert_eq!(halves, Halves { servers: vec![0, 1, 4, 5], client: vec![2, 3, 6, 7] });
        assert_eq!(halves.steps(), [1, 2, 4]);
    }

    #[test]
    fn a_single_core_is_shared_and_a_single_cpu_is_not_enough() {
        assert_eq!(halves(&["0-1", "0-1"]), Some(Halves { servers: vec![0], client: vec![1] }));
        assert_eq!(halves(&["0"]), None);
        assert_eq!(halves(&["0", "1", "2"]).expect("three").client, [1, 2]);
    }

    #[test]
    fn workers_go_in_powers_of_two_up_to_all() {
        let of = |servers: usize| Halves { servers: (0..servers).collect(), client: vec![99] }.steps();
        assert_eq!((of(1), of(6)), (vec![1], vec![1, 2, 4, 6]));
    }
}
