//! A feed: one kind of content of a registry, asked again and again.
//!
//! [`poller`] has a task for each, [`requests`] says who is asked together, [`schedule`] when, and
//! [`targeted`] which single nodes in between.

mod answer;
mod late;
pub mod poller;
pub mod requests;
pub mod schedule;
pub mod targeted;

use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use mapsmith_core::status::Watch;
use mapsmith_core::{Content, Snapshot};

use super::SourceError;

pub use answer::Polled;
pub(super) use answer::{off_thread, share};
pub(super) use late::LateFeed;

/// How much a poll must bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// What changed will do: a delta or "not modified" is an answer.
    Changes,
    /// Everything, whatever the registry or the file says of its own changes.
    Everything,
}

/// What a feed says of itself beside its answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// Whether it notices changes by itself; none where it has no way to.
    pub watch: Option<Watch>,
    /// What is wrong although it answers.
    pub warning: Option<String>,
}

/// Who owns a node, or which servers there are, as one registry says it. Its task (see
/// [`poller::run`]) is its only user.
#[async_trait]
pub trait Feed<C: Content>: Send + Sync {
    /// Asks the registry. `current` is the last good snapshot, which an answer "not modified" or a
    /// delta builds on where `extent` allows one; `now` is the clock. Bounded in time and size by
    /// the source's settings. Dropping the future abandons the poll.
    ///
    /// # Errors
    /// Anything but a whole, understood answer.
    async fn poll(
        &mut self,
        extent: Extent,
        current: Option<&Snapshot<C>>,
        now: Timestamp,
    ) -> Result<Polled<C>, SourceError>;

    /// The number of the latest reload that the next poll answers. It only grows: an answer that
    /// only an operator can let pass is told from its repetition by it.
    fn set_reload(&mut self, _number: u64) {}

    /// Asks for these nodes alone where the registry can be asked so, else for everything, as
    /// [`Feed::poll`] does. `nodes` are valid keys, as many as one query can name. A node that is
    /// not in the answer stays as it is in `current`: what is gone shows in a full poll.
    ///
    /// # Errors
    /// As [`Feed::poll`]; the next poll is as good as without.
    async fn look_up(
        &mut self,
        _nodes: &[String],
        current: &Snapshot<C>,
        now: Timestamp,
    ) -> Result<Polled<C>, SourceError> {
        self.poll(Extent::Changes, Some(current), now).await
    }

    /// Resolves when the feed itself saw that there is something new (a file's watch); pends
    /// forever otherwise. Dropping the future loses nothing.
    async fn changed(&mut self) {
        std::future::pending().await
    }

    /// Another one that knows what this one knows, to be polled beside it; none where that would
    /// wait for the same thing.
    fn beside(&self) -> Option<Box<dyn Feed<C>>> {
        None
    }

    /// How it stands, as of its last poll.
    fn notes(&self) -> Notes {
        Notes::default()
    }
}

/// Whether everything must be asked for again, so long after it was asked for at `last`. A clock
/// that was put back says nothing about how long ago that was.
pub(super) fn is_due(full_poll: Duration, last: Timestamp, now: Timestamp) -> bool {
    now < last || now.duration_since(last) >= signed(full_poll)
}

/// Durations of settings are at most a year: what does not fit counts as the longest.
pub(super) fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}
