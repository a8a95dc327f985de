//! Keys against a model, and the rules one by one.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[test]
fn a_key_shows_its_parts_and_survives_the_kernel() {
    let key = Key::new(1, 3, 7);
    assert_eq!(format!("{key:?}"), "t1:i7g3");
    assert_eq!(Key::from_bits(key.to_bits()), key);

    let last = Key::new(u8::MAX, GENERATION_MAX, INDEX_MAX);
    assert_eq!(last.to_bits(), u64::MAX >> 4);
    assert_eq!((last.table(), last.generation(), last.index()), (u8::MAX, GENERATION_MAX, INDEX_MAX));
    for bits in [0, 1, 15] {
        assert_eq!(Key::split_driver_bits(last.with_driver_bits(bits)), (last, bits));
        assert_eq!(Key::split_driver_bits(key.with_driver_bits(bits)), (key, bits));
    }
}

#[test]
fn a_removed_key_finds_nothing() {
    let mut slab = KeySlab::new(0);
    let key = slab.insert_with(|_| "a").unwrap();
    assert_eq!(slab.remove(key), Some("a"));
    assert_eq!(slab.get(key), None);
    assert_eq!(slab.get_mut(key), None);
    assert_eq!(slab.remove(key), None);
    assert!(slab.is_empty() && slab.keys().next().is_none());
}

#[test]
fn an_index_is_not_used_again_before_the_batch_ends() {
    let mut slab = KeySlab::new(0);
    let old = slab.insert_with(|_| 1).unwrap();
    slab.remove(old);

    let same_batch = slab.insert_with(|_| 2).unwrap();
    slab.reclaim();
    let next_batch = slab.insert_with(|_| 3).unwrap();

    assert_ne!(same_batch.index(), old.index());
    assert_eq!(next_batch.index(), old.index());
    assert!(!slab.contains(old), "the generation has moved on");
    assert_eq!((slab.get(same_batch), slab.get(next_batch)), (Some(&2), Some(&3)));
}

#[test]
fn an_index_that_is_taken_is_free_at_once_and_one_that_is_retired_is_not_taken() {
    let mut slab = KeySlab::new(0);
    let old = slab.insert_with(|_| 1).unwrap();
    assert_eq!((slab.take(old), slab.take(old), slab.len()), (Some(1), None, 0));
    let new = slab.insert_with(|_| 2).unwrap();
    assert_eq!((new.index(), slab.get(old)), (old.index(), None));

    assert_eq!((slab.remove(new), slab.take(new)), (Some(2), None));
    assert_ne!(slab.insert_with(|_| 3).unwrap().index(), new.index());
    slab.reclaim();
    assert_eq!(slab.insert_with(|_| 4).unwrap().index(), new.index());
}

#[test]
fn a_key_of_another_table_finds_nothing() {
    let (mut here, mut there) = (KeySlab::new(1), KeySlab::new(2));
    let key = here.insert_with(|key| key).unwrap();
    there.insert_with(|key| key);
    assert_eq!(here.get(key), Some(&key), "the value was made for its key");
    assert_eq!(there.get(key), None);
}

#[test]
fn a_full_table_makes_nothing() {
    let mut slab = KeySlab::with_limit(0, 2);
    let first = slab.insert_with(|_| ()).unwrap();
    slab.insert_with(|_| ()).unwrap();
    assert_eq!(slab.insert_with(|_| unreachable!("there is no room")), None);

    slab.remove(first);
    assert_eq!(slab.insert_with(|_| ()), None, "a retired index is not free yet");
    slab.reclaim();
    assert!(slab.insert_with(|_| ()).is_some());
}

#[test]
fn generations_wrap() {
    let mut slab = KeySlab { generation: GENERATION_MAX, ..KeySlab::new(0) };
    let key = slab.insert_with(|_| 'x').unwrap();
    assert_eq!((key.generation(), slab.get(key)), (0, Some(&'x')));
}

#[test]
fn a_map_does_not_mix_owners_of_one_index() {
    let mut map = KeyMap::new();
    let (old, new) = (Key::new(2, 1, 5), Key::new(2, 2, 5));
    assert_eq!(map.insert(old, "old"), None);
    assert_eq!(map.get(new), None);
    assert_eq!(map.remove(new), None);

    assert_eq!(map.insert(new, "new"), Some("old"), "what is displaced comes back");

    assert_eq!((map.get(old), map.len()), (None, 1));
    assert_eq!(map.get_mut(new), Some(&mut "new"));
    assert_eq!(map.iter().collect::<Vec<_>>(), [(new, &"new")]);
    assert_eq!((map.remove(new), map.len()), (Some("new"), 0));
}

proptest! {
    #[test]
    fn tables_and_maps_behave_like_ordered_maps(steps in prop::collection::vec((0..8u8, any::<u16>()), 1..200)) {
        let mut slabs = [KeySlab::new(0), KeySlab::new(3)];
        let mut map = KeyMap::new();
        let mut model = BTreeMap::<Key, u16>::new();
        let mut issued = Vec::<Key>::new();
        for (kind, value) in steps {
            let picked = issued.get(value as usize % issued.len().max(1)).copied();
            match (kind, picked) {
                (0..=2, _) => {
                    let key = slabs[usize::from(kind == 0)].insert_with(|_| value).unwrap();
                    prop_assert!(!issued.contains(&key), "never issued twice");
                    map.insert(key, value);
                    model.insert(key, value);
                    issued.push(key);
                }
                (3..=4, Some(key)) => {
                    let removed = model.remove(&key);
                    prop_assert_eq!(slabs[usize::from(key.table() == 3)].remove(key), removed);
                    prop_assert_eq!(map.remove(key), removed);
                }
                (5..=6, Some(key)) => {
                    let slab = &mut slabs[usize::from(key.table() == 3)];
                    let mut expected = model.get_mut(&key);
                    prop_assert_eq!(slab.get_mut(key), expected.as_deref_mut());
                    prop_assert_eq!(map.get(key), expected.as_deref());
                    if let Some(expected) = expected {
                        *expected = !value;
                        *slab.get_mut(key).unwrap() = !value;
                        *map.get_mut(key).unwrap() = !value;
                    }
                }
                _ => slabs.iter_mut().for_each(KeySlab::reclaim),
            }
            prop_assert_eq!(slabs[0].len() + slabs[1].len(), model.len());
            prop_assert_eq!(map.len(), model.len());
        }
        let mut left: Vec<_> = slabs.iter().flat_map(KeySlab::iter).map(|(key, value)| (key, *value)).collect();
        left.sort();
        prop_assert_eq!(&left, &model.clone().into_iter().collect::<Vec<_>>());
        let mut left: Vec<_> = map.iter().map(|(key, value)| (key, *value)).collect();
        left.sort();
        prop_assert_eq!(left, model.into_iter().collect::<Vec<_>>());
    }
}
