//! Events as the store has them: a ring of the latest, with numbers that are never given twice.

use jiff::SignedDuration;
use mapsmith_core::events::{Event, EventKind, Happening};
use rusqlite::{Connection, params};
use tokio::sync::watch;

use super::{SqliteStore, StoreErrorKind};
use crate::store::StoreError;

/// How long an event is kept.
const KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);
/// The most events.
const MOST: i64 = 10_000;

/// Events, and which there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredEvents {
    /// In their order.
    pub events: Vec<Event>,
    /// The number of the oldest that is kept; that of the next where none is.
    pub oldest: u64,
    /// The greatest number that was given.
    pub last: u64,
}

impl SqliteStore {
    /// Keeps these for good, all of them or none.
    pub async fn keep_events(&self, news: Vec<Happening>) -> Result<(), StoreError> {
        self.with(move |connection| {
            let transaction = connection.transaction()?;
            news.iter().try_for_each(|happening| insert(&transaction, happening))?;
            Ok(transaction.commit()?)
        })
        .await
    }

    /// Raised whenever an order's transaction has kept an event.
    pub fn kept_events(&self) -> watch::Receiver<()> {
        self.kept_events.subscribe()
    }

    /// The first events after this number, or with `newest` the last ones.
    pub async fn events(
        &self,
        after: u64,
        limit: usize,
        newest: bool,
    ) -> Result<StoredEvents, StoreError> {
        self.with(move |connection| read(connection, after, limit, newest)).await
    }

    /// The last event of each subject.
    pub async fn last_events(&self) -> Result<Vec<Happening>, StoreError> {
        const LAST: &str = "SELECT id, event FROM events WHERE id IN \
            (SELECT max(id) FROM events GROUP BY kind, subject) ORDER BY id";
        self.with(|connection| {
            let mut statement = connection.prepare(LAST)?;
            let mut rows = statement.query([])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.extend(event_of(row.get(0)?, &row.get::<_, String>(1)?));
            }
            Ok(found.into_iter().map(|event| event.happening).collect())
        })
        .await
    }
}

/// An event more, and those fewer whose time is over.
pub(super) fn insert(connection: &Connection, happening: &Happening) -> Result<(), StoreErrorKind> {
    const INSERT: &str = "INSERT INTO events (at, kind, subject, event) VALUES (?1, ?2, ?3, ?4)";
    let event = serde_json::to_string(happening)
        .map_err(|error| StoreErrorKind::Other(error.to_string()))?;
    let Happening { at, kind, subject, .. } = happening;
    // Of all revisions the last one counts.
    let subject = if *kind == EventKind::Revision { "" } else { subject };
    let at = at.as_millisecond();
    connection.prepare(INSERT)?.execute(params![at, kind.name(), subject, event])?;
    let id = connection.last_insert_rowid();
    let kept = i64::try_from(KEPT.as_millis()).unwrap_or(i64::MAX);
    connection.prepare("DELETE FROM events WHERE id <= ?1")?.execute([id - MOST])?;
    let old = "DELETE FROM events WHERE at < ?1 AND id < ?2";
    connection.prepare(old)?.execute([at.saturating_sub(kept), id])?;
    Ok(())
}

fn read(
    connection: &Connection,
    after: u64,
    limit: usize,
    newest: bool,
) -> Result<StoredEvents, StoreErrorKind> {
    const LAST: &str = "SELECT ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0)";
    const FIRST: &str = "SELECT id, event FROM events WHERE id > ?1 ORDER BY id LIMIT ?2";
    const NEWEST: &str = "SELECT id, event FROM (SELECT id, event FROM events WHERE id > ?1 \
        ORDER BY id DESC LIMIT ?2) ORDER BY id";
    let transaction = connection.unchecked_transaction()?;
    let last: i64 = transaction.query_row(LAST, [], |row| row.get(0))?;
    let oldest: Option<i64> =
        transaction.query_row("SELECT min(id) FROM events", [], |row| row.get(0))?;
    let mut statement = transaction.prepare(if newest { NEWEST } else { FIRST })?;
    let (after, limit) =
        (i64::try_from(after).unwrap_or(i64::MAX), i64::try_from(limit).unwrap_or(i64::MAX));
    let mut rows = statement.query([after, limit])?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        events.extend(event_of(row.get(0)?, &row.get::<_, String>(1)?));
    }
    let oldest = oldest.unwrap_or(last + 1).unsigned_abs();
    Ok(StoredEvents { events, oldest, last: last.unsigned_abs() })
}

/// One of another version, of a kind that this one does not know, is left out.
fn event_of(id: i64, event: &str) -> Option<Event> {
    let happening = serde_json::from_str(event).ok()?;
    Some(Event { id: id.unsigned_abs(), happening })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn happening(second: i64, subject: &str, state: &str) -> Happening {
        let at = Timestamp::from_second(second).unwrap();
        Happening::new(at, EventKind::Instance, subject, "it is".to_owned()).in_state(state)
    }

    async fn store() -> (tempfile::TempDir, SqliteStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("m.db")).await.unwrap();
        (folder, store)
    }

    fn ids(found: &StoredEvents) -> Vec<u64> {
        found.events.iter().map(|event| event.id).collect()
    }

    #[tokio::test]
    async fn numbers_go_on_after_a_restart_also_where_nothing_is_kept_any_more() {
        let (folder, store) = store().await;
        assert_eq!((store.events(0, 9, false).await.unwrap().oldest), 1);
        store.keep_events((0..5).map(|it| happening(it, "a", "x")).collect()).await.unwrap();
        let found = store.events(2, 2, false).await.unwrap();
        assert_eq!((ids(&found), found.oldest, found.last), (vec![3, 4], 1, 5));
        assert_eq!(ids(&store.events(0, 2, true).await.unwrap()), [4, 5]);
        store.with(|it| Ok(it.execute("DELETE FROM events", [])?)).await.unwrap();
        drop(store);
        let store = SqliteStore::open(&folder.path().join("m.db")).await.unwrap();
        let found = store.events(0, 9, false).await.unwrap();
        assert_eq!((found.oldest, found.last), (6, 5));
        store.keep_events(vec![happening(9, "a", "x")]).await.unwrap();
        assert_eq!(ids(&store.events(0, 9, false).await.unwrap()), [6]);
    }

    #[tokio::test]
    async fn the_oldest_events_go_by_number_and_by_time() {
        let (_folder, store) = store().await;
        let many = (0..MOST + 3).map(|_| happening(100, "a", "x")).collect();
        store.keep_events(many).await.unwrap();
        let found = store.events(0, 1, false).await.unwrap();
        assert_eq!((ids(&found), found.last), (vec![4], 10_003));
        let later = 101 + 30 * 24 * 3600;
        store.keep_events(vec![happening(later, "a", "x")]).await.unwrap();
        assert_eq!(ids(&store.events(0, 9, false).await.unwrap()), [10_004]);
    }

    #[tokio::test]
    async fn the_last_state_of_each_is_known() {
        let (_folder, store) = store().await;
        let news = [("a", "x"), ("b", "x"), ("a", "y")];
        let news = news.map(|(subject, state)| happening(1, subject, state));
        store.keep_events(news.to_vec()).await.unwrap();
        assert_eq!(store.last_events().await.unwrap(), news[1..]);
    }
}
