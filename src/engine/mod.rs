//! Desired state from snapshots: the map that every HAProxy should hold, and the servers that its
//! backends should have.
//!
//! `map` turns snapshots into revisions and writes each to the map file; `servers` turns lists into
//! the servers of each backend; `rows` is what is said between them and the instances about rows
//! that a map refuses. The same code without a writer is what `plan`, `sync` and `check` show.

use std::sync::Arc;

use mapsmith_core::desired::gate::{ApprovalError, Hold};
use mapsmith_core::plan::Deviation;
use mapsmith_core::{HeldChange, LearnedRoute, Overrides, Revision};
use metrics::counter;
use tokio::sync::oneshot;

use crate::telemetry::GUARD_HOLDS;

pub mod map;
pub mod rows;
pub mod servers;

/// What every instance should hold.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The desired revision. It is in the map file already.
    pub revision: Arc<Revision>,
    /// Grows with every decision, also where the revision stays: an instance that has seen it has
    /// looked again since.
    pub generation: u64,
    /// The highest poll request that the decision takes into account.
    pub evaluated_request: u64,
    /// The overrides in the revision.
    pub overrides: Arc<Overrides>,
    /// What the revision changed; none where there was no map before it, or it came from the map
    /// file.
    pub change: Option<Change>,
}

/// What a revision changed: found once, not by each of a hundred instances.
#[derive(Debug, Clone)]
pub struct Change {
    /// The revision before it.
    pub from: u64,
    /// What must change in the memory of an instance that holds that one.
    pub deviation: Arc<Deviation>,
}

/// Asks every source to look again and gives the request's number, which [`Wanted::evaluated_request`]
/// reaches in time.
pub type AskSources = Box<dyn Fn() -> u64 + Send + Sync>;

/// Told all the routes that an instance has learned and the map does not have: the sources look
/// early at their nodes.
pub type RequestLookups = Box<dyn Fn(&Arc<[LearnedRoute]>) + Send + Sync>;

/// Asks for a held change to be let through.
#[derive(Debug)]
pub struct Approval {
    /// The change's id.
    pub id: String,
    /// Gets the approved change, or why it can't be approved.
    pub answer: oneshot::Sender<Result<HeldChange, ApprovalError>>,
}

/// Logs and counts a change that is held back. `what` stays as it is meanwhile.
fn record_hold(hold: Hold, held: &HeldChange, what: &str) {
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
            tracing::warn!(
                of = held.of,
                id = held.id,
                "held back by the guard: {}; the last good {what} stays in force ({}); `mapsmith \
                 approve {}` lets it through",
                held.reason,
                held.counts,
                held.id
            );
        }
    }
}
