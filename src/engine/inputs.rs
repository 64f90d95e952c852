//! What decisions are made of, and what wakes the engine.

use std::fmt;
use std::sync::Arc;

use futures_util::future::select_all;
use jiff::Timestamp;
use mapsmith_core::desired::references::Targets;
use mapsmith_core::desired::rollout::InstanceView;
use mapsmith_core::members::MemberListings;
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
    /// The lists of members; none are there without a store.
    pub members: watch::Receiver<Arc<MemberListings>>,
    /// What an operator ordered.
    pub overrides: watch::Receiver<Arc<Overrides>>,
    /// What the map may point to, an instance each; none before it was observed.
    pub targets: Vec<watch::Receiver<Option<Arc<Targets>>>>,
    /// What an operator orders of the engine itself.
    pub orders: mpsc::Receiver<Order>,
    /// How the instances stand.
    pub instances: InstanceViews,
}

/// Tells how every instance stands, in the order of the settings.
pub struct InstanceViews(Box<dyn Fn() -> Vec<InstanceView> + Send + Sync>);

impl InstanceViews {
    pub fn new(views: impl Fn() -> Vec<InstanceView> + Send + Sync + 'static) -> Self {
        Self(Box::new(views))
    }

    pub(super) fn now(&self) -> Vec<InstanceView> {
        (self.0)()
    }
}

impl fmt::Debug for InstanceViews {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("InstanceViews").finish_non_exhaustive()
    }
}

/// What woke the engine.
pub(super) enum Wake {
    /// A source of the node map.
    Source,
    /// What is registered with Mapsmith itself.
    Registrations,
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
            changed = any_changed(self.sources.iter_mut()) => match changed {
                Some(at) if self.sources[at].borrow().registered.is_some() => Wake::Registrations,
                Some(_) => Wake::Source,
                None => Wake::Ended,
            },
            changed = any_changed(self.lists.iter_mut()) => match changed {
                Some(_) => Wake::List,
                None => Wake::Ended,
            },
            Ok(()) = self.members.changed() => Wake::List,
            Ok(()) = self.overrides.changed() => Wake::Overrides,
            Some(_) = targets => Wake::Targets,
            Some(order) = self.orders.recv() => Wake::Order(order),
        }
    }

    /// Whether every source of the node map has answered the latest round of polls that one of them
    /// has answered: a node that moves from one registry to another must not vanish in between.
    /// What is registered with Mapsmith itself is never polled.
    pub(super) fn round_is_whole(&self) -> bool {
        let states = self.sources.iter().map(|source| source.borrow());
        let polled = states.filter(|state| state.registered.is_none());
        let mut answered = polled.map(|state| state.answered);
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

    /// Takes what is registered with Mapsmith itself into what the sources said last: that is known
    /// at every moment.
    pub(super) fn take_registrations(&mut self, answers: &mut [SourceState]) {
        let now = Timestamp::now();
        for (answer, source) in answers.iter_mut().zip(&mut self.sources) {
            if answer.registered.is_some() {
                *answer = source.borrow_and_update().clone().at(now);
            }
        }
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

/// Resolves when one of them has something new, with its place; without one once one is gone. Where
/// there are none it never does.
async fn any_changed<'a, T: 'a>(
    watched: impl Iterator<Item = &'a mut watch::Receiver<T>>,
) -> Option<usize> {
    let changes: Vec<_> = watched.map(|watched| Box::pin(watched.changed())).collect();
    if changes.is_empty() {
        return std::future::pending().await;
    }
    let (changed, at, _) = select_all(changes).await;
    changed.ok().map(|()| at)
}
