//! Events: kept in their order, then shown to whoever follows.
//!
//! What is shown is in the store already, so a number that somebody has seen is never given to
//! another event. Without a store they are in memory, and their numbers begin with the time of the
//! start: one of before is none of these, and whoever has it is told so.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use mapsmith_core::events::{Event, Happening};
use tokio::sync::watch;

mod recorder;

pub use recorder::Recorder;

use crate::store::{SqliteStore, StoreError};

/// How many of the latest are in memory.
const RECENT: usize = 1000;
/// How many are read from the store at once.
const PAGE: usize = 500;

/// Why there are no events after a number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventsError {
    /// What followed is no longer kept, or the number is of another store.
    #[error("events after {after} are no longer kept; the oldest is {oldest}")]
    Gone { after: u64, oldest: u64 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, Default)]
struct Ring {
    recent: VecDeque<Arc<Event>>,
    /// The number of the oldest that is kept anywhere; that of the next where none is.
    oldest: u64,
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
                let recent = found.events.into_iter().map(Arc::new).collect();
                Ring { recent, oldest: found.oldest, last: found.last }
            }
            None => {
                let last = Timestamp::now().as_microsecond().unsigned_abs();
                Ring { recent: VecDeque::new(), oldest: last + 1, last }
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
            None => Ok(self.ring().recent.iter().map(|it| it.happening.clone()).collect()),
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
                if let Some(first) = ring.recent.front() {
                    ring.oldest = first.id;
                }
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
                ring.oldest = found.oldest;
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

    /// The greatest number so far, and that of the oldest event.
    pub fn bounds(&self) -> (u64, u64) {
        let ring = self.ring();
        (ring.last, ring.oldest)
    }

    /// The first events after this one; 0 is before all that are kept.
    pub async fn after(&self, after: u64, limit: usize) -> Result<Vec<Arc<Event>>, EventsError> {
        {
            let ring = self.ring();
            let is_kept = after == 0 || (after <= ring.last && after + 1 >= ring.oldest);
            if !is_kept {
                return Err(EventsError::Gone { after, oldest: ring.oldest });
            }
            let first = ring.recent.front().map_or(ring.last + 1, |event| event.id);
            if after + 1 >= first || self.store.is_none() {
                let begin = ring.recent.partition_point(|event| event.id <= after);
                return Ok(ring.recent.range(begin..).take(limit).cloned().collect());
            }
        }
        let Some(store) = &self.store else { return Ok(Vec::new()) };
        let found = store.events(after, limit, false).await?;
        // Some may have gone meanwhile.
        if after > 0 && after + 1 < found.oldest {
            return Err(EventsError::Gone { after, oldest: found.oldest });
        }
        Ok(found.events.into_iter().map(Arc::new).collect())
    }

    /// The last events, at most as many as are in memory.
    pub fn newest(&self, limit: usize) -> Vec<Arc<Event>> {
        let ring = self.ring();
        let begin = ring.recent.len().saturating_sub(limit);
        ring.recent.range(begin..).cloned().collect()
    }
}

impl Ring {
    fn push(&mut self, event: Event) {
        if event.id <= self.last {
            return;
        }
        self.last = event.id;
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(Arc::new(event));
    }
}

#[cfg(test)]
mod tests;
