//! Why the API does not do what it is asked for.

use thiserror::Error as ThisError;

use crate::tls::RenewError;

/// Why a query or a command has no result.
#[derive(Debug, ThisError)]
pub enum Error {
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
