//! Rollouts: a row each, as JSON, and what the sources had said in one that is not over.

use mapsmith_core::desired::rollout::{Plan, Rollout};
use rusqlite::{Connection, Transaction, params};

use super::{StoreErrorKind, history};
use crate::store::{StoredRollout, Ways};

/// How many are kept.
pub(super) const KEPT: i64 = 20;

pub(super) fn read(connection: &Connection) -> Result<Vec<StoredRollout>, StoreErrorKind> {
    const ROLLOUTS: &str = "SELECT rollout, plan FROM rollouts ORDER BY number DESC";
    let mut statement = connection.prepare(ROLLOUTS)?;
    let rows = statement
        .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?
        .collect::<Result<Vec<_>, _>>()?;
    let rollouts = rows.into_iter().map(|(rollout, plan)| {
        let rollout: Rollout = from_json(&rollout)?;
        let plan: Plan = from_json(&plan)?;
        let ways = match rollout.is_open() {
            true => Some(read_ways(connection, &rollout.id)?),
            false => None,
        };
        Ok(StoredRollout { rollout, plan, ways })
    });
    rollouts.collect()
}

fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, StoreErrorKind> {
    let wrong = |error| StoreErrorKind::Other(format!("a rollout can't be read: {error}"));
    serde_json::from_str(text).map_err(wrong)
}

fn to_json(value: &impl serde::Serialize) -> Result<String, StoreErrorKind> {
    serde_json::to_string(value).map_err(|error| StoreErrorKind::Other(error.to_string()))
}

fn read_ways(connection: &Connection, id: &str) -> Result<Ways, StoreErrorKind> {
    const BLOCKS: &str = "SELECT content FROM rollout_blocks WHERE rollout = ?1 AND way = ?2 \
        ORDER BY block";
    let read = |way: i64| {
        let mut statement = connection.prepare(BLOCKS)?;
        let blocks = statement.query_map(params![id, way], |row| row.get::<_, Vec<u8>>(0))?;
        blocks.collect::<Result<Vec<_>, _>>()
    };
    Ok(Ways { forward: read(0)?, back: read(1)? })
}

/// In place of what was stored of it. What leads to its maps stays where none is given, and goes
/// once it is over.
pub(super) fn write(
    transaction: &Transaction<'_>,
    stored: &StoredRollout,
) -> Result<(), StoreErrorKind> {
    const UPSERT: &str = "INSERT INTO rollouts (id, rollout, plan) VALUES (?1, ?2, ?3) \
        ON CONFLICT (id) DO UPDATE SET rollout = excluded.rollout, plan = excluded.plan";
    let StoredRollout { rollout, plan, ways } = stored;
    transaction.execute(UPSERT, params![rollout.id, to_json(rollout)?, to_json(plan)?])?;
    history::note_number(transaction, history::stored(rollout.revision)?)?;
    if let Some(Ways { forward, back }) = ways {
        const INSERT: &str = "INSERT OR REPLACE INTO rollout_blocks (rollout, way, block, content) \
            VALUES (?1, ?2, ?3, ?4)";
        let mut statement = transaction.prepare(INSERT)?;
        for (way, blocks) in [(0_i64, forward), (1, back)] {
            for (block, content) in (0_i64..).zip(blocks) {
                statement.execute(params![rollout.id, way, block, content])?;
            }
        }
    }
    if !rollout.is_open() {
        transaction.execute("DELETE FROM rollout_blocks WHERE rollout = ?1", [&rollout.id])?;
    }
    const PRUNE: &str = "DELETE FROM rollouts WHERE number NOT IN \
        (SELECT number FROM rollouts ORDER BY number DESC LIMIT ?1)";
    transaction.execute(PRUNE, [KEPT])?;
    Ok(())
}
