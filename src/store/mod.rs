//! Where overrides outlive a restart, and server lists. A change of an override is in the store
//! before anything acts on it.

use async_trait::async_trait;
use mapsmith_core::{Invalid, OverrideChange, Overrides};

pub mod lists;
pub mod map_file;
pub mod override_service;
pub mod sqlite;

pub use lists::keep_lists;
pub use override_service::OverrideService;
pub use sqlite::SqliteStore;

/// Keeps overrides.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Where it is, for errors.
    fn place(&self) -> String;

    /// All of them, pins whose time is over included.
    ///
    /// # Errors
    /// Why they can't be read.
    async fn load(&self) -> Result<Overrides, StoreError>;

    /// Keeps a change for good, and gives all overrides after it; none where there was nothing to
    /// end, and nothing changed.
    ///
    /// # Errors
    /// Why it can't be kept; nothing changed then.
    async fn change(&self, change: OverrideChange) -> Result<Option<Overrides>, StoreError>;
}

/// Why the store can't be used, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("store.path {path}: {fault}")]
pub struct StoreError {
    /// The file, as the settings name it.
    pub path: String,
    /// What is wrong with it.
    pub fault: StoreErrorKind,
}

/// What is wrong with a store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreErrorKind {
    /// The folder is not there.
    #[error(
        "there is no folder {0}; create it, and let the user that Mapsmith runs as write there"
    )]
    NoFolder(String),
    /// The path is a folder.
    #[error("is a folder; name a file in it")]
    Folder,
    /// The file can't be made or opened.
    #[error(
        "can't be opened: {0}; the user that Mapsmith runs as must be able to write the file and \
            its folder"
    )]
    NotOpened(String),
    /// It may be read but not written.
    #[error(
        "can't be written ({0}); let the user that Mapsmith runs as write the file and its folder"
    )]
    ReadOnly(String),
    /// Another daemon serves it.
    #[error(
        "is in use by another Mapsmith ({0}); a store serves one daemon: end that one, or name \
            another file"
    )]
    InUse(String),
    /// Another program holds it.
    #[error("is locked by another program ({0}); find it with `fuser`, end it, and try again")]
    Locked(String),
    /// The disk is full.
    #[error("the disk is full ({0}); make room")]
    Full(String),
    /// It is damaged, or no SQLite database at all.
    #[error(
        "is damaged or no SQLite database ({0}); bring a backup back, or move the file away and \
            order the overrides again"
    )]
    Damaged(String),
    /// It is another program's database.
    #[error("is a database, but not one of Mapsmith's; name another file")]
    Foreign,
    /// A later Mapsmith wrote it.
    #[error(
        "was written by a later Mapsmith (schema {found}, this one knows {known}); run that \
            version, or bring a backup back"
    )]
    Newer {
        /// The file's schema.
        found: i64,
        /// The latest schema known here.
        known: i64,
    },
    /// An override in it has a name that HAProxy would misread.
    #[error("holds an override of {name:?} that another program wrote ({reason}); remove that row")]
    Invalid {
        /// The node or the master.
        name: String,
        /// The rule that it breaks.
        reason: Invalid,
    },
    /// Anything else.
    #[error("{0}")]
    Other(String),
}
