//! The hold that a rollback leaves, and what was rejected: a row each, or none.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use mapsmith_core::desired::hold::{EndReason, Hold, HoldEnd, HoldState, Rejected, RejectedChange};
use mapsmith_core::history::{Chain, Patch};
use mapsmith_core::{EntryMap, Note, Revision};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::{SqliteStore, StoreErrorKind, audit, history, rollouts, time};
use crate::store::{AuditTicket, HoldStore, StoreError, StoredRollout};

#[async_trait]
impl HoldStore for SqliteStore {
    async fn keep_hold(
        &self,
        state: HoldState,
        rollout: Option<StoredRollout>,
        ticket: Option<Arc<AuditTicket>>,
    ) -> Result<(), StoreError> {
        self.with(move |connection| write(connection, &state, rollout.as_ref(), ticket.as_deref()))
            .await?;
        self.kept_events.send_replace(());
        Ok(())
    }

    async fn base_of(&self, newest: Arc<Revision>, number: u64) -> Result<EntryMap, StoreError> {
        let base = move |reader: history::HistoryReader| {
            let chain = Chain::new(newest.number, &reader.records()?);
            let other = |error: &dyn std::fmt::Display| StoreErrorKind::Other(error.to_string());
            let mut patch = Patch::default();
            let load = |number| reader.blocks(number);
            chain
                .go_back(&mut patch, newest.number, number, load)
                .map_err(|error| other(&error))?;
            let blocks = reader.base_blocks(number)?;
            let blocks = blocks.ok_or_else(|| other(&"what the sources had said is not kept"))?;
            for block in blocks {
                patch.take(&block).map_err(|error| other(&error))?;
            }
            Ok(patch.apply(&newest.entries))
        };
        self.read_history(base).await
    }
}

pub(super) fn read(connection: &Connection) -> Result<HoldState, StoreErrorKind> {
    const HOLD: &str =
        "SELECT rollback_of, revision, since, until, reason, author, ended, ended_by FROM hold";
    let hold = connection.query_row(HOLD, [], |row| {
        let note = Note { reason: row.get(4)?, by: row.get(5)? };
        let (of, revision) = (row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?);
        let times = (row.get::<_, i64>(2)?, row.get::<_, Option<i64>>(3)?);
        let ended = (row.get::<_, Option<i64>>(6)?, row.get::<_, Option<String>>(7)?);
        Ok((of, revision, times, note, ended))
    });
    let hold = hold.optional()?.map(|(of, revision, (since, until), note, (at, why))| {
        let ended = at.zip(why).map(|(at, why)| {
            Ok::<_, StoreErrorKind>(HoldEnd { at: time(at)?, why: history::parsed(&why)? })
        });
        Ok::<_, StoreErrorKind>(Hold {
            of: of.cast_unsigned(),
            revision: revision.map(i64::cast_unsigned),
            since: time(since)?,
            until: until.map(time).transpose()?,
            note,
            ended: ended.transpose()?,
        })
    });
    let rejected =
        read_answer(connection, "SELECT answer, since, reason, author, change FROM rejected")?;
    const ABORTED: &str = "SELECT answer, since, reason, author, NULL FROM aborted";
    let aborted = read_answer(connection, ABORTED)?;
    const WINDOW: &str = "SELECT changes FROM guard_window";
    let window = connection.query_row(WINDOW, [], |row| row.get::<_, String>(0)).optional()?;
    let window = window.map(|changes| history::parsed(&changes)).transpose()?.unwrap_or_default();
    const HELD: &str = "SELECT since FROM held_since";
    let held = connection.query_row(HELD, [], |row| row.get::<_, String>(0)).optional()?;
    let held_since = held.map(|since| history::parsed(&since)).transpose()?;
    Ok(HoldState { hold: hold.transpose()?, rejected, aborted, window, held_since })
}

fn read_answer(connection: &Connection, query: &str) -> Result<Option<Rejected>, StoreErrorKind> {
    let answer = connection.query_row(query, [], |row| {
        let note = Note { reason: row.get(2)?, by: row.get(3)? };
        Ok((
            row.get::<_, String>(0)?,
            row.get::<_, i64>(1)?,
            note,
            row.get::<_, Option<String>>(4)?,
        ))
    });
    let answer = answer.optional()?.map(|(answer, at, note, change)| {
        let change = change.map(|change| history::parsed(&change)).transpose()?;
        Ok::<_, StoreErrorKind>(Rejected { answer, at: time(at)?, note, change })
    });
    answer.transpose()
}

fn write(
    connection: &mut Connection,
    state: &HoldState,
    rollout: Option<&StoredRollout>,
    ticket: Option<&AuditTicket>,
) -> Result<(), StoreErrorKind> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute("DELETE FROM hold", [])?;
    transaction.execute("DELETE FROM rejected", [])?;
    transaction.execute("DELETE FROM aborted", [])?;
    let milliseconds = |at: Timestamp| at.as_millisecond();
    if let Some(Hold { of, revision, since, until, note, ended }) = &state.hold {
        let why = ended.map(|end| history::json::<EndReason>(&end.why)).transpose()?;
        transaction.execute(
            "INSERT INTO hold (id, rollback_of, revision, since, until, reason, author, ended, \
                ended_by) VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                history::stored(*of)?,
                revision.map(history::stored).transpose()?,
                milliseconds(*since),
                until.map(milliseconds),
                note.reason,
                note.by,
                ended.map(|end| milliseconds(end.at)),
                why,
            ],
        )?;
    }
    if let Some(Rejected { answer, at, note, change }) = &state.rejected {
        let change = change.as_ref().map(history::json::<RejectedChange>).transpose()?;
        transaction.execute(
            "INSERT INTO rejected (id, answer, since, reason, author, change) VALUES (1, ?1, ?2, \
                ?3, ?4, ?5)",
            params![answer, milliseconds(*at), note.reason, note.by, change],
        )?;
    }
    if let Some(Rejected { answer, at, note, .. }) = &state.aborted {
        transaction.execute(
            "INSERT INTO aborted (id, answer, since, reason, author) VALUES (1, ?1, ?2, ?3, ?4)",
            params![answer, milliseconds(*at), note.reason, note.by],
        )?;
    }
    transaction.execute("DELETE FROM guard_window", [])?;
    if !state.window.is_empty() {
        const PUT: &str = "INSERT INTO guard_window (id, changes) VALUES (1, ?1)";
        transaction.execute(PUT, [history::json(&state.window)?])?;
    }
    transaction.execute("DELETE FROM held_since", [])?;
    if let Some(since) = state.held_since {
        const PUT: &str = "INSERT INTO held_since (id, since) VALUES (1, ?1)";
        transaction.execute(PUT, [history::json(&since)?])?;
    }
    rollout.map_or(Ok(()), |rollout| rollouts::write(&transaction, rollout))?;
    audit::commit(transaction, ticket, None)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mapsmith_core::HeldChange;
    use mapsmith_core::desired::guard::PastChange;
    use mapsmith_core::desired::rollout::{CanaryInstances, Plan, Rollout, Subject, Terms, Then};
    use mapsmith_core::history::Fingerprint;
    use mapsmith_core::revision::ChangeCounts;

    use super::*;
    use crate::store::Ways;

    #[tokio::test]
    async fn a_hold_and_what_was_rejected_are_there_after_a_restart_until_they_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.db");
        let at = |second| Timestamp::from_second(second).unwrap();
        let note = Note { reason: Some("site 7".to_owned()), by: Some("anna".to_owned()) };
        let hold = Hold {
            of: 3,
            revision: None,
            since: at(1),
            until: Some(at(9)),
            note: note.clone(),
            ended: None,
        };
        let change = RejectedChange {
            id: "00ff".to_owned(),
            of: HeldChange::MAP.to_owned(),
            why: "too many".to_owned(),
            counts: ChangeCounts { moved: 3, ..ChangeCounts::default() },
        };
        let rejected =
            Rejected { answer: "00ff".to_owned(), at: at(1), note, change: Some(change) };
        let answer = "11ee".to_owned();
        let aborted = Some(Rejected { answer, change: None, ..rejected.clone() });
        let counts = ChangeCounts { moved: 7, ..ChangeCounts::default() };
        let window = vec![PastChange { at: Timestamp::UNIX_EPOCH, entries: 9, counts }];
        let (rejected, held_since) = (Some(rejected), Some(Timestamp::constant(2, 3)));
        let pending = HoldState { hold: Some(hold.clone()), rejected, aborted, window, held_since };
        let end = HoldEnd { at: at(5), why: EndReason::OtherAnswer };
        let over = Hold { revision: Some(4), until: None, ended: Some(end), ..hold };
        let over = HoldState { hold: Some(over), ..HoldState::default() };
        for state in [pending, over, HoldState::default()] {
            let store = SqliteStore::open(&path).await.unwrap();
            store.keep_hold(state.clone(), None, None).await.unwrap();
            drop(store);
            assert_eq!(SqliteStore::peek(&path).await.unwrap().hold, state);
        }
    }

    #[tokio::test]
    async fn rollouts_are_there_after_a_restart_the_newest_first_and_not_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.db");
        let store = SqliteStore::open(&path).await.unwrap();
        let now = Timestamp::UNIX_EPOCH;
        let begun = |number: u64| {
            let instances = CanaryInstances::Share(10.0);
            let terms = Terms { instances, bake: Duration::from_secs(60), then: Then::Wait };
            let (names, subject) = (vec!["edge1".to_owned()], Subject::Rollback { of: 1 });
            let note = Note { reason: None, by: Some("anna".to_owned()) };
            Rollout::begin(subject, note, (names, &terms), (number, number + 1), now)
        };
        let plan = Plan {
            answer: "00ff".to_owned(),
            hold_seconds: Some(60),
            stable: Fingerprint(u64::MAX),
            canary: Fingerprint(2),
            hold_before: HoldState::default(),
        };
        let ways = Ways { forward: vec![vec![1], vec![2]], back: vec![vec![3]] };
        for number in 0..30 {
            let mut stored = StoredRollout {
                rollout: begun(number),
                plan: plan.clone(),
                ways: Some(ways.clone()),
            };
            store.keep_hold(HoldState::default(), Some(stored.clone()), None).await.unwrap();
            let kept = &SqliteStore::peek(&path).await.unwrap().rollouts;
            assert_eq!(kept.first(), Some(&stored));
            stored.rollout = stored.rollout.abort(Note::default(), None, now).unwrap();
            stored.ways = None;
            store.keep_hold(HoldState::default(), Some(stored.clone()), None).await.unwrap();
            assert_eq!(store.rollouts().await.unwrap().first(), Some(&stored));
        }
        assert_eq!(store.rollouts().await.unwrap().len(), 20);
    }
}
