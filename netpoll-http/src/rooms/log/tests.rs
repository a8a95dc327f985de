//! The log against a model that forgets nothing and looks at everything.

use std::time::Duration;

use netpoll_core::Instant;

use super::{Bounds, Log};
use crate::websocket::Frame;

/// A small generator, so that a failure repeats.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) % bound
    }
}

/// Every message that there was: its key, its payload, and when it came. What another process has lost has no payload.
#[derive(Default)]
struct Model(Vec<(Option<u64>, Option<Vec<u8>>, Instant)>);

impl Model {
    /// There is a newer one of its key.
    fn is_superseded(&self, sequence: u64) -> bool {
        let (key, ..) = &self.0[sequence as usize - 1];
        key.is_some() && self.0[sequence as usize..].iter().any(|(other, ..)| other == key)
    }
}

fn bounds(chance: &mut Chance) -> Bounds {
    Bounds {
        messages: chance.below(12) as usize,
        bytes: 500 + chance.below(5000) as usize,
        time: Duration::from_millis(1 + chance.below(300)),
        burst_bytes: 1000 + chance.below(9000) as usize,
        keys: chance.below(5) as usize,
    }
}

#[test]
fn a_reader_gets_all_that_is_there_in_order_and_what_it_does_not_get_is_lost_or_superseded() {
    for seed in 0..300 {
        let mut chance = Chance(seed);
        let bounds = bounds(&mut chance);
        let (mut log, mut model, mut now) = (Log::default(), Model::default(), Instant::ZERO);
        let mut held = u64::MAX;
        for _ in 0..200 {
            now = now.saturating_add(Duration::from_millis(chance.below(20)));
            let key = (chance.below(3) > 0 && bounds.keys > 0).then(|| chance.below(7));
            let payload = vec![b'x'; chance.below(100) as usize];
            let frame = Frame::binary(&payload);
            let name = key.map(|key| key.to_string());
            if chance.below(12) == 0 {
                let lost = 1 + chance.below(5);
                log.lose(lost);
                (0..lost).for_each(|_| model.0.push((None, None, now)));
                log.trim(&bounds, held, now);
                look(&log, &model, &bounds, held, now);
                let from = 1 + chance.below(log.head() + 1);
                read(&log, &model, from, chance.below(2) == 0, chance.below(2000) as usize);
            }
            model.0.push((key, Some(payload), now));
            assert_eq!(log.append(frame, name.as_deref(), now), model.0.len() as u64);
            match chance.below(10) {
                0 => held = log.head(),
                1 => held = u64::MAX,
                _ => {}
            }
            let used = if chance.below(20) == 0 { bounds.least() } else { bounds };
            log.trim(&used, held, now);
            look(&log, &model, &bounds, held, now);
            let from = 1 + chance.below(log.head() + 1);
            read(&log, &model, from, chance.below(2) == 0, chance.below(2000) as usize);
        }
        // Nothing is left when all of it is old.
        log.trim(&Bounds { keys: 0, ..bounds }, u64::MAX, now.saturating_add(bounds.time));
        assert_eq!((log.bytes(), log.messages(), log.newest.len()), (0, 0, 0), "seed {seed}");
    }
}

fn look(log: &Log, model: &Model, bounds: &Bounds, held: u64, now: Instant) {
    let all: Vec<_> = log.entries.iter().map(|entry| entry.message.sequence).collect();
    let is_lost = |sequence: u64| model.0[sequence as usize - 1].1.is_none();
    let wanted = (log.oldest()..=log.head()).filter(|sequence| !is_lost(*sequence));
    assert_eq!(all, wanted.collect::<Vec<_>>());
    assert!((log.first()..=log.head()).all(|sequence| !is_lost(sequence)));
    let bytes: usize = log.entries.iter().chain(log.kept.values()).map(super::Entry::bytes).sum();
    assert_eq!(log.bytes(), bytes);
    assert!(log.kept.len() <= bounds.keys);
    assert!(log.newest.len() <= log.messages());
    let is_held = log.oldest() >= held && bytes <= bounds.burst_bytes;
    if !is_held {
        assert!(log.entries.len() <= bounds.messages && bytes <= bounds.bytes.max(bounds.burst_bytes));
        let oldest = log.entries.front().map(|entry| entry.at);
        assert!(oldest.is_none_or(|at| at.saturating_add(bounds.time) > now));
    }
    for entry in &log.entries {
        let sequence = entry.message.sequence;
        assert_eq!(entry.is_superseded, model.is_superseded(sequence));
    }
    for sequence in log.kept.keys() {
        assert!(!model.is_superseded(*sequence) && *sequence < log.oldest());
    }
    for sequence in 1..log.oldest() {
        let is_there = log.kept.contains_key(&sequence) || model.is_superseded(sequence);
        assert!(is_there || sequence <= log.lost(), "{sequence} is gone unseen");
    }
}

fn read(log: &Log, model: &Model, from: u64, newest: bool, bytes_max: usize) {
    let read = log.read(from, newest, bytes_max);
    assert_eq!(read.head, log.head());
    let mut next = from;
    for message in &read.messages {
        assert!(message.sequence >= next);
        for skipped in next..message.sequence {
            let is_lost = skipped <= read.lost;
            assert!(is_lost || newest && model.is_superseded(skipped), "{skipped} of {from}");
        }
        assert_eq!(Some(message.frame.payload()), model.0[message.sequence as usize - 1].1.as_deref());
        next = message.sequence + 1;
    }
    if read.is_complete {
        assert!((next..=log.head()).all(|rest| rest <= read.lost));
        assert_eq!(log.count_since(from, newest), read.messages.len() as u64);
        let is_whole = !newest && read.messages.len() as u64 == log.head() + 1 - from;
        assert!(newest || log.has_all_since(from, newest) == is_whole);
    } else {
        assert!(!read.messages.is_empty());
    }
    if newest && log.has_all_since(from, true) && read.is_complete {
        let got: Vec<_> = read.messages.iter().map(|message| message.sequence).collect();
        let wanted = (from..=log.head()).filter(|sequence| !model.is_superseded(*sequence));
        assert_eq!(got, wanted.collect::<Vec<_>>());
    }
}
