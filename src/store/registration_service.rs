//! The registered nodes as the running program has them. One task makes every change: in the store
//! first, then for the engine. Changes that come while the disk is busy are kept together.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mapsmith_core::access::Identity;
use mapsmith_core::status::{PollKind, PollReport};
use mapsmith_core::{
    EntryMap, Note, Registration, RegistrationChange, RegistrationEffect, Snapshot, SourceState,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::sqlite::{NotChanged, RegistrationJob};
use super::{AuditTicket, SqliteStore, StoreError, StoreErrorKind};
use crate::heartbeat;

/// How many changes may wait; more callers simply wait for a place.
const WAITING: usize = 1024;
/// The most that are one transaction.
const TOGETHER: usize = 1024;
/// The longest sleep until a registration's end: the clock may be set meanwhile.
const CLOCK_CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// Between two tries to end what is over.
const EXPIRE_RETRY: Duration = Duration::from_secs(5);

/// Why the clock ends registrations.
const OVER: &str = "their time was over";

/// What came of a change.
#[derive(Debug, Clone)]
pub struct Changed {
    pub effect: RegistrationEffect,
    /// The number of the change in [`SourceState::registered`], once it is in there.
    pub number: u64,
}

/// Why there was none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeError {
    Refused(NotChanged),
    Store(StoreError),
}

struct Job {
    work: RegistrationJob,
    answer: oneshot::Sender<Result<Changed, ChangeError>>,
}

/// Has changes made.
#[derive(Clone)]
pub struct RegistrationService {
    store: SqliteStore,
    jobs: mpsc::Sender<Job>,
    state: watch::Receiver<SourceState>,
}

/// Makes them, one after the other.
pub struct RegistrationKeeper {
    store: SqliteStore,
    jobs: mpsc::Receiver<Job>,
    state: watch::Sender<SourceState>,
    /// When the next registration ends by itself.
    next_end: Option<Timestamp>,
    /// When that was tried in vain, when it is tried again.
    retry: Option<Instant>,
    keep_times: bool,
}

impl RegistrationService {
    /// Takes what the store holds: `state` is the source's without an answer, and has one at once.
    /// `lowercase` and `keep_times` are those of its map.
    ///
    /// # Errors
    /// The store can't be read. Without its registrations nodes would lose their routes.
    pub async fn open(
        store: SqliteStore,
        mut state: SourceState,
        lowercase: bool,
        keep_times: bool,
    ) -> Result<(Self, RegistrationKeeper), StoreError> {
        let (began, at) = (Instant::now(), Timestamp::now());
        let (entries, next_end) = store.load_registrations(lowercase, keep_times).await?;
        state.status.last_poll = Some(PollReport {
            kind: Some(PollKind::Full),
            at,
            milliseconds: mapsmith_core::status::milliseconds(began.elapsed()),
            bytes: 0,
        });
        (state.answered, state.registered) = (u64::MAX, Some(0));
        let state = with_entries(state, Arc::new(entries), at);
        let (sender, jobs) = mpsc::channel(WAITING);
        let (state, states) = watch::channel(state);
        let keeper = RegistrationKeeper {
            store: store.clone(),
            jobs,
            state,
            next_end,
            retry: None,
            keep_times,
        };
        Ok((Self { store, jobs: sender, state: states }, keeper))
    }

    /// What is registered, as a source of the node map says it.
    pub fn subscribe(&self) -> watch::Receiver<SourceState> {
        self.state.clone()
    }

    /// The map that it is now.
    pub fn entries(&self) -> Arc<EntryMap> {
        let state = self.state.borrow();
        state.snapshot.as_ref().map(|snapshot| Arc::clone(&snapshot.entries)).unwrap_or_default()
    }

    /// How a node is registered.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn registration(&self, node: &str) -> Result<Option<Registration>, StoreError> {
        self.store.registration(node).await
    }

    /// Makes a change: in the store, then for the engine. Whoever asked may go away meanwhile.
    ///
    /// # Errors
    /// What the store does not take has not happened.
    pub async fn change(
        &self,
        change: RegistrationChange,
        ticket: Option<Arc<AuditTicket>>,
    ) -> Result<Changed, ChangeError> {
        let (answer, result) = oneshot::channel();
        let ends = || {
            let path = super::Store::place(&self.store);
            ChangeError::Store(StoreError { path, fault: StoreErrorKind::Ending })
        };
        let job = Job { work: (change, ticket), answer };
        self.jobs.send(job).await.map_err(|_| ends())?;
        result.await.map_err(|_| ends())?
    }
}

impl RegistrationKeeper {
    /// Makes changes, and ends registrations at their time, until shutdown.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut jobs = Vec::new();
        loop {
            heartbeat::beat();
            let due = self.expires_at();
            tokio::select! {
                () = shutdown.cancelled() => return,
                count = self.jobs.recv_many(&mut jobs, TOGETHER) => {
                    if count == 0 {
                        return;
                    }
                    self.make(std::mem::take(&mut jobs)).await;
                }
                () = sleep_until(due) => self.expire(Timestamp::now()).await,
                () = heartbeat::tick() => {}
            }
        }
    }

    fn expires_at(&self) -> Instant {
        let rest = match self.next_end {
            Some(end) => Duration::try_from(end.duration_since(Timestamp::now()))
                .map_or(Duration::ZERO, |rest| rest.min(CLOCK_CHECK_INTERVAL)),
            None => CLOCK_CHECK_INTERVAL,
        };
        let due = Instant::now() + rest;
        self.retry.map_or(due, |retry| retry.max(due))
    }

    async fn make(&mut self, jobs: Vec<Job>) {
        let (works, answers): (Vec<_>, Vec<_>) =
            jobs.into_iter().map(|job| (job.work, job.answer)).unzip();
        let notes: Vec<_> = works.iter().map(note_of).collect();
        let results: Vec<_> = match self.store.change_registrations(works).await {
            Ok(done) => {
                self.next_end = done.next_end;
                let made = done.effects.iter().zip(notes);
                let made = made.filter_map(|(made, note)| Some((made.as_ref().ok()?, note)));
                let number = self.publish(made);
                let changed = |effect| Changed { effect, number };
                let results = done.effects.into_iter();
                results.map(|made| made.map(changed).map_err(ChangeError::Refused)).collect()
            }
            Err(error) => answers.iter().map(|_| Err(ChangeError::Store(error.clone()))).collect(),
        };
        for (answer, result) in answers.into_iter().zip(results) {
            // Whoever asked may have gone; the change is made all the same.
            let _ = answer.send(result);
        }
    }

    /// Ends what is over. While the store fails it stays: what has ended is known to it alone.
    async fn expire(&mut self, now: Timestamp) {
        if self.next_end.is_none_or(|end| end > now) {
            return;
        }
        let work = (RegistrationChange::Expire { now }, None);
        match self.store.change_registrations(vec![work]).await {
            Ok(done) => {
                (self.next_end, self.retry) = (done.next_end, None);
                for effect in done.effects.iter().flatten() {
                    let nodes = effect.counts.unregistered;
                    let first = effect.masters.keys().next();
                    tracing::info!(nodes, first, "the time of registrations is over");
                }
                let by = Some(Identity::clock().name);
                let note = Note { by, reason: Some(OVER.to_owned()) };
                let made = done.effects.iter().flatten();
                self.publish(made.map(|effect| (effect, note.clone())));
            }
            Err(error) => {
                self.retry = Some(Instant::now() + EXPIRE_RETRY);
                tracing::error!("registrations whose time is over stay for now: {error}");
            }
        }
    }

    /// Tells the engine, where any node has another master, with who wanted that and why. The
    /// number of the latest change.
    fn publish<'a>(&self, made: impl Iterator<Item = (&'a RegistrationEffect, Note)>) -> u64 {
        let (mut all, mut notes) = (RegistrationEffect::default(), Vec::new());
        for (effect, note) in made {
            if !effect.masters.is_empty() {
                notes.push(note);
            }
            // Of a node that is changed twice the later one counts.
            all.masters.extend(effect.masters.clone());
        }
        let mut number = 0;
        self.state.send_if_modified(|state| {
            let known = state.registered.unwrap_or_default();
            number = known + u64::from(!all.masters.is_empty());
            if number == known {
                return false;
            }
            state.registered = Some(number);
            notes.drain(..).for_each(|note| state.authors.push(number, note));
            let before = state.snapshot.as_ref().map(|snapshot| Arc::clone(&snapshot.entries));
            let entries = all.apply(&before.unwrap_or_default(), self.keep_times);
            *state = with_entries(state.clone(), Arc::new(entries), Timestamp::now());
            true
        });
        number
    }
}

/// Who wants a change, and why.
fn note_of((change, ticket): &RegistrationJob) -> Note {
    let of_nodes = match change {
        RegistrationChange::Register(nodes) => nodes.first().map(|new| new.note.clone()),
        RegistrationChange::Unregister { .. } | RegistrationChange::Expire { .. } => None,
    };
    let Note { by, reason } = of_nodes.unwrap_or_default();
    let asked = ticket.as_ref().map(|ticket| ticket.request());
    let (actor, asked_for) =
        asked.map_or((None, None), |asked| (Some(asked.actor.name), asked.reason));
    Note { by: actor.or(by), reason: asked_for.or(reason) }
}

fn with_entries(mut state: SourceState, entries: Arc<EntryMap>, at: Timestamp) -> SourceState {
    state.status.entries = Some(entries.len());
    let rejections = Arc::default();
    state.snapshot = Some(Snapshot { entries, rejections, answered_at: at });
    state.at(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register(node: &str, master: &str, until: Option<Timestamp>) -> RegistrationChange {
        let (node, master, since) = (node.to_owned(), master.to_owned(), Timestamp::now());
        let note = Note::default();
        RegistrationChange::Register(vec![Registration { node, master, since, until, note }])
    }

    #[tokio::test]
    async fn a_registration_is_told_at_once_and_ends_at_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("m.db")).await.unwrap();
        let state =
            SourceState::before_first_poll("r".to_owned(), "registrations".to_owned(), true);
        let (service, keeper) =
            RegistrationService::open(store, state, false, false).await.unwrap();
        let mut states = service.subscribe();
        assert_eq!(states.borrow_and_update().status.entries, Some(0), "empty is an answer");
        let stop = CancellationToken::new();
        let task = tokio::spawn(keeper.run(stop.clone()));

        let changed = service.change(register("n1", "m1", None), None).await.unwrap();
        assert_eq!((changed.number, changed.effect.counts.registered), (1, 1));
        states.changed().await.unwrap();
        assert_eq!(service.entries().get("n1"), Some("m1"));
        let again = service.change(register("n1", "m1", None), None).await.unwrap();
        assert_eq!((again.number, again.effect.counts.unchanged), (1, 1));

        let soon = Timestamp::now() + Duration::from_millis(20);
        service.change(register("n2", "m1", Some(soon)), None).await.unwrap();
        let ended = states.wait_for(|state| state.registered == Some(3));
        let ended = tokio::time::timeout(Duration::from_secs(60), ended).await;
        assert_eq!(ended.unwrap().unwrap().status.entries, Some(1));
        assert!(service.registration("n2").await.unwrap().is_none());
        let authors = service.subscribe().borrow().authors.clone();
        let ended = Note { by: Some("clock".to_owned()), reason: Some(OVER.to_owned()) };
        assert_eq!(authors.since(2), ended);

        stop.cancel();
        task.await.unwrap();
        let late = service.change(register("n3", "m1", None), None).await.unwrap_err();
        assert!(format!("{late:?}").contains("Ending"), "{late:?}");
    }
}
