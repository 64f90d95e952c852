//! Events: page by page, and as they come.

use std::collections::BTreeSet;
use std::sync::Arc;

use mapsmith_core::access::Identity;
use mapsmith_core::events::{Event, EventKind, Happening};

use super::places::{Full, Place};
use super::types::ActivityReport;
use super::{Api, Error};
use crate::events::EventsError;
use crate::store::AuditTicket;

/// How many events are looked at for one page.
const LOOKED_AT: usize = 1000;

/// Which events are asked for; all of them where no kind is named.
pub type Topics = BTreeSet<EventKind>;

impl Api {
    /// Begins to follow the events, or the statistics.
    ///
    /// # Errors
    /// Too many do.
    pub fn follow(&self, who: &Identity, over_http_1: bool) -> Result<Place, Error> {
        self.streams.enter(who, over_http_1).map_err(|full| match full {
            Full::All(most) => Error::TooManyStreams(most),
            Full::One(most) => Error::TooManyOfOne { most, what: "streams open" },
        })
    }

    /// Events after a number, or the newest ones. That some before the `oldest` of an answer before
    /// are gone is known to whoever asks.
    ///
    /// # Errors
    /// They are no longer kept, or the store can't be read.
    pub async fn activity(
        &self,
        (after, known): (Option<u64>, Option<u64>),
        topics: &Topics,
        limit: usize,
    ) -> Result<ActivityReport, Error> {
        let (last, oldest) = self.events.bounds(topics);
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
        let known = match position {
            0 => oldest - 1,
            _ => known.unwrap_or_default().saturating_sub(1),
        };
        let mut items: Vec<Event> = Vec::new();
        loop {
            let found = self.events.after(position, LOOKED_AT, (topics, known)).await?;
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

    /// Shows what an order's transaction has kept, so that whoever ordered it finds its event.
    pub async fn show_kept_events(&self) {
        if let Err(error) = self.events.catch_up().await {
            tracing::error!("events can't be read: {error}");
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
