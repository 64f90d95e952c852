//! What changed, laid over what is known. Pure.

use std::sync::Arc;

use mapsmith_core::snapshot::NAMED_REJECTIONS;
use mapsmith_core::{EntryMap, EntryMapBuilder, Invalid, Rejections, Snapshot};
use rustc_hash::FxHashSet;

use crate::source::feed::share;
use crate::source::format::Collected;

/// The known content with the changed rows over it. A node whose changed row names no valid master
/// is gone and rejected. Where the changed rows change nothing, the very maps of `current`.
pub(super) fn lay_over(current: &Snapshot, changed: Collected) -> (Arc<EntryMap>, Arc<Rejections>) {
    let rejections = reject(&current.rejections, &current.entries, &changed);
    let rejections = share(rejections, Some(&current.rejections));
    // One row may be valid and another of the same node not: the valid one counts, as in a full
    // answer.
    let withdrawn: FxHashSet<&str> = changed
        .withdrawn
        .iter()
        .map(String::as_str)
        .filter(|node| changed.entries.get(node).is_none())
        .collect();
    let known = &current.entries;
    let same = |new: usize, at: usize| {
        changed.entries.value(new) == known.value(at)
            && changed.entries.is_disputed(new) == known.is_disputed(at)
            && changed.entries.time(new) == known.time(at)
    };
    let nothing_new = (0..changed.entries.len())
        .all(|new| known.find(changed.entries.key(new).as_bytes()).is_some_and(|at| same(new, at)))
        && withdrawn.iter().all(|node| known.get(node).is_none());
    let entries = if nothing_new {
        Arc::clone(known)
    } else {
        Arc::new(merge(known, &changed.entries, &withdrawn))
    };
    (entries, rejections)
}

fn merge(known: &EntryMap, changed: &EntryMap, withdrawn: &FxHashSet<&str>) -> EntryMap {
    let key_bytes = known.iter().map(|(node, _)| node.len()).sum();
    let mut merged = EntryMapBuilder::with_capacity(known.len() + changed.len(), key_bytes);
    let mut take = |map: &EntryMap, at: usize| merged.copy(map, at);
    let mut news = (0..changed.len()).peekable();
    for at in 0..known.len() {
        let node = known.key(at);
        while let Some(new) = news.next_if(|new| changed.key(*new) < node) {
            take(changed, new);
        }
        match news.next_if(|new| changed.key(*new) == node) {
            Some(new) => take(changed, new),
            None if withdrawn.contains(node) => {}
            None => take(known, at),
        }
    }
    news.for_each(|new| take(changed, new));
    merged.finish()
}

/// The known rejections as far as their nodes did not change, and the changed ones. The counts are
/// exact while all rejected nodes are among the named ones; beyond that the next full poll puts
/// them right.
fn reject(known: &Rejections, entries: &EntryMap, changed: &Collected) -> Rejections {
    let mut rejections = known.clone();
    for (node, _) in changed.entries.iter() {
        forgive(&mut rejections, node);
    }
    let may_be_unnamed =
        known.total() > known.named.len() as u64 && known.named.len() >= NAMED_REJECTIONS;
    for (node, reason) in &changed.rejections.named {
        let was_named = forgive(&mut rejections, node);
        let counted_unnamed = !was_named
            && may_be_unnamed
            && *reason != Invalid::Conflict
            && entries.get(node).is_none();
        if !counted_unnamed {
            rejections.push(node, *reason);
        }
    }
    rejections
}

/// Takes a node's rejection back. Whether there was one by name.
fn forgive(rejections: &mut Rejections, node: &str) -> bool {
    let Some(reason) = rejections.named.remove(node) else { return false };
    if let Some(count) = rejections.counts.get_mut(&reason) {
        *count -= 1;
        if *count == 0 {
            rejections.counts.remove(&reason);
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::source::format::{Collector, Field, Names, Row};

    fn collect(rows: &[(&str, Option<&str>)]) -> Collected {
        let mut collector = Collector::for_delta(Arc::new(Names::new(true, &BTreeMap::new())));
        for (node, master) in rows {
            let master = master.map_or(Field::Null, |master| Field::Text(master.into()));
            collector.take(&Row { node: Field::Text((*node).into()), master, ..Row::default() });
        }
        collector.finish()
    }

    fn snapshot(rows: &[(&str, Option<&str>)]) -> Snapshot {
        let Collected { entries, rejections, .. } = collect(rows);
        Snapshot {
            entries: Arc::new(entries),
            rejections: Arc::new(rejections),
            answered_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_node_whose_master_became_null_is_gone_and_rejected() {
        let known = snapshot(&[("a", Some("m1")), ("b", Some("m1")), ("c", None)]);
        let (entries, rejections) =
            lay_over(&known, collect(&[("b", None), ("c", Some("m2")), ("d", Some("m 2"))]));
        assert_eq!(entries.iter().collect::<Vec<_>>(), [("a", "m1"), ("c", "m2")]);
        let named: Vec<_> =
            rejections.named.iter().map(|(node, reason)| (node.as_str(), *reason)).collect();
        assert_eq!(named, [("b", Invalid::NoMaster), ("d", Invalid::ValueWhitespace)]);
        assert_eq!(rejections.total(), 2);
    }

    #[test]
    fn a_delta_that_changes_nothing_shares_what_is_known() {
        let known = snapshot(&[("a", Some("m1")), ("b", None), ("B\n", Some("m1"))]);
        for rows in [&[][..], &[("a", Some("m1")), ("b", None), ("B\n", Some("m1"))]] {
            let (entries, rejections) = lay_over(&known, collect(rows));
            assert!(
                Arc::ptr_eq(&entries, &known.entries)
                    && Arc::ptr_eq(&rejections, &known.rejections),
                "{rejections:?}"
            );
        }
    }

    #[test]
    fn more_rejections_than_are_named_are_not_counted_twice() {
        let nodes: Vec<_> =
            (0..NAMED_REJECTIONS + 10).map(|number| format!("n{number:05}")).collect();
        let rows: Vec<_> = nodes.iter().map(|node| (node.as_str(), None)).collect();
        let known = snapshot(&rows);
        let (_, rejections) = lay_over(&known, collect(&rows[NAMED_REJECTIONS - 5..]));
        assert_eq!(rejections.total(), known.rejections.total());
    }

    fn rows() -> impl Strategy<Value = BTreeMap<String, Option<String>>> {
        proptest::collection::btree_map("[a-f]{1,2}", proptest::option::of("m[12]"), 0..20)
    }

    proptest! {
        #[test]
        fn a_delta_laid_over_gives_what_a_full_answer_would(
            known in rows(),
            changed in rows(),
        ) {
            let rows = |map: &BTreeMap<String, Option<String>>| -> Vec<(String, Option<String>)> {
                map.clone().into_iter().collect()
            };
            let borrowed = |rows: &[(String, Option<String>)]| {
                snapshot(
                    &rows
                        .iter()
                        .map(|(node, master)| (node.as_str(), master.as_deref()))
                        .collect::<Vec<_>>(),
                )
            };
            let mut after = known.clone();
            after.extend(changed.clone());
            let changed_rows = rows(&changed);
            let changed: Vec<_> = changed_rows
                .iter()
                .map(|(node, master)| (node.as_str(), master.as_deref()))
                .collect();
            let (entries, rejections) = lay_over(&borrowed(&rows(&known)), collect(&changed));
            let expected = borrowed(&rows(&after));
            prop_assert_eq!(entries, expected.entries);
            prop_assert_eq!(rejections, expected.rejections);
        }
    }
}
