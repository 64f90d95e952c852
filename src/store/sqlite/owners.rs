//! The owners that are remembered, a row a node, and the outages of masters.

use jiff::Timestamp;
use mapsmith_core::desired::ownership::{Outage, OwnerRecord, OwnersChange, StoredOwners};
use mapsmith_core::{Invalid, names};
use rusqlite::{Connection, TransactionBehavior, params};

use super::{StoreErrorKind, time};

pub(super) fn read(connection: &Connection) -> Result<StoredOwners, StoreErrorKind> {
    let mut stored = StoredOwners::default();
    let invalid = |name: String| move |reason: Invalid| StoreErrorKind::Invalid { name, reason };
    let mut owners = connection
        .prepare("SELECT node, owner, since, seen, ordered, routed, unnamed FROM owners")?;
    let mut rows = owners.query([])?;
    while let Some(row) = rows.next()? {
        let (node, owner) = (row.get::<_, String>(0)?, row.get::<_, String>(1)?);
        names::check_key(&node).map_err(invalid(node.clone()))?;
        names::check_value(&owner).map_err(invalid(owner.clone()))?;
        let (since, seen) = (time(row.get(2)?)?, time(row.get(3)?)?);
        let ordered = row.get(4)?;
        let routed_since = row.get::<_, Option<i64>>(5)?.map(time).transpose()?;
        let unnamed_since = row.get::<_, Option<i64>>(6)?.map(time).transpose()?;
        let record = OwnerRecord { owner, since, seen, ordered, routed_since, unnamed_since };
        stored.records.insert(node, record);
    }
    let mut outages = connection.prepare("SELECT master, since, until FROM outages")?;
    let mut rows = outages.query([])?;
    while let Some(row) = rows.next()? {
        let (since, until) =
            (row.get::<_, i64>(1)?, row.get::<_, Option<i64>>(2)?.map(time).transpose()?);
        // Since before it was first observed.
        let from = if since == i64::MIN { Timestamp::MIN } else { time(since)? };
        stored.outages.push(Outage { master: row.get(0)?, from, until });
    }
    Ok(stored)
}

/// All of the change or nothing.
pub(super) fn write(
    connection: &mut Connection,
    change: &OwnersChange,
) -> Result<(), StoreErrorKind> {
    const KEEP: &str = "INSERT OR REPLACE INTO owners (node, owner, since, seen, ordered, routed, unnamed) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut keep = transaction.prepare(KEEP)?;
    let mut forget = transaction.prepare("DELETE FROM owners WHERE node = ?1")?;
    for (node, record) in &change.records {
        match record {
            Some(OwnerRecord { owner, since, seen, ordered, routed_since, unnamed_since }) => {
                let (since, seen) = (milliseconds(*since), milliseconds(*seen));
                let (routed, unnamed) =
                    (routed_since.map(milliseconds), unnamed_since.map(milliseconds));
                keep.execute(params![node, owner, since, seen, ordered, routed, unnamed])?
            }
            None => forget.execute([node])?,
        };
    }
    drop((keep, forget));
    if let Some(outages) = &change.outages {
        transaction.execute("DELETE FROM outages", [])?;
        for Outage { master, from, until } in outages {
            transaction.execute(
                "INSERT INTO outages (master, since, until) VALUES (?1, ?2, ?3)",
                params![master, milliseconds(*from), until.map(milliseconds)],
            )?;
        }
    }
    Ok(transaction.commit()?)
}

fn milliseconds(at: Timestamp) -> i64 {
    if at == Timestamp::MIN { i64::MIN } else { at.as_millisecond() }
}
