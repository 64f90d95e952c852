//! What tells of a change: a watch of the prefix from the revision after the one that was read.
//!
//! An event is a hint and no more: every poll reads everything. So each watch ends with its first
//! event, and the next one begins where the poll that follows has read. A watch that ends otherwise
//! (cancelled, its revision compacted, its member without a leader, the server gone) asks for a
//! poll too.

use std::time::Duration;

use etcd_client::{WatchClient, WatchOptions};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::failure::said;
use super::pages::end_of;
use crate::backoff::Backoff;
use crate::source::transport::tls::root_cause;

/// How often etcd is asked whether the watch is alive.
const PROGRESS: Duration = Duration::from_secs(30);
/// How long it may take to open, and then to say so.
const ANSWER: Duration = Duration::from_secs(20);
/// The largest message, in bytes. etcd is asked to split those of more than 1.5 MiB.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;
/// A watch that held this long was a good one, however it ended.
const GOOD: Duration = Duration::from_secs(60);

/// Follows the keys of a prefix.
pub(super) struct Changes {
    /// When the watch began, and the task that ends with the next hint.
    waiting: Option<(Instant, AbortOnDropHandle<Result<(), String>>)>,
    /// The pauses after the second failure in a row: the first asks for a poll, which tells more.
    backoff: Backoff,
    /// Why the last watches failed, and how many.
    failures: (u32, String),
}

impl Changes {
    pub(super) fn new() -> Self {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        Self { waiting: None, backoff, failures: (0, String::new()) }
    }

    /// A poll has read everything as it was at this revision: waits for what comes after it. A
    /// watch that lives has seen nothing since an older one.
    pub(super) fn follow(&mut self, revision: i64, prefix: &str, client: WatchClient) {
        if self.waiting.as_ref().is_some_and(|(_, task)| !task.is_finished()) {
            return;
        }
        let pause = if self.failures.0 > 1 { self.backoff.pause() } else { Duration::ZERO };
        let prefix = prefix.to_owned();
        let task = tokio::spawn(async move {
            sleep(pause).await;
            wait(client, &prefix, revision).await
        });
        self.waiting = Some((Instant::now() + pause, AbortOnDropHandle::new(task)));
    }

    /// No answer is known to be whole: the poller asks again by itself.
    pub(super) fn stop(&mut self) {
        self.waiting = None;
    }

    /// Resolves when a poll should follow. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) {
        let Some((began, task)) = &mut self.waiting else { return std::future::pending().await };
        let outcome = task.await.unwrap_or_else(|error| Err(error.to_string()));
        let held = began.elapsed();
        self.waiting = None;
        if outcome.is_ok() || held >= GOOD {
            self.backoff.reset();
            self.failures.0 = 0;
        }
        if let Err(error) = outcome {
            self.failures = (self.failures.0.saturating_add(1), error);
        }
    }

    /// Whether a change would be noticed now.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.is_some() && self.failure().is_none()
    }

    /// Why changes are noticed at polls only, if so.
    pub(super) fn failure(&self) -> Option<&str> {
        (self.failures.0 > 1).then_some(self.failures.1.as_str())
    }
}

/// Ends when a key has changed after this revision.
async fn wait(client: WatchClient, prefix: &str, revision: i64) -> Result<(), String> {
    let options = WatchOptions::new()
        .with_range(end_of(prefix))
        .with_start_revision(revision.saturating_add(1))
        .with_progress_notify()
        .with_fragment();
    let mut client = client.max_decoding_message_size(MAX_MESSAGE);
    let open = timeout(ANSWER, client.watch(prefix, Some(options)));
    let mut stream =
        open.await.map_err(|_| format!("no watch within {ANSWER:?}"))?.map_err(|e| words(&e))?;
    let mut asked = false;
    loop {
        let bound = if asked { ANSWER } else { PROGRESS };
        let message = match timeout(bound, stream.message()).await {
            Ok(message) => message.map_err(|error| words(&error))?,
            Err(_) if asked => return Err(format!("the watch was silent for {ANSWER:?}")),
            Err(_) => {
                asked = true;
                stream.request_progress().await.map_err(|error| words(&error))?;
                continue;
            }
        };
        let Some(message) = message else { return Err("etcd ended the watch".to_owned()) };
        asked = false;
        // What was compacted has changed: that much is known.
        if !message.events().is_empty() || message.compact_revision() > 0 {
            return Ok(());
        }
        if message.canceled() {
            return Err(format!("etcd cancelled the watch: {:?}", message.cancel_reason()));
        }
    }
}

fn words(error: &etcd_client::Error) -> String {
    match error {
        etcd_client::Error::GRpcStatus(status) if std::error::Error::source(status).is_none() => {
            said(status)
        }
        etcd_client::Error::GRpcStatus(status) => root_cause(status),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use etcd_client::{Client, ConnectOptions};
    use testkit::etcd::Etcd;

    use super::*;

    /// How a watch from after this revision ends.
    async fn ended(etcd: &Etcd, revision: i64) -> Result<(), String> {
        let options = ConnectOptions::new().with_require_leader(true);
        let client = Client::connect([etcd.url()], Some(options)).await.unwrap();
        let ended = timeout(Duration::from_secs(60), wait(client.watch_client(), "/a/", revision));
        ended.await.expect("the watch ends")
    }

    #[tokio::test]
    async fn what_waits_for_no_change_is_not_watched() {
        let mut changes = Changes::new();
        assert!(!changes.is_waiting(), "before the first answer");
        let waiting = AbortOnDropHandle::new(tokio::spawn(std::future::pending()));
        changes.waiting = Some((Instant::now(), waiting));
        assert!(changes.is_waiting());
        changes.stop();
        assert!(!changes.is_waiting(), "after a failed poll");
    }

    #[tokio::test]
    async fn a_watch_of_what_was_compacted_asks_for_a_poll_and_one_without_a_leader_says_so() {
        let etcd = Etcd::start();
        (0..9).for_each(|number| etcd.put("/b", &number.to_string()));
        etcd.compact(7);
        assert_eq!(ended(&etcd, 2).await, Ok(()));
        // One of two members is no quorum.
        etcd.ctl(&["member", "add", "absent", "--peer-urls=http://127.0.0.1:1"]);
        assert_eq!(ended(&etcd, 10).await, Err("etcdserver: no leader".to_owned()));
    }
}
