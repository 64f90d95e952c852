//! Events: page by page, and as they come.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use mapsmith_core::access::Identity;
use mapsmith_core::events::{Event, EventKind, Happening};
use metrics::gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::types::ActivityReport;
use super::{Api, Error};
use crate::events::EventsError;
use crate::store::AuditTicket;
use crate::telemetry::API_STREAMS;

/// The most streams at once.
const MOST: usize = 500;
/// The most of one and the same.
const MOST_OF_ONE: usize = 20;
/// How many events are looked at for one page.
const LOOKED_AT: usize = 1000;

/// Which events are asked for; all of them where no kind is named.
pub type Topics = BTreeSet<EventKind>;

/// How many follow the events.
#[derive(Debug)]
pub(crate) struct Streams {
    all: Arc<Semaphore>,
    /// Of those that take a connection each, which others need too.
    with_connections: Arc<Semaphore>,
    most_with_connections: usize,
    of_one: Mutex<BTreeMap<String, usize>>,
}

/// A place among them.
#[derive(Debug)]
pub struct Place {
    streams: Arc<Streams>,
    who: String,
    _permits: [Option<OwnedSemaphorePermit>; 2],
}

impl Streams {
    /// Of so many connections a quarter may be for streams.
    pub fn new(connections: usize) -> Self {
        gauge!(API_STREAMS).set(0.0);
        let most_with_connections = (connections / 4).clamp(1, MOST);
        Self {
            all: Arc::new(Semaphore::new(MOST)),
            with_connections: Arc::new(Semaphore::new(most_with_connections)),
            most_with_connections,
            of_one: Mutex::default(),
        }
    }

    /// Takes a place; over HTTP/1 it takes a connection besides.
    fn enter(self: &Arc<Self>, who: &Identity, over_http_1: bool) -> Result<Place, Error> {
        let full = |most| move |_| Error::TooManyStreams(most);
        let connection =
            over_http_1.then(|| Arc::clone(&self.with_connections).try_acquire_owned());
        let connection = connection.transpose().map_err(full(self.most_with_connections))?;
        let permit = Arc::clone(&self.all).try_acquire_owned().map_err(full(MOST))?;
        let who = who.limited_as();
        let mut of_one = self.of_one.lock().unwrap_or_else(PoisonError::into_inner);
        let count = of_one.entry(who.clone()).or_default();
        if *count >= MOST_OF_ONE {
            return Err(Error::TooManyOfOne(MOST_OF_ONE));
        }
        *count += 1;
        drop(of_one);
        gauge!(API_STREAMS).increment(1.0);
        let _permits = [Some(permit), connection];
        Ok(Place { streams: Arc::clone(self), who, _permits })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        gauge!(API_STREAMS).decrement(1.0);
        let mut of_one = self.streams.of_one.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = of_one.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                of_one.remove(&self.who);
            }
        }
    }
}

impl Api {
    /// Begins to follow the events, or the statistics.
    ///
    /// # Errors
    /// Too many do.
    pub fn follow(&self, who: &Identity, over_http_1: bool) -> Result<Place, Error> {
        self.streams.enter(who, over_http_1)
    }

    /// Events after a number, or the newest ones.
    ///
    /// # Errors
    /// They are no longer kept, or the store can't be read.
    pub async fn activity(
        &self,
        after: Option<u64>,
        topics: &Topics,
        limit: usize,
    ) -> Result<ActivityReport, Error> {
        let (last, oldest) = self.events.bounds();
        let is_asked =
            |event: &&Arc<Event>| topics.is_empty() || topics.contains(&event.happening.kind);
        let Some(mut position) = after else {
            let newest = self.events.newest(LOOKED_AT);
            let next = newest.last().map_or(last, |event| event.id);
            let asked: Vec<_> = newest.iter().filter(is_asked).collect();
            let begin = asked.len().saturating_sub(limit);
            let items = asked[begin..].iter().map(|event| (***event).clone()).collect();
            return Ok(ActivityReport { items, next, more: false, oldest });
        };
        let mut items: Vec<Event> = Vec::new();
        loop {
            let found = self.events.after(position, LOOKED_AT).await.map_err(Error::from)?;
            let is_all = found.len() < LOOKED_AT;
            for event in &found {
                if items.len() >= limit {
                    return Ok(ActivityReport { items, next: position, more: true, oldest });
                }
                position = event.id;
                items.extend(is_asked(&event).then(|| (**event).clone()));
            }
            if is_all {
                // Before all that are kept, where there are none.
                let next = if position == 0 { last } else { position };
                return Ok(ActivityReport { items, next, more: false, oldest });
            }
        }
    }

    /// Keeps an event of what somebody did. That it can't be keeps nothing else back.
    pub async fn happened(&self, happening: Happening, ticket: &AuditTicket) {
        let asked = ticket.request();
        let happening =
            happening.asked(Some(asked.actor.name), asked.reason, Some(asked.request_id));
        if let Err(error) = self.events.append(vec![happening]).await {
            tracing::error!("an event can't be kept: {error}");
        }
    }
}

impl From<EventsError> for Error {
    fn from(error: EventsError) -> Self {
        match error {
            EventsError::Gone { oldest, .. } => {
                Self::EventsGone { detail: error.to_string(), oldest }
            }
            EventsError::Store(error) => Self::Store(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_twenty_streams_and_all_together_a_quarter_of_the_connections() {
        let streams = Arc::new(Streams::new(256));
        let one = Identity::file();
        let mut open: Vec<_> = (0..20).map(|_| streams.enter(&one, true).unwrap()).collect();
        assert!(matches!(streams.enter(&one, true), Err(Error::TooManyOfOne(20))));
        let named = |number: usize| Identity { name: number.to_string(), ..Identity::clock() };
        open.extend((0..44).map(|number| streams.enter(&named(number), true).unwrap()));
        assert!(matches!(streams.enter(&named(99), true), Err(Error::TooManyStreams(64))));
        open.extend((0..436).map(|number| streams.enter(&named(number), false).unwrap()));
        assert!(matches!(streams.enter(&named(999), false), Err(Error::TooManyStreams(500))));
        drop(open);
        assert!(streams.enter(&one, true).is_ok() && streams.of_one.lock().unwrap().is_empty());
    }
}
