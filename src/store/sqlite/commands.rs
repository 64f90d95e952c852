//! Commands on nodes in the audit: a row is there before anything is sent, and says what came of it
//! once that is known.

use std::sync::Arc;

use jiff::Timestamp;
use mapsmith_core::commands::Outcome;
use mapsmith_core::events::{EventKind, Happening};
use rusqlite::params;

use super::{SqliteStore, StoreErrorKind, audit, events};
use crate::store::{AuditRequest, AuditTicket, StoreError};

/// What a row says while the command runs.
pub const RUNNING: &str = "running";

impl SqliteStore {
    /// Notes that a command begins. Where it can't be noted, it must not begin.
    ///
    /// `target` is `nodes/NODE/commands/NAME`, `detail` what else tells it from others.
    pub async fn begin_command(
        &self,
        ticket: Arc<AuditTicket>,
        target: String,
        detail: String,
        begun: Happening,
    ) -> Result<i64, StoreError> {
        const BEGUN: &str = "UPDATE audit SET detail = ?2, outcome = ?3 WHERE seq = ?1";
        let row = self
            .with(move |connection| {
                let transaction = connection.transaction()?;
                let request = AuditRequest { target, ..ticket.request() };
                let row = audit::insert(&transaction, &request)?;
                transaction.execute(BEGUN, params![row, detail, RUNNING])?;
                events::insert(&transaction, &begun)?;
                transaction.commit()?;
                ticket.noted(row);
                Ok(row)
            })
            .await?;
        self.kept_events.send_replace(());
        Ok(row)
    }

    /// Notes what came of it.
    pub async fn end_command(
        &self,
        row: i64,
        outcome: Outcome,
        ms: f64,
        ended: Happening,
    ) -> Result<(), StoreError> {
        const ENDED: &str = "UPDATE audit SET outcome = ?2, ms = ifnull(ms, ?3) WHERE seq = ?1";
        self.with(move |connection| {
            let transaction = connection.transaction()?;
            transaction.execute(ENDED, params![row, outcome.name(), ms])?;
            events::insert(&transaction, &ended)?;
            Ok(transaction.commit()?)
        })
        .await?;
        self.kept_events.send_replace(());
        Ok(())
    }

    /// Nobody knows what came of those that were running when Mapsmith ended.
    pub async fn end_lost_commands(&self, now: Timestamp) -> Result<(), StoreError> {
        const LOST: &str = "SELECT seq, target, detail FROM audit WHERE outcome = 'running'";
        const ENDED: &str = "UPDATE audit SET outcome = ?2 WHERE seq = ?1";
        let lost = self
            .with(move |connection| {
                let transaction = connection.transaction()?;
                let rows: Vec<(i64, String, Option<String>)> = transaction
                    .prepare(LOST)?
                    .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                    .collect::<Result<_, _>>()?;
                for (row, target, detail) in &rows {
                    let outcome = Outcome::Unknown.name();
                    transaction.execute(ENDED, params![row, outcome])?;
                    let node = target.strip_prefix("nodes/").unwrap_or(target);
                    let node = node.rsplit_once("/commands/").map_or(node, |(node, _)| node);
                    let text = format!(
                        "{} on {node}: Mapsmith ended while it ran, so it may have been run",
                        detail.as_deref().unwrap_or("a command")
                    );
                    let happening = Happening::new(now, EventKind::Command, node, text);
                    events::insert(&transaction, &happening.in_state(outcome))?;
                }
                transaction.commit()?;
                Ok::<_, StoreErrorKind>(rows.len())
            })
            .await?;
        if lost > 0 {
            tracing::warn!(lost, "commands were running when Mapsmith ended: they are unknown");
            self.kept_events.send_replace(());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::AuditFilter;

    #[tokio::test]
    async fn a_command_that_was_running_when_mapsmith_ended_is_unknown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.db");
        let store = SqliteStore::open(&path).await.unwrap();
        let now = Timestamp::from_second(100).unwrap();
        let begin = |name: &str| {
            let request = AuditRequest::of_the_clock(now, "nodes/web1".to_owned());
            let ticket = Arc::new(AuditTicket::new(request));
            let happening = Happening::new(now, EventKind::Command, "web1", name.to_owned());
            let (target, detail) = (format!("nodes/web1/commands/{name}"), format!("{name} (c-1)"));
            store.begin_command(ticket, target, detail, happening.in_state("begun"))
        };
        let first = begin("run").await.unwrap();
        begin("stop").await.unwrap();
        let ended = Happening::new(now, EventKind::Command, "web1", "run: ok".to_owned());
        store.end_command(first, Outcome::Ok, 12.5, ended.in_state("ok")).await.unwrap();
        let outcomes = async |store: &SqliteStore| {
            let filter = AuditFilter { limit: 9, ..AuditFilter::default() };
            let rows = store.audit(filter).await.unwrap().into_iter();
            rows.map(|row| (row.target, row.outcome.unwrap(), row.ms)).collect::<Vec<_>>()
        };
        let target = |name: &str| format!("nodes/web1/commands/{name}");
        let run = (target("run"), "ok".to_owned(), Some(12.5));
        let expected = [(target("stop"), RUNNING.to_owned(), None), run.clone()];
        assert_eq!(outcomes(&store).await, expected);
        drop(store);

        let store = SqliteStore::open(&path).await.unwrap();
        store.end_lost_commands(now).await.unwrap();
        assert_eq!(outcomes(&store).await, [(target("stop"), "unknown".to_owned(), None), run]);
        let last = store.events(0, 9, true).await.unwrap().events.pop().unwrap().happening;
        assert_eq!((last.subject.as_str(), last.state.as_deref()), ("web1", Some("unknown")));
        assert!(last.text.starts_with("stop (c-1) on web1: Mapsmith ended"), "{}", last.text);
        store.end_lost_commands(now).await.unwrap();
        assert_eq!(store.events(0, 9, true).await.unwrap().events.len(), 4, "told once");
    }
}
