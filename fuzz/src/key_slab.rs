//! Keys issued, used, removed and reclaimed in any order, against plain maps.
//!
//! Each step is two bytes: what to do, and with which of the keys issued so far. Stale and invented keys
//! find nothing, live ones find their value, and no index changes hands within a batch.

use std::collections::{BTreeMap, BTreeSet};

use netpoll_core::internals::{Key, KeyMap, KeySlab};

/// Few, so that a full table is reached.
const VALUES_MAX: usize = 24;

/// Plays the steps in `data`.
pub fn run(data: &[u8]) {
    let mut slab = KeySlab::with_limit(1, VALUES_MAX);
    let mut map = KeyMap::new();
    let mut live = BTreeMap::<Key, u32>::new();
    let mut retired = BTreeSet::<usize>::new();
    let mut issued = Vec::<Key>::new();

    for (step, pair) in data.chunks_exact(2).enumerate() {
        let (kind, pick, value) = (pair[0], pair[1] as usize, step as u32);
        let picked = issued.get(pick % issued.len().max(1)).copied();
        match (kind % 8, picked) {
            (0..=2, _) => {
                let full = live.len() + retired.len() == VALUES_MAX;
                let Some(key) = slab.insert_with(|key| (key, value)) else {
                    assert!(full, "refused with room left");
                    continue;
                };
                assert!(!full, "more values than the limit");
                assert!(!issued.contains(&key), "{key:?} was issued before");
                assert!(!retired.contains(&key.index()), "{key:?} came back within the batch");
                assert!(live.keys().all(|other| other.index() != key.index()), "{key:?} shares its index");
                map.insert(key, value);
                live.insert(key, value);
                issued.push(key);
            }
            (3..=4, Some(key)) => {
                let expected = live.remove(&key);
                retired.extend(expected.map(|_| key.index()));
                assert_eq!(slab.remove(key), expected.map(|value| (key, value)));
                assert_eq!(map.remove(key), expected);
            }
            (5, Some(key)) => {
                assert_eq!(slab.get(key).map(|(_, value)| value), live.get(&key));
                assert_eq!(map.get(key), live.get(&key));
                assert_eq!(slab.contains(key), live.contains_key(&key));
            }
            (6, Some(key)) => {
                let invented = Key::from_bits(key.to_bits() ^ 1 << (pick % 60));
                assert_eq!(slab.get_mut(invented).map(|(_, value)| *value), live.get(&invented).copied());
                assert_eq!(map.get_mut(invented).copied(), live.get(&invented).copied());
            }
            _ => {
                slab.reclaim();
                retired.clear();
            }
        }
        assert_eq!((slab.len(), slab.is_empty()), (live.len(), live.is_empty()));
        assert_eq!(map.len(), live.len());
    }
    assert!(slab.iter().all(|(key, &(own, _))| key == own), "a value was made for another key");
    assert_eq!(slab.iter().map(|(key, &(_, value))| (key, value)).collect::<BTreeMap<_, _>>(), live);
    assert_eq!(slab.keys().count(), live.len());
    assert_eq!(map.iter().map(|(key, &value)| (key, value)).collect::<BTreeMap<_, _>>(), live);
}
