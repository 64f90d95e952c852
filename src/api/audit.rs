//! Who changed what: a log line and a row of the store for every change.
//!
//! A change of the store has its row in its own transaction. What is not in the store is noted
//! once it was answered, and so is how every request ended: nobody's answer waits for that.

use std::pin::pin;
use std::sync::Arc;

use mapsmith_core::access::{Identity, Role};
use tokio::sync::mpsc;

use super::types::AuditPage;
use super::{Api, Error};
use crate::heartbeat;
use crate::store::audit::{Actor, AuditShare};
use crate::store::sqlite::AuditAnswer;
use crate::store::{AuditFilter, AuditRequest, AuditTicket, SqliteStore};

/// How many answers may wait for the store, those of registrations in half of the places: they may
/// be many, and must not keep out others.
const WAITING: usize = 1024;
/// The most that are one transaction.
const TOGETHER: usize = 256;

/// Takes what was answered.
pub struct Audit(Option<mpsc::Sender<AuditAnswer>>);

/// Brings it into the store.
pub struct AuditWriter {
    store: SqliteStore,
    answered: mpsc::Receiver<AuditAnswer>,
}

impl Audit {
    /// Without a store there are log lines alone.
    pub fn new(store: Option<SqliteStore>) -> (Self, Option<AuditWriter>) {
        let Some(store) = store else { return (Self(None), None) };
        let (sender, answered) = mpsc::channel(WAITING);
        (Self(Some(sender)), Some(AuditWriter { store, answered }))
    }

    /// Notes how a request ended.
    pub fn answered(&self, ticket: Arc<AuditTicket>, status: Option<u16>, ms: f64) {
        if !ticket.has_row() {
            return;
        }
        log(&ticket.request(), status, ms);
        let Some(sender) = &self.0 else { return };
        let is_crowded =
            ticket.share() == AuditShare::Registrations && sender.capacity() <= WAITING / 2;
        if is_crowded || sender.try_send(AuditAnswer { ticket, status, ms }).is_err() {
            tracing::error!("the audit in the store lacks a change: it is in the log alone");
        }
    }
}

fn log(request: &AuditRequest, status: Option<u16>, ms: f64) {
    let AuditRequest { actor, address, method, route, target, reason, request_id, .. } = request;
    tracing::info!(
        target: "mapsmith::audit",
        kind = actor.kind.name(),
        actor = actor.name,
        id = actor.id,
        address = address.map(tracing::field::display),
        method,
        route,
        subject = target,
        reason,
        status,
        request_id,
        ms,
        "a request to change something"
    );
}

impl AuditWriter {
    /// Writes until nobody is left who could answer anybody.
    /// After `anew` it goes on beside those who begin anew, for requests that outlive that.
    pub async fn run(mut self, anew: impl Future<Output = ()>) {
        let mut anew = pin!(anew);
        loop {
            let answers = tokio::select! {
                answers = self.next() => answers,
                () = &mut anew => break,
            };
            match answers {
                Some(answers) => self.keep(answers).await,
                None => return,
            }
        }
        tokio::spawn(async move {
            while let Some(answers) = self.receive().await {
                self.keep(answers).await;
            }
        });
    }

    async fn keep(&self, answers: Vec<AuditAnswer>) {
        let changes = answers.iter().filter(|answer| answer.ticket.row().is_none()).count();
        let ends = answers.len() - changes;
        if let Err(error) = self.store.note_answers(answers).await {
            tracing::error!(
                "the audit in the store lacks {changes} changes, and how {ends} ended: {error}"
            );
        }
    }

    async fn next(&mut self) -> Option<Vec<AuditAnswer>> {
        loop {
            tokio::select! {
                answers = self.receive() => return answers,
                () = heartbeat::tick() => {}
            }
        }
    }

    /// All that wait, as far as they are one transaction.
    async fn receive(&mut self) -> Option<Vec<AuditAnswer>> {
        let mut answers = Vec::new();
        let count = self.answered.recv_many(&mut answers, TOGETHER).await;
        (count > 0).then_some(answers)
    }
}

impl Api {
    /// Changes that were made or refused, the newest first: all of them for an admin, else those
    /// of whoever asks.
    ///
    /// # Errors
    /// There is no store, or it can't be read.
    pub async fn audit(
        &self,
        identity: &Identity,
        mut filter: AuditFilter,
    ) -> Result<AuditPage, Error> {
        let store = self.store.as_ref().ok_or(Error::NoStore("audit rows"))?;
        if identity.role < Role::Admin {
            filter.of = Some(Actor::from(identity));
        }
        let limit = filter.limit;
        let rows = store.audit(AuditFilter { limit: limit + 1, ..filter }).await;
        let mut items = rows.map_err(|error| Error::Store(error.to_string()))?;
        let is_more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| is_more).map(|row| row.seq.to_string());
        Ok(AuditPage { items, next })
    }
}
