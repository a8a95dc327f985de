//! A storm of orders on a driver: in any order of looks, salvages, pauses and closes a stream gets its own bytes, each once and in order,
//! with and without what newer kernels have. `NETPOLL_STORM_ROUNDS` of them.

use std::io::{Read, Write};

use super::*;

/// One of those in a storm: what its peer has written and read, and what has come and left.
struct Stormy {
    theirs: TcpStream,
    name: u32,
    written: usize,
    came: usize,
    left: usize,
    back: usize,
}

impl Stormy {
    /// No two of them write the same.
    fn bytes(&self, from: usize, len: usize) -> Vec<u8> {
        let byte = |at: usize| ((at as u32 ^ self.name << 16).wrapping_mul(2_654_435_761) >> 24) as u8;
        (from..from + len).map(byte).collect()
    }

    fn writes(&mut self, len: usize) {
        let bytes = self.bytes(self.written, len);
        self.written += self.theirs.write(&bytes).unwrap_or(0);
    }

    fn reads(&mut self) {
        let mut room = vec![0; 64 * 1024];
        while let Ok(len @ 1..) = self.theirs.read(&mut room) {
            assert!(room[..len] == self.bytes(self.back, len), "{} of {}", self.back, self.name);
            self.back += len;
        }
    }

    fn takes(&mut self, bytes: &[u8]) {
        assert!(bytes == self.bytes(self.came, bytes.len()), "{} of {}", self.came, self.name);
        self.came += bytes.len();
    }
}

/// Numbers below a bound, the same for each seed.
fn chance(seed: u64) -> impl FnMut(usize) -> usize {
    let mut seed = 0x9e37_79b9_u64.wrapping_mul(seed + 1) | 1;
    move |bound| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 33) as usize % bound
    }
}

#[test]
fn in_a_storm_of_orders_everybody_gets_their_own_bytes_and_a_driver_may_go_at_any_time() {
    let Some(features) = probe().ok() else { return };
    let rounds = std::env::var("NETPOLL_STORM_ROUNDS").map_or(24, |rounds| rounds.parse().unwrap());
    for round in 0..rounds {
        let mut below = chance(round);
        let features = Features {
            incremental_buffers: features.incremental_buffers && round % 3 > 0,
            caps: features.caps && round % 2 > 0,
            aligned_receives: features.aligned_receives && round % 5 > 0,
        };
        let (mut driver, bell) = driver_with(features).unwrap();
        let limits = Limits { events: 1 + below(12), read_bytes: 1 + below(40_000), accepts: 8 };
        let mut worker = Worker::new();
        let mut all: Vec<Option<Stormy>> = (0..12).map(|_| None).collect();
        for name in 0..200 + below(400) as u32 {
            let (index, len) = (below(all.len()), below(30_000) + 1);
            let key = Key::new(1, 1, index);
            let Some(one) = &mut all[index] else {
                let theirs = pair(&mut driver, key);
                theirs.set_nonblocking(true).unwrap();
                all[index] = Some(Stormy { theirs, name, written: 0, came: 0, left: 0, back: 0 });
                continue;
            };
            match below(14) {
                0..4 => one.writes(len),
                4 => one.writes(1),
                5 => {
                    driver.io().receive(key, Demand::Pause);
                }
                6 | 7 => {
                    driver.io().receive(key, Demand::Flow);
                }
                8 | 9 => {
                    // As much as has room in any case.
                    one.reads();
                    let mut queue = queue_of(&one.bytes(one.left, len % 4000 + 1), &mut worker.pool);
                    one.left += queue.queued_bytes();
                    let flushed = driver.io().flush(key, &mut queue, &mut worker.pool);
                    assert!(matches!(flushed, Flushed::Done));
                }
                10 => driver.look(key, &limits, &mut worker),
                11 => {
                    let mut piece = vec![0; len];
                    // What was delivered comes first.
                    one.takes(&worker.received.remove(&key).unwrap_or_default());
                    let len = driver.io().salvage(key, &mut piece);
                    one.takes(&piece[..len]);
                }
                12 => bell.signal().unwrap(),
                _ => {
                    one.takes(&worker.received.remove(&key).unwrap_or_default());
                    worker.unfinished.retain(|other| *other != key);
                    driver.io().close(key, if len % 2 == 0 { Close::Now } else { Close::Reset });
                    all[index] = None;
                }
            }
            if below(3) == 0 {
                driver.wait(&limits, Wait::Poll).unwrap();
                if below(4) > 0 {
                    driver.deliver(&limits, &mut worker);
                }
                for key in std::mem::take(&mut worker.unfinished) {
                    driver.resume(key, &limits, &mut worker);
                }
            }
            for (index, one) in
                all.iter_mut().enumerate().filter_map(|(index, one)| Some((index, one.as_mut()?)))
            {
                one.takes(&worker.received.remove(&Key::new(1, 1, index)).unwrap_or_default());
                one.reads();
            }
            assert!(worker.unsent.is_empty() && worker.told.is_empty(), "{:?}", worker.told);
        }
        if round % 2 == 0 {
            // And nothing is missing.
            for index in 0..all.len() {
                driver.io().receive(Key::new(1, 1, index), Demand::Flow);
            }
            let began = Instant::now();
            while !all.iter().flatten().all(|one| one.came == one.written && one.back == one.left) {
                assert!(began.elapsed() < LONG, "round {round}");
                for key in std::mem::take(&mut worker.unfinished) {
                    driver.resume(key, &limits, &mut worker);
                }
                driver.wait(&limits, Wait::Block(Some(Duration::from_millis(1)))).unwrap();
                driver.deliver(&limits, &mut worker);
                for (index, one) in
                    all.iter_mut().enumerate().filter_map(|(index, one)| Some((index, one.as_mut()?)))
                {
                    one.takes(&worker.received.remove(&Key::new(1, 1, index)).unwrap_or_default());
                    one.reads();
                }
            }
        }
        drop(driver);
        assert_eq!(worker.unsent, b"");
    }
}

#[test]
fn in_a_storm_of_echoes_everybody_gets_back_what_they_have_written() {
    let Some(features) = probe().ok() else { return };
    let rounds = std::env::var("NETPOLL_STORM_ROUNDS").map_or(12, |rounds| rounds.parse().unwrap());
    for round in 0..rounds {
        let mut below = chance(round + 1_000_000);
        let features = Features {
            incremental_buffers: features.incremental_buffers && round % 4 > 0,
            caps: features.caps && round % 3 > 0,
            aligned_receives: features.aligned_receives && round % 5 > 0,
        };
        let (mut driver, _bell) = driver_with(features).unwrap();
        let limits = Limits { events: 1 + below(12), read_bytes: 1 + below(80_000), accepts: 8 };
        let mut worker = Worker { echoes: true, ..Worker::new() };
        let mut all: Vec<Option<Stormy>> = (0..10).map(|_| None).collect();
        let steps = 300 + below(500);
        let began = Instant::now();
        for step in 0.. {
            let key = |index: usize| Key::new(1, 1, index);
            let index = below(all.len());
            let is_over = step >= steps;
            match &mut all[index] {
                _ if is_over => {}
                None => {
                    let theirs = pair(&mut driver, key(index));
                    theirs.set_nonblocking(true).unwrap();
                    all[index] =
                        Some(Stormy { theirs, name: step as u32, written: 0, came: 0, left: 0, back: 0 });
                }
                Some(one) => match below(24) {
                    // About a page, about what is large, and anything.
                    0..4 => one.writes(4086 + below(20)),
                    4..8 => one.writes(2038 + below(20)),
                    8..12 => one.writes(1 + below(16)),
                    12..16 => one.writes(1 + below(50_000)),
                    16..18 => _ = driver.io().receive(key(index), Demand::Pause),
                    18..20 => _ = driver.io().receive(key(index), Demand::Flow),
                    20 => driver.look(key(index), &limits, &mut worker),
                    21 => driver.io().shrink(),
                    22 => one.reads(),
                    _ => {
                        worker.unfinished.retain(|other| *other != key(index));
                        driver.io().close(key(index), if step % 2 == 0 { Close::Now } else { Close::Reset });
                        worker.received.remove(&key(index));
                        worker.pending.remove(&key(index));
                        all[index] = None;
                    }
                },
            }
            if is_over || below(3) == 0 {
                for key in std::mem::take(&mut worker.unfinished) {
                    driver.resume(key, &limits, &mut worker);
                }
                driver.wait(&limits, Wait::Poll).unwrap();
                driver.deliver(&limits, &mut worker);
            }
            for (index, one) in all.iter_mut().enumerate() {
                let (Some(one), key) = (one, key(index)) else { continue };
                one.takes(&worker.received.remove(&key).unwrap_or_default());
                if let Some(pending) = worker.pending.remove(&key).filter(|pending| !pending.is_empty()) {
                    let mut queue = queue_of(&pending, &mut worker.pool);
                    driver.io().flush(key, &mut queue, &mut worker.pool);
                    let mut rest = Vec::new();
                    while !queue.is_empty() {
                        let front = queue.front().len();
                        rest.extend_from_slice(queue.front());
                        queue.consume(&mut worker.pool, front);
                    }
                    worker.pending.insert(key, rest);
                }
                if is_over {
                    driver.io().receive(key, Demand::Flow);
                    one.reads();
                }
            }
            if is_over && all.iter().flatten().all(|one| one.back == one.written) {
                break;
            }
            assert!(began.elapsed() < 3 * LONG, "round {round}");
        }
    }
}
