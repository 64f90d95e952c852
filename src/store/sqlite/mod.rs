//! Overrides and server lists in a SQLite file: WAL, one writer, a schema by `PRAGMA user_version`.
//!
//! Every value goes in as a parameter and comes out through the rules of [`Overrides`]. The file is
//! made for its owner alone, and SQLite gives the files beside it (`-wal`, `-shm`) the same mode.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use mapsmith_core::desired::hold::HoldState;
use mapsmith_core::desired::ownership::{OwnersChange, StoredOwners};
use mapsmith_core::server::LastGoodList;
use mapsmith_core::{OverrideChange, Overrides, ServiceForms};
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use tokio::sync::watch;

use self::lock::Lock;
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
mod lists;
mod lock;
mod objects;
mod overrides;
mod owners;
mod registrations;
mod rollouts;
mod servers;
mod services;
mod tokens;
mod told;

pub use audit::AuditFilter;
pub use events::StoredEvents;

/// Stands in the file's header (`PRAGMA application_id`): "MapS".
const APPLICATION_ID: i64 = 0x4d61_7053;

/// Statement by statement what leads from an empty file to the latest schema; `user_version` says
/// how many were run. Times are milliseconds since 1970. Never change one that was released.
const MIGRATIONS: [&str; 18] = [
    "
    CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), number INTEGER NOT NULL) STRICT;
    INSERT INTO state (id, number) VALUES (1, 0);
    CREATE TABLE pins (node TEXT PRIMARY KEY, master TEXT NOT NULL, since INTEGER NOT NULL, until \
    INTEGER) STRICT;
    CREATE TABLE drained (master TEXT PRIMARY KEY, target TEXT, since INTEGER NOT NULL) STRICT;
",
    "CREATE TABLE server_lists (backend TEXT PRIMARY KEY, origin TEXT NOT NULL, servers TEXT NOT \
        NULL) STRICT;",
    "
    CREATE TABLE ended (kind TEXT NOT NULL CHECK (kind IN ('pin', 'drain')), node TEXT, \
    master TEXT NOT NULL, since INTEGER NOT NULL, until INTEGER NOT NULL, stay INTEGER NOT NULL) \
    STRICT;
    CREATE TABLE owners (node TEXT PRIMARY KEY, owner TEXT NOT NULL, since INTEGER NOT NULL, \
    seen INTEGER NOT NULL, ordered INTEGER NOT NULL) STRICT;
    CREATE TABLE outages (master TEXT NOT NULL, since INTEGER NOT NULL, until INTEGER) STRICT;
",
    "
    ALTER TABLE owners ADD COLUMN routed INTEGER;
    ALTER TABLE owners ADD COLUMN unnamed INTEGER;
",
    "ALTER TABLE server_lists ADD COLUMN since INTEGER;",
    "CREATE TABLE services (name TEXT PRIMARY KEY, origin TEXT NOT NULL, text TEXT NOT NULL, since \
        INTEGER NOT NULL) STRICT;",
    "ALTER TABLE server_lists ADD COLUMN confirmed INTEGER;",
    "
    CREATE TABLE tokens (id TEXT PRIMARY KEY, name TEXT NOT NULL, role TEXT NOT NULL, grants TEXT \
    NOT NULL, hash BLOB NOT NULL, previous BLOB, previous_until INTEGER, created_by TEXT NOT NULL, \
    created INTEGER NOT NULL, expires INTEGER, used INTEGER, revoked INTEGER) STRICT;
    CREATE TABLE audit (seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind TEXT NOT NULL, actor \
    TEXT NOT NULL, actor_id TEXT, address TEXT, method TEXT NOT NULL, route TEXT NOT NULL, target \
    TEXT NOT NULL, reason TEXT, status INTEGER, request_id TEXT NOT NULL, ms REAL) STRICT;
    CREATE INDEX audit_at ON audit (at);
    CREATE INDEX audit_actor ON audit (actor, seq);
    CREATE INDEX audit_target ON audit (target, seq);
",
    "
    ALTER TABLE pins ADD COLUMN reason TEXT;
    ALTER TABLE pins ADD COLUMN author TEXT;
    ALTER TABLE drained ADD COLUMN reason TEXT;
    ALTER TABLE drained ADD COLUMN author TEXT;
    CREATE TABLE blocked (node TEXT PRIMARY KEY, since INTEGER NOT NULL, until INTEGER, \
    reason TEXT, author TEXT) STRICT;
",
    "
    CREATE TABLE revisions (number INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind TEXT NOT NULL, \
    author TEXT, reason TEXT, sources TEXT NOT NULL, entries INTEGER NOT NULL, \
    added INTEGER NOT NULL, moved INTEGER NOT NULL, removed INTEGER NOT NULL, previous INTEGER, \
    fingerprint INTEGER NOT NULL, bytes INTEGER NOT NULL) STRICT;
    CREATE TABLE revision_blocks (number INTEGER NOT NULL, block INTEGER NOT NULL, \
    content BLOB NOT NULL, PRIMARY KEY (number, block)) STRICT;
",
    "
    CREATE TABLE server_overrides (backend TEXT NOT NULL, server TEXT NOT NULL, state TEXT, \
    weight INTEGER, since INTEGER NOT NULL, until INTEGER, reason TEXT, author TEXT, \
    PRIMARY KEY (backend, server)) STRICT;
    CREATE TABLE released_servers (backend TEXT NOT NULL, server TEXT NOT NULL, \
    at INTEGER NOT NULL, weight INTEGER, PRIMARY KEY (backend, server)) STRICT;
",
    "CREATE TABLE told (id INTEGER PRIMARY KEY CHECK (id = 1), item TEXT NOT NULL) STRICT;",
    "
    CREATE TABLE events (id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, kind TEXT NOT \
    NULL, subject TEXT NOT NULL, event TEXT NOT NULL) STRICT;
    CREATE INDEX events_at ON events (at);
",
    "
    CREATE TABLE registrations (node TEXT PRIMARY KEY, master TEXT NOT NULL, \
    since INTEGER NOT NULL, until INTEGER, reason TEXT, author TEXT) STRICT, WITHOUT ROWID;
    CREATE INDEX registrations_until ON registrations (until) WHERE until IS NOT NULL;
",
    "
    ALTER TABLE revisions ADD COLUMN rollback_of INTEGER;
    ALTER TABLE revisions ADD COLUMN base INTEGER;
    CREATE TABLE revision_bases (number INTEGER NOT NULL, block INTEGER NOT NULL, \
    content BLOB NOT NULL, PRIMARY KEY (number, block)) STRICT;
    CREATE TABLE hold (id INTEGER PRIMARY KEY CHECK (id = 1), rollback_of INTEGER NOT NULL, \
    revision INTEGER, since INTEGER NOT NULL, until INTEGER, reason TEXT, author TEXT, \
    ended INTEGER, ended_by TEXT) STRICT;
    CREATE TABLE rejected (id INTEGER PRIMARY KEY CHECK (id = 1), answer TEXT NOT NULL, \
    since INTEGER NOT NULL, reason TEXT, author TEXT) STRICT;
",
    "
    CREATE TABLE rollouts (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, \
    rollout TEXT NOT NULL, plan TEXT NOT NULL) STRICT;
    CREATE TABLE rollout_blocks (rollout TEXT NOT NULL, way INTEGER NOT NULL, \
    block INTEGER NOT NULL, content BLOB NOT NULL, PRIMARY KEY (rollout, way, block)) STRICT;
    CREATE TABLE aborted (id INTEGER PRIMARY KEY CHECK (id = 1), answer TEXT NOT NULL, \
    since INTEGER NOT NULL, reason TEXT, author TEXT) STRICT;
",
    "
    CREATE TABLE objects_state (id INTEGER PRIMARY KEY CHECK (id = 1), number INTEGER NOT NULL) \
    STRICT;
    INSERT INTO objects_state (id, number) VALUES (1, 0);
    CREATE TABLE objects (kind TEXT NOT NULL, name TEXT NOT NULL, spec TEXT NOT NULL, \
    owner TEXT NOT NULL, number INTEGER NOT NULL, at INTEGER NOT NULL, reason TEXT, author TEXT, \
    PRIMARY KEY (kind, name)) STRICT;
",
    "
    ALTER TABLE audit ADD COLUMN detail TEXT;
    ALTER TABLE audit ADD COLUMN outcome TEXT;
    CREATE INDEX audit_running ON audit (seq) WHERE outcome = 'running';
",
];

pub use history::{HistoryBounds, HistoryReader, SqliteHistory};
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
    file: Option<(u64, u64)>,
    _lock: Arc<Lock>,
}

/// What tells one file from another at the same path.
fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
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
            file: identity(path),
            _lock: Arc::new(lock),
        })
    }

    /// Whether it is still the file at this path.
    pub fn is_at(&self, path: &Path) -> bool {
        self.path == path && self.file.is_some() && self.file == identity(path)
    }

    /// Every backend's list that was last in force and can be used.
    pub async fn last_good_lists(&self) -> Result<BTreeMap<String, LastGoodList>, StoreError> {
        self.with(|connection| lists::read(connection)).await
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
        self.with(|connection| hold::read(connection)).await
    }

    /// The latest rollouts, the newest first.
    pub async fn rollouts(&self) -> Result<Vec<StoredRollout>, StoreError> {
        self.with(|connection| rollouts::read(connection)).await
    }

    /// The owners that are remembered.
    pub async fn owners(&self) -> Result<StoredOwners, StoreError> {
        self.with(|connection| owners::read(connection)).await
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

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreErrorKind> + Send + 'static,
    ) -> Result<T, StoreError> {
        let connection = Arc::clone(&self.connection);
        blocking(&self.path, move |_| {
            work(&mut connection.lock().unwrap_or_else(PoisonError::into_inner))
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
        self.with(|connection| overrides::read(connection)).await
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

/// The schema of the file, which must be ours or empty.
fn schema(connection: &Connection) -> Result<i64, StoreErrorKind> {
    let number =
        |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let (application, version) = (number("application_id")?, number("user_version")?);
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let known = MIGRATIONS.len() as i64;
    match (application, version) {
        (0, 0) if tables == 0 => Ok(0),
        (APPLICATION_ID, version) if version > known => {
            Err(StoreErrorKind::Newer { found: version, known })
        }
        (APPLICATION_ID, version @ 1..) => Ok(version),
        _ => Err(StoreErrorKind::Foreign),
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

fn migrate(connection: &mut Connection, version: i64) -> Result<(), StoreErrorKind> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    run_migrations(&transaction, version, MIGRATIONS.len() as i64)?;
    // Also where there was nothing to do: a file that can't be written is known at once, not at the
    // first override.
    Ok(transaction.commit()?)
}

/// Brings a file from one schema to another.
fn run_migrations(connection: &Connection, from: i64, to: i64) -> rusqlite::Result<()> {
    let steps = (1i64..).zip(MIGRATIONS).skip_while(|(step, _)| *step <= from);
    for (step, statements) in steps.take_while(|(step, _)| *step <= to) {
        connection.execute_batch(statements)?;
        connection.pragma_update(None, "user_version", step)?;
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
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
