//! Revisions, a row each, and what leads back from them, in blocks.

use std::num::TryFromIntError;

use async_trait::async_trait;
use jiff::Timestamp;
use mapsmith_core::Note;
use mapsmith_core::history::{Fingerprint, RevisionRecord};
use mapsmith_core::revision::ChangeCounts;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use super::{SqliteStore, StoreErrorKind, time};
use crate::store::{HistoryStore, KeptRevision, StoreError};

/// The tables of the history: large, and nothing that a start needs.
pub(super) const TABLES: [&str; 3] = ["revisions", "revision_blocks", "revision_bases"];
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
    async fn fingerprint_of(
        &self,
        number: u64,
    ) -> Result<Option<(Fingerprint, Timestamp)>, StoreError> {
        self.store.read(move |connection| fingerprint(connection, number)).await
    }

    async fn keep_revision(&self, revision: KeptRevision) -> Result<(), StoreError> {
        let bounds = self.bounds;
        self.store.with(move |connection| keep(connection, &revision, bounds)).await
    }

    async fn keep_base(&self, number: u64, base: Vec<Vec<u8>>) -> Result<(), StoreError> {
        self.store.with(move |connection| keep_base(connection, number, &base)).await
    }
}

fn fingerprint(
    connection: &Connection,
    number: u64,
) -> Result<Option<(Fingerprint, Timestamp)>, StoreErrorKind> {
    const ROW: &str = "SELECT fingerprint, at FROM revisions WHERE number = ?1";
    let row = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?));
    let found = connection.query_row(ROW, [stored(number)?], row).optional()?;
    found.map(|(mark, at)| Ok((Fingerprint(mark), time(at)?))).transpose()
}

/// What is there of the same number and later ones never came into force: the map file tells.
fn keep(
    connection: &mut Connection,
    revision: &KeptRevision,
    bounds: HistoryBounds,
) -> Result<(), StoreErrorKind> {
    const ROW: &str = "INSERT INTO revisions (number, at, kind, author, reason, sources, entries, \
        added, moved, removed, previous, fingerprint, bytes, rollback_of, base) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";
    let KeptRevision { record, fingerprint, blocks, base } = revision;
    let number = stored(record.number)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for table in TABLES {
        transaction.execute(&format!("DELETE FROM {table} WHERE number >= ?1"), [number])?;
    }
    insert_blocks(&transaction, "revision_blocks", number, blocks)?;
    insert_blocks(&transaction, "revision_bases", number, base)?;
    let lengths = blocks.iter().chain(base).map(|block| block.len() as u64);
    let bytes = ROW_BYTES + lengths.sum::<u64>();
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
            record.rollback_of.map(stored).transpose()?,
            record.base.map(stored).transpose()?,
        ],
    )?;
    note_number(&transaction, number)?;
    forget(&transaction, bounds)?;
    Ok(transaction.commit()?)
}

/// A number is a map's, also of one that is forgotten since.
pub(super) fn note_number(transaction: &Transaction<'_>, number: i64) -> rusqlite::Result<()> {
    transaction.execute("UPDATE numbers SET highest = max(highest, ?1)", [number])?;
    Ok(())
}

/// The highest number that a map ever had.
pub(super) fn highest_number(connection: &Connection) -> Result<u64, StoreErrorKind> {
    let highest =
        connection.query_row("SELECT highest FROM numbers", [], |row| row.get::<_, i64>(0))?;
    Ok(highest.cast_unsigned())
}

fn insert_blocks(
    transaction: &Transaction<'_>,
    table: &str,
    number: i64,
    blocks: &[Vec<u8>],
) -> Result<(), StoreErrorKind> {
    let insert = format!("INSERT INTO {table} (number, block, content) VALUES (?1, ?2, ?3)");
    let mut insert = transaction.prepare(&insert)?;
    for (at, block) in (0i64..).zip(blocks) {
        insert.execute(params![number, at, block])?;
    }
    Ok(())
}

/// Older revisions never have what a later one is kept with, so nobody else's is replaced.
fn keep_base(
    connection: &mut Connection,
    number: u64,
    base: &[Vec<u8>],
) -> Result<(), StoreErrorKind> {
    let number = stored(number)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute("DELETE FROM revision_bases WHERE number = ?1", [number])?;
    insert_blocks(&transaction, "revision_bases", number, base)?;
    transaction.execute("UPDATE revisions SET base = number WHERE number = ?1", [number])?;
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
            for table in ["revisions", "revision_blocks"] {
                transaction
                    .execute(&format!("DELETE FROM {table} WHERE number <= ?1"), [number])?;
            }
            // What lies over their answers may be a later one's, too.
            transaction.execute(
                "DELETE FROM revision_bases WHERE number NOT IN \
                    (SELECT base FROM revisions WHERE base IS NOT NULL)",
                [],
            )?;
            break;
        }
    }
    Ok(())
}

/// Every revision that is kept, the newest first.
pub(super) fn records(connection: &Connection) -> Result<Vec<RevisionRecord>, StoreErrorKind> {
    let mut all = connection.prepare(
        "SELECT number, at, kind, author, reason, sources, entries, added, moved, removed, \
            previous, rollback_of, base FROM revisions ORDER BY number DESC",
    )?;
    let mut rows = all.query([])?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        match record(row) {
            Ok(record) => records.push(record),
            // A row that was damaged, or that a later Mapsmith wrote: a gap, and no more than that.
            Err(error) => tracing::warn!("a revision of the store can't be read: {error}"),
        }
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
        rollback_of: row.get::<_, Option<i64>>(11)?.map(i64::cast_unsigned),
        base: row.get::<_, Option<i64>>(12)?.map(i64::cast_unsigned),
    })
}

/// What leads back from a revision.
pub(super) fn blocks(connection: &Connection, number: u64) -> Result<Vec<Vec<u8>>, StoreErrorKind> {
    let mut blocks = connection
        .prepare("SELECT content FROM revision_blocks WHERE number = ?1 ORDER BY block")?;
    let blocks = blocks.query_map([stored(number)?], |row| row.get(0))?;
    Ok(blocks.collect::<Result<_, _>>()?)
}

/// What leads from the map of a revision to what the sources had said; none where that is not kept.
fn base_blocks(
    connection: &Connection,
    number: u64,
) -> Result<Option<Vec<Vec<u8>>>, StoreErrorKind> {
    const OF: &str = "SELECT base FROM revisions WHERE number = ?1";
    let of = connection.query_row(OF, [stored(number)?], |row| row.get::<_, Option<i64>>(0));
    let Some(of) = of.optional()?.flatten() else { return Ok(None) };
    let mut blocks = connection
        .prepare("SELECT content FROM revision_bases WHERE number = ?1 ORDER BY block")?;
    let blocks = blocks.query_map([of], |row| row.get(0))?;
    Ok(Some(blocks.collect::<Result<_, _>>()?))
}

pub(super) fn stored(
    number: impl TryInto<i64, Error = TryFromIntError>,
) -> Result<i64, StoreErrorKind> {
    number.try_into().map_err(out_of_range)
}

fn out_of_range(_: TryFromIntError) -> StoreErrorKind {
    StoreErrorKind::Damaged("a number of a revision is out of range".to_owned())
}

pub(super) fn json<T: serde::Serialize>(value: &T) -> Result<String, StoreErrorKind> {
    serde_json::to_string(value).map_err(|error| StoreErrorKind::Other(error.to_string()))
}

pub(super) fn parsed<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, StoreErrorKind> {
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

    /// What leads from the map of a revision to what the sources had said; none where that is not
    /// kept.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn base_blocks(&self, number: u64) -> Result<Option<Vec<Vec<u8>>>, StoreErrorKind> {
        base_blocks(&self.connection, number)
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
            rollback_of: Some(2),
            base: Some(number.min(4)),
        };
        KeptRevision {
            record,
            fingerprint: Fingerprint(u64::MAX),
            blocks: vec![vec![7; bytes]; 2],
            base: if number <= 4 { vec![vec![number as u8]] } else { Vec::new() },
        }
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
        let known = (Fingerprint(u64::MAX), Timestamp::from_second(7).unwrap());
        assert_eq!(history.fingerprint_of(5).await, Ok(Some(known)));
        let first = store.read_history(|reader| reader.records()).await.unwrap().swap_remove(0);
        assert_eq!(first, revision(5, 0).record);
        let blocks = store.read_history(|reader| Ok((reader.blocks(4)?, reader.blocks(2)?)));
        assert_eq!(blocks.await, Ok((vec![vec![7; 100]; 2], vec![])), "with their blocks");

        let bases = |reader: HistoryReader| Ok([3, 4, 5, 9].map(|at| reader.base_blocks(at)));
        let bases = store.read_history(bases).await.unwrap();
        let of = |number: u8| Ok(Some(vec![vec![number]]));
        assert_eq!(bases, [of(3), of(4), of(4), Ok(None)], "5 shares that of 4");

        history.keep_revision(revision(6, 4_500)).await.unwrap();
        assert_eq!(numbers(&store).await, [6, 5], "by their size");
        let base = |reader: HistoryReader| reader.base_blocks(6);
        assert_eq!(
            store.read_history(base).await,
            Ok(Some(vec![vec![4]])),
            "it is kept for 5 and 6"
        );
        history.keep_base(6, vec![vec![9]]).await.unwrap();
        let bases = |reader: HistoryReader| Ok((reader.base_blocks(5)?, reader.base_blocks(6)?));
        let both = (Some(vec![vec![4]]), Some(vec![vec![9]]));
        assert_eq!(store.read_history(bases).await, Ok(both));
        history.keep_revision(revision(7, 20_000)).await.unwrap();
        assert_eq!(numbers(&store).await, [7], "the newest one is always there");
        history.keep_revision(revision(5, 1)).await.unwrap();
        assert_eq!(numbers(&store).await, [5], "what comes later never came into force");
    }

    #[tokio::test]
    async fn a_number_that_a_map_has_had_is_known_also_once_the_map_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.db");
        let store = SqliteStore::open(&path).await.unwrap();
        assert_eq!(store.highest_number().await, Ok(0));
        let history = store.history(HistoryBounds { keep: 9, max_bytes: 10_000 });
        for number in [3, 12, 5] {
            history.keep_revision(revision(number, 1)).await.unwrap();
        }
        assert_eq!(numbers(&store).await, [5, 3], "what comes later never came into force");
        drop(history);
        drop(store);
        let store = SqliteStore::open(&path).await.unwrap();
        assert_eq!(store.highest_number().await, Ok(12));
    }

    #[tokio::test]
    async fn a_row_that_can_not_be_read_hides_no_other_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.db");
        let store = SqliteStore::open(&path).await.unwrap();
        let history = store.history(HistoryBounds { keep: 9, max_bytes: 10_000 });
        for number in 1..=3 {
            history.keep_revision(revision(number, 1)).await.unwrap();
        }
        let damage = "UPDATE revisions SET kind = 'of tomorrow' WHERE number = 2";
        rusqlite::Connection::open(&path).unwrap().execute(damage, []).unwrap();
        assert_eq!(numbers(&store).await, [3, 1]);
    }
}
