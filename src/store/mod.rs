//! Where overrides outlive a restart, registrations, server lists, services, revisions, tokens and
//! the audit. A change of an override is in the store before anything acts on it, and so is who
//! made it.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use mapsmith_core::desired::hold::HoldState;
use mapsmith_core::desired::ownership::OwnersChange;
use mapsmith_core::desired::rollout::{Plan, Rollout};
use mapsmith_core::history::{Fingerprint, RevisionRecord};
use mapsmith_core::{EntryMap, Invalid, OverrideChange, Overrides, Revision, ServiceForms};

mod attributes;
pub mod audit;
pub mod lists;
pub mod map_file;
pub mod member_service;
pub mod override_service;
pub mod registration_service;
pub mod replace;
pub mod secret;
pub mod sqlite;
pub mod token_service;

pub use audit::{AuditRequest, AuditRow, AuditTicket};
pub use lists::keep_lists;
pub use member_service::{MemberKeeper, MemberMemory, MemberService};
pub use override_service::OverrideService;
pub use registration_service::RegistrationService;
pub use sqlite::{AuditFilter, HistoryBounds, HistoryReader, SqliteStore, Stored, StoredEvents};
pub use token_service::TokenService;

/// Services as the store has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredServices {
    pub forms: ServiceForms,
    /// Where they came from.
    pub origin: String,
    /// Since when they are in force.
    pub since: Option<Timestamp>,
}

#[async_trait]
pub trait Store: Send + Sync + 'static {
    fn place(&self) -> String;

    /// All of them, pins whose time is over included.
    async fn load(&self) -> Result<Overrides, StoreError>;

    /// Keeps a change for good, with who made it, and gives all overrides after it; none where
    /// there was nothing to end, and nothing changed.
    /// Where it can't be kept nothing has changed.
    async fn change(
        &self,
        change: OverrideChange,
        ticket: Option<Arc<AuditTicket>>,
    ) -> Result<Option<Overrides>, StoreError>;

    /// All overrides as they would be after a change; none where there is nothing to end.
    async fn try_change(&self, change: OverrideChange) -> Result<Option<Overrides>, StoreError>;
}

/// Where the owners of nodes outlive a restart.
#[async_trait]
pub trait OwnerStore: Send + Sync + 'static {
    /// Keeps a change for good, all of it or nothing.
    async fn keep_owners(&self, change: OwnersChange) -> Result<(), StoreError>;
}

/// A revision as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptRevision {
    pub record: RevisionRecord,
    /// Of its map.
    pub fingerprint: Fingerprint,
    /// What leads back to the map before.
    pub blocks: Vec<Vec<u8>>,
    /// What leads from its map to what the sources had said; nothing where they are the same, or an
    /// older revision has it.
    pub base: Vec<Vec<u8>>,
}

/// Where revisions outlive a restart.
#[async_trait]
pub trait HistoryStore: Send + Sync + 'static {
    /// What tells the map of a revision from others, and since when it was in force; none where that
    /// one is not kept.
    async fn fingerprint_of(
        &self,
        number: u64,
    ) -> Result<Option<(Fingerprint, Timestamp)>, StoreError>;

    /// Keeps a revision for good, and forgets the oldest ones beyond what there is room for. Where
    /// it can't be kept nothing has changed.
    async fn keep_revision(&self, revision: KeptRevision) -> Result<(), StoreError>;

    /// Keeps what leads from the map of a revision to what the sources say by now, in place of what
    /// was kept of that.
    async fn keep_base(&self, number: u64, base: Vec<Vec<u8>>) -> Result<(), StoreError>;
}

/// A rollout as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRollout {
    pub rollout: Rollout,
    pub plan: Plan,
    /// None where they are kept already, or it is over.
    pub ways: Option<Ways>,
}

/// What leads from what the sources had said of what is stable to what they had of the canary, and
/// back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ways {
    pub forward: Vec<Vec<u8>>,
    pub back: Vec<Vec<u8>>,
}

/// Where a hold of the sources, what was rejected and rollouts outlive a restart.
#[async_trait]
pub trait HoldStore: Send + Sync + 'static {
    /// Keeps the state for good, and that of a rollout, with who changed it. Where it can't be kept
    /// nothing has changed.
    async fn keep_hold(
        &self,
        state: HoldState,
        rollout: Option<StoredRollout>,
        ticket: Option<Arc<AuditTicket>>,
    ) -> Result<(), StoreError>;

    /// What the sources had said at a revision, where `newest` is the map in force; why it can't be
    /// told, where it can't.
    async fn base_of(&self, newest: Arc<Revision>, number: u64) -> Result<EntryMap, StoreError>;
}

/// Why the store can't be used, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("store.path {path}: {fault}")]
pub struct StoreError {
    pub path: String,
    pub fault: StoreErrorKind,
}

/// What is only tidied up at a start waits for the next one where the store's file is gone: all else
/// goes on with what it had.
fn tidied<T: Default>(done: Result<T, StoreError>) -> Result<T, StoreError> {
    match done {
        Err(StoreError { fault: StoreErrorKind::Gone, .. }) => Ok(T::default()),
        done => done,
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreErrorKind {
    #[error(
        "there is no folder {0}; create it, and let the user that Mapsmith runs as write there"
    )]
    NoFolder(String),
    #[error("is a folder; name a file in it")]
    Folder,
    #[error(
        "can't be opened: {0}; the user that Mapsmith runs as must be able to write the file and \
            its folder"
    )]
    NotOpened(String),
    #[error(
        "can't be written ({0}); let the user that Mapsmith runs as write the file and its folder"
    )]
    ReadOnly(String),
    #[error(
        "is in use by another Mapsmith ({0}); a store serves one daemon: stop that one, or name \
            another file"
    )]
    InUse(String),
    #[error("is locked by another program ({0}); find it with `fuser`, end it, and try again")]
    Locked(String),
    #[error("the disk is full ({0}); make room")]
    Full(String),
    #[error(
        "is damaged or not a SQLite database ({0}); restore a backup, or move the file away and \
            order the overrides again"
    )]
    Damaged(String),
    #[error("is a database, but not one of Mapsmith's; name another file")]
    Foreign,
    #[error(
        "was written by a later Mapsmith (schema {found}, this one knows {known}); run that \
            version, or restore a backup"
    )]
    Newer { found: i64, known: i64 },
    /// An override or a registration in it has a name that HAProxy would misread.
    #[error("holds an order about {name:?} that another program wrote ({reason}); remove that row")]
    Invalid { name: String, reason: Invalid },
    /// What is written would be gone with the process.
    #[error(
        "has been removed, or another file is in its place: nothing can be stored; move it back, or \
            restart Mapsmith, which goes on with what is there then"
    )]
    Gone,
    /// Whoever would write it is gone, and another one comes with other settings, or none.
    #[error("Mapsmith begins with other settings, or ends; try again in a moment")]
    Ending,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}
