//! How far a HAProxy's memory is from the wanted map.
//!
//! A read-back of a million entries is compared as it streams in: it costs a bit an entry and the
//! differences themselves, never a second map an instance.

use super::diff::Diff;
use crate::EntryMap;
use crate::revision::ChangeCounts;

/// The most surplus keys that are kept by name; with more than these a swap is cheaper anyway.
const NAMED_EXTRA: usize = 20_000;

/// What must change in an instance's memory so that it holds the wanted map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deviation {
    /// Positions in the wanted map of keys that memory lacks.
    pub missing: Vec<u32>,
    /// Positions in the wanted map of keys that memory holds with another value.
    pub wrong: Vec<u32>,
    /// Keys in memory that the wanted map lacks: the first 20,000 by name, sorted.
    pub extra: Vec<Box<[u8]>>,
    /// How many such keys there are in all.
    pub extra_count: usize,
    /// Entries whose key stood in memory before them already.
    pub duplicates: usize,
}

impl Deviation {
    /// From a map that memory is known to hold to the wanted one.
    pub fn between(held: &EntryMap, wanted: &EntryMap) -> Self {
        Self::from_diff(Diff::between(held, wanted), held)
    }

    /// The same, from the difference that lies between the two.
    pub fn from_diff(diff: Diff, held: &EntryMap) -> Self {
        let Diff { added, moved, removed } = diff;
        Self {
            missing: added,
            wrong: moved.into_iter().map(|(_, wanted)| wanted).collect(),
            extra_count: removed.len(),
            extra: removed
                .into_iter()
                .take(NAMED_EXTRA)
                .map(|at| held.key(at as usize).as_bytes().into())
                .collect(),
            duplicates: 0,
        }
    }

    pub fn is_none(&self) -> bool {
        self.counts().total() == 0 && self.duplicates == 0
    }

    pub fn counts(&self) -> ChangeCounts {
        ChangeCounts {
            added: self.missing.len(),
            moved: self.wrong.len(),
            removed: self.extra_count,
        }
    }
}

/// Compares a map as it is read back, entry by entry in any order, with the wanted one.
#[derive(Debug)]
pub struct ReadBack<'a> {
    wanted: &'a EntryMap,
    seen: Vec<u64>,
    cursor: usize,
    entries: usize,
    deviation: Deviation,
}

impl<'a> ReadBack<'a> {
    pub fn new(wanted: &'a EntryMap) -> Self {
        Self {
            wanted,
            seen: vec![0; wanted.len().div_ceil(64)],
            cursor: 0,
            entries: 0,
            deviation: Deviation::default(),
        }
    }

    pub fn entry(&mut self, key: &[u8], value: &[u8]) {
        self.entries += 1;
        // What we staged comes back in the order we staged it, so the next position is nearly
        // always the right one.
        let expected =
            self.cursor < self.wanted.len() && self.wanted.key(self.cursor).as_bytes() == key;
        let Some(at) = (if expected { Some(self.cursor) } else { self.wanted.find(key) }) else {
            self.deviation.extra_count += 1;
            if self.deviation.extra.len() < NAMED_EXTRA {
                self.deviation.extra.push(key.into());
            }
            return;
        };
        self.cursor = at + 1;
        let (word, bit) = (at / 64, 1 << (at % 64));
        if self.seen[word] & bit != 0 {
            self.deviation.duplicates += 1;
            return;
        }
        self.seen[word] |= bit;
        if self.wanted.value(at).as_bytes() != value {
            self.deviation.wrong.push(at as u32);
        }
    }

    pub fn entries(&self) -> usize {
        self.entries
    }

    /// The difference, once every entry has been taken.
    pub fn finish(self) -> Deviation {
        let Self { wanted, seen, mut deviation, .. } = self;
        deviation.missing = (0..wanted.len())
            .filter(|at| seen[at / 64] & (1 << (at % 64)) == 0)
            .map(|at| at as u32)
            .collect();
        deviation.wrong.sort_unstable();
        deviation.extra.sort_unstable();
        let named = deviation.extra.len();
        deviation.extra.dedup();
        let repeated = named - deviation.extra.len();
        deviation.extra_count -= repeated;
        deviation.duplicates += repeated;
        deviation
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::diff::tests::any_map;
    use super::*;

    fn read(wanted: &EntryMap, memory: &[(&str, &str)]) -> Deviation {
        let mut read_back = ReadBack::new(wanted);
        for (key, value) in memory {
            read_back.entry(key.as_bytes(), value.as_bytes());
        }
        read_back.finish()
    }

    #[test]
    fn duplicates_are_found_even_where_lookups_are_right() {
        let wanted: EntryMap = [("a", "m1"), ("b", "m1")].into_iter().collect();
        assert_eq!(read(&wanted, &[("a", "m1"), ("b", "m1"), ("a", "m2")]).duplicates, 1);
        let deviation = read(&wanted, &[("a", "m1"), ("x", "m1"), ("b", "m1"), ("x", "m1")]);
        assert_eq!((deviation.duplicates, deviation.extra_count), (1, 1));
        assert!(!deviation.is_none());
    }

    proptest! {
        #[test]
        fn reading_a_map_back_in_any_order_finds_what_a_comparison_finds(
            held in any_map(),
            wanted in any_map(),
            seed: u64,
        ) {
            let mut memory: Vec<_> = held.iter().collect();
            fastrand::Rng::with_seed(seed).shuffle(&mut memory);
            let deviation = read(&wanted, &memory);
            prop_assert_eq!(&deviation, &Deviation::between(&held, &wanted));
            prop_assert_eq!(deviation.is_none(), held == wanted);
        }
    }
}
