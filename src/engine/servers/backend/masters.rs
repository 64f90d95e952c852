//! A list that is made of the map's masters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use mapsmith_core::desired::servers;
use mapsmith_core::{EntryMap, ServerList};

use super::BackendList;

/// A list of masters, and what it was made of.
#[derive(Debug)]
pub(super) struct MastersList {
    map: Arc<EntryMap>,
    /// Masters that nodes are sent to by the map.
    named: BTreeSet<String>,
    /// Masters that stay on it without a node in the map.
    kept: BTreeSet<String>,
    list: Arc<ServerList>,
}

/// The masters that a backend may be made of.
pub(in crate::engine::servers) struct Masters<'a> {
    /// Nodes are sent to them by this map; none while it may be older than anything.
    pub map: Option<&'a Arc<EntryMap>>,
    /// When the sources of the map last said that it is the map.
    pub said_at: Option<Timestamp>,
    /// An operator has drained them: they are away for a while, and not gone.
    pub drained: BTreeSet<&'a str>,
    /// Their drain has ended, and their nodes were to stay elsewhere (true) or to come back.
    pub undrained: BTreeMap<&'a str, bool>,
    /// Nodes of theirs are elsewhere and will come home.
    pub owners: BTreeSet<&'a str>,
    /// Those of the map that some instances hold in place of the one in force.
    pub canary: &'a BTreeSet<String>,
    /// The registry's names of them.
    pub producers: &'a BTreeMap<String, String>,
}

impl BackendList {
    /// The masters as a list; made once for the same ones. An order to drain one that is on it
    /// counts at once: neither guard nor damping delay what an operator says.
    pub(super) fn masters(
        &mut self,
        map: &Arc<EntryMap>,
        masters: &Masters<'_>,
        template: &str,
    ) -> Arc<ServerList> {
        let owned = |name: &str| name.to_owned();
        self.drained = Some(masters.drained.iter().copied().map(owned).collect());
        self.undrained = masters.undrained.keys().copied().map(owned).collect();
        let kept = self.kept(masters);
        let made = self.mapped.take().filter(|made| Arc::ptr_eq(&made.map, map));
        let made = match made {
            Some(made) if made.kept == kept => made,
            other => {
                let named = other.map_or_else(
                    || map.load().into_iter().map(|(master, _)| owned(master)).collect(),
                    |made| made.named,
                );
                let names = named.union(&kept).map(String::as_str).collect::<BTreeSet<_>>();
                let (options, producers) = (&self.of_masters, masters.producers);
                let list = servers::masters_list(template, options, names.into_iter(), producers);
                MastersList { map: Arc::clone(map), named, kept, list: Arc::new(list) }
            }
        };
        Arc::clone(&self.mapped.insert(made).list)
    }

    /// The masters that stay on the list whether or not the map names them. Only those that are in
    /// force: the name of one that no map ever named is an order's alone, and its server, where
    /// HAProxy has one, is somebody else's.
    fn kept(&self, masters: &Masters<'_>) -> BTreeSet<String> {
        let returned = masters.undrained.iter().filter(|(_, stay)| !**stay).map(|(name, _)| name);
        let Some(in_force) = self.damper.in_force() else { return BTreeSet::new() };
        let kept = masters.drained.iter().chain(&masters.owners).chain(returned);
        let kept = kept.filter(|name| in_force.contains_key(**name)).map(|name| (*name).to_owned());
        kept.chain(masters.canary.iter().cloned()).collect()
    }
}
