//! Signs of life: whether each of the daemon's tasks still moves.
//!
//! A task that waits for something that never ends looks like one with nothing to do. So each task
//! says that it is there whenever it begins something, and every second while it waits for work;
//! one that is stuck in its work says nothing.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::sleep;

/// How often a task that waits for work says that it is there.
const EVERY: Duration = Duration::from_secs(1);

/// The tasks of one daemon, by name.
#[derive(Debug, Clone)]
pub struct Heartbeats {
    start: Instant,
    tasks: Arc<Mutex<BTreeMap<String, Heartbeat>>>,
}

#[derive(Debug, Clone)]
struct Heartbeat {
    start: Instant,
    /// Milliseconds from `start` to the last one.
    last: Arc<AtomicU64>,
}

impl Default for Heartbeats {
    fn default() -> Self {
        Self { start: Instant::now(), tasks: Arc::default() }
    }
}

impl Heartbeats {
    /// A task's own, which begins to age now.
    fn register(&self, task: String) -> Heartbeat {
        let heartbeat = Heartbeat { start: self.start, last: Arc::default() };
        heartbeat.beat();
        // Nothing panics while it holds the lock.
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.insert(task, heartbeat.clone());
        heartbeat
    }

    /// Does a task's work, in which [`beat`], [`waiting`] and [`tick`] are its signs of life.
    pub fn watch<W: Future>(
        &self,
        task: String,
        work: W,
    ) -> impl Future<Output = W::Output> + use<W> {
        OWN.scope(self.register(task), work)
    }

    /// How long ago each task gave its last sign of life.
    pub fn ages(&self) -> Vec<(String, Duration)> {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.iter().map(|(task, heartbeat)| (task.clone(), heartbeat.age())).collect()
    }
}

impl Heartbeat {
    fn beat(&self) {
        self.last.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn age(&self) -> Duration {
        self.start
            .elapsed()
            .saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)))
    }
}

tokio::task_local! {
    /// The heartbeat of the task that runs, where it has one.
    static OWN: Heartbeat;
}

/// The task that runs moves. One that nobody watches says it to nobody.
pub fn beat() {
    let _ = OWN.try_with(Heartbeat::beat);
}

/// Gives a sign of life, and resolves once it is time for the next one: for a loop that waits for
/// several things. The sign is given at once, because a loop that is woken by something else more
/// often never comes to the next one.
pub fn tick() -> impl Future<Output = ()> {
    beat();
    sleep(EVERY)
}

/// Waits for work. Dropping the future drops what it waits for.
pub async fn waiting<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            biased;
            result = &mut work => {
                beat();
                return result;
            }
            () = tick() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_is_stuck_in_its_work_ages_and_one_that_waits_for_work_does_not() {
        let heartbeats = Heartbeats::default();
        let stuck = heartbeats.register("stuck".to_owned());
        let task = tokio::spawn(
            heartbeats.watch("waits".to_owned(), waiting(std::future::pending::<()>())),
        );
        let wakes = async {
            loop {
                tokio::select! {
                    () = tick() => {}
                    () = sleep(EVERY / 10) => {}
                }
            }
        };
        let busy = tokio::spawn(heartbeats.watch("wakes for something else".to_owned(), wakes));
        let age = |task: &str| {
            heartbeats.ages().into_iter().find(|(name, _)| name == task).expect("it has one").1
        };
        // The ages of both at one moment, until the one that waits has said again that it is there.
        let began = stuck.age();
        while age("stuck") < began + EVERY + EVERY / 2 || age("waits") >= EVERY {
            tokio::task::yield_now().await;
        }
        assert!(age("stuck") > age("waits") && age("wakes for something else") < EVERY);
        busy.abort();
        stuck.beat();
        assert!(age("stuck") < EVERY);
        task.abort();
    }
}
