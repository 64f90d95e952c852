//! What of declared objects outlives a beginning anew: what is stored, and how far it has come.

use std::sync::Arc;
use std::time::Duration;

use mapsmith_core::objects::Objects;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::services::pace::Pending;

/// How many configurations HAProxy may check at once for the API.
const CHECKS: usize = 2;

/// How far what is declared has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It is about to be in force.
    Applying,
    /// HAProxy runs with it.
    InForce,
    /// It is not, for this reason.
    Behind(String),
}

/// The state that the daemon goes by, by the number of its last change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    pub number: u64,
    pub progress: Progress,
}

/// Shared by all tasks of all daemons of one process.
#[derive(Debug)]
pub struct Link {
    stored: watch::Sender<Arc<Objects>>,
    reached: watch::Sender<Reached>,
    /// Whoever changes what is declared has it.
    pub changes: Arc<Mutex<()>>,
    /// Whoever has HAProxy check a configuration has one.
    pub checks: Semaphore,
    /// The program ends: nobody is to wait any more.
    ending: CancellationToken,
}

impl Default for Link {
    fn default() -> Self {
        let reached = Reached { number: 0, progress: Progress::Applying };
        Self {
            stored: watch::Sender::default(),
            reached: watch::Sender::new(reached),
            changes: Arc::default(),
            checks: Semaphore::new(CHECKS),
            ending: CancellationToken::new(),
        }
    }
}

impl Link {
    /// What is stored.
    pub fn latest(&self) -> Arc<Objects> {
        Arc::clone(&self.stored.borrow())
    }

    /// This is stored now.
    pub fn store(&self, objects: Arc<Objects>) {
        self.stored.send_replace(objects);
    }

    /// How far it has come.
    pub fn reached(&self) -> Reached {
        self.reached.borrow().clone()
    }

    /// The daemon that goes by this number has come so far.
    pub fn reach(&self, number: u64, progress: Progress) {
        let reached = Reached { number, progress };
        self.reached.send_if_modified(|known| {
            let is_new = *known != reached;
            *known = reached;
            is_new
        });
    }

    /// Nobody is to wait any more.
    pub fn end(&self) {
        self.ending.cancel();
    }

    /// Whether the program ends, and begins nothing anew.
    pub fn is_ending(&self) -> bool {
        self.ending.is_cancelled()
    }

    /// Resolves once something else is stored than what has this number, and it is time to begin
    /// with it. Changes that follow each other come into force together.
    pub async fn due(&self, number: u64, not_before: Option<Instant>) {
        let mut stored = self.stored.subscribe();
        // The sender lives as long as this.
        let _ = stored.wait_for(|objects| objects.number != number).await;
        let mut pending = Pending::changed(None, Instant::now());
        loop {
            tokio::select! {
                () = sleep_until(pending.due(not_before)) => return,
                Ok(()) = stored.changed() => {
                    pending = Pending::changed(Some(pending), Instant::now());
                }
            }
        }
    }

    /// Waits until what has this number is in force, or can't be, or the time is over.
    pub async fn in_force(&self, number: u64, wait: Duration) -> Progress {
        let deadline = Instant::now() + wait;
        let mut reached = self.reached.subscribe();
        let settled = reached
            .wait_for(|reached| reached.number >= number && reached.progress != Progress::Applying);
        let waited = tokio::select! {
            waited = timeout_at(deadline, settled) => waited,
            () = self.ending.cancelled() => {
                let why = "Mapsmith ends, and begins with it when it is started";
                return Progress::Behind(why.to_owned());
            }
        };
        match waited {
            Ok(Ok(reached)) => reached.progress.clone(),
            _ => Progress::Behind(format!("not in force within {wait:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(number: u64) -> Arc<Objects> {
        Arc::new(Objects { number, ..Objects::default() })
    }

    #[tokio::test]
    async fn changes_that_follow_each_other_come_into_force_together() {
        let link = Link::default();
        link.store(numbered(1));
        let start = Instant::now();
        link.due(0, None).await;
        assert!(start.elapsed() >= Duration::from_millis(100), "others may follow");
        let later = Duration::from_millis(300);
        link.due(0, Some(start + later)).await;
        assert!(start.elapsed() >= later, "not before its time");
        let never = timeout_at(Instant::now() + later, link.due(1, None)).await;
        assert!(never.is_err(), "nothing has changed");
    }

    #[tokio::test]
    async fn whoever_waits_is_told_what_came_of_it() {
        let link = Arc::new(Link::default());
        let wait = |number| {
            let link = Arc::clone(&link);
            tokio::spawn(async move { link.in_force(number, Duration::from_secs(60)).await })
        };
        let first = wait(1);
        link.reach(1, Progress::Applying);
        link.reach(1, Progress::InForce);
        assert_eq!(first.await.unwrap(), Progress::InForce);
        let late = link.in_force(2, Duration::from_millis(10)).await;
        assert_eq!(late, Progress::Behind("not in force within 10ms".to_owned()));
        let third = wait(3);
        link.end();
        assert!(matches!(third.await.unwrap(), Progress::Behind(_)));
    }
}
