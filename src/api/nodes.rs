//! The nodes of the map in force, looked for and shown page by page.

use mapsmith_core::Search;

use super::Api;
use super::requests::{self, Page};
use super::types::{NodeReport, NodesReport};

impl Api {
    /// A page of the nodes that are looked for. The names in `search` are as a person writes them.
    pub fn nodes(&self, search: Search, page: &Page) -> NodesReport {
        let Some(revision) = self.decision.borrow().map.in_force.clone() else {
            return NodesReport::default();
        };
        let search = Search {
            prefix: self.as_in_map(&search.prefix),
            contains: self.as_in_map(&search.contains),
            ..search
        };
        let entries = &revision.entries;
        let found = entries.search(&search, page.after.as_deref(), page.limit);
        let items: Vec<_> = found
            .page
            .iter()
            .map(|index| NodeReport {
                node: entries.key(*index).to_owned(),
                master: entries.value(*index).to_owned(),
            })
            .collect();
        let next = items.last().filter(|_| found.more).map(|last| requests::cursor(&last.node));
        NodesReport { revision: Some(revision.number), total: found.total, items, next }
    }

    /// The number of the map in force.
    pub fn revision(&self) -> Option<u64> {
        self.decision.borrow().map.in_force.as_ref().map(|revision| revision.number)
    }
}
