//! Pages of the nodes that a person looks for, among a million, without a list of all that match.
//!
//! A prefix is a range of the sorted keys. A part of a name is looked for in the text of all keys
//! at once, and what is found across two of them is passed over. A master is a number by then.

use std::ops::Range;

use memchr::memmem;

use super::EntryMap;

/// Which nodes are looked for: those that all of this is true of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Search {
    /// What their names begin with.
    pub prefix: String,
    /// What their names have somewhere; empty where any name will do.
    pub contains: String,
    /// Their master; none where any will do.
    pub master: Option<String>,
}

/// A page of the nodes that were looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Their positions in the map, in order.
    pub page: Vec<usize>,
    /// How many there are on all pages.
    pub total: usize,
    /// Whether there are more behind this page.
    pub more: bool,
}

impl EntryMap {
    /// The first `limit` nodes behind the name `after` that are looked for, and how many are in
    /// all. `after` need not be the name of a node.
    pub fn search(&self, search: &Search, after: Option<&str>, limit: usize) -> Found {
        let range = self.range_of(&search.prefix);
        let start = after.map_or(0, |after| self.partition(|key| key <= after));
        let master = search.master.as_deref().map(|master| self.id_of_value(master));
        if matches!(master, Some(None)) {
            return Found::default();
        }
        let master = master.flatten();
        let mut page = Page { start, limit, found: Found::default() };
        match (search.contains.is_empty(), master) {
            (true, None) => page.take_range(range),
            (true, Some(master)) => self
                .entries
                .iter()
                .enumerate()
                .take(range.end)
                .skip(range.start)
                .filter(|(_, entry)| entry.value == master)
                .for_each(|(index, _)| page.take(index)),
            (false, master) => self.each_with(&search.contains, range, |index| {
                if master.is_none_or(|master| self.entries[index].value == master) {
                    page.take(index);
                }
            }),
        }
        page.found
    }

    /// The positions of the keys that begin with `prefix`.
    fn range_of(&self, prefix: &str) -> Range<usize> {
        let start = self.partition(|key| key < prefix);
        let end = self.partition(|key| key < prefix || key.starts_with(prefix));
        start..end
    }

    fn partition(&self, is_before: impl Fn(&str) -> bool) -> usize {
        self.entries.partition_point(|entry| is_before(super::key_of(&self.keys, *entry)))
    }

    fn id_of_value(&self, value: &str) -> Option<u32> {
        let at = self.values.iter().position(|known| &**known == value)?;
        u32::try_from(at).ok()
    }

    /// Tells the positions in `range` of the keys that have `part` in them, in order. `part` is
    /// not empty.
    fn each_with(&self, part: &str, range: Range<usize>, mut tell: impl FnMut(usize)) {
        let Some(entries) = self.entries.get(range.clone()).filter(|entries| !entries.is_empty())
        else {
            return;
        };
        let end_of = |index: usize| {
            let entry = entries[index];
            entry.start as usize + usize::from(entry.length)
        };
        let text = &self.keys.as_bytes()[..end_of(entries.len() - 1)];
        let finder = memmem::Finder::new(part);
        let (mut from, mut index) = (entries[0].start as usize, 0);
        while let Some(found) = finder.find(&text[from..]).map(|found| found + from) {
            index += holder(entries.len() - index, |ahead| end_of(index + ahead) > found);
            // A name has it once for all, and what began in it and ends behind it is in none.
            from = end_of(index);
            if found + part.len() <= from {
                tell(range.start + index);
            }
        }
    }
}

/// The first position for which this is true, as it is of all behind it and of one below `length`.
/// Quick where that is near: most matches are in the next key or one close by.
fn holder(length: usize, is_there: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut step) = (0, 1);
    while low + step < length && !is_there(low + step - 1) {
        low += step;
        step *= 2;
    }
    let mut high = (low + step - 1).min(length - 1);
    while low < high {
        let middle = low + (high - low) / 2;
        if is_there(middle) { high = middle } else { low = middle + 1 }
    }
    low
}

/// Takes in what is found, in order.
struct Page {
    /// The first position that may be on it.
    start: usize,
    limit: usize,
    found: Found,
}

impl Page {
    fn take(&mut self, index: usize) {
        self.found.total += 1;
        if index < self.start {
            return;
        }
        match self.found.page.len() < self.limit {
            true => self.found.page.push(index),
            false => self.found.more = true,
        }
    }

    fn take_range(&mut self, range: Range<usize>) {
        let first = range.start.max(self.start).min(range.end);
        let last = first.saturating_add(self.limit).min(range.end);
        self.found =
            Found { page: (first..last).collect(), total: range.len(), more: last < range.end };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(entries: &[(&str, &str)]) -> EntryMap {
        entries.iter().copied().collect()
    }

    fn names(map: &EntryMap, search: &Search) -> Vec<String> {
        let found = map.search(search, None, usize::MAX);
        assert_eq!((found.total, found.more), (found.page.len(), false));
        found.page.into_iter().map(|index| map.key(index).to_owned()).collect()
    }

    #[test]
    fn what_lies_across_two_names_is_in_none_of_them() {
        // The text is "abcabdbca": "ca" and "db" are in it and in no name.
        let map = map(&[("abc", "m1"), ("abd", "m1"), ("bca", "m1")]);
        let with = |part: &str| names(&map, &Search { contains: part.into(), ..Search::default() });
        assert_eq!(with("ca"), ["bca"]);
        assert_eq!(with("db"), Vec::<String>::new());
        assert_eq!(with("b"), ["abc", "abd", "bca"]);
        assert_eq!(with("bc"), ["abc", "bca"]);
    }

    #[test]
    fn pages_go_on_where_the_last_one_ended_also_where_that_node_is_gone() {
        let map = map(&[("a", "m1"), ("c", "m2"), ("d", "m1"), ("e", "m1")]);
        let page = |after: Option<&str>, limit| {
            let search = Search { master: Some("m1".into()), ..Search::default() };
            let found = map.search(&search, after, limit);
            let names: Vec<_> = found.page.iter().map(|index| map.key(*index)).collect();
            (names, found.total, found.more)
        };
        assert_eq!(page(None, 2), (vec!["a", "d"], 3, true));
        assert_eq!(page(Some("b"), 2), (vec!["d", "e"], 3, false));
        assert_eq!(page(Some("e"), 2), (vec![], 3, false));
        let unknown = Search { master: Some("m9".into()), ..Search::default() };
        assert_eq!(map.search(&unknown, None, 9), Found::default());
    }

    proptest! {
        #[test]
        fn a_search_finds_what_a_look_at_every_node_finds(
            entries in proptest::collection::vec(("[ab]{1,4}", "m[12]"), 0..40),
            prefix in "[ab]{0,2}",
            contains in "[ab]{0,3}",
            master in proptest::option::of("m[123]"),
            after in proptest::option::of("[ab]{0,3}"),
            limit in 0usize..9,
        ) {
            let map: EntryMap = entries.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            let all: Vec<_> = map
                .iter()
                .enumerate()
                .filter(|(_, (key, value))| {
                    key.starts_with(&prefix)
                        && key.contains(&contains)
                        && master.as_deref().is_none_or(|master| master == *value)
                })
                .map(|(index, (key, _))| (index, key.to_owned()))
                .collect();
            let behind: Vec<_> = all
                .iter()
                .filter(|(_, key)| after.as_ref().is_none_or(|after| key > after))
                .map(|(index, _)| *index)
                .collect();
            let expected = Found {
                page: behind.iter().copied().take(limit).collect(),
                total: all.len(),
                more: behind.len() > limit,
            };
            let found = map.search(&Search { prefix, contains, master }, after.as_deref(), limit);
            prop_assert_eq!(found, expected);
        }
    }
}
