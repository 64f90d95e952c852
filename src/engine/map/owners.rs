//! Whose the nodes are: evaluated before overrides, kept in the store before the map file says what
//! the sources said.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mapsmith_core::desired::ownership::{Observation, OwnedNode, Ownership, Policy, StoredOwners};
use mapsmith_core::{EntryMap, SourceState};
use metrics::gauge;
use tokio::time::timeout;

use super::{Evaluation, MapDecider};
use crate::store::OwnerStore;
use crate::telemetry::OWNED_NODES;

/// How long a decision waits for the store.
const STORE_BOUND: Duration = Duration::from_secs(5);

/// The nodes whose owner is remembered, as the last decision left them.
#[derive(Debug, Clone, Default)]
pub struct OwnersDecision {
    /// By node.
    pub nodes: Arc<BTreeMap<String, OwnedNode>>,
    /// Why they could not be stored.
    pub error: Option<String>,
}

/// The owners of nodes, and where they are kept.
pub(super) struct Owners {
    ownership: Ownership,
    /// None where nothing is written.
    store: Option<Arc<dyn OwnerStore>>,
    error: Option<String>,
}

impl std::fmt::Debug for Owners {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Owners").field("ownership", &self.ownership).finish_non_exhaustive()
    }
}

impl MapDecider {
    /// Remembers the owners of nodes, beginning with those that are stored; without this a node
    /// goes to whoever the registry names. Without a `store` nothing is written.
    pub fn with_ownership(
        self,
        policy: Option<Policy>,
        stored: StoredOwners,
        store: Option<Arc<dyn OwnerStore>>,
    ) -> Self {
        let said = self.gate.accepted().cloned().unwrap_or_default();
        let owners = policy.map(|policy| {
            let ownership = Ownership::resume(policy, stored, said);
            Owners { ownership, store, error: None }
        });
        Self { owners, ..self }
    }

    /// Says whose a node is, from the next decision on; false where owners are not remembered.
    pub(in crate::engine) fn own(&mut self, node: &str, master: &str, now: Timestamp) -> bool {
        let owners = self.owners.as_mut();
        owners.map(|owners| owners.ownership.own(node, master, now)).is_some()
    }

    /// Why the owners could not be stored at the last decision.
    pub(in crate::engine) fn owners_error(&self) -> Option<&str> {
        self.owners.as_ref()?.error.as_deref()
    }

    /// When something becomes of a node whose owner is remembered.
    pub(in crate::engine) fn owners_due(&self) -> Option<Duration> {
        let due = self.owners.as_ref()?.ownership.next_due()?;
        Some(Duration::try_from(due.duration_since(Timestamp::now())).unwrap_or_default())
    }

    /// Takes in what the sources said. Whether any node is another's than before.
    pub(super) async fn evaluate_owners(
        &mut self,
        said: &Arc<EntryMap>,
        round: &Evaluation<'_>,
    ) -> bool {
        let Some(owners) = &mut self.owners else { return false };
        let ownership = &mut owners.ownership;
        let masters: Vec<String> = {
            let load = said.load();
            let named = load.iter().map(|(master, _)| *master);
            let owners = ownership.nodes().values().map(|owned| owned.record.owner.as_str());
            named.chain(owners).map(str::to_owned).collect()
        };
        let names = masters.iter().map(String::as_str);
        ownership.outages().observe(&self.targets, names, round.at);
        let answered = round.sources.iter().filter_map(|source| source.snapshot.as_ref());
        let answered_at = answered.map(|snapshot| snapshot.answered_at).min();
        let seen = Observation {
            said,
            answered_at: answered_at.unwrap_or(Timestamp::MIN),
            overrides: &round.overrides,
            now: round.at,
        };
        let changed =
            ownership.evaluate(&seen, |node, master| time_of(round.sources, node, master));
        owners.save().await;
        if *self.decision.owners.nodes != *owners.ownership.nodes() {
            self.decision.owners.nodes = Arc::new(owners.ownership.nodes().clone());
        }
        self.decision.owners.error.clone_from(&owners.error);
        changed
    }

    /// The sources' answer with nodes given to their owners.
    pub(super) fn with_owners(&self, said: &Arc<EntryMap>) -> Arc<EntryMap> {
        match &self.owners {
            Some(owners) => owners.ownership.apply(said),
            None => Arc::clone(said),
        }
    }

    pub(super) fn record_owners(&self) {
        if self.owners.is_none() {
            return;
        }
        for phase in ["away", "returning", "leaving"] {
            let nodes = self.decision.owners.nodes.values();
            let count = nodes.filter(|owned| owned.phase.label() == phase).count();
            gauge!(OWNED_NODES, "phase" => phase).set(count as f64);
        }
    }
}

impl Owners {
    /// The sources had said this, as the map file has it.
    pub(super) fn go_on_from(&mut self, said: &Arc<EntryMap>) {
        self.ownership.go_on_from(said);
    }

    /// What can't be stored is tried again at the next decision; meanwhile it counts.
    async fn save(&mut self) {
        let Some(change) = self.ownership.unsaved() else {
            self.error = None;
            return;
        };
        let nodes = change.records.len();
        let kept = match &self.store {
            Some(store) => match timeout(STORE_BOUND, store.keep_owners(change)).await {
                Ok(kept) => kept.map_err(|error| error.to_string()),
                Err(_) => Err(format!("the store did not answer within {STORE_BOUND:?}")),
            },
            None => Ok(()),
        };
        match kept {
            Ok(()) => {
                self.ownership.saved();
                self.error = None;
            }
            Err(error) => {
                if self.error.as_ref() != Some(&error) {
                    tracing::error!(
                        nodes,
                        "the owners of nodes could not be stored, a restart would lose them; \
                         trying again: {error}"
                    );
                }
                self.error = Some(error);
            }
        }
    }
}

/// When a producer said that a node has this master, by the sources that say so.
fn time_of(sources: &[SourceState], node: &str, master: &str) -> Option<Timestamp> {
    let snapshots = sources.iter().filter_map(|source| source.snapshot.as_ref());
    let times = snapshots.filter_map(|snapshot| {
        let at = snapshot.entries.find(node.as_bytes())?;
        let time = snapshot.entries.time(at)?;
        (snapshot.entries.value(at) == master).then_some(time)
    });
    times.max()
}
