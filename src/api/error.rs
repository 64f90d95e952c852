//! Why the API does not do what it is asked for.

use thiserror::Error as ThisError;

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
    /// There will be a map.
    #[error("there is no map in force yet: the sources have not answered; see `/readyz`")]
    NotReady,
    /// So many may wait for another map at once.
    #[error("{0} requests wait for another map, and no more may; try again in a moment")]
    TooManyWaits(usize),
    /// The settings name no store.
    #[error(
        "{0} need a store that keeps them: set `path` in `[store]` (like \
            /var/lib/mapsmith/mapsmith.db) and restart Mapsmith"
    )]
    NoStore(&'static str),
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
    /// Owners are not remembered.
    #[error("{0}")]
    NotRemembered(String),
    /// A certificate is not renewed.
    #[error("{0}")]
    NotRenewed(RenewError),
    /// The task that would do it has something else to do.
    #[error("the task that renews certificates is busy; try again in a moment")]
    Busy,
    /// The store did not take the change.
    #[error("{0}")]
    Store(String),
}
