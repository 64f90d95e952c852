//! Revisions, a row each, and what leads back from them, in blocks.

use std::num::TryFromIntError;

use async_trait::async_trait;
use mapsmith_core::Note;
use mapsmith_core::history::{Fingerprint, RevisionRecord};
use mapsmith_core::revision::ChangeCounts;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use super::{SqliteStore, StoreErrorKind, time};
use crate::store::{HistoryStore, KeptRevision, StoreError};

/// The tables of the history: large, and nothing that a start needs.
pub(super) const TABLES: [&str; 2] = ["revisions", "revision_blocks"];
/// What a revision takes beside its blocks, about.
const ROW_BYTES: u64 = 256;

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub struct HistoryBounds {
    /// How many revisions.
    pub keep: usize,
    pub max_bytes: u64,
}

/// The history in a store's file.
#[derive(Debug, Clone)]
pub struct SqliteHistory {
    pub(super) store: SqliteStore,
    pub(super) bounds: HistoryBounds,
}

#[async_trait]
impl HistoryStore for SqliteHistory {
    async fn fingerprint_of(&self, number: u64) -> Result<Option<Fingerprint>, StoreError> {
        self.store.with(move |connection| fingerprint(connection, number)).await
    }

    async fn keep_revision(&self, revision: KeptRevision) -> Result<(), StoreError> {
        let bounds = self.bounds;
        self.store.with(move |connection| keep(connection, &revision, bounds)).await
    }
}

fn fingerprint(
    connection: &Connection,
    number: u64,
) -> Result<Option<Fingerprint>, StoreErrorKind> {
    const ROW: &str = "SELECT fingerprint FROM revisions WHERE number = ?1";
    let row = |row: &Row<'_>| Ok(Fingerprint(row.get::<_, i64>(0)?.cast_unsigned()));
    Ok(connection.query_row(ROW, [stored(number)?], row).optional()?)
}

/// What is there of the same number and later ones never came into force: the map file tells.
fn keep(
    connection: &mut Connection,
    revision: &KeptRevision,
    bounds: HistoryBounds,
) -> Result<(), StoreErrorKind> {
    const ROW: &str = "INSERT INTO revisions (number, at, kind, author, reason, sources, entries, \
        added, moved, removed, previous, fingerprint, bytes) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
    let KeptRevision { record, fingerprint, blocks } = revision;
    let number = stored(record.number)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for table in TABLES {
        transaction.execute(&format!("DELETE FROM {table} WHERE number >= ?1"), [number])?;
    }
    let mut bytes = ROW_BYTES;
    let mut insert = transaction
        .prepare("INSERT INTO revision_blocks (number, block, content) VALUES (?1, ?2, ?3)")?;
    for (at, block) in (0i64..).zip(blocks) {
        bytes += block.len() as u64;
        insert.execute(params![number, at, block])?;
    }
    drop(insert);
    transaction.execute(
        ROW,
        params![
            number,
            record.at.as_millisecond(),
            json(&record.kind)?,
            record.note.by,
            record.note.reason,
            json(&record.sources)?,
            stored(record.entries)?,
            stored(record.counts.added)?,
            stored(record.counts.moved)?,
            stored(record.counts.removed)?,
            record.previous.map(stored).transpose()?,
            fingerprint.0.cast_signed(),
            stored(bytes)?,
        ],
    )?;
    forget(&transaction, bounds)?;
    Ok(transaction.commit()?)
}

/// Forgets the oldest revisions beyond the bounds, but for the newest one.
fn forget(transaction: &Transaction<'_>, bounds: HistoryBounds) -> Result<(), StoreErrorKind> {
    let mut newest_first =
        transaction.prepare("SELECT number, bytes FROM revisions ORDER BY number DESC")?;
    let mut rows = newest_first.query([])?;
    let (mut count, mut bytes) = (0, 0u64);
    while let Some(row) = rows.next()? {
        let number: i64 = row.get(0)?;
        count += 1;
        bytes = bytes.saturating_add(row.get::<_, i64>(1)?.unsigned_abs());
        if count > 1 && (count > bounds.keep || bytes > bounds.max_bytes) {
            for table in TABLES {
                transaction
                    .execute(&format!("DELETE FROM {table} WHERE number <= ?1"), [number])?;
            }
            break;
        }
    }
    Ok(())
}

/// Every revision that is kept, the newest first.
pub(super) fn records(connection: &Connection) -> Result<Vec<RevisionRecord>, StoreErrorKind> {
    let mut all = connection.prepare(
        "SELECT number, at, kind, author, reason, sources, entries, added, moved, removed, \
            previous FROM revisions ORDER BY number DESC",
    )?;
    let mut rows = all.query([])?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        records.push(record(row)?);
    }
    Ok(records)
}

fn record(row: &Row<'_>) -> Result<RevisionRecord, StoreErrorKind> {
    let count = |column: usize| -> Result<usize, StoreErrorKind> {
        usize::try_from(row.get::<_, i64>(column)?).map_err(out_of_range)
    };
    Ok(RevisionRecord {
        number: row.get::<_, i64>(0)?.cast_unsigned(),
        at: time(row.get(1)?)?,
        kind: parsed(&row.get::<_, String>(2)?)?,
        note: Note { by: row.get(3)?, reason: row.get(4)? },
        sources: parsed(&row.get::<_, String>(5)?)?,
        entries: count(6)?,
        counts: ChangeCounts { added: count(7)?, moved: count(8)?, removed: count(9)? },
        previous: row.get::<_, Option<i64>>(10)?.map(i64::cast_unsigned),
    })
}

/// What leads back from a revision.
pub(super) fn blocks(connection: &Connection, number: u64) -> Result<Vec<Vec<u8>>, StoreErrorKind> {
    let mut blocks = connection
        .prepare("SELECT content FROM revision_blocks WHERE number = ?1 ORDER BY block")?;
    let blocks = blocks.query_map([stored(number)?], |row| row.get(0))?;
    Ok(blocks.collect::<Result<_, _>>()?)
}

fn stored(number: impl TryInto<i64, Error = TryFromIntError>) -> Result<i64, StoreErrorKind> {
    number.try_into().map_err(out_of_range)
}

fn out_of_range(_: TryFromIntError) -> StoreErrorKind {
    StoreErrorKind::Damaged("a number of a revision is out of range".to_owned())
}

fn json(value: &impl serde::Serialize) -> Result<String, StoreErrorKind> {
    serde_json::to_string(value).map_err(|error| StoreErrorKind::Other(error.to_string()))
}

fn parsed<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, StoreErrorKind> {
    serde_json::from_str(text)
        .map_err(|error| StoreErrorKind::Damaged(format!("a revision can't be read: {error}")))
}

/// The history as it is read, beside whoever writes.
pub struct HistoryReader {
    connection: Connection,
}

impl HistoryReader {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection }
    }

    /// Every revision that is kept, the newest first.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn records(&self) -> Result<Vec<RevisionRecord>, StoreErrorKind> {
        records(&self.connection)
    }

    /// What leads back from a revision.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn blocks(&self, number: u64) -> Result<Vec<Vec<u8>>, StoreErrorKind> {
        blocks(&self.connection, number)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use mapsmith_core::history::RevisionKind;

    use super::*;

    fn revision(number: u64, bytes: usize) -> KeptRevision {
        let record = RevisionRecord {
            number,
            at: Timestamp::from_second(7).unwrap(),
            kind: RevisionKind::RemoveAfter,
            note: Note { reason: Some("site 7".to_owned()), by: Some("anna".to_owned()) },
            sources: vec!["puppetdb".to_owned()],
            entries: 3,
            counts: ChangeCounts { added: 1, moved: 2, removed: 3 },
            previous: number.checked_sub(1),
        };
        KeptRevision { record, fingerprint: Fingerprint(u64::MAX), blocks: vec![vec![7; bytes]; 2] }
    }

    async fn numbers(store: &SqliteStore) -> Vec<u64> {
        let read = |reader: HistoryReader| reader.records();
        let records = store.read_history(read).await.unwrap();
        records.into_iter().map(|record| record.number).collect()
    }

    #[tokio::test]
    async fn the_newest_revisions_are_kept_within_their_bounds() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("s.db")).await.unwrap();
        let history = store.history(HistoryBounds { keep: 3, max_bytes: 10_000 });
        assert_eq!(history.fingerprint_of(5).await, Ok(None));
        for number in 1..=5 {
            history.keep_revision(revision(number, 100)).await.unwrap();
        }
        assert_eq!(numbers(&store).await, [5, 4, 3]);
        assert_eq!(history.fingerprint_of(5).await, Ok(Some(Fingerprint(u64::MAX))));
        let first = store.read_history(|reader| reader.records()).await.unwrap().swap_remove(0);
        assert_eq!(first, revision(5, 0).record);
        let blocks = store.read_history(|reader| Ok((reader.blocks(4)?, reader.blocks(2)?)));
        assert_eq!(blocks.await, Ok((vec![vec![7; 100]; 2], vec![])), "with their blocks");

        history.keep_revision(revision(6, 4_500)).await.unwrap();
        assert_eq!(numbers(&store).await, [6, 5], "by their size");
        history.keep_revision(revision(7, 20_000)).await.unwrap();
        assert_eq!(numbers(&store).await, [7], "the newest one is always there");
        history.keep_revision(revision(5, 1)).await.unwrap();
        assert_eq!(numbers(&store).await, [5], "what comes later never came into force");
    }
}
