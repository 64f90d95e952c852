//! Pins, blocked nodes and drains in the store, and what of them has ended lately.

use jiff::Timestamp;
use mapsmith_core::events::Happening;
use mapsmith_core::overrides::ENDED_KEPT;
use mapsmith_core::{
    BlockedNode, DrainedMaster, EndedKind, EndedOverride, Invalid, Note, OverrideChange, Overrides,
    Pin, ServerOverride,
};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::{StoreErrorKind, audit, events, servers, time};
use crate::store::{AuditRequest, AuditTicket};

pub(super) fn read(connection: &Connection) -> Result<Overrides, StoreErrorKind> {
    // One transaction, so that a change does not come between the tables.
    rows(&*connection.unchecked_transaction()?)
}

fn rows(transaction: &Connection) -> Result<Overrides, StoreErrorKind> {
    let invalid = |name: String| move |reason: Invalid| StoreErrorKind::Invalid { name, reason };
    let number: i64 = transaction.query_row("SELECT number FROM state", [], |row| row.get(0))?;
    let mut overrides = Overrides::numbered(number.unsigned_abs());
    let mut pins =
        transaction.prepare("SELECT node, master, since, until, reason, author FROM pins")?;
    let mut rows = pins.query([])?;
    while let Some(row) = rows.next()? {
        let (since, until) =
            (time(row.get(2)?)?, row.get::<_, Option<i64>>(3)?.map(time).transpose()?);
        let note = Note { reason: row.get(4)?, by: row.get(5)? };
        let pin = Pin { node: row.get(0)?, master: row.get(1)?, since, until, note };
        let name = pin.node.clone();
        overrides.add_pin(pin).map_err(invalid(name))?;
    }
    let mut blocked =
        transaction.prepare("SELECT node, since, until, reason, author FROM blocked")?;
    let mut rows = blocked.query([])?;
    while let Some(row) = rows.next()? {
        let (since, until) =
            (time(row.get(1)?)?, row.get::<_, Option<i64>>(2)?.map(time).transpose()?);
        let note = Note { reason: row.get(3)?, by: row.get(4)? };
        let blocked = BlockedNode { node: row.get(0)?, since, until, note };
        let name = blocked.node.clone();
        overrides.add_block(blocked).map_err(invalid(name))?;
    }
    let mut drained =
        transaction.prepare("SELECT master, target, since, reason, author FROM drained")?;
    let mut rows = drained.query([])?;
    while let Some(row) = rows.next()? {
        let (since, note) = (time(row.get(2)?)?, Note { reason: row.get(3)?, by: row.get(4)? });
        let drained = DrainedMaster { master: row.get(0)?, to: row.get(1)?, since, note };
        let name = drained.master.clone();
        overrides.add_drain(drained).map_err(invalid(name))?;
    }
    let mut ended = transaction.prepare("SELECT node, master, since, until, stay FROM ended")?;
    let mut rows = ended.query([])?;
    while let Some(row) = rows.next()? {
        let (node, master) = (row.get::<_, Option<String>>(0)?, row.get(1)?);
        let of = match node {
            Some(node) => EndedKind::Pin { node, master },
            None => EndedKind::Drain { master },
        };
        let (since, until) = (time(row.get(2)?)?, time(row.get(3)?)?);
        overrides.add_ended(EndedOverride { of, since, until, stay: row.get(4)? });
    }
    servers::read(transaction, &mut overrides)?;
    Ok(overrides)
}

pub(super) fn write(
    connection: &mut Connection,
    change: &OverrideChange,
    ticket: Option<&AuditTicket>,
) -> Result<Option<Overrides>, StoreErrorKind> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    remember_end(&transaction, change)?;
    if let OverrideChange::Expire { now } | OverrideChange::Begin { now } = change {
        audit_expired(&transaction, *now)?;
    }
    if make(&transaction, change)? == 0 {
        return Ok(None);
    }
    transaction.execute("UPDATE state SET number = number + 1", [])?;
    if let Some(happening) = Happening::of_override(change) {
        let request_id = ticket.map(|ticket| ticket.request().request_id);
        events::insert(&transaction, &Happening { request_id, ..happening })?;
    }
    let after = rows(&transaction)?;
    audit::commit(transaction, ticket, None)?;
    Ok(Some(after))
}

/// What a change would lead to; it is taken back.
pub(super) fn attempt(
    connection: &mut Connection,
    change: &OverrideChange,
) -> Result<Option<Overrides>, StoreErrorKind> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    remember_end(&transaction, change)?;
    let after = match make(&transaction, change)? {
        0 => None,
        _ => Some(rows(&transaction)?),
    };
    transaction.rollback()?;
    Ok(after)
}

/// Pins and blocks that end by themselves are changes, too.
fn audit_expired(transaction: &Transaction<'_>, now: Timestamp) -> Result<(), StoreErrorKind> {
    const OVER: &str = "SELECT node FROM pins WHERE until <= ?1 \
        UNION SELECT node FROM blocked WHERE until <= ?1";
    let mut over = transaction.prepare(OVER)?;
    let nodes: Vec<String> =
        over.query_map([now.as_millisecond()], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for node in nodes {
        audit::insert(transaction, &AuditRequest::of_the_clock(now, format!("overrides/{node}")))?;
        events::insert(transaction, &Happening::of_end(now, &node))?;
    }
    Ok(())
}

/// Remembers what the change ends, so that it is known later why a node was elsewhere.
fn remember_end(transaction: &Transaction<'_>, change: &OverrideChange) -> rusqlite::Result<usize> {
    const PIN: &str = "INSERT INTO ended (kind, node, master, since, until, stay) \
        SELECT 'pin', node, master, since, ?2, 0 FROM pins WHERE node = ?1";
    const DRAIN: &str = "INSERT INTO ended (kind, node, master, since, until, stay) \
        SELECT 'drain', NULL, master, since, ?2, ?3 FROM drained WHERE master = ?1";
    const OVER: &str = "INSERT INTO ended (kind, node, master, since, until, stay) \
        SELECT 'pin', node, master, since, until, 0 FROM pins WHERE until <= ?1";
    let now = match change {
        OverrideChange::Pin(Pin { since: now, .. })
        | OverrideChange::Drain(DrainedMaster { since: now, .. })
        | OverrideChange::Block(BlockedNode { since: now, .. })
        | OverrideChange::Unblock { now, .. }
        | OverrideChange::Unpin { now, .. }
        | OverrideChange::Undrain { now, .. }
        | OverrideChange::SetServer(ServerOverride { since: now, .. })
        | OverrideChange::ResetServer { now, .. }
        | OverrideChange::Expire { now }
        | OverrideChange::Begin { now } => *now,
    };
    let at = now.as_millisecond();
    let forgotten = now.saturating_sub(ENDED_KEPT).unwrap_or(Timestamp::MIN);
    // What an owner's record is a consequence of is kept with it.
    const FORGET: &str = "DELETE FROM ended WHERE until < ?1 \
        AND NOT EXISTS (SELECT 1 FROM owners WHERE owners.since <= ended.until \
        AND (owners.owner = ended.master OR owners.node = ended.node))";
    transaction.execute(FORGET, [forgotten.as_millisecond()])?;
    match change {
        OverrideChange::Pin(Pin { node, .. })
        | OverrideChange::Block(BlockedNode { node, .. })
        | OverrideChange::Unpin { node, .. } => transaction.execute(PIN, params![node, at]),
        OverrideChange::Unblock { .. }
        | OverrideChange::SetServer(_)
        | OverrideChange::ResetServer { .. } => Ok(0),
        OverrideChange::Drain(DrainedMaster { master, .. }) => {
            transaction.execute(DRAIN, params![master, at, false])
        }
        OverrideChange::Undrain { master, stay, .. } => {
            transaction.execute(DRAIN, params![master, at, stay])
        }
        OverrideChange::Expire { .. } | OverrideChange::Begin { .. } => {
            transaction.execute(OVER, [at])
        }
    }
}

/// How many rows changed.
fn make(transaction: &Transaction<'_>, change: &OverrideChange) -> Result<usize, StoreErrorKind> {
    const PIN: &str = "INSERT OR REPLACE INTO pins (node, master, since, until, reason, author) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    const BLOCK: &str = "INSERT OR REPLACE INTO blocked (node, since, until, reason, author) \
        VALUES (?1, ?2, ?3, ?4, ?5)";
    const DRAIN: &str = "INSERT OR REPLACE INTO drained (master, target, since, reason, author) \
        VALUES (?1, ?2, ?3, ?4, ?5)";
    let end = |until: Option<Timestamp>| until.map(|until| until.as_millisecond());
    let changed = match change {
        OverrideChange::Pin(Pin { node, master, since, until, note }) => {
            transaction.execute("DELETE FROM blocked WHERE node = ?1", [node])?;
            let since = since.as_millisecond();
            transaction
                .execute(PIN, params![node, master, since, end(*until), note.reason, note.by])
        }
        OverrideChange::Unpin { node, .. } => {
            transaction.execute("DELETE FROM pins WHERE node = ?1", [node])
        }
        OverrideChange::Block(BlockedNode { node, since, until, note }) => {
            transaction.execute("DELETE FROM pins WHERE node = ?1", [node])?;
            let since = since.as_millisecond();
            transaction.execute(BLOCK, params![node, since, end(*until), note.reason, note.by])
        }
        OverrideChange::Unblock { node, .. } => {
            transaction.execute("DELETE FROM blocked WHERE node = ?1", [node])
        }
        OverrideChange::Drain(DrainedMaster { master, to, since, note }) => {
            let since = since.as_millisecond();
            transaction.execute(DRAIN, params![master, to, since, note.reason, note.by])
        }
        OverrideChange::Undrain { master, .. } => {
            transaction.execute("DELETE FROM drained WHERE master = ?1", [master])
        }
        OverrideChange::SetServer(ordered) => servers::set(transaction, ordered),
        OverrideChange::ResetServer { backend, server, now, .. } => {
            servers::reset(transaction, backend, server, *now)
        }
        OverrideChange::Expire { now } => return expire(transaction, *now),
        OverrideChange::Begin { now } => {
            // What was released before is not forgotten.
            let begun = servers::begin(transaction, *now)?;
            return Ok(begun + expire(transaction, *now)?);
        }
    };
    Ok(changed?)
}

/// How many rows changed.
fn expire(transaction: &Transaction<'_>, now: Timestamp) -> Result<usize, StoreErrorKind> {
    let at = now.as_millisecond();
    let pins = transaction.execute("DELETE FROM pins WHERE until <= ?1", [at])?;
    let blocked = transaction.execute("DELETE FROM blocked WHERE until <= ?1", [at])?;
    Ok(pins + blocked + servers::expire(transaction, now)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{SqliteStore, Store};

    #[tokio::test]
    async fn a_node_has_one_override_and_its_reason_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mapsmith.db");
        let store = SqliteStore::open(&path).await.unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        let note = Note { reason: Some("kernel".to_owned()), by: Some("anna".to_owned()) };
        let node = || "n1".to_owned();
        let pin = Pin {
            node: node(),
            master: "m1".to_owned(),
            since: at(1),
            until: None,
            note: note.clone(),
        };
        let blocked =
            BlockedNode { node: node(), since: at(2), until: Some(at(9)), note: note.clone() };
        store.change(OverrideChange::Pin(pin.clone()), None).await.unwrap();
        store.change(OverrideChange::Block(blocked.clone()), None).await.unwrap();
        drop(store);
        let store = SqliteStore::open(&path).await.unwrap();
        let kept = store.load().await.unwrap();
        assert_eq!((kept.pin("n1"), kept.block("n1")), (None, Some(&blocked)));
        assert_eq!(kept.ended().next(), Some(&pin.ended(at(2))), "the pin has ended");

        store.change(OverrideChange::Pin(pin.clone()), None).await.unwrap();
        let kept = store.load().await.unwrap();
        assert_eq!((kept.pin("n1"), kept.block("n1")), (Some(&pin), None));
        let unblock = OverrideChange::Unblock { node: node(), now: at(3), note };
        assert_eq!(store.change(unblock, None).await, Ok(None), "it is not blocked");
        store.change(OverrideChange::Block(blocked), None).await.unwrap();
        store.change(OverrideChange::Expire { now: at(9) }, None).await.unwrap();
        assert!(store.load().await.unwrap().is_empty());
    }
}
