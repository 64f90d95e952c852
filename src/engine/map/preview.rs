//! What a decision would be now, without a writer: for `plan` and `check`.

use std::path::Path;
use std::sync::Arc;

use mapsmith_core::desired::guard::Limits;
use mapsmith_core::desired::references::{Actions, Targets};
use mapsmith_core::map_file::MapFile;
use mapsmith_core::{EntryMap, HeldChange, Overrides, SourceState};

use super::MapDecider;

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
}

/// Decides as the daemon would that finds this map file and these answers of the sources, with
/// nothing in its memory. `path` is the map file's.
pub async fn preview(
    limits: &Limits,
    actions: Actions,
    (path, found): (&Path, Option<MapFile>),
    targets: Vec<Arc<Targets>>,
    sources: &[SourceState],
    overrides: Arc<Overrides>,
) -> Preview {
    let start = Arc::clone(&overrides);
    let mut decider =
        MapDecider::without_writer(limits.clone(), path, found, start).with_actions(actions);
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
    Preview { before, map: decider.entries_in_force().unwrap_or_default(), held, waiting_for }
}
