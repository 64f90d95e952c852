//! A feed that is made when it is first polled, and again where that failed: of a source without
//! which everything can start, and that must not be lost for good by a file that comes later.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use mapsmith_core::{Content, Snapshot};

use super::{Extent, Feed, Notes, Polled};
use crate::source::{SourceError, SourceErrorKind};

type Made<C> = Result<Box<dyn Feed<C>>, SourceError>;

/// A feed that may not be made yet.
pub(in crate::source) struct LateFeed<C: Content> {
    make: Arc<dyn Fn() -> Made<C> + Send + Sync>,
    made: Option<Box<dyn Feed<C>>>,
    reload: u64,
}

impl<C: Content> LateFeed<C> {
    /// Nothing is made yet. `make` may read files.
    pub(in crate::source) fn new(make: impl Fn() -> Made<C> + Send + Sync + 'static) -> Self {
        Self { make: Arc::new(make), made: None, reload: 0 }
    }

    async fn made(&mut self) -> Result<&mut Box<dyn Feed<C>>, SourceError> {
        let feed = match self.made.take() {
            Some(feed) => feed,
            None => {
                let make = Arc::clone(&self.make);
                let made = tokio::task::spawn_blocking(move || make()).await;
                let mut feed = made.map_err(|error| SourceError {
                    place: "its settings".to_owned(),
                    fault: SourceErrorKind::Setup(error.to_string()),
                })??;
                feed.set_reload(self.reload);
                feed
            }
        };
        Ok(self.made.insert(feed))
    }
}

#[async_trait]
impl<C: Content> Feed<C> for LateFeed<C> {
    async fn poll(
        &mut self,
        extent: Extent,
        current: Option<&Snapshot<C>>,
        now: Timestamp,
    ) -> Result<Polled<C>, SourceError> {
        self.made().await?.poll(extent, current, now).await
    }

    fn set_reload(&mut self, number: u64) {
        self.reload = number;
        self.made.iter_mut().for_each(|feed| feed.set_reload(number));
    }

    async fn look_up(
        &mut self,
        nodes: &[String],
        current: &Snapshot<C>,
        now: Timestamp,
    ) -> Result<Polled<C>, SourceError> {
        self.made().await?.look_up(nodes, current, now).await
    }

    async fn changed(&mut self) {
        match &mut self.made {
            Some(feed) => feed.changed().await,
            None => std::future::pending().await,
        }
    }

    fn beside(&self) -> Option<Box<dyn Feed<C>>> {
        self.made.as_ref()?.beside()
    }

    fn notes(&self) -> Notes {
        self.made.as_ref().map_or_else(Notes::default, |feed| feed.notes())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use mapsmith_core::status::PollKind;
    use mapsmith_core::{EntryMap, Rejections};

    use super::*;

    /// Answers that nothing is there, and knows of which reload.
    struct Empty(Arc<AtomicUsize>);

    #[async_trait]
    impl Feed<EntryMap> for Empty {
        async fn poll(
            &mut self,
            _: Extent,
            _: Option<&Snapshot>,
            _: Timestamp,
        ) -> Result<Polled<EntryMap>, SourceError> {
            let (entries, rejections) = (Arc::default(), Arc::<Rejections>::default());
            Ok(Polled { kind: PollKind::Full, entries, rejections, bytes: 0 })
        }

        fn set_reload(&mut self, number: u64) {
            self.0.store(number as usize, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn what_can_not_be_made_is_tried_again_at_each_poll_and_made_once() {
        let (tries, reload) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (tried, told) = (Arc::clone(&tries), Arc::clone(&reload));
        let mut feed = LateFeed::<EntryMap>::new(move || {
            let missing = || SourceError {
                place: "ca".to_owned(),
                fault: SourceErrorKind::Setup("is not there yet".to_owned()),
            };
            match tried.fetch_add(1, Ordering::SeqCst) {
                0 | 1 => Err(missing()),
                _ => Ok(Box::new(Empty(Arc::clone(&told)))),
            }
        });
        feed.set_reload(3);
        let mut good = Vec::new();
        for _ in 0..4 {
            let outcome = feed.poll(Extent::Everything, None, Timestamp::UNIX_EPOCH).await;
            good.push(outcome.is_ok());
        }
        assert_eq!(good, [false, false, true, true]);
        let counts = (tries.load(Ordering::SeqCst), reload.load(Ordering::SeqCst));
        assert_eq!(counts, (3, 3), "made once, and told the latest reload");
    }
}
