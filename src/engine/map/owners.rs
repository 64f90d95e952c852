//! Whose the nodes are: evaluated before overrides, kept in the store before the map file says what
//! the sources said.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use mapsmith_core::desired::ownership::{
    Forgotten, Observation, OwnedNode, OwnersChange, Ownership, Policy, StoredOwners, Told, Why,
};
use mapsmith_core::{EntryMap, SourceState};
use metrics::gauge;
use tokio::time::timeout;

use super::{Evaluation, MapDecider};
use crate::engine::OwnError;
use crate::store::{OwnerStore, StoreError};
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
    /// A write that was given up: until it ends none is begun, or it might come after a newer one.
    in_flight: Option<BoxFuture<'static, Result<(), StoreError>>>,
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
            let now = Timestamp::now();
            let ownership = Ownership::resume(policy, stored, said, now);
            Owners { ownership, store, in_flight: None, error: None }
        });
        Self { owners, ..self }
    }

    /// Says whose a node is, from the next decision on.
    ///
    /// # Errors
    /// Owners are not remembered, or another Mapsmith decides.
    pub(in crate::engine) fn own(
        &mut self,
        node: &str,
        master: &str,
        now: Timestamp,
    ) -> Result<(), OwnError> {
        if let Some(writer) = &self.foreign {
            return Err(OwnError::ReadOnly(writer.to_string()));
        }
        let owners = self.owners.as_mut().ok_or(OwnError::NotRemembered)?;
        owners.ownership.own(node, master, now);
        Ok(())
    }

    /// Why an order of an owner is not in force for good after a decision, if it is not.
    pub(in crate::engine) fn outcome_of_own(&self) -> Result<(), OwnError> {
        let Some(owners) = &self.owners else { return Err(OwnError::NotRemembered) };
        if let Some(writer) = &self.foreign {
            return Err(OwnError::ReadOnly(writer.to_string()));
        }
        match (&self.file.error, &owners.error) {
            (_, Some(error)) => Err(OwnError::NotStored(error.clone())),
            (Some(error), None) => Err(OwnError::NotInForce(error.clone())),
            (None, None) if owners.ownership.has_orders() => {
                Err(OwnError::NotInForce(match self.gate.held() {
                    Some(held) => format!("the first answer is held back, see {}", held.id),
                    None => {
                        let sources = self.decision.waiting_for.join(", ");
                        format!("the first answer of {sources} is waited for")
                    }
                }))
            }
            (None, None) if !self.composed => {
                Err(OwnError::NotInForce("the map waits for an instance".to_owned()))
            }
            (None, None) => Ok(()),
        }
    }

    /// Why the owners could not be stored at the last decision.
    pub(in crate::engine) fn owners_error(&self) -> Option<&str> {
        self.owners.as_ref()?.error.as_deref()
    }

    /// When something becomes of a node whose owner is remembered.
    pub(in crate::engine) fn owners_due(&self) -> Option<Duration> {
        // What is another Mapsmith's to decide is never evaluated here.
        let owners = self.owners.as_ref().filter(|_| self.foreign.is_none())?;
        let due = owners.ownership.next_due()?;
        Some(Duration::try_from(due.duration_since(Timestamp::now())).unwrap_or_default())
    }

    /// Takes in what the sources said. Whether any node is another's than before.
    pub(super) fn evaluate_owners(&mut self, said: &Arc<EntryMap>, round: &Evaluation<'_>) -> bool {
        let Some(owners) = &mut self.owners else { return false };
        let ownership = &mut owners.ownership;
        ownership.observe(&self.targets, said, round.at);
        let answered = round.sources.iter().map(|source| source.snapshot.as_ref());
        let answered = answered.map(|snapshot| Some(snapshot?.answered_at));
        let seen = Observation {
            said,
            candidate: round.candidate.as_ref().unwrap_or(said),
            answered: answered.collect(),
            gone: &self.gone,
            overrides: &round.overrides,
            now: round.at,
        };
        ownership.evaluate(&seen, |node, master| told(round.sources, node, master))
    }

    /// The owners as they are, to go back to where an answer does not come into force after all.
    pub(super) fn owners_before(&self) -> Option<Ownership> {
        Some(self.owners.as_ref()?.ownership.clone())
    }

    /// Undoes an evaluation.
    pub(super) fn take_owners_back(&mut self, before: Option<Ownership>) {
        if let (Some(owners), Some(before)) = (&mut self.owners, before) {
            owners.ownership = before;
        }
    }

    /// Stores what is new, and tells of it.
    pub(super) async fn keep_owners(&mut self) {
        let Some(owners) = &mut self.owners else { return };
        owners.save().await;
        log_forgotten(&owners.ownership.take_forgotten());
        self.publish_owners();
    }

    /// The map in force is what sends nodes home.
    pub(super) async fn owners_in_force(&mut self, at: Timestamp) {
        let map = self.entries_in_force();
        if let (Some(owners), Some(map)) = (&mut self.owners, map) {
            owners.ownership.in_force(&map, at);
            // What just failed is tried again at the next decision.
            if owners.error.is_none() {
                owners.save().await;
            }
        }
        self.publish_owners();
    }

    fn publish_owners(&mut self) {
        let Some(owners) = &self.owners else { return };
        if *self.decision.owners.nodes != *owners.ownership.nodes() {
            self.decision.owners.nodes = Arc::new(owners.ownership.nodes().clone());
        }
        self.decision.owners.error.clone_from(&owners.error);
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
        self.ownership.go_on_from(said, Timestamp::now());
    }

    /// What can't be stored is tried again at the next decision; meanwhile it counts.
    async fn save(&mut self) {
        let Some(change) = self.ownership.unsaved() else {
            self.error = None;
            return;
        };
        let nodes = change.records.len();
        let kept = self.write(change).await;
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

impl Owners {
    async fn write(&mut self, change: OwnersChange) -> Result<(), String> {
        let Some(store) = self.store.clone() else { return Ok(()) };
        if let Some(earlier) = &mut self.in_flight {
            if earlier.now_or_never().is_none() {
                return Err("the store has not answered yet".to_owned());
            }
            self.in_flight = None;
        }
        let mut write: BoxFuture<'static, _> =
            Box::pin(async move { store.keep_owners(change).await });
        match timeout(STORE_BOUND, &mut write).await {
            Ok(kept) => kept.map_err(|error| error.to_string()),
            Err(_) => {
                self.in_flight = Some(write);
                Err(format!("the store did not answer within {STORE_BOUND:?}"))
            }
        }
    }
}

/// How a source names a node with this master, the newest if several do.
fn told(sources: &[SourceState], node: &str, master: &str) -> Option<Told> {
    let told = sources.iter().enumerate().filter_map(|(source, state)| {
        let snapshot = state.snapshot.as_ref()?;
        let at = snapshot.entries.find(node.as_bytes())?;
        let told = Told { source, at: snapshot.entries.time(at), answered: snapshot.answered_at };
        (snapshot.entries.value(at) == master).then_some(told)
    });
    told.max_by_key(|told| (told.at, told.answered))
}

/// One line for each owner and reason: a drain may send home every node of a master.
fn log_forgotten(forgotten: &[Forgotten]) {
    let mut groups: BTreeMap<(&str, Why), (usize, &str)> = BTreeMap::new();
    for Forgotten { node, owner, why } in forgotten {
        groups.entry((owner, *why)).or_insert((0, node)).0 += 1;
    }
    for ((owner, why), (nodes, first)) in groups {
        tracing::info!(owner, nodes, first, "an owner is not remembered any more: {}", why.label());
    }
}
