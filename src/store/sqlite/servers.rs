//! Overrides of servers in the store, and which have ended lately.

use jiff::Timestamp;
use mapsmith_core::events::Happening;
use mapsmith_core::overrides::{OrderedState, Released, ServerOrder, ServerOverride};
use mapsmith_core::{Note, Overrides};
use rusqlite::{Connection, Transaction, params};

use super::{StoreErrorKind, audit, events, time};
use crate::store::AuditRequest;

/// Adds them to what else is ordered.
pub(super) fn read(
    transaction: &Connection,
    overrides: &mut Overrides,
) -> Result<(), StoreErrorKind> {
    let mut servers = transaction.prepare(
        "SELECT backend, server, state, weight, since, until, reason, author FROM \
            server_overrides",
    )?;
    let mut rows = servers.query([])?;
    while let Some(row) = rows.next()? {
        let (backend, server): (String, String) = (row.get(0)?, row.get(1)?);
        let state = |name: String| {
            OrderedState::from_name(&name)
                .ok_or_else(|| StoreErrorKind::Damaged(format!("{name:?} is no server's state")))
        };
        let state = row.get::<_, Option<String>>(2)?.map(state).transpose()?;
        let ordered = ServerOverride {
            order: ServerOrder { state, weight: row.get(3)? },
            since: time(row.get(4)?)?,
            until: row.get::<_, Option<i64>>(5)?.map(time).transpose()?,
            note: Note { reason: row.get(6)?, by: row.get(7)? },
            backend,
            server,
        };
        let name = format!("{}/{}", ordered.backend, ordered.server);
        overrides.add_server(ordered).map_err(|reason| StoreErrorKind::Invalid { name, reason })?;
    }
    let mut released =
        transaction.prepare("SELECT backend, server, at, weight FROM released_servers")?;
    let mut rows = released.query([])?;
    while let Some(row) = rows.next()? {
        let released = Released { at: time(row.get(2)?)?, weight: row.get(3)? };
        overrides.add_released(row.get(0)?, row.get(1)?, released);
    }
    Ok(())
}

/// Keeps an override; how many rows changed.
pub(super) fn set(
    transaction: &Transaction<'_>,
    ordered: &ServerOverride,
) -> rusqlite::Result<usize> {
    // What the one before ordered and this one does not is released.
    const RELEASE: &str = "INSERT INTO released_servers (backend, server, at, weight) \
        SELECT backend, server, ?5, CASE WHEN ?4 IS NULL THEN weight END FROM server_overrides \
        WHERE backend = ?1 AND server = ?2 AND (state IS NOT NULL AND ?3 IS NULL \
        OR weight IS NOT NULL AND ?4 IS NULL) \
        ON CONFLICT DO UPDATE SET at = excluded.at, weight = ifnull(excluded.weight, weight)";
    const SET: &str = "INSERT OR REPLACE INTO server_overrides \
        (backend, server, state, weight, since, until, reason, author) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let ServerOverride { backend, server, order, since, until, note } = ordered;
    let (state, weight) = (order.state.map(OrderedState::name), order.weight);
    let since = since.as_millisecond();
    let until = until.map(|until| until.as_millisecond());
    transaction.execute(RELEASE, params![backend, server, state, weight, since])?;
    if weight.is_some() {
        transaction.execute(
            "UPDATE released_servers SET weight = NULL WHERE backend = ?1 AND server = ?2",
            [backend, server],
        )?;
    }
    transaction
        .execute(SET, params![backend, server, state, weight, since, until, note.reason, note.by])
}

/// Ends an override; how many rows changed.
pub(super) fn reset(
    transaction: &Transaction<'_>,
    backend: &str,
    server: &str,
    now: Timestamp,
) -> rusqlite::Result<usize> {
    let now = now.as_millisecond();
    transaction.execute(
        &(RELEASE_OF.to_owned() + "backend = ?2 AND server = ?3" + RELEASED_BEFORE),
        params![now, backend, server],
    )?;
    transaction.execute(
        "DELETE FROM server_overrides WHERE backend = ?1 AND server = ?2",
        [backend, server],
    )
}

const RELEASE_OF: &str = "INSERT INTO released_servers (backend, server, at, weight) \
    SELECT backend, server, ?1, weight FROM server_overrides WHERE ";
const RELEASED_BEFORE: &str =
    " ON CONFLICT DO UPDATE SET at = excluded.at, weight = ifnull(excluded.weight, weight)";

/// Ends what is over by then, and forgets what was over for long; how many rows changed. These are
/// changes, too.
pub(super) fn expire(
    transaction: &Transaction<'_>,
    now: Timestamp,
) -> Result<usize, StoreErrorKind> {
    let mut over =
        transaction.prepare("SELECT backend, server FROM server_overrides WHERE until <= ?1")?;
    let places = over.query_map([now.as_millisecond()], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
    })?;
    let places: Vec<_> = places.collect::<Result<_, _>>()?;
    let mut changed = 0;
    for (backend, server) in &places {
        changed += reset(transaction, backend, server, now)?;
        let target = format!("backends/{backend}/servers/{server}");
        audit::insert(transaction, &AuditRequest::of_the_clock(now, target))?;
        events::insert(transaction, &Happening::of_end(now, &format!("{backend}/{server}")))?;
    }
    let kept = mapsmith_core::overrides::RELEASED_KEPT;
    let forgotten = now.saturating_sub(kept).unwrap_or(Timestamp::MIN).as_millisecond();
    let forget = "DELETE FROM released_servers WHERE at <= ?1";
    Ok(changed + transaction.execute(forget, [forgotten])?)
}

/// Forgets what was ordered of a backend's servers, and what has ended of that: one that is made
/// anew takes nothing over. The servers that had an override.
pub(super) fn forget(
    transaction: &Transaction<'_>,
    backend: &str,
) -> Result<Vec<String>, StoreErrorKind> {
    const FORGET: &str = "DELETE FROM server_overrides WHERE backend = ?1 RETURNING server";
    let servers: Vec<String> = transaction
        .prepare(FORGET)?
        .query_map([backend], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let released = "DELETE FROM released_servers WHERE backend = ?1";
    if transaction.execute(released, [backend])? + servers.len() > 0 {
        transaction.execute("UPDATE state SET number = number + 1", [])?;
    }
    Ok(servers)
}

/// Nobody was there to bring released servers back: their time begins now.
pub(super) fn begin(transaction: &Transaction<'_>, now: Timestamp) -> rusqlite::Result<usize> {
    transaction.execute("UPDATE released_servers SET at = ?1", [now.as_millisecond()])
}

#[cfg(test)]
mod tests {
    use mapsmith_core::OverrideChange;

    use super::*;
    use crate::store::{AuditFilter, OverrideService, SqliteStore, Store};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ordered(state: Option<OrderedState>, weight: Option<u16>) -> ServerOverride {
        ServerOverride {
            backend: "web".to_owned(),
            server: "a".to_owned(),
            order: ServerOrder { state, weight },
            since: at(1),
            until: Some(at(20)),
            note: Note { reason: Some("kernel".to_owned()), by: Some("anna".to_owned()) },
        }
    }

    fn released(overrides: &Overrides) -> Vec<(String, Released)> {
        overrides.released().map(|(_, server, released)| (server.to_owned(), *released)).collect()
    }

    #[tokio::test]
    async fn an_order_of_a_server_that_ends_while_nothing_runs_has_an_event_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mapsmith.db");
        let store = SqliteStore::open(&path).await.unwrap();
        let drain = ordered(Some(OrderedState::Drain), None);
        store.change(OverrideChange::SetServer(drain), None).await.unwrap();
        drop(store);
        let store = SqliteStore::open(&path).await.unwrap();
        OverrideService::open(store.clone()).await.unwrap();
        let events = store.events(0, 9, false).await.unwrap().events;
        let told = events.last().map(|it| (&*it.happening.subject, it.happening.state.as_deref()));
        assert_eq!(told, Some(("web/a", Some("ended"))));
    }

    #[tokio::test]
    async fn an_override_of_a_server_is_there_after_a_restart_and_its_end_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mapsmith.db");
        let store = SqliteStore::open(&path).await.unwrap();
        let maint = ordered(Some(OrderedState::Maint), Some(7));
        store.change(OverrideChange::SetServer(maint.clone()), None).await.unwrap();
        drop(store);
        let store = SqliteStore::open(&path).await.unwrap();
        assert_eq!(store.load().await.unwrap().server("web", "a"), Some(&maint));
        // Its weight alone ends.
        let lighter = ServerOverride { since: at(5), ..ordered(maint.order.state, None) };
        let after = store.change(OverrideChange::SetServer(lighter), None).await.unwrap().unwrap();
        let a = |at, weight| vec![("a".to_owned(), Released { at, weight })];
        assert_eq!(released(&after), a(at(5), Some(7)));
        let expire = OverrideChange::Expire { now: at(30) };
        let after = store.change(expire, None).await.unwrap().unwrap();
        assert_eq!((after.servers().len(), released(&after)), (0, a(at(30), Some(7))));
        let rows = store.audit(AuditFilter { limit: 9, ..AuditFilter::default() }).await.unwrap();
        assert_eq!(rows[0].target, "backends/web/servers/a");
        let told = store.last_events().await.unwrap().pop().unwrap();
        let told = (told.subject.as_str(), told.state.as_deref(), told.at);
        assert_eq!(told, ("web/a", Some("ended"), at(30)), "whoever follows is told of the end");
        // A start long after: nobody was there to bring it back.
        let late = at(1_000_000);
        let begin = OverrideChange::Begin { now: late };
        let after = store.change(begin, None).await.unwrap().unwrap();
        assert_eq!(released(&after), a(late, Some(7)));
        let later = OverrideChange::Expire { now: at(2_000_000) };
        let after = store.change(later, None).await.unwrap().unwrap();
        assert!(released(&after).is_empty());
        let reset = OverrideChange::ResetServer {
            backend: "web".to_owned(),
            server: "a".to_owned(),
            now: at(3),
            note: Note::default(),
        };
        assert_eq!(store.change(reset, None).await, Ok(None), "there is nothing to end");
    }
}
