//! What a poll brought.

use std::sync::Arc;

use mapsmith_core::status::PollKind;
use mapsmith_core::{Content, EntryMap, Rejections, Snapshot};

use crate::source::format::Rows;

/// What a poll brought: always the whole content, however little of it crossed the wire.
#[derive(Debug, Clone)]
pub struct Polled<C = EntryMap> {
    /// How it was learnt.
    pub kind: PollKind,
    /// Every valid entry. The very map of the current snapshot where nothing changed, so that
    /// nothing is held twice.
    pub entries: Arc<C>,
    /// What was left out; likewise shared where nothing changed.
    pub rejections: Arc<Rejections>,
    /// Bytes of the answer's body after decompression; 0 where none was sent.
    pub bytes: u64,
}

impl<C: Content> Polled<C> {
    /// What `current` holds is still so.
    pub(in crate::source) fn unchanged(current: &Snapshot<C>) -> Self {
        let (entries, rejections) = (Arc::clone(&current.entries), Arc::clone(&current.rejections));
        Self { kind: PollKind::Unchanged, entries, rejections, bytes: 0 }
    }

    /// A whole answer of so many bytes. Takes CPU time in proportion to the rows: not for an async
    /// task.
    pub(in crate::source) fn full(
        rows: impl Rows<Content = C>,
        bytes: u64,
        current: Option<&Snapshot<C>>,
    ) -> Self {
        let (entries, rejections) = rows.settle();
        Self {
            kind: PollKind::Full,
            entries: share(entries, current.map(|snapshot| &snapshot.entries)),
            rejections: share(rejections, current.map(|snapshot| &snapshot.rejections)),
            bytes,
        }
    }

    /// [`Polled::full`] off the async threads.
    pub(in crate::source) async fn settle(
        rows: impl Rows<Content = C>,
        bytes: u64,
        current: Option<&Snapshot<C>>,
    ) -> Self {
        let current = current.cloned();
        off_thread(move || Self::full(rows, bytes, current.as_ref())).await
    }
}

/// The value that is known already where the new one is equal.
pub(in crate::source) fn share<T: PartialEq>(new: T, known: Option<&Arc<T>>) -> Arc<T> {
    known.filter(|known| ***known == new).map_or_else(|| Arc::new(new), Arc::clone)
}

/// Runs what takes CPU time or blocks off the async threads. A panic goes on in the caller.
pub(in crate::source) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down: nobody waits for this any more.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn content(entries: &[(&str, &str)], rejected: &[&str]) -> (EntryMap, Rejections) {
        let mut rejections = Rejections::default();
        for node in rejected {
            rejections.push(node, mapsmith_core::Invalid::NoMaster);
        }
        (entries.iter().copied().collect(), rejections)
    }

    #[test]
    fn equal_content_is_held_once() {
        let (entries, rejections) = content(&[("a", "m1")], &["b"]);
        let snapshot = Snapshot {
            entries: Arc::new(entries),
            rejections: Arc::new(rejections),
            answered_at: Timestamp::UNIX_EPOCH,
        };
        let again =
            |entries, rejected| Polled::full(content(entries, rejected), 1, Some(&snapshot));
        let same = again(&[("a", "m1")], &["b"]);
        assert!(
            Arc::ptr_eq(&same.entries, &snapshot.entries)
                && Arc::ptr_eq(&same.rejections, &snapshot.rejections)
        );
        let other = again(&[("a", "m2")], &[]);
        assert_eq!((other.entries.get("a"), other.rejections.total()), (Some("m2"), 0));
    }
}
