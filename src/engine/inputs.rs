//! What decisions are made of, and what wakes the engine.

use std::sync::Arc;

use futures_util::future::select_all;
use mapsmith_core::desired::references::Targets;
use mapsmith_core::{Content, Overrides, ServerList, SourceState};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::Order;

/// What decisions are made of.
#[derive(Debug)]
pub struct Inputs {
    /// What each source of the node map said, in order of priority.
    pub sources: Vec<watch::Receiver<SourceState>>,
    /// What each source of server lists said, in the order of the settings.
    pub lists: Vec<watch::Receiver<SourceState<ServerList>>>,
    /// What an operator ordered.
    pub overrides: watch::Receiver<Arc<Overrides>>,
    /// What the map may point to, an instance each; none before it was observed.
    pub targets: Vec<watch::Receiver<Option<Arc<Targets>>>>,
    /// What an operator orders of the engine itself.
    pub orders: mpsc::Receiver<Order>,
}

/// What woke the engine.
pub(super) enum Wake {
    /// A source of the node map.
    Source,
    /// A source of server lists.
    List,
    /// An operator's order.
    Overrides,
    /// What the map may point to.
    Targets,
    Order(Order),
    /// Whoever feeds the engine is gone.
    Ended,
}

impl Inputs {
    /// Waits for news, of what the map may point to not before `targets_after`. Dropping the future
    /// loses nothing.
    pub(super) async fn news(&mut self, targets_after: Instant) -> Wake {
        let targets = async {
            sleep_until(targets_after).await;
            // An instance's task that ended leaves what it saw last.
            any_changed(self.targets.iter_mut().filter(|target| target.has_changed().is_ok())).await
        };
        // A poller that ended leaves its last state; only the shutdown ends pollers.
        tokio::select! {
            alive = any_changed(self.sources.iter_mut()) => match alive {
                true => Wake::Source,
                false => Wake::Ended,
            },
            alive = any_changed(self.lists.iter_mut()) => match alive {
                true => Wake::List,
                false => Wake::Ended,
            },
            Ok(()) = self.overrides.changed() => Wake::Overrides,
            true = targets => Wake::Targets,
            Some(order) = self.orders.recv() => Wake::Order(order),
        }
    }

    /// Whether every source of the node map has answered the latest round of polls that one of them
    /// has answered: a node that moves from one registry to another must not vanish in between.
    pub(super) fn round_is_whole(&self) -> bool {
        let mut answered = self.sources.iter().map(|source| source.borrow().answered);
        let first = answered.next();
        answered.all(|other| Some(other) == first)
    }

    /// Whether every source of the node map has given a good answer.
    pub(super) fn all_have_answered(&self) -> bool {
        self.sources.iter().all(|source| source.borrow().snapshot.is_some())
    }

    /// What the sources of the node map say now.
    pub(super) fn sources(&mut self) -> Vec<SourceState> {
        latest(&mut self.sources)
    }

    /// What the sources of server lists say now.
    pub(super) fn lists(&mut self) -> Vec<SourceState<ServerList>> {
        latest(&mut self.lists)
    }

    /// What the map may point to, in each instance that was observed.
    pub(super) fn targets(&mut self) -> Vec<Arc<Targets>> {
        let targets = self.targets.iter_mut();
        targets.filter_map(|target| target.borrow_and_update().clone()).collect()
    }
}

fn latest<C: Content>(states: &mut [watch::Receiver<SourceState<C>>]) -> Vec<SourceState<C>> {
    states.iter_mut().map(|state| state.borrow_and_update().clone()).collect()
}

/// Resolves when one of them has something new; false once one is gone. Without any it never does.
async fn any_changed<'a, T: 'a>(watched: impl Iterator<Item = &'a mut watch::Receiver<T>>) -> bool {
    let changes: Vec<_> = watched.map(|watched| Box::pin(watched.changed())).collect();
    if changes.is_empty() {
        return std::future::pending().await;
    }
    select_all(changes).await.0.is_ok()
}
