//! Notices what has changed, and has an event kept of it.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use mapsmith_core::attention::{Attention, Settling, attention};
use mapsmith_core::events::{Observed, Observer};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::EventLog;
use crate::api::Api;
use crate::heartbeat;
use crate::store::{SqliteStore, StoreError};

/// How long an item has to be the worst before that is an event.
const SETTLE: SignedDuration = SignedDuration::from_secs(5);

/// How many events of orders may be kept between two looks.
const LOOKED_AT: usize = 100;

/// Keeps events of what the tasks say.
pub struct Recorder {
    api: Arc<Api>,
    log: Arc<EventLog>,
    observer: Observer,
    worst: Settling,
    /// Raised by what the store keeps in the transactions of orders.
    kept: Option<watch::Receiver<()>>,
    /// The last event that was taken in.
    seen: u64,
    failing: bool,
}

impl Recorder {
    /// Goes on after the events that are kept.
    pub async fn new(api: Arc<Api>, log: Arc<EventLog>) -> Result<Self, StoreError> {
        let observer = Observer::new(log.last_of_each().await?);
        let worst = Settling::new(observer.worst());
        let kept = api.store.as_ref().map(SqliteStore::kept_events);
        let seen = log.newest(1).last().map_or(0, |event| event.id);
        Ok(Self { api, log, observer, worst, kept, seen, failing: false })
    }

    /// Looks once a second, and whenever something was decided or ordered, until shutdown.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut decision = self.api.decision.clone();
        let mut kept = self.kept.take();
        loop {
            let recorded = self.record().await;
            let is_new = recorded.is_err() && !self.failing;
            self.failing = recorded.is_err();
            if let (Err(error), true) = (recorded, is_new) {
                tracing::error!("events can't be kept, and are shown once they can: {error}");
            }
            let ordered = async {
                match &mut kept {
                    Some(kept) => kept.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = heartbeat::tick() => {}
                _ = ordered => {}
                changed = decision.changed() => if changed.is_err() {
                    // The engine has ended, and so does all.
                    stop.cancelled().await;
                    return;
                },
            }
        }
    }

    /// What could not be kept is news again the next time.
    async fn record(&mut self) -> Result<(), StoreError> {
        // What an order has changed is seen only once its event is kept.
        let (status, now) = (self.api.attention_status(), Timestamp::now());
        self.log.catch_up().await?;
        let seen = self.seen;
        for event in self.log.newest(LOOKED_AT).iter().filter(|event| event.id > seen) {
            self.observer.kept(&event.happening);
            self.seen = event.id;
        }
        let found = attention(&status, now);
        let key = found.key();
        let is_due = self.worst.is_due(key.as_ref(), SETTLE, now);
        let revisions = self.api.revisions_after(self.observer.revision()).await;
        let observed = Observed {
            status: &status,
            revision: revisions.0,
            revisions: &revisions.1,
            attention: is_due.then(|| (key.clone(), sentence(&found))),
        };
        let news = self.observer.news(&observed, now);
        if !news.is_empty() {
            self.log.append(news.clone()).await?;
        }
        self.observer.told(&news, &observed);
        if is_due {
            self.worst.tell(key);
        }
        Ok(())
    }
}

fn sentence(found: &Attention) -> String {
    found.worst_item().map_or_else(|| "all is well".to_owned(), |item| item.text.clone())
}
