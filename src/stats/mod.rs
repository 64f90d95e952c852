//! Figures of backends and servers, read for whoever watches: one reading of an instance for all of
//! them, and none while nobody does. What is kept and told of them is `mapsmith_core::stats`'.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use haproxy_runtime::StatsClient;
use mapsmith_core::stats::{History, Selector, Subscription, Watcher};
use tokio::sync::watch;
use tokio::time::Instant;

mod poller;
mod reading;

pub use reading::{InstanceReading, StatsRow};

use crate::settings::Settings;
use poller::Poller;
use reading::Readings;

/// What all watchers together want.
#[derive(Debug, Default)]
struct Demand {
    /// Grows with each change.
    number: u64,
    wanted: Vec<Selector>,
    every: Duration,
}

/// Who wants what, counted.
#[derive(Debug, Default)]
struct Wanted {
    series: BTreeMap<Selector, usize>,
    every: BTreeMap<Duration, usize>,
    number: u64,
}

impl Wanted {
    fn count(&mut self, subscription: &Subscription, is_new: bool) {
        fn count<K: Ord + Clone>(counts: &mut BTreeMap<K, usize>, key: &K, is_new: bool) {
            let count = counts.entry(key.clone()).or_default();
            *count = if is_new { *count + 1 } else { count.saturating_sub(1) };
            if *count == 0 {
                counts.remove(key);
            }
        }
        for selector in &subscription.series {
            count(&mut self.series, selector, is_new);
        }
        if !subscription.series.is_empty() {
            count(&mut self.every, &subscription.every, is_new);
        }
    }

    fn demand(&mut self) -> Demand {
        self.number += 1;
        Demand {
            number: self.number,
            wanted: self.series.keys().cloned().collect(),
            every: self.every.keys().next().copied().unwrap_or_default(),
        }
    }
}

/// One HAProxy whose figures can be had.
#[derive(Debug)]
struct Instance {
    name: String,
    client: StatsClient,
    history: Mutex<History>,
    readings: Readings,
}

impl Instance {
    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The figures of every instance.
#[derive(Debug)]
pub struct Stats {
    start: Instant,
    instances: Vec<Instance>,
    wanted: Mutex<Wanted>,
    demand: watch::Sender<Arc<Demand>>,
    /// Raised with every reading.
    news: watch::Sender<()>,
}

impl Stats {
    pub fn new(settings: &Settings) -> Self {
        let count = settings.instances.len();
        let instance = |instance: &crate::settings::Instance| Instance {
            name: instance.name.clone(),
            client: instance.stats_client(),
            history: Mutex::new(History::one_of(count)),
            readings: Readings::default(),
        };
        Self {
            start: Instant::now(),
            instances: settings.instances.iter().map(instance).collect(),
            wanted: Mutex::default(),
            demand: watch::Sender::default(),
            news: watch::Sender::default(),
        }
    }

    /// The tasks that read, an instance each, by their names.
    pub fn pollers(self: &Arc<Self>) -> Vec<(String, impl Future<Output = ()> + Send + 'static)> {
        let indices = 0..self.instances.len();
        let poller = |index: usize| {
            let name = format!("stats {}", self.instances[index].name);
            (name, Poller::new(Arc::clone(self), index).run())
        };
        indices.map(poller).collect()
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.instances.iter().map(|instance| instance.name.as_str())
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much of a subscription is of an instance that nobody knows.
    fn unknown<'s>(&self, subscription: &'s Subscription) -> Option<&'s str> {
        let mut named = subscription.series.iter().filter_map(|it| it.instance.as_deref());
        named.find(|named| !self.names().any(|name| name == *named))
    }
}

/// Somebody who watches, until they are dropped.
#[derive(Debug)]
pub struct Watching {
    stats: Arc<Stats>,
    subscription: Option<Subscription>,
    watcher: Watcher,
    news: watch::Receiver<()>,
    /// The instance that is looked at next.
    next: usize,
}

impl Watching {
    /// Somebody who wants nothing yet.
    pub fn new(stats: Arc<Stats>) -> Self {
        let watcher = Watcher::new(stats.names());
        let news = stats.news.subscribe();
        Self { stats, subscription: None, watcher, news, next: 0 }
    }

    /// Wants something else than before. What to send of that.
    ///
    /// # Errors
    /// It is of an instance that there is not.
    pub fn subscribe(&mut self, subscription: Subscription) -> Result<String, String> {
        if let Some(unknown) = self.stats.unknown(&subscription) {
            let names: Vec<_> = self.stats.names().collect();
            return Err(format!("there is no instance {unknown:?}, but {}", names.join(", ")));
        }
        let demand = self.stats.change(self.subscription.as_ref(), Some(&subscription));
        let first = self.watcher.subscribe(&subscription, demand);
        let now = self.stats.start.elapsed();
        for (index, instance) in self.stats.instances.iter().enumerate() {
            self.watcher.begin_at(index, &instance.history(), subscription.backlog, now);
        }
        self.subscription = Some(subscription);
        Ok(first)
    }

    /// What is to be sent of the next instance that has news; nothing where none has.
    pub fn take(&mut self) -> Vec<String> {
        self.news.borrow_and_update();
        for _ in 0..self.stats.instances.len() {
            let index = self.next;
            self.next = (index + 1) % self.stats.instances.len();
            if !self.watcher.wants(index) {
                continue;
            }
            let (ticks, left_out) = {
                let history = self.stats.instances[index].history();
                (self.watcher.ahead(index, &history), history.left_out())
            };
            let mut sent = self.watcher.take(index, &ticks);
            if !sent.is_empty() {
                sent.extend(self.watcher.complain(index, left_out));
                return sent;
            }
        }
        Vec::new()
    }

    /// Resolves once there may be more.
    pub async fn changed(&mut self) {
        if self.news.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.stats.change(self.subscription.as_ref(), None);
    }
}

impl Stats {
    /// Takes one subscription for another; the number of what is wanted now.
    fn change(&self, before: Option<&Subscription>, now: Option<&Subscription>) -> u64 {
        let mut wanted = self.wanted();
        before.into_iter().for_each(|it| wanted.count(it, false));
        now.into_iter().for_each(|it| wanted.count(it, true));
        let demand = wanted.demand();
        let number = demand.number;
        self.demand.send_replace(Arc::new(demand));
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_what_anybody_wants_as_often_as_the_one_who_wants_it_most() {
        let of = |series: &[&str], every| {
            Subscription::new(series.iter().copied(), Some(every), None).unwrap()
        };
        let (one, other) = (of(&["backend/a", "backend/b"], "5s"), of(&["backend/b"], "2s"));
        let pause = of(&[], "1s");
        let mut wanted = Wanted::default();
        for subscription in [&one, &other, &pause] {
            wanted.count(subscription, true);
        }
        let demand = wanted.demand();
        assert_eq!((demand.wanted.len(), demand.every), (2, Duration::from_secs(2)));
        wanted.count(&other, false);
        let demand = wanted.demand();
        assert_eq!((demand.wanted.len(), demand.every), (2, Duration::from_secs(5)));
        wanted.count(&one, false);
        wanted.count(&pause, false);
        assert!(wanted.demand().wanted.is_empty() && wanted.every.is_empty());
    }
}
