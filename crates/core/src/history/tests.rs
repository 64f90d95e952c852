//! Any map is rebuilt exactly, whatever came after it, and what is broken is told.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::EntryMap;
use crate::plan::Diff;

fn record(number: u64, previous: Option<u64>) -> RevisionRecord {
    RevisionRecord {
        number,
        at: Timestamp::UNIX_EPOCH,
        kind: RevisionKind::Sources,
        note: Note::default(),
        sources: Vec::new(),
        entries: 0,
        counts: ChangeCounts::default(),
        previous,
        rollback_of: None,
        base: None,
    }
}

fn any_map() -> impl Strategy<Value = EntryMap> {
    proptest::collection::btree_map("[a-d]{1,3}", "m[1-3]", 0..30)
        .prop_map(|plain| plain.iter().map(|(key, value)| (&**key, &**value)).collect())
}

/// What is kept: of each revision the one before, and the way there.
type Kept = BTreeMap<u64, (Option<u64>, Vec<Vec<u8>>)>;

/// Keeps these maps under the numbers 1, 2, ... but for those that can't be, and forgets the
/// oldest ones.
fn keep(maps: &[EntryMap], fails: &[bool], forgotten: usize) -> Kept {
    let mut kept = Kept::new();
    let mut last: Option<usize> = None;
    for (at, map) in maps.iter().enumerate() {
        if fails.get(at).copied().unwrap_or_default() && at + 1 < maps.len() {
            continue;
        }
        let delta = last.map(|last| {
            let old = &maps[last];
            (last as u64 + 1, encode(&Diff::between(old, map), old, map))
        });
        let (previous, blocks) = delta.unzip();
        kept.insert(at as u64 + 1, (previous, blocks.unwrap_or_default()));
        last = Some(at);
    }
    let oldest: Vec<_> = kept.keys().copied().take(forgotten.min(kept.len() - 1)).collect();
    oldest.iter().for_each(|number| drop(kept.remove(number)));
    kept
}

fn chain_of(kept: &Kept, newest: u64) -> Chain {
    let records: Vec<_> =
        kept.iter().map(|(number, (previous, _))| record(*number, *previous)).collect();
    Chain::new(newest, &records)
}

fn patch(kept: &Kept, chain: &Chain, from: u64, to: u64) -> Result<Patch, Unreached<String>> {
    let mut patch = Patch::default();
    chain.go_back(&mut patch, from, to, |number| {
        let found = kept.get(&number).map(|(_, blocks)| blocks.clone());
        found.ok_or_else(|| format!("{number} is asked for and not kept"))
    })?;
    Ok(patch)
}

proptest! {
    #[test]
    fn what_the_sources_had_said_is_rebuilt_from_what_lies_over_it(
        base in any_map(), map in any_map(), newest in any_map(),
    ) {
        let mut patch = Patch::default();
        let changes = [(&map, &newest), (&base, &map)];
        for (old, new) in changes {
            for block in encode(&Diff::between(old, new), old, new) {
                patch.take(&block).unwrap();
            }
        }
        prop_assert_eq!(patch.apply(&newest), base.clone());
        let mark = |base: &EntryMap| Fingerprint::of_overlay(&Diff::between(base, &map), base, &map);
        prop_assert_eq!(mark(&base) == mark(&newest), base == newest);
    }

    #[test]
    fn every_map_that_is_kept_is_rebuilt_exactly(
        maps in proptest::collection::vec(any_map(), 1..12),
        fails in proptest::collection::vec(any::<bool>(), 0..12),
        forgotten in 0usize..6,
    ) {
        let newest = maps.len() as u64;
        let kept = keep(&maps, &fails, forgotten);
        let chain = chain_of(&kept, newest);
        for (number, map) in (1..).zip(&maps) {
            match patch(&kept, &chain, newest, number) {
                Ok(patch) => prop_assert_eq!(&patch.apply(&maps[maps.len() - 1]), map),
                Err(Unreached::NotKept) => prop_assert!(!kept.contains_key(&number)),
                Err(error) => prop_assert!(false, "{}", error),
            }
        }
        prop_assert!(kept.keys().all(|number| chain.reaches(*number)));
    }

    #[test]
    fn the_difference_of_two_revisions_is_the_one_of_their_maps(
        maps in proptest::collection::vec(any_map(), 2..9),
        pair in (0usize..9, 0usize..9),
    ) {
        let newest = &maps[maps.len() - 1];
        let (one, other) = (pair.0 % maps.len(), pair.1 % maps.len());
        let (older, newer) = (one.min(other), one.max(other));
        let kept = keep(&maps, &[], 0);
        let chain = chain_of(&kept, maps.len() as u64);
        let to = patch(&kept, &chain, maps.len() as u64, newer as u64 + 1).unwrap();
        let mut from = to.clone();
        let load = |number: u64| Ok::<_, String>(kept[&number].1.clone());
        chain.go_back(&mut from, newer as u64 + 1, older as u64 + 1, load).unwrap();
        let difference = Difference::new(newest, &to, &from);

        let (old, new) = (&maps[older], &maps[newer]);
        let expected = Diff::between(old, new);
        let mut changes: Vec<_> = expected.changes(old, new).collect();
        changes.sort_by(|a, b| a.node.cmp(&b.node));
        prop_assert_eq!(difference.counts(), expected.counts());
        prop_assert_eq!(difference.behind(None).collect::<Vec<_>>(), changes.clone());
        let behind = |change: &&crate::revision::RouteChange| change.node.as_str() > "b";
        let rest: Vec<_> = changes.iter().filter(behind).cloned().collect();
        prop_assert_eq!(difference.behind(Some("b")).collect::<Vec<_>>(), rest);
        let moved: usize = difference.shift().iter().map(|shift| shift.nodes).sum();
        prop_assert_eq!(moved, changes.len());
        let back = Diff::between(new, old).counts();
        prop_assert_eq!(difference.reversed().counts(), back);
    }

    #[test]
    fn a_fingerprint_follows_every_change(old in any_map(), new in any_map()) {
        let (before, diff) = (Fingerprint::of(&old), Diff::between(&old, &new));
        prop_assert_eq!(before.after(&diff, &old, &new), Fingerprint::of(&new));
        prop_assert_eq!(before == Fingerprint::of(&new), old == new);
    }

    #[test]
    fn no_bytes_make_a_patch_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Patch::default().take(&bytes);
    }
}

#[test]
fn a_block_that_is_cut_or_changed_is_an_error_and_no_other_map() {
    let old: EntryMap = [("a", "m1"), ("b", "m2")].into_iter().collect();
    let new: EntryMap = [("a", "m2"), ("c", "m1")].into_iter().collect();
    let blocks = encode(&Diff::between(&old, &new), &old, &new);
    assert_eq!(blocks.len(), 1);
    for length in 0..blocks[0].len() {
        assert!(Patch::default().take(&blocks[0][..length]).is_err(), "cut to {length} bytes");
    }
    let mut patch = Patch::default();
    patch.take(&blocks[0]).unwrap();
    assert_eq!(patch.apply(&new), old);
}

#[test]
fn a_large_change_is_kept_in_blocks_of_bounded_size() {
    let nodes: Vec<_> = (0..25_000).map(|node| format!("node{node:05}.example.test")).collect();
    let of = |master: &'static str| -> EntryMap {
        nodes.iter().map(|node| (node.as_str(), master)).collect()
    };
    let (old, new) = (of("m1"), of("m2"));
    let blocks = encode(&Diff::between(&old, &new), &old, &new);
    assert_eq!(blocks.len(), 3);
    let bytes: usize = blocks.iter().map(Vec::len).sum();
    assert!(bytes < 25_000 * 8, "{bytes} bytes for 25,000 nodes");
    let mut patch = Patch::default();
    blocks.iter().for_each(|block| patch.take(block).unwrap());
    assert_eq!(patch.apply(&new), old);
}

#[test]
fn what_leads_to_a_later_revision_leads_nowhere() {
    let chain = Chain::new(3, &[record(3, Some(2)), record(2, Some(3))]);
    assert_eq!((chain.oldest(), chain.reaches(1)), (Some(2), false));
}
