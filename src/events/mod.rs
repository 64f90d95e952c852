//! Events: kept in their order, then shown to whoever follows.
//!
//! What is shown is in the store already, so a number that somebody has seen is never given to
//! another event. Without a store they are in memory, and their numbers begin with the time of the
//! start: one of before is none of these, and whoever has it is told so.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use mapsmith_core::events::{Event, EventKind, EventShare, GoneEvents, Happening};
use tokio::sync::watch;

mod recorder;

pub use recorder::Recorder;

use crate::store::{SqliteStore, StoreError};

/// How many of the latest of each share are in memory.
const RECENT: usize = 1000;
/// How many are read from the store at once.
const PAGE: usize = 500;

/// Why there are no events after a number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventsError {
    /// What followed is no longer kept, or the number is of another store.
    #[error(
        "events after {after} are not kept any more, or have never been; the oldest is {oldest}"
    )]
    Gone { after: u64, oldest: u64 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, Default)]
struct Ring {
    /// Of each share.
    recent: [VecDeque<Arc<Event>>; EventShare::ALL.len()],
    /// What is not in memory.
    left: GoneEvents,
    /// What is not kept anywhere.
    gone: GoneEvents,
    last: u64,
}

/// All events that are kept.
#[derive(Debug)]
pub struct EventLog {
    store: Option<SqliteStore>,
    ring: Mutex<Ring>,
    /// One at a time brings what is new from the store.
    catching_up: tokio::sync::Mutex<()>,
    last: watch::Sender<u64>,
}

impl EventLog {
    /// Those of the store; without one, none yet.
    pub async fn open(store: Option<SqliteStore>) -> Result<Self, StoreError> {
        let ring = match &store {
            Some(store) => {
                let found = store.events(0, RECENT, true).await?;
                // Of what comes before nothing is in memory, of whatever share.
                let first = found.events.first().map_or(found.last, |first| first.id - 1);
                let left = GoneEvents([first; EventShare::ALL.len()]);
                let mut ring = Ring { left, gone: found.gone, ..Ring::default() };
                found.events.into_iter().for_each(|event| ring.push(event));
                Ring { last: found.last, ..ring }
            }
            None => {
                let last = Timestamp::now().as_microsecond().unsigned_abs();
                let gone = GoneEvents([last; EventShare::ALL.len()]);
                Ring { left: gone, gone, last, ..Ring::default() }
            }
        };
        let last = watch::Sender::new(ring.last);
        let (ring, catching_up) = (Mutex::new(ring), tokio::sync::Mutex::default());
        Ok(Self { store, ring, catching_up, last })
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last event of each subject.
    pub async fn last_of_each(&self) -> Result<Vec<Happening>, StoreError> {
        match &self.store {
            Some(store) => store.last_events().await,
            None => Ok(self.newest(usize::MAX).iter().map(|it| it.happening.clone()).collect()),
        }
    }

    /// Keeps these and shows them, all of them or none.
    pub async fn append(&self, news: Vec<Happening>) -> Result<(), StoreError> {
        let Some(store) = &self.store else {
            self.take(|ring| {
                news.into_iter().for_each(|happening| {
                    let event = Event { id: ring.last + 1, happening };
                    ring.push(event);
                });
                ring.gone = ring.left;
            });
            return Ok(());
        };
        store.keep_events(news).await?;
        self.catch_up().await
    }

    /// Shows what is in the store and was not shown yet.
    pub async fn catch_up(&self) -> Result<(), StoreError> {
        let Some(store) = &self.store else { return Ok(()) };
        let _one = self.catching_up.lock().await;
        loop {
            let shown = self.ring().last;
            let found = store.events(shown, PAGE, false).await?;
            let is_all = found.events.len() < PAGE;
            self.take(|ring| {
                found.events.into_iter().for_each(|event| ring.push(event));
                ring.gone = found.gone;
                if is_all {
                    ring.last = found.last;
                }
            });
            if is_all {
                return Ok(());
            }
        }
    }

    fn take(&self, work: impl FnOnce(&mut Ring)) {
        let mut ring = self.ring();
        work(&mut ring);
        let last = ring.last;
        drop(ring);
        self.last.send_if_modified(|before| std::mem::replace(before, last) != last);
    }

    /// The greatest number so far, and each that comes.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    /// The greatest number so far, and the number from which on every event of these kinds is kept;
    /// of all kinds where none is named.
    pub fn bounds(&self, topics: &BTreeSet<EventKind>) -> (u64, u64) {
        let ring = self.ring();
        (ring.last, ring.gone.of(topics) + 1)
    }

    /// The first events after this one, of whatever kind; 0 is before all that are kept. That some
    /// are gone is told where they were of these kinds (of any where none is named), and not up to
    /// `known`, of which whoever asks knows that.
    pub async fn after(
        &self,
        after: u64,
        limit: usize,
        (topics, known): (&BTreeSet<EventKind>, u64),
    ) -> Result<Vec<Arc<Event>>, EventsError> {
        {
            let ring = self.ring();
            let gone = ring.gone.of(topics);
            if after != 0 && (after > ring.last || after.max(known) < gone) {
                return Err(EventsError::Gone { after, oldest: gone + 1 });
            }
            if after >= ring.left.of(&BTreeSet::new()) || self.store.is_none() {
                return Ok(ring.after(after).take(limit).cloned().collect());
            }
        }
        let Some(store) = &self.store else { return Ok(Vec::new()) };
        let found = store.events(after, limit, false).await?;
        // Some may have gone meanwhile.
        let gone = found.gone.of(topics);
        if after > 0 && after.max(known) < gone {
            return Err(EventsError::Gone { after, oldest: gone + 1 });
        }
        Ok(found.events.into_iter().map(Arc::new).collect())
    }

    /// The last events of each share, at most so many, in their order.
    pub fn newest(&self, limit: usize) -> Vec<Arc<Event>> {
        let ring = self.ring();
        let latest = ring.recent.iter().flat_map(|recent| {
            let begin = recent.len().saturating_sub(limit);
            recent.range(begin..)
        });
        let mut latest: Vec<_> = latest.cloned().collect();
        latest.sort_unstable_by_key(|event| event.id);
        latest
    }
}

impl Ring {
    fn push(&mut self, event: Event) {
        if event.id <= self.last {
            return;
        }
        self.last = event.id;
        let share = event.happening.kind.share().index();
        let recent = &mut self.recent[share];
        if recent.len() >= RECENT
            && let Some(left) = recent.pop_front()
        {
            self.left.0[share] = left.id;
        }
        recent.push_back(Arc::new(event));
    }

    /// Those in memory after a number, in their order.
    fn after(&self, after: u64) -> impl Iterator<Item = &Arc<Event>> {
        let [mut usual, mut registrations] = self.recent.each_ref().map(|recent| {
            let begin = recent.partition_point(|event| event.id <= after);
            recent.range(begin..).peekable()
        });
        std::iter::from_fn(move || {
            let is_first = match (usual.peek(), registrations.peek()) {
                (Some(one), Some(other)) => one.id < other.id,
                (one, _) => one.is_some(),
            };
            if is_first { usual.next() } else { registrations.next() }
        })
    }
}

#[cfg(test)]
mod tests;
