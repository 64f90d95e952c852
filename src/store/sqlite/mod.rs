//! Overrides and server lists in a SQLite file: WAL, one writer, a schema by `PRAGMA user_version`.
//!
//! Every value goes in as a parameter and comes out through the rules of [`Overrides`]. The file is
//! made for its owner alone, and SQLite gives the files beside it (`-wal`, `-shm`) the same mode.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use mapsmith_core::desired::hold::HoldState;
use mapsmith_core::desired::ownership::{OwnersChange, StoredOwners};
use mapsmith_core::server::LastGoodList;
use mapsmith_core::{OverrideChange, Overrides, ServiceForms};
use rusqlite::{Connection, OpenFlags};
use tokio::sync::watch;

use self::identity::Identity;
use self::lock::Lock;
use self::schema::{MIGRATIONS, migrate, schema};
use super::{
    AuditTicket, OwnerStore, Store, StoreError, StoreErrorKind, StoredRollout, StoredServices,
};

mod audit;
mod commands;
mod copy;
mod events;
mod fault;
mod history;
mod hold;
mod identity;
mod lists;
mod lock;
mod members;
mod objects;
mod overrides;
mod owners;
mod registrations;
mod rollouts;
mod schema;
mod servers;
mod services;
mod tokens;
mod told;

pub use audit::{AuditAnswer, AuditFilter};
pub use events::StoredEvents;
pub use history::{HistoryBounds, HistoryReader, SqliteHistory};
pub use members::{MemberWrites, StoredMember, StoredMembers};
pub use objects::ObjectsWrite;
pub use registrations::{NotChanged, RegistrationJob};

/// How long another program's lock is waited for: a backup holds it for moments.
const BUSY: Duration = Duration::from_secs(2);

/// What the file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    pub overrides: Overrides,
    pub owners: StoredOwners,
    /// What keeps the sources' answers from being applied.
    pub hold: HoldState,
    /// The latest rollouts, the newest first.
    pub rollouts: Vec<StoredRollout>,
    /// The server lists in force, by backend.
    pub lists: BTreeMap<String, LastGoodList>,
}

/// A [`Store`] in a file.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    path: PathBuf,
    connection: Arc<Mutex<Connection>>,
    kept_events: watch::Sender<()>,
    /// Which file it is, if that could be seen.
    file: Option<Identity>,
    /// Whether another one, or none, was at its path when it was used last.
    is_gone: Arc<AtomicBool>,
    _lock: Arc<Lock>,
}

impl SqliteStore {
    /// Opens the file, makes it where there is none, and brings its schema up to date. It is this
    /// process's until the store is dropped.
    /// A file that is not ours, or of a later version, is left as it is.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let (lock, connection) = blocking(path, open).await?;
        Ok(Self {
            path: path.to_owned(),
            connection: Arc::new(Mutex::new(connection)),
            kept_events: watch::Sender::new(()),
            file: Identity::of(path).ok(),
            is_gone: Arc::default(),
            _lock: Arc::new(lock),
        })
    }

    /// Whether a store at this path is this one: no other file is there. While none is, it has what
    /// is in force, and a new file would have nothing.
    pub fn is_at(&self, path: &Path) -> bool {
        let is_replaced = |file: Identity| file.is_replaced(&Identity::of(path));
        self.path == path && self.file.is_some_and(|file| !is_replaced(file))
    }

    /// Why nothing can be stored, where the file is no longer at its path.
    pub fn loss(&self) -> Option<StoreError> {
        let path = || self.path.display().to_string();
        let is_gone = self.is_gone.load(Ordering::Relaxed);
        is_gone.then(|| StoreError { path: path(), fault: StoreErrorKind::Gone })
    }

    /// Whether both are one and the same.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.connection, &other.connection)
    }

    /// Every backend's list that was last in force and can be used.
    pub async fn last_good_lists(&self) -> Result<BTreeMap<String, LastGoodList>, StoreError> {
        self.read(|connection| lists::read(connection)).await
    }

    /// Keeps a backend's list for good in place of the one before; without a list forgets it.
    /// Where it can't be kept nothing has changed.
    pub async fn keep_list(
        &self,
        backend: &str,
        list: Option<LastGoodList>,
    ) -> Result<(), StoreError> {
        let backend = backend.to_owned();
        self.with(move |connection| lists::write(connection, &backend, list.as_ref())).await
    }

    /// The services that HAProxy had last, for a program that may not be the daemon; none where
    /// there are none.
    pub async fn peek_services(path: &Path) -> Result<Option<StoredServices>, StoreError> {
        let read = |path: &Path| match open_to_peek(path)? {
            Some(connection) => services::read(&connection),
            None => Ok(None),
        };
        blocking(path, read).await
    }

    /// Keeps these services for good in place of those before. Where they can't be kept nothing has
    /// changed.
    pub async fn keep_services(
        &self,
        origin: &str,
        forms: &ServiceForms,
    ) -> Result<(), StoreError> {
        let (origin, forms) = (origin.to_owned(), forms.clone());
        self.with(move |connection| services::write(connection, &origin, &forms)).await
    }

    /// Keeps when these lists were confirmed and by whom; their servers stay as they are stored.
    /// All of it or nothing.
    pub async fn confirm_lists(
        &self,
        lists: BTreeMap<String, LastGoodList>,
    ) -> Result<(), StoreError> {
        self.with(move |connection| lists::confirm(connection, &lists)).await
    }

    /// The history in this file.
    pub fn history(&self, bounds: HistoryBounds) -> SqliteHistory {
        SqliteHistory { store: self.clone(), bounds }
    }

    /// Reads the history, on a connection of its own: what is large must not keep an override
    /// waiting.
    ///
    /// # Errors
    /// The file can't be read.
    pub async fn read_history<T: Send + 'static>(
        &self,
        work: impl FnOnce(HistoryReader) -> Result<T, StoreErrorKind> + Send + 'static,
    ) -> Result<T, StoreError> {
        let read = |path: &Path| match open_to_peek(path)? {
            Some(connection) => work(HistoryReader::new(connection)),
            None => Err(StoreErrorKind::Other("the file is gone".to_owned())),
        };
        blocking(&self.path, read).await
    }

    /// What keeps the sources' answers from being applied.
    pub async fn hold(&self) -> Result<HoldState, StoreError> {
        self.read(|connection| hold::read(connection)).await
    }

    /// The latest rollouts, the newest first.
    pub async fn rollouts(&self) -> Result<Vec<StoredRollout>, StoreError> {
        self.read(|connection| rollouts::read(connection)).await
    }

    /// The highest number that a revision or a canary ever had.
    pub async fn highest_number(&self) -> Result<u64, StoreError> {
        self.read(|connection| history::highest_number(connection)).await
    }

    /// The owners that are remembered.
    pub async fn owners(&self) -> Result<StoredOwners, StoreError> {
        self.read(|connection| owners::read(connection)).await
    }

    /// What the file holds, for a program that is not the daemon and changes nothing; nothing where
    /// there is no file.
    pub async fn peek(path: &Path) -> Result<Stored, StoreError> {
        blocking(path, peek).await
    }

    /// What is said of work that was never ended.
    pub(super) fn interrupted(&self, error: &tokio::task::JoinError) -> StoreError {
        let fault = StoreErrorKind::Other(format!("the change was interrupted: {error}"));
        StoreError { path: self.path.display().to_string(), fault }
    }

    /// Changes something for good, which can't be where the file is no longer at its path.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreErrorKind> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.on_file(|connection, is_gone| match is_gone {
            true => Err(StoreErrorKind::Gone),
            false => work(connection),
        })
        .await
    }

    /// Reads something, also where the file is no longer at its path: it is in force.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreErrorKind> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.on_file(|connection, _| work(connection)).await
    }

    /// The second value is whether the file is no longer at its path.
    async fn on_file<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection, bool) -> Result<T, StoreErrorKind> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (connection, file) = (Arc::clone(&self.connection), self.file);
        let is_gone = Arc::clone(&self.is_gone);
        blocking(&self.path, move |path| {
            let gone = file.is_some_and(|file| file.is_gone(&Identity::of(path)));
            is_gone.store(gone, Ordering::Relaxed);
            work(&mut connection.lock().unwrap_or_else(PoisonError::into_inner), gone)
        })
        .await
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn place(&self) -> String {
        self.path.display().to_string()
    }

    async fn load(&self) -> Result<Overrides, StoreError> {
        self.read(|connection| overrides::read(connection)).await
    }

    async fn change(
        &self,
        change: OverrideChange,
        ticket: Option<Arc<AuditTicket>>,
    ) -> Result<Option<Overrides>, StoreError> {
        let write = move |connection: &mut Connection| {
            overrides::write(connection, &change, ticket.as_deref())
        };
        let after = self.with(write).await?;
        self.kept_events.send_replace(());
        Ok(after)
    }

    async fn try_change(&self, change: OverrideChange) -> Result<Option<Overrides>, StoreError> {
        self.with(move |connection| overrides::attempt(connection, &change)).await
    }
}

#[async_trait]
impl OwnerStore for SqliteStore {
    async fn keep_owners(&self, change: OwnersChange) -> Result<(), StoreError> {
        self.with(move |connection| owners::write(connection, &change)).await
    }
}

/// SQLite blocks; this keeps it off the async threads.
async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce(&Path) -> Result<T, StoreErrorKind> + Send + 'static,
) -> Result<T, StoreError> {
    let inside = path.to_owned();
    let done = tokio::task::spawn_blocking(move || work(&inside)).await;
    done.unwrap_or_else(|error| {
        Err(StoreErrorKind::Other(format!("the store's thread ended unexpectedly: {error}")))
    })
    .map_err(|fault| StoreError { path: path.display().to_string(), fault })
}

/// What can be said of a path before it is opened.
fn fit(path: &Path) -> Result<(), StoreErrorKind> {
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (folder.is_dir(), path.is_dir()) {
        (false, _) => Err(StoreErrorKind::NoFolder(folder.display().to_string())),
        (true, true) => Err(StoreErrorKind::Folder),
        (true, false) => Ok(()),
    }
}

fn open(path: &Path) -> Result<(Lock, Connection), StoreErrorKind> {
    fit(path)?;
    let lock = Lock::take(path)?;
    // SQLite would make it for everyone to read.
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(StoreErrorKind::NotOpened(error.to_string()));
        }
        _ => {}
    }
    let mut connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(BUSY)?;
    let version = schema(&connection)?;
    // An override that was answered for must outlive a power cut: with WAL that takes FULL.
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "full")?;
    check(&connection)?;
    migrate(&mut connection, version)?;
    Ok((lock, connection))
}

fn peek(path: &Path) -> Result<Stored, StoreErrorKind> {
    match open_to_peek(path)? {
        None => Ok(Stored::default()),
        Some(connection) => Ok(Stored {
            overrides: overrides::read(&connection)?,
            owners: owners::read(&connection)?,
            hold: hold::read(&connection)?,
            rollouts: rollouts::read(&connection)?,
            lists: lists::read(&connection)?,
        }),
    }
}

/// None where there is no file, or one made by a daemon that got no further. What a Mapsmith of
/// before has written is read from a copy with the latest schema: only the daemon changes the file.
fn open_to_peek(path: &Path) -> Result<Option<Connection>, StoreErrorKind> {
    fit(path)?;
    if !path.try_exists().map_err(|error| StoreErrorKind::NotOpened(error.to_string()))? {
        return Ok(None);
    }
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(BUSY)?;
    match schema(&connection)? {
        0 => Ok(None),
        version if version < MIGRATIONS.len() as i64 => copy::latest(&connection).map(Some),
        _ => Ok(Some(connection)),
    }
}

/// A file is damaged in places that opening it does not show. The history is large, and nothing
/// that a start needs.
fn check(connection: &Connection) -> Result<(), StoreErrorKind> {
    for table in copy::tables(connection)? {
        let quoted = table.replace('"', "\"\"");
        let check = format!("PRAGMA quick_check(\"{quoted}\")");
        let verdict: String = connection.query_row(&check, [], |row| row.get(0))?;
        if verdict != "ok" {
            return Err(StoreErrorKind::Damaged(verdict));
        }
    }
    Ok(())
}

fn time(milliseconds: i64) -> Result<Timestamp, StoreErrorKind> {
    Timestamp::from_millisecond(milliseconds).map_err(|error| {
        StoreErrorKind::Damaged(format!("{milliseconds} is not a time in milliseconds: {error}"))
    })
}

#[cfg(test)]
mod tests;
