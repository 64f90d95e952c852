//! Members in the store, and the versions that backends have: what changes together is one
//! transaction, with the rows of who asked for it and the events of it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mapsmith_core::events::Happening;
use mapsmith_core::members::{BackendVersion, Member, MemberKey};
use rusqlite::{Connection, Row, Transaction, TransactionBehavior, params};

use super::{
    ObjectsWrite, SqliteStore, StoreErrorKind, audit, blocking, events, objects, open_to_peek, time,
};
use crate::store::{AuditRequest, AuditTicket, StoreError};

/// A member as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMember {
    pub member: Member,
    /// What was left of its time, about.
    pub lifetime: Option<Duration>,
    /// When it was found silent for too long.
    pub expired: Option<Timestamp>,
}

/// All that is kept of members.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredMembers {
    pub members: Vec<StoredMember>,
    /// One for each backend that has, or had, members.
    pub versions: Vec<BackendVersion>,
}

/// What is to be kept, all of it or nothing.
#[derive(Debug, Clone, Default)]
pub struct MemberWrites {
    /// Members that are there from now on, with their whole time before them.
    pub members: Vec<Member>,
    pub gone: Vec<MemberKey>,
    /// Those whose time is over: changes of the clock.
    pub expired: Vec<MemberKey>,
    /// What is left of others.
    pub lifetimes: Vec<(MemberKey, Duration)>,
    /// What backends begin with.
    pub versions: Vec<BackendVersion>,
    /// What a backend comes to from the version that is stored. Where none is stored any more the
    /// backend has been deleted, and nothing of all this is kept.
    pub next_version: Option<BackendVersion>,
    pub events: Vec<Happening>,
    /// What is declared together with it.
    pub objects: Option<ObjectsWrite>,
    /// Whose changes these are.
    pub tickets: Vec<Arc<AuditTicket>>,
}

impl MemberWrites {
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
            && self.gone.is_empty()
            && self.expired.is_empty()
            && self.lifetimes.is_empty()
            && self.versions.is_empty()
            && self.next_version.is_none()
            && self.events.is_empty()
            && self.objects.is_none()
    }
}

impl SqliteStore {
    /// All that is kept of members.
    pub async fn members(&self) -> Result<StoredMembers, StoreError> {
        self.read(|connection| read(connection)).await
    }

    /// The same, for a program that may not be the daemon; nothing where there is no file.
    pub async fn peek_members(path: &Path) -> Result<StoredMembers, StoreError> {
        let read = |path: &Path| match open_to_peek(path)? {
            Some(connection) => read(&connection),
            None => Ok(StoredMembers::default()),
        };
        blocking(path, read).await
    }

    /// Keeps this for good. Where it can't be kept nothing has changed.
    pub async fn keep_members(
        &self,
        writes: MemberWrites,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let tells = !writes.events.is_empty() || writes.objects.is_some();
        self.with(move |connection| write(connection, &writes, now)).await?;
        if tells {
            self.kept_events.send_replace(());
        }
        Ok(())
    }
}

fn read(connection: &Connection) -> Result<StoredMembers, StoreErrorKind> {
    // One transaction, so that a change does not come between the tables.
    let transaction = connection.unchecked_transaction()?;
    let mut statement = transaction.prepare(
        "SELECT name, version, host, port, meta, ttl, lifetime, since, expired, author FROM members",
    )?;
    let (mut rows, mut found) = (statement.query([])?, StoredMembers::default());
    while let Some(row) = rows.next()? {
        found.members.push(member_of(row)?);
    }
    let mut statement = transaction.prepare("SELECT version FROM backend_versions")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let text: String = row.get(0)?;
        let version = serde_json::from_str(&text).map_err(|error| {
            StoreErrorKind::Damaged(format!("a backend's version is not readable: {error}"))
        })?;
        found.versions.push(version);
    }
    Ok(found)
}

fn member_of(row: &Row<'_>) -> Result<StoredMember, StoreErrorKind> {
    let (name, version, host): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
    let port: i64 = row.get(3)?;
    let of_another = |why: String| {
        StoreErrorKind::Other(format!(
            "holds a member {name}/{version}/{host}/{port} that another program wrote ({why}); \
                remove that row"
        ))
    };
    let key = MemberKey::new(&name, &version, &host, &port.to_string());
    let key = key.map_err(|error| of_another(error.to_string()))?;
    let meta: String = row.get(4)?;
    let meta = serde_json::from_str(&meta).map_err(|error| of_another(error.to_string()))?;
    let length = |value: Option<i64>| {
        value.map(|value| Duration::from_millis(u64::try_from(value).unwrap_or_default()))
    };
    let member =
        Member { key, meta, ttl: length(row.get(5)?), since: time(row.get(7)?)?, by: row.get(9)? };
    member.check().map_err(|error| of_another(error.to_string()))?;
    let expired = row.get::<_, Option<i64>>(8)?.map(time).transpose()?;
    Ok(StoredMember { member, lifetime: length(row.get(6)?), expired })
}

fn write(
    connection: &mut Connection,
    writes: &MemberWrites,
    now: Timestamp,
) -> Result<(), StoreErrorKind> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    write_members(&transaction, writes, now)?;
    const VERSION: &str = "INSERT OR REPLACE INTO backend_versions VALUES (?1, ?2)";
    const NEXT: &str = "UPDATE backend_versions SET version = ?2 WHERE backend = ?1";
    let text = |version: &BackendVersion| {
        serde_json::to_string(version).map_err(|error| StoreErrorKind::Other(error.to_string()))
    };
    for version in &writes.versions {
        transaction.execute(VERSION, params![version.backend, text(version)?])?;
    }
    if let Some(version) = &writes.next_version
        && transaction.execute(NEXT, params![version.backend, text(version)?])? == 0
    {
        let error = format!("has no version of {}: it has been deleted", version.backend);
        return Err(StoreErrorKind::Other(error));
    }
    if let Some(declared) = &writes.objects {
        objects::write(&transaction, declared)?;
    }
    for happening in &writes.events {
        events::insert(&transaction, happening)?;
    }
    let mut noted = Vec::new();
    for ticket in &writes.tickets {
        noted.push((ticket, audit::insert(&transaction, &ticket.request())?));
    }
    transaction.commit()?;
    noted.into_iter().for_each(|(ticket, row)| ticket.noted(row));
    Ok(())
}

/// The backend is deleted: one of its name has nothing to do with what was ordered of it.
pub(super) fn forget_version(
    transaction: &Transaction<'_>,
    backend: &str,
) -> Result<(), StoreErrorKind> {
    transaction.execute("DELETE FROM backend_versions WHERE backend = ?1", [backend])?;
    Ok(())
}

fn write_members(
    transaction: &Transaction<'_>,
    writes: &MemberWrites,
    now: Timestamp,
) -> Result<(), StoreErrorKind> {
    const PUT: &str = "INSERT OR REPLACE INTO members (name, version, host, port, meta, ttl, \
        lifetime, since, expired, author) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7, NULL, ?8)";
    const GONE: &str =
        "DELETE FROM members WHERE name = ?1 AND version = ?2 AND host = ?3 AND port = ?4";
    const EXPIRED: &str = "UPDATE members SET expired = ?5, lifetime = 0 \
        WHERE name = ?1 AND version = ?2 AND host = ?3 AND port = ?4";
    const LIFETIME: &str = "UPDATE members SET lifetime = ?5 \
        WHERE name = ?1 AND version = ?2 AND host = ?3 AND port = ?4";
    let milliseconds = |length: Duration| i64::try_from(length.as_millis()).unwrap_or(i64::MAX);
    let mut put = transaction.prepare(PUT)?;
    for Member { key, meta, ttl, since, by } in &writes.members {
        let MemberKey { name, version, host, port } = key;
        let meta = serde_json::to_string(meta)
            .map_err(|error| StoreErrorKind::Other(error.to_string()))?;
        let (ttl, since) = (ttl.map(milliseconds), since.as_millisecond());
        put.execute(params![name, version, host, port, meta, ttl, since, by])?;
    }
    let mut gone = transaction.prepare(GONE)?;
    for MemberKey { name, version, host, port } in &writes.gone {
        gone.execute(params![name, version, host, port])?;
    }
    let mut expired = transaction.prepare(EXPIRED)?;
    for key in &writes.expired {
        let MemberKey { name, version, host, port } = key;
        expired.execute(params![name, version, host, port, now.as_millisecond()])?;
        let target = format!("registrations/{key}");
        audit::insert(transaction, &AuditRequest::of_registrations(now, target))?;
    }
    let mut lifetime = transaction.prepare(LIFETIME)?;
    for (MemberKey { name, version, host, port }, left) in &writes.lifetimes {
        lifetime.execute(params![name, version, host, port, milliseconds(*left)])?;
    }
    Ok(())
}
