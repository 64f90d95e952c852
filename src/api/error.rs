//! Why the API does not do what it is asked for.

use jiff::Timestamp;
use mapsmith_core::desired::hold::HoldError;
use mapsmith_core::desired::rollout::{ChoiceError, RolloutError};
use mapsmith_core::history::RevisionRecord;
use mapsmith_core::objects::ObjectKey;
use thiserror::Error as ThisError;

use super::node_commands::NotRun;
use crate::declared::Fault;
use crate::store::{StoreError, StoreErrorKind};
use crate::tls::RenewError;

/// Why a query or a command has no result.
#[derive(Debug, ThisError)]
pub enum Error {
    /// It is not as whoever asks has it.
    #[error("it has been changed meanwhile; take what it is now, and change that")]
    Changed {
        /// What it is now; none where it is not there.
        current: Option<serde_json::Value>,
    },
    /// The held change can't be approved.
    #[error("{0}")]
    NotApproved(String),
    /// There is no such override to show or to end.
    #[error("{0}")]
    NoOverride(String),
    /// An order names a master that nobody knows.
    #[error("{0}")]
    UnknownMaster(String),
    /// An order names a node that nobody knows.
    #[error("{0}")]
    UnknownNode(String),
    /// The nodes of a master that is to be drained have nowhere to go.
    #[error("{0}")]
    DeadEnd(String),
    /// No source has a node map, and none is kept.
    #[error("there is no node map: the settings have no source of one")]
    NoMap,
    /// Nobody knows the backend, or the server.
    #[error("{0}")]
    UnknownServer(String),
    /// A server's override can't be changed as things stand.
    #[error("{0}")]
    ServerConflict(String),
    /// There will be a map.
    #[error("there is no map in force yet: the sources have not answered; see `/readyz`")]
    NotReady,
    /// So many may wait for another map at once.
    #[error("{0} requests wait for another map, and no more may; try again in a moment")]
    TooManyWaits(usize),
    /// So many may follow the events or the statistics at once.
    #[error("{0} streams are open, and no more may be; try again in a moment")]
    TooManyStreams(usize),
    /// So many may one and the same have open.
    #[error("you have {most} {what}, and no more may be; end one of them")]
    TooManyOfOne { most: usize, what: &'static str },
    /// Events that are asked for are forgotten, or of another store.
    #[error("{detail}; begin with `after=0`, or with GET /v1/status")]
    EventsGone { detail: String, oldest: u64 },
    /// The settings name no store.
    #[error(
        "{0} need a store that keeps them: set `path` in `[store]` (like \
            /var/lib/mapsmith/mapsmith.db) and restart Mapsmith"
    )]
    NoStore(&'static str),
    /// The settings have no source of registrations.
    #[error(
        "nodes can't be registered: add a `[[source]]` of type \"registrations\", and `[store]` \
            where they are kept, and send SIGHUP"
    )]
    NoRegistrations,
    /// The node is not registered.
    #[error("{0}")]
    NotRegistered(String),
    /// Too few members of a version are registered to switch a backend to it.
    #[error("{have} members of {name} {version} are registered, and at least {min_ready} must be")]
    NoMembers { name: String, version: String, have: usize, min_ready: u32 },
    /// The node is of a master that whoever asks has no grant for.
    #[error("{0}")]
    NotGranted(String),
    /// A command on a node is not begun.
    #[error(transparent)]
    NotRun(#[from] NotRun),
    /// There is no such token.
    #[error("{0}")]
    NoToken(String),
    /// The token can't be made or changed.
    #[error("{0}")]
    TokenConflict(String),
    /// Nobody knows this master.
    #[error(
        "{0:?} is not a known master: no node is routed there, and no HAProxy has a backend or \
            server of the name"
    )]
    NoMaster(String),
    /// There is no such revision.
    #[error("there is no revision {0}")]
    NoRevision(u64),
    /// What lies before a revision is forgotten, or was never kept.
    #[error(
        "what there was of revision {number} is no longer kept{}; fetch the whole map",
        .oldest.map_or(String::new(), |oldest| format!(", the oldest map is that of {oldest}"))
    )]
    NotKept {
        number: u64,
        /// The oldest revision whose map can be had.
        oldest: Option<u64>,
    },
    /// Nothing is kept of what was before a revision, so nobody knows what it changed.
    #[error(
        "of the map before revision {0} nothing is kept, so what {0} changed is not known; say with \
            `from` which revision to compare it with"
    )]
    NothingBefore(u64),
    /// A number that no map has had yet.
    #[error(
        "there is no revision {number} yet, the map in force is {in_force}: who has it has it of \
            another Mapsmith, or of this one before its store was put back; fetch the whole map"
    )]
    NotReached {
        number: u64,
        in_force: u64,
        /// The oldest revision whose map can be had.
        oldest: Option<u64>,
    },
    /// Another revision is in force than whoever asks takes for it.
    #[error("{}", changed(*.expected, *.in_force, .since))]
    NotInForce {
        expected: u64,
        in_force: u64,
        /// The latest revisions after that one, the newest first, as far as they are kept.
        since: Vec<RevisionRecord>,
    },
    /// A rollback holds the sources back, or none does.
    #[error(transparent)]
    Hold(HoldError),
    /// A canary is on its way, or a rollout is over.
    #[error(transparent)]
    Rollout(RolloutError),
    #[error("there is no rollout {0}; `GET /v1/rollouts` has the latest")]
    NoRollout(String),
    /// No instances can be chosen for a canary.
    #[error(transparent)]
    Canary(ChoiceError),
    /// Another Mapsmith decides.
    #[error("{0}")]
    ReadOnly(String),
    /// Owners are not remembered.
    #[error("{0}")]
    NotRemembered(String),
    /// A certificate is not renewed.
    #[error("{0}")]
    NotRenewed(RenewError),
    /// Whoever would do it is gone, and another one comes with other settings, or none.
    #[error("Mapsmith begins with other settings, or ends; try again in a moment")]
    Ending,
    /// The task that would do it has something else to do.
    #[error("the task that renews certificates is busy; try again in a moment")]
    Busy,
    /// There is no such frontend or backend.
    #[error("there is no {0}")]
    NoObject(ObjectKey),
    /// The settings file declares it.
    #[error(
        "{key} is declared in {file}, and the API changes nothing there: change the file, and \
        send SIGHUP"
    )]
    OwnedBySettings {
        key: ObjectKey,
        /// The settings file.
        file: String,
    },
    /// HAProxy's configuration is somebody else's.
    #[error(
        "HAProxy's configuration is not Mapsmith's here, so there is nothing to declare a frontend \
            or backend in: set `managed = true` (or \"attached\") in `[haproxy]`"
    )]
    NotManaged,
    /// A change of what is declared can't be made as things stand.
    #[error("{0}")]
    ObjectConflict(String),
    /// What is declared is not as whoever asks has it.
    #[error("{}", object_changed(.key, .by.as_deref(), .at))]
    ObjectChanged {
        key: Option<ObjectKey>,
        /// What it is now; none where it is not there.
        current: Option<serde_json::Value>,
        by: Option<String>,
        at: Option<Timestamp>,
    },
    /// A secret is hidden in what is sent, and none is stored that it could be.
    #[error("{0}")]
    UnknownSecret(String),
    /// What is declared has no sense, or contradicts something.
    #[error("{detail}")]
    InvalidConfig { detail: String, faults: Vec<Fault> },
    /// HAProxy's check refuses it.
    #[error("{detail}")]
    RefusedByHaproxy { detail: String, faults: Vec<Fault> },
    /// HAProxy can't check it now.
    #[error("{0}")]
    NotChecked(String),
    /// Too many changes or checks at once.
    #[error("too many configurations are being checked; try again in a moment")]
    TooManyChecks,
    /// The store did not take the change.
    #[error("{0}")]
    Store(String),
}

/// Who changed it since somebody looked.
fn object_changed(key: &Option<ObjectKey>, by: Option<&str>, at: &Option<Timestamp>) -> String {
    let what = key.as_ref().map_or_else(|| "what is declared".to_owned(), ToString::to_string);
    let by = by.map_or(String::new(), |by| format!(" by {by}"));
    let at = at.map_or(String::new(), |at| format!(" at {at:.0}"));
    format!("{what} has been changed{by}{at}; take what it is now, and change that")
}

/// Who changed what since somebody looked.
fn changed(expected: u64, in_force: u64, since: &[RevisionRecord]) -> String {
    let latest = since.first().map_or(String::new(), |record| {
        let by = record.note.by.as_ref().map_or(String::new(), |by| format!(" by {by}"));
        let (at, counts) = (record.at, record.counts);
        let who = format!("{}{by}", record.sources.join(", "));
        match who.trim_start() {
            "" => format!(" since {at:.0} ({counts})"),
            who => format!(" since {at:.0} ({who}: {counts})"),
        }
    });
    format!(
        "revision {in_force} is in force{latest}, and not {expected}: look at what has changed, \
            then ask again with If-Match: \"{in_force:x}\" (--in-force {in_force})"
    )
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error.fault {
            StoreErrorKind::Ending => Self::Ending,
            _ => Self::Store(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_another_revision_for_the_one_in_force_is_told_how_to_ask_again() {
        let said = changed(18, 20, &[]);
        assert!(said.ends_with("ask again with If-Match: \"14\" (--in-force 20)"), "{said}");
    }
}
