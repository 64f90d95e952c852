//! Events as the store has them: a ring of the latest of each share, with numbers that are never
//! given twice.

use jiff::SignedDuration;
use mapsmith_core::events::{Event, EventKind, EventShare, GoneEvents, Happening};
use rusqlite::{Connection, params};
use tokio::sync::watch;

use super::{SqliteStore, StoreErrorKind};
use crate::store::StoreError;

/// How long an event is kept.
const KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);
/// The most events of a share.
const MOST: i64 = 10_000;

/// Events, and which there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredEvents {
    /// In their order.
    pub events: Vec<Event>,
    pub gone: GoneEvents,
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
        self.read(move |connection| read(connection, after, limit, newest)).await
    }

    /// The last event of each subject.
    pub async fn last_events(&self) -> Result<Vec<Happening>, StoreError> {
        const LAST: &str = "SELECT id, event FROM events WHERE id IN \
            (SELECT max(id) FROM events GROUP BY kind, subject) ORDER BY id";
        self.read(|connection| {
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
    const INSERT: &str = "INSERT INTO events (at, kind, subject, event, share, nth) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    const LAST: &str = "SELECT ifnull(max(nth), 0) FROM events WHERE share = ?1";
    let event = serde_json::to_string(happening)
        .map_err(|error| StoreErrorKind::Other(error.to_string()))?;
    let Happening { at, kind, subject, .. } = happening;
    // Of all revisions the last one counts.
    let subject = if *kind == EventKind::Revision { "" } else { subject };
    let at = at.as_millisecond();
    let share = kind.share().index() as i64;
    let last: i64 = connection.prepare(LAST)?.query_row([share], |row| row.get(0))?;
    let values = params![at, kind.name(), subject, event, share, last + 1];
    connection.prepare(INSERT)?.execute(values)?;
    let id = connection.last_insert_rowid();
    forget(connection, "share = ?1 AND nth <= ?2", [share, last + 1 - MOST])?;
    let kept = i64::try_from(KEPT.as_millis()).unwrap_or(i64::MAX);
    forget(connection, "at < ?1 AND id < ?2", [at.saturating_sub(kept), id])
}

/// Forgets these events, and remembers which was the last of them.
fn forget(connection: &Connection, which: &str, values: [i64; 2]) -> Result<(), StoreErrorKind> {
    const GONE: &str = "UPDATE events_gone SET id = max(id, ?2) WHERE share = ?1";
    let last = format!("SELECT share, max(id) FROM events WHERE {which} GROUP BY share");
    let mut last = connection.prepare(&last)?;
    let last: Vec<(i64, i64)> =
        last.query_map(values, |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    for (share, id) in &last {
        connection.prepare(GONE)?.execute([share, id])?;
    }
    if !last.is_empty() {
        connection.prepare(&format!("DELETE FROM events WHERE {which}"))?.execute(values)?;
    }
    Ok(())
}

fn gone(connection: &Connection, last: u64) -> Result<GoneEvents, StoreErrorKind> {
    let any = "SELECT EXISTS (SELECT 1 FROM events)";
    if !connection.query_row(any, [], |row| row.get::<_, bool>(0))? {
        return Ok(GoneEvents([last; EventShare::ALL.len()]));
    }
    let mut statement = connection.prepare("SELECT share, id FROM events_gone")?;
    let mut rows = statement.query([])?;
    let mut gone = GoneEvents::default();
    while let Some(row) = rows.next()? {
        let (share, id) = (row.get::<_, i64>(0)?, row.get::<_, i64>(1)?);
        let place = usize::try_from(share).ok().and_then(|share| gone.0.get_mut(share));
        place.into_iter().for_each(|place| *place = id.unsigned_abs());
    }
    Ok(gone)
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
    let gone = gone(&transaction, last.unsigned_abs())?;
    let mut statement = transaction.prepare(if newest { NEWEST } else { FIRST })?;
    let (after, limit) =
        (i64::try_from(after).unwrap_or(i64::MAX), i64::try_from(limit).unwrap_or(i64::MAX));
    let mut rows = statement.query([after, limit])?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        events.extend(event_of(row.get(0)?, &row.get::<_, String>(1)?));
    }
    Ok(StoredEvents { events, gone, last: last.unsigned_abs() })
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
        assert_eq!(store.events(0, 9, false).await.unwrap().gone, GoneEvents::default());
        store.keep_events((0..5).map(|it| happening(it, "a", "x")).collect()).await.unwrap();
        let found = store.events(2, 2, false).await.unwrap();
        assert_eq!((ids(&found), found.gone, found.last), (vec![3, 4], GoneEvents([0; 2]), 5));
        assert_eq!(ids(&store.events(0, 2, true).await.unwrap()), [4, 5]);
        store.with(|it| Ok(it.execute("DELETE FROM events", [])?)).await.unwrap();
        drop(store);
        let store = SqliteStore::open(&folder.path().join("m.db")).await.unwrap();
        let found = store.events(0, 9, false).await.unwrap();
        assert_eq!((found.gone, found.last), (GoneEvents([5; 2]), 5));
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
    async fn members_that_come_and_go_push_out_no_other_event() {
        let (_folder, store) = store().await;
        let member = |number: i64| {
            let subject = format!("m{number}");
            Happening { kind: EventKind::Registration, ..happening(100, &subject, "registered") }
        };
        store.keep_events(vec![happening(100, "a", "x"), member(0)]).await.unwrap();
        store.keep_events((0..MOST + 3).map(member).collect()).await.unwrap();
        store.keep_events(vec![happening(100, "a", "y")]).await.unwrap();
        let found = store.events(0, 20_000, false).await.unwrap();
        assert_eq!(found.events.len() as i64, MOST + 2);
        assert_eq!((found.gone, found.last), (GoneEvents([0, 5]), 10_006));
        let numbers = ids(&found);
        assert_eq!((numbers[0], numbers[1], numbers[numbers.len() - 1]), (1, 6, 10_006));
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "in their order");
        // By their time all go, and it is known up to where.
        let later = 101 + 30 * 24 * 3600;
        store.keep_events(vec![happening(later, "a", "z")]).await.unwrap();
        let found = store.events(0, 9, false).await.unwrap();
        assert_eq!((ids(&found), found.gone), (vec![10_007], GoneEvents([10_006, 10_005])));
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
