//! A map with a few entries changed. What lies between them is copied as it is, so that one node
//! more costs a map of a million no search of its text and no check of its names.

use jiff::Timestamp;
use rustc_hash::FxHashMap;

use super::{Entry, EntryMap, key_of, seconds};

impl EntryMap {
    /// The map with these entries changed: the keys sorted, each once, with the new value and the
    /// time at which it was given, if that is to be kept; without a value the entry goes. Keys and
    /// values are valid.
    pub fn patched<'a>(
        &self,
        changes: impl Iterator<Item = (&'a str, Option<(&'a str, Option<Timestamp>)>)>,
    ) -> Self {
        let mut patch = Patch::of(self);
        for (key, new) in changes {
            let (at, found) = self.place(key);
            patch.copy_up_to(at);
            patch.copied += usize::from(found);
            if let Some((value, time)) = new {
                patch.push(key, value, time);
            }
        }
        patch.copy_up_to(self.len());
        let Patch { mut map, .. } = patch;
        if !map.times.is_empty() {
            map.times.resize(map.entries.len(), 0);
        }
        map
    }

    /// The position of a key, or of the first one behind it.
    fn place(&self, key: &str) -> (usize, bool) {
        let order = |entry: &Entry| key_of(&self.keys, *entry).cmp(key);
        match self.entries.binary_search_by(order) {
            Ok(at) => (at, true),
            Err(at) => (at, false),
        }
    }
}

/// A map that is on its way.
struct Patch<'a> {
    before: &'a EntryMap,
    /// How many entries of that one are done with.
    copied: usize,
    map: EntryMap,
    ids: FxHashMap<Box<str>, u32>,
}

impl<'a> Patch<'a> {
    fn of(before: &'a EntryMap) -> Self {
        let map = EntryMap {
            keys: String::with_capacity(before.keys.len() + 64),
            entries: Vec::with_capacity(before.entries.len() + 1),
            values: before.values.clone(),
            disputed: before.disputed,
            times: Vec::with_capacity(before.times.len()),
        };
        let ids = before.values.iter().zip(0u32..).map(|(value, id)| (value.clone(), id));
        Self { before, copied: 0, map, ids: ids.collect() }
    }

    fn copy_up_to(&mut self, end: usize) {
        let entries = &self.before.entries[self.copied.min(end)..end];
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return };
        // Keys lie in the order of the entries, without a gap.
        let (start, after) = (first.start as usize, last.start as usize + usize::from(last.length));
        let moved = self.map.keys.len() as u32;
        self.map.keys.push_str(&self.before.keys[start..after]);
        let shifted = |entry: &Entry| Entry { start: entry.start - first.start + moved, ..*entry };
        self.map.entries.extend(entries.iter().map(shifted));
        let times = self.before.times.iter().take(end).skip(self.copied);
        if times.len() > 0 {
            self.map.times.resize(self.map.entries.len() - entries.len(), 0);
            self.map.times.extend(times);
        }
        self.copied = end;
    }

    fn push(&mut self, key: &str, value: &str, time: Option<Timestamp>) {
        let next = self.map.values.len() as u32;
        let id = match self.ids.get(value) {
            Some(id) => *id,
            None => {
                self.ids.insert(value.into(), next);
                self.map.values.push(value.into());
                next
            }
        };
        let (start, length) = (self.map.keys.len() as u32, key.len() as u8);
        self.map.keys.push_str(key);
        self.map.entries.push(Entry { start, value: id, length, disputed: false });
        if let Some(time) = time {
            self.map.times.resize(self.map.entries.len() - 1, 0);
            self.map.times.push(seconds(time));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::EntryMapBuilder;

    #[test]
    fn the_times_of_entries_stay_with_them() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut builder = EntryMapBuilder::new();
        for key in ["a", "c"] {
            builder.push(key, "m1").unwrap();
        }
        let map = builder.with_times([Some(at(1)), Some(at(3))].into_iter()).finish();
        let times = |map: &EntryMap| -> Vec<_> { (0..map.len()).map(|at| map.time(at)).collect() };
        let changes = [
            ("b", Some(("m2", Some(at(2))))),
            ("c", None),
            ("d", Some(("m1", Some(at(4))))),
            ("e", Some(("m1", None))),
        ];
        let after = map.patched(changes.into_iter());
        assert_eq!(times(&after), [Some(at(1)), Some(at(2)), Some(at(4)), None]);
        let first = EntryMap::default().patched(changes[2..].iter().copied());
        assert_eq!(times(&first), [Some(at(4)), None]);
        let untimed: EntryMap = [("a", "m1")].into_iter().collect();
        assert_eq!(times(&untimed.patched(changes[..1].iter().copied())), [None, Some(at(2))]);
        let none = untimed.patched(changes[3..].iter().copied());
        assert_eq!(none, [("a", "m1"), ("e", "m1")].into_iter().collect());
    }

    proptest! {
        #[test]
        fn a_patched_map_is_what_a_plain_ordered_map_would_be(
            before in proptest::collection::btree_map("[a-f]{1,3}", "[mn]", 0..40),
            changes in proptest::collection::btree_map(
                "[a-g]{1,3}",
                proptest::option::of("[m-p]"),
                0..20,
            ),
        ) {
            let map = |plain: &BTreeMap<String, String>| -> EntryMap {
                plain.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect()
            };
            let mut after = before.clone();
            for (key, new) in &changes {
                match new {
                    Some(value) => _ = after.insert(key.clone(), value.clone()),
                    None => _ = after.remove(key),
                }
            }
            let changes = changes
                .iter()
                .map(|(key, new)| (key.as_str(), new.as_deref().map(|value| (value, None))));
            let patched = map(&before).patched(changes);
            prop_assert_eq!(patched.digest(), map(&after).digest());
            prop_assert_eq!(patched, map(&after));
        }
    }
}
