//! What a change costs HAProxy: single commands against a whole swap.
//!
//! The constants were measured over a unix socket on 2.6.12, 3.0.11 and 3.4.7 with 1,000 to
//! 1,000,000 entries. They are all that a plan rests on: the same inputs give the same plan on any
//! machine, however busy.

use std::time::Duration;

use haproxy_runtime::HaproxyVersion;

/// From 2.9 on a map's entries stand in a tree, before in a list that `set map` and `del map` walk
/// from its start.
const TREE: HaproxyVersion = HaproxyVersion { major: 2, minor: 9 };
/// The lines round single commands, however few: one that sends them, one that looks them up.
const EDITS: f64 = 0.3e-3;
/// One command in a batch of many.
const EDIT: f64 = 8e-6;
/// What `set map` and `del map` add for each entry of a list-based map: 12 ns where it fits the
/// processor's cache (100,000 entries), up to 70 ns where it does not (a million).
const WALK_PER_ENTRY: f64 = 40e-9;
/// Staging, read-back and commit of one entry.
const SWAP_PER_ENTRY: f64 = 1.1e-6;
const SWAP: f64 = 0.5e-3;
/// How long HAProxy may work on a line of single commands.
const LONGEST_LINE: Duration = Duration::from_millis(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CostModel {
    list_based: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EditCounts {
    /// `add map`: never walks.
    pub adding: usize,
    /// `set map` and `del map`: walk the list before 2.9.
    pub walking: usize,
}

impl CostModel {
    pub fn new(version: HaproxyVersion) -> Self {
        Self { list_based: version < TREE }
    }

    /// One command that walks, in seconds.
    fn walk(self, entries: usize) -> f64 {
        EDIT + if self.list_based { WALK_PER_ENTRY * entries as f64 } else { 0.0 }
    }

    /// The time of single commands on a map with `entries` entries in memory.
    pub fn edits(self, entries: usize, edits: EditCounts) -> Duration {
        Duration::from_secs_f64(
            EDITS + EDIT * edits.adding as f64 + self.walk(entries) * edits.walking as f64,
        )
    }

    /// How many single commands of one kind a line may hold, at least one: HAProxy works on a line
    /// in one go, on a thread that serves no request meanwhile, and before 2.9 walks a list for
    /// some.
    pub fn edits_a_line(self, entries: usize) -> EditCounts {
        let most = |command: f64| ((LONGEST_LINE.as_secs_f64() / command) as usize).max(1);
        EditCounts { adding: most(EDIT), walking: most(self.walk(entries)) }
    }

    pub fn swap(self, entries: usize) -> Duration {
        Duration::from_secs_f64(SWAP + SWAP_PER_ENTRY * entries as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_commands_holds_few_that_walk_and_many_that_do_not() {
        let line = |minor, entries| {
            let line = CostModel::new(HaproxyVersion { major: 2, minor }).edits_a_line(entries);
            (line.adding, line.walking)
        };
        assert_eq!(
            (line(6, 1_000_000), line(6, 100_000), line(9, 1_000_000)),
            ((250, 1), (250, 1), (250, 250))
        );
        assert!(line(6, 100).1 > 100);
    }
}
