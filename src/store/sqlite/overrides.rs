//! Overrides as the store has them: a row a pin and a drained master, and those that have ended.

use jiff::Timestamp;
use mapsmith_core::overrides::ENDED_KEPT;
use mapsmith_core::{
    DrainedMaster, EndedKind, EndedOverride, Invalid, OverrideChange, Overrides, Pin,
};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::{StoreErrorKind, audit, time};
use crate::store::{AuditRequest, AuditTicket};

pub(super) fn read(connection: &Connection) -> Result<Overrides, StoreErrorKind> {
    // One transaction, so that a change does not come between the tables.
    rows(&*connection.unchecked_transaction()?)
}

fn rows(transaction: &Connection) -> Result<Overrides, StoreErrorKind> {
    let invalid = |name: String| move |reason: Invalid| StoreErrorKind::Invalid { name, reason };
    let number: i64 = transaction.query_row("SELECT number FROM state", [], |row| row.get(0))?;
    let mut overrides = Overrides::numbered(number.unsigned_abs());
    let mut pins = transaction.prepare("SELECT node, master, since, until FROM pins")?;
    let mut rows = pins.query([])?;
    while let Some(row) = rows.next()? {
        let (since, until) =
            (time(row.get(2)?)?, row.get::<_, Option<i64>>(3)?.map(time).transpose()?);
        let pin = Pin { node: row.get(0)?, master: row.get(1)?, since, until };
        let name = pin.node.clone();
        overrides.add_pin(pin).map_err(invalid(name))?;
    }
    let mut drained = transaction.prepare("SELECT master, target, since FROM drained")?;
    let mut rows = drained.query([])?;
    while let Some(row) = rows.next()? {
        let drained =
            DrainedMaster { master: row.get(0)?, to: row.get(1)?, since: time(row.get(2)?)? };
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
    Ok(overrides)
}

pub(super) fn write(
    connection: &mut Connection,
    change: &OverrideChange,
    ticket: Option<&AuditTicket>,
) -> Result<Option<Overrides>, StoreErrorKind> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    remember_end(&transaction, change)?;
    if let OverrideChange::Expire { now } = change {
        audit_expired(&transaction, *now)?;
    }
    if make(&transaction, change)? == 0 {
        return Ok(None);
    }
    transaction.execute("UPDATE state SET number = number + 1", [])?;
    let after = rows(&transaction)?;
    audit::commit(transaction, ticket, None)?;
    Ok(Some(after))
}

/// Pins that end by themselves are changes, too.
fn audit_expired(transaction: &Transaction<'_>, now: Timestamp) -> Result<(), StoreErrorKind> {
    let mut over = transaction.prepare("SELECT node FROM pins WHERE until <= ?1")?;
    let nodes: Vec<String> =
        over.query_map([now.as_millisecond()], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for node in nodes {
        audit::insert(transaction, &AuditRequest::of_the_clock(now, format!("overrides/{node}")))?;
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
        | OverrideChange::Unpin { now, .. }
        | OverrideChange::Undrain { now, .. }
        | OverrideChange::Expire { now } => *now,
    };
    let at = now.as_millisecond();
    let forgotten = now.saturating_sub(ENDED_KEPT).unwrap_or(Timestamp::MIN);
    // What an owner's record is a consequence of is kept with it.
    const FORGET: &str = "DELETE FROM ended WHERE until < ?1 \
        AND NOT EXISTS (SELECT 1 FROM owners WHERE owners.since <= ended.until \
        AND (owners.owner = ended.master OR owners.node = ended.node))";
    transaction.execute(FORGET, [forgotten.as_millisecond()])?;
    match change {
        OverrideChange::Pin(Pin { node, .. }) | OverrideChange::Unpin { node, .. } => {
            transaction.execute(PIN, params![node, at])
        }
        OverrideChange::Drain(DrainedMaster { master, .. }) => {
            transaction.execute(DRAIN, params![master, at, false])
        }
        OverrideChange::Undrain { master, stay, .. } => {
            transaction.execute(DRAIN, params![master, at, stay])
        }
        OverrideChange::Expire { .. } => transaction.execute(OVER, [at]),
    }
}

/// How many rows changed.
fn make(transaction: &Transaction<'_>, change: &OverrideChange) -> rusqlite::Result<usize> {
    match change {
        OverrideChange::Pin(pin) => transaction.execute(
            "INSERT OR REPLACE INTO pins (node, master, since, until) VALUES (?1, ?2, ?3, ?4)",
            params![
                pin.node,
                pin.master,
                pin.since.as_millisecond(),
                pin.until.map(|until| until.as_millisecond())
            ],
        ),
        OverrideChange::Unpin { node, .. } => {
            transaction.execute("DELETE FROM pins WHERE node = ?1", [node])
        }
        OverrideChange::Drain(drained) => transaction.execute(
            "INSERT OR REPLACE INTO drained (master, target, since) VALUES (?1, ?2, ?3)",
            params![drained.master, drained.to, drained.since.as_millisecond()],
        ),
        OverrideChange::Undrain { master, .. } => {
            transaction.execute("DELETE FROM drained WHERE master = ?1", [master])
        }
        OverrideChange::Expire { now } => transaction.execute(
            "DELETE FROM pins WHERE until IS NOT NULL AND until <= ?1",
            [now.as_millisecond()],
        ),
    }
}
