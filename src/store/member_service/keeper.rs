//! The task that makes every change of members and of the versions that backends have.

use std::collections::BTreeSet;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use mapsmith_core::ServerList;
use mapsmith_core::SourceState;
use mapsmith_core::events::{EventKind, Happening};
use mapsmith_core::members::{
    BackendVersion, Batch, Effect, EventPacer, Member, MemberChange, MemberKey, MemberListings,
    SwitchPhase, Touched,
};
use metrics::{counter, gauge};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::super::sqlite::{MemberWrites, ObjectsWrite};
use super::super::{AuditTicket, SqliteStore, StoreError};
use super::{
    Book, MemberChanged, MemberMemory, SwitchError, SwitchOrder, Switched, listings_of, with_list,
};
use crate::heartbeat;
use crate::telemetry::{MEMBER_CHANGES, MEMBERS};

/// The most that are one transaction.
const TOGETHER: usize = 1024;
/// Between two looks at who is silent for too long.
const TICK: Duration = Duration::from_millis(250);
/// Between two looks at what is left of members' times.
const LIFETIMES: Duration = Duration::from_secs(5);
/// Between two tries to keep what the store did not take.
const RETRY: Duration = Duration::from_secs(5);

/// Something to do.
#[derive(Debug)]
pub(super) enum Job {
    Change {
        change: MemberChange,
        ticket: Option<Arc<AuditTicket>>,
        answer: oneshot::Sender<Result<MemberChanged, StoreError>>,
    },
    Switch {
        order: SwitchOrder,
        /// What is declared together with it.
        objects: Option<ObjectsWrite>,
        ticket: Option<Arc<AuditTicket>>,
        answer: oneshot::Sender<Result<Switched, SwitchError>>,
    },
    Step {
        seen: BackendVersion,
    },
    /// Forgets these, as far as they are expired still.
    Forget {
        keys: Vec<MemberKey>,
        answer: oneshot::Sender<Result<(), StoreError>>,
    },
}

type Asked = (Option<Arc<AuditTicket>>, oneshot::Sender<Result<MemberChanged, StoreError>>);

/// Makes changes, one after the other.
#[derive(Debug)]
pub struct MemberKeeper {
    store: SqliteStore,
    jobs: mpsc::Receiver<Job>,
    book: MemberMemory,
    listings: watch::Sender<Arc<MemberListings>>,
    /// Name, version, and what a source's status shows.
    lists: Vec<(String, String, watch::Sender<SourceState<ServerList>>)>,
    /// Those that take members.
    pub(super) backends: BTreeSet<String>,
    pacer: EventPacer,
    began: Instant,
    lifetimes_due: Instant,
    /// Not before this time where the store failed.
    retry: Instant,
}

impl MemberKeeper {
    pub(super) fn new(
        store: SqliteStore,
        jobs: mpsc::Receiver<Job>,
        book: MemberMemory,
        listings: watch::Sender<Arc<MemberListings>>,
        lists: Vec<(String, String, watch::Sender<SourceState<ServerList>>)>,
    ) -> Self {
        let now = Instant::now();
        Self {
            store,
            jobs,
            book,
            listings,
            lists,
            backends: BTreeSet::new(),
            pacer: EventPacer::default(),
            began: now,
            lifetimes_due: now + LIFETIMES,
            retry: now,
        }
    }

    /// Makes changes, and ends what is silent for too long, until shutdown.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut jobs = Vec::new();
        let mut tick = Instant::now() + TICK;
        loop {
            heartbeat::beat();
            tokio::select! {
                () = shutdown.cancelled() => return self.keep_lifetimes().await,
                count = self.jobs.recv_many(&mut jobs, TOGETHER) => {
                    if count == 0 {
                        return;
                    }
                    self.work(std::mem::take(&mut jobs)).await;
                }
                () = sleep_until(tick) => {
                    self.tick().await;
                    tick = Instant::now() + TICK;
                }
                () = heartbeat::tick() => {}
            }
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn work(&mut self, jobs: Vec<Job>) {
        let (mut changes, mut asked, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for job in jobs {
            match job {
                Job::Change { change, ticket, answer } => {
                    changes.push(change);
                    asked.push((ticket, answer));
                }
                other => others.push(other),
            }
        }
        if !changes.is_empty() {
            self.change(changes, asked).await;
        }
        for job in others {
            match job {
                Job::Switch { order, objects, ticket, answer } => {
                    // Whoever asked may have gone; it is done all the same.
                    let _ = answer.send(self.switch(order, objects, ticket).await);
                }
                Job::Step { seen } => self.step(&seen).await,
                Job::Forget { keys, answer } => {
                    let _ = answer.send(self.forget(keys).await);
                }
                Job::Change { .. } => {}
            }
        }
    }

    async fn change(&mut self, changes: Vec<MemberChange>, asked: Vec<Asked>) {
        let batch = self.book().members().prepare(&changes);
        let at = Timestamp::now();
        let writes = self.writes_of(&batch, &changes, &asked, at);
        let kept = match writes.is_empty() {
            true => Ok(()),
            false => self.store.keep_members(writes, at).await,
        };
        if let Err(error) = kept {
            for (_, answer) in asked {
                let _ = answer.send(Err(error.clone()));
            }
            return;
        }
        let effects = batch.effects.clone();
        let touched = self.book().members().apply(batch);
        if !touched.is_empty() {
            self.publish(Some(&touched));
        }
        let number = self.listings.borrow().number;
        for ((change, effect), (_, answer)) in changes.iter().zip(effects).zip(asked) {
            count(effect);
            let key = key_of(change);
            let book = self.book();
            let member = book.members.get(key);
            let member = member.map(|kept| (kept.member.clone(), book.members.lifetime(kept)));
            drop(book);
            let _ = answer.send(Ok(MemberChanged { effect, member, number }));
        }
    }

    fn writes_of(
        &mut self,
        batch: &Batch,
        changes: &[MemberChange],
        asked: &[Asked],
        at: Timestamp,
    ) -> MemberWrites {
        let mut writes = MemberWrites::default();
        for (key, member) in &batch.writes {
            match member {
                Some(member) => writes.members.push(member.clone()),
                None => writes.gone.push(key.clone()),
            }
        }
        let mut news = Vec::new();
        for ((change, effect), (ticket, _)) in changes.iter().zip(&batch.effects).zip(asked) {
            let request = ticket.as_ref().map(|ticket| ticket.request());
            let happening = happening_of(key_of(change), *effect, at);
            let Some(happening) = happening else { continue };
            let (by, reason, id) = match request {
                Some(it) => (Some(it.actor.name), it.reason, Some(it.request_id)),
                None => (None, None, None),
            };
            news.push(happening.asked(by, reason, id));
            writes.tickets.extend(ticket.clone());
        }
        writes.events = self.pacer.take(news, self.began.elapsed(), at);
        writes
    }

    async fn switch(
        &mut self,
        order: SwitchOrder,
        objects: Option<ObjectsWrite>,
        ticket: Option<Arc<AuditTicket>>,
    ) -> Result<Switched, SwitchError> {
        let mut switched = evaluate(&self.book(), &order)?;
        let after = switched.after.clone();
        let happening = after
            .as_ref()
            .and_then(|after| happening_of_switch(&switched.before, after, ticket.as_deref()));
        let writes = MemberWrites {
            next_version: after.clone(),
            events: happening.into_iter().collect(),
            objects,
            tickets: ticket.into_iter().collect(),
            ..MemberWrites::default()
        };
        if !writes.is_empty() {
            let kept = self.store.keep_members(writes, Timestamp::now()).await;
            kept.map_err(SwitchError::Store)?;
        }
        if let Some(after) = after {
            tracing::info!(
                backend = after.backend,
                version = after.version,
                previous = after.previous,
                "the backend gets another version of its members"
            );
            self.put(after, true);
        }
        switched.number = self.listings.borrow().number;
        Ok(switched)
    }

    /// The next phase, where it stands as it was seen.
    async fn step(&mut self, seen: &BackendVersion) {
        let is_as_seen = self.book().versions.get(&seen.backend) == Some(seen);
        if !is_as_seen || Instant::now() < self.retry {
            return;
        }
        let next = seen.next();
        let mut writes =
            MemberWrites { next_version: Some(next.clone()), ..MemberWrites::default() };
        if next.phase == SwitchPhase::Settled {
            let text = format!("{} has version {} alone", next.backend, next.version);
            let at = Timestamp::now();
            let happening = Happening::new(at, EventKind::Switch, &next.backend, text);
            writes.events.push(happening.in_state("done"));
        }
        match self.store.keep_members(writes, Timestamp::now()).await {
            Ok(()) => {
                let (backend, version) = (&next.backend, &next.version);
                tracing::info!(backend, version, phase = next.phase.name(), "the switch goes on");
                let orders = next.phase == SwitchPhase::Leaving;
                self.put(next, orders);
            }
            Err(error) => {
                self.retry = Instant::now() + RETRY;
                tracing::error!(backend = seen.backend, "the switch does not go on: {error}");
            }
        }
    }

    fn put(&mut self, version: BackendVersion, orders: bool) {
        let mut book = self.book();
        if !book.versions.contains_key(&version.backend) {
            // It was deleted in the meantime.
            return;
        }
        if orders {
            *book.orders.entry(version.backend.clone()).or_default() += 1;
        }
        book.waits.remove(&version.backend);
        book.versions.insert(version.backend.clone(), version);
        drop(book);
        self.publish(None);
    }

    async fn tick(&mut self) {
        let now = Instant::now();
        let due = self.book().members().due();
        if now >= self.retry && !due.is_empty() {
            self.expire(due).await;
        }
        if now >= self.lifetimes_due {
            self.keep_lifetimes().await;
            self.lifetimes_due = Instant::now() + LIFETIMES;
        }
        if self.pacer.is_behind() && now >= self.retry {
            let at = Timestamp::now();
            let events = self.pacer.take([], self.began.elapsed(), at);
            let writes = MemberWrites { events, ..MemberWrites::default() };
            if !writes.is_empty() {
                self.keep(writes, "events of members are not kept").await;
            }
        }
    }

    async fn expire(&mut self, due: Vec<MemberKey>) {
        let at = Timestamp::now();
        let news = due.iter().map(|key| {
            let text = format!("{} is expired: it was silent for too long", named(key));
            let path = key.to_string();
            Happening::new(at, EventKind::Registration, &path, text).in_state("expired")
        });
        let events = self.pacer.take(news, self.began.elapsed(), at);
        let writes = MemberWrites { expired: due.clone(), events, ..MemberWrites::default() };
        if !self.keep(writes, "members whose time is over stay for now").await {
            return;
        }
        // Whoever was heard of meanwhile is registered again with its next word.
        let touched = self.book().members().expire(&due, at);
        counter!(MEMBER_CHANGES, "kind" => "expired").increment(due.len() as u64);
        let first = due.first().map(ToString::to_string);
        tracing::info!(members = due.len(), first, "members were silent for too long");
        self.publish(Some(&touched));
    }

    /// Has the store know what is left of members' times, and forgets those that expired long ago.
    async fn keep_lifetimes(&mut self) {
        let now = Timestamp::now();
        let (lifetimes, gone) = {
            let mut book = self.book();
            let members = book.members();
            (members.lifetimes_to_store(), members.forgettable(now))
        };
        if lifetimes.is_empty() && gone.is_empty() {
            return;
        }
        let writes = MemberWrites {
            lifetimes: lifetimes.clone(),
            gone: gone.clone(),
            ..MemberWrites::default()
        };
        if self.keep(writes, "what is left of members' times is not kept").await {
            let mut book = self.book();
            book.members().lifetimes_stored(&lifetimes);
            book.members().forget(&gone);
            drop(book);
            self.record();
        }
    }

    async fn forget(&self, mut keys: Vec<MemberKey>) -> Result<(), StoreError> {
        {
            let book = self.book();
            let is_expired = |key: &MemberKey| book.members.get(key)?.expired;
            keys.retain(|key| is_expired(key).is_some());
        }
        if keys.is_empty() {
            return Ok(());
        }
        let writes = MemberWrites { gone: keys.clone(), ..MemberWrites::default() };
        self.store.keep_members(writes, Timestamp::now()).await?;
        self.book().members().forget(&keys);
        tracing::info!(members = keys.len(), "members that expired first make room for others");
        self.record();
        Ok(())
    }

    async fn keep(&mut self, writes: MemberWrites, otherwise: &str) -> bool {
        match self.store.keep_members(writes, Timestamp::now()).await {
            Ok(()) => true,
            Err(error) => {
                self.retry = Instant::now() + RETRY;
                tracing::error!("{otherwise}: {error}");
                false
            }
        }
    }

    /// Tells the engine, of these members or of all.
    pub(super) fn publish(&mut self, touched: Option<&Touched>) {
        let at = Timestamp::now();
        let mut listings = MemberListings::clone(&self.listings.borrow());
        listings.number += 1;
        let number = listings.number;
        let mut book = self.book();
        book.members();
        let is_touched = |backend: &&String| {
            let Some(touched) = touched else { return true };
            let Some(version) = book.versions.get(*backend) else { return false };
            let mut versions = version.versions();
            versions.any(|it| touched.contains(&(version.name.clone(), it.to_owned())))
        };
        let news = listings_of(&book, self.backends.iter().filter(is_touched));
        let of = |name: &str, version: &str| Arc::new(book.members.list(name, [version]));
        let is_news = |name: &String, version: &String| {
            touched.is_none_or(|touched| touched.contains(&(name.clone(), version.clone())))
        };
        let states: Vec<_> = self
            .lists
            .iter()
            .filter(|(name, version, _)| is_news(name, version))
            .map(|(name, version, state)| (state, of(name, version)))
            .collect();
        drop(book);
        for (state, list) in states {
            state.send_modify(|state| *state = with_list(state.clone(), list, number, at));
        }
        listings.of.extend(news);
        self.listings.send_replace(Arc::new(listings));
        self.record();
    }

    fn record(&self) {
        let (online, expired) = {
            let book = self.book();
            let expired = book.members.of(None, None, None).filter(|it| it.expired.is_some());
            let expired = expired.count();
            (book.members.len() - expired, expired)
        };
        gauge!(MEMBERS, "state" => "registered").set(online as f64);
        gauge!(MEMBERS, "state" => "expired").set(expired as f64);
    }
}

/// What an order comes to.
pub(super) fn evaluate(book: &Book, order: &SwitchOrder) -> Result<Switched, SwitchError> {
    let before = book.versions.get(&order.backend).ok_or(SwitchError::NoMembersTaken)?;
    let (now, note) = (Timestamp::now(), order.note.clone());
    let after = before.switched(&order.version, order.min_ready, now, note);
    let least = order.min_ready.unwrap_or(1).max(1);
    let have = book.members.list(&before.name, [&*order.version]).servers.len();
    if after.is_some() && have < least as usize {
        return Err(SwitchError::NoMembers { have, min_ready: least });
    }
    Ok(Switched { before: before.clone(), after, number: 0 })
}

/// What another version of a backend is to those who follow; none where it has the same.
pub(super) fn happening_of_switch(
    before: &BackendVersion,
    after: &BackendVersion,
    ticket: Option<&AuditTicket>,
) -> Option<Happening> {
    if before.version == after.version {
        return None;
    }
    let BackendVersion { backend, version, note, .. } = after;
    let text = format!("{backend} is switched from version {} to {version}", before.version);
    let happening = Happening::new(after.since, EventKind::Switch, backend, text);
    let id = ticket.map(|ticket| ticket.request().request_id);
    Some(happening.in_state("switched").asked(note.by.clone(), note.reason.clone(), id))
}

fn happening_of(key: &MemberKey, effect: Effect, at: Timestamp) -> Option<Happening> {
    let (state, text) = match effect {
        Effect::Registered => ("registered", "is registered"),
        Effect::Changed => ("changed", "says something else of itself"),
        Effect::Unregistered => ("unregistered", "is no longer registered"),
        Effect::CheckedIn | Effect::Unknown | Effect::Full | Effect::FullOfOne => return None,
    };
    let (path, text) = (key.to_string(), format!("{} {text}", named(key)));
    Some(Happening::new(at, EventKind::Registration, &path, text).in_state(state))
}

fn named(key: &MemberKey) -> String {
    format!("{} {} at {}", key.name, key.version, key.server())
}

fn key_of(change: &MemberChange) -> &MemberKey {
    match change {
        MemberChange::Register(Member { key, .. })
        | MemberChange::RegisterByGrant(Member { key, .. })
        | MemberChange::Unregister(key) => key,
    }
}

fn count(effect: Effect) {
    let kind = match effect {
        Effect::Registered => "registered",
        Effect::Changed => "changed",
        Effect::Unregistered => "unregistered",
        Effect::CheckedIn | Effect::Unknown | Effect::Full | Effect::FullOfOne => return,
    };
    counter!(MEMBER_CHANGES, "kind" => kind).increment(1);
}
