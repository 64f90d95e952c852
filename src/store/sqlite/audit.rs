//! The audit as the store has it: rows by number, none older than it is kept, and not too many.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use mapsmith_core::access::IdentityKind;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params, params_from_iter};

use super::{SqliteStore, StoreErrorKind, events, time};
use crate::store::audit::{Actor, AuditShare};
use crate::store::{AuditRequest, AuditRow, AuditTicket, StoreError};

/// How long a row is kept.
const KEPT: SignedDuration = SignedDuration::from_hours(90 * 24);
/// The most rows of each share.
#[derive(Debug, Clone, Copy)]
struct MostRows {
    usual: i64,
    registrations: i64,
}

/// A token that may only register says thousands of things in a second.
const MOST_ROWS: MostRows = MostRows { usual: 1_000_000, registrations: 100_000 };

impl MostRows {
    /// The most rows of a share, and its number in the store.
    fn of(self, share: AuditShare) -> (i64, i64) {
        match share {
            AuditShare::Usual => (self.usual, 0),
            AuditShare::Registrations => (self.registrations, 1),
        }
    }
}

/// Which rows are asked for, the newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    pub actor: Option<String>,
    /// Only what this one has done, by a token's id where there is one: a name can be had again.
    pub of: Option<Actor>,
    pub target: Option<String>,
    /// None older than this.
    pub since: Option<Timestamp>,
    /// Only those before the row of this number.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: usize,
}

/// How a request ended.
#[derive(Debug, Clone)]
pub struct AuditAnswer {
    pub ticket: Arc<AuditTicket>,
    /// None where whoever asked went away before.
    pub status: Option<u16>,
    pub ms: f64,
}

impl SqliteStore {
    /// Adds how requests ended, with the rows of those that have none yet: all of it or nothing.
    pub async fn note_answers(&self, answers: Vec<AuditAnswer>) -> Result<(), StoreError> {
        const ANSWER: &str = "UPDATE audit SET status = ?2, ms = ?3 WHERE seq = ?1";
        self.with(move |connection| {
            let transaction = connection.transaction()?;
            for AuditAnswer { ticket, status, ms } in &answers {
                let row = match ticket.row() {
                    Some(row) => row,
                    None => insert(&transaction, &ticket.request())?,
                };
                if let Some(status) = status {
                    transaction.prepare(ANSWER)?.execute(params![row, status, ms])?;
                }
            }
            Ok(transaction.commit()?)
        })
        .await
    }

    /// These rows, the newest first.
    pub async fn audit(&self, filter: AuditFilter) -> Result<Vec<AuditRow>, StoreError> {
        self.read(move |connection| read(connection, &filter)).await
    }
}

/// Ends a transaction, with the row of the one who asked for it, and the event that they said it
/// has. With `target` it says what was
/// changed where the request could not know that.
pub(super) fn commit(
    transaction: Transaction<'_>,
    ticket: Option<&AuditTicket>,
    target: Option<String>,
) -> Result<(), StoreErrorKind> {
    let row = ticket.map(|ticket| match target {
        Some(target) => insert(&transaction, &AuditRequest { target, ..ticket.request() }),
        None => insert(&transaction, &ticket.request()),
    });
    let row = row.transpose()?;
    if let Some(happening) = ticket.and_then(AuditTicket::told) {
        events::insert(&transaction, &happening)?;
    }
    transaction.commit()?;
    if let (Some(ticket), Some(row)) = (ticket, row) {
        ticket.noted(row);
    }
    Ok(())
}

/// A row more, and those fewer whose time is over, or of which its share has too many. The newest
/// always stays, so no number is given twice.
pub(super) fn insert(
    transaction: &Transaction<'_>,
    request: &AuditRequest,
) -> Result<i64, StoreErrorKind> {
    insert_within(transaction, request, MOST_ROWS)
}

fn insert_within(
    transaction: &Transaction<'_>,
    request: &AuditRequest,
    most: MostRows,
) -> Result<i64, StoreErrorKind> {
    const INSERT: &str = "INSERT INTO audit (at, kind, actor, actor_id, address, method, route, \
        target, reason, request_id, share, nth) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, \
        ?11, ?12)";
    const LAST: &str = "SELECT nth FROM audit WHERE share = ?1 ORDER BY nth DESC LIMIT 1";
    let AuditRequest { at, actor, address, method, route, target, reason, request_id, share } =
        request;
    let Actor { kind, name, id } = actor;
    let (at, address) = (at.as_millisecond(), address.map(|address| address.to_string()));
    let (most, share) = most.of(*share);
    let last = transaction.prepare(LAST)?.query_row([share], |row| row.get(0)).optional()?;
    let nth = last.unwrap_or(0i64) + 1;
    transaction.prepare(INSERT)?.execute(params![
        at,
        kind.name(),
        name,
        id,
        address,
        method,
        route,
        target,
        reason,
        request_id,
        share,
        nth
    ])?;
    let row = transaction.last_insert_rowid();
    let oldest = at.saturating_sub(i64::try_from(KEPT.as_millis()).unwrap_or(i64::MAX));
    transaction.prepare("DELETE FROM audit WHERE at < ?1 AND seq < ?2")?.execute([oldest, row])?;
    const BEYOND: &str = "DELETE FROM audit WHERE share = ?1 AND nth <= ?2";
    transaction.prepare(BEYOND)?.execute([share, nth - most])?;
    Ok(row)
}

fn read(connection: &Connection, filter: &AuditFilter) -> Result<Vec<AuditRow>, StoreErrorKind> {
    let mut sql = "SELECT seq, at, kind, actor, actor_id, address, method, route, target, reason, \
        status, request_id, ms, detail, outcome FROM audit"
        .to_owned();
    let since = filter.since.map(|since| since.as_millisecond());
    let wanted = [
        ("actor = ?", filter.actor.clone().map(Value::from)),
        ("target = ?", filter.target.clone().map(Value::from)),
        // Rows are numbered as requests end, and have the time when they began.
        ("at >= ?", since.map(Value::from)),
        ("ifnull(actor_id, 'name ' || actor) = ?", filter.of.as_ref().map(|of| own(of).into())),
        ("seq < ?", filter.before.map(Value::from)),
    ];
    let mut values = Vec::new();
    for (condition, value) in wanted {
        let Some(value) = value else { continue };
        sql += if values.is_empty() { " WHERE " } else { " AND " };
        sql += condition;
        values.push(value);
    }
    sql += " ORDER BY seq DESC LIMIT ?";
    values.push(Value::from(i64::try_from(filter.limit).unwrap_or(i64::MAX)));
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(row_of(row)?);
    }
    Ok(found)
}

/// What tells an actor from others; no id has a space.
fn own(Actor { id, name, .. }: &Actor) -> String {
    id.clone().unwrap_or_else(|| format!("name {name}"))
}

fn row_of(row: &Row<'_>) -> Result<AuditRow, StoreErrorKind> {
    let kind: String = row.get(2)?;
    let kind: IdentityKind = serde_json::from_value(serde_json::Value::String(kind))
        .map_err(|error| StoreErrorKind::Damaged(format!("the audit's kind of actor: {error}")))?;
    Ok(AuditRow {
        seq: row.get(0)?,
        at: time(row.get(1)?)?,
        actor: Actor { kind, name: row.get(3)?, id: row.get(4)? },
        address: row.get(5)?,
        method: row.get(6)?,
        route: row.get(7)?,
        target: row.get(8)?,
        reason: row.get(9)?,
        status: row.get(10)?,
        request_id: row.get(11)?,
        ms: row.get(12)?,
        detail: row.get(13)?,
        outcome: row.get(14)?,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mapsmith_core::{BlockedNode, Note, OverrideChange, Pin};

    use super::*;
    use crate::store::Store;

    fn request(second: i64, target: &str) -> AuditRequest {
        let at = Timestamp::from_second(second).unwrap();
        AuditRequest {
            method: "PUT".to_owned(),
            route: "/v1/overrides/{node}".to_owned(),
            reason: Some("kernel".to_owned()),
            address: Some([127, 0, 0, 1].into()),
            ..AuditRequest::of_the_clock(at, target.to_owned())
        }
    }

    fn pin(node: &str, until: Option<i64>) -> OverrideChange {
        let at = |second| Timestamp::from_second(second).unwrap();
        let (node, master) = (node.to_owned(), "m1".to_owned());
        let (until, note) = (until.map(at), Note::default());
        OverrideChange::Pin(Pin { node, master, since: at(1), until, note })
    }

    async fn store() -> (tempfile::TempDir, SqliteStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("m.db")).await.unwrap();
        (folder, store)
    }

    /// Adds rows of these requests, and of each share keeps at most so many.
    async fn note_within(store: &SqliteStore, requests: Vec<AuditRequest>, most: MostRows) -> i64 {
        let noted = store.with(move |connection| {
            let transaction = connection.transaction()?;
            let mut last = 0;
            for request in &requests {
                last = insert_within(&transaction, request, most)?;
            }
            transaction.commit()?;
            Ok(last)
        });
        noted.await.unwrap()
    }

    async fn note(store: &SqliteStore, request: AuditRequest) -> i64 {
        note_within(store, vec![request], MOST_ROWS).await
    }

    async fn targets(store: &SqliteStore, filter: AuditFilter) -> Vec<String> {
        let filter = AuditFilter { limit: filter.limit.max(1), ..filter };
        store.audit(filter).await.unwrap().into_iter().map(|row| row.target).collect()
    }

    #[tokio::test]
    async fn a_change_and_its_row_are_there_together_or_not_at_all() {
        let (_folder, store) = store().await;
        let ticket = Arc::new(AuditTicket::new(request(5, "overrides/n1")));
        store.change(pin("n1", None), Some(Arc::clone(&ticket))).await.unwrap().unwrap();
        let row = ticket.row().expect("it was noted");
        let all = || store.audit(AuditFilter { limit: 10, ..AuditFilter::default() });
        assert_eq!((all().await.unwrap()[0].seq, all().await.unwrap()[0].status), (row, None));
        let answer = AuditAnswer { ticket, status: Some(202), ms: 1.5 };
        store.note_answers(vec![answer]).await.unwrap();
        let noted = all().await.unwrap().remove(0);
        assert_eq!(
            (noted.status, noted.ms, noted.reason.as_deref()),
            (Some(202), Some(1.5), Some("kernel"))
        );

        let none = Arc::new(AuditTicket::new(request(6, "overrides/n9")));
        let end = OverrideChange::Unpin {
            node: "n9".to_owned(),
            now: Timestamp::UNIX_EPOCH,
            note: Note::default(),
        };
        assert_eq!(store.change(end, Some(Arc::clone(&none))).await.unwrap(), None);
        assert_eq!((none.row(), all().await.unwrap().len()), (None, 1));

        // Where the row can't be written, neither is the change.
        store.with(|connection| Ok(connection.execute_batch("DROP TABLE audit")?)).await.unwrap();
        let lost = Some(Arc::new(AuditTicket::new(request(7, "overrides/n2"))));
        assert!(store.change(pin("n2", None), lost).await.is_err());
        assert!(store.load().await.unwrap().pin("n2").is_none());
    }

    #[tokio::test]
    async fn a_pin_or_block_that_ends_by_itself_is_a_change_of_the_clock() {
        let (_folder, store) = store().await;
        let at = |second| Timestamp::from_second(second).unwrap();
        let (since, until, note) = (at(1), Some(at(25)), Note::default());
        let blocked = BlockedNode { node: "n3".to_owned(), since, until, note };
        store.change(OverrideChange::Block(blocked), None).await.unwrap();
        store.change(pin("n1", Some(20)), None).await.unwrap();
        store.change(pin("n2", Some(40)), None).await.unwrap();
        store.change(OverrideChange::Expire { now: at(30) }, None).await.unwrap();
        let rows = store.audit(AuditFilter { limit: 9, ..AuditFilter::default() }).await.unwrap();
        let ended: Vec<_> = rows.iter().map(|row| (row.actor.kind, &*row.target)).collect();
        let clock = IdentityKind::Clock;
        assert_eq!(ended, [(clock, "overrides/n3"), (clock, "overrides/n1")]);
    }

    #[tokio::test]
    async fn rows_are_found_by_who_what_and_when_a_page_at_a_time() {
        let (_folder, store) = store().await;
        for (second, target) in [(10, "a"), (20, "b"), (30, "a"), (40, "c")] {
            note(&store, request(second, target)).await;
        }
        let filter = || AuditFilter { limit: 10, ..AuditFilter::default() };
        assert_eq!(targets(&store, filter()).await, ["c", "a", "b", "a"]);
        assert_eq!(
            targets(&store, AuditFilter { target: Some("a".into()), ..filter() }).await,
            ["a", "a"]
        );
        let since = Some(Timestamp::from_second(30).unwrap());
        assert_eq!(targets(&store, AuditFilter { since, ..filter() }).await, ["c", "a"]);
        assert_eq!(
            targets(&store, AuditFilter { before: Some(3), limit: 1, ..filter() }).await,
            ["b"]
        );
        let actor = Some("nobody".to_owned());
        assert!(targets(&store, AuditFilter { actor, ..filter() }).await.is_empty());
    }

    #[tokio::test]
    async fn what_is_older_than_ninety_days_goes_and_no_number_comes_again() {
        let (_folder, store) = store().await;
        let day = 24 * 60 * 60;
        note(&store, request(0, "old")).await;
        note(&store, request(89 * day, "kept")).await;
        let last = note(&store, request(200 * day, "new")).await;
        let filter = AuditFilter { limit: 10, ..AuditFilter::default() };
        assert_eq!(targets(&store, filter).await, ["new"]);
        assert_eq!(last, 3);
    }

    #[tokio::test]
    async fn registrations_push_out_registrations_alone() {
        let (_folder, store) = store().await;
        let most = MostRows { usual: 3, registrations: 5 };
        let member = |at: i64| {
            let target = format!("registrations/web/1/10.0.0.1/{at}");
            AuditRequest::of_registrations(Timestamp::from_second(at).unwrap(), target)
        };
        note_within(&store, vec![request(1, "masters/m1"), request(2, "overrides/n1")], most).await;
        note_within(&store, (0..200).map(|at| member(100 + at)).collect(), most).await;
        let filter = || AuditFilter { limit: 100, ..AuditFilter::default() };
        let left = targets(&store, filter()).await;
        assert_eq!(
            (left.len(), &left[5..]),
            (7, &["overrides/n1".into(), "masters/m1".into()][..])
        );
        assert!(left[0].ends_with("/299") && left[4].ends_with("/295"), "the newest: {left:?}");
        // And the other way round.
        note_within(&store, (0..9).map(|at| request(400 + at, "config")).collect(), most).await;
        let left = targets(&store, filter()).await;
        assert_eq!(left.iter().filter(|target| *target == "config").count(), 3, "{left:?}");
        assert_eq!(left.len(), 8, "{left:?}");
    }
}
