//! What a decision would be now, without a writer: for `plan` and `check`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mapsmith_core::desired::guard::Limit;
use mapsmith_core::desired::hold::Hold;
use mapsmith_core::desired::references::{Actions, Targets};
use mapsmith_core::desired::rollout::Rollout;
use mapsmith_core::map_file::MapFile;
use mapsmith_core::members::MemberListings;
use mapsmith_core::server::LastGoodList;
use mapsmith_core::status::BackendStatus;
use mapsmith_core::{DesiredServers, EntryMap, HeldChange, Server, ServerList, SourceState};
use serde::Serialize;

use super::map::{MapDecider, MapDecision};
use super::servers::ServerDecider;
use super::servers::resolve::{Resolver, SystemLookup};
use crate::settings::Settings;
use crate::store::Stored;

type Servers = BTreeMap<String, Server>;

/// What a decision would bring into force.
#[derive(Debug)]
pub struct Preview {
    /// The entries of the map file; none where there is no file.
    pub before: Option<Arc<EntryMap>>,
    /// The map; where something would be held, what an approval of it would bring into force.
    pub map: Arc<EntryMap>,
    /// What the guard would hold back.
    pub held: Option<HeldChange>,
    /// What a rollback leaves: of what the sources say nothing is applied by itself.
    pub hold: Option<Hold>,
    /// What is tried in some instances first.
    pub rollout: Option<Rollout>,
    /// The sources that a decision waits for; while there is one the map is the one found.
    pub waiting_for: Vec<String>,
    decision: MapDecision,
}

/// Decides on the map as the daemon would that finds this map file and these answers of the
/// sources, with nothing in its memory.
pub async fn map(
    settings: &Settings,
    actions: Actions,
    found: Option<MapFile>,
    targets: Vec<Arc<Targets>>,
    sources: &[SourceState],
    stored: Stored,
) -> Preview {
    let overrides = Arc::new(stored.overrides.at(Timestamp::now()));
    let start = Arc::clone(&overrides);
    let (limits, path) = (settings.guard.clone(), settings.map.file());
    let decider = match settings.keeps_map() {
        true => MapDecider::without_writer(limits, path, found, start),
        false => MapDecider::without_map(limits, path, start),
    };
    let mut decider = decider
        .with_actions(actions)
        .with_remove_after(settings.map.remove_after)
        .with_ownership(settings.ownership.policy(), stored.owners, None)
        .with_source_hold(stored.hold, stored.rollouts, None)
        .await;
    let before = decider.entries_in_force();
    decider.see(targets);
    decider.decide(sources, Arc::clone(&overrides)).await;
    let decision = decider.decision();
    let (held, waiting_for) = (decision.held.clone(), decision.waiting_for.clone());
    if let Some(held) = &held
        && decider.approve(&held.id).is_ok()
    {
        decider.decide(sources, overrides).await;
    }
    let map = decider.entries_in_force().unwrap_or_default();
    // Nobody waits for a first answer here: what is in the file counts for what it is.
    let decision = MapDecision { active: !map.is_empty(), ..decider.decision().clone() };
    let hold = decision.hold.state.hold.clone();
    let rollout = decision.rollout.open().cloned();
    Preview { before, map, held, hold, rollout, waiting_for, decision }
}

/// What decisions on server lists would come to.
#[derive(Debug)]
pub struct ServersPreview {
    /// Of each declared backend, in the order of the settings.
    pub statuses: Vec<BackendStatus>,
    /// What would be in force.
    pub desired: Arc<DesiredServers>,
    /// What becomes of the lists in force, a backend each; those that stay as they are, and those
    /// that are not known, are not there.
    pub changes: Vec<ServersChange>,
}

/// What becomes of a backend's servers in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServersChange {
    pub backend: String,
    /// The servers in force, by the store; none where it has none.
    pub servers_before: Option<usize>,
    /// Those after the change; where the guard would hold it, after an approval.
    pub servers_after: usize,
    pub added: Vec<String>,
    /// Those with another address, weight or options.
    pub changed: Vec<String>,
    pub removed: Vec<String>,
    /// Why the guard would hold the change back.
    pub held: Option<String>,
}

impl fmt::Display for ServersChange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (added, changed, removed) = (self.added.len(), self.changed.len(), self.removed.len());
        write!(out, "{added} added, {changed} changed, {removed} removed")
    }
}

impl ServersChange {
    /// None where there is nothing to tell.
    fn of(
        status: &BackendStatus,
        before: Option<&Servers>,
        after: Option<&Servers>,
    ) -> Option<Self> {
        let held = status.held.as_ref().map(|held| held.reason.clone());
        if before.is_none() && held.is_none() {
            return None;
        }
        let nothing = Servers::new();
        let (old, new) = (before.unwrap_or(&nothing), after.unwrap_or(&nothing));
        let names = |servers: &Servers, wanted: &dyn Fn(&str, &Server) -> bool| -> Vec<String> {
            let found = servers.iter().filter(|(name, server)| wanted(name, server));
            found.map(|(name, _)| name.clone()).collect()
        };
        let change = Self {
            backend: status.name.clone(),
            servers_before: before.map(Servers::len),
            servers_after: new.len(),
            added: names(new, &|name, _| !old.contains_key(name)),
            changed: names(new, &|name, server| old.get(name).is_some_and(|old| old != server)),
            removed: names(old, &|name, _| !new.contains_key(name)),
            held,
        };
        (change.count() > 0 || change.held.is_some()).then_some(change)
    }

    /// How many servers it is about.
    pub fn count(&self) -> usize {
        self.added.len() + self.changed.len() + self.removed.len()
    }
}

/// Decides on the server lists likewise, as the daemon would that finds these lists in its store:
/// once they have been quiet for long enough, and what is listed no more has gone. Looks their host
/// names up. `members` are the lists of those backends that take members.
pub async fn servers(
    settings: &Settings,
    lists: &[SourceState<ServerList>],
    map: &Preview,
    stored: &BTreeMap<String, LastGoodList>,
    members: Arc<MemberListings>,
) -> ServersPreview {
    let mut at_once = settings.clone();
    (at_once.damping.hold, at_once.damping.max_removed) = (Duration::ZERO, Limit::Percent(100.0));
    let mut decider = ServerDecider::new(&at_once).resume(stored);
    decider.order(&map.decision.overrides);
    decider.register(members);
    let mut resolver = Resolver::new(Box::new(SystemLookup), settings.damping.hold);
    let quiet = settings.damping.max_delay;
    decider.take_in(lists, &map.decision);
    let addresses = resolver.answer(decider.question(), Duration::ZERO).await;
    let decide = |decider: &mut ServerDecider, now: Duration| {
        decider.take_in(lists, &map.decision);
        decider.decide(&addresses, now);
    };
    decide(&mut decider, Duration::ZERO);
    decide(&mut decider, quiet);
    let statuses = decider.backends(quiet);
    let desired = decider.desired().unwrap_or_default();
    for held in statuses.iter().filter_map(|status| status.held.as_ref()) {
        // What is approved is what is held: nothing has been decided since.
        let _ = decider.approve(&held.id);
    }
    decide(&mut decider, quiet);
    decide(&mut decider, quiet + quiet);
    let approved = decider.desired().unwrap_or_default();
    let change = |status: &BackendStatus| {
        let before = stored.get(&status.name).map(|list| &list.servers);
        let after = approved.backends.get(&status.name).map(|backend| &backend.servers);
        ServersChange::of(status, before, after)
    };
    let changes = statuses.iter().filter_map(change).collect();
    ServersPreview { statuses, desired, changes }
}

#[cfg(test)]
mod tests;
