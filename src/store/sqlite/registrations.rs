//! Registered nodes in the store: changes that came together are one transaction, each with the row
//! of who asked for it.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use mapsmith_core::{
    EntryMap, EntryMapBuilder, Note, Registration, RegistrationChange, RegistrationEffect,
};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use super::{SqliteStore, StoreErrorKind, audit, blocking, open_to_peek, time};
use crate::store::{AuditRequest, AuditTicket, StoreError};

/// Why a change is not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotChanged {
    /// This node is not registered.
    Unknown(String),
    /// The node is registered with this master, which whoever asked has no say over.
    OfAnother { node: String, master: String },
}

/// A change, and who asked for it.
pub type RegistrationJob = (RegistrationChange, Option<Arc<AuditTicket>>);

/// What came of changes that were made together.
#[derive(Debug, Default)]
pub struct Registered {
    /// Of each, in their order.
    pub effects: Vec<Result<RegistrationEffect, NotChanged>>,
    /// When the next registration ends by itself.
    pub next_end: Option<Timestamp>,
}

impl SqliteStore {
    /// Every node that is registered, and when the next registration ends by itself. What is over
    /// has ended. With `lowercase` names of nodes are lower-cased for good, and with `keep_times`
    /// the map says since when each is so.
    pub async fn load_registrations(
        &self,
        lowercase: bool,
        keep_times: bool,
    ) -> Result<(EntryMap, Option<Timestamp>), StoreError> {
        const LOWERCASE: &str =
            "UPDATE OR REPLACE registrations SET node = lower(node) WHERE node <> lower(node)";
        self.on_file(move |connection, is_gone| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if lowercase {
                transaction.execute(LOWERCASE, [])?;
            }
            let now = Timestamp::now();
            expire(&transaction, now)?;
            let map = rows(&transaction, false, keep_times, now)?;
            let next_end = next_end(&transaction)?;
            if !is_gone {
                transaction.commit()?;
            }
            Ok((map, next_end))
        })
        .await
    }

    /// The nodes that are registered, for a program that may not be the daemon; none where there
    /// is no file.
    pub async fn peek_registrations(
        path: &Path,
        lowercase: bool,
        keep_times: bool,
    ) -> Result<EntryMap, StoreError> {
        let read = move |path: &Path| match open_to_peek(path)? {
            Some(connection) => rows(&connection, lowercase, keep_times, Timestamp::now()),
            None => Ok(EntryMap::default()),
        };
        blocking(path, read).await
    }

    /// Makes these changes for good, all that can be made. Where they can't be kept nothing has
    /// changed.
    pub async fn change_registrations(
        &self,
        jobs: Vec<RegistrationJob>,
    ) -> Result<Registered, StoreError> {
        self.with(move |connection| write(connection, &jobs)).await
    }

    /// How a node is registered.
    pub async fn registration(&self, node: &str) -> Result<Option<Registration>, StoreError> {
        const ONE: &str = "SELECT node, master, since, until, reason, author FROM registrations \
            WHERE node = ?1";
        let node = node.to_owned();
        self.read(move |connection| {
            let mut statement = connection.prepare(ONE)?;
            let mut found = statement.query([node])?;
            found.next()?.map(registration_of).transpose()
        })
        .await
    }
}

fn registration_of(row: &Row<'_>) -> Result<Registration, StoreErrorKind> {
    Ok(Registration {
        node: row.get(0)?,
        master: row.get(1)?,
        since: time(row.get(2)?)?,
        until: row.get::<_, Option<i64>>(3)?.map(time).transpose()?,
        note: Note { reason: row.get(4)?, by: row.get(5)? },
    })
}

/// The map that they are at this time.
fn rows(
    connection: &Connection,
    lowercase: bool,
    keep_times: bool,
    now: Timestamp,
) -> Result<EntryMap, StoreErrorKind> {
    let mut statement = connection.prepare(
        "SELECT node, master, since FROM registrations WHERE until IS NULL OR until > ?1 \
            ORDER BY node",
    )?;
    let mut rows = statement.query([now.as_millisecond()])?;
    let (mut map, mut times) = (EntryMapBuilder::new(), Vec::new());
    while let Some(row) = rows.next()? {
        let (mut node, master): (String, String) = (row.get(0)?, row.get(1)?);
        if lowercase {
            node.make_ascii_lowercase();
        }
        let since = time(row.get(2)?)?;
        times.extend(keep_times.then_some(Some(since)));
        map.push(&node, &master)
            .map_err(|reason| StoreErrorKind::Invalid { name: node, reason })?;
    }
    Ok(map.with_times(times.into_iter()).finish())
}

fn next_end(connection: &Connection) -> Result<Option<Timestamp>, StoreErrorKind> {
    const NEXT: &str = "SELECT min(until) FROM registrations WHERE until IS NOT NULL";
    let next: Option<i64> = connection.query_row(NEXT, [], |row| row.get(0))?;
    next.map(time).transpose()
}

fn write(
    connection: &mut Connection,
    jobs: &[RegistrationJob],
) -> Result<Registered, StoreErrorKind> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (mut done, mut noted) = (Registered::default(), Vec::new());
    for (change, ticket) in jobs {
        let effect = make(&transaction, change)?;
        if let (Ok(_), Some(ticket)) = (&effect, ticket) {
            noted.push((ticket, audit::insert(&transaction, &ticket.request())?));
        }
        done.effects.push(effect);
    }
    done.next_end = next_end(&transaction)?;
    transaction.commit()?;
    noted.into_iter().for_each(|(ticket, row)| ticket.noted(row));
    Ok(done)
}

const MASTER: &str = "SELECT master FROM registrations WHERE node = ?1";
const REGISTER: &str = "INSERT INTO registrations (node, master, since, until, reason, author) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (node) DO UPDATE SET \
    since = CASE WHEN master = excluded.master THEN since ELSE excluded.since END, \
    master = excluded.master, until = excluded.until, reason = excluded.reason, \
    author = excluded.author";

fn make(
    transaction: &Transaction<'_>,
    change: &RegistrationChange,
) -> Result<Result<RegistrationEffect, NotChanged>, StoreErrorKind> {
    match change {
        RegistrationChange::Register(nodes) => {
            let mut effect = RegistrationEffect::default();
            let mut before = transaction.prepare(MASTER)?;
            let mut register = transaction.prepare(REGISTER)?;
            for new in nodes {
                let Registration { node, master, since, until, note } = new;
                let known: Option<String> =
                    before.query_row([node], |row| row.get(0)).optional()?;
                effect.register(known.as_deref(), new);
                let until = until.map(|until| until.as_millisecond());
                let since = since.as_millisecond();
                register.execute(params![node, master, since, until, note.reason, note.by])?;
            }
            Ok(Ok(effect))
        }
        RegistrationChange::Unregister { nodes, only_of, missing_ok } => {
            unregister(transaction, nodes, only_of.as_deref(), *missing_ok)
        }
        RegistrationChange::Expire { now } => Ok(Ok(expire(transaction, *now)?)),
    }
}

/// Ends all of them or none.
fn unregister(
    transaction: &Transaction<'_>,
    nodes: &[String],
    only_of: Option<&[String]>,
    missing_ok: bool,
) -> Result<Result<RegistrationEffect, NotChanged>, StoreErrorKind> {
    const END: &str = "DELETE FROM registrations WHERE node = ?1";
    let (mut before, mut end) = (transaction.prepare(MASTER)?, transaction.prepare(END)?);
    let mut effect = RegistrationEffect::default();
    // The others of these changes stay, so nothing is made before all of it may be.
    for node in nodes {
        let master: Option<String> = before.query_row([node], |row| row.get(0)).optional()?;
        match (master, only_of) {
            (None, _) if missing_ok => {}
            (None, _) => return Ok(Err(NotChanged::Unknown(node.clone()))),
            (Some(master), Some(masters)) if !masters.contains(&master) => {
                return Ok(Err(NotChanged::OfAnother { node: node.clone(), master }));
            }
            (Some(_), _) => effect.unregister(node.clone()),
        }
    }
    for node in effect.masters.keys() {
        end.execute([node])?;
    }
    Ok(Ok(effect))
}

/// Ends what is over: changes of the clock, a row each.
fn expire(
    transaction: &Transaction<'_>,
    now: Timestamp,
) -> Result<RegistrationEffect, StoreErrorKind> {
    const OVER: &str = "DELETE FROM registrations WHERE until <= ?1 RETURNING node";
    let mut over = transaction.prepare(OVER)?;
    let nodes: Vec<String> =
        over.query_map([now.as_millisecond()], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let mut effect = RegistrationEffect::default();
    for node in nodes {
        audit::insert(transaction, &AuditRequest::of_registrations(now, format!("nodes/{node}")))?;
        effect.unregister(node);
    }
    Ok(effect)
}

#[cfg(test)]
mod tests {
    use mapsmith_core::access::IdentityKind;

    use super::*;
    use crate::store::AuditFilter;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn registration(node: &str, master: &str, since: i64, until: Option<i64>) -> Registration {
        let note = Note { reason: Some("new rack".to_owned()), by: Some("anna".to_owned()) };
        let (node, master) = (node.to_owned(), master.to_owned());
        Registration { node, master, since: at(since), until: until.map(at), note }
    }

    fn register(nodes: &[Registration]) -> RegistrationJob {
        (RegistrationChange::Register(nodes.to_vec()), None)
    }

    fn unregister(node: &str, only_of: Option<&str>) -> RegistrationJob {
        let only_of = only_of.map(|master| vec![master.to_owned()]);
        let nodes = vec![node.to_owned()];
        (RegistrationChange::Unregister { nodes, only_of, missing_ok: false }, None)
    }

    #[tokio::test]
    async fn what_is_registered_is_there_after_a_restart_and_what_is_over_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mapsmith.db");
        let store = SqliteStore::open(&path).await.unwrap();
        let far = 32_000_000_000;
        let nodes = [
            registration("N2", "m2", 2, Some(far)),
            registration("n1", "m1", 1, None),
            registration("n3", "m1", 3, Some(9)),
        ];
        let done = store.change_registrations(vec![register(&nodes)]).await.unwrap();
        assert_eq!(done.next_end, Some(at(9)));
        let peeked = SqliteStore::peek_registrations(&path, true, false).await.unwrap();
        assert_eq!(peeked.iter().collect::<Vec<_>>(), [("n1", "m1"), ("n2", "m2")]);
        drop(store);

        let store = SqliteStore::open(&path).await.unwrap();
        let (map, next_end) = store.load_registrations(true, true).await.unwrap();
        assert_eq!(map.iter().collect::<Vec<_>>(), [("n1", "m1"), ("n2", "m2")]);
        assert_eq!((next_end, map.time(1)), (Some(at(far)), Some(at(2))));
        let kept = store.registration("n2").await.unwrap();
        assert_eq!(kept, Some(registration("n2", "m2", 2, Some(far))));
        assert_eq!(store.registration("n3").await.unwrap(), None);
        let rows = store.audit(AuditFilter { limit: 9, ..AuditFilter::default() }).await.unwrap();
        let ended: Vec<_> = rows.iter().map(|row| (row.actor.kind, &*row.target)).collect();
        assert_eq!(ended, [(IdentityKind::Clock, "nodes/n3")]);
    }

    #[tokio::test]
    async fn changes_that_come_together_are_made_in_their_order_and_a_refused_one_alone_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("mapsmith.db")).await.unwrap();
        let ticket = |target: &str| {
            let request = AuditRequest::of_the_clock(at(1), target.to_owned());
            Arc::new(AuditTicket::new(request))
        };
        let (good, refused) = (ticket("nodes/n1"), ticket("nodes/n1"));
        let first = (register(&[registration("n1", "m1", 1, None)]).0, Some(Arc::clone(&good)));
        let second = (unregister("n1", Some("m2")).0, Some(Arc::clone(&refused)));
        let third = register(&[registration("n1", "m1", 5, Some(60))]);
        let jobs = vec![first, second, unregister("n9", None), third];
        let done = store.change_registrations(jobs).await.unwrap();
        let counts: Vec<_> =
            done.effects.iter().map(|effect| effect.as_ref().map(|made| made.counts)).collect();
        assert_eq!(counts[0].unwrap().registered, 1);
        assert_eq!(
            counts[1],
            Err(&NotChanged::OfAnother { node: "n1".to_owned(), master: "m1".to_owned() })
        );
        assert_eq!(counts[2], Err(&NotChanged::Unknown("n9".to_owned())));
        assert_eq!(counts[3].unwrap().unchanged, 1);
        assert!(good.row().is_some() && refused.row().is_none(), "only changes are noted");
        let kept = store.registration("n1").await.unwrap();
        assert_eq!(kept, Some(registration("n1", "m1", 1, Some(60))), "since when it is m1's");

        // Many end together or not at all.
        store
            .change_registrations(vec![register(&[registration("n2", "m1", 5, None)])])
            .await
            .unwrap();
        for (missing_ok, expected) in
            [(false, Err(NotChanged::Unknown("n9".to_owned()))), (true, Ok(2))]
        {
            let nodes = ["n1", "n9", "n2"].map(str::to_owned).to_vec();
            let change = RegistrationChange::Unregister { nodes, only_of: None, missing_ok };
            let done = store.change_registrations(vec![(change, None)]).await.unwrap();
            let ended = done.effects[0].as_ref().map(|made| made.counts.unregistered);
            assert_eq!(ended.map_err(Clone::clone), expected);
            let is_there = store.registration("n1").await.unwrap().is_some();
            assert_eq!(is_there, expected.is_err());
        }
        store
            .change_registrations(vec![register(&[registration("n1", "m1", 5, None)])])
            .await
            .unwrap();

        // Where the row can't be written, neither is the change.
        store.with(|connection| Ok(connection.execute_batch("DROP TABLE audit")?)).await.unwrap();
        let lost = (unregister("n1", None).0, Some(ticket("nodes/n1")));
        assert!(store.change_registrations(vec![lost]).await.is_err());
        assert!(store.registration("n1").await.unwrap().is_some());
    }
}
