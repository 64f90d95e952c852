//! What a decision would be now, without a writer: for `plan` and `check`.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mapsmith_core::desired::references::{Actions, Targets};
use mapsmith_core::map_file::MapFile;
use mapsmith_core::status::BackendStatus;
use mapsmith_core::{DesiredServers, EntryMap, HeldChange, ServerList, SourceState};

use super::map::{MapDecider, MapDecision};
use super::servers::ServerDecider;
use super::servers::resolve::{Resolver, SystemLookup};
use crate::settings::Settings;
use crate::store::Stored;

/// What a decision would bring into force.
#[derive(Debug)]
pub struct Preview {
    /// The entries of the map file; none where there is no file.
    pub before: Option<Arc<EntryMap>>,
    /// The map; where something would be held, what an approval of it would bring into force.
    pub map: Arc<EntryMap>,
    /// What the guard would hold back.
    pub held: Option<HeldChange>,
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
        .with_ownership(settings.ownership.policy(), stored.owners, None);
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
    Preview { before, map, held, waiting_for, decision }
}

/// What decisions on server lists would come to.
#[derive(Debug)]
pub struct ServersPreview {
    /// Of each declared backend, in the order of the settings.
    pub statuses: Vec<BackendStatus>,
    /// What would be in force.
    pub desired: Arc<DesiredServers>,
}

/// Decides on the server lists likewise, once they have been quiet for long enough. Looks their
/// host names up.
pub async fn servers(
    settings: &Settings,
    lists: &[SourceState<ServerList>],
    map: &Preview,
) -> ServersPreview {
    let mut decider = ServerDecider::new(settings);
    let mut resolver = Resolver::new(Box::new(SystemLookup), settings.damping.hold);
    let quiet = settings.damping.max_delay;
    decider.take_in(lists, &map.decision);
    let addresses = resolver.answer(decider.question(), Duration::ZERO).await;
    decider.decide(&addresses, Duration::ZERO);
    decider.take_in(lists, &map.decision);
    decider.decide(&addresses, quiet);
    ServersPreview {
        statuses: decider.backends(quiet),
        desired: decider.desired().unwrap_or_default(),
    }
}
