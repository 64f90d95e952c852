//! Who changed what: a row a change, in the change's own transaction where that is in the store.

use std::net::IpAddr;
use std::sync::OnceLock;

use jiff::Timestamp;
use mapsmith_core::access::{Identity, IdentityKind};
use mapsmith_core::events::Happening;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Who made a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Actor {
    pub kind: IdentityKind,
    pub name: String,
    /// A token's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

impl From<&Identity> for Actor {
    fn from(identity: &Identity) -> Self {
        let Identity { kind, name, id, .. } = identity.clone();
        Self { kind, name, id }
    }
}

/// Which part of the audit a row is in. Each has a most of rows of its own, so that rows of one
/// never push out those of another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AuditShare {
    #[default]
    Usual,
    /// What nodes and members say of themselves, and what ends of that by itself.
    Registrations,
}

/// A request that changes something, before it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRequest {
    pub at: Timestamp,
    pub actor: Actor,
    /// None where nobody asked over the network.
    pub address: Option<IpAddr>,
    pub method: String,
    /// The path, with names in braces in place of what it names.
    pub route: String,
    /// What it changes, like `masters/master1`.
    pub target: String,
    pub reason: Option<String>,
    pub request_id: String,
    pub share: AuditShare,
}

impl AuditRequest {
    /// Of what ends by itself.
    pub fn of_the_clock(at: Timestamp, target: String) -> Self {
        Self {
            at,
            actor: Actor::from(&Identity::clock()),
            address: None,
            method: String::new(),
            route: String::new(),
            target,
            reason: None,
            request_id: String::new(),
            share: AuditShare::Usual,
        }
    }

    /// The same of what was registered.
    pub fn of_registrations(at: Timestamp, target: String) -> Self {
        Self { share: AuditShare::Registrations, ..Self::of_the_clock(at, target) }
    }
}

/// Goes with a request to whatever carries it out, which notes it in its own transaction.
#[derive(Debug)]
pub struct AuditTicket {
    request: AuditRequest,
    /// What the request's body says of it.
    reason: OnceLock<String>,
    row: OnceLock<i64>,
    /// The event of what it orders.
    happening: OnceLock<Happening>,
    /// Whether it was only asked what would be.
    changes_nothing: OnceLock<()>,
}

impl AuditTicket {
    pub fn new(request: AuditRequest) -> Self {
        let (reason, row, happening) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Self { request, reason, row, happening, changes_nothing: OnceLock::new() }
    }

    /// Says what happens with the change: its event is kept in the change's own transaction.
    pub fn tell(&self, happening: Happening) {
        self.happening.get_or_init(|| happening);
    }

    /// The event of the change, with who asked for it.
    pub(super) fn told(&self) -> Option<Happening> {
        let AuditRequest { actor, reason, request_id, .. } = self.request();
        let happening = self.happening.get()?.clone();
        Some(happening.asked(Some(actor.name), reason, Some(request_id)))
    }

    /// The request, with the reason that is known by now.
    pub fn request(&self) -> AuditRequest {
        AuditRequest { reason: self.reason(), ..self.request.clone() }
    }

    /// Why the change is made.
    pub fn reason(&self) -> Option<String> {
        self.request.reason.as_ref().or(self.reason.get()).cloned()
    }

    /// Takes the reason that a change has, where the request's line has none.
    pub fn explain(&self, reason: Option<String>) {
        if let Some(reason) = reason {
            self.reason.get_or_init(|| reason);
        }
    }

    /// The request changes nothing, however it ends: it has no row.
    pub fn changes_nothing(&self) {
        self.changes_nothing.get_or_init(|| ());
    }

    pub fn share(&self) -> AuditShare {
        self.request.share
    }

    /// Whether it is to have a row.
    pub fn has_row(&self) -> bool {
        self.changes_nothing.get().is_none()
    }

    /// The row's number; none while there is no row.
    pub fn row(&self) -> Option<i64> {
        self.row.get().copied()
    }

    /// A request that makes several changes has the row of the first.
    pub(super) fn noted(&self, row: i64) {
        self.row.get_or_init(|| row);
    }
}

/// A change that was made, or refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditRow {
    pub seq: i64,
    pub at: Timestamp,
    pub actor: Actor,
    pub address: Option<String>,
    pub method: String,
    pub route: String,
    pub target: String,
    pub reason: Option<String>,
    /// The answer's; none where Mapsmith ended before the answer.
    pub status: Option<u16>,
    pub request_id: String,
    /// How long it took, in milliseconds.
    pub ms: Option<f64>,
    /// Of a command on a node: with which values, its id and the node's master.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Of a command on a node: `running`, and then what came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
}
