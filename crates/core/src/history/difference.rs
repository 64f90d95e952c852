//! What lies between two revisions, page by page and in sums.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Patch;
use crate::EntryMap;
use crate::revision::{ChangeCounts, RouteChange};

/// The nodes that two maps do not have with the same master.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference<'a> {
    /// Node, master before, master after; sorted by node.
    changes: Vec<(&'a str, Option<&'a str>, Option<&'a str>)>,
}

/// How many nodes went from one master to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Shift {
    /// None where the nodes are new.
    pub from: Option<String>,
    /// None where they are gone.
    pub to: Option<String>,
    pub nodes: usize,
}

impl<'a> Difference<'a> {
    /// Between two maps, each the newest one with a patch. `older` goes back further than `newer`
    /// and by the same way, so it has each node that changed between them.
    pub fn new(newest: &'a EntryMap, newer: &'a Patch, older: &'a Patch) -> Self {
        let mut changes: Vec<_> = older
            .nodes()
            .map(|node| (node, older.master(node, newest), newer.master(node, newest)))
            .filter(|(_, before, after)| before != after)
            .collect();
        changes.sort_unstable();
        Self { changes }
    }

    /// The same the other way.
    pub fn reversed(self) -> Self {
        let changes = self.changes.into_iter().map(|(node, from, to)| (node, to, from));
        Self { changes: changes.collect() }
    }

    pub fn len(&self) -> usize {
        self.changes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    pub fn counts(&self) -> ChangeCounts {
        let mut counts = ChangeCounts::default();
        for (_, from, to) in &self.changes {
            match (from, to) {
                (None, _) => counts.added += 1,
                (_, None) => counts.removed += 1,
                _ => counts.moved += 1,
            }
        }
        counts
    }

    /// From which master to which one, the most nodes first.
    pub fn shift(&self) -> Vec<Shift> {
        let mut sums = BTreeMap::new();
        for (_, from, to) in &self.changes {
            *sums.entry((*from, *to)).or_insert(0) += 1;
        }
        let owned = |name: Option<&str>| name.map(str::to_owned);
        let mut shift: Vec<_> = sums
            .into_iter()
            .map(|((from, to), nodes)| Shift { from: owned(from), to: owned(to), nodes })
            .collect();
        shift.sort_by_key(|shift| std::cmp::Reverse(shift.nodes));
        shift
    }

    /// The changes of the nodes behind the name `after`.
    pub fn behind(&self, after: Option<&str>) -> impl ExactSizeIterator<Item = RouteChange> {
        let start = after.map_or(0, |after| self.changes.partition_point(|row| row.0 <= after));
        self.changes[start..].iter().map(|(node, from, to)| RouteChange {
            node: (*node).to_owned(),
            from: from.map(str::to_owned),
            to: to.map(str::to_owned),
        })
    }
}
