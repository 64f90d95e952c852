//! Reads one instance as often as somebody wants it, and as little of it as will do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use haproxy_runtime::RuntimeError;
use haproxy_runtime::stats::Scope;
use jiff::Timestamp;
use mapsmith_core::stats::{Gap, KEPT, SHORTEST_EVERY, Selector, backends};
use metrics::gauge;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::{Demand, Instance, Stats};
use crate::heartbeat;
use crate::telemetry::STATS_SERIES;

/// The most backends that are asked for one by one.
const MOST_BY_NUMBER: usize = 16;
/// How often every backend is asked for all the same: one may have come.
const WHOLE: Duration = Duration::from_secs(30);

/// By which numbers a process has its backends.
#[derive(Debug)]
struct Numbers {
    pid: u32,
    numbers: BTreeMap<String, u32>,
    /// When that was read, and for which demand.
    at: Instant,
    demand: u64,
}

pub(super) struct Poller {
    stats: Arc<Stats>,
    index: usize,
    demand: watch::Receiver<Arc<Demand>>,
    /// When the last reading began and when the next may begin.
    last: Option<(Instant, Instant)>,
    /// The demand that it was for.
    read: u64,
    numbers: Option<Numbers>,
}

impl Poller {
    pub(super) fn new(stats: Arc<Stats>, index: usize) -> Self {
        let demand = stats.demand.subscribe();
        Self { stats, index, demand, last: None, read: 0, numbers: None }
    }

    fn instance(&self) -> &Instance {
        &self.stats.instances[self.index]
    }

    /// Until it is dropped.
    pub(super) async fn run(mut self) {
        loop {
            let demand = Arc::clone(&self.demand.borrow_and_update());
            let name = &self.instance().name;
            let wanted: Vec<_> =
                demand.wanted.iter().filter(|it| it.is_of(name)).cloned().collect();
            if wanted.is_empty() {
                self.rest().await;
                continue;
            }
            // Whoever is new need not wait as long as the others like to.
            let every = if self.read == demand.number { demand.every } else { SHORTEST_EVERY };
            let due =
                self.last.map_or_else(Instant::now, |(began, rested)| rested.max(began + every));
            let is_due = async {
                tokio::select! {
                    _ = self.demand.changed() => false,
                    () = sleep_until(due) => true,
                }
            };
            if heartbeat::waiting(is_due).await {
                self.read(&demand, &wanted).await;
            }
        }
    }

    /// Waits for somebody who watches. What was read is kept for a while: a page that is loaded
    /// again goes on with it.
    async fn rest(&mut self) {
        let has_readings = {
            let (now, unix_ms) = self.now();
            let mut history = self.instance().history();
            let has_readings = history.newest().is_some();
            if has_readings {
                history.miss(Gap::Unwatched, now, unix_ms);
            }
            has_readings
        };
        self.numbers = None;
        gauge!(STATS_SERIES, "instance" => self.instance().name.clone()).set(0.0);
        let forget_at = Instant::now() + KEPT;
        let changed = async {
            tokio::select! {
                _ = self.demand.changed() => true,
                () = sleep_until(forget_at), if has_readings => false,
            }
        };
        if !heartbeat::waiting(changed).await {
            self.instance().history().forget();
        }
    }

    fn now(&self) -> (Duration, i64) {
        (self.stats.start.elapsed(), Timestamp::now().as_millisecond())
    }

    async fn read(&mut self, demand: &Demand, wanted: &[Selector]) {
        let began = Instant::now();
        let scope = self.scope(demand, wanted);
        let mut done = self.try_read(&scope, demand, wanted).await;
        let is_other = !matches!(done, Ok(true));
        if is_other && matches!(scope, Scope::Some(_)) {
            // Its numbers may be those of another process.
            self.numbers = None;
            done = self.try_read(&whole(wanted), demand, wanted).await;
        }
        if let Err(error) = done {
            let (now, unix_ms) = self.now();
            self.instance().history().miss(Gap::Unreachable(error.to_string()), now, unix_ms);
        }
        self.read = demand.number;
        // A HAProxy that has much to tell does so half of its time at most.
        let now = Instant::now();
        self.last = Some((began, now + (now - began)));
        self.stats.news.send_replace(());
    }

    /// Reads these rows. False where another process answers than the one whose numbers they are.
    async fn try_read(
        &mut self,
        scope: &Scope,
        demand: &Demand,
        wanted: &[Selector],
    ) -> Result<bool, RuntimeError> {
        let answer = self.instance().client.ask(scope).await?;
        let (now, unix_ms) = self.now();
        let mut numbers = BTreeMap::new();
        let is_some = matches!(scope, Scope::Some(_));
        let stats = Arc::clone(&self.stats);
        let instance = &stats.instances[self.index];
        let mut history = instance.history();
        let mut reading = history.begin(wanted);
        let process = instance.client.read(scope, &answer, |row| {
            if !is_some && row.server.is_none() {
                numbers.insert(row.backend.to_owned(), row.number);
            }
            reading.row(&row);
        })?;
        if !is_some {
            let (pid, at, demand) = (process.pid, Instant::now(), demand.number);
            self.numbers = Some(Numbers { pid, numbers, at, demand });
        } else if self.numbers.as_ref().is_none_or(|known| known.pid != process.pid) {
            return Ok(false);
        }
        let rows = reading.end(process.pid, demand.number, now, unix_ms);
        gauge!(STATS_SERIES, "instance" => instance.name.clone()).set(rows as f64);
        Ok(true)
    }

    /// What to ask for.
    fn scope(&self, demand: &Demand, wanted: &[Selector]) -> Scope {
        let is_good =
            |known: &&Numbers| known.demand == demand.number && known.at.elapsed() < WHOLE;
        match (backends(wanted), self.numbers.as_ref().filter(is_good)) {
            (Some(names), Some(known)) if names.len() <= MOST_BY_NUMBER => {
                let numbers = names.iter().filter_map(|name| known.numbers.get(*name).copied());
                Scope::Some(numbers.collect())
            }
            _ => whole(wanted),
        }
    }
}

fn whole(wanted: &[Selector]) -> Scope {
    if wanted.iter().any(Selector::is_of_servers) { Scope::All } else { Scope::Backends }
}
