//! Numbered desired maps, what each of them changed, and a change that the guard holds back.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::node_map::EntryMap;

/// A desired map with its number. Numbers only grow; the map file carries them across restarts.
#[derive(Debug, Clone)]
pub struct Revision {
    /// Its number; 0 is a map that Mapsmith found at its first start and did not make.
    pub number: u64,
    pub at: Timestamp,
    pub entries: Arc<EntryMap>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangeCounts {
    /// Keys that were not in the map before.
    pub added: usize,
    /// Keys whose value changed.
    pub moved: usize,
    pub removed: usize,
}

impl ChangeCounts {
    pub fn total(&self) -> usize {
        self.added + self.moved + self.removed
    }

    pub fn is_empty(&self) -> bool {
        self.total() == 0
    }

    /// Each with what it counts, as metrics have it.
    pub fn by_kind(&self) -> [(&'static str, usize); 3] {
        [("added", self.added), ("moved", self.moved), ("removed", self.removed)]
    }
}

impl std::ops::AddAssign for ChangeCounts {
    fn add_assign(&mut self, other: Self) {
        self.added += other.added;
        self.moved += other.moved;
        self.removed += other.removed;
    }
}

impl std::fmt::Display for ChangeCounts {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} added, {} moved, {} removed", self.added, self.moved, self.removed)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RouteChange {
    pub node: String,
    /// Its master before; none where the node is new.
    pub from: Option<String>,
    /// Its master since; none where the node is gone.
    pub to: Option<String>,
}

/// What a revision changed, for `explain` and the status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RevisionSummary {
    pub number: u64,
    pub at: Timestamp,
    /// The sources whose new answers led to it.
    pub sources: Vec<String>,
    pub entries: usize,
    #[serde(flatten)]
    pub counts: ChangeCounts,
}

/// The most changed nodes that are remembered by name for one revision.
pub const REMEMBERED_CHANGES: usize = 1000;
pub const REMEMBERED_REVISIONS: usize = 100;

/// The latest revisions with the nodes they moved, in memory, bounded.
#[derive(Debug, Clone, Default)]
pub struct RevisionLog {
    revisions: VecDeque<(RevisionSummary, Arc<[RouteChange]>)>,
}

impl RevisionLog {
    /// Remembers a revision; the oldest one is forgotten past [`REMEMBERED_REVISIONS`].
    pub fn push(&mut self, summary: RevisionSummary, mut changes: Vec<RouteChange>) {
        changes.truncate(REMEMBERED_CHANGES);
        if self.revisions.len() == REMEMBERED_REVISIONS {
            self.revisions.pop_front();
        }
        self.revisions.push_back((summary, changes.into()));
    }

    pub fn last(&self) -> Option<&RevisionSummary> {
        self.revisions.back().map(|(summary, _)| summary)
    }

    /// The remembered revisions after `number`, oldest first.
    pub fn since(&self, number: u64) -> Vec<RevisionSummary> {
        self.revisions
            .iter()
            .map(|(summary, _)| summary)
            .filter(|summary| summary.number > number)
            .cloned()
            .collect()
    }

    /// The latest revision up to this one of which not every change is remembered.
    pub fn first_unknown(&self, number: u64) -> u64 {
        let mut first = number;
        for (summary, changes) in self.revisions.iter().rev() {
            let ChangeCounts { added, moved, removed } = summary.counts;
            if summary.number != first || changes.len() < added + moved + removed {
                break;
            }
            first = first.saturating_sub(1);
        }
        first
    }

    /// The latest remembered change of `node`.
    pub fn last_change(&self, node: &str) -> Option<(&RevisionSummary, &RouteChange)> {
        self.revisions.iter().rev().find_map(|(summary, changes)| {
            changes.iter().find(|change| change.node == node).map(|change| (summary, change))
        })
    }
}

/// A change that the guard refused: it is not applied until it is approved or the sources say
/// something else. Of a change of the map it may be a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeldChange {
    /// Names exactly what an approval brings into force: approving it lets nothing else through.
    pub id: String,
    /// What it is of: [`HeldChange::MAP`], [`HeldChange::SERVICES`], or `backend NAME` for that
    /// backend's server list.
    pub of: String,
    pub reason: String,
    pub since: Timestamp,
    /// Entries of the map, servers of the list, or services, in force.
    pub entries_in_force: usize,
    /// How many the held one has.
    pub entries_held: usize,
    /// What is held, without what was applied.
    #[serde(flatten)]
    pub counts: ChangeCounts,
    /// What of the sources' answers came into force since, though the rest is held.
    #[serde(default, skip_serializing_if = "ChangeCounts::is_empty")]
    pub applied: ChangeCounts,
}

impl HeldChange {
    /// What a held change of the node map is of.
    pub const MAP: &str = "map";
    /// What a held change of the services of a registry is of.
    pub const SERVICES: &str = "services";
    /// What precedes a backend's name, where it is of that one's list.
    pub const BACKEND: &str = "backend ";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_revision_that_changed_many_not_every_change_is_remembered() {
        let mut log = RevisionLog::default();
        assert_eq!(log.first_unknown(7), 7);
        for (number, added) in [(4, 1), (5, REMEMBERED_CHANGES + 1), (6, 1), (7, 2)] {
            let counts = ChangeCounts { added, ..ChangeCounts::default() };
            let (at, sources) = (Timestamp::UNIX_EPOCH, Vec::new());
            let summary = RevisionSummary { number, at, sources, entries: 9, counts };
            let change = |node| RouteChange { node: format!("n{node}"), from: None, to: None };
            log.push(summary, (0..added).map(change).collect());
        }
        assert_eq!(log.first_unknown(7), 5);
        assert_eq!(log.first_unknown(8), 8, "a revision that is not remembered");
    }

    #[test]
    fn the_latest_change_of_a_node_is_found_and_old_revisions_are_forgotten() {
        let mut log = RevisionLog::default();
        for number in 1..=REMEMBERED_REVISIONS as u64 + 1 {
            let summary = RevisionSummary {
                number,
                at: Timestamp::UNIX_EPOCH,
                sources: vec![],
                entries: 1,
                counts: ChangeCounts::default(),
            };
            let change = RouteChange {
                node: format!("n{}", number % 2),
                from: None,
                to: Some(format!("m{number}")),
            };
            log.push(summary, vec![change]);
        }
        assert_eq!(log.revisions.len(), REMEMBERED_REVISIONS);
        assert_eq!(log.last().unwrap().number, 101);
        assert_eq!(
            log.since(99).iter().map(|revision| revision.number).collect::<Vec<_>>(),
            [100, 101]
        );
        let (revision, change) = log.last_change("n0").unwrap();
        assert_eq!((revision.number, change.to.as_deref()), (100, Some("m100")));
        assert_eq!(log.last_change("other"), None);
    }
}
