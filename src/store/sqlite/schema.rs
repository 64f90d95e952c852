//! The store's schema: what leads to it from an empty file, and from every one before.

use rusqlite::{Connection, TransactionBehavior};

use super::StoreErrorKind;

/// Stands in the file's header (`PRAGMA application_id`): "MapS".
pub(super) const APPLICATION_ID: i64 = 0x4d61_7053;

/// Statement by statement what leads from an empty file to the latest schema; `user_version` says
/// how many were run. Times are milliseconds since 1970. Never change one that was released.
pub(super) const MIGRATIONS: [&str; 27] = [
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
    CREATE TABLE members (name TEXT NOT NULL, version TEXT NOT NULL, host TEXT NOT NULL, \
    port INTEGER NOT NULL, meta TEXT NOT NULL, ttl INTEGER, lifetime INTEGER, \
    since INTEGER NOT NULL, expired INTEGER, author TEXT, \
    PRIMARY KEY (name, version, host, port)) STRICT, WITHOUT ROWID;
    CREATE TABLE backend_versions (backend TEXT PRIMARY KEY, version TEXT NOT NULL) STRICT;
",
    "
    ALTER TABLE audit ADD COLUMN detail TEXT;
    ALTER TABLE audit ADD COLUMN outcome TEXT;
    CREATE INDEX audit_running ON audit (seq) WHERE outcome = 'running';
",
    "ALTER TABLE objects ADD COLUMN said TEXT;",
    "
    ALTER TABLE audit ADD COLUMN share INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE audit ADD COLUMN nth INTEGER NOT NULL DEFAULT 0;
    UPDATE audit SET nth = seq;
    CREATE INDEX audit_share ON audit (share, nth);
",
    "
    CREATE TABLE numbers (id INTEGER PRIMARY KEY CHECK (id = 1), highest INTEGER NOT NULL) STRICT;
    INSERT INTO numbers (id, highest) SELECT 1, max(ifnull((SELECT max(number) FROM revisions), 0), \
    ifnull((SELECT max(json_extract(rollout, '$.revision')) FROM rollouts), 0));
",
    "ALTER TABLE rejected ADD COLUMN change TEXT;",
    "
    ALTER TABLE events ADD COLUMN share INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE events ADD COLUMN nth INTEGER NOT NULL DEFAULT 0;
    UPDATE events SET nth = id, share = (kind = 'registration');
    CREATE INDEX events_share ON events (share, nth);
    CREATE TABLE events_gone (share INTEGER PRIMARY KEY, id INTEGER NOT NULL) STRICT;
    WITH gone (id) AS (SELECT ifnull((SELECT min(id) - 1 FROM events), ifnull((SELECT seq FROM \
    sqlite_sequence WHERE name = 'events'), 0)))
    INSERT INTO events_gone (share, id) SELECT 0, id FROM gone UNION ALL SELECT 1, id FROM gone;
",
    "
    CREATE TABLE guard_window (id INTEGER PRIMARY KEY CHECK (id = 1), changes TEXT NOT NULL) STRICT;
",
    "
    ALTER TABLE objects ADD COLUMN place INTEGER NOT NULL DEFAULT 0;
    UPDATE objects SET place = 2 * number;
",
    "
    CREATE TABLE held_since (id INTEGER PRIMARY KEY CHECK (id = 1), since TEXT NOT NULL) STRICT;
",
];

/// The schema of the file, which must be ours or empty.
pub(super) fn schema(connection: &Connection) -> Result<i64, StoreErrorKind> {
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

/// Brings a file to the latest schema.
pub(super) fn migrate(connection: &mut Connection, version: i64) -> Result<(), StoreErrorKind> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    run_migrations(&transaction, version, MIGRATIONS.len() as i64)?;
    // Also where there was nothing to do: a file that can't be written is known at once, not at the
    // first override.
    Ok(transaction.commit()?)
}

/// Brings a file from one schema to another.
pub(super) fn run_migrations(connection: &Connection, from: i64, to: i64) -> rusqlite::Result<()> {
    let steps = (1i64..).zip(MIGRATIONS).skip_while(|(step, _)| *step <= from);
    for (step, statements) in steps.take_while(|(step, _)| *step <= to) {
        connection.execute_batch(statements)?;
        connection.pragma_update(None, "user_version", step)?;
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    }
    Ok(())
}
