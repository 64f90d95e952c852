//! Snapshots -> the desired map. Pure.
//!
//! Until every required source has spoken once there is no desired map: "nothing known" must never
//! look like "nothing there".

pub mod config;
pub mod damping;
pub mod gate;
pub mod gone;
pub mod guard;
pub mod hold;
pub mod overrides;
pub mod ownership;
pub mod references;
pub mod rollout;
pub mod servers;
pub mod shadow;
mod state;
pub mod stopping;
pub mod taking_out;

pub use state::{Canary, Desired, DesiredMap, MapChange};

use std::cmp::Ordering;
use std::sync::Arc;

use crate::{EntryMap, EntryMapBuilder, Snapshot, SourceState};

#[derive(Debug, Clone, Copy)]
pub struct SourceView<'a> {
    pub name: &'a str,
    /// Whether the desired map waits for it.
    pub required: bool,
    pub snapshot: Option<&'a Snapshot>,
}

impl<'a> From<&'a SourceState> for SourceView<'a> {
    fn from(SourceState { status, snapshot, .. }: &'a SourceState) -> Self {
        Self { name: &status.name, required: status.required, snapshot: snapshot.as_ref() }
    }
}

/// Which part of a map counts as few: a search for each of them costs less than a look at all.
const FEW: usize = 8;

/// Merges the sources' entries. `sources` stand in order of priority: of a node that several know,
/// the first source's master counts.
/// The error names the required sources that have never answered, or all sources if none has.
pub fn merge(sources: &[SourceView<'_>]) -> Result<Arc<EntryMap>, Vec<String>> {
    let silent = |wanted: bool| -> Vec<String> {
        sources
            .iter()
            .filter(|source| source.snapshot.is_none() && (source.required || !wanted))
            .map(|source| source.name.to_owned())
            .collect()
    };
    let waiting = silent(true);
    if !waiting.is_empty() {
        return Err(waiting);
    }
    let mut maps =
        sources.iter().filter_map(|source| source.snapshot).map(|snapshot| &snapshot.entries);
    let Some(first) = maps.next() else { return Err(silent(false)) };
    // One source, the common case, shares its map with the desired state; nothing is copied.
    Ok(maps.fold(Arc::clone(first), |upper, lower| {
        if lower.is_empty() { upper } else { Arc::new(overlay(&upper, lower)) }
    }))
}

/// Every entry of both maps; of a key in both, the upper one's.
pub fn overlay(upper: &EntryMap, lower: &EntryMap) -> EntryMap {
    let is_plain = upper.disputed() == 0 && lower.disputed() == 0;
    if is_plain && upper.len() <= lower.len() / FEW {
        let entries =
            (0..upper.len()).map(|at| (upper.key(at), Some((upper.value(at), upper.time(at)))));
        return lower.patched(entries);
    }
    let mut merged = EntryMapBuilder::new();
    let (mut at_upper, mut at_lower) = (0, 0);
    loop {
        let order = match (at_upper < upper.len(), at_lower < lower.len()) {
            (true, true) => upper.key(at_upper).cmp(lower.key(at_lower)),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => break,
        };
        let (map, at) =
            if order == Ordering::Greater { (lower, at_lower) } else { (upper, at_upper) };
        merged.copy(map, at);
        at_upper += usize::from(order != Ordering::Greater);
        at_lower += usize::from(order != Ordering::Less);
    }
    merged.finish()
}

/// Which source a node's master comes from: the first in order of priority that knows the node.
pub fn origin<'a>(sources: &[SourceView<'a>], node: &str) -> Option<SourceView<'a>> {
    sources
        .iter()
        .copied()
        .find(|source| source.snapshot.is_some_and(|snapshot| snapshot.entries.get(node).is_some()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;

    fn snapshot(entries: &[(&str, &str)]) -> Snapshot {
        Snapshot {
            entries: Arc::new(entries.iter().copied().collect()),
            rejections: Arc::default(),
            answered_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn view<'a>(name: &'a str, required: bool, snapshot: Option<&'a Snapshot>) -> SourceView<'a> {
        SourceView { name, required, snapshot }
    }

    #[test]
    fn a_required_source_that_never_answered_holds_everything_back() {
        let first = snapshot(&[("a", "m1")]);
        assert_eq!(
            merge(&[view("one", true, Some(&first)), view("two", true, None)]),
            Err(vec!["two".to_owned()])
        );
        assert_eq!(merge(&[view("one", false, None)]), Err(vec!["one".to_owned()]));
        assert_eq!(merge(&[]), Err(vec![]));
    }

    #[test]
    fn an_optional_source_that_never_answered_is_rejected() {
        let first = snapshot(&[("a", "m1")]);
        let map = merge(&[view("one", true, Some(&first)), view("two", false, None)]).unwrap();
        assert!(Arc::ptr_eq(&map, &first.entries), "one source's map is shared, not copied");
    }

    #[test]
    fn of_a_node_in_two_sources_the_one_of_higher_priority_counts() {
        let (first, second) =
            (snapshot(&[("b", "m1")]), snapshot(&[("a", "m2"), ("b", "m2"), ("c", "m2")]));
        let sources = [view("one", true, Some(&first)), view("two", true, Some(&second))];
        let map = merge(&sources).unwrap();
        assert_eq!(map.iter().collect::<Vec<_>>(), [("a", "m2"), ("b", "m1"), ("c", "m2")]);
        assert_eq!(origin(&sources, "b").unwrap().name, "one");
        assert_eq!(origin(&sources, "c").unwrap().name, "two");
        assert!(origin(&sources, "d").is_none());
    }

    proptest! {
        #[test]
        fn an_overlay_is_the_union_with_the_upper_map_first(
            upper in prop_oneof![
                proptest::collection::btree_map("[a-f]{1,2}", "[mn]", 0..4),
                proptest::collection::btree_map("[a-f]{1,2}", "[mn]", 0..30),
            ],
            lower in proptest::collection::btree_map("[a-f]{1,2}", "[op]", 0..30),
        ) {
            let map = |plain: &BTreeMap<String, String>| -> EntryMap {
                plain.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect()
            };
            let mut union = lower.clone();
            union.extend(upper.clone());
            prop_assert_eq!(overlay(&map(&upper), &map(&lower)), map(&union));
        }
    }
}
