//! The node -> master map in memory: sorted by key, keys unique, built for a million entries.
//!
//! One text holds every key, in their order and one right after the other, and one table every
//! distinct value; an entry is 12 bytes beside its key. So whoever goes through a map goes through
//! memory from one end to the other, and a search is one pass over the text. A map never changes
//! once it is built, so sources, revisions and instances share one copy behind an `Arc`. Where
//! somebody needs them, the times at which a producer gave the entries lie beside them, at 4 bytes
//! each.

use jiff::Timestamp;
use rustc_hash::FxHashMap;
use xxhash_rust::xxh3::Xxh3Default;

use crate::names::{self, Invalid};

mod patched;
mod search;

pub use search::{Found, Search};

#[derive(Debug, Clone, Copy)]
struct Entry {
    start: u32,
    value: u32,
    length: u8,
    /// The source named another value too, and it is not known which counts.
    disputed: bool,
}

#[derive(Debug, Clone, Default)]
pub struct EntryMap {
    keys: String,
    entries: Vec<Entry>,
    values: Vec<Box<str>>,
    disputed: usize,
    /// When each entry was given, in seconds since 1970; 0 where that is not known. Empty where it
    /// is known of none.
    times: Vec<u32>,
}

impl EntryMap {
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The key at a position of the sorted order.
    ///
    /// # Panics
    /// When `index` is not below [`EntryMap::len`].
    pub fn key(&self, index: usize) -> &str {
        key_of(&self.keys, self.entries[index])
    }

    /// The value at a position of the sorted order.
    ///
    /// # Panics
    /// When `index` is not below [`EntryMap::len`].
    pub fn value(&self, index: usize) -> &str {
        &self.values[self.entries[index].value as usize]
    }

    /// Where `key` stands in the sorted order.
    pub fn find(&self, key: &[u8]) -> Option<usize> {
        self.entries.binary_search_by(|entry| key_of(&self.keys, *entry).as_bytes().cmp(key)).ok()
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.find(key.as_bytes()).map(|index| self.value(index))
    }

    /// Every entry as (key, value), sorted by key.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        (0..self.len()).map(|index| (self.key(index), self.value(index)))
    }

    /// How many entries each value has, sorted by value: a master's load in nodes.
    pub fn load(&self) -> Vec<(&str, usize)> {
        let mut counts = vec![0usize; self.values.len()];
        for entry in &self.entries {
            counts[entry.value as usize] += 1;
        }
        let mut load: Vec<_> = self
            .values
            .iter()
            .map(|value| &**value)
            .zip(counts)
            .filter(|(_, count)| *count > 0)
            .collect();
        load.sort_unstable();
        load
    }

    /// Whether a source named another value for the key at a position too, and it is not known
    /// which counts.
    ///
    /// # Panics
    /// When `index` is not below [`EntryMap::len`].
    pub fn is_disputed(&self, index: usize) -> bool {
        self.entries[index].disputed
    }

    /// When its producer gave the entry at a position of the sorted order, in whole seconds; none
    /// where that is not known.
    pub fn time(&self, index: usize) -> Option<Timestamp> {
        let seconds = self.times.get(index).copied().filter(|seconds| *seconds > 0)?;
        Timestamp::from_second(i64::from(seconds)).ok()
    }

    pub fn disputed(&self) -> usize {
        self.disputed
    }

    /// The same keys with other values at these positions of the sorted order, and none disputed
    /// any more. The values are those of some map, and so valid.
    ///
    /// # Panics
    /// When a position is not below [`EntryMap::len`].
    pub fn settled<'a>(&self, changed: impl Iterator<Item = (usize, &'a str)>) -> Self {
        let mut map = self.clone();
        map.disputed = 0;
        map.entries.iter_mut().for_each(|entry| entry.disputed = false);
        let mut ids: FxHashMap<Box<str>, u32> =
            map.values.iter().zip(0u32..).map(|(value, id)| (value.clone(), id)).collect();
        for (index, value) in changed {
            let next = map.values.len() as u32;
            let id = *ids.entry(value.into()).or_insert(next);
            if id == next {
                map.values.push(value.into());
            }
            map.entries[index].value = id;
        }
        map
    }

    /// Lays the keys one after the other in the order of the entries. Repeated keys leave no gap.
    fn lay_keys_in_order(&mut self) {
        let length = self.entries.iter().map(|entry| usize::from(entry.length)).sum();
        let mut keys = String::with_capacity(length);
        for entry in &mut self.entries {
            let key = key_of(&self.keys, *entry);
            entry.start = keys.len() as u32;
            keys.push_str(key);
        }
        self.keys = keys;
    }

    /// Names exactly these contents, on every machine and in every version: XXH3 over the lines of
    /// a map file.
    pub fn digest(&self) -> u64 {
        let mut hasher = Xxh3Default::new();
        for (key, value) in self.iter() {
            for part in [key, " ", value, "\n"] {
                hasher.update(part.as_bytes());
            }
        }
        hasher.digest()
    }
}

impl PartialEq for EntryMap {
    fn eq(&self, other: &Self) -> bool {
        let flags = |map: &Self| map.entries.iter().map(|entry| entry.disputed).collect::<Vec<_>>();
        self.len() == other.len()
            && self.disputed == other.disputed
            && self.iter().eq(other.iter())
            && self.times == other.times
            && (self.disputed == 0 || flags(self) == flags(other))
    }
}

impl Eq for EntryMap {}

/// A time as a map has it.
fn seconds(time: Timestamp) -> u32 {
    u32::try_from(time.as_second()).unwrap_or(0)
}

fn key_of(keys: &str, entry: Entry) -> &str {
    let start = entry.start as usize;
    &keys[start..start + usize::from(entry.length)]
}

/// Collects entries in any order and makes an [`EntryMap`] of them.
#[derive(Debug, Default)]
pub struct EntryMapBuilder {
    map: EntryMap,
    value_ids: FxHashMap<Box<str>, u32>,
    out_of_order: bool,
}

impl EntryMapBuilder {
    pub fn new() -> Self {
        Self::default()
    }

    /// Room for `entries` entries with `key_bytes` bytes of keys in all, so that a copy of a known
    /// map does not grow step by step.
    pub fn with_capacity(entries: usize, key_bytes: usize) -> Self {
        let (keys, entries) = (String::with_capacity(key_bytes), Vec::with_capacity(entries));
        Self { map: EntryMap { keys, entries, ..EntryMap::default() }, ..Self::default() }
    }

    /// How many entries were taken so far, repeated keys included.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Takes one entry.
    /// An invalid one leaves the builder as it was.
    pub fn push(&mut self, key: &str, value: &str) -> Result<(), Invalid> {
        names::check_key(key)?;
        let value = self.value_id(value)?;
        // 4 GiB of keys is 16 million of the longest ones: past every bound on an answer's size.
        let start = u32::try_from(self.map.keys.len()).map_err(|_| Invalid::KeyTooLong)?;
        let length = u8::try_from(key.len()).map_err(|_| Invalid::KeyTooLong)?;
        if let Some(last) = self.map.entries.last() {
            self.out_of_order |= key_of(&self.map.keys, *last) >= key;
        }
        self.map.keys.push_str(key);
        self.map.entries.push(Entry { start, value, length, disputed: false });
        Ok(())
    }

    /// Takes an entry that was checked before: of another map, or of an override.
    ///
    /// # Panics
    /// When it breaks a rule all the same, or all keys together have more than 4 GiB, which the
    /// bound on a source's answer prevents.
    #[expect(clippy::expect_used, reason = "the caller's entries were checked where they came in")]
    pub fn push_checked(&mut self, key: &str, value: &str) {
        self.push(key, value).expect("a checked entry");
    }

    /// Takes the entry at a position of a map, disputed where it is so there.
    ///
    /// # Panics
    /// When `index` is not below the map's length; and as [`EntryMapBuilder::push_checked`].
    pub fn copy(&mut self, map: &EntryMap, index: usize) {
        self.push_checked(map.key(index), map.value(index));
        if let Some(last) = self.map.entries.last_mut() {
            last.disputed = map.is_disputed(index);
        }
        if let Some(time) = map.times.get(index) {
            self.map.times.resize(self.map.entries.len() - 1, 0);
            self.map.times.push(*time);
        }
    }

    /// Says when the entries were given, in the order taken, as far as that is known.
    pub fn with_times(mut self, times: impl Iterator<Item = Option<Timestamp>>) -> Self {
        let seconds = times.map(|time| time.map_or(0, seconds));
        self.map.times = seconds.take(self.map.entries.len()).collect();
        self
    }

    fn value_id(&mut self, value: &str) -> Result<u32, Invalid> {
        if let Some(id) = self.value_ids.get(value) {
            return Ok(*id);
        }
        names::check_value(value)?;
        let id = u32::try_from(self.map.values.len()).map_err(|_| Invalid::ValueTooLong)?;
        self.map.values.push(value.into());
        self.value_ids.insert(value.into(), id);
        Ok(id)
    }

    /// The sorted map. Where a key was taken more than once, `choose` gets its positions in the
    /// order taken, and says which of them stays, and whether that is disputed.
    pub fn finish_with(self, mut choose: impl FnMut(Repeated<'_>) -> (usize, bool)) -> EntryMap {
        let Self { mut map, out_of_order, .. } = self;
        if !map.times.is_empty() {
            map.times.resize(map.entries.len(), 0);
        }
        if out_of_order {
            let times = std::mem::take(&mut map.times);
            let keys = &map.keys;
            let mut order: Vec<(u32, Entry)> = (0u32..).zip(map.entries.iter().copied()).collect();
            // By key, then by arrival, so that `choose` sees the repeats as they came.
            order.sort_unstable_by(|(a_at, a), (b_at, b)| {
                key_of(keys, *a).cmp(key_of(keys, *b)).then(a_at.cmp(b_at))
            });
            map.entries.clear();
            for group in order.chunk_by(|(_, a), (_, b)| key_of(keys, *a) == key_of(keys, *b)) {
                let (at, kept) = match group {
                    [(at, only)] => (*at, *only),
                    repeated => {
                        let candidates: Vec<_> = repeated
                            .iter()
                            .map(|(at, entry)| (*at as usize, &*map.values[entry.value as usize]))
                            .collect();
                        let (chosen, disputed) = choose(Repeated {
                            key: key_of(keys, repeated[0].1),
                            candidates: &candidates,
                        });
                        let (at, entry) = repeated[chosen.min(repeated.len() - 1)];
                        (at, Entry { disputed, ..entry })
                    }
                };
                map.entries.push(kept);
                map.times.extend(times.get(at as usize));
            }
            map.lay_keys_in_order();
        }
        map.disputed = map.entries.iter().filter(|entry| entry.disputed).count();
        map.times.shrink_to_fit();
        map.keys.shrink_to_fit();
        map.entries.shrink_to_fit();
        map
    }

    /// The sorted map; of a repeated key the first entry stays, as in a HAProxy lookup.
    pub fn finish(self) -> EntryMap {
        self.finish_with(|_| (0, false))
    }
}

/// A key that was taken more than once.
#[derive(Debug)]
pub struct Repeated<'a> {
    pub key: &'a str,
    /// What was taken for it, in order: the position among all that was pushed, and the value.
    pub candidates: &'a [(usize, &'a str)],
}

impl<'a> FromIterator<(&'a str, &'a str)> for EntryMap {
    /// For entries known to be valid (tests, fixtures): an invalid one is left out.
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(entries: I) -> Self {
        let mut builder = EntryMapBuilder::new();
        for (key, value) in entries {
            let _ = builder.push(key, value);
        }
        builder.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn entries_come_out_sorted_whatever_the_order_they_came_in() {
        let map: EntryMap = [("b", "m2"), ("a", "m1"), ("c", "m1")].into_iter().collect();
        assert_eq!(map.iter().collect::<Vec<_>>(), [("a", "m1"), ("b", "m2"), ("c", "m1")]);
        assert_eq!(map.load(), [("m1", 2), ("m2", 1)]);
        assert_eq!(map.get("b"), Some("m2"));
        assert_eq!(map.get("d"), None);
    }

    #[test]
    fn an_invalid_entry_leaves_the_builder_as_it_was() {
        let mut builder = EntryMapBuilder::new();
        builder.push("a", "m1").unwrap();
        assert_eq!(builder.push("b", "m 2"), Err(Invalid::ValueWhitespace));
        assert_eq!(builder.push("", "m1"), Err(Invalid::EmptyKey));
        assert_eq!(builder.finish().iter().collect::<Vec<_>>(), [("a", "m1")]);
    }

    #[test]
    fn of_a_repeated_key_the_chosen_entry_stays() {
        let build = || {
            let mut builder = EntryMapBuilder::new();
            for (key, value) in [("b", "m1"), ("a", "m1"), ("b", "m2")] {
                builder.push(key, value).unwrap();
            }
            builder
        };
        assert_eq!(build().finish().get("b"), Some("m1"));
        let mut seen = Vec::new();
        let map = build().finish_with(|repeated| {
            seen.push((
                repeated.key.to_owned(),
                repeated
                    .candidates
                    .to_vec()
                    .iter()
                    .map(|(at, value)| (*at, value.to_string()))
                    .collect::<Vec<_>>(),
            ));
            (1, true)
        });
        assert_eq!(map.get("b"), Some("m2"));
        assert_eq!(
            (map.len(), map.disputed(), map.is_disputed(0), map.is_disputed(1)),
            (2, 1, false, true)
        );
        let mut copy = EntryMapBuilder::new();
        (0..2).for_each(|at| copy.copy(&map, at));
        assert_eq!(copy.finish(), map);
        let settled = map.settled([(1, "m9")].into_iter());
        assert_eq!(
            (settled.get("a"), settled.get("b"), settled.disputed()),
            (Some("m1"), Some("m9"), 0)
        );
        assert_ne!(map.settled(std::iter::empty()), map, "an answer that is clear is another one");
        assert_eq!(seen, [("b".to_owned(), vec![(0, "m1".to_owned()), (2, "m2".to_owned())])]);
    }

    #[test]
    fn the_times_of_entries_stay_with_them() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut builder = EntryMapBuilder::new();
        for (key, value) in [("b", "m1"), ("a", "m1"), ("b", "m2"), ("c", "m3")] {
            builder.push(key, value).unwrap();
        }
        let map = builder
            .with_times([Some(at(2)), None, Some(at(9))].into_iter())
            .finish_with(|_| (1, false));
        let times = |map: &EntryMap| (0..map.len()).map(|at| map.time(at)).collect::<Vec<_>>();
        assert_eq!(times(&map), [None, Some(at(9)), None]);
        let mut copy = EntryMapBuilder::new();
        copy.push_checked("0", "m1");
        (0..3).for_each(|at| copy.copy(&map, at));
        copy.push_checked("d", "m1");
        assert_eq!(times(&copy.finish()), [None, None, Some(at(9)), None, None]);
        assert_eq!(times(&map.settled([(0, "m7")].into_iter())), times(&map));
        let untimed: EntryMap = map.iter().collect();
        assert!(untimed != map && times(&untimed) == [None; 3]);
    }

    proptest! {
        #[test]
        fn a_map_holds_what_a_plain_ordered_map_would(
            entries in proptest::collection::vec(("[a-f]{1,3}", "[m-p]{1,2}"), 0..60),
        ) {
            let map: EntryMap =
                entries.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            let mut plain = BTreeMap::new();
            for (key, value) in &entries {
                plain.entry(key.as_str()).or_insert(value.as_str());
            }
            prop_assert_eq!(
                map.iter().collect::<Vec<_>>(),
                plain.iter().map(|(k, v)| (*k, *v)).collect::<Vec<_>>()
            );
            let again: EntryMap = map.iter().collect();
            prop_assert_eq!(map.digest(), again.digest());
            for (index, (key, value)) in map.iter().enumerate() {
                prop_assert_eq!(map.find(key.as_bytes()), Some(index));
                prop_assert_eq!(map.get(key), Some(value));
            }
        }
    }
}
