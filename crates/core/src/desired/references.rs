//! Entries that point nowhere: masters that an instance has no backend or server for, or none that
//! is ready. Pure.
//!
//! HAProxy takes any value into a map and finds out at the request. Here it is known before the
//! commit.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::server::ObservedServers;
use crate::{EntryMap, EntryMapBuilder};

/// What becomes of entries that point nowhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// They stay in the map: HAProxy's configuration says what happens to their requests.
    #[default]
    Keep,
    /// They stay, but a change that makes their share grow beyond the guard's limit is held back.
    Guard,
    /// They are left out where no instance can serve them, so that the configuration's default
    /// applies. Never all of them.
    LeaveOut,
    /// The whole change is held back until they point somewhere, or until it is approved.
    Hold,
}

impl fmt::Display for Action {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Keep | Self::Guard => "kept",
            Self::LeaveOut => "left out where no instance can serve them",
            Self::Hold => "held back",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Actions {
    /// Entries whose master is no existing backend or server.
    pub unknown: Action,
    pub not_ready: Action,
}

impl Default for Actions {
    fn default() -> Self {
        Self { unknown: Action::Guard, not_ready: Action::Keep }
    }
}

impl Actions {
    /// Whether the map that the sources' answers lead to depends on what the instances have.
    pub fn matter(self) -> bool {
        [self.unknown, self.not_ready]
            .iter()
            .any(|action| matches!(action, Action::LeaveOut | Action::Hold))
    }

    /// Whether a change is held back that makes too many entries point nowhere.
    pub fn guard(self) -> bool {
        [self.unknown, self.not_ready].contains(&Action::Guard)
    }

    /// Whether any change may be held back for where it points to.
    pub fn hold(self) -> bool {
        [self.unknown, self.not_ready].contains(&Action::Hold)
    }
}

/// The names that a map's values may point to in one instance, and whether what they name is ready.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Targets {
    ready: BTreeMap<String, bool>,
    /// Whether the instance could not be reached since.
    stale: bool,
}

impl Targets {
    /// Every backend and server of an instance. A backend is ready while a server of it is, or
    /// where it has none: it answers by itself then. A name that stands for several is ready while
    /// one of them is.
    pub fn from_observed(observed: &ObservedServers) -> Self {
        let mut targets = Self::default();
        for (name, backend) in observed {
            let mut serves = backend.servers.is_empty();
            for (server, seen) in &backend.servers {
                let ready = seen.admin.ready() && seen.running;
                serves |= ready;
                targets.add(server, ready);
            }
            targets.add(name, serves);
        }
        targets
    }

    /// Whether the backend or server of this name is ready; none where there is none.
    pub fn ready(&self, name: &str) -> Option<bool> {
        self.ready.get(name).copied()
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.ready.keys().map(String::as_str)
    }

    /// What was last seen of an instance that can't be reached now.
    #[must_use]
    pub fn stale(&self) -> Self {
        Self { stale: true, ..self.clone() }
    }

    pub fn is_stale(&self) -> bool {
        self.stale
    }

    fn add(&mut self, name: &str, ready: bool) {
        match self.ready.get_mut(name) {
            Some(known) => *known |= ready,
            None => {
                self.ready.insert(name.to_owned(), ready);
            }
        }
    }
}

impl<'a> FromIterator<(&'a str, bool)> for Targets {
    fn from_iter<I: IntoIterator<Item = (&'a str, bool)>>(names: I) -> Self {
        let mut targets = Self::default();
        for (name, ready) in names {
            targets.add(name, ready);
        }
        targets
    }
}

/// The masters of a map that point nowhere in at least one instance, with how many nodes each has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Dangling {
    /// No backend or server has the name.
    pub unknown: BTreeMap<String, usize>,
    /// What has the name is not ready.
    pub not_ready: BTreeMap<String, usize>,
    /// Those of both that no instance is better off with: one gateway in trouble takes no entry
    /// from the others.
    #[serde(skip)]
    nowhere: BTreeSet<String>,
}

impl Dangling {
    /// Looks every master of the map up in every instance that has been observed; without any,
    /// nothing is known to dangle.
    pub fn new(entries: &EntryMap, instances: &[Arc<Targets>]) -> Self {
        let mut dangling = Self::default();
        if instances.is_empty() {
            return dangling;
        }
        for (master, nodes) in entries.load() {
            let states: Vec<_> = instances.iter().map(|targets| targets.ready(master)).collect();
            let nowhere = if states.contains(&None) {
                dangling.unknown.insert(master.to_owned(), nodes);
                states.iter().all(Option::is_none)
            } else if states.contains(&Some(false)) {
                dangling.not_ready.insert(master.to_owned(), nodes);
                !states.contains(&Some(true))
            } else {
                false
            };
            if nowhere {
                dangling.nowhere.insert(master.to_owned());
            }
        }
        dangling
    }

    /// How many entries have an unknown master, and how many one that is not ready.
    pub fn entries(&self) -> (usize, usize) {
        (self.unknown.values().sum(), self.not_ready.values().sum())
    }

    /// How many entries have a master that the guard watches.
    pub fn guarded(&self, actions: Actions) -> usize {
        let (unknown, not_ready) = self.entries();
        [(unknown, actions.unknown), (not_ready, actions.not_ready)]
            .into_iter()
            .filter(|(_, action)| *action == Action::Guard)
            .map(|(entries, _)| entries)
            .sum()
    }

    /// The masters that the guard watches and that have more nodes than in an earlier map, as a
    /// sentence names them.
    pub fn news(&self, before: &Self, actions: Actions) -> String {
        let kinds = [
            (&self.unknown, &before.unknown, actions.unknown),
            (&self.not_ready, &before.not_ready, actions.not_ready),
        ];
        let watched = kinds.into_iter().filter(|(_, _, action)| *action == Action::Guard);
        named(watched.flat_map(|(now, before, _)| {
            let more = now
                .iter()
                .filter(|(master, nodes)| before.get(*master).is_none_or(|before| before < *nodes));
            more.map(|(master, _)| master.as_str())
        }))
    }

    fn masters(&self, actions: Actions, action: Action) -> BTreeSet<&str> {
        let mut masters = BTreeSet::new();
        for (what, chosen) in
            [(&self.unknown, actions.unknown), (&self.not_ready, actions.not_ready)]
        {
            if chosen == action {
                masters.extend(what.keys().map(String::as_str));
            }
        }
        masters
    }

    /// The masters whose entries are held back, if the actions say so. A master that nodes are
    /// routed to already is no news.
    pub fn held_masters(&self, actions: Actions, in_force: &EntryMap) -> BTreeSet<&str> {
        let mut masters = self.masters(actions, Action::Hold);
        if !masters.is_empty() {
            for (master, _) in in_force.load() {
                masters.remove(master);
            }
        }
        masters
    }

    /// Why a change from the map in force is held back, if the actions say so: one sentence for a
    /// person.
    pub fn held(&self, actions: Actions, in_force: &EntryMap) -> Option<String> {
        let masters = self.held_masters(actions, in_force);
        if masters.is_empty() {
            return None;
        }
        let nodes = |master: &&str| {
            self.unknown.get(*master).or_else(|| self.not_ready.get(*master)).copied().unwrap_or(0)
        };
        let entries: usize = masters.iter().map(nodes).sum();
        Some(format!(
            "{entries} entries point to masters that an instance has no ready backend or server \
                for: {} (see [references])",
            named(masters.iter().copied())
        ))
    }

    /// The map with the entries of masters that are held back as `in_force` has them; none where no
    /// entry is held back.
    pub fn hold_back(
        &self,
        entries: &EntryMap,
        actions: Actions,
        in_force: &EntryMap,
    ) -> Option<EntryMap> {
        let masters = self.held_masters(actions, in_force);
        if masters.is_empty() {
            return None;
        }
        Some(part(entries.iter().filter_map(|(node, master)| {
            let to = if masters.contains(master) { in_force.get(node) } else { Some(master) };
            to.map(|master| (node, master))
        })))
    }

    /// The map without the entries that the actions leave out; none where all stay. A map is never
    /// emptied: where every master seems to be gone, it is the gateways that are in trouble.
    pub fn leave_out(&self, entries: &EntryMap, actions: Actions) -> Option<EntryMap> {
        let mut masters = self.masters(actions, Action::LeaveOut);
        masters.retain(|master| self.nowhere.contains(*master));
        if masters.is_empty() {
            return None;
        }
        Some(part(entries.iter().filter(|(_, master)| !masters.contains(master))))
            .filter(|kept| !kept.is_empty())
    }
}

/// The most masters that a sentence names.
const SHOWN: usize = 5;

/// The first names of many.
fn named<'a>(mut names: impl Iterator<Item = &'a str>) -> String {
    let shown: Vec<_> = names.by_ref().take(SHOWN).collect();
    let more = if names.next().is_some() { ", ..." } else { "" };
    format!("{}{more}", shown.join(", "))
}

/// A map of entries that are sorted and come from maps.
fn part<'a>(entries: impl Iterator<Item = (&'a str, &'a str)>) -> EntryMap {
    let mut kept = EntryMapBuilder::new();
    for (node, master) in entries {
        kept.push_checked(node, master);
    }
    kept.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> EntryMap {
        [("a", "m1"), ("b", "m2"), ("c", "m2"), ("d", "m3")].into_iter().collect()
    }

    #[test]
    fn a_master_that_one_instance_lacks_is_unknown_and_one_that_is_down_somewhere_is_not_ready() {
        let one: Targets = [("m1", true), ("m2", false), ("m3", true)].into_iter().collect();
        let two: Targets = [("m1", true), ("m2", true)].into_iter().collect();
        let dangling = Dangling::new(&map(), &[Arc::new(one), Arc::new(two)]);
        assert_eq!(dangling.unknown, BTreeMap::from([("m3".to_owned(), 1)]));
        assert_eq!(dangling.not_ready, BTreeMap::from([("m2".to_owned(), 2)]));
        assert_eq!(dangling.entries(), (1, 2));
        assert_eq!(Dangling::new(&map(), &[]), Dangling::default(), "nothing was observed");
    }

    #[test]
    fn each_action_is_for_its_own_kind() {
        let one: Targets = [("m1", true), ("m2", false)].into_iter().collect();
        let dangling = Dangling::new(&map(), &[Arc::new(one)]);
        let actions = Actions { unknown: Action::LeaveOut, not_ready: Action::Keep };
        let kept = dangling.leave_out(&map(), actions).unwrap();
        assert_eq!(kept.iter().collect::<Vec<_>>(), [("a", "m1"), ("b", "m2"), ("c", "m2")]);
        assert_eq!(dangling.held(actions, &EntryMap::default()), None);
        let actions = Actions { unknown: Action::Keep, not_ready: Action::Hold };
        assert_eq!(dangling.leave_out(&map(), actions), None);
        let reason = dangling.held(actions, &EntryMap::default()).unwrap();
        assert!(
            reason.starts_with("2 entries") && reason.contains("m2") && !reason.contains("m3"),
            "{reason}"
        );
        assert_eq!(dangling.held(actions, &map()), None, "the nodes are routed there already");
    }

    #[test]
    fn one_gateway_in_trouble_takes_no_entry_from_the_others_and_no_map_is_emptied() {
        let well: Targets = [("m1", true), ("m2", true)].into_iter().collect();
        let ill: Targets = [("m1", false), ("m2", false)].into_iter().collect();
        let actions = Actions { unknown: Action::LeaveOut, not_ready: Action::LeaveOut };
        let both = Dangling::new(&map(), &[Arc::new(well), Arc::new(ill.clone())]);
        assert_eq!(both.entries(), (1, 3), "all of them are shown");
        let kept = both.leave_out(&map(), actions).unwrap();
        assert_eq!(
            kept.iter().collect::<Vec<_>>(),
            [("a", "m1"), ("b", "m2"), ("c", "m2")],
            "only m3 is nowhere"
        );
        assert_eq!(
            Dangling::new(&map(), &[Arc::new(ill)]).leave_out(&map(), actions),
            None,
            "nothing would be left"
        );
    }

    #[test]
    fn a_name_that_stands_for_several_is_ready_while_one_of_them_is() {
        let targets: Targets = [("m1", false), ("m1", true), ("m1", false)].into_iter().collect();
        assert_eq!(targets.ready("m1"), Some(true));
    }
}
