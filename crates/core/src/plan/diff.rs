//! What lies between two maps: one sorted merge over both.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::EntryMap;
use crate::revision::{ChangeCounts, RouteChange};

/// The keys that two maps do not share with the same value, as positions: four to eight bytes a
/// change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// Positions in the new map of keys that the old one lacks.
    pub added: Vec<u32>,
    /// Positions in the old and the new map of keys whose value differs.
    pub moved: Vec<(u32, u32)>,
    /// Positions in the old map of keys that the new one lacks.
    pub removed: Vec<u32>,
}

impl Diff {
    pub fn between(old: &EntryMap, new: &EntryMap) -> Self {
        let mut diff = Self::default();
        let (mut at_old, mut at_new) = (0, 0);
        loop {
            let order = match (at_old < old.len(), at_new < new.len()) {
                (true, true) => old.key(at_old).cmp(new.key(at_new)),
                (true, false) => Ordering::Less,
                (false, true) => Ordering::Greater,
                (false, false) => break,
            };
            match order {
                Ordering::Less => diff.removed.push(at_old as u32),
                Ordering::Greater => diff.added.push(at_new as u32),
                Ordering::Equal => {
                    if old.value(at_old) != new.value(at_new) {
                        diff.moved.push((at_old as u32, at_new as u32));
                    }
                }
            }
            at_old += usize::from(order != Ordering::Greater);
            at_new += usize::from(order != Ordering::Less);
        }
        diff
    }

    pub fn counts(&self) -> ChangeCounts {
        ChangeCounts {
            added: self.added.len(),
            moved: self.moved.len(),
            removed: self.removed.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.counts().total() == 0
    }

    /// The changes by name: moved nodes first, then added, then removed ones.
    pub fn changes<'a>(
        &'a self,
        old: &'a EntryMap,
        new: &'a EntryMap,
    ) -> impl Iterator<Item = RouteChange> + 'a {
        self.routes(old, new).map(|(node, from, to)| RouteChange {
            node: node.to_owned(),
            from: from.map(str::to_owned),
            to: to.map(str::to_owned),
        })
    }

    /// The same without copies: node, master before, master after.
    pub fn routes<'a>(
        &'a self,
        old: &'a EntryMap,
        new: &'a EntryMap,
    ) -> impl Iterator<Item = (&'a str, Option<&'a str>, Option<&'a str>)> {
        let moved = self.moved.iter().map(move |(from, to)| {
            (new.key(*to as usize), Some(old.value(*from as usize)), Some(new.value(*to as usize)))
        });
        let added = self
            .added
            .iter()
            .map(move |at| (new.key(*at as usize), None, Some(new.value(*at as usize))));
        let removed = self
            .removed
            .iter()
            .map(move |at| (old.key(*at as usize), Some(old.value(*at as usize)), None));
        moved.chain(added).chain(removed)
    }

    /// Takes the moves out of which `stays` says so, by their positions in the new map. Those
    /// moves; [`EntryMap::settled`] makes the new map without them.
    pub fn keep(&mut self, stays: impl Fn(usize) -> bool) -> Vec<(u32, u32)> {
        let (kept, moved) = self.moved.iter().partition(|(_, to)| stays(*to as usize));
        self.moved = moved;
        kept
    }

    /// The new map of a comparison with the nodes that were [kept](Diff::keep) as the old one has
    /// them, and none disputed.
    pub fn settle(kept: &[(u32, u32)], old: &EntryMap, new: &Arc<EntryMap>) -> Arc<EntryMap> {
        if kept.is_empty() && new.disputed() == 0 {
            return Arc::clone(new);
        }
        Arc::new(
            new.settled(kept.iter().map(|(from, to)| (*to as usize, old.value(*from as usize)))),
        )
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Small alphabets, so that two random maps share keys.
    pub(crate) fn any_map() -> impl Strategy<Value = EntryMap> {
        proptest::collection::btree_map("[a-d]{1,3}", "[mno]", 0..40).prop_map(|plain| {
            plain.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
        })
    }

    proptest! {
        #[test]
        fn replaying_the_changes_over_the_old_map_gives_the_new_one(
            old in any_map(),
            new in any_map(),
        ) {
            let diff = Diff::between(&old, &new);
            let mut replayed: BTreeMap<String, String> =
                old.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
            for change in diff.changes(&old, &new) {
                prop_assert_eq!(replayed.get(&change.node), change.from.as_ref());
                match change.to {
                    Some(master) => replayed.insert(change.node, master),
                    None => replayed.remove(&change.node),
                };
            }
            let replayed: EntryMap =
                replayed.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            prop_assert_eq!(replayed, new.clone());
            prop_assert_eq!(diff.is_empty(), old == new);
            prop_assert!(Diff::between(&new, &new).is_empty());
        }

        #[test]
        fn nodes_that_are_kept_are_as_before_and_the_rest_as_it_is_said(
            old in any_map(),
            new in any_map(),
            stays in "[a-d]",
        ) {
            let mut diff = Diff::between(&old, &new);
            let kept = diff.keep(|at| new.key(at).starts_with(&stays));
            let kept = Diff::settle(&kept, &old, &Arc::new(new.clone()));
            let expected: EntryMap = new
                .iter()
                .map(|(node, master)| {
                    (node, old.get(node).filter(|_| node.starts_with(&stays)).unwrap_or(master))
                })
                .collect();
            prop_assert_eq!(&*kept, &expected);
            prop_assert_eq!(diff, Diff::between(&old, &kept));
        }
    }
}
