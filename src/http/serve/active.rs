//! Whether anything is under way on a connection of HTTP/2, which may be silent for ever.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::timeout;

/// Counts requests whose answer is not complete.
#[derive(Debug, Clone, Default)]
pub(super) struct Active(Arc<(AtomicUsize, Notify)>);

/// One of them.
#[derive(Debug)]
pub(super) struct UnderWay(Active);

impl Active {
    pub(super) fn begin(&self) -> UnderWay {
        self.0.0.fetch_add(1, Ordering::SeqCst);
        self.0.1.notify_one();
        UnderWay(self.clone())
    }

    /// Resolves once nothing was under way for so long.
    pub(super) async fn idle(&self, bound: Duration) {
        let (count, changed) = &*self.0;
        loop {
            let is_idle = count.load(Ordering::SeqCst) == 0;
            // A change meanwhile is remembered.
            match timeout(bound, changed.notified()).await {
                Err(_) if is_idle && count.load(Ordering::SeqCst) == 0 => return,
                _ => {}
            }
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.0.fetch_sub(1, Ordering::SeqCst);
        self.0.0.1.notify_one();
    }
}

/// A body that is under way until it ends.
pub(super) struct Counted {
    pub body: Body,
    pub _under_way: UnderWay,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
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

    #[tokio::test]
    async fn a_connection_is_idle_once_nothing_is_under_way_any_more() {
        const BOUND: Duration = Duration::from_millis(50);
        let active = Active::default();
        let (one, other) = (active.begin(), active.begin());
        drop(other);
        let never = timeout(4 * BOUND, active.idle(BOUND)).await;
        assert!(never.is_err(), "one is under way");
        drop(one);
        active.idle(BOUND).await;
    }
}
