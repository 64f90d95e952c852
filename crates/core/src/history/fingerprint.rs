//! A number that tells one map from another, and follows a change without a look at the rest.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::EntryMap;
use crate::plan::Diff;

/// The sum of a hash of each entry: whether a map is the one that was kept. It is no proof against
/// who means to deceive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint(pub u64);

impl Fingerprint {
    pub fn of(map: &EntryMap) -> Self {
        Self(map.iter().fold(0, |sum, (node, master)| sum.wrapping_add(of_entry(node, master))))
    }

    /// The one of `new`, where this is the one of `old` and `diff` lies between them.
    pub fn after(self, diff: &Diff, old: &EntryMap, new: &EntryMap) -> Self {
        let hash =
            |node: &str, master: Option<&str>| master.map_or(0, |master| of_entry(node, master));
        Self(diff.routes(old, new).fold(self.0, |sum, (node, before, after)| {
            sum.wrapping_sub(hash(node, before)).wrapping_add(hash(node, after))
        }))
    }

    /// What tells one thing that lies over a sources' answer from others: `diff` leads from `base`,
    /// the answer, to the map in force.
    pub fn of_overlay(diff: &Diff, base: &EntryMap, map: &EntryMap) -> Self {
        let hash = |node: &str, said: Option<&str>| match said {
            Some(said) => of_entry(node, said),
            None => xxh3_64(node.as_bytes()),
        };
        Self(
            diff.routes(base, map)
                .fold(0, |sum, (node, said, _)| sum.wrapping_add(hash(node, said))),
        )
    }
}

fn of_entry(node: &str, master: &str) -> u64 {
    xxh3_64_with_seed(node.as_bytes(), xxh3_64(master.as_bytes()))
}
