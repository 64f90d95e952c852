//! Whether anything is under way on a connection of HTTP/2, which may be silent for ever.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::sync::watch;
use tokio::time::timeout;

/// How many requests are under way.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    /// Those whose answer is not complete.
    under_way: usize,
    /// Those of them that wait for us: what there is of their answer is taken.
    waiting: usize,
}

/// Counts requests whose answer is not complete.
#[derive(Debug, Clone, Default)]
pub(super) struct Active(Arc<watch::Sender<Counts>>);

/// One of them.
#[derive(Debug)]
pub(super) struct UnderWay {
    active: Active,
    is_waiting: bool,
}

impl Active {
    pub(super) fn begin(&self) -> UnderWay {
        self.0.send_modify(|counts| {
            counts.under_way += 1;
            counts.waiting += 1;
        });
        UnderWay { active: self.clone(), is_waiting: true }
    }

    /// Resolves once nothing was under way for so long.
    pub(super) async fn idle(&self, bound: Duration) {
        self.quiet(bound, |counts| counts.under_way == 0).await;
    }

    /// Resolves once the client has taken nothing of its answers for so long, and none of them
    /// waits for us.
    pub(super) async fn stuck(&self, bound: Duration) {
        self.quiet(bound, |counts| counts.under_way > 0 && counts.waiting == 0).await;
    }

    /// Resolves once none was under way, or the client has taken nothing, for so long.
    pub(super) async fn last(&self, bound: Duration) {
        self.quiet(bound, |counts| counts.waiting == 0).await;
    }

    /// Resolves once nothing has changed for so long, and it is so.
    async fn quiet(&self, bound: Duration, is_so: impl Fn(Counts) -> bool) {
        let mut counts = self.0.subscribe();
        loop {
            let is_quiet = timeout(bound, counts.changed()).await.is_err();
            if is_quiet && is_so(*counts.borrow()) {
                return;
            }
        }
    }
}

impl UnderWay {
    /// Whether it waits for us now. What is told again is a change, too: something was taken.
    pub(super) fn waits(&mut self, is_waiting: bool) {
        let was_waiting = std::mem::replace(&mut self.is_waiting, is_waiting);
        self.active.0.send_modify(|counts| match (was_waiting, is_waiting) {
            (false, true) => counts.waiting += 1,
            (true, false) => counts.waiting -= 1,
            _ => {}
        });
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.waits(false);
        self.active.0.send_modify(|counts| counts.under_way -= 1);
    }
}

/// A body that is under way until it ends.
pub(super) struct Counted {
    pub body: Body,
    pub under_way: UnderWay,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.under_way.waits(frame.is_pending());
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_connection_is_idle_once_nothing_is_under_way_any_more() {
        let active = Active::default();
        let (one, other) = (active.begin(), active.begin());
        drop(other);
        let never = timeout(4 * BOUND, active.idle(BOUND)).await;
        assert!(never.is_err(), "one is under way");
        drop(one);
        active.idle(BOUND).await;
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_told_from_one_that_waits_for_us() {
        let active = Active::default();
        assert!(timeout(4 * BOUND, active.stuck(BOUND)).await.is_err(), "nothing is under way");
        let (mut one, mut other) = (active.begin(), active.begin());
        one.waits(false);
        assert!(timeout(4 * BOUND, active.stuck(BOUND)).await.is_err(), "the other waits for us");
        other.waits(false);
        let counts = active.0.subscribe();
        other.waits(false);
        assert!(counts.has_changed().unwrap(), "something was taken: its time begins again");
        active.stuck(BOUND).await;
    }
}
