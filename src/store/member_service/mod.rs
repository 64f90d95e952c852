//! Members as the running program has them. One task makes every change: in the store first, then
//! for the engine. That a member is still there is no change, and waits for nobody: it is noted in
//! memory, and what is left of its time is stored now and then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use mapsmith_core::members::{
    BackendVersion, Effect, Lifetime, Member, MemberChange, MemberKey, MemberListings, Members,
    SwitchPhase, VersionCount, listing,
};
use mapsmith_core::status::{PollKind, PollReport};
use mapsmith_core::{Note, ServerList, Snapshot, SourceState};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::sqlite::{MemberWrites, ObjectsWrite, StoredMember};
use super::{AuditTicket, SqliteStore, StoreError, StoreErrorKind};

mod keeper;

use keeper::Job;
pub use keeper::MemberKeeper;

/// How many changes may wait; more callers simply wait for a place.
const WAITING: usize = 1024;

/// What is known of members, over a beginning anew.
pub type MemberMemory = Arc<Mutex<Book>>;

/// All members, and the version that each backend has.
#[derive(Debug)]
pub struct Book {
    /// Whose members they are; none before they were read.
    store: Option<SqliteStore>,
    began: Instant,
    members: Members,
    versions: BTreeMap<String, BackendVersion>,
    /// The number of the latest order of each backend that was switched since the start.
    orders: BTreeMap<String, u64>,
    /// Why a switch is not further.
    waits: BTreeMap<String, String>,
}

impl Default for Book {
    fn default() -> Self {
        Self {
            store: None,
            began: Instant::now(),
            members: Members::default(),
            versions: BTreeMap::new(),
            orders: BTreeMap::new(),
            waits: BTreeMap::new(),
        }
    }
}

impl Book {
    /// With what is listened to until now.
    fn members(&mut self) -> &mut Members {
        self.members.advance(self.began.elapsed());
        &mut self.members
    }
}

/// A backend that takes members, by the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberBackend {
    pub backend: String,
    pub name: String,
    pub version: String,
}

/// A list of members that a source's status shows.
#[derive(Debug)]
pub struct MemberList {
    pub name: String,
    pub version: String,
    /// Without an answer; it has one at once.
    pub state: SourceState<ServerList>,
}

/// What came of a change of a member.
#[derive(Debug, Clone)]
pub struct MemberChanged {
    pub effect: Effect,
    /// The member after it; none where it is gone.
    pub member: Option<(Member, Lifetime)>,
    /// The number of [`MemberListings`] that have it.
    pub number: u64,
}

/// An order to give a backend another version.
#[derive(Debug, Clone)]
pub struct SwitchOrder {
    pub backend: String,
    pub version: String,
    pub min_ready: Option<u32>,
    pub note: Note,
}

/// What came of such an order.
#[derive(Debug, Clone)]
pub struct Switched {
    pub before: BackendVersion,
    /// None where the backend has, or gets, that version already.
    pub after: Option<BackendVersion>,
    pub number: u64,
}

/// Why a backend is not switched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SwitchError {
    /// The backend takes no members.
    NoMembersTaken,
    /// Too few are registered.
    NoMembers {
        have: usize,
        min_ready: u32,
    },
    Store(StoreError),
}

/// Has changes made.
#[derive(Debug, Clone)]
pub struct MemberService {
    store: SqliteStore,
    jobs: mpsc::Sender<Job>,
    book: MemberMemory,
    listings: watch::Receiver<Arc<MemberListings>>,
    lists: Arc<BTreeMap<String, watch::Receiver<SourceState<ServerList>>>>,
}

impl MemberService {
    /// Takes what the store holds, or what `memory` has of the same store.
    ///
    /// # Errors
    /// The store can't be read or written.
    pub async fn open(
        store: SqliteStore,
        memory: &MemberMemory,
        backends: Vec<MemberBackend>,
        lists: Vec<MemberList>,
    ) -> Result<(Self, MemberKeeper), StoreError> {
        read(&store, memory).await?;
        let news = declare(memory, &backends);
        if !news.is_empty() {
            let versions: Vec<_> = news.iter().map(|(_, version)| version.clone()).collect();
            let events = news.iter().filter_map(|(before, after)| {
                keeper::happening_of_switch(before.as_ref()?, after, None)
            });
            let writes =
                MemberWrites { events: events.collect(), versions, ..MemberWrites::default() };
            store.keep_members(writes, Timestamp::now()).await?;
        }
        let (sender, jobs) = mpsc::channel(WAITING);
        let (listings, listed) = watch::channel(Arc::default());
        let (mut states, mut received) = (Vec::new(), BTreeMap::new());
        for MemberList { name, version, state } in lists {
            let text = state.status.name.clone();
            let (state, receiver) = watch::channel(state);
            states.push((name, version, state));
            received.insert(text, receiver);
        }
        let book = Arc::clone(memory);
        let service = Self {
            store: store.clone(),
            jobs: sender,
            book: Arc::clone(&book),
            listings: listed,
            lists: Arc::new(received),
        };
        let mut keeper = MemberKeeper::new(store, jobs, book, listings, states);
        keeper.backends = backends.into_iter().map(|backend| backend.backend).collect();
        keeper.publish(None);
        Ok((service, keeper))
    }

    /// The lists of all backends that take members.
    pub fn subscribe(&self) -> watch::Receiver<Arc<MemberListings>> {
        self.listings.clone()
    }

    /// A list by its selector's text, as a source says it.
    pub fn list(&self, selector: &str) -> Option<watch::Receiver<SourceState<ServerList>>> {
        self.lists.get(selector).cloned()
    }

    /// Makes a change, or hears that a member is still there. Whoever asked may go away meanwhile.
    ///
    /// # Errors
    /// What the store does not take has not happened.
    pub async fn change(
        &self,
        change: MemberChange,
        ticket: Option<Arc<AuditTicket>>,
    ) -> Result<MemberChanged, StoreError> {
        if let MemberChange::Register(member) | MemberChange::RegisterByGrant(member) = &change {
            let mut book = self.book();
            if book.members().check_in(member) {
                let kept = book.members.get(&member.key);
                let kept = kept.map(|kept| (kept.member.clone(), book.members.lifetime(kept)));
                let number = self.listings.borrow().number;
                return Ok(MemberChanged { effect: Effect::CheckedIn, member: kept, number });
            }
        }
        let (answer, result) = oneshot::channel();
        self.send(Job::Change { change, ticket, answer }).await?;
        result.await.map_err(|_| self.ends())?
    }

    /// Forgets these, as far as they are expired still.
    ///
    /// # Errors
    /// The store did not take it.
    pub async fn forget(&self, keys: Vec<MemberKey>) -> Result<(), StoreError> {
        let (answer, result) = oneshot::channel();
        self.send(Job::Forget { keys, answer }).await?;
        result.await.map_err(|_| self.ends())?
    }

    /// What a change would come to.
    pub fn preview(&self, change: MemberChange) -> Effect {
        let effects = self.book().members.prepare(&[change]).effects;
        effects.first().copied().unwrap_or(Effect::Unknown)
    }

    /// Orders another version of a backend.
    ///
    /// # Errors
    /// It takes no members, there are too few of that version, or the store did not take it.
    pub async fn switch(
        &self,
        order: SwitchOrder,
        ticket: Option<Arc<AuditTicket>>,
    ) -> Result<Switched, SwitchError> {
        self.order_switch(order, None, ticket).await
    }

    /// Keeps what is declared and orders another version of a backend: both, or neither.
    ///
    /// # Errors
    /// As [`MemberService::switch`].
    pub async fn switch_with(
        &self,
        order: SwitchOrder,
        objects: ObjectsWrite,
    ) -> Result<Switched, SwitchError> {
        let ticket = Arc::clone(&objects.ticket);
        self.order_switch(order, Some(objects), Some(ticket)).await
    }

    async fn order_switch(
        &self,
        order: SwitchOrder,
        objects: Option<ObjectsWrite>,
        ticket: Option<Arc<AuditTicket>>,
    ) -> Result<Switched, SwitchError> {
        let (answer, result) = oneshot::channel();
        let sent = self.send(Job::Switch { order, objects, ticket, answer }).await;
        sent.map_err(SwitchError::Store)?;
        result.await.map_err(|_| SwitchError::Store(self.ends()))?
    }

    /// What such an order would come to.
    ///
    /// # Errors
    /// As [`MemberService::switch`].
    pub fn preview_switch(&self, order: &SwitchOrder) -> Result<Switched, SwitchError> {
        keeper::evaluate(&self.book(), order)
    }

    /// A switch is ready for its next phase, as it was seen.
    ///
    /// # Errors
    /// Mapsmith begins with other settings, or ends.
    pub async fn step(&self, seen: BackendVersion) -> Result<(), StoreError> {
        self.send(Job::Step { seen }).await
    }

    /// These backends are deleted, and what they had of their members with them, which the store
    /// has forgotten.
    pub fn forget_backends<'a>(&self, backends: impl IntoIterator<Item = &'a str>) {
        let mut book = self.book();
        for backend in backends {
            book.versions.remove(backend);
            book.orders.remove(backend);
            book.waits.remove(backend);
        }
    }

    /// Notes why a switch is not further.
    pub fn note_wait(&self, backend: &str, why: Option<String>) {
        let mut book = self.book();
        match why {
            Some(why) => _ = book.waits.insert(backend.to_owned(), why),
            None => _ = book.waits.remove(backend),
        }
    }

    /// Why a switch is not further.
    pub fn wait_of(&self, backend: &str) -> Option<String> {
        self.book().waits.get(backend).cloned()
    }

    /// The version of each backend that takes members now.
    pub fn versions(&self) -> Vec<BackendVersion> {
        let listings = self.listings.borrow().clone();
        let book = self.book();
        let versions = book.versions.values();
        versions.filter(|it| listings.of.contains_key(&it.backend)).cloned().collect()
    }

    /// The version of a backend that takes members.
    pub fn version(&self, backend: &str) -> Option<BackendVersion> {
        let takes = self.listings.borrow().of.contains_key(backend);
        self.book().versions.get(backend).filter(|_| takes).cloned()
    }

    /// The backends that take this member.
    pub fn backends_of(&self, key: &MemberKey) -> Vec<String> {
        let listings = self.listings.borrow().clone();
        let book = self.book();
        let takes = |it: &&BackendVersion| {
            it.name == key.name
                && it.versions().any(|version| version == key.version)
                && listings.of.contains_key(&it.backend)
        };
        book.versions.values().filter(takes).map(|version| version.backend.clone()).collect()
    }

    /// The members of a name that each version has.
    pub fn counts(&self, name: &str) -> Vec<VersionCount> {
        self.book().members.versions(name)
    }

    /// Servers' names: those of a version that are there, and with those that are expired.
    pub fn servers(&self, name: &str, version: &str) -> (BTreeSet<String>, BTreeSet<String>) {
        let book = self.book();
        let list = book.members.list(name, [version]);
        let online = list.servers.into_iter().map(|server| server.name).collect();
        (online, book.members.known(name, [version]))
    }

    /// Has all members looked at.
    pub fn look<T>(&self, look: impl FnOnce(&Members) -> T) -> T {
        look(self.book().members())
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, job: Job) -> Result<(), StoreError> {
        self.jobs.send(job).await.map_err(|_| self.ends())
    }

    fn ends(&self) -> StoreError {
        StoreError { path: super::Store::place(&self.store), fault: StoreErrorKind::Ending }
    }
}

/// Reads the store, unless `memory` is of it.
async fn read(store: &SqliteStore, memory: &MemberMemory) -> Result<(), StoreError> {
    let lock = || memory.lock().unwrap_or_else(PoisonError::into_inner);
    if lock().store.as_ref().is_some_and(|known| known.is_same(store)) {
        return Ok(());
    }
    let stored = store.members().await?;
    let mut book = Book { store: Some(store.clone()), ..Book::default() };
    for StoredMember { member, lifetime, expired } in stored.members {
        book.members.restore(member, lifetime, expired);
    }
    let versions = stored.versions.into_iter();
    book.versions = versions.map(|version| (version.backend.clone(), version)).collect();
    *lock() = book;
    Ok(())
}

/// Has each backend's version as the settings say it by now. What is new of that, with what was.
fn declare(
    memory: &MemberMemory,
    backends: &[MemberBackend],
) -> Vec<(Option<BackendVersion>, BackendVersion)> {
    let mut book = memory.lock().unwrap_or_else(PoisonError::into_inner);
    let (now, mut news) = (Timestamp::now(), Vec::new());
    for MemberBackend { backend, name, version } in backends {
        let before = book.versions.get(backend).cloned();
        let after = match before.clone() {
            Some(known) => known.with_declared(name, version, now),
            None => BackendVersion::declared(backend, name, version, now),
        };
        if before.as_ref() != Some(&after) {
            book.versions.insert(backend.clone(), after.clone());
            news.push((before, after));
        }
    }
    // Whoever decides begins anew, too: what is under way is ordered once more.
    let under_way = book.versions.values().filter(|it| it.phase != SwitchPhase::Settled);
    book.orders = under_way.map(|version| (version.backend.clone(), 1)).collect();
    news
}

/// The lists of these backends.
fn listings_of<'a>(
    book: &Book,
    backends: impl Iterator<Item = &'a String>,
) -> BTreeMap<String, mapsmith_core::members::MemberListing> {
    let of = |backend: &String| {
        let order = book.orders.get(backend).copied().unwrap_or_default();
        let version = book.versions.get(backend)?;
        Some((backend.clone(), listing(&book.members, version, order)))
    };
    backends.filter_map(of).collect()
}

/// A source's state that says this.
fn with_list(
    mut state: SourceState<ServerList>,
    list: Arc<ServerList>,
    number: u64,
    at: Timestamp,
) -> SourceState<ServerList> {
    let poll = || PollReport { kind: Some(PollKind::Full), at, milliseconds: 0.0, bytes: 0 };
    state.status.last_poll.get_or_insert_with(poll);
    state.status.entries = Some(list.servers.len());
    (state.answered, state.registered) = (u64::MAX, Some(number));
    state.snapshot = Some(Snapshot { entries: list, rejections: Arc::default(), answered_at: at });
    state.at(at)
}

#[cfg(test)]
mod tests;
