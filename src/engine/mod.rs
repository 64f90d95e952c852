//! Desired state from snapshots: the map that every HAProxy should hold, and the servers that its
//! backends should have.
//!
//! `map` turns snapshots into revisions and writes each to the map file; `servers` turns lists into
//! the servers of each backend; [`Engine`] runs both in one task and publishes one
//! [`Desired`](mapsmith_core::Desired).
//! `rows` is what is said between it and the instances about rows that a map refuses. `preview` is
//! the same code without a writer: what `plan` and `check` show.

use std::sync::Arc;

use mapsmith_core::desired::gate::{ApprovalError, Hold};
use mapsmith_core::desired::hold::{HoldError, Rejected, Rollback};
use mapsmith_core::desired::rollout::{CanaryInstances, ChoiceError, Rollout, RolloutError, Terms};
use mapsmith_core::revision::ChangeCounts;
use mapsmith_core::status::BackendStatus;
use mapsmith_core::{EntryMap, HeldChange, LearnedRoute, Note, Overrides, Revision};
use metrics::counter;
use tokio::sync::oneshot;

use crate::store::AuditTicket;
use crate::telemetry::GUARD_HOLDS;

mod inputs;
pub mod map;
mod memory;
pub mod preview;
pub mod rows;
mod run;
pub mod servers;

pub use inputs::{Inputs, InstanceViews};
pub use memory::Memory;
pub use run::{Engine, Outputs};

use map::MapDecision;

/// What was decided last, and why.
#[derive(Debug, Clone, Default)]
pub struct Decision {
    /// The generation of what is desired since.
    pub generation: u64,
    /// The highest poll request whose answers, of the node map and of every server list, are taken
    /// into account.
    pub evaluated_request: u64,
    /// The number of the overrides whose orders of servers are in force.
    pub ordered: u64,
    /// The number of the members that are decided on.
    pub members: u64,
    /// The node map.
    pub map: MapDecision,
    /// Every declared backend, in the order of the settings.
    pub backends: Vec<BackendStatus>,
}

impl Decision {
    /// The first backend of which no servers are known because those that are listed are held: what
    /// HAProxy's configuration waits for then is an approval.
    pub fn held_without_servers(&self) -> Option<(&str, &HeldChange)> {
        let held = |backend: &'_ BackendStatus| backend.servers.is_none() && backend.held.is_some();
        let backend = self.backends.iter().find(|backend| held(backend))?;
        Some((&backend.name, backend.held.as_ref()?))
    }

    /// The changes that the guard holds back, the map's first.
    pub fn held(&self) -> impl Iterator<Item = &HeldChange> {
        let of_lists = self.backends.iter().filter_map(|backend| backend.held.as_ref());
        self.map.held.iter().chain(of_lists)
    }
}

/// Asks every source again and gives the request's number, which
/// [`evaluated_request`](mapsmith_core::DesiredMap::evaluated_request)
/// reaches in time.
pub type AskSources = Box<dyn Fn() -> u64 + Send + Sync>;

/// Gets all the routes that an instance has learned and the map does not have: the sources are
/// asked for their nodes.
pub type RequestLookups = Box<dyn Fn(&Arc<[LearnedRoute]>) + Send + Sync>;

/// What an operator orders of the engine itself.
#[derive(Debug)]
pub enum Order {
    Approve(Approval),
    Own(OwnOrder),
    RollBack(RollbackOrder),
    Resume(ResumeOrder),
    Reject(RejectOrder),
    Unreject(UnrejectOrder),
    Rollout(RolloutOrder),
    TryMap(MapTrial),
    TryVerdict(VerdictTrial),
    TryRegistrations(RegistrationTrial),
}

/// Goes back to what the sources had said at a revision, and holds them back.
#[derive(Debug)]
pub struct RollbackOrder {
    pub rollback: Rollback,
    /// Where it goes first; none where it goes everywhere at once.
    pub canary: Option<Terms>,
    /// What they had said.
    pub base: Arc<EntryMap>,
    /// The revision that whoever orders it takes for the one in force.
    pub expected: u64,
    /// None where nothing is to be changed.
    pub ticket: Option<Arc<AuditTicket>>,
    /// Gets what it came to, or why it is not done.
    pub answer: oneshot::Sender<Result<RolledBack, HoldOrderError>>,
}

/// Tells what an order would make of the map. Nothing is changed.
#[derive(Debug)]
pub struct MapTrial {
    pub tried: TriedOrder,
    /// Gets the map before and after it, or why it would not be done.
    pub answer: oneshot::Sender<Result<MapPreview, HoldOrderError>>,
}

/// Tells what the guard would say if these nodes were registered. Nothing is changed.
#[derive(Debug)]
pub struct RegistrationTrial {
    /// All that would be registered.
    pub entries: Arc<EntryMap>,
    /// Gets why the map that this leads to would be held, if it would.
    pub answer: oneshot::Sender<Option<String>>,
}

/// An order that is tried.
#[derive(Debug)]
pub enum TriedOrder {
    /// These are the overrides then.
    Overrides(Arc<Overrides>),
    /// The sources are followed again. `expected` is the revision that whoever asks takes for the
    /// one in force, where they say so.
    Resume { expected: Option<u64> },
}

/// Tells whether a held change could be approved or rejected now. Nothing is changed.
#[derive(Debug)]
pub struct VerdictTrial {
    /// The change's id.
    pub id: String,
    /// Where it would go first; none where it would go everywhere at once.
    pub canary: Option<CanaryInstances>,
    /// Gets the change, or why it could not.
    pub answer: oneshot::Sender<Result<HeldChange, HoldOrderError>>,
}

/// What an order brings into force, or would.
#[derive(Debug, Clone)]
pub struct MapPreview {
    pub before: Arc<Revision>,
    pub after: Arc<EntryMap>,
}

/// What a rollback came to.
#[derive(Debug, Clone)]
pub struct RolledBack {
    /// The map before it, and after it.
    pub maps: MapPreview,
    /// The generation that has it in force.
    pub generation: u64,
    /// Why it is stored and not in force, if so.
    pub not_in_force: Option<String>,
}

/// Follows the sources again.
#[derive(Debug)]
pub struct ResumeOrder {
    /// The revision that whoever orders it takes for the one in force, where they say so.
    pub expected: Option<u64>,
    pub ticket: Option<Arc<AuditTicket>>,
    /// Gets the generation that was decided on since, or why it is not done.
    pub answer: oneshot::Sender<Result<u64, HoldOrderError>>,
}

/// Takes a held change for rejected.
#[derive(Debug)]
pub struct RejectOrder {
    /// The change's id.
    pub id: String,
    pub note: Note,
    pub ticket: Option<Arc<AuditTicket>>,
    /// Gets the rejected change, or why it is not done.
    pub answer: oneshot::Sender<Result<HeldChange, HoldOrderError>>,
}

/// Takes a rejection back.
#[derive(Debug)]
pub struct UnrejectOrder {
    /// The rejected change's id.
    pub id: String,
    /// None where nothing is to be changed.
    pub ticket: Option<Arc<AuditTicket>>,
    /// Gets what was rejected and what is held of the map since, or why it is not done.
    pub answer: oneshot::Sender<Result<Unrejected, HoldOrderError>>,
}

/// What was rejected, and what is held of the map since.
pub type Unrejected = (Rejected, Option<HeldChange>);

/// Has a rollout go everywhere, or what was before it.
#[derive(Debug)]
pub struct RolloutOrder {
    pub id: String,
    /// That of the rollout that whoever orders it has seen.
    pub version: u64,
    /// Or abort.
    pub promote: bool,
    pub note: Note,
    /// None where nothing is to be changed.
    pub ticket: Option<Arc<AuditTicket>>,
    /// Gets the rollout as it is since and the generation that has it so, or why it is not done.
    pub answer: oneshot::Sender<Result<(Rollout, u64), HoldOrderError>>,
}

/// Why an order about the sources' hold or a rollout is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HoldOrderError {
    #[error("there is no map in force yet: the sources have not answered")]
    NotReady,
    #[error("the map is another Mapsmith's ({0}): ask that one")]
    ReadOnly(String),
    #[error("it needs a store")]
    NoStore,
    #[error("revision {in_force} is in force, and not {expected}")]
    Changed { expected: u64, in_force: u64 },
    #[error(transparent)]
    Refused(HoldError),
    #[error(transparent)]
    NotHeld(ApprovalError),
    #[error(transparent)]
    Rollout(RolloutError),
    #[error(transparent)]
    Choice(ChoiceError),
    #[error("there is no rollout {0}")]
    NoRollout(String),
    #[error("the rollout {id} is not as it was: {state}", id = .0.id, state = .0.state.name())]
    RolloutChanged(Box<Rollout>),
    #[error("not stored, so nothing has changed: {0}")]
    NotStored(String),
}

/// Says whose a node is from now on.
#[derive(Debug)]
pub struct OwnOrder {
    /// The node, as the map has it.
    pub node: String,
    /// The master, by HAProxy's name.
    pub master: String,
    /// Gets the generation that has it in force, or why it is not.
    pub answer: oneshot::Sender<Result<u64, OwnError>>,
}

/// Why an order of an owner is not in force for good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OwnError {
    #[error("owners are not remembered: set ownership.remember, or use `pin`")]
    NotRemembered,
    #[error("the map is another Mapsmith's ({0}): ask that one")]
    ReadOnly(String),
    /// It counts, but a restart would lose it.
    #[error("not stored yet, a restart would lose it; trying again: {0}")]
    NotStored(String),
    /// It counts once that is over.
    #[error("taken, but not in force yet: {0}")]
    NotInForce(String),
}

/// Asks for a held change to be let through.
#[derive(Debug)]
pub struct Approval {
    /// The change's id.
    pub id: String,
    pub note: Note,
    /// Where it goes first, with who asked for that; none where it goes everywhere at once.
    pub canary: Option<(Terms, Arc<AuditTicket>)>,
    /// Gets the approved change, or why it can't be approved.
    pub answer: oneshot::Sender<Result<HeldChange, HoldOrderError>>,
}

/// Logs and counts a change that is held back. `what` stays as it is meanwhile, but for the `rest`
/// of the change, if that passes.
pub fn record_hold(hold: Hold, held: &HeldChange, what: &str, rest: Option<ChangeCounts>) {
    match hold {
        Hold::Unchanged => {}
        Hold::Replaced => tracing::info!(
            of = held.of,
            id = held.id,
            "the held change is another one now: {} ({})",
            held.reason,
            held.counts
        ),
        Hold::New => {
            counter!(GUARD_HOLDS).increment(1);
            let meanwhile = match rest {
                None => format!("the last good {what} stays in force"),
                Some(rest) => format!("the rest of the change passes: {rest}"),
            };
            tracing::warn!(
                of = held.of,
                id = held.id,
                "held back by the guard: {} ({}); {meanwhile}; `mapsmith approve {}` lets it \
                    through",
                held.reason,
                held.counts,
                held.id
            );
        }
    }
}

#[cfg(test)]
mod tests;
