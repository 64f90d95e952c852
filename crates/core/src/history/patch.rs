//! What lies between the newest map and an older one, gathered from one revision after the other.

use rustc_hash::FxHashMap;

use super::delta::{Malformed, decode};
use crate::plan::Diff;
use crate::{EntryMap, EntryMapBuilder};

/// Of each node that changed since, its master then; none where it was not in the map.
#[derive(Debug, Clone, Default)]
pub struct Patch {
    masters: Vec<Box<str>>,
    ids: FxHashMap<Box<str>, u32>,
    nodes: FxHashMap<Box<str>, Option<u32>>,
}

impl Patch {
    /// The way back from `new` to `old`.
    pub fn between(old: &EntryMap, new: &EntryMap) -> Self {
        let mut patch = Self::default();
        let diff = Diff::between(old, new);
        diff.routes(old, new).for_each(|(node, before, _)| patch.set(node, before));
        patch
    }

    /// Goes on to an older map by a block of the way there. What was older counts.
    ///
    /// # Errors
    /// A block that is none; the patch is of no use then.
    pub fn take(&mut self, block: &[u8]) -> Result<(), Malformed> {
        decode(block, |node, before| self.set(node, before))
    }

    fn set(&mut self, node: &str, before: Option<&str>) {
        let id = before.map(|master| self.id_of(master));
        match self.nodes.get_mut(node) {
            Some(known) => *known = id,
            None => {
                self.nodes.insert(node.into(), id);
            }
        }
    }

    fn id_of(&mut self, master: &str) -> u32 {
        if let Some(id) = self.ids.get(master) {
            return *id;
        }
        // Each is another name in a map, which has no more of them than entries.
        let id = self.masters.len() as u32;
        self.masters.push(master.into());
        self.ids.insert(master.into(), id);
        id
    }

    /// The nodes that it is about, in any order.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.nodes.keys().map(|node| &**node)
    }

    /// The master that a node had then, where `newest` is the map that all began with.
    pub fn master<'a>(&'a self, node: &str, newest: &'a EntryMap) -> Option<&'a str> {
        match self.nodes.get(node) {
            Some(id) => id.map(|id| &*self.masters[id as usize]),
            None => newest.get(node),
        }
    }

    /// The map then.
    pub fn apply(&self, newest: &EntryMap) -> EntryMap {
        let mut changed: Vec<_> = self
            .nodes
            .iter()
            .map(|(node, id)| (&**node, id.map(|id| &*self.masters[id as usize])))
            .collect();
        changed.sort_unstable();
        let mut changed = changed.into_iter().peekable();
        let mut map = EntryMapBuilder::new();
        let mut put = |node: &str, master: Option<&str>| {
            master.into_iter().for_each(|master| map.push_checked(node, master));
        };
        for (node, master) in newest.iter() {
            while let Some((before, master)) = changed.next_if(|(changed, _)| *changed < node) {
                put(before, master);
            }
            let then = changed.next_if(|(changed, _)| *changed == node);
            put(node, then.map_or(Some(master), |(_, master)| master));
        }
        changed.for_each(|(node, master)| put(node, master));
        map.finish()
    }
}
