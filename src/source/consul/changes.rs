//! What tells of a change: a request that Consul leaves unanswered until the index of what it asks
//! for is another than the one that it names.
//!
//! An answer is a hint and no more: nothing of it is taken but its index, and every poll asks for
//! everything. So an index that goes backwards, after a restored snapshot, or begins anew costs one
//! poll.

use std::time::Duration;

use reqwest::header::HeaderMap;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::Request;
use crate::backoff::Backoff;

/// How long Consul may leave a request unanswered. It adds up to a sixteenth.
const WAIT: Duration = Duration::from_secs(120);
/// How long an answer may take beyond that: then the connection is dead.
const GRACE: Duration = Duration::from_secs(20);
/// The least time between two requests: one that names the index that holds is answered at once by
/// who does not know of waiting.
const SPACING: Duration = Duration::from_secs(1);

/// The index of an answer; none where it names none. 0 would have the next request answered at
/// once.
pub(super) fn index_of(headers: &HeaderMap) -> Option<u64> {
    let index: u64 = headers.get("x-consul-index")?.to_str().ok()?.parse().ok()?;
    Some(index.max(1))
}

/// Follows the index of one request.
#[derive(Debug)]
pub(super) struct Changes {
    /// The index of the last whole answer, and the task that ends with the next hint.
    waiting: Option<(u64, AbortOnDropHandle<Result<(), String>>)>,
    /// The pauses after the second failure in a row: the first asks for a poll, which tells more.
    backoff: Backoff,
    /// Why the last requests failed, and how many.
    failures: (u32, String),
    /// Whether the last answer had no index.
    unnumbered: bool,
}

impl Changes {
    pub(super) fn new() -> Self {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        Self { waiting: None, backoff, failures: (0, String::new()), unnumbered: false }
    }

    /// A poll has brought an answer of this index: waits for the next one.
    pub(super) fn follow(&mut self, index: Option<u64>, request: impl FnOnce() -> Request) {
        self.unnumbered = index.is_none();
        let Some(index) = index else { return self.stop() };
        if self.waiting.as_ref().is_some_and(|(known, _)| *known == index) {
            return;
        }
        let pause = if self.failures.0 > 1 { self.backoff.pause() } else { Duration::ZERO };
        let request = request();
        let task = tokio::spawn(async move {
            sleep(pause).await;
            wait(request, index).await
        });
        self.waiting = Some((index, AbortOnDropHandle::new(task)));
    }

    /// No answer is known to be whole: the poller asks again by itself.
    pub(super) fn stop(&mut self) {
        self.waiting = None;
    }

    /// Resolves when a poll should follow. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) {
        let Some((_, task)) = &mut self.waiting else { return std::future::pending().await };
        let outcome = task.await.unwrap_or_else(|error| Err(error.to_string()));
        self.waiting = None;
        match outcome {
            Ok(()) => {
                self.backoff.reset();
                self.failures.0 = 0;
            }
            Err(error) => self.failures = (self.failures.0.saturating_add(1), error),
        }
    }

    /// Whether a change would be noticed now.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.is_some() && self.failure().is_none()
    }

    /// Why changes are noticed at polls only, if so.
    pub(super) fn failure(&self) -> Option<&str> {
        if self.unnumbered {
            return Some("the answers have no X-Consul-Index");
        }
        (self.failures.0 > 1).then_some(self.failures.1.as_str())
    }
}

/// Ends when the index is another one.
async fn wait(mut request: Request, index: u64) -> Result<(), String> {
    let longest = WAIT + WAIT / 16 + GRACE;
    loop {
        let began = Instant::now();
        let headers = timeout(longest, request.send_waiting(index, WAIT));
        let headers = headers.await.map_err(|_| format!("no answer within {longest:?}"))??;
        if index_of(&headers) != Some(index) {
            return Ok(());
        }
        sleep_until(began + SPACING).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_waits_for_no_change_is_not_watched() {
        let mut changes = Changes::new();
        assert!(!changes.is_waiting(), "before the first answer");
        let waiting = || AbortOnDropHandle::new(tokio::spawn(std::future::pending()));
        changes.waiting = Some((1, waiting()));
        assert!(changes.is_waiting());
        changes.failures = (2, "refused".to_owned());
        assert!(!changes.is_waiting(), "it fails again and again");
        changes.failures.0 = 0;
        changes.stop();
        assert!(!changes.is_waiting(), "after a failed poll");
    }
}
